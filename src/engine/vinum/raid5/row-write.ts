/**
 * One update of one row of a RAID5 plex: the parts of one or several writes that wait for the row together.
 *
 *   row lock -> settle a row in doubt -> plan (raid5/row-plan.ts) -> scratch, one lease -> reads -> XOR
 *     -> data and parity in parallel -> columns that missed it out of service, durably -> unlock -> the requests go on
 *
 * A row that needs much scratch is updated in slices along the column axis. The write hole: data and parity are in flight
 * together, and a crash leaves a row that is named by the volume's intent map. Its parity is in doubt then: before anything
 * else is written there, it is computed anew, or what it stands for is lost (RowState).
 */
import { assert } from '../../../base/assert.ts'
import { alignDown } from '../../../base/bytes.ts'
import { type PlexusError, toPlexusError } from '../../../base/errors.ts'
import type { XorSource } from '../../../base/kernels.ts'
import { PAGE_BYTES, RAID5_SCRATCH_BYTES } from '../../../base/limits.ts'
import type { AlignedBuffer, IoCause, Lease } from '../../../hal/block-device.ts'
import type { Subdisk } from '../runtime.ts'
import { ColumnGroup, noneFailed } from './column-io.ts'
import { dataColumn, type Raid5Layout, rowStart } from './layout.ts'
import type { RowWaiter } from './locks.ts'
import type { Raid5Plex } from './plex-raid5.ts'
import { settleRow } from './row-jobs.ts'
import { type Extent, planRow, type RowPlan, type Segment } from './row-plan.ts'
import { type RowState, rowState } from './row-state.ts'

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
interface Source extends Extent {
  readonly part: RowPart
  readonly dataOffset: number
}

/** What is done of the row at once: as much of each unit as the scratch allows. */
interface Slice {
  readonly start: number
  readonly end: number
  readonly sources: readonly Source[]
  readonly state: RowState
  readonly plan: RowPlan
  /** The columns that have a place in the scratch, in order. */
  readonly lanes: readonly number[]
}

export class RowWrite extends ColumnGroup implements RowWaiter {
  readonly #plex: Raid5Plex
  readonly #layout: Raid5Layout
  readonly #row: number
  readonly #parts: RowPart[]
  #sources: readonly Source[] = []
  /** The row is in doubt, and a block of it cannot be read: the parts are written all the same. */
  #unsettled = false
  /** Where the next slice begins, and the end of the last one. */
  #position = 0
  #end = 0
  /** A column whose old content could not be read in this row. */
  #readFailed: number | undefined
  #readError: PlexusError | undefined

  constructor(plex: Raid5Plex, layout: Raid5Layout, row: number, part: RowPart) {
    super(part.cause)
    this.#plex = plex
    this.#layout = layout
    this.#row = row
    this.#parts = [part]
  }

  /** Writes that wait for the same row and do not overlap become one update: the later one does not fail alone. */
  absorb(next: RowWaiter): boolean {
    if (!(next instanceof RowWrite) || next.#layout !== this.#layout) return false
    // Each for itself where one of them may fail.
    const { unreadable, parityState } = rowState(this.#plex, this.#layout, this.#row)
    if (unreadable.size > 0 && parityState !== 'right') return false
    const overlaps = next.#parts.some((one) =>
      this.#parts.some(
        (other) =>
          one.rowOffset < other.rowOffset + other.length &&
          other.rowOffset < one.rowOffset + one.length,
      ),
    )
    if (overlaps) return false
    this.#parts.push(...next.#parts)
    return true
  }

  granted(): void {
    const state = rowState(this.#plex, this.#layout, this.#row)
    if (state.parityState !== 'doubt' || this.#unsettled) {
      this.#writeParts(state)
      return
    }
    settleRow(this.#plex, this.#layout, this.#row).then(
      () => this.granted(),
      (failure: unknown) => {
        const error = toPlexusError(failure, 'write', this.#plex.record.name)
        if (state.unreadable.size > 0) this.#failAll(error)
        else {
          // Where a column went out of service meanwhile the row is settled without it.
          const now = rowState(this.#plex, this.#layout, this.#row)
          this.#unsettled = now.unreadable.size === 0
          this.granted()
        }
      },
    )
  }

  #writeParts(state: RowState): void {
    const sources: Source[] = []
    for (const part of this.#parts) this.#addSources(part, sources)
    this.#sources = sources
    this.#position = Number.POSITIVE_INFINITY
    this.#end = 0
    for (const { start, end } of sources) {
      this.#position = Math.min(this.#position, start)
      this.#end = Math.max(this.#end, end)
    }
    this.#nextSlice(state)
  }

  /** Nothing of it is stored in this row: whatever column it was for has missed it. */
  #failAll(error: PlexusError): void {
    const columns = this.#plex.columnsOf(this.#layout)
    this.#finish(error, new Map(columns.map((subdisk) => [subdisk, error])))
  }

  #addSources(part: RowPart, sources: Source[]): void {
    const { stripeBytes } = this.#layout
    const partEnd = part.rowOffset + part.length
    for (let at = part.rowOffset; at < partEnd; ) {
      const index = Math.floor(at / stripeBytes)
      const end = Math.min(partEnd, (index + 1) * stripeBytes)
      sources.push({
        column: dataColumn(this.#layout, this.#row, index),
        start: at - index * stripeBytes,
        end: end - index * stripeBytes,
        part,
        dataOffset: part.dataOffset + (at - part.rowOffset),
      })
      at = end
    }
  }

  /** `known`: the state of the row, where it was found just now. */
  #nextSlice(known?: RowState): void {
    if (this.#position >= this.#end) {
      this.#finish(undefined, noneFailed)
      return
    }
    const state = known ?? rowState(this.#plex, this.#layout, this.#row, this.#readFailed)
    const slice = this.#sliceFrom(this.#position, state)
    if (!slice) {
      this.#failAll(this.#plex.cannotStore(this.#layout, this.#row, this.#readError))
      return
    }
    const bytes = slice.lanes.length * (slice.end - slice.start)
    if (bytes === 0) this.#writeColumns(slice, undefined)
    else this.#plex.scratch.take(bytes, (lease) => this.#read(slice, lease))
  }

  /** undefined: it cannot be stored. */
  #sliceFrom(start: number, state: RowState): Slice | undefined {
    for (let end = this.#end; ; ) {
      const sources = clip(this.#sources, start, end)
      const plan = planRow(state, sources)
      if (!plan) return undefined
      const lanes = lanesOf(plan)
      if (lanes.length * (end - start) <= RAID5_SCRATCH_BYTES) {
        return { start, end, sources, state, plan, lanes }
      }
      // A shorter one has a plan of its own, which may need more columns.
      end = start + alignDown(RAID5_SCRATCH_BYTES / lanes.length, PAGE_BYTES)
    }
  }

  #read(slice: Slice, lease: Lease): void {
    this.begin(() => this.#readDone(slice, lease))
    const base = this.#row * this.#layout.stripeBytes
    for (const { column, start, end } of slice.plan.reads) {
      const at = placeOf(slice, column, start)
      this.send(this.#plex.column(column), 'read', base + start, end - start, lease, at)
    }
    this.sent()
  }

  /** Nothing has been written yet when a read fails: another plan can do without that column. */
  #readDone(slice: Slice, lease: Lease): void {
    if (this.failed.size === 0 && this.#readsCount(slice)) {
      for (const segment of slice.plan.segments) {
        if (segment.method !== 'data') this.#computeParity(slice, segment, lease)
      }
      this.#writeColumns(slice, lease)
      return
    }
    const missed = new Map(this.failed)
    for (const [subdisk, error] of missed) this.#plex.host.noteError(subdisk, 'read', error)
    lease.release()
    const [failure] = missed
    if (!failure) {
      this.#nextSlice()
      return
    }
    const [subdisk, error] = failure
    const alone = missed.size === 1 && slice.state.unreadable.size === 0
    if (alone) {
      this.#readFailed = this.#plex.subdisks.indexOf(subdisk)
      this.#readError = error
      this.#nextSlice()
    } else {
      // Two columns are lost: those that failed name the plex as one that has missed the write.
      if (this.#readFailed !== undefined && this.#readError) {
        missed.set(this.#plex.column(this.#readFailed), this.#readError)
      }
      this.#finish(error, missed)
    }
  }

  /**
   * Are all columns that were read still valid? One that went out of service meanwhile may have given what it had
   * before a write that it lost with its cache: parity made from that would lose the write for good.
   */
  #readsCount({ plan }: Slice): boolean {
    for (const { column } of plan.reads) {
      if (!this.#plex.columnReadable(this.#layout, this.#row, column)) return false
    }
    return true
  }

  #computeParity(slice: Slice, segment: Segment, { bytes }: Lease): void {
    const { start, end, method, touched, untouched } = segment
    const { parity } = slice.state
    const sources: XorSource[] = []
    const old = method === 'modify' ? [parity, ...touched] : untouched
    for (const column of old) sources.push({ bytes, offset: placeOf(slice, column, start) })
    for (const source of slice.sources) {
      const { part } = source
      if (source.start > start || source.end < end || !part.data) continue
      sources.push({ bytes: part.data.bytes, offset: source.dataOffset + (start - source.start) })
    }
    const into = placeOf(slice, parity, start)
    this.#plex.host.kernels.xor(bytes, into, sources, end - start)
  }

  /**
   * The only place where columns of a row are written by initiators; `#written` is the only place behind it. A
   * log that closes the write hole without a bitmap goes before the first `send` and after the last completion.
   */
  #writeColumns(slice: Slice, lease: Lease | undefined): void {
    const base = this.#row * this.#layout.stripeBytes
    this.begin(() => {
      lease?.release()
      this.#written(slice)
    })
    for (const { column, start, end, part, dataOffset } of slice.sources) {
      if (slice.state.unwritable.has(column)) continue
      const { data, fua } = part
      const op = data ? 'write' : 'write-zeroes'
      const subdisk = this.#plex.column(column)
      this.send(subdisk, op, base + start, end - start, data, dataOffset, fua)
    }
    const fua = this.#parts.some((part) => part.fua)
    for (const { column, start, end } of slice.plan.parityWrites) {
      const at = placeOf(slice, column, start)
      const subdisk = this.#plex.column(column)
      this.send(subdisk, 'write', base + start, end - start, lease, at, fua)
    }
    this.sent()
  }

  #written({ end, sources, state }: Slice): void {
    const { parity, parityState, unreadable, unwritable } = state
    if (this.failed.size === 0 && unwritable.size === 0) {
      // Nobody can have missed it.
      this.#position = end
      this.#nextSlice()
      return
    }
    const missed = new Map(this.failed)
    for (const [subdisk, error] of missed) this.#plex.host.noteError(subdisk, 'write', error)
    for (const column of unwritable) {
      // Its drive has gone, and nothing was written without it yet: it has missed this write like any other failure.
      const subdisk = this.#plex.column(column)
      // Parity that was never computed is not missed.
      const isMeant =
        column === parity
          ? parityState !== 'unknown' || subdisk.record.state !== 'down'
          : sources.some((one) => one.column === column)
      if (isMeant && subdisk.inService) missed.set(subdisk, this.#plex.driveGone(subdisk))
    }
    const lost = new Set(missed.keys())
    for (const column of unreadable) {
      if (column !== this.#readFailed) lost.add(this.#plex.column(column))
    }
    const redundant = parityState === 'right' || !dataMissed(this.#plex, missed, parity)
    this.#plex.resolveMissed(missed, lost.size <= 1 && redundant, (error) => {
      if (error) {
        this.#plex.tear(this.#layout, this.#row, 1)
        this.#finish(error, missed)
      } else {
        this.#position = end
        this.#nextSlice()
      }
    })
  }

  #finish(error: PlexusError | undefined, missed: ReadonlyMap<Subdisk, PlexusError>): void {
    if (!error && this.#plex.hasLost) {
      const start = rowStart(this.#layout, this.#row)
      const written = this.#parts.map(({ rowOffset, length }) => ({
        offset: start + rowOffset,
        length,
      }))
      this.#plex.regain(written, (failure) => this.#unlock(failure, missed))
    } else this.#unlock(error, missed)
  }

  #unlock(error: PlexusError | undefined, missed: ReadonlyMap<Subdisk, PlexusError>): void {
    this.#plex.locks.release(this.#row)
    for (const part of this.#parts) part.rowDone(error, missed)
  }
}

function dataMissed(
  plex: Raid5Plex,
  missed: ReadonlyMap<Subdisk, PlexusError>,
  parity: number,
): boolean {
  for (const subdisk of missed.keys()) if (subdisk !== plex.subdisks[parity]) return true
  return false
}

/** Where a byte of a column's unit has its place in the scratch. */
function placeOf({ lanes, start, end }: Slice, column: number, at: number): number {
  const lane = lanes.indexOf(column)
  assert(lane >= 0, 'the column has a lane')
  return lane * (end - start) + (at - start)
}

/** Columns that need a place in the scratch: those that are read, and parity. */
function lanesOf({ reads, parityWrites }: RowPlan): readonly number[] {
  const lanes: number[] = []
  for (const { column } of reads) if (!lanes.includes(column)) lanes.push(column)
  for (const { column } of parityWrites) if (!lanes.includes(column)) lanes.push(column)
  return lanes
}

function clip(sources: readonly Source[], from: number, to: number): readonly Source[] {
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
