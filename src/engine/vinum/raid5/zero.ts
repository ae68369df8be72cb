/**
 * Whole rows of a RAID5 plex become zeroes, as write-zeroes and discard want it: every column of the rows is zeroed,
 * since zeroes XOR zeroes are right parity, and no data moves. A discard is passed down only where the device
 * promises zeroes afterwards; elsewhere the range is zeroed.
 */
import type { PlexusError } from '../../../base/errors.ts'
import type { IoCause, IoOp } from '../../../hal/block-device.ts'
import type { Subdisk } from '../runtime.ts'
import { ColumnGroup, noneFailed } from './column-io.ts'
import { type EntryPiece, LogEntry } from './entry.ts'
import { type Raid5Layout, rowStart } from './layout.ts'
import type { Raid5Plex } from './plex-raid5.ts'
import { rowState } from './row-state.ts'

export interface RowsZeroInit {
  readonly op: 'write-zeroes' | 'discard'
  readonly layout: Raid5Layout
  readonly firstRow: number
  readonly rows: number
  readonly fua: boolean
  readonly cause: IoCause
  readonly done: (error: PlexusError | undefined, missed: ReadonlyMap<Subdisk, PlexusError>) => void
}

export class RowsZero extends ColumnGroup {
  readonly #plex: Raid5Plex
  readonly #init: RowsZeroInit
  #entry: LogEntry | undefined

  constructor(plex: Raid5Plex, init: RowsZeroInit) {
    super(init.cause)
    this.#plex = plex
    this.#init = init
  }

  start(): void {
    const { firstRow, rows } = this.#init
    this.#plex.locks.acquireSpan(firstRow, rows, () => this.#zero())
  }

  #zero(): void {
    const { layout, firstRow, rows } = this.#init
    const offset = firstRow * layout.stripeBytes
    const length = rows * layout.stripeBytes
    const away = this.#plex.columnsOf(layout).filter(({ writable }) => !writable)
    if (away.length > 1) {
      // What is away may come back with what it had: then the others must have it, too.
      const error = this.#plex.cannotStore(layout, firstRow, undefined)
      this.#end(error, new Map(this.#plex.columnsOf(layout).map((one) => [one, error])))
      return
    }
    // In service, but without a drive: it misses this.
    const gone = away.filter(({ inService }) => inService)
    const { log } = this.#plex
    if (!log) {
      this.#zeroInPlace(gone, away.length)
      return
    }
    const piece = { offset, length, data: undefined, dataOffset: 0 }
    const pieces = new Map<number, readonly EntryPiece[]>()
    for (const [column, { writable }] of this.#plex.columnsOf(layout).entries()) {
      if (writable) pieces.set(column, [piece])
    }
    const entry = new LogEntry(this.#plex, log, { layout, firstRow, rows, pieces })
    this.#entry = entry
    entry.write((missed, error) => {
      // What the rings of these columns lack they miss in place, too.
      if (!error) this.#zeroInPlace(gone, away.length, missed)
      else this.#end(error, new Map(this.#plex.columnsOf(layout).map((one) => [one, error])))
    })
  }

  #zeroInPlace(
    gone: readonly Subdisk[],
    awayBefore: number,
    unlogged: ReadonlyMap<Subdisk, PlexusError> = noneFailed,
  ): void {
    const { layout, firstRow, rows, fua } = this.#init
    const offset = firstRow * layout.stripeBytes
    const length = rows * layout.stripeBytes
    if (unlogged.size > 0) {
      // Durably out of service before the others are written: nothing has been zeroed yet.
      const { parityState } = rowState(this.#plex, layout, firstRow + rows - 1)
      const redundant = awayBefore + unlogged.size <= 1 && parityState !== 'unknown'
      this.#plex.resolveMissed(unlogged, redundant, (error) => {
        this.#entry?.ended()
        if (error) this.#end(error, unlogged)
        else this.#zero()
      })
      return
    }
    this.begin(() => this.#zeroed(gone, awayBefore))
    for (const subdisk of this.#plex.columnsOf(layout)) {
      // Also where a subdisk is not valid yet: some of the rows may be, and zeroes harm none.
      if (!subdisk.writable) continue
      const op = this.#opFor(subdisk, offset, length)
      this.send(subdisk, op, offset, length, undefined, 0, fua)
    }
    this.sent()
  }

  #end(error: PlexusError | undefined, missed: ReadonlyMap<Subdisk, PlexusError>): void {
    this.#plex.locks.releaseSpan(this.#init.firstRow, this.#init.rows)
    this.#init.done(error, missed)
  }

  #opFor({ drive, record }: Subdisk, offset: number, length: number): IoOp {
    const features = drive.consumer?.features
    if (this.#init.op !== 'discard' || !features?.discardZeroes) return 'write-zeroes'
    const { discardGranularityBytes: granule, discardAlignmentBytes } = features
    if (granule === 0) return 'write-zeroes'
    // The device may leave the content of granules that are discarded in part.
    const start = record.driveOffsetBytes + offset - discardAlignmentBytes
    return start % granule === 0 && length % granule === 0 ? 'discard' : 'write-zeroes'
  }

  #zeroed(gone: readonly Subdisk[], lostBefore: number): void {
    const { layout, firstRow, rows } = this.#init
    const plex = this.#plex
    const missed = new Map(this.failed)
    for (const [subdisk, error] of missed) plex.host.noteError(subdisk, 'write', error)
    const lost = lostBefore + missed.size
    for (const subdisk of gone) missed.set(subdisk, plex.driveGone(subdisk))
    // The mark moves upwards: what holds of the last row holds of those before it.
    const { parityState } = rowState(plex, layout, firstRow + rows - 1)
    const redundant = lost === 0 || (lost === 1 && parityState !== 'unknown')
    plex.resolveMissed(missed, redundant, (error) => {
      if (error) plex.tear(layout, firstRow, rows)
      else this.#entry?.ended()
      if (!error && redundant) plex.settled(layout, firstRow, rows)
      const refusal = error || redundant ? error : plex.cannotStore(layout, firstRow, undefined)
      const length = refusal ? 0 : rows * layout.rowDataBytes
      const finish = (): void =>
        plex.regain([{ offset: rowStart(layout, firstRow), length }], (failure) =>
          this.#end(refusal ?? failure, missed),
        )
      if (error && this.#entry) this.#entry.torn().then(finish, finish)
      else finish()
    })
  }
}
