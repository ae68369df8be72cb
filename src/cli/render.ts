/**
 * The one table renderer, behind every list of the command line (the report engine of lvm's tools): columns to
 * choose, a column to sort by, exact numbers, no headings for scripts, colour for states.
 */
import { styleText } from 'node:util'
import { formatSize } from '../base/bytes.ts'
import { PlexusError } from '../base/errors.ts'
import { didYouMean } from '../base/suggest.ts'

export type CellValue = string | number | boolean | undefined

export interface Column<T> {
  /** As typed after -o, lower case; the heading is the same in capitals. */
  readonly name: string
  readonly value: (row: T) => CellValue
  /** How a number is written without -p: a size with its unit, or as it is. Sizes and numbers stand on the right. */
  readonly kind?: 'text' | 'size' | 'number' | 'state'
  /** Only shown with -v or when -o names it. */
  readonly extra?: boolean
}

export interface TableOptions {
  /** Names of columns, comma between them; `+name` adds to the usual ones. */
  readonly output?: string | undefined
  /** Name of a column; `-name` sorts downwards. */
  readonly sort?: string | undefined
  readonly headings: boolean
  readonly exact: boolean
  readonly verbose: boolean
  readonly colour: boolean
  /** Put before each line. */
  readonly indent?: string
}

const GOOD = new Set(['UP', 'HEALTHY', 'READY', 'DONE', 'RUNNING', 'INFO'])
const BAD = new Set(['DOWN', 'FAULTED', 'FAILED', 'MISSING', 'CRITICAL', 'GONE', 'NOT READY'])

/** A state in its colour: good green, bad red, everything between yellow. */
export function stateText(state: string, colour: boolean): string {
  if (!colour || state === '') return state
  const word = state.trim().toUpperCase()
  const style = GOOD.has(word) ? 'green' : BAD.has(word) ? 'red' : 'yellow'
  return styleText(style, state, { validateStream: false })
}

function findColumn<T>(columns: readonly Column<T>[], name: string): Column<T> {
  const found = columns.find((one) => one.name === name.toLowerCase())
  if (found) return found
  const names = columns.map((one) => one.name)
  throw new PlexusError('invalid', {
    op: 'columns',
    subject: name,
    message: `there is no column "${name}"${didYouMean(name, names)}; there are: ${names.join(', ')}`,
  })
}

function chooseColumns<T>(
  columns: readonly Column<T>[],
  options: TableOptions,
): readonly Column<T>[] {
  const usual = options.verbose ? columns : columns.filter((one) => !one.extra)
  const { output } = options
  if (output === undefined) return usual
  const adds = output.startsWith('+')
  const names = (adds ? output.slice(1) : output).split(',').map((one) => one.trim())
  const chosen = names.filter((one) => one !== '').map((name) => findColumn(columns, name))
  return adds ? [...usual, ...chosen] : chosen
}

function cellText(value: CellValue, kind: Column<never>['kind'], exact: boolean): string {
  if (value === undefined || value === '') return '-'
  if (typeof value === 'boolean') return value ? 'yes' : 'no'
  if (typeof value === 'number')
    return kind === 'size' && !exact ? formatSize(value) : String(value)
  return value
}

function compare(a: CellValue, b: CellValue): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b
  const [left, right] = [String(a ?? ''), String(b ?? '')]
  return left.localeCompare(right, 'en', { numeric: true })
}

function sorted<T>(
  columns: readonly Column<T>[],
  rows: readonly T[],
  sort: string | undefined,
): readonly T[] {
  if (sort === undefined) return rows
  const down = sort.startsWith('-')
  const { value } = findColumn(columns, down ? sort.slice(1) : sort)
  const ordered = [...rows].sort((a, b) => compare(value(a), value(b)))
  return down ? ordered.reverse() : ordered
}

/** Control characters could drive the terminal; names come from labels on disks and from initiators. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  return text.replaceAll(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, '?')
}

/** An answer of the daemon with all of its texts {@link printable}: renderers need not think of it. */
export function printableAnswer(value: unknown): unknown {
  if (typeof value === 'string') return value.split('\t').map(printable).join('\t')
  if (Array.isArray(value)) return value.map(printableAnswer)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [printable(key), printableAnswer(inner)]),
  )
}

/** JSON in which every character that is not printable is escaped. */
export function jsonText(value: unknown, indent?: number): string {
  const text = JSON.stringify(value, undefined, indent)
  if (printable(text) === text) return text
  return text.replaceAll(/[^\n]/gu, (one) => (printable(one) === one ? one : escaped(one)))
}

function escaped(character: string): string {
  const units = Array.from({ length: character.length }, (_, at) => character.charCodeAt(at))
  return units.map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`).join('')
}

/**
 * The table, with a line end after each line. Without headings fields are parted by tabs, so that a script can cut
 * them. Throws `invalid` for a column that does not exist.
 */
export function renderTable<T>(
  columns: readonly Column<T>[],
  rows: readonly T[],
  options: TableOptions,
): string {
  const chosen = chooseColumns(columns, options)
  const { indent = '', headings, exact } = options
  const lines = sorted(columns, rows, options.sort).map((row) =>
    chosen.map(({ value, kind }) =>
      printable(cellText(value(row), kind, exact)).replaceAll('\n', ' '),
    ),
  )
  if (!headings) return lines.map((cells) => `${cells.join('\t')}\n`).join('')
  const table = [chosen.map(({ name }) => name.toUpperCase()), ...lines]
  const widths = chosen.map((_, at) => Math.max(...table.map((cells) => (cells[at] ?? '').length)))
  const draw = (cells: readonly string[], isHeading: boolean): string => {
    const parts = cells.map((text, at) => {
      const kind = chosen[at]?.kind
      const width = widths[at] ?? 0
      const padded =
        kind === 'size' || kind === 'number' ? text.padStart(width) : text.padEnd(width)
      return kind === 'state' && !isHeading ? stateText(padded, options.colour) : padded
    })
    return `${indent}${parts.join('  ').trimEnd()}\n`
  }
  return table.map((cells, at) => draw(cells, at === 0)).join('')
}

/** `key  value` lines of one object; what is undefined is left out. */
export function renderRecord(
  fields: readonly (readonly [string, CellValue, Column<never>['kind']?])[],
  exact: boolean,
): string {
  const known = fields.filter(([, value]) => value !== undefined)
  const width = Math.max(0, ...known.map(([name]) => name.length))
  return known
    .map(([name, value, kind]) => {
      const text = printable(cellText(value, kind, exact))
      return `  ${`${name}:`.padEnd(width + 2)}${text}\n`
    })
    .join('')
}
