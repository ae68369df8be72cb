/** The fields of a request that is part of another one, for the layers of a volume to extend. */
import type { PlexusError } from '../../../base/errors.ts'
import type { AlignedBuffer, IoCause, IoOp, IoRequest } from '../../../hal/block-device.ts'
import type { IoParent } from '../../geom/bio.ts'

/** May be used again: a request that has ended makes no garbage. */
export abstract class RequestPart implements IoRequest {
  op: IoOp = 'read'
  offset = 0
  length = 0
  data: AlignedBuffer | undefined = undefined
  dataOffset = 0
  fua = false
  cause: IoCause = 'initiator'

  /** It is all of `request` from now on. */
  protected copy(request: IoRequest): void {
    this.copyPart(request, request.offset, request.length, request.dataOffset)
  }

  /** It is a part of `request` from now on, perhaps in another address space. */
  protected copyPart(request: IoParent, offset: number, length: number, dataOffset: number): void {
    this.op = request.op
    this.offset = offset
    this.length = length
    this.data = request.data
    this.dataOffset = dataOffset
    this.fua = request.fua
    this.cause = request.cause
  }

  abstract complete(error: PlexusError | undefined): void
}

/** Ends a request when every part of it has ended, with the first error. */
export class Join {
  readonly #request: Pick<IoRequest, 'complete'>
  /** Parts under way, and one for whoever is still splitting. */
  pending = 1
  #error: PlexusError | undefined = undefined

  constructor(request: Pick<IoRequest, 'complete'>) {
    this.#request = request
  }

  fail(error: PlexusError): void {
    this.#error ??= error
  }

  complete(error: PlexusError | undefined): void {
    if (error) this.fail(error)
    if (--this.pending === 0) this.#request.complete(this.#error)
  }

  /** Everything is on its way. Should nothing be, the request still ends later, never from within. */
  close(): void {
    if (this.pending > 1) this.pending--
    else queueMicrotask(() => this.complete(undefined))
  }
}
