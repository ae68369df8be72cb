/**
 * Lines and words of vinum's text (docs/vinum.md, 2.1), and errors that say where: words end at blanks, quotes '
 * and " hold blanks together, # at the begin of a word begins a comment, and FreeBSD's copies end in NUL bytes.
 * Called by text/config.ts.
 */
import { PlexusError } from '../../../base/errors.ts'
import { didYouMean } from '../../../base/suggest.ts'

export interface Token {
  readonly text: string
  /** From 1. */
  readonly column: number
}

/** One line with words, and a place in it. */
export class TextLine {
  readonly origin: string
  /** From 1. */
  readonly number: number
  readonly tokens: readonly Token[]
  #next = 0

  constructor(origin: string, number: number, tokens: readonly Token[]) {
    this.origin = origin
    this.number = number
    this.tokens = tokens
  }

  /** The next word without taking it. */
  peek(): Token | undefined {
    return this.tokens[this.#next]
  }

  /** Column of the last word that was taken. */
  get at(): number {
    return this.tokens[this.#next - 1]?.column ?? 1
  }

  /** `FILE:LINE:COLUMN`. */
  place(column: number): string {
    return `${this.origin}:${this.number}:${column}`
  }

  /** Takes the next word; `what` must follow the one before it. */
  take(what: string): Token {
    const token = this.tokens[this.#next]
    if (token) {
      this.#next++
      return token
    }
    const last = this.tokens.at(-1)
    const column = last ? last.column + last.text.length : 1
    throw this.fault(column, `the line ends after "${last?.text ?? ''}"`, what)
  }

  fault(column: number, problem: string, right: string): PlexusError {
    const place = this.place(column)
    const message = `${place}: ${problem}; write ${right}`
    return new PlexusError('invalid', { op: 'parse', subject: place, message })
  }

  /** A word that is not one of those that may stand here. */
  unknown(token: Token, what: string, choices: readonly string[]): PlexusError {
    const near = didYouMean(token.text, choices)
    return this.fault(token.column, `unknown ${what} "${token.text}"${near}`, choices.join(' or '))
  }
}

/** The lines of the text that have words. Throws `invalid` for a quote that does not end. */
export function linesOf(text: string, origin: string): readonly TextLine[] {
  const end = text.indexOf('\0')
  const lines = (end < 0 ? text : text.slice(0, end)).split('\n')
  return lines
    .map((line, index) => tokenize(line, origin, index + 1))
    .filter((line) => line.tokens.length > 0)
}

function tokenize(text: string, origin: string, number: number): TextLine {
  const tokens: Token[] = []
  const word = /\s*(?:(#.*$)|(["'])(.*?)\2(?=\s|$)|(["'])|(\S+))/gy
  for (let match = word.exec(text); match; match = word.exec(text)) {
    const [whole, comment, quote, quoted, open, plain] = match
    if (comment !== undefined) break
    const column = match.index + whole.length - whole.trimStart().length + 1
    if (open !== undefined) {
      const line = new TextLine(origin, number, tokens)
      throw line.fault(column, `the quote ${open} does not end`, `${open} after the last letter`)
    }
    tokens.push({ text: (quote === undefined ? plain : quoted) ?? '', column })
  }
  return new TextLine(origin, number, tokens)
}

const SUFFIX_BYTES: Readonly<Record<string, number>> = {
  '': 1,
  s: 512,
  b: 512,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
}

/** Bytes of a size: vinum's suffixes s and b (512 bytes), k, m, g in either case, and t, KiB, MiB, GiB, TiB. */
export function sizeOf(line: TextLine, token: Token): number {
  const [, digits = '', suffix = ''] = /^(\d+)([a-z]*)$/i.exec(token.text) ?? []
  const factor = Object.hasOwn(SUFFIX_BYTES, suffix.toLowerCase())
    ? SUFFIX_BYTES[suffix.toLowerCase()]
    : undefined
  const bytes = digits === '' || factor === undefined ? Number.NaN : Number(digits) * factor
  if (Number.isSafeInteger(bytes)) return bytes
  throw line.fault(
    token.column,
    `"${token.text}" is not a size`,
    'whole bytes, or a number with s (sectors of 512), k, m, g or t',
  )
}
