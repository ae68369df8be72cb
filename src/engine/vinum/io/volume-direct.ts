/**
 * A request of a volume that consists of one concat or striped plex: it goes straight down, and is counted.
 * Errors go up as they are, since there is no other copy (runtime.ts, rule 2). Recycled by volume-io.ts.
 */
import { defined } from '../../../base/assert.ts'
import type { PlexusError } from '../../../base/errors.ts'
import type { IoRequest } from '../../../hal/block-device.ts'
import { RequestPart } from './request-part.ts'
import type { VolumeIo } from './volume-io.ts'

const ignoreMissed = (): void => {}

export class DirectTask extends RequestPart {
  readonly #volume: VolumeIo
  #request: IoRequest | undefined = undefined
  #covered = 0

  constructor(volume: VolumeIo) {
    super()
    this.#volume = volume
  }

  begin(request: IoRequest): void {
    this.copy(request)
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
