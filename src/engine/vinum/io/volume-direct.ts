/**
 * A request of a volume that consists of one concat or striped plex: it goes straight down, and is counted.
 * Errors go up as they are, since there is no other copy (runtime.ts, rule 2). Recycled by volume-io.ts.
 */
import { defined } from '../../../base/assert.ts'
import type { PlexusError } from '../../../base/errors.ts'
import type { AlignedBuffer, IoCause, IoOp, IoRequest } from '../../../hal/block-device.ts'
import type { VolumeIo } from './volume-io.ts'

const ignoreMissed = (): void => {}

export class DirectTask implements IoRequest {
  op: IoOp = 'read'
  offset = 0
  length = 0
  data: AlignedBuffer | undefined = undefined
  dataOffset = 0
  fua = false
  cause: IoCause = 'initiator'
  readonly #volume: VolumeIo
  #request: IoRequest | undefined = undefined
  #covered = 0

  constructor(volume: VolumeIo) {
    this.#volume = volume
  }

  begin(request: IoRequest): void {
    this.op = request.op
    this.offset = request.offset
    this.length = request.length
    this.data = request.data
    this.dataOffset = request.dataOffset
    this.fua = request.fua
    this.cause = request.cause
    this.#request = request
    this.#covered = this.#volume.changes
    const slot = defined(this.#volume.slots[0], 'the plex')
    slot.plex.start(this, ignoreMissed)
  }

  complete(error: PlexusError | undefined): void {
    const request = defined(this.#request, 'the request')
    this.#request = undefined
    this.data = undefined
    const { op } = this
    const answer = op === 'read' ? error : this.#volume.answer(request, this.#covered, error)
    this.#volume.endDirect(this, op)
    request.complete(answer)
  }
}
