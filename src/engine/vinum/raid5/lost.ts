/**
 * What is lost of a raid5 plex ({@link LostRange}): the blocks of a column that went out of service in rows whose parity
 * was in doubt, and the blocks of a rebuilt column for which another column could not be read. Reads of them fail until
 * they are written, found again, or given up for what the disks say (`setstate --force up`). Linux md's list of bad blocks
 * is the model; docs/adr/0014 has the reasons. Pure.
 */
import type { ByteRange } from '../../../base/bytes.ts'
import { PlexusError } from '../../../base/errors.ts'
import { LOST_RANGES } from '../../../base/limits.ts'
import { RangeSet } from '../../../base/range-set.ts'
import type { LostRange, PlexRecord } from '../model/model.ts'
import { dataIndex, type Raid5Layout, rowOf, rowStart } from './layout.ts'

export type Lost = PlexRecord['lost']

/** Column space. */
export interface ColumnRange extends ByteRange {
  readonly column: number
}

/** Is a byte of the range lost? */
export function touchesLost(lost: Lost, { column, offset, length }: ColumnRange): boolean {
  if (!lost) return false
  return lost.some(
    (one) =>
      one.column === column &&
      one.offsetBytes < offset + length &&
      offset < one.offsetBytes + one.lengthBytes,
  )
}

/** Data of rows `firstRow` to `firstRow + rows` that lies in a column: its parity is not data. In column space. */
export function dataOf(
  layout: Raid5Layout,
  column: number,
  firstRow: number,
  rows: number,
): readonly ByteRange[] {
  const { stripeBytes } = layout
  // With the parity in the middle, which goes when the data beside it is known (withoutLost).
  if (rows > LOST_RANGES) return [{ offset: firstRow * stripeBytes, length: rows * stripeBytes }]
  const units: ByteRange[] = []
  for (let row = firstRow; row < firstRow + rows; row++) {
    if (dataIndex(layout, row, column) < 0) continue
    units.push({ offset: row * stripeBytes, length: stripeBytes })
  }
  return new RangeSet(units).ranges
}

/** With these ranges of a column lost. What is lost already stays as it is; the same object when that is all. */
export function withLost(
  lost: Lost,
  column: number,
  added: readonly ByteRange[],
  keptBy: string | undefined,
): Lost {
  const fresh = new RangeSet(added)
  for (const one of lost ?? []) {
    if (one.column === column) fresh.remove(one.offsetBytes, one.lengthBytes)
  }
  if (fresh.ranges.length === 0) return lost
  const more = fresh.ranges.map(({ offset, length }) => ({
    column,
    offsetBytes: offset,
    lengthBytes: length,
    keptBy,
  }))
  return bounded([...(lost ?? []), ...more], new Set(more))
}

/**
 * With these ranges known again; the same object when none of them was lost. Parts of which only parity is left, as
 * `layout` has it, go too: nobody could write them. Throws `io` when more parts than {@link LOST_RANGES} would be left.
 */
export function withoutLost(
  lost: Lost,
  known: readonly ColumnRange[],
  layout: Raid5Layout | undefined,
): Lost {
  if (!lost || !known.some((one) => touchesLost(lost, one))) return lost
  const next = lost.flatMap((one) => {
    const left = new RangeSet([{ offset: one.offsetBytes, length: one.lengthBytes }])
    for (const { column, offset, length } of known) {
      if (column === one.column) left.remove(offset, length)
    }
    const ranges = layout
      ? left.ranges.filter((range) => hasData(layout, one.column, range))
      : left.ranges
    return ranges.map(({ offset, length }) => ({
      ...one,
      offsetBytes: offset,
      lengthBytes: length,
    }))
  })
  if (next.length > LOST_RANGES) throw tooManyParts()
  return next.length === 0 ? undefined : bounded(next, new Set())
}

/** Is anything in this part of a column data? Of two rows that follow each other one is. */
function hasData(layout: Raid5Layout, column: number, { offset, length }: ByteRange): boolean {
  const { stripeBytes } = layout
  const row = Math.floor(offset / stripeBytes)
  return dataIndex(layout, row, column) >= 0 || offset + length > (row + 1) * stripeBytes
}

/** The cursor of a growth goes from one byte of plex space to another, or stays. */
export interface Move {
  readonly before: Raid5Layout
  readonly after: Raid5Layout
  readonly fromBytes: number
  readonly toBytes: number
}

/**
 * Without what a growth has written anew, and without the places that what lies below its cursor had in the old layout: a
 * column that has them still does not have what counts. The same object when nothing of them was lost.
 */
export function withoutMoved(lost: Lost, { before, after, fromBytes, toBytes }: Move): Lost {
  const { stripeBytes, columns } = after
  const start = rowOf(after, fromBytes) * stripeBytes
  // The cursor may lie in the middle of it.
  const row = rowOf(before, toBytes)
  const end = row * stripeBytes
  const known: ColumnRange[] = []
  for (let column = 0; column < columns; column++) {
    if (end > start) known.push({ column, offset: start, length: end - start })
    const index = column < before.columns ? dataIndex(before, row, column) : -1
    const isMoved = index >= 0 && rowStart(before, row) + (index + 1) * stripeBytes <= toBytes
    if (isMoved) known.push({ column, offset: end, length: stripeBytes })
  }
  return withoutLost(lost, known, undefined)
}

/** What these subdisks are said to have kept is on no disk any more; the same object when they kept nothing. */
export function keptNowhere(lost: Lost, subdisks: ReadonlySet<string>): Lost {
  const isGone = ({ keptBy }: LostRange): boolean => keptBy !== undefined && subdisks.has(keptBy)
  if (!lost?.some(isGone)) return lost
  return lost.map((one) => (isGone(one) ? { ...one, keptBy: undefined } : one))
}

/** Bytes that are lost. */
export function lostBytes(lost: Lost): number {
  return (lost ?? []).reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
}

/**
 * Bytes between two neighbours in order; infinite where they must not be joined. Those that different subdisks keep are
 * joined last of all: what they have is found again no more.
 */
function gapOf(a: LostRange, b: LostRange): number {
  if (a.column !== b.column) return Number.POSITIVE_INFINITY
  const bytes = b.offsetBytes - (a.offsetBytes + a.lengthBytes)
  return a.keptBy === b.keptBy ? bytes : Number.MAX_SAFE_INTEGER
}

/**
 * In order; those that touch are joined, and beyond {@link LOST_RANGES} those with the smallest gaps between them, so that
 * what lies in the gaps is lost, too, until it is written: nothing that is lost is ever forgotten. Between ranges that are
 * not all `fresh` the gaps may have been written since the disk left: it does not keep what they hold.
 */
function bounded(ranges: readonly LostRange[], fresh: ReadonlySet<LostRange>): Lost {
  const sorted = [...ranges].sort((a, b) => a.column - b.column || a.offsetBytes - b.offsetBytes)
  const gaps = sorted.slice(1).map((one, index) => gapOf(sorted[index] as LostRange, one))
  const largest = [...gaps].sort((a, b) => (a < b ? 1 : a > b ? -1 : 0))
  const limit = largest[LOST_RANGES - 1] ?? 0
  const result: LostRange[] = []
  let areFresh = true
  for (const [index, one] of sorted.entries()) {
    const gap = index === 0 ? Number.POSITIVE_INFINITY : (gaps[index - 1] ?? 0)
    const last = result.at(-1)
    if (!last || gap === Number.POSITIVE_INFINITY || gap > limit) {
      result.push(one)
      areFresh = fresh.has(one)
    } else {
      areFresh &&= fresh.has(one)
      const lengthBytes = one.offsetBytes + one.lengthBytes - last.offsetBytes
      const isKept = last.keptBy === one.keptBy && (gap === 0 || areFresh)
      result[result.length - 1] = { ...last, lengthBytes, keptBy: isKept ? one.keptBy : undefined }
    }
  }
  return result
}

function tooManyParts(): PlexusError {
  return new PlexusError('io', {
    op: 'write',
    subject: 'raid5',
    message:
      `this write would leave more than ${LOST_RANGES} separate parts of a raid5 plex that are lost: write them in larger ` +
      'pieces, or take what the disks say: plexus vinum setstate --force up PLEX',
  })
}
