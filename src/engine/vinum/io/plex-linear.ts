/**
 * A plex of organisation concat or striped (docs/vinum.md, 7): pure addresses, no redundancy. A request that
 * lies in one subdisk is passed on by one recycled object; one that spans several is split once, into pieces that
 * a join counts. What a plex cannot store it names, and leaves the decision to the volume.
 *
 *   striped over n columns of stripe S: unit k = offset div S lies in column k mod n, at (k div n) * S
 *   while it grows: below the growth's cursor n is the new number of columns, above it the old one
 */
import { assert, defined } from '../../../base/assert.ts'
import { PlexusError } from '../../../base/errors.ts'
import type { IoOp, IoRequest } from '../../../hal/block-device.ts'
import { type PlexRecord, sizeOfPlex } from '../model/model.ts'
import { hasParity, isStriped } from '../model/plex-kinds.ts'
import type { Drive, Plex, Subdisk, VinumHost } from '../runtime.ts'
import { Join, RequestPart } from './request-part.ts'
import { isPresent } from './subdisk.ts'

type OnMissed = (subdisk: Subdisk, error: PlexusError) => void

export interface LinearPlexOptions {
  readonly host: Pick<VinumHost, 'noteError'>
  readonly record: PlexRecord
  /** In order (subdisksOf). */
  readonly subdisks: readonly Subdisk[]
}

export class LinearPlex implements Plex {
  readonly doubt = undefined
  readonly subdisks: readonly Subdisk[]
  readonly #host: Pick<VinumHost, 'noteError'>
  #record: PlexRecord
  #sizeBytes: number
  /** Pieces at rest. As many as were ever in flight at once, which the command windows bound. */
  readonly #pieces: Piece[] = []
  /** Where {@link #locate} found the last offset: column or part, offset in the subdisk, end in plex space. */
  #at: Subdisk | undefined = undefined
  #inner = 0
  #end = 0

  constructor({ host, record, subdisks }: LinearPlexOptions) {
    assert(!hasParity(record), `${record.name} is linear`)
    assert(!isStriped(record) || record.stripeBytes > 0, `${record.name} has a stripe size`)
    this.subdisks = subdisks
    this.#host = host
    this.#record = record
    this.#sizeBytes = this.#sizeFor(record)
  }

  get record(): PlexRecord {
    return this.#record
  }

  /** A new record, for example with another growth cursor: requests are kept off what it moves. */
  set record(record: PlexRecord) {
    this.#record = record
    this.#sizeBytes = this.#sizeFor(record)
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  #sizeFor(record: PlexRecord): number {
    return sizeOfPlex(
      record,
      this.subdisks.map((one) => one.record),
    )
  }

  readable(offset: number, length: number): boolean {
    if (this.#allUp()) return offset + length <= this.#sizeBytes
    return this.#served(offset, length, (one, at, bytes) => one.readable(at, bytes)) === 'full'
  }

  storable(offset: number, length: number): 'full' | 'partial' | 'none' {
    if (this.#allUp() && offset + length <= this.#sizeBytes) return 'full'
    return this.#served(offset, length, (one) => one.writable)
  }

  /** How much of a range lies in subdisks that serve it. */
  #served(
    offset: number,
    length: number,
    serves: (subdisk: Subdisk, at: number, bytes: number) => boolean,
  ): 'full' | 'partial' | 'none' {
    let some = false
    let all = true
    for (let at = offset; at < offset + length; at = this.#end) {
      this.#locate(at)
      const bytes = Math.min(this.#end, offset + length) - at
      if (this.#at && serves(this.#at, at, bytes)) some = true
      else all = false
    }
    return all ? 'full' : some ? 'partial' : 'none'
  }

  pieceEnd(offset: number): number {
    this.#locate(offset)
    return this.#end
  }

  /** Where an offset of plex space lies: a subdisk and the offset in it; undefined in a hole. */
  placeOf(offset: number): { readonly subdisk: Subdisk; readonly offset: number } | undefined {
    this.#locate(offset)
    return this.#at && { subdisk: this.#at, offset: this.#inner }
  }

  start(request: IoRequest, onMissed: OnMissed): void {
    if (request.op === 'flush') {
      this.#flush(request, onMissed)
      return
    }
    const { offset, length, dataOffset } = request
    this.#locate(offset)
    if (this.#end >= offset + length && this.#at) {
      this.#send(request, request, onMissed, this.#at, offset, this.#inner, length, dataOffset)
    } else if (
      this.#record.organization === 'striped' &&
      (request.op === 'discard' || request.op === 'write-zeroes')
    ) {
      this.#startColumns(request, onMissed)
    } else this.#startPieces(request, onMissed)
  }

  /** Splits at the ends of parts or stripe units. Units of one column are apart in the buffer: one piece each. */
  #startPieces(request: IoRequest, onMissed: OnMissed): void {
    const { offset, length, dataOffset } = request
    const join = new Join(request)
    const end = offset + length
    for (let at = offset; at < end; ) {
      this.#locate(at)
      const to = Math.min(this.#end, end)
      const bufferAt = dataOffset + at - offset
      if (this.#at) {
        join.pending++
        this.#send(request, join, onMissed, this.#at, at, this.#inner, to - at, bufferAt)
      } else join.fail(this.#hole(request.op, at))
      at = to
    }
    join.close()
  }

  /** Without a buffer, all units of a column are one range: one piece per column and layout. */
  #startColumns(request: IoRequest, onMissed: OnMissed): void {
    const { offset, length, op } = request
    const join = new Join(request)
    const cursor = this.#record.growth?.cursorBytes ?? Number.POSITIVE_INFINITY
    const end = offset + length
    for (let at = offset; at < end; ) {
      const to = at < cursor ? Math.min(end, cursor) : end
      const columns = this.#columnsAt(at)
      for (let column = 0; column < columns; column++) {
        const from = columnOffset(at, column, columns, this.#record.stripeBytes)
        const upTo = columnOffset(to, column, columns, this.#record.stripeBytes)
        if (upTo === from) continue
        const subdisk = defined(this.subdisks[column], `column ${column}`)
        join.pending++
        this.#send(request, join, onMissed, subdisk, at, from, upTo - from, 0)
      }
      at = to
    }
    assert(join.pending > 1, `${op} of ${length} bytes at ${offset} touches a column`)
    join.close()
  }

  /** Once for each drive. What a missing drive had acknowledged may be lost, so that is no success. */
  #flush(request: IoRequest, onMissed: OnMissed): void {
    const join = new Join(request)
    const drives = new Set<Drive>()
    for (const subdisk of this.subdisks) {
      if (subdisk.writable) {
        if (drives.has(subdisk.drive)) continue
        drives.add(subdisk.drive)
      }
      join.pending++
      this.#send(request, join, onMissed, subdisk, 0, 0, 0, 0)
    }
    join.close()
  }

  #send(
    request: IoRequest,
    parent: Completion,
    onMissed: OnMissed,
    subdisk: Subdisk,
    plexOffset: number,
    inner: number,
    length: number,
    dataOffset: number,
  ): void {
    const piece = this.#pieces.pop() ?? new Piece(this)
    piece.fill(request, parent, onMissed, subdisk, inner, length, dataOffset)
    if (request.op === 'read' ? subdisk.readable(plexOffset, length) : subdisk.writable) {
      // A drive that knows no discard keeps what it has, as it would below a plain disk.
      if (request.op === 'discard' && !discards(subdisk))
        queueMicrotask(() => piece.complete(undefined))
      else subdisk.forward(piece, inner, length, dataOffset)
    } else queueMicrotask(() => piece.skip(this.#outOfService(request.op, subdisk)))
  }

  /** A piece has ended; only {@link Piece} calls it. */
  settle(piece: Piece, error: PlexusError | undefined, skipped: boolean): void {
    const { op, subdisk, parent, onMissed } = piece
    const drive = subdisk?.drive
    piece.clear()
    this.#pieces.push(piece)
    if (error && subdisk) {
      if (!skipped) this.#host.noteError(subdisk, op === 'read' ? 'read' : 'write', error)
      if (op !== 'read') onMissed(subdisk, error)
      // A drive that fails a flush may have lost what any subdisk on it had acknowledged.
      if (op === 'flush' && !skipped) {
        for (const other of this.subdisks) {
          if (other !== subdisk && other.writable && other.drive === drive) onMissed(other, error)
        }
      }
    }
    parent.complete(error)
  }

  /** Finds the subdisk of an offset: sets #at, #inner and #end. #at is undefined in a hole of a concat plex. */
  #locate(offset: number): void {
    if (this.#record.organization === 'concat') {
      this.#locateConcat(offset)
      return
    }
    const stripe = this.#record.stripeBytes
    const unit = Math.floor(offset / stripe)
    const columns = this.#columnsAt(offset)
    const within = offset - unit * stripe
    this.#at = this.subdisks[unit % columns]
    this.#inner = Math.floor(unit / columns) * stripe + within
    this.#end = offset - within + stripe
  }

  #locateConcat(offset: number): void {
    this.#at = undefined
    this.#end = Number.POSITIVE_INFINITY
    for (const subdisk of this.subdisks) {
      const { plexOffsetBytes, sizeBytes } = subdisk.record
      if (offset >= plexOffsetBytes + sizeBytes) continue
      if (offset >= plexOffsetBytes) {
        this.#at = subdisk
        this.#inner = offset - plexOffsetBytes
        this.#end = plexOffsetBytes + sizeBytes
      } else this.#end = plexOffsetBytes
      return
    }
  }

  /** Columns of the layout at an offset of plex space. The cursor is at the end of a stripe unit in both. */
  #columnsAt(offset: number): number {
    const { growth } = this.#record
    if (!growth || offset < growth.cursorBytes) return Math.max(1, this.subdisks.length)
    return growth.columnsBefore
  }

  /** The usual case in a few steps, however many pieces a range has. Not for a concat with holes. */
  #allUp(): boolean {
    let end = 0
    const concat = this.#record.organization === 'concat'
    for (const { record, drive } of this.subdisks) {
      if (record.state !== 'up' || !isPresent(drive)) return false
      if (concat && record.plexOffsetBytes !== end) return false
      end += record.sizeBytes
    }
    return end > 0
  }

  #hole(op: IoOp, offset: number): PlexusError {
    return new PlexusError('io', {
      op,
      subject: this.#record.name,
      message: `plex ${this.#record.name} has no subdisk at offset ${offset}; attach one there`,
    })
  }

  #outOfService(op: IoOp, { record, drive }: Subdisk): PlexusError {
    const present = isPresent(drive)
    const why = present
      ? `it is ${record.state}; start ${this.#record.name} to bring it up to date`
      : `its drive ${drive.record.name} is missing; connect it again or replace it`
    return new PlexusError(present ? 'io' : 'gone', {
      op,
      subject: record.name,
      message: `subdisk ${record.name} cannot ${op}: ${why}`,
    })
  }
}

function discards({ drive }: Subdisk): boolean {
  return (drive.consumer?.features.discardGranularityBytes ?? 0) > 0
}

/** How many bytes of a column lie below an offset of plex space. */
function columnOffset(offset: number, column: number, columns: number, stripe: number): number {
  const rowBytes = columns * stripe
  const row = Math.floor(offset / rowBytes)
  const within = offset - row * rowBytes - column * stripe
  return row * stripe + Math.min(Math.max(within, 0), stripe)
}

type Completion = Pick<IoRequest, 'complete'>

const NOBODY: Completion = { complete: () => assert(false, 'a piece completes once') }
const NOTHING: OnMissed = () => assert(false, 'a piece completes once')

/** One request to one subdisk, recycled. */
class Piece extends RequestPart {
  subdisk: Subdisk | undefined = undefined
  parent: Completion = NOBODY
  onMissed: OnMissed = NOTHING
  readonly #plex: LinearPlex

  constructor(plex: LinearPlex) {
    super()
    this.#plex = plex
  }

  fill(
    request: IoRequest,
    parent: Completion,
    onMissed: OnMissed,
    subdisk: Subdisk,
    offset: number,
    length: number,
    dataOffset: number,
  ): void {
    this.copyPart(request, offset, length, dataOffset)
    this.subdisk = subdisk
    this.parent = parent
    this.onMissed = onMissed
  }

  clear(): void {
    this.data = undefined
    this.subdisk = undefined
    this.parent = NOBODY
    this.onMissed = NOTHING
  }

  complete(error: PlexusError | undefined): void {
    this.#plex.settle(this, error, false)
  }

  /** It was never sent: the subdisk is not in service. */
  skip(error: PlexusError): void {
    this.#plex.settle(this, error, true)
  }
}
