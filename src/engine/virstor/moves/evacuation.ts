/** Which chunks an evacuation moves: all that lie on the components that are leaving. */
import { PlexusError } from '../../../base/errors.ts'
import { BAD_COMPONENT, type MapTable } from '../map/chunk-map.ts'
import type { Move } from './chunk-mover.ts'

export class Evacuation {
  readonly #name: string
  readonly #map: MapTable
  readonly #left: number[]
  #number = 0

  constructor(name: string, map: MapTable, components: readonly number[]) {
    this.#name = name
    this.#map = map
    this.#left = [...components]
  }

  /** The next one; undefined: that was the last. Throws `corrupt` for a chunk that nobody can move. */
  next(): Move | undefined {
    const map = this.#map
    for (;;) {
      const [from] = this.#left
      if (from === undefined) return undefined
      const number = map.nextChunkOn(from, this.#number)
      this.#number = number + 1
      if (number === -1) this.#left.shift()
      else {
        const chunk = map.ownerOf({ component: from, number })
        if (map.componentOf(chunk) === BAD_COMPONENT) throw this.#bad(chunk)
        // Else the next commit frees the place.
        if (map.componentOf(chunk) === from && map.numberOf(chunk) === number) {
          return { chunk, from, to: undefined }
        }
      }
    }
  }

  #bad(chunk: number): PlexusError {
    const name = this.#name
    const message = `${name}: chunk ${chunk} is out of service, because its entry of the map cannot be right, and nobody knows what to move; plexus events says why`
    return new PlexusError('corrupt', { op: 'move', subject: name, message })
  }
}
