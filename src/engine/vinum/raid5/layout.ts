/**
 * Where the bytes of a RAID5 plex lie: pure arithmetic between plex space and (row, column). A row is one
 * stripe unit on each column; one of them holds parity, which moves one column to the left from row to row.
 * left-asymmetric is vinum's layout (docs/vinum.md, 7), left-symmetric is md's default:
 *
 *   n = 4   left-asymmetric    left-symmetric
 *   row 0   D0  D1  D2  P      D0  D1  D2  P
 *   row 1   D3  D4  P   D5     D4  D5  P   D3
 *   row 2   D6  P   D7  D8     D8  P   D6  D7
 *   row 3   P   D9  D10 D11    P   D9  D10 D11
 *
 * Offsets and lengths are bytes; "column space" is the address within a subdisk.
 */
import { assert } from '../../../base/assert.ts'
import type { ParityLayout } from '../model/model.ts'

export interface Raid5Layout {
  /** Subdisks, one of them for parity in each row. At least 2; vinum demands 3. */
  readonly columns: number
  readonly stripeBytes: number
  readonly parityLayout: ParityLayout
  /** Data of one row: (columns - 1) * stripe. */
  readonly rowDataBytes: number
}

/** Where a byte of plex space lies. */
export interface Place {
  readonly row: number
  readonly column: number
  /** In column space. */
  readonly columnOffset: number
}

export function createLayout(
  columns: number,
  stripeBytes: number,
  parityLayout: ParityLayout,
): Raid5Layout {
  assert(columns >= 2 && stripeBytes > 0, `a RAID5 of ${columns} columns of ${stripeBytes} bytes`)
  return { columns, stripeBytes, parityLayout, rowDataBytes: (columns - 1) * stripeBytes }
}

/** The row of a byte of plex space. */
export function rowOf(layout: Raid5Layout, offset: number): number {
  return Math.floor(offset / layout.rowDataBytes)
}

/** First byte of a row in plex space. */
export function rowStart(layout: Raid5Layout, row: number): number {
  return row * layout.rowDataBytes
}

/** The column that holds parity in a row. */
export function parityColumn(layout: Raid5Layout, row: number): number {
  return layout.columns - 1 - (row % layout.columns)
}

const DATA_COLUMN: Readonly<
  Record<ParityLayout, (columns: number, parity: number, index: number) => number>
> = {
  'left-asymmetric': (_columns, parity, index) => (index >= parity ? index + 1 : index),
  'left-symmetric': (columns, parity, index) => (parity + 1 + index) % columns,
}

const DATA_INDEX: Readonly<
  Record<ParityLayout, (columns: number, parity: number, column: number) => number>
> = {
  'left-asymmetric': (_columns, parity, column) => (column > parity ? column - 1 : column),
  'left-symmetric': (columns, parity, column) => (column - parity - 1 + columns) % columns,
}

/** The column of data unit `index` (0 to columns - 2) of a row. */
export function dataColumn(layout: Raid5Layout, row: number, index: number): number {
  const parity = parityColumn(layout, row)
  return DATA_COLUMN[layout.parityLayout](layout.columns, parity, index)
}

/** Which data unit of the row a column holds; -1 for the parity. */
export function dataIndex(layout: Raid5Layout, row: number, column: number): number {
  const parity = parityColumn(layout, row)
  if (column === parity) return -1
  return DATA_INDEX[layout.parityLayout](layout.columns, parity, column)
}

/** Where a byte of plex space lies. */
export function locate(layout: Raid5Layout, offset: number): Place {
  const { stripeBytes } = layout
  const row = rowOf(layout, offset)
  const inRow = offset - rowStart(layout, row)
  const index = Math.floor(inRow / stripeBytes)
  return {
    row,
    column: dataColumn(layout, row, index),
    columnOffset: row * stripeBytes + (inRow - index * stripeBytes),
  }
}

/** The byte of plex space at a place; undefined where parity lies. */
export function plexOffsetOf(
  layout: Raid5Layout,
  column: number,
  columnOffset: number,
): number | undefined {
  const { stripeBytes } = layout
  const row = Math.floor(columnOffset / stripeBytes)
  const index = dataIndex(layout, row, column)
  if (index < 0) return undefined
  return rowStart(layout, row) + index * stripeBytes + (columnOffset - row * stripeBytes)
}
