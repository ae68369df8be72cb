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
import { assert, defined } from '../../../base/assert.ts'
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
  /** The slice in hand. */
  #slice: readonly Source[] = []
  #sliceEnd = 0
  #state: RowState | undefined
  #plan: RowPlan | undefined
  #lease: Lease | undefined
  /** The columns that have a place in the scratch of the slice, in order. */
  #lanes: readonly number[] = []
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
    this.#state = state
    let bytes = this.#end - this.#position
    let plan: RowPlan | undefined
    for (;;) {
      this.#sliceEnd = this.#position + bytes
      this.#slice = clip(this.#sources, this.#position, this.#sliceEnd)
      plan = planRow(state, this.#slice)
      this.#lanes = plan ? lanesOf(plan) : []
      // Each slice has a plan of its own, which may need more columns than that of a longer one.
      if (this.#lanes.length * bytes <= RAID5_SCRATCH_BYTES) break
      bytes = alignDown(RAID5_SCRATCH_BYTES / this.#lanes.length, PAGE_BYTES)
    }
    if (!plan) {
      this.#failAll(this.#plex.cannotStore(this.#layout, this.#row, this.#readError))
      return
    }
    this.#plan = plan
    const bytesNeeded = this.#lanes.length * this.#sliceBytes
    if (bytesNeeded === 0) this.#writeColumns()
    else this.#plex.scratch.take(bytesNeeded, (lease) => this.#read(lease))
  }

  get #sliceBytes(): number {
    return this.#sliceEnd - this.#position
  }

  /** Where a byte of a column's unit has its place in the scratch. */
  #scratchOffset(column: number, at: number): number {
    const lane = this.#lanes.indexOf(column)
    assert(lane >= 0, 'the column has a lane')
    return lane * this.#sliceBytes + (at - this.#position)
  }

  #read(lease: Lease): void {
    this.#lease = lease
    this.begin(() => this.#readDone())
    const base = this.#row * this.#layout.stripeBytes
    for (const { column, start, end } of defined(this.#plan, 'the plan').reads) {
      const at = this.#scratchOffset(column, start)
      this.send(this.#plex.column(column), 'read', base + start, end - start, lease, at)
    }
    this.sent()
  }

  /** Nothing has been written yet when a read fails: another plan can do without that column. */
  #readDone(): void {
    if (this.failed.size === 0 && this.#readsCount()) {
      this.#compute()
      return
    }
    if (this.failed.size === 0) {
      this.#giveBack()
      this.#nextSlice()
      return
    }
    const missed = new Map(this.failed)
    for (const [subdisk, error] of missed) this.#plex.host.noteError(subdisk, 'read', error)
    this.#giveBack()
    const [failure] = missed
    const [subdisk, error] = defined(failure, 'a failed read')
    const state = defined(this.#state, 'the state of the row')
    const alone = missed.size === 1 && state.unreadable.size === 0
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
  #readsCount(): boolean {
    for (const { column } of defined(this.#plan, 'the plan').reads) {
      if (!this.#plex.columnReadable(this.#layout, this.#row, column)) return false
    }
    return true
  }

  #compute(): void {
    const { segments } = defined(this.#plan, 'the plan')
    for (const segment of segments) if (segment.method !== 'data') this.#parity(segment)
    this.#writeColumns()
  }

  #parity(segment: Segment): void {
    const { start, end, method, touched, untouched } = segment
    const { bytes } = defined(this.#lease, 'scratch')
    const { parity } = defined(this.#state, 'the state of the row')
    const sources: XorSource[] = []
    const old = method === 'modify' ? [parity, ...touched] : untouched
    for (const column of old) sources.push({ bytes, offset: this.#scratchOffset(column, start) })
    for (const source of this.#slice) {
      const { part } = source
      if (source.start > start || source.end < end || !part.data) continue
      sources.push({ bytes: part.data.bytes, offset: source.dataOffset + (start - source.start) })
    }
    const into = this.#scratchOffset(parity, start)
    this.#plex.host.kernels.xor(bytes, into, sources, end - start)
  }

  /**
   * The only place where columns of a row are written by initiators; `#written` is the only place behind it. A
   * log that closes the write hole without a bitmap goes before the first `send` and after the last completion.
   */
  #writeColumns(): void {
    const base = this.#row * this.#layout.stripeBytes
    const { unwritable } = defined(this.#state, 'the state of the row')
    this.begin(() => this.#written())
    for (const { column, start, end, part, dataOffset } of this.#slice) {
      if (unwritable.has(column)) continue
      const { data, fua } = part
      const op = data ? 'write' : 'write-zeroes'
      const subdisk = this.#plex.column(column)
      this.send(subdisk, op, base + start, end - start, data, dataOffset, fua)
    }
    const fua = this.#parts.some((part) => part.fua)
    for (const { column, start, end } of defined(this.#plan, 'the plan').parityWrites) {
      const at = this.#scratchOffset(column, start)
      const subdisk = this.#plex.column(column)
      this.send(subdisk, 'write', base + start, end - start, this.#lease, at, fua)
    }
    this.sent()
  }

  #written(): void {
    this.#giveBack()
    const { parity, parityState, unreadable, unwritable } = defined(
      this.#state,
      'the state of the row',
    )
    if (this.failed.size === 0 && unwritable.size === 0) {
      // Nobody can have missed it.
      this.#position = this.#sliceEnd
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
          : this.#slice.some((one) => one.column === column)
      if (isMeant && subdisk.inService) missed.set(subdisk, this.#plex.driveGone(subdisk))
    }
    const lost = new Set([...missed.keys()])
    for (const column of unreadable) {
      if (column !== this.#readFailed) lost.add(this.#plex.column(column))
    }
    const redundant = parityState === 'right' || !dataMissed(this.#plex, missed, parity)
    this.#plex.resolveMissed(missed, lost.size <= 1 && redundant, (error) => {
      if (error) {
        this.#plex.tear(this.#layout, this.#row, 1)
        this.#finish(error, missed)
      } else {
        this.#position = this.#sliceEnd
        this.#nextSlice()
      }
    })
  }

  #giveBack(): void {
    this.#lease?.release()
    this.#lease = undefined
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
