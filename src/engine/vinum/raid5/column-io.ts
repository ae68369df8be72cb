/** Several requests to columns at once, and what became of each, for initiators. */
import type { PlexusError } from '../../../base/errors.ts'
import type { AlignedBuffer, IoCause, IoOp } from '../../../hal/block-device.ts'
import type { IoParent } from '../../geom/bio.ts'
import type { Subdisk } from '../runtime.ts'

/** A request to one column. Made for each: fields of a base class (RequestPart) take longer to make than all the rest. */
class ColumnIo implements IoParent {
  readonly op: IoOp
  readonly data: AlignedBuffer | undefined
  readonly fua: boolean
  readonly cause: IoCause
  readonly #group: ColumnGroup
  readonly #subdisk: Subdisk

  constructor(
    group: ColumnGroup,
    subdisk: Subdisk,
    op: IoOp,
    data: AlignedBuffer | undefined,
    fua: boolean,
    cause: IoCause,
  ) {
    this.op = op
    this.data = data
    this.fua = fua
    this.cause = cause
    this.#group = group
    this.#subdisk = subdisk
  }

  complete(error: PlexusError | undefined): void {
    this.#group.ioDone(this.#subdisk, error)
  }
}

/**
 * Sends requests and goes on when all have ended: no buffer is given back before. A step is
 * `begin(next)`, any number of `send`, `sent()`.
 */
export abstract class ColumnGroup {
  /** Columns with an error in this step, with the first one of each. */
  protected failed: ReadonlyMap<Subdisk, PlexusError> = noneFailed
  readonly #cause: IoCause
  #pending = 0
  #next: () => void = nothing

  constructor(cause: IoCause) {
    this.#cause = cause
  }

  protected begin(next: () => void): void {
    this.failed = noneFailed
    this.#next = next
    this.#pending = 1
  }

  /** `offset` is in column space. */
  protected send(
    subdisk: Subdisk,
    op: IoOp,
    offset: number,
    length: number,
    data: AlignedBuffer | undefined,
    dataOffset: number,
    fua = false,
  ): void {
    const io = new ColumnIo(this, subdisk, op, data, fua, this.#cause)
    this.#pending++
    subdisk.forward(io, offset, length, dataOffset)
  }

  /** All of the step is sent. Goes on at once when that was nothing. */
  protected sent(): void {
    if (--this.#pending === 0) this.#next()
  }

  /** Only for the requests: one has ended. */
  ioDone(subdisk: Subdisk, error: PlexusError | undefined): void {
    if (error && !this.failed.has(subdisk)) {
      this.failed = new Map([...this.failed, [subdisk, error]])
    }
    this.sent()
  }
}

function nothing(): void {}

/** Of all steps without an error: nearly every one. */
export const noneFailed: ReadonlyMap<Subdisk, PlexusError> = new Map()
