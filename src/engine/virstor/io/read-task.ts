/** A read of a virstor device: valid runs from the components, zeroes for the rest without I/O. Recycled by device-io.ts. */
import { defined } from '../../../base/assert.ts'
import type { PlexusError } from '../../../base/errors.ts'
import type { AlignedBuffer, IoCause, IoOp, IoRequest } from '../../../hal/block-device.ts'
import type { VirstorIo } from './device-io.ts'

export class ReadTask implements IoRequest {
  readonly op: IoOp = 'read'
  offset = 0
  length = 0
  data: AlignedBuffer | undefined = undefined
  dataOffset = 0
  readonly fua = false
  cause: IoCause = 'initiator'
  readonly #io: VirstorIo
  #request: IoRequest | undefined = undefined
  #epoch = 0
  /** Of the device, when it began. */
  #losses = 0
  /** Pieces under way, and one while it is being cut. */
  #pending = 0
  #error: PlexusError | undefined = undefined
  readonly #cut = (): void => this.complete(undefined)

  constructor(io: VirstorIo) {
    this.#io = io
  }

  begin(request: IoRequest): void {
    const io = this.#io
    const { runs } = io
    const { offset, dataOffset, data } = request
    const end = offset + request.length
    this.#request = request
    this.data = data
    this.cause = request.cause
    this.#epoch = io.enter()
    this.#losses = io.losses
    this.#pending = 1
    for (let at = offset; at < end; ) {
      runs.valid(at, end)
      const { component, length } = runs
      const bufferAt = dataOffset + at - offset
      if (runs.isHole && (component === 0 || io.isPresent(component))) {
        if (io.map.isLost(runs.chunkOf(at))) this.#error ??= io.lostPart('read', at)
        else data?.bytes.fill(0, bufferAt, bufferAt + length)
      } else {
        const error = io.send(this, component, runs.address, length, bufferAt)
        if (error) this.#error ??= error
        else this.#pending++
      }
      at += length
    }
    // A request never ends from within.
    if (this.#pending > 1) this.#pending--
    else queueMicrotask(this.#cut)
  }

  complete(error: PlexusError | undefined): void {
    if (error) this.#error ??= error
    if (--this.#pending > 0) return
    const request = defined(this.#request, 'the request')
    if (!this.#error && this.#losses !== this.#io.losses) {
      this.#io.leave(this.#epoch)
      this.begin(request)
      return
    }
    const answer = this.#error
    this.#request = undefined
    this.#error = undefined
    this.data = undefined
    this.#io.leave(this.#epoch)
    this.#io.endRead(this)
    request.complete(answer)
  }
}
