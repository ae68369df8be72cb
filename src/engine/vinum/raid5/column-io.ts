/**
 * Several requests to columns at once, and what became of each. The base of everything in RAID5 that reads or
 * writes more than one column: raid5/row-write.ts, raid5/row-read.ts, raid5/zero.ts, raid5/requests.ts.
 */
import type { PlexusError } from '../../../base/errors.ts'
import type { AlignedBuffer, IoCause, IoOp, IoRequest } from '../../../hal/block-device.ts'
import type { Subdisk } from '../runtime.ts'

/** A request to one column. */
class ColumnIo implements IoRequest {
  readonly op: IoOp
  readonly offset = 0
  readonly length: number
  readonly data: AlignedBuffer | undefined
  readonly dataOffset: number
  readonly fua: boolean
  readonly cause: IoCause
  readonly #group: ColumnGroup
  readonly #subdisk: Subdisk

  constructor(group: ColumnGroup, subdisk: Subdisk, init: ColumnRequest) {
    this.op = init.op
    this.length = init.length
    this.data = init.data
    this.dataOffset = init.dataOffset
    this.fua = init.fua
    this.cause = init.cause
    this.#group = group
    this.#subdisk = subdisk
  }

  complete(error: PlexusError | undefined): void {
    this.#group.ioDone(this.#subdisk, error)
  }
}

export interface ColumnRequest {
  readonly op: IoOp
  /** In column space. */
  readonly offset: number
  readonly length: number
  readonly data: AlignedBuffer | undefined
  readonly dataOffset: number
  readonly fua: boolean
  readonly cause: IoCause
}

/**
 * Sends requests and goes on when all have ended: no buffer is given back before. A step is
 * `begin(next)`, any number of `send`, `sent()`.
 */
export abstract class ColumnGroup {
  /** Columns with an error in this step, with the first one of each. */
  protected failed: ReadonlyMap<Subdisk, PlexusError> = noneFailed
  #pending = 0
  #next: () => void = nothing

  protected begin(next: () => void): void {
    this.failed = noneFailed
    this.#next = next
    this.#pending = 1
  }

  protected send(subdisk: Subdisk, request: ColumnRequest): void {
    this.#pending++
    const { offset, length, dataOffset } = request
    subdisk.forward(new ColumnIo(this, subdisk, request), offset, length, dataOffset)
  }

  /** All of the step is sent. Goes on at once when that was nothing. */
  protected sent(): void {
    this.#end()
  }

  ioDone(subdisk: Subdisk, error: PlexusError | undefined): void {
    if (error && !this.failed.has(subdisk)) {
      this.failed = new Map([...this.failed, [subdisk, error]])
    }
    this.#end()
  }

  #end(): void {
    if (--this.#pending === 0) this.#next()
  }
}

function nothing(): void {}

/** Of all steps without an error: nearly every one. */
export const noneFailed: ReadonlyMap<Subdisk, PlexusError> = new Map()
