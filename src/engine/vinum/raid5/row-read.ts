/**
 * Reads of a RAID5 plex, cut into stripe units. A valid column is read straight. Where its subdisk is missing, not
 * valid there, or has failed, the content is computed from all other columns, under the lock of the row: without it a
 * write of the row in between would mix old and new. After a read error the range is written again, which makes the
 * drive replace bad sectors; where the drive refuses that, the next read computes it again.
 */
import { defined } from '../../../base/assert.ts'
import type { PlexusError } from '../../../base/errors.ts'
import { PAGE_BYTES, RAID5_SCRATCH_BYTES } from '../../../base/limits.ts'
import type { AlignedBuffer, IoCause, IoOp, IoRequest, Lease } from '../../../hal/block-device.ts'
import { Join } from '../io/request-part.ts'
import type { Subdisk } from '../runtime.ts'
import { ColumnGroup } from './column-io.ts'
import { locate, type Raid5Layout } from './layout.ts'
import type { RowWaiter } from './locks.ts'
import type { Raid5Plex } from './plex-raid5.ts'
import { isComputable, lacking, rowState } from './row-state.ts'

/** Sends a read: one object for each stripe unit that it touches, and one more when there are several. */
export function startRead(plex: Raid5Plex, request: IoRequest): void {
  const end = request.offset + request.length
  const firstEnd = plex.unitEnd(request.offset)
  if (firstEnd >= end) {
    new UnitRead(plex, request, request, request.offset, request.length).start()
    return
  }
  const join = new Join(request)
  for (let at = request.offset; at < end; ) {
    const next = Math.min(end, plex.unitEnd(at))
    join.pending++
    new UnitRead(plex, request, join, at, next - at).start()
    at = next
  }
  join.close()
}

/**
 * A read within one stripe unit: straight from the column when that is valid, else through the others. Its fields are its
 * own for the reason of ColumnIo.
 */
class UnitRead implements IoRequest {
  readonly op: IoOp
  offset: number
  readonly length: number
  readonly data: AlignedBuffer | undefined
  dataOffset: number
  readonly fua: boolean
  readonly cause: IoCause
  readonly plex: Raid5Plex
  readonly layout: Raid5Layout
  readonly row: number
  readonly column: number
  readonly columnOffset: number
  readonly #whole: Pick<IoRequest, 'complete'>

  constructor(
    plex: Raid5Plex,
    request: IoRequest,
    whole: Pick<IoRequest, 'complete'>,
    offset: number,
    length: number,
  ) {
    this.op = request.op
    this.offset = offset
    this.length = length
    this.data = request.data
    this.dataOffset = request.dataOffset + (offset - request.offset)
    this.fua = request.fua
    this.cause = request.cause
    this.plex = plex
    this.layout = plex.layoutAt(offset)
    const { row, column, columnOffset } = locate(this.layout, offset)
    this.row = row
    this.column = column
    this.columnOffset = columnOffset
    this.#whole = whole
  }

  get subdisk(): Subdisk {
    return this.plex.column(this.column)
  }

  /** May what the column gives, or has given, be read there? */
  get isReadable(): boolean {
    return this.plex.columnReadable(this.layout, this.row, this.column)
  }

  /** A part that is lost: no column has it. */
  get lostError(): PlexusError | undefined {
    const { plex, column, columnOffset, length } = this
    if (!plex.record.lost || !plex.isLost(column, columnOffset, length)) return undefined
    return plex.isLostError(column, columnOffset, length)
  }

  start(): void {
    const { lostError, columnOffset, length, dataOffset } = this
    if (lostError) queueMicrotask(() => this.end(lostError))
    else if (this.isReadable) this.subdisk.forward(this, columnOffset, length, dataOffset)
    else new RowRead(this, undefined).start()
  }

  /** The end of the direct read. */
  complete(error: PlexusError | undefined): void {
    if (error) this.plex.host.noteError(this.subdisk, 'read', error)
    // Else out of service meanwhile: a drive whose cache is lost gives old content, and does not say so.
    if (!error && this.isReadable) this.end(undefined)
    else new RowRead(this, error).start()
  }

  end(error: PlexusError | undefined): void {
    this.#whole.complete(error)
  }
}

/** The slow way of a read: through the other columns, under the lock of the row. */
class RowRead extends ColumnGroup implements RowWaiter {
  readonly #read: UnitRead
  readonly #plex: Raid5Plex
  readonly #into: AlignedBuffer
  /** Why reading the column itself has failed: it is computed, and written again. */
  readonly #readError: PlexusError | undefined
  #position = 0
  #lease: Lease | undefined

  constructor(read: UnitRead, readError: PlexusError | undefined) {
    super(read.cause)
    this.#read = read
    this.#plex = read.plex
    this.#into = defined(read.data, 'the buffer of a read')
    this.#readError = readError
  }

  start(): void {
    this.#plex.locks.acquire(this.#read.row, this)
  }

  absorb(): boolean {
    return false
  }

  granted(): void {
    const { layout, row, column, lostError } = this.#read
    const readError = this.#readError
    // Since the read was sent the column may have gone, and with it its data in a row in doubt.
    if (lostError) {
      this.#finish(lostError)
      return
    }
    const state = rowState(this.#plex, layout, row)
    const computable = isComputable(state, column)
    if (
      !state.unreadable.has(column) &&
      (!readError || (readError.kind === 'gone' && !computable))
    ) {
      // What was missing has come back while this read waited.
      this.#readDirect()
    } else if (!computable) {
      const lost = this.#plex.cannotReconstruct(layout, row, column, state.parityState, 'gone')
      this.#finish(readError ?? lost)
    } else this.#nextSlice()
  }

  /** Reads or writes the column itself. */
  #transfer(op: 'read' | 'write', then: (error: PlexusError | undefined) => void): void {
    const { subdisk, columnOffset, length, dataOffset } = this.#read
    this.begin(() => {
      const error = this.failed.get(subdisk)
      if (error) this.#plex.host.noteError(subdisk, op, error)
      then(error)
    })
    this.send(subdisk, op, columnOffset, length, this.#into, dataOffset)
    this.sent()
  }

  #readDirect(): void {
    this.#transfer('read', (error) => {
      if (error || this.#read.isReadable) this.#finish(error)
      // Out of service meanwhile: what it gave may be old.
      else this.granted()
    })
  }

  get #sliceBytes(): number {
    const lanes = this.#read.layout.columns - 1
    const room = Math.floor(RAID5_SCRATCH_BYTES / lanes / PAGE_BYTES) * PAGE_BYTES
    return Math.min(room, this.#read.length - this.#position)
  }

  #nextSlice(): void {
    const { layout, length } = this.#read
    if (this.#position < length) {
      const bytes = (layout.columns - 1) * this.#sliceBytes
      this.#plex.scratch.take(bytes, (lease) => this.#readOthers(lease))
    } else this.#repair()
  }

  #readOthers(lease: Lease): void {
    this.#lease = lease
    const { layout, column, columnOffset } = this.#read
    const length = this.#sliceBytes
    const offset = columnOffset + this.#position
    this.begin(() => this.#compute(length))
    let dataOffset = 0
    for (let other = 0; other < layout.columns; other++) {
      if (other === column) continue
      this.send(this.#plex.column(other), 'read', offset, length, lease, dataOffset)
      dataOffset += length
    }
    this.sent()
  }

  #compute(length: number): void {
    const lease = defined(this.#lease, 'scratch')
    const { layout, row, column, dataOffset } = this.#read
    const [failure] = this.failed
    // One that went out of service meanwhile may have given old content.
    const current = lacking(rowState(this.#plex, layout, row), column) === undefined
    if (!failure && current) {
      const sources = Array.from({ length: layout.columns - 1 }, (_, lane) => ({
        bytes: lease.bytes,
        offset: lane * length,
      }))
      this.#plex.host.kernels.xor(this.#into.bytes, dataOffset + this.#position, sources, length)
    }
    lease.release()
    this.#lease = undefined
    for (const [subdisk, error] of this.failed) this.#plex.host.noteError(subdisk, 'read', error)
    if (failure || !current) {
      const lost = (): PlexusError => this.#plex.cannotReconstruct(layout, row, column, 'right')
      this.#finish(this.#readError ?? failure?.[1] ?? lost())
      return
    }
    this.#position += length
    this.#nextSlice()
  }

  /** The content is known. What happens to the column now does not change the result of the read. */
  #repair(): void {
    const { subdisk, columnOffset, length } = this.#read
    // A drive that has gone has no sectors to write; its loss is dealt with where it is noticed.
    if (!this.#readError || this.#readError.kind === 'gone' || !subdisk.writable) {
      this.#finish(undefined)
      return
    }
    this.#transfer('write', (error) => {
      // After an error the column stays: what is lost is a sector, which the others make up for.
      if (!error) this.#plex.host.noteRepair(subdisk, columnOffset, length)
      this.#finish(undefined)
    })
  }

  #finish(error: PlexusError | undefined): void {
    this.#plex.locks.release(this.#read.row)
    this.#read.end(error)
  }
}
