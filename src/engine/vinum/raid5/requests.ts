/**
 * The requests of a RAID5 plex that change something: a write is cut into rows of which some run at once, zeroes into
 * spans of whole rows and rest, a flush into drives.
 */
import type { PlexusError } from '../../../base/errors.ts'
import { RAID5_ROWS_AT_ONCE, RAID5_ZERO_ROWS } from '../../../base/limits.ts'
import type { IoRequest } from '../../../hal/block-device.ts'
import type { Drive, Subdisk } from '../runtime.ts'
import { ColumnGroup, noneFailed } from './column-io.ts'
import { rowOf, rowStart } from './layout.ts'
import type { Raid5Plex } from './plex-raid5.ts'
import type { RowPart } from './row-parts.ts'
import { RowWrite } from './row-write.ts'
import { RowsZero } from './zero.ts'

export type OnMissed = (subdisk: Subdisk, error: PlexusError) => void

/** A write, a discard or a write of zeroes: rows in ascending order, a bounded number of them at once. */
export class ChangeRequest {
  readonly #plex: Raid5Plex
  readonly #request: IoRequest
  readonly #onMissed: OnMissed
  readonly #end: number
  #position: number
  #pending = 0
  #error: PlexusError | undefined
  #missed = noneFailed

  constructor(plex: Raid5Plex, request: IoRequest, onMissed: OnMissed) {
    this.#plex = plex
    this.#request = request
    this.#onMissed = onMissed
    this.#position = request.offset
    this.#end = request.offset + request.length
  }

  /** Starts rows while there is room. What has been started is never cut again (docs/vinum.md, 8.13). */
  start(): void {
    while (
      this.#position < this.#end &&
      this.#pending < RAID5_ROWS_AT_ONCE &&
      this.#error === undefined
    ) {
      this.#pending++
      this.#startNext()
    }
    if (this.#pending > 0) return
    for (const [subdisk, error] of this.#missed) this.#onMissed(subdisk, error)
    this.#request.complete(this.#error)
  }

  #startNext(): void {
    const offset = this.#position
    const layout = this.#plex.layoutAt(offset)
    const row = rowOf(layout, offset)
    const rowOffset = offset - rowStart(layout, row)
    // Behind the end of the piece the layout may be another one, or the request ends.
    const end = Math.min(this.#end, this.#plex.layoutEnd(offset))
    const { op, data, fua, cause } = this.#request
    const whole = rowOffset === 0 ? Math.floor((end - offset) / layout.rowDataBytes) : 0
    if (whole > 0 && (op === 'discard' || op === 'write-zeroes')) {
      const rows = Math.min(whole, RAID5_ZERO_ROWS)
      this.#position = offset + rows * layout.rowDataBytes
      const done = this.#rowDone
      new RowsZero(this.#plex, { op, layout, firstRow: row, rows, fua, cause, done }).start()
      return
    }
    const length = Math.min(end - offset, layout.rowDataBytes - rowOffset)
    this.#position = offset + length
    const part: RowPart = {
      rowOffset,
      length,
      data: op === 'write' ? data : undefined,
      dataOffset: this.#request.dataOffset + (offset - this.#request.offset),
      fua,
      cause,
      rowDone: this.#rowDone,
    }
    this.#plex.locks.acquire(row, new RowWrite(this.#plex, layout, row, part))
  }

  #rowDone = (error: PlexusError | undefined, missed: ReadonlyMap<Subdisk, PlexusError>): void => {
    this.#pending--
    if (error) {
      this.#error ??= error
      this.#missed = new Map([...this.#missed, ...missed])
    }
    this.start()
  }
}

/** Each drive once. One that fails may have lost writes that were acknowledged: its column has missed them. */
export class FlushRequest extends ColumnGroup {
  readonly #plex: Raid5Plex
  readonly #request: IoRequest
  readonly #onMissed: OnMissed

  constructor(plex: Raid5Plex, request: IoRequest, onMissed: OnMissed) {
    super(request.cause)
    this.#plex = plex
    this.#request = request
    this.#onMissed = onMissed
  }

  start(): void {
    const drives = new Set<Drive>()
    this.begin(() => this.#flushed())
    for (const subdisk of this.#plex.subdisks) {
      // Also one whose drive has just gone: it answers with an error, and counts like one that fails.
      // One that is down has nothing to flush: it has missed nothing that was written since it left.
      const isAway = !subdisk.inService || subdisk.record.state === 'down'
      if (isAway || drives.has(subdisk.drive)) continue
      drives.add(subdisk.drive)
      this.send(subdisk, 'flush', 0, 0, undefined, 0)
    }
    // With no column in service nothing has been acknowledged: completing waits for the caller to return.
    queueMicrotask(() => this.sent())
  }

  #flushed(): void {
    const missed = new Map<Subdisk, PlexusError>()
    let lost = 0
    for (const subdisk of this.#plex.subdisks) {
      // That of the drive, which it shares with the one that was asked.
      const error = [...this.failed].find(([{ drive }]) => drive === subdisk.drive)?.[1]
      if (error && subdisk.inService) {
        missed.set(subdisk, error)
        this.#plex.host.noteError(subdisk, 'write', error)
      }
      if (subdisk.record.state !== 'up' || !subdisk.writable || missed.has(subdisk)) lost++
    }
    const isComputed = this.#plex.parityValidBytes >= this.#plex.sizeBytes
    this.#plex.resolveMissed(missed, lost <= 1 && isComputed, (error) => {
      if (error) for (const [subdisk, why] of missed) this.#onMissed(subdisk, why)
      this.#request.complete(error)
    })
  }
}
