/** The parts of an update of a row, and what is done of it at once. */
import { assert } from '../../../base/assert.ts'
import type { PlexusError } from '../../../base/errors.ts'
import type { AlignedBuffer, IoCause } from '../../../hal/block-device.ts'
import type { Subdisk } from '../runtime.ts'
import type { Extent, RowPlan } from './row-plan.ts'
import type { RowState } from './row-state.ts'

/** What one request writes in one row. */
export interface RowPart {
  /** Within the data of the row. */
  readonly rowOffset: number
  readonly length: number
  /** Undefined: zeroes. */
  readonly data: AlignedBuffer | undefined
  readonly dataOffset: number
  readonly fua: boolean
  readonly cause: IoCause
  /** The row is done and unlocked. With an error, `missed` names the columns that have not got the write. */
  rowDone(error: PlexusError | undefined, missed: ReadonlyMap<Subdisk, PlexusError>): void
}

/** A piece of a part that lies in one column. */
export interface Source extends Extent {
  readonly part: RowPart
  readonly dataOffset: number
}

/** What is done of the row at once: as much of each unit as the scratch allows. */
export interface Slice {
  readonly start: number
  readonly end: number
  readonly sources: readonly Source[]
  readonly state: RowState
  readonly plan: RowPlan
  /** The columns that have a place in the scratch, in order. */
  readonly lanes: readonly number[]
}

/** Where a byte of a column's unit has its place in the scratch. */
export function placeOf({ lanes, start, end }: Slice, column: number, at: number): number {
  const lane = lanes.indexOf(column)
  assert(lane >= 0, 'the column has a lane')
  return lane * (end - start) + (at - start)
}

/** Columns that need a place in the scratch: those that are read, and parity. */
export function lanesOf({ reads, parityWrites }: RowPlan): readonly number[] {
  const lanes: number[] = []
  for (const { column } of reads) if (!lanes.includes(column)) lanes.push(column)
  for (const { column } of parityWrites) if (!lanes.includes(column)) lanes.push(column)
  return lanes
}

export function clip(sources: readonly Source[], from: number, to: number): readonly Source[] {
  const clipped: Source[] = []
  for (const source of sources) {
    const start = Math.max(source.start, from)
    const end = Math.min(source.end, to)
    if (start >= end) continue
    if (start === source.start && end === source.end) clipped.push(source)
    else {
      const dataOffset = source.dataOffset + (start - source.start)
      clipped.push({ ...source, start, end, dataOffset })
    }
  }
  return clipped
}
