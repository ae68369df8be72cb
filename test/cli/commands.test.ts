/**
 * Every command that the programs print and the documents show, parsed by the command line's own parser without running it:
 * an unknown option, a missing argument or a word that is no choice fails here instead of in front of an administrator.
 * Commands are found in the texts of the sources (`plexus NOUN VERB …`) and in the documents; what stands for a value is
 * put in its place.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { CommanderError } from 'commander'
import t from 'tap'
import ts from 'typescript'
import { addLocalCommands } from '../../src/cli/local.ts'
import { makeProgram } from '../../src/cli/program.ts'
import { ALL_VERB_SPECS } from '../../src/control/all-verbs.ts'
import { JOB_KINDS } from '../../src/control/reports.ts'
import { TestTerminal } from '../support/control.ts'
import { ROOT } from '../support/root.ts'

/** A text with the place where it stands. */
interface Text {
  readonly where: string
  readonly text: string
}

/** Why the parser refuses a command; undefined: it takes it. Nothing is run. */
function refusal(words: readonly string[]): string | undefined {
  const terminal = new TestTerminal()
  const program = makeProgram(terminal, () => {})
  addLocalCommands(program, terminal, () => {})
  try {
    program.parse([...words], { from: 'user' })
    return undefined
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return undefined
    return `${error.message} ${terminal.errText.trim()}`
  }
}

/** The texts of a source file. Texts that `+` joins are one; an expression in a template stays as `${expression}`. */
function textsOf(path: string): Text[] {
  const file = ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true)
  const found: Text[] = []
  const textOf = (node: ts.Node): string | undefined => {
    if (ts.isStringLiteralLike(node)) return node.text
    if (ts.isTemplateExpression(node)) {
      const spans = node.templateSpans.map(
        ({ expression, literal }) =>
          `\${${expression.getText().replaceAll(/\s/g, '')}}${literal.text}`,
      )
      return node.head.text + spans.join('')
    }
    if (!ts.isBinaryExpression(node) || node.operatorToken.kind !== ts.SyntaxKind.PlusToken) {
      return undefined
    }
    const [left, right] = [textOf(node.left), textOf(node.right)]
    return left === undefined || right === undefined ? undefined : left + right
  }
  const visit = (node: ts.Node): void => {
    const text = textOf(node)
    if (text !== undefined) {
      const { line } = file.getLineAndCharacterOfPosition(node.getStart())
      found.push({ where: `${relative(ROOT, path)}:${line + 1}`, text })
    }
    // Texts that were joined are not looked at one by one; templates may have texts in their expressions.
    if (text === undefined || ts.isTemplateExpression(node)) ts.forEachChild(node, visit)
  }
  visit(file)
  return found
}

function filesIn(folder: string, ending: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(ending))
    .map((name) => join(ROOT, folder, name))
}

const NOUNS = new Set(ALL_VERB_SPECS.map(({ noun, name }) => noun || name))

/** In the texts of the program `${…}` and NAME stand for values; in examples d1, db.p0, j4e4d and files are values. */
const isValue = (word: string): boolean => /^(\$\{.*\}|[A-Z][A-Z0-9-]*(\.yaml)?)$/.test(word)
const isExample = (word: string): boolean => /^(db|d\d|db\.p\d\S*|j[0-9a-f]{4})$/.test(word)

/** Where a sentence ends a command: `plexus events.` and `(plexus vinum list)`. */
const END = /[.,;:)"]+$/

/**
 * The words of the command that begins a text, up to where the sentence goes on: after the verb only options, values of
 * options and what stands for a value belong to it.
 */
function commandAt(text: string): string[] {
  const all = text.split(/\s+/).slice(1)
  const noun = all[0]?.replace(END, '') ?? ''
  const verbs = ALL_VERB_SPECS.filter((one) => one.noun === noun && noun !== 'events')
  const words: string[] = []
  let option: string | undefined
  for (const [at, raw] of all.entries()) {
    const word = raw.startsWith('${')
      ? raw.slice(0, raw.lastIndexOf('}') + 1)
      : raw.replace(END, '')
    const isVerb = at === 1 && verbs.length > 0
    const isChoice = verbs.some(({ name, arguments: [first] }) => {
      return name === words[1] && first?.choices?.includes(word)
    })
    const belongs =
      at === 0 ||
      isVerb ||
      isChoice ||
      option ||
      isValue(word) ||
      isExample(word) ||
      /^--?[a-z]/.test(word)
    if (!belongs) break
    words.push(word)
    option = /^--[a-z-]+$/.test(word) && takesValue(word) ? word : undefined
    if (word !== raw) break
  }
  return words
}

function takesValue(flag: string): boolean {
  const name = flag.slice(2).replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())
  return ALL_VERB_SPECS.some(({ options }) => options.some((one) => one.name === name && one.value))
}

/** A value that may be one of several is tried with each of them. */
function variants(words: readonly string[]): string[][] {
  const kinds = words.some((word) => /^\$\{.*kind\}$/.test(word)) ? JOB_KINDS : ['x']
  return kinds.map((kind) => words.map((word) => (word.startsWith('${') ? kind : word)))
}

/** All commands within sentences. */
function commandsIn(text: string): string[][] {
  const starts = [...text.matchAll(/(?<![\w/-])plexus (?=([a-z]+))/g)]
  return starts
    .filter(([, noun]) => NOUNS.has(noun ?? ''))
    .map(({ index }) => commandAt(text.slice(index)))
}

function checkAll(texts: readonly (Text & { readonly words: readonly string[] })[]): string[] {
  return texts.flatMap(({ where, words }) =>
    variants(words).flatMap((one) => {
      const why = refusal(one)
      return why === undefined ? [] : [`${where}: plexus ${words.join(' ')}: ${why}`]
    }),
  )
}

const sources = filesIn('src', '.ts').flatMap(textsOf)
const documents = [join(ROOT, 'README.md'), ...filesIn('docs', '.md')].filter(
  (path) => !path.endsWith('cli-reference.md'),
)

t.test('commands that the programs print', async (t) => {
  const found = sources.flatMap((one) => commandsIn(one.text).map((words) => ({ ...one, words })))
  t.ok(found.length > 60, `${found.length} commands`)
  t.strictSame(checkAll(found), [])
})

t.test('a verb that is printed with its arguments is a whole command', async (t) => {
  // Those that are no words of English.
  const verbs = ALL_VERB_SPECS.filter(({ name }) => /-|state$|parity$|config$/.test(name))
  const names = verbs.map(({ name }) => name).join('|')
  const bare = new RegExp(`(?<!plexus [a-z]+ )(?<![\\w-])(${names}) (--|\\$\\{|up |down )`)
  const wrong = sources.filter(({ text }) => bare.test(text))
  t.strictSame(wrong, [])
})

/** Code spans, and lines of code blocks: after `$ ` a command, elsewhere output, which may print some. */
function documentCommands(path: string): (Text & { readonly words: readonly string[] })[] {
  let inBlock = false
  return readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((line, at) => {
      const where = `${relative(ROOT, path)}:${at + 1}`
      if (line.trimStart().startsWith('```')) inBlock = !inBlock
      const typed = /^\s*(?:\$ )?(plexus [a-z][^#|>]*)/.exec(line)?.[1]
      const whole = (text: string): string[] => text.trim().split(/\s+/).slice(1)
      if (typed && (inBlock || /^ {3,}/.test(line)))
        return [{ where, text: line, words: whole(typed) }]
      if (inBlock) return commandsIn(line).map((words) => ({ where, text: line, words }))
      const spans = [...line.matchAll(/`(plexus [^`]*)`/g)].map((match) => whole(match[1] ?? ''))
      return spans
        .filter((words) => !isMention(words))
        .map((words) => ({ where, text: line, words }))
    })
}

/** A document may speak of a verb by its name alone. */
function isMention(words: readonly string[]): boolean {
  const spoken = words.join(' ')
  return ALL_VERB_SPECS.some(
    ({ noun, name }) => spoken === noun || spoken === (noun === '' ? name : `${noun} ${name}`),
  )
}

t.test('commands that the documents show', async (t) => {
  const found = documents.flatMap(documentCommands)
  t.ok(found.length > 40, `${found.length} commands`)
  t.strictSame(checkAll(found), [])
})
