/**
 * Steps of the long work on a RAID5 plex, each over a few rows that are locked meanwhile and released after it: rebuild of a
 * column, first computation of parity, check and repair, and resync after a crash. A step resolves to the offset of plex
 * space that is done, and rejects where anything could not be written; where a block cannot be read a rebuild goes on, and
 * says what is lost.
 *
 * Rows lie one behind the other on every column, so one request per column reads many of them, and the XOR of all
 * columns but one is that one, wherever parity lies.
 */
import type { ByteRange } from '../../../base/bytes.ts'
import { PlexusError } from '../../../base/errors.ts'
import { LOST_RANGES, RAID5_REPAIR_BYTES } from '../../../base/limits.ts'
import { RangeSet } from '../../../base/range-set.ts'
import { slice as part, settled } from '../../jobs/slices.ts'
import { flushDrives } from '../io/transfers.ts'
import type { Subdisk } from '../runtime.ts'
import { parityColumn, type Raid5Layout, rowStart } from './layout.ts'
import { type ColumnRange, withLost, withoutLost } from './lost.ts'
import type { Raid5Plex } from './plex-raid5.ts'
import {
  BAD_BLOCK,
  columnRange,
  eachSlice,
  laneOffset,
  move,
  readRuns,
  requireColumns,
  requireRow,
  rowsOf,
  runsOf,
  type Slice,
  type Span,
  withHeldRow,
  withRows,
  xorOthers,
} from './row-slices.ts'
import { rowState } from './row-state.ts'

export interface CheckResult {
  /** Plex space below it is done. */
  readonly offset: number
  /** One for each row whose parity was wrong: the plex offset of the row plus where in its units it begins to differ. */
  readonly mismatches: readonly number[]
}

/**
 * Computes the content of `column` from the others and writes it; what is written goes out of what it has `missing`,
 * which the caller has set. What is lost and the column still has is read from it: there parity is computed. Blocks of
 * others that cannot be read cost the blocks of the column that they stand for: those are lost from then on, and `onLost`
 * is called with their bytes. Rejects with `io` when another column is missing or has failed, or parity was never computed.
 */
export function rebuildStep(
  plex: Raid5Plex,
  column: Subdisk,
  offset: number,
  maxBytes: number,
  onLost: (bytes: number) => void = () => {},
): Promise<number> {
  const index = plex.subdisks.indexOf(column)
  return withRows(plex, offset, maxBytes, async (span) => {
    const { layout, firstRow, rows, end } = span
    const start = rowStart(layout, firstRow)
    await plex.log?.takeBack(index)
    await plex.log?.retire(firstRow, rows)
    // In the old layout of a growth the new columns hold nothing yet.
    if (index < layout.columns) {
      // Parity is known from the first row on.
      if (rowState(plex, layout, firstRow + rows - 1).parityState === 'unknown') {
        throw plex.cannotReconstruct(layout, firstRow, index, 'unknown')
      }
      requireColumns(span, index)
      for (let row = firstRow; row < firstRow + rows; row++) {
        const isDoubted = rowState(plex, layout, row).parityState === 'doubt'
        if (isDoubted) await plex.settleWithout(layout, row)
      }
      await rebuildColumn(span, index, onLost)
    }
    column.missing?.remove(start, end - start)
    return end
  })
}

async function rebuildColumn(
  span: Span,
  column: number,
  onLost: (bytes: number) => void,
): Promise<void> {
  const { plex } = span
  const { uuid } = plex.column(column).record
  const all = columnRange(span)
  const computed = new RangeSet([all])
  for (const one of plex.record.lost ?? []) {
    const isKept = one.column === column && one.keptBy === uuid
    if (isKept) computed.remove(one.offsetBytes, one.lengthBytes)
  }
  for (const range of computed.ranges) {
    await compute(span, range, { target: () => column, onLost })
  }
  const own = new RangeSet([all])
  for (const range of computed.ranges) own.remove(range.offset, range.length)
  if (own.ranges.length === 0) return
  for (const range of own.ranges) {
    await compute(span, range, { ...parityOf(span.layout), own: column })
  }
  // Else a power cut could leave parity from which the column is computed as it is not.
  await flushDrives(plex.subdisks)
  const known = own.ranges.map((one) => ({ column, ...one }))
  await plex.host.changeLost(plex, (lost) => withoutLost(lost, known, plex.onlyLayout))
}

/** Computes the parity of rows, and moves the plex's mark of what is right. Needs all columns. */
export function initialiseStep(plex: Raid5Plex, offset: number, maxBytes: number): Promise<number> {
  return withRows(plex, offset, maxBytes, async (span) => {
    requireColumns(span)
    await plex.log?.retire(span.firstRow, span.rows)
    await compute(span, columnRange(span), parityOf(span.layout))
    plex.markParity(offset, span.end - offset)
    return span.end
  })
}

/** Takes the doubt off rows, one by one: see {@link settle}. */
export function resyncStep(plex: Raid5Plex, offset: number, maxBytes: number): Promise<number> {
  return withRows(plex, offset, maxBytes, async (span) => {
    const { firstRow, rows } = span
    await plex.log?.retire(firstRow, rows)
    for (let row = firstRow; row < firstRow + rows; row++) {
      await settle({ ...span, firstRow: row, rows: 1 })
    }
    return span.end
  })
}

/** Takes the doubt off one row, which the caller holds: before anything else is written there. See {@link settle}. */
export function settleRow(plex: Raid5Plex, layout: Raid5Layout, row: number): Promise<void> {
  return withHeldRow(plex, layout, row, settle)
}

/**
 * Computes the parity of a row anew from its data. A row without its parity column needs nothing; what a row in doubt
 * without a data column has there is lost (Raid5Plex.settleWithout).
 */
async function settle(one: Span): Promise<void> {
  const { plex, layout, firstRow } = one
  const { unreadable, parityState } = rowState(plex, layout, firstRow)
  if (unreadable.size > 0 && parityState === 'doubt') {
    await plex.settleWithout(layout, firstRow)
    return
  }
  requireColumns(one)
  await compute(one, columnRange(one), parityOf(layout))
  plex.settled(layout, firstRow, 1)
}

/**
 * Reads rows, each once, and compares their parity. `repair` writes the right parity: data is taken to be
 * right. A block that cannot be read is computed and written again, as far as its drive takes it. Needs all columns.
 */
export function checkStep(
  plex: Raid5Plex,
  offset: number,
  maxBytes: number,
  { repair }: { readonly repair: boolean },
): Promise<CheckResult> {
  return withRows(plex, offset, maxBytes, async (span) => {
    requireColumns(span)
    // Else a replay would write the old parity over the right one.
    if (repair) await plex.log?.retire(span.firstRow, span.rows)
    const wrong = new Map<number, number>()
    await eachSlice(span, columnRange(span), async (slice) => {
      await readAll(slice)
      await compare(slice, repair, wrong)
    })
    return { offset: span.end, mismatches: [...wrong.values()].sort((a, b) => a - b) }
  })
}

interface Wanted {
  /** The column that is computed in a row. */
  target(row: number): number
  /** A column whose content counts, though it is not valid yet. */
  readonly own?: number
  /** Blocks that cannot be computed since another column's cannot be read are lost; without it that rejects. */
  readonly onLost?: (bytes: number) => void
}

function parityOf(layout: Raid5Layout): Wanted {
  return { target: (row) => parityColumn(layout, row) }
}

/** Computes a column in each row from all others, and writes it. */
async function compute(
  span: Span,
  range: ByteRange,
  { target, own = -1, onLost }: Wanted,
): Promise<void> {
  const { plex } = span
  const block = Math.max(...plex.subdisks.map(({ drive }) => drive.record.blockBytes))
  await eachSlice(span, range, async (slice) => {
    const reads = runsOf(slice, (row, column) => column !== target(row))
    const bad = await readRuns(slice, reads, onLost ? [RAID5_REPAIR_BYTES, block] : [])
    for (const { row, offset, length } of rowsOf(slice)) {
      requireRow(span, row, target(row), own)
      xorOthers(slice, target(row), offset, length)
    }
    if (bad.length > 0) onLost?.(await loseBlocks(slice, bad, target))
    const writes = runsOf(slice, (row, column) => column === target(row))
    await settled(writes.map((run) => move('write', slice, run)))
  })
}

/**
 * Blocks that stand for others which could not be read are zeroes, and nobody reads them as data; the rows are in doubt,
 * durably, until the others have been written again: parity makes up for none of them. Resolves to the bytes of data lost.
 */
async function loseBlocks(
  slice: Slice,
  bad: readonly ColumnRange[],
  target: (row: number) => number,
): Promise<number> {
  const { plex, layout } = slice.span
  let bytes = 0
  for (const { column, offset, length } of bad) {
    const row = Math.floor(offset / layout.stripeBytes)
    const into = target(row)
    part(slice.buffer, laneOffset(slice, into, offset), length).bytes.fill(0)
    const { lost, name } = plex.record
    const { record, drive } = plex.column(column)
    if ((lost?.length ?? 0) >= LOST_RANGES) {
      throw new PlexusError('io', {
        op: 'rebuild',
        subject: name,
        message: `${name}: too many blocks of subdisk ${record.name} on drive ${drive.record.name} cannot be read; replace that drive first`,
      })
    }
    const why =
      `${length} bytes at ${offset} of subdisk ${record.name} cannot be read from drive ${drive.record.name} while ` +
      `subdisk ${plex.column(into).record.name} is rebuilt`
    plex.tear(layout, row, 1)
    await plex.host.putInDoubt(plex, rowStart(layout, row), layout.rowDataBytes, why)
    if (into === parityColumn(layout, row)) continue
    bytes += length
    await plex.host.changeLost(plex, (now) => withLost(now, into, [{ offset, length }], undefined))
  }
  return bytes
}

/** Reads all columns. What cannot be read is computed from the others and written again. */
async function readAll(slice: Slice): Promise<void> {
  const runs = runsOf(slice, () => true)
  const bad = await readRuns(slice, runs, [RAID5_REPAIR_BYTES])
  for (const piece of bad) await repairPiece(slice, piece, bad)
}

async function repairPiece(
  slice: Slice,
  piece: ColumnRange,
  bad: readonly ColumnRange[],
): Promise<void> {
  const { column, offset, length } = piece
  const { plex, layout } = slice.span
  const row = Math.floor(offset / layout.stripeBytes)
  const { parityState } = rowState(plex, layout, row)
  const alone = bad.every(
    (other) =>
      other.column === column ||
      offset + length <= other.offset ||
      other.offset + other.length <= offset,
  )
  if (parityState !== 'right' || !alone) {
    throw plex.cannotReconstruct(layout, row, column, parityState)
  }
  requireRow(slice.span, row)
  xorOthers(slice, column, offset, length)
  try {
    await move('write', slice, piece)
    plex.host.noteRepair(plex.column(column), offset, length)
  } catch (error) {
    // The others make up for it, as before.
    if (!(error instanceof PlexusError && BAD_BLOCK.has(error.kind))) throw error
  }
}

/** Compares the parity of the rows in a slice, all of whose columns have been read. */
async function compare(slice: Slice, repair: boolean, wrong: Map<number, number>): Promise<void> {
  const { span, buffer } = slice
  const { plex, layout } = span
  for (const { row, offset, length } of rowsOf(slice)) {
    const parity = parityColumn(layout, row)
    xorOthers(slice, parity, offset, length, true)
    const right = part(buffer, laneOffset(slice, layout.columns, offset), length)
    const found = part(buffer, laneOffset(slice, parity, offset), length)
    if (right.bytes.equals(found.bytes)) continue
    requireRow(span, row)
    const subdisk = plex.column(parity)
    const inUnit = offset - row * layout.stripeBytes + firstDifference(right.bytes, found.bytes)
    // Once for each row, whichever of its slices is the first to be compared.
    const known = wrong.get(row)
    if (known === undefined) plex.host.noteError(subdisk, 'parity', undefined)
    wrong.set(row, Math.min(known ?? Number.POSITIVE_INFINITY, rowStart(layout, row) + inUnit))
    if (!repair) continue
    right.bytes.copy(found.bytes)
    await move('write', slice, { column: parity, offset, length })
  }
}

function firstDifference(a: Buffer, b: Buffer): number {
  let at = 0
  while (a[at] === b[at]) at++
  return at
}
