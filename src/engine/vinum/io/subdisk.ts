/**
 * A subdisk in operation (runtime.ts): a piece of a drive. A request costs an addition here and nothing else.
 * Only while the subdisk moves to another place its requests are followed: a write of what has been copied goes
 * to both places, reads come from the old one, which stays the subdisk's until the end (jobs/move.ts).
 */
import { assert } from '../../../base/assert.ts'
import { PlexusError } from '../../../base/errors.ts'
import type { RangeSet } from '../../../base/range-set.ts'
import type { IoOp } from '../../../hal/block-device.ts'
import type { IoParent } from '../../geom/bio.ts'
import { CallbackEntry, RangeLock } from '../../geom/range-lock.ts'
import type { TroubleCounts } from '../../metadata/set-drive.ts'
import type { SubdiskRecord } from '../model/model.ts'
import type { Drive, Subdisk } from '../runtime.ts'
import { Join, RequestPart } from './request-part.ts'

export class PlacedSubdisk implements Subdisk {
  record: SubdiskRecord
  drive: Drive
  readonly errors: TroubleCounts = { read: 0, write: 0, parity: 0 }
  missing: RangeSet | undefined
  departures = 0
  #move: SubdiskMove | undefined

  constructor(record: SubdiskRecord, drive: Drive) {
    this.record = record
    this.drive = drive
  }

  get writable(): boolean {
    const { state } = this.record
    return (state === 'up' || state === 'reviving') && isPresent(this.drive)
  }

  get inService(): boolean {
    const { state } = this.record
    return state === 'up' || state === 'reviving' || state === 'down'
  }

  readable(plexOffset: number, length: number): boolean {
    if (!this.writable) return false
    if (this.record.state === 'up') return true
    return this.missing !== undefined && !this.missing.touches(plexOffset, length)
  }

  /** The move that is under way. */
  get move(): SubdiskMove | undefined {
    return this.#move
  }

  /**
   * From now on requests are followed, so that a copy to `drive` at `driveOffsetBytes` (absolute on the device) can
   * be made under them. Requests that are under way already are not: the caller waits for them.
   */
  beginMove(drive: Drive, driveOffsetBytes: number): SubdiskMove {
    assert(!this.#move, `${this.record.name} moves once at a time`)
    this.#move = new SubdiskMove(drive, driveOffsetBytes)
    return this.#move
  }

  /** The copy is done or given up: requests are followed no more. */
  endMove(): void {
    this.#move = undefined
  }

  forward(parent: IoParent, offset: number, length: number, dataOffset: number): void {
    if (this.#move && parent.op !== 'flush') {
      new FollowedRequest(this, this.#move, parent, offset, length, dataOffset).enter()
    } else this.forwardHere(parent, offset, length, dataOffset)
  }

  /** To the place that the subdisk has now. */
  forwardHere(parent: IoParent, offset: number, length: number, dataOffset: number): void {
    const { consumer } = this.drive
    const at = this.record.driveOffsetBytes + offset
    if (consumer) consumer.forward(parent, at, length, dataOffset)
    else queueMicrotask(() => parent.complete(missingDrive(this, parent.op)))
  }
}

/** The new place of a moving subdisk, and how far the copy is. */
export class SubdiskMove {
  readonly drive: Drive
  readonly driveOffsetBytes: number
  /** In subdisk space: the copy keeps writes off its window, and everything off at the end. */
  readonly lock = new RangeLock()
  /** Everything below is in both places. Changed only while the lock keeps writes off what it uncovers. */
  copiedBytes = 0
  /** Why the new place is no copy any more: the job fails with it. Writes go on in the old place. */
  error: PlexusError | undefined

  constructor(drive: Drive, driveOffsetBytes: number) {
    this.drive = drive
    this.driveOffsetBytes = driveOffsetBytes
  }

  /** Sends a request to the new place. `offset` is in subdisk space. */
  forward(parent: IoParent, offset: number, length: number, dataOffset: number): void {
    const { consumer } = this.drive
    const at = this.driveOffsetBytes + offset
    if (consumer) consumer.forward(parent, at, length, dataOffset)
    else queueMicrotask(() => parent.complete(missingTarget(this.drive, parent.op)))
  }
}

/** One request to a moving subdisk: waits for the copy's window, then goes to one or both places. */
class FollowedRequest extends RequestPart {
  readonly #subdisk: PlacedSubdisk
  readonly #move: SubdiskMove
  readonly #parent: IoParent
  readonly #entry = new CallbackEntry(() => this.#granted())
  /** Of the old place, whose result is the request's, and of the new one. */
  readonly #places = new Join({ complete: (error) => this.#end(error) })

  constructor(
    subdisk: PlacedSubdisk,
    move: SubdiskMove,
    parent: IoParent,
    offset: number,
    length: number,
    dataOffset: number,
  ) {
    super()
    this.copyPart(parent, offset, length, dataOffset)
    this.#subdisk = subdisk
    this.#move = move
    this.#parent = parent
  }

  enter(): void {
    const mode = this.op === 'read' ? 'read' : 'write'
    this.#move.lock.add(this.#entry, this.offset, this.length, mode)
  }

  complete(error: PlexusError | undefined): void {
    this.#places.complete(error)
  }

  /** Where the new place has failed it is no copy any more, but the write is safe where the subdisk is. */
  completeThere(error: PlexusError | undefined): void {
    this.#move.error ??= error
    this.#places.complete(undefined)
  }

  #end(error: PlexusError | undefined): void {
    this.#move.lock.leave(this.#entry)
    this.#parent.complete(error)
  }

  #granted(): void {
    const { offset, length, dataOffset } = this
    const move = this.#move
    // The move may have ended while this request waited: then the subdisk's place is the only one.
    const moving = this.#subdisk.move === move && !move.error && this.op !== 'read'
    const copied = moving ? Math.min(length, move.copiedBytes - offset) : 0
    if (copied > 0) this.#places.pending++
    this.#subdisk.forwardHere(this, offset, length, dataOffset)
    if (copied > 0) move.forward(new SecondWrite(this, move), offset, copied, dataOffset)
  }
}

/** The part of a followed write that goes to the new place. */
class SecondWrite extends RequestPart {
  readonly #first: FollowedRequest

  constructor(first: FollowedRequest, move: SubdiskMove) {
    super()
    this.copy(first)
    // What a discard leaves in the old place reads the same later: the new drive may know no discard, or one that
    // leaves anything; zeroes it can always write.
    const zeroes = first.op === 'discard' && !move.drive.consumer?.features.discardZeroes
    if (zeroes) this.op = 'write-zeroes'
    this.#first = first
  }

  complete(error: PlexusError | undefined): void {
    this.#first.completeThere(error)
  }
}

/** Is the drive's device there, and does it serve? */
export function isPresent(drive: Drive): boolean {
  return drive.consumer !== undefined && !drive.consumer.provider.error
}

function missingDrive({ record, drive }: PlacedSubdisk, op: IoOp): PlexusError {
  const { name, device } = drive.record
  return new PlexusError('gone', {
    op,
    subject: record.name,
    message: `subdisk ${record.name}: its drive ${name} (${device}) is missing; connect it again or replace it`,
  })
}

function missingTarget(drive: Drive, op: IoOp): PlexusError {
  const { name, device } = drive.record
  return new PlexusError('gone', {
    op,
    subject: name,
    message: `drive ${name} (${device}), to which a subdisk moves, is missing; connect it again`,
  })
}
