/**
 * The requests of a RAID5 plex, cut into what one column or one row can do: a read into stripe units, a write
 * into rows of which some run at once, zeroes into spans of whole rows and rest, a flush into drives. Each has
 * one object that counts its parts and completes once. Called by plex-raid5.ts.
 */
import type { PlexusError } from '../../../base/errors.ts'
import { RAID5_ROWS_AT_ONCE, RAID5_ZERO_ROWS } from '../../../base/limits.ts'
import type { AlignedBuffer, IoCause, IoOp, IoRequest } from '../../../hal/block-device.ts'
import type { Drive, Subdisk } from '../runtime.ts'
import { ColumnGroup, noneFailed } from './column-io.ts'
import { locate, type Raid5Layout, rowOf, rowStart } from './layout.ts'
import { isInService, type Raid5Plex } from './plex-raid5.ts'
import { RowRead } from './row-read.ts'
import { type RowPart, RowWrite } from './row-write.ts'
import { RowsZero } from './zero.ts'

export type OnMissed = (subdisk: Subdisk, error: PlexusError) => void

/** Sends a read: one object for each stripe unit that it touches, and one more when there are several. */
export function startRead(plex: Raid5Plex, request: IoRequest): void {
  const end = request.offset + request.length
  const firstEnd = plex.unitEnd(request.offset)
  if (firstEnd >= end) {
    new ReadPiece(plex, request, request, request.offset, request.length).start()
    return
  }
  const join = new ReadJoin(request)
  for (let at = request.offset; at < end; ) {
    const next = Math.min(end, plex.unitEnd(at))
    join.pending++
    new ReadPiece(plex, request, join, at, next - at).start()
    at = next
  }
}

interface Completion {
  complete(error: PlexusError | undefined): void
}

class ReadJoin implements Completion {
  pending = 0
  readonly #request: IoRequest
  #error: PlexusError | undefined

  constructor(request: IoRequest) {
    this.#request = request
  }

  /** Never before all pieces are counted: no piece completes from within its start. */
  complete(error: PlexusError | undefined): void {
    this.#error ??= error
    if (--this.pending === 0) this.#request.complete(this.#error)
  }
}

/** A read within one stripe unit: straight to the column when that is valid, else through the others. */
class ReadPiece implements IoRequest {
  readonly op = 'read'
  readonly offset: number
  readonly length: number
  readonly data: AlignedBuffer | undefined
  readonly dataOffset: number
  readonly fua = false
  readonly cause: IoCause
  readonly #plex: Raid5Plex
  readonly #whole: Completion
  readonly #layout: Raid5Layout
  readonly #row: number
  readonly #column: number
  readonly #columnOffset: number

  constructor(
    plex: Raid5Plex,
    request: IoRequest,
    whole: Completion,
    offset: number,
    length: number,
  ) {
    this.offset = offset
    this.length = length
    this.data = request.data
    this.dataOffset = request.dataOffset + (offset - request.offset)
    this.cause = request.cause
    this.#plex = plex
    this.#whole = whole
    this.#layout = plex.layoutAt(offset)
    const { row, column, columnOffset } = locate(this.#layout, offset)
    this.#row = row
    this.#column = column
    this.#columnOffset = columnOffset
  }

  start(): void {
    const { dataOffset, length } = this
    const plex = this.#plex
    if (plex.record.lost && plex.isLost(this.#column, this.#columnOffset, length)) {
      const error = plex.isLostError(this.#column, this.#columnOffset, length)
      queueMicrotask(() => this.#whole.complete(error))
    } else if (plex.columnReadable(this.#layout, this.#row, this.#column)) {
      plex.column(this.#column).forward(this, this.#columnOffset, length, dataOffset)
    } else this.#readOthers(undefined)
  }

  /** The end of the direct read. */
  complete(error: PlexusError | undefined): void {
    if (error) this.#plex.host.noteError(this.#plex.column(this.#column), 'read', error)
    else if (this.#plex.columnReadable(this.#layout, this.#row, this.#column)) {
      this.#whole.complete(undefined)
      return
    }
    // Out of service meanwhile: a drive whose cache is lost gives old content, and does not say so.
    this.#readOthers(error)
  }

  #readOthers(readError: PlexusError | undefined): void {
    if (!this.data) return
    new RowRead(this.#plex, {
      layout: this.#layout,
      row: this.#row,
      column: this.#column,
      columnOffset: this.#columnOffset,
      length: this.length,
      into: this.data,
      intoOffset: this.dataOffset,
      cause: this.cause,
      readError,
      done: (error) => this.#whole.complete(error),
    }).start()
  }
}

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
    super()
    this.#plex = plex
    this.#request = request
    this.#onMissed = onMissed
  }

  start(): void {
    const drives = new Set<Drive>()
    const { cause } = this.#request
    const op: IoOp = 'flush'
    this.begin(() => this.#flushed())
    for (const subdisk of this.#plex.subdisks) {
      // Also one whose drive has just gone: it answers with an error, and counts like one that fails.
      // One that is down has nothing to flush: it has missed nothing that was written since it left.
      const isAway = !isInService(subdisk) || subdisk.record.state === 'down'
      if (isAway || drives.has(subdisk.drive)) continue
      drives.add(subdisk.drive)
      const nothing = { offset: 0, length: 0, data: undefined, dataOffset: 0, fua: false }
      this.send(subdisk, { op, ...nothing, cause })
    }
    // With no column in service nothing has been acknowledged: completing waits for the caller to return.
    queueMicrotask(() => this.sent())
  }

  #flushed(): void {
    const missed = new Map<Subdisk, PlexusError>()
    let lost = 0
    for (const subdisk of this.#plex.subdisks) {
      const error = errorOf(this.failed, subdisk)
      if (error && isInService(subdisk)) {
        missed.set(subdisk, error)
        this.#plex.host.noteError(subdisk, 'write', error)
      }
      if (!this.#plex.isUp(subdisk) || missed.has(subdisk)) lost++
    }
    this.#plex.resolveMissed(missed, lost <= 1 && this.#plex.computed, (error) => {
      if (error) for (const [subdisk, why] of missed) this.#onMissed(subdisk, why)
      this.#request.complete(error)
    })
  }
}

/** The error of the drive that a subdisk shares with the one that was asked. */
function errorOf(
  failed: ReadonlyMap<Subdisk, PlexusError>,
  { drive }: Subdisk,
): PlexusError | undefined {
  for (const [subdisk, error] of failed) if (subdisk.drive === drive) return error
  return undefined
}
