/**
 * The parameters of a verb against its declaration (verb-spec.ts): unknown keys, missing arguments, wrong types
 * and words that are no choice are refused, with what is right. Called by daemon/control-server.ts for every
 * request, so that no verb checks again.
 */
import { PlexusError } from '../base/errors.ts'
import { didYouMean } from '../base/suggest.ts'
import { commandName } from './daemon-verbs.ts'
import type { VerbSpec } from './verb-spec.ts'

/** `stripeSize` as it is typed: `--stripe-size`. */
export function optionFlag(name: string): string {
  return `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
}

type Shape = 'flag' | 'text' | 'list'

interface Row {
  readonly name: string
  /** For messages: `argument <name>`, `--stripe-size`. */
  readonly title: string
  readonly shape: Shape
  readonly choices: readonly string[] | undefined
  readonly required: boolean
}

function rowsOf(spec: VerbSpec): Row[] {
  const rows: Row[] = spec.arguments.map((one) => ({
    name: one.name,
    title: `<${one.name}>`,
    shape: one.variadic ? 'list' : 'text',
    choices: one.choices,
    required: !one.optional,
  }))
  for (const one of spec.options) {
    const shape = one.value === undefined ? 'flag' : one.variadic ? 'list' : 'text'
    const title = optionFlag(one.name)
    rows.push({ name: one.name, title, shape, choices: one.choices, required: false })
  }
  if (spec.dryRun) {
    rows.push({
      name: 'dryRun',
      title: '--dry-run',
      shape: 'flag',
      choices: undefined,
      required: false,
    })
  }
  return rows
}

const isText = (value: unknown): boolean => typeof value === 'string'

const SHAPES: Readonly<Record<Shape, { fits(value: unknown): boolean; words: string }>> = {
  flag: { fits: (value) => typeof value === 'boolean', words: 'true or false' },
  text: { fits: isText, words: 'a text' },
  list: {
    fits: (value) => Array.isArray(value) && value.every(isText),
    words: 'a list of texts',
  },
}

/**
 * The checked parameters: exactly what the spec declares. A flag that is false is left out, so that a verb finds
 * true or nothing. Throws `invalid`.
 */
export function checkParameters(
  spec: VerbSpec,
  given: Readonly<Record<string, unknown>>,
): Readonly<Record<string, string | boolean | readonly string[]>> {
  const rows = rowsOf(spec)
  const command = commandName(spec)
  const refuse = (text: string): PlexusError =>
    new PlexusError('invalid', { op: 'check', subject: command, message: `${command}: ${text}` })
  const names = rows.map(({ name }) => name)
  for (const key of Object.keys(given)) {
    if (names.includes(key)) continue
    const known = names.length === 0 ? 'it takes none' : `it takes ${names.join(', ')}`
    throw refuse(`there is no parameter "${key}"${didYouMean(key, names)}; ${known}`)
  }
  const checked: [string, string | boolean | readonly string[]][] = []
  for (const row of rows) {
    const value = Object.hasOwn(given, row.name) ? given[row.name] : undefined
    const isEmptyList = Array.isArray(value) && value.length === 0
    if (value === undefined || isEmptyList) {
      if (row.required) throw refuse(`${row.title} is missing; plexus ${command} --help shows it`)
      continue
    }
    const { fits, words } = SHAPES[row.shape]
    if (!fits(value)) throw refuse(`${row.title} must be ${words}`)
    checkChoices(row, value as string | boolean | readonly string[], refuse)
    if (value !== false) checked.push([row.name, value as string | boolean | readonly string[]])
  }
  return Object.fromEntries(checked)
}

function checkChoices(
  row: Row,
  value: string | boolean | readonly string[],
  refuse: (text: string) => PlexusError,
): void {
  const { choices, title } = row
  if (!choices || typeof value === 'boolean') return
  for (const word of typeof value === 'string' ? [value] : value) {
    if (choices.includes(word)) continue
    throw refuse(
      `${title} must be one of ${choices.join(', ')}, not "${word}"${didYouMean(word, choices)}`,
    )
  }
}

/** A value that must not be in a log, by the name of its parameter. */
const SECRET = /secret|password/i

/**
 * A call as it would be typed, for the log: `plexus volume grow db d4 --wipe-signatures`. Of a file there is its length,
 * of a secret nothing.
 */
export function commandText(spec: VerbSpec, parameters: Readonly<Record<string, unknown>>): string {
  const wordsOf = (name: string, kind: string | undefined): readonly string[] => {
    const value = parameters[name]
    if (value === undefined || typeof value === 'boolean') return []
    const texts = (Array.isArray(value) ? value : [value]).map(String)
    if (SECRET.test(name)) return ['(secret)']
    return kind === 'file' ? [`(a file of ${texts.join('').length} characters)`] : texts
  }
  const words = spec.arguments.flatMap(({ name, kind }) => wordsOf(name, kind))
  const options = [...spec.options, { name: 'dryRun', value: undefined }].flatMap(
    ({ name, value }) =>
      parameters[name] === undefined ? [] : [optionFlag(name), ...wordsOf(name, value)],
  )
  return ['plexus', commandName(spec), ...words, ...options].join(' ')
}
