/**
 * Steps of the long work on a RAID5 plex, each over a few rows that are locked meanwhile and released after it
 * (spec/vinum.md, 8.14): rebuild of a column, first computation of parity, check and repair, and resync after a crash.
 * A step resolves to the offset of plex space that is done, and rejects where anything could not be read or written: a
 * job that had an error never ends as good (8.6, 8.8). Called by set/jobs.ts through the job manager (geom/job.ts).
 *
 * Rows lie one behind the other on every column, so one request per column reads many of them, and the XOR of all
 * columns but one is that one, wherever parity lies.
 */
import { defined } from '../../../base/assert.ts'
import { alignDown } from '../../../base/bytes.ts'
import { PlexusError, toPlexusError } from '../../../base/errors.ts'
import {
  JOB_SLICE_BYTES,
  JOB_SLICES,
  PAGE_BYTES,
  RAID5_JOB_BYTES,
  RAID5_REPAIR_BYTES,
  RAID5_SLICE_MIN_BYTES,
} from '../../../base/limits.ts'
import type { AlignedBuffer } from '../../../hal/block-device.ts'
import type { GrowingValidity } from '../io/validity.ts'
import { inSlices, slice as part, partsOf, settled, transfer, withLease } from '../jobs/setup.ts'
import type { Subdisk } from '../runtime.ts'
import { parityColumn, type Raid5Layout, rowOf, rowStart } from './layout.ts'
import type { Raid5Plex } from './plex-raid5.ts'

/** Rows of one step, all of one layout. */
interface Span {
  readonly layout: Raid5Layout
  readonly firstRow: number
  readonly rows: number
  /** In plex space; the last row may be cut by a growth's cursor. */
  readonly offset: number
  readonly end: number
  /** Bytes of each column that one slice has, and scratch for those that are worked on at once. */
  readonly sliceBytes: number
  readonly buffers: readonly AlignedBuffer[]
}

export interface CheckResult {
  /** Plex space below it is done. */
  readonly offset: number
  /** One for each row whose parity was wrong: the plex offset of the row plus where in its units it begins to differ. */
  readonly mismatches: readonly number[]
}

/**
 * Computes the content of `column` from the others and writes it; what is written becomes valid in its `validity`,
 * which the caller has set. Rejects with `io` when another column cannot be read or parity is in doubt.
 */
export function rebuildStep(
  plex: Raid5Plex,
  column: Subdisk,
  offset: number,
  maxBytes: number,
): Promise<number> {
  const index = plex.subdisks.indexOf(column)
  return withRows(plex, offset, maxBytes, async (span) => {
    const { layout, firstRow, rows, end } = span
    const start = rowStart(layout, firstRow)
    // In the old layout of a growth the new columns hold nothing yet.
    if (index < layout.columns) {
      if (!plex.spanTrusted(layout, firstRow, rows)) {
        throw plex.cannotReconstruct(layout, firstRow, index, false)
      }
      requireColumns(plex, span, index)
      await computeColumn(plex, span, () => index)
      // What was computed from parity agrees with it.
      plex.doubt?.markValid(start, end - start)
    }
    const validity = column.validity as GrowingValidity | undefined
    validity?.markValid(start, end - start)
    return end
  })
}

/** Computes the parity of rows, and moves the plex's mark of what is right. Needs all columns. */
export function initialiseStep(plex: Raid5Plex, offset: number, maxBytes: number): Promise<number> {
  return withRows(plex, offset, maxBytes, async (span) => {
    requireColumns(plex, span, undefined)
    await computeColumn(plex, span, (row) => parityColumn(span.layout, row))
    plex.markParity(span.offset, span.end - span.offset)
    return span.end
  })
}

/**
 * Computes the parity of rows again in which writes were under way at a crash, and takes the doubt off them. A row
 * without its parity column needs nothing; one without a data column cannot be helped: it rejects.
 */
export function resyncStep(plex: Raid5Plex, offset: number, maxBytes: number): Promise<number> {
  return withRows(plex, offset, maxBytes, async (span) => {
    const { layout, firstRow, rows, end } = span
    for (let row = firstRow; row < firstRow + rows; row++) {
      const parity = parityColumn(layout, row)
      const one = { ...span, firstRow: row, rows: 1 }
      requireColumns(plex, one, plex.columnReadable(layout, row, parity) ? undefined : parity)
      if (plex.column(parity).writable) await computeColumn(plex, one, () => parity)
    }
    plex.doubt?.markValid(rowStart(layout, firstRow), end - rowStart(layout, firstRow))
    return end
  })
}

/**
 * Reads rows, each once (8.25), and compares their parity. `repair` writes the right parity: data is taken to be
 * right. A unit that cannot be read is computed and written again. Needs all columns.
 */
export function checkStep(
  plex: Raid5Plex,
  offset: number,
  maxBytes: number,
  { repair }: { readonly repair: boolean },
): Promise<CheckResult> {
  return withRows(plex, offset, maxBytes, async (span) => {
    requireColumns(plex, span, undefined)
    const wrong = new Map<number, number>()
    await eachSlice(span, async (slice) => {
      await readAll(plex, slice)
      await compare(plex, slice, repair, wrong)
    })
    return { offset: span.end, mismatches: [...wrong.values()].sort((a, b) => a - b) }
  })
}

/** Locks the rows from `offset` on, as many as fit maxBytes, at least one. */
async function withRows<T>(
  plex: Raid5Plex,
  offset: number,
  maxBytes: number,
  work: (span: Span) => Promise<T>,
): Promise<T> {
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
      return await work({ layout, firstRow, rows, offset, end, sliceBytes, buffers })
    } finally {
      plex.locks.releaseSpan(firstRow, rows)
    }
  })
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
function requireColumns(plex: Raid5Plex, span: Span, except: number | undefined): void {
  for (let row = span.firstRow; row < span.firstRow + span.rows; row++) {
    for (let column = 0; column < span.layout.columns; column++) {
      if (column === except || plex.columnReadable(span.layout, row, column)) continue
      const { name, state } = plex.column(column).record
      throw new PlexusError('io', {
        op: 'read',
        subject: plex.record.name,
        message: `${plex.record.name}: subdisk ${name} is ${state} and not valid in row ${row}; bring it back first`,
      })
    }
  }
}

/** A piece of the columns of a span, with a place for each column in its buffer, and one more. */
interface Slice {
  readonly span: Span
  readonly buffer: AlignedBuffer
  /** Column space. */
  readonly start: number
  readonly length: number
}

/** A part of one column. */
interface Run {
  readonly column: number
  readonly start: number
  readonly length: number
}

function eachSlice(span: Span, work: (slice: Slice) => Promise<void>): Promise<void> {
  const { layout, firstRow, rows, sliceBytes, buffers } = span
  const from = firstRow * layout.stripeBytes
  const end = (firstRow + rows) * layout.stripeBytes
  return inSlices(from, end, sliceBytes, buffers, (start, length, buffer) =>
    work({ span, buffer, start, length }),
  )
}

/** Where a byte of a column is in the buffer of a slice. */
function laneOffset({ start, length }: Slice, column: number, at: number): number {
  return column * length + (at - start)
}

/** The rows of a slice, each with the part of its units that lies in the slice. */
function rowsOf({
  span,
  start,
  length,
}: Slice): readonly { row: number; start: number; length: number }[] {
  const { stripeBytes } = span.layout
  const rows: { row: number; start: number; length: number }[] = []
  for (let at = start; at < start + length; ) {
    const row = Math.floor(at / stripeBytes)
    const end = Math.min(start + length, (row + 1) * stripeBytes)
    rows.push({ row, start: at, length: end - at })
    at = end
  }
  return rows
}

/** The parts of all columns whose rows `wanted` picks, those of neighbouring rows joined. */
function runsOf(slice: Slice, wanted: (row: number, column: number) => boolean): readonly Run[] {
  const runs: Run[] = []
  for (let column = 0; column < slice.span.layout.columns; column++) {
    let last: { column: number; start: number; length: number } | undefined
    for (const { row, start, length } of rowsOf(slice)) {
      if (!wanted(row, column)) last = undefined
      else if (last) last.length += length
      else {
        last = { column, start, length }
        runs.push(last)
      }
    }
  }
  return runs
}

/** Reads or writes one run from or to its place in the buffer, and counts trouble. */
async function move(plex: Raid5Plex, op: 'read' | 'write', slice: Slice, run: Run): Promise<void> {
  const subdisk = plex.column(run.column)
  const place = laneOffset(slice, run.column, run.start)
  try {
    await transfer(op, subdisk, run.start, part(slice.buffer, place, run.length))
  } catch (thrown) {
    const error = toPlexusError(thrown, op, subdisk.record.name)
    plex.host.noteError(subdisk, op, error)
    throw error
  }
}

/** Computes in each row the column that `target` names from all others, and writes it. */
async function computeColumn(
  plex: Raid5Plex,
  span: Span,
  target: (row: number) => number,
): Promise<void> {
  await eachSlice(span, async (slice) => {
    const reads = runsOf(slice, (row, column) => column !== target(row))
    await settled(reads.map((run) => move(plex, 'read', slice, run)))
    for (const { row, start, length } of rowsOf(slice)) {
      stillThere(plex, slice, row, target(row))
      xorOthers(plex, slice, target(row), start, length)
    }
    const writes = runsOf(slice, (row, column) => column === target(row))
    await settled(writes.map((run) => move(plex, 'write', slice, run)))
  })
}

/**
 * A column that went out of service since it was read may have given what it had before a write that it lost with its
 * cache: nothing may be computed from that.
 */
function stillThere(plex: Raid5Plex, { span }: Slice, row: number, except?: number): void {
  requireColumns(plex, { ...span, firstRow: row, rows: 1 }, except)
}

/** lane(column) = XOR of the lanes of all other columns; into the spare lane when `spare` is true. */
function xorOthers(
  plex: Raid5Plex,
  slice: Slice,
  column: number,
  start: number,
  length: number,
  spare = false,
): void {
  const { columns } = slice.span.layout
  const { bytes } = slice.buffer
  const sources = Array.from({ length: columns }, (_, other) => other)
    .filter((other) => other !== column)
    .map((other) => ({ bytes, offset: laneOffset(slice, other, start) }))
  const into = laneOffset(slice, spare ? columns : column, start)
  plex.host.kernels.xor(bytes, into, sources, length)
}

/** Reads all columns. What cannot be read is computed from the others and written again. */
async function readAll(plex: Raid5Plex, slice: Slice): Promise<void> {
  const runs = runsOf(slice, () => true)
  const results = await Promise.allSettled(runs.map((run) => move(plex, 'read', slice, run)))
  const bad: Run[] = []
  for (const [index, result] of results.entries()) {
    if (result.status === 'fulfilled') continue
    if (result.reason instanceof PlexusError && result.reason.kind === 'gone') throw result.reason
    bad.push(...(await badPieces(plex, slice, defined(runs[index], 'a run'))))
  }
  for (const piece of bad) await repairPiece(plex, slice, piece, bad)
}

/** Reads a column again in pieces on one grid for all columns; returns those that fail. */
async function badPieces(plex: Raid5Plex, slice: Slice, run: Run): Promise<readonly Run[]> {
  const bad: Run[] = []
  for (const { start, length } of rowsOf(slice)) {
    for (let at = start; at < start + length; at += RAID5_REPAIR_BYTES) {
      const piece = { ...run, start: at, length: Math.min(RAID5_REPAIR_BYTES, start + length - at) }
      await move(plex, 'read', slice, piece).catch(() => bad.push(piece))
    }
  }
  return bad
}

async function repairPiece(
  plex: Raid5Plex,
  slice: Slice,
  piece: Run,
  bad: readonly Run[],
): Promise<void> {
  const { column, start, length } = piece
  const { layout } = slice.span
  const row = Math.floor(start / layout.stripeBytes)
  const trusted = plex.spanTrusted(layout, row, 1)
  const alone = bad.every((other) => other.start !== start || other.column === column)
  if (!trusted || !alone) throw plex.cannotReconstruct(layout, row, column, trusted)
  stillThere(plex, slice, row)
  xorOthers(plex, slice, column, start, length)
  await move(plex, 'write', slice, piece)
  plex.host.noteRepair(plex.column(column), start, length)
}

/** Compares the parity of the rows in a slice, all of whose columns have been read. */
async function compare(
  plex: Raid5Plex,
  slice: Slice,
  repair: boolean,
  wrong: Map<number, number>,
): Promise<void> {
  const { span, buffer } = slice
  const { layout } = span
  for (const { row, start, length } of rowsOf(slice)) {
    const parity = parityColumn(layout, row)
    xorOthers(plex, slice, parity, start, length, true)
    const right = part(buffer, laneOffset(slice, layout.columns, start), length)
    const found = part(buffer, laneOffset(slice, parity, start), length)
    if (right.bytes.equals(found.bytes)) continue
    stillThere(plex, slice, row)
    const subdisk = plex.column(parity)
    const inUnit = start - row * layout.stripeBytes + firstDifference(right.bytes, found.bytes)
    // Once for each row, whichever of its slices is the first to be compared.
    const known = wrong.get(row)
    if (known === undefined) plex.host.noteError(subdisk, 'parity', undefined)
    wrong.set(row, Math.min(known ?? Number.POSITIVE_INFINITY, rowStart(layout, row) + inUnit))
    if (!repair) continue
    right.bytes.copy(found.bytes)
    await move(plex, 'write', slice, { column: parity, start, length })
  }
}

function firstDifference(a: Buffer, b: Buffer): number {
  let at = 0
  while (a[at] === b[at]) at++
  return at
}
