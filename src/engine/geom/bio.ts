/**
 * One request on its way through the graph (GEOM's bio): the clone that a consumer hands to a provider's geom. It borrows
 * the parent's buffer: one object is all that a layer costs, data is never copied.
 */
import type { PlexusError } from '../../base/errors.ts'
import type { AlignedBuffer, IoCause, IoOp, IoRequest } from '../../hal/block-device.ts'
import type { Consumer } from './consumer.ts'

/** What a clone takes from the request above: where it goes it is told. */
export type IoParent = Pick<IoRequest, 'op' | 'data' | 'fua' | 'cause' | 'complete'>

export class Bio implements IoRequest {
  readonly op: IoOp
  readonly offset: number
  readonly length: number
  readonly data: AlignedBuffer | undefined
  readonly dataOffset: number
  readonly fua: boolean
  readonly cause: IoCause
  readonly parent: IoParent
  readonly consumer: Consumer
  readonly startedMs: number
  /** Set when it was given up: it has ended, and only its memory is still awaited. */
  #returned: (() => void) | undefined = undefined

  constructor(
    consumer: Consumer,
    parent: IoParent,
    offset: number,
    length: number,
    dataOffset: number,
    startedMs: number,
  ) {
    this.op = parent.op
    this.offset = offset
    this.length = length
    this.data = parent.data
    this.dataOffset = dataOffset
    this.fua = parent.fua
    this.cause = parent.cause
    this.parent = parent
    this.consumer = consumer
    this.startedMs = startedMs
  }

  complete(error: PlexusError | undefined): void {
    if (this.#returned) this.#returned()
    else this.parent.complete(this.consumer.settle(this, error))
  }

  /** Ends it before the disk has returned it; then `returned` is called. */
  giveUp(error: PlexusError, returned: () => void = () => {}): void {
    this.#returned = returned
    this.parent.complete(this.consumer.settle(this, error))
  }
}
