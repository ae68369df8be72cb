/**
 * What a write of a row of a RAID5 plex has to read, compute and write: pure. The row is cut along the column axis where
 * the set of columns that get data changes; in each segment parity comes about in one of three ways:
 *
 *   reconstruct  P' = new data XOR the untouched columns     reads the untouched ones: none for a full stripe
 *   modify       P' = P XOR old data XOR new data            reads P and the touched ones; P stays right or wrong as it was
 *   data         no parity: its column takes no writes, or its rebuild computes it later
 *
 * Only the bytes that the write touches are read and written, never whole units. Offsets are bytes within the unit.
 */
import type { RowState } from './row-state.ts'

export interface Extent {
  readonly column: number
  readonly start: number
  readonly end: number
}

type ParityMethod = 'reconstruct' | 'modify' | 'data'

/** A part of the units of a row, all of which each column gets, or none. The columns are data columns. */
interface Cut {
  readonly start: number
  readonly end: number
  readonly touched: readonly number[]
  readonly untouched: readonly number[]
}

export interface Segment extends Cut {
  readonly method: ParityMethod
}

export interface RowPlan {
  readonly segments: readonly Segment[]
  /** At most one for each column and contiguous range. */
  readonly reads: readonly Extent[]
  /** Where new parity is written. */
  readonly parityWrites: readonly Extent[]
}

/**
 * The plan that reads least often. `touched`: the data columns and ranges that get data; they do not overlap.
 * Undefined when the write cannot be stored: a column that takes no writes gets data which parity cannot hold, or
 * with two columns away parity would not be left as it is.
 */
export function planRow(state: RowState, touched: readonly Extent[]): RowPlan | undefined {
  const cuts = cutRow(state, touched)
  const first = planFor(state, cuts, 'reconstruct')
  // A full stripe.
  if (first?.reads.length === 0) return first
  const second = planFor(state, cuts, 'modify')
  return first && second && cost(second) < cost(first) ? second : first
}

/** Requests come first, bytes second: a request costs a movement of the arm, or a command at least. */
function cost({ reads }: RowPlan): number {
  let bytes = 0
  for (const { start, end } of reads) bytes += end - start
  return reads.length * 2 ** 40 + bytes
}

/** Every small write and every full stripe comes through here: no more objects than the result has. */
function cutRow(state: RowState, touched: readonly Extent[]): readonly Cut[] {
  const [first] = touched
  if (!first) return []
  if (touched.every(({ start, end }) => start === first.start && end === first.end)) {
    return [cutOf(state, touched, first.start, first.end)]
  }
  const borders = [...new Set(touched.flatMap(({ start, end }) => [start, end]))]
  borders.sort((a, b) => a - b)
  const cuts: Cut[] = []
  for (const [index, start] of borders.entries()) {
    const end = borders[index + 1]
    if (end === undefined) break
    const cut = cutOf(state, touched, start, end)
    if (cut.touched.length > 0) cuts.push(cut)
  }
  return cuts
}

/** What happens in a range that each extent covers or leaves alone. */
function cutOf(
  { columns, parity }: RowState,
  extents: readonly Extent[],
  start: number,
  end: number,
): Cut {
  const touched: number[] = []
  for (const one of extents) {
    if (one.start <= start && one.end >= end) touched.push(one.column)
  }
  const untouched: number[] = []
  for (let column = 0; column < columns; column++) {
    if (column !== parity && !touched.includes(column)) untouched.push(column)
  }
  return { start, end, touched, untouched }
}

function planFor(
  state: RowState,
  cuts: readonly Cut[],
  preferred: 'reconstruct' | 'modify',
): RowPlan | undefined {
  const segments: Segment[] = []
  const reads: Extent[] = []
  const parityWrites: Extent[] = []
  for (const cut of cuts) {
    const method = methodFor(state, cut, preferred)
    if (!method) return undefined
    const { start, end, touched, untouched } = cut
    segments.push({ start, end, method, touched, untouched })
    if (method === 'data') continue
    if (method === 'modify') append(reads, state.parity, start, end)
    for (const column of method === 'modify' ? touched : untouched) {
      append(reads, column, start, end)
    }
    append(parityWrites, state.parity, start, end)
  }
  return { segments, reads, parityWrites }
}

function methodFor(
  { parity, parityState, unreadable, unwritable, failed }: RowState,
  { touched, untouched }: Cut,
  preferred: 'reconstruct' | 'modify',
): ParityMethod | undefined {
  const readable = (column: number) => !unreadable.has(column)
  const hasParity = readable(parity) || parity === failed
  const canModify = readable(parity) && touched.every(readable)
  const canReconstruct = untouched.every(readable)
  // Data for a column that takes no writes lives in parity alone: the parity of this row must count.
  const loses = touched.some((column) => unwritable.has(column))
  if (loses && (parityState !== 'right' || !hasParity)) return undefined
  if (unwritable.has(parity)) return unreadable.size === 1 ? 'data' : undefined
  // A parity column that is being filled gets this row from its rebuild, or now when that costs no reads.
  if (!hasParity && untouched.length > 0) return 'data'
  // With two away, parity and the second one hold what the first one had: that must stay so.
  if (unreadable.size > 1 && (unwritable.size > 1 || !canReconstruct)) {
    return canModify ? 'modify' : undefined
  }
  const prefersModify = preferred === 'modify' || !canReconstruct
  if (canModify && parityState === 'right' && prefersModify) return 'modify'
  if (canReconstruct) return 'reconstruct'
  return canModify ? 'modify' : undefined
}

/** Adds an extent, as a part of the one that it continues. */
function append(extents: Extent[], column: number, start: number, end: number): void {
  for (let index = 0; index < extents.length; index++) {
    const before = extents[index]
    if (before?.column !== column || before.end !== start) continue
    extents[index] = { column, start: before.start, end }
    return
  }
  extents.push({ column, start, end })
}
