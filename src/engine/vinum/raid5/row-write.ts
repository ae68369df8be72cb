/**
 * One update of one row of a RAID5 plex: the parts of one or several writes that wait for the row together.
 *
 *   row lock -> settle a row in doubt -> plan (raid5/row-plan.ts) -> scratch, one lease -> reads -> XOR
 *     -> the log, if there is one -> data and parity in parallel -> columns that missed it out of service, durably -> unlock -> the requests go on
 *
 * A row that needs much scratch is updated in slices along the column axis. The write hole: data and parity are in flight
 * together, and a crash leaves a row that is named by the volume's intent map. Its parity is in doubt then: before anything
 * else is written there, it is computed anew, or what it stands for is lost (RowState).
 */
import { alignDown } from '../../../base/bytes.ts'
import { type PlexusError, toPlexusError } from '../../../base/errors.ts'
import type { XorSource } from '../../../base/kernels.ts'
import { PAGE_BYTES, RAID5_SCRATCH_BYTES } from '../../../base/limits.ts'
import type { Lease } from '../../../hal/block-device.ts'
import type { Subdisk } from '../runtime.ts'
import { ColumnGroup, noneFailed } from './column-io.ts'
import { type EntryPiece, LogEntry } from './entry.ts'
import { dataColumn, type Raid5Layout, rowStart } from './layout.ts'
import type { RowWaiter } from './locks.ts'
import type { Raid5Plex } from './plex-raid5.ts'
import { settleRow } from './row-jobs.ts'
import { clip, lanesOf, placeOf, type RowPart, type Slice, type Source } from './row-parts.ts'
import { planRow, type Segment } from './row-plan.ts'
import { type RowState, rowState } from './row-state.ts'

/** Parts that share one update of a row: as many as an entry of the log has room for. */
const ROW_PARTS = 64

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
  /** That of the slice under way. */
  #entry: LogEntry | undefined

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
    if (this.#parts.length + next.#parts.length > ROW_PARTS) return false
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
    this.#settle().then(
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

  /** What the log has of the row must not be written again over the settled one. */
  async #settle(): Promise<void> {
    await this.#plex.log?.retire(this.#row, 1)
    await settleRow(this.#plex, this.#layout, this.#row)
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
      const bytes = end - start
      const { logPartBytes } = this.#plex
      if (lanes.length * bytes <= RAID5_SCRATCH_BYTES && bytes <= logPartBytes) {
        return { start, end, sources, state, plan, lanes }
      }
      // A shorter one has a plan of its own, which may need more columns.
      const room = alignDown(RAID5_SCRATCH_BYTES / Math.max(1, lanes.length), PAGE_BYTES)
      end = start + Math.min(bytes, room, logPartBytes)
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

  /** Before the first write in place all of the slice is in the log, if the plex has one. */
  #writeColumns(slice: Slice, lease: Lease | undefined): void {
    const { log } = this.#plex
    const pieces = log && this.#piecesOf(slice, lease)
    if (!log || !pieces || pieces.size === 0) {
      this.#writeInPlace(slice, lease)
      return
    }
    const init = { layout: this.#layout, firstRow: this.#row, rows: 1, pieces }
    const entry = new LogEntry(this.#plex, log, init)
    this.#entry = entry
    entry.write((missed, error) => {
      if (error || missed.size > 0) this.#logFailed(slice, lease, missed, error)
      else this.#writeInPlace(slice, lease)
    })
  }

  /** What the slice writes in each column that can be written. */
  #piecesOf(slice: Slice, lease: Lease | undefined): ReadonlyMap<number, EntryPiece[]> {
    const base = this.#row * this.#layout.stripeBytes
    const pieces = new Map<number, EntryPiece[]>()
    const add = (column: number, piece: EntryPiece): void => {
      const list = pieces.get(column)
      if (list) list.push(piece)
      else pieces.set(column, [piece])
    }
    for (const { column, start, end, part, dataOffset } of slice.sources) {
      if (slice.state.unwritable.has(column)) continue
      add(column, { offset: base + start, length: end - start, data: part.data, dataOffset })
    }
    for (const { column, start, end } of slice.plan.parityWrites) {
      const dataOffset = placeOf(slice, column, start)
      add(column, { offset: base + start, length: end - start, data: lease, dataOffset })
    }
    return pieces
  }

  /** Nothing is in place yet. Columns that could not be logged have missed the write; the others go on without them. */
  #logFailed(
    slice: Slice,
    lease: Lease | undefined,
    missed: ReadonlyMap<Subdisk, PlexusError>,
    error: PlexusError | undefined,
  ): void {
    lease?.release()
    for (const [subdisk, why] of missed) this.#plex.host.noteError(subdisk, 'write', why)
    if (error) {
      this.#endEntry()
      this.#failAll(error)
      return
    }
    const redundant = this.#isRedundant(slice.state, missed)
    this.#plex.resolveMissed(missed, redundant, (refusal) => {
      this.#endEntry()
      // With another plan, which does without them.
      if (refusal) this.#finish(refusal, missed)
      else this.#nextSlice()
    })
  }

  #endEntry(): void {
    this.#entry?.ended()
    this.#entry = undefined
  }

  /** Is all that the row has without these columns still there? */
  #isRedundant(
    { parity, parityState, unreadable }: RowState,
    missed: ReadonlyMap<Subdisk, PlexusError>,
  ): boolean {
    const lost = new Set(missed.keys())
    for (const column of unreadable) {
      if (column !== this.#readFailed) lost.add(this.#plex.column(column))
    }
    return lost.size <= 1 && (parityState === 'right' || !dataMissed(this.#plex, missed, parity))
  }

  /** The only place where columns of a row are written by initiators; `#written` is the only place behind it. */
  #writeInPlace(slice: Slice, lease: Lease | undefined): void {
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
    const { parity, parityState, unwritable } = state
    if (this.failed.size === 0 && unwritable.size === 0) {
      // Nobody can have missed it.
      this.#endEntry()
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
    this.#plex.resolveMissed(missed, this.#isRedundant(state, missed), (error) => {
      if (error) {
        this.#plex.tear(this.#layout, this.#row, 1)
        const entry = this.#entry
        this.#entry = undefined
        const finish = (): void => this.#finish(error, missed)
        if (entry) entry.torn().then(finish, finish)
        else finish()
      } else {
        this.#endEntry()
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
