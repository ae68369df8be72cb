/**
 * plexus.yaml as text with positions: finds the line and column of any value or key, and collects every
 * problem with its place, so that one run names all of them. Used by config.ts and config-checks.ts.
 */
import { basename } from 'node:path'
import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  visit,
} from 'yaml'
import { CONFIG_PROBLEMS } from '../base/limits.ts'
import { didYouMean } from '../base/suggest.ts'

export type ConfigPath = readonly PropertyKey[]

/** One thing that is wrong (or, as a warning, doubtful) in a configuration. */
export interface Problem {
  /** `plexus.yaml:31:9`: file, line and column, from 1. */
  readonly where: string
  readonly line: number
  readonly column: number
  readonly message: string
}

export class ConfigSource {
  readonly file: string
  /** The parsed YAML as plain values; undefined when it could not be parsed. */
  readonly value: unknown
  readonly #problems: Problem[] = []
  readonly #warnings: Problem[] = []
  readonly #lines = new LineCounter()
  readonly #document: Document
  #omitted = 0

  /** Parses `text`; syntax errors become problems. `file` is named in messages by its last part. */
  constructor(text: string, file: string) {
    this.file = file
    this.#document = parseDocument(text, {
      lineCounter: this.#lines,
      prettyErrors: false,
      stringKeys: true,
    })
    for (const error of this.#document.errors)
      this.#add(this.#problems, error.pos[0], error.message)
    for (const error of this.#document.warnings) {
      this.#add(this.#problems, error.pos[0], error.message)
    }
    // It would be lost without a message: no JavaScript object has it as an ordinary key.
    visit(this.#document, {
      Pair: (_, { key }) => {
        if (!isScalar(key) || key.value !== '__proto__') return
        this.#add(this.#problems, startOf(key) ?? 0, '"__proto__" cannot be a name or a key here')
      },
    })
    this.value = this.#problems.length === 0 ? this.#plainValue() : undefined
  }

  /** Problems in the order of the text, {@link CONFIG_PROBLEMS} at most; the last one counts the others. */
  get problems(): readonly Problem[] {
    const described = inOrder(this.#problems)
    if (this.#omitted === 0) return described
    const message = `${this.#omitted} more problems are not listed; mend these first`
    return [...described, { where: basename(this.file), line: 0, column: 0, message }]
  }

  /** No other problem is described, only counted: what costs time to say is not needed. */
  get isFull(): boolean {
    return this.#problems.length >= CONFIG_PROBLEMS
  }

  /** As suggest.ts has it, while problems are described. */
  didYouMean(name: string, known: Iterable<string>): string {
    return this.isFull ? '' : didYouMean(name, known)
  }

  get warnings(): readonly Problem[] {
    return inOrder(this.#warnings)
  }

  /** Adds a problem at the value at `path`, or at the nearest enclosing value that is in the text. */
  problem(path: ConfigPath, message: string): void {
    if (this.isFull) this.#omitted++
    else this.#add(this.#problems, this.#offsetOf(path, 'value'), message)
  }

  /** Adds a problem at the key that `path` ends with. */
  problemAtKey(path: ConfigPath, message: string): void {
    if (this.isFull) this.#omitted++
    else this.#add(this.#problems, this.#offsetOf(path, 'key'), message)
  }

  warning(path: ConfigPath, message: string): void {
    this.#add(this.#warnings, this.#offsetOf(path, 'value'), message)
  }

  #add(list: Problem[], offset: number, message: string): void {
    const { line, col } = this.#lines.linePos(offset)
    const where = `${basename(this.file)}:${Math.max(line, 1)}:${Math.max(col, 1)}`
    list.push({ where, line, column: col, message })
  }

  #plainValue(): unknown {
    try {
      return this.#document.toJS({ maxAliasCount: 100 })
    } catch (error) {
      this.#add(this.#problems, 0, error instanceof Error ? error.message : String(error))
      return undefined
    }
  }

  #offsetOf(path: ConfigPath, what: 'key' | 'value'): number {
    let node: unknown = this.#document.contents
    let offset = startOf(node) ?? 0
    for (const [index, part] of path.entries()) {
      if (isAlias(node)) node = node.resolve(this.#document)
      const last = index === path.length - 1
      if (isMap(node)) {
        const pair = node.items.find(
          (one) => (isScalar(one.key) ? String(one.key.value) : String(one.key)) === String(part),
        )
        if (!pair) break
        node = pair.value
        offset = (last && what === 'key' ? undefined : startOf(node)) ?? startOf(pair.key) ?? offset
      } else if (isSeq(node)) {
        node = node.items[Number(part)]
        offset = startOf(node) ?? offset
      } else break
    }
    return offset
  }
}

function startOf(node: unknown): number | undefined {
  return isNode(node) ? (node.range?.[0] ?? undefined) : undefined
}

function inOrder(problems: readonly Problem[]): readonly Problem[] {
  return problems.toSorted((a, b) => a.line - b.line || a.column - b.column)
}
