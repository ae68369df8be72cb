/**
 * Rows of a RAID5 plex in the hands of a job: locked, cut into slices of all columns, read, computed and written there. A
 * slice has a place for a part of each column, and one more.
 */
import { defined } from '../../../base/assert.ts'
import { alignDown, type ByteRange } from '../../../base/bytes.ts'
import { PlexusError, toPlexusError } from '../../../base/errors.ts'
import {
  JOB_SLICE_BYTES,
  JOB_SLICES,
  PAGE_BYTES,
  RAID5_JOB_BYTES,
  RAID5_SCRATCH_BYTES,
  RAID5_SLICE_MIN_BYTES,
} from '../../../base/limits.ts'
import type { AlignedBuffer, Lease } from '../../../hal/block-device.ts'
import { inSlices, slice as part, partsOf, withLease } from '../../jobs/slices.ts'
import { transfer } from '../io/transfers.ts'
import { type Raid5Layout, rowOf, rowStart } from './layout.ts'
import type { ColumnRange } from './lost.ts'
import type { Raid5Plex } from './plex-raid5.ts'
import { lacking, rowState } from './row-state.ts'

/** Rows of one step, all of one layout. */
export interface Span {
  readonly plex: Raid5Plex
  readonly layout: Raid5Layout
  readonly firstRow: number
  readonly rows: number
  /** In plex space; the last row may be cut by a growth's cursor. */
  readonly end: number
  /** Bytes of each column that one slice has, and scratch for those that are worked on at once. */
  readonly sliceBytes: number
  readonly buffers: readonly AlignedBuffer[]
}

/** Locks the rows from `offset` on, as many as fit maxBytes, at least one. */
export async function withRows<T>(
  plex: Raid5Plex,
  offset: number,
  maxBytes: number,
  work: (span: Span) => Promise<T>,
): Promise<T> {
  if (plex.awaitsReplay) throw plex.cannotWork()
  const layout = plex.layoutAt(offset)
  const limit = plex.layoutEnd(offset)
  const firstRow = rowOf(layout, offset)
  const wanted = Math.floor(maxBytes / layout.rowDataBytes)
  const left = Math.ceil((limit - rowStart(layout, firstRow)) / layout.rowDataBytes)
  const rows = Math.max(1, Math.min(wanted, left))
  const end = Math.min(limit, rowStart(layout, firstRow + rows))
  const lanes = layout.columns + 1
  const { sliceBytes, atOnce } = slicing(lanes, rows * layout.stripeBytes)
  // Before the rows are locked: who waits for them may hold all of the pool.
  return withLease(plex.host.pool, atOnce * lanes * sliceBytes, async (lease) => {
    const buffers = partsOf(lease, lanes * sliceBytes)
    await new Promise<void>((resolve) => plex.locks.acquireSpan(firstRow, rows, resolve))
    try {
      return await work({ plex, layout, firstRow, rows, end, sliceBytes, buffers })
    } finally {
      plex.locks.releaseSpan(firstRow, rows)
    }
  })
}

/** One row that the caller holds, with scratch of the plex: a write that waits for it may hold all of the pool. */
export async function withHeldRow<T>(
  plex: Raid5Plex,
  layout: Raid5Layout,
  row: number,
  work: (span: Span) => Promise<T>,
): Promise<T> {
  const lanes = layout.columns + 1
  const room = alignDown(RAID5_SCRATCH_BYTES / lanes, PAGE_BYTES)
  const sliceBytes = Math.min(room, layout.stripeBytes)
  const lease = await new Promise<Lease>((resolve) => {
    plex.scratch.take(lanes * sliceBytes, resolve)
  })
  try {
    const rows = { firstRow: row, rows: 1, end: rowStart(layout, row + 1) }
    return await work({ plex, layout, ...rows, sliceBytes, buffers: [lease] })
  } finally {
    lease.release()
  }
}

/** Slices of `length` bytes of each column, with so many `lanes` of scratch: in one lease as many as are of a good size. */
function slicing(lanes: number, length: number): { readonly sliceBytes: number; atOnce: number } {
  const room = RAID5_JOB_BYTES / lanes
  const most = Math.max(1, Math.min(JOB_SLICES, Math.floor(room / RAID5_SLICE_MIN_BYTES)))
  const grain = room < RAID5_SLICE_MIN_BYTES ? PAGE_BYTES : RAID5_SLICE_MIN_BYTES
  const sliceBytes = Math.min(length, JOB_SLICE_BYTES, alignDown(room / most, grain))
  return { sliceBytes, atOnce: Math.min(most, Math.ceil(length / sliceBytes)) }
}

/** All columns but `except` must be readable in all rows. */
export function requireColumns(span: Span, ...except: readonly number[]): void {
  const { firstRow, rows } = span
  for (let row = firstRow; row < firstRow + rows; row++) requireRow(span, row, ...except)
}

/**
 * All columns but `except` must be readable in a row. Also after reading: a column that went out of service since then may
 * have given what it had before a write that it lost with its cache, and nothing may be computed from that.
 */
export function requireRow(
  { plex, layout }: Span,
  row: number,
  ...except: readonly number[]
): void {
  const column = lacking(rowState(plex, layout, row), ...except)
  if (column === undefined) return
  const { name, state } = plex.column(column).record
  throw new PlexusError('io', {
    op: 'read',
    subject: plex.record.name,
    message: `${plex.record.name}: subdisk ${name} is ${state} and not valid in row ${row}; bring it back first`,
  })
}

/** A piece of the columns of a span, with a place for each column in its buffer, and one more. */
export interface Slice {
  readonly span: Span
  readonly buffer: AlignedBuffer
  /** Column space. */
  readonly start: number
  readonly length: number
}

/** The part of each column that the rows of a span have. */
export function columnRange({ layout, firstRow, rows }: Span): ByteRange {
  return { offset: firstRow * layout.stripeBytes, length: rows * layout.stripeBytes }
}

export function eachSlice(
  span: Span,
  { offset, length }: ByteRange,
  work: (slice: Slice) => Promise<void>,
): Promise<void> {
  return inSlices(offset, offset + length, span.sliceBytes, span.buffers, (start, bytes, buffer) =>
    work({ span, buffer, start, length: bytes }),
  )
}

/** Where a byte of a column is in the buffer of a slice. */
export function laneOffset({ start, length }: Slice, column: number, at: number): number {
  return column * length + (at - start)
}

/** The rows of a slice, each with the part of its units that lies in the slice. */
export function rowsOf({
  span,
  start,
  length,
}: Slice): readonly { row: number; offset: number; length: number }[] {
  const { stripeBytes } = span.layout
  const rows: { row: number; offset: number; length: number }[] = []
  for (let at = start; at < start + length; ) {
    const row = Math.floor(at / stripeBytes)
    const end = Math.min(start + length, (row + 1) * stripeBytes)
    rows.push({ row, offset: at, length: end - at })
    at = end
  }
  return rows
}

/** The parts of all columns whose rows `wanted` picks, those of neighbouring rows joined. */
export function runsOf(
  slice: Slice,
  wanted: (row: number, column: number) => boolean,
): readonly ColumnRange[] {
  const runs: ColumnRange[] = []
  for (let column = 0; column < slice.span.layout.columns; column++) {
    let last: { column: number; offset: number; length: number } | undefined
    for (const { row, offset, length } of rowsOf(slice)) {
      if (!wanted(row, column)) last = undefined
      else if (last) last.length += length
      else {
        last = { column, offset, length }
        runs.push(last)
      }
    }
  }
  return runs
}

/** Reads or writes one run from or to its place in the buffer, and counts trouble. */
export async function move(op: 'read' | 'write', slice: Slice, run: ColumnRange): Promise<void> {
  const { plex } = slice.span
  const subdisk = plex.column(run.column)
  const place = laneOffset(slice, run.column, run.offset)
  try {
    await transfer(op, subdisk, run.offset, part(slice.buffer, place, run.length))
  } catch (thrown) {
    const error = toPlexusError(thrown, op, subdisk.record.name)
    plex.host.noteError(subdisk, op, error)
    throw error
  }
}

/** lane(column) = XOR of the lanes of all other columns; into the spare lane when `spare` is true. */
export function xorOthers(
  slice: Slice,
  column: number,
  start: number,
  length: number,
  spare = false,
): void {
  const { plex, layout } = slice.span
  const { columns } = layout
  const { bytes } = slice.buffer
  const sources = Array.from({ length: columns }, (_, other) => other)
    .filter((other) => other !== column)
    .map((other) => ({ bytes, offset: laneOffset(slice, other, start) }))
  const into = laneOffset(slice, spare ? columns : column, start)
  plex.host.kernels.xor(bytes, into, sources, length)
}

/** What an error says of a place on the medium, and not of the whole drive. */
export const BAD_BLOCK: ReadonlySet<string> = new Set(['io', 'corrupt'])

/**
 * Reads parts of columns. Resolves to what cannot be read, found by reading again in pieces of `pieces` bytes, each of the
 * ones before in smaller ones; rejects for what is not a bad block, and without `pieces` for those as well.
 */
export async function readRuns(
  slice: Slice,
  runs: readonly ColumnRange[],
  pieces: readonly number[],
): Promise<readonly ColumnRange[]> {
  const results = await Promise.allSettled(runs.map((run) => move('read', slice, run)))
  const bad: ColumnRange[] = []
  for (const [index, result] of results.entries()) {
    if (result.status === 'fulfilled') continue
    const { reason } = result
    const isBadBlock = reason instanceof PlexusError && BAD_BLOCK.has(reason.kind)
    if (pieces.length === 0 || !isBadBlock) throw reason
    let found: readonly ColumnRange[] = [defined(runs[index], 'a run')]
    for (const bytes of pieces) {
      const smaller: ColumnRange[] = []
      for (const piece of found) smaller.push(...(await badPieces(slice, piece, bytes)))
      found = smaller
    }
    bad.push(...found)
  }
  return bad
}

/** Reads a part of a column again, in pieces; returns those that fail. */
async function badPieces(
  slice: Slice,
  run: ColumnRange,
  bytes: number,
): Promise<readonly ColumnRange[]> {
  const { stripeBytes } = slice.span.layout
  const bad: ColumnRange[] = []
  const end = run.offset + run.length
  for (let at = run.offset; at < end; ) {
    const unitEnd = (Math.floor(at / stripeBytes) + 1) * stripeBytes
    const to = Math.min(at + bytes, unitEnd, end)
    const piece = { ...run, offset: at, length: to - at }
    await move('read', slice, piece).catch(() => bad.push(piece))
    at = to
  }
  return bad
}
