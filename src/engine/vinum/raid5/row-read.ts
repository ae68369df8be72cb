/**
 * The slow way of a read in one column of one row: its subdisk is missing, not valid there, or has failed. The
 * content is computed from all other columns, under the lock of the row: without it a write of the row in
 * between would mix old and new. After a read error the range is written again, which makes the drive replace bad
 * sectors; where the drive refuses that, the next read computes it again. Called by raid5/requests.ts.
 */
import { defined } from '../../../base/assert.ts'
import type { PlexusError } from '../../../base/errors.ts'
import { PAGE_BYTES, RAID5_SCRATCH_BYTES } from '../../../base/limits.ts'
import type { AlignedBuffer, IoCause, Lease } from '../../../hal/block-device.ts'
import { ColumnGroup } from './column-io.ts'
import type { Raid5Layout } from './layout.ts'
import type { RowWaiter } from './locks.ts'
import type { Raid5Plex } from './plex-raid5.ts'

export interface RowReadInit {
  readonly layout: Raid5Layout
  readonly row: number
  readonly column: number
  /** Column space, within the row's unit. */
  readonly columnOffset: number
  readonly length: number
  readonly into: AlignedBuffer
  readonly intoOffset: number
  readonly cause: IoCause
  /** Why reading the column itself has failed: it is computed, and written again. */
  readonly readError: PlexusError | undefined
  /** Called once, when the row is unlocked again. */
  readonly done: (error: PlexusError | undefined) => void
}

export class RowRead extends ColumnGroup implements RowWaiter {
  readonly #plex: Raid5Plex
  readonly #init: RowReadInit
  #position = 0
  #lease: Lease | undefined

  constructor(plex: Raid5Plex, init: RowReadInit) {
    super()
    this.#plex = plex
    this.#init = init
  }

  start(): void {
    this.#plex.locks.acquire(this.#init.row, this)
  }

  absorb(): boolean {
    return false
  }

  granted(): void {
    const { layout, row, column, columnOffset, readError, length } = this.#init
    const plex = this.#plex
    // Since the read was sent the column may have gone, and with it its data in a row in doubt.
    if (plex.isLost(column, columnOffset, length)) {
      this.#finish(plex.isLostError(column, columnOffset, length))
      return
    }
    const { unreadable, parityState } = plex.rowState(layout, row, undefined)
    const known = !unreadable.has(column)
    const computable = parityState === 'right' && unreadable.size <= (known ? 0 : 1)
    if (known && (!readError || (readError.kind === 'gone' && !computable))) {
      // What was missing has come back while this read waited.
      this.#readDirect(length)
    } else if (!computable) {
      this.#finish(readError ?? plex.cannotReconstruct(layout, row, column, parityState, 'gone'))
    } else this.#nextSlice()
  }

  #readDirect(length: number): void {
    const { layout, row, column, columnOffset, into, intoOffset, cause } = this.#init
    const subdisk = this.#plex.column(column)
    this.begin(() => {
      const error = this.failed.get(subdisk)
      if (error) this.#plex.host.noteError(subdisk, 'read', error)
      if (error || this.#plex.columnReadable(layout, row, column)) this.#finish(error)
      // Out of service meanwhile: what it gave may be old.
      else this.granted()
    })
    this.send(subdisk, {
      op: 'read',
      offset: columnOffset,
      length,
      data: into,
      dataOffset: intoOffset,
      fua: false,
      cause,
    })
    this.sent()
  }

  get #sliceBytes(): number {
    const lanes = this.#init.layout.columns - 1
    const room = Math.floor(RAID5_SCRATCH_BYTES / lanes / PAGE_BYTES) * PAGE_BYTES
    return Math.min(room, this.#init.length - this.#position)
  }

  #nextSlice(): void {
    const { layout, length, readError } = this.#init
    if (this.#position < length) {
      const bytes = (layout.columns - 1) * this.#sliceBytes
      this.#plex.scratch.take(bytes, (lease) => this.#readOthers(lease))
    } else if (readError) this.#repair(readError)
    else this.#finish(undefined)
  }

  #readOthers(lease: Lease): void {
    this.#lease = lease
    const { layout, column, columnOffset, cause } = this.#init
    const length = this.#sliceBytes
    this.begin(() => this.#compute(length))
    let dataOffset = 0
    for (let other = 0; other < layout.columns; other++) {
      if (other === column) continue
      this.send(this.#plex.column(other), {
        op: 'read',
        offset: columnOffset + this.#position,
        length,
        data: lease,
        dataOffset,
        fua: false,
        cause,
      })
      dataOffset += length
    }
    this.sent()
  }

  #compute(length: number): void {
    const lease = defined(this.#lease, 'scratch')
    const { layout, row, column, into, intoOffset, readError } = this.#init
    const [failure] = this.failed
    // One that went out of service meanwhile may have given old content.
    const current = [...Array(layout.columns).keys()].every(
      (other) => other === column || this.#plex.columnReadable(layout, row, other),
    )
    if (!failure && current) {
      const sources = Array.from({ length: layout.columns - 1 }, (_, lane) => ({
        bytes: lease.bytes,
        offset: lane * length,
      }))
      this.#plex.host.kernels.xor(into.bytes, intoOffset + this.#position, sources, length)
    }
    lease.release()
    this.#lease = undefined
    for (const [subdisk, error] of this.failed) this.#plex.host.noteError(subdisk, 'read', error)
    if (failure || !current) {
      const lost = (): PlexusError => this.#plex.cannotReconstruct(layout, row, column, 'right')
      this.#finish(readError ?? failure?.[1] ?? lost())
      return
    }
    this.#position += length
    this.#nextSlice()
  }

  /** The content is known. What happens to the column now does not change the result of the read. */
  #repair(readError: PlexusError): void {
    const { column, columnOffset, length, into, intoOffset, cause } = this.#init
    const { host } = this.#plex
    const subdisk = this.#plex.column(column)
    // A drive that has gone has no sectors to write; its loss is dealt with where it is noticed.
    if (readError.kind === 'gone' || !subdisk.writable) {
      this.#finish(undefined)
      return
    }
    this.begin(() => {
      const error = this.failed.get(subdisk)
      // The column stays: what is lost is a sector, which the others make up for.
      if (error) host.noteError(subdisk, 'write', error)
      else host.noteRepair(subdisk, columnOffset, length)
      this.#finish(undefined)
    })
    this.send(subdisk, {
      op: 'write',
      offset: columnOffset,
      length,
      data: into,
      dataOffset: intoOffset,
      fua: false,
      cause,
    })
    this.sent()
  }

  #finish(error: PlexusError | undefined): void {
    this.#plex.locks.release(this.#init.row)
    this.#init.done(error)
  }
}
