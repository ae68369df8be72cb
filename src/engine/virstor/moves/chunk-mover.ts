/**
 * Moves a chunk to a place on another component while it is in use (docs/adr/0015-virstor.md):
 *
 *   hold the chunk -> commit -> copy what is valid -> flush the new component -> the map names the new place -> let go
 *
 * Reads go on all the time: those that have taken the old place from the map end there, and nobody else gets it before they
 * have ended and the record of the move is durable (io/committer.ts). Changes of the chunk wait.
 *
 * The commit before the copy makes durable what was acknowledged in the old place, or finds that it is lost: else a component
 * that fails its flush meanwhile could give old bytes for valid ones. The flush comes before the map: a crash finds
 * either place whole, and a new component that fails it has nothing that counts.
 */
import { PlexusError } from '../../../base/errors.ts'
import { JOB_SLICE_BYTES, JOB_STEP_BYTES } from '../../../base/limits.ts'
import type { BufferPool, Lease } from '../../../hal/block-device.ts'
import { flush, readAt, writeAt } from '../../../hal/io.ts'
import type { Consumer } from '../../geom/consumer.ts'
import { inSlices, partsOf, withLease } from '../../jobs/slices.ts'
import type { GroupCommitter } from '../io/committer.ts'
import type { VirstorIo } from '../io/device-io.ts'
import type { Space } from '../io/space.ts'
import type { ChunkMap, Place } from '../runtime.ts'

/** What is to be moved. */
export interface Move {
  readonly chunk: number
  /** The component that it is on; where it is there no more, nothing is done. */
  readonly from: number
  /** The component that it goes to, or nowhere when that has no place; undefined: the one whose turn it is. */
  readonly to: number | undefined
}

export interface MoverOptions {
  readonly name: string
  readonly map: ChunkMap
  readonly chunkBytes: number
  readonly space: Space
  readonly io: VirstorIo
  readonly committer: GroupCommitter
  readonly pool: BufferPool
}

export class ChunkMover {
  readonly #options: MoverOptions

  constructor(options: MoverOptions) {
    this.#options = options
  }

  /**
   * Resolves to the bytes that were copied, when the map names the new place; the next commit makes that durable. Rejects
   * with PlexusError, and then the chunk is where it was: `gone` when its component is away, `no-space` when there is no
   * place for it, and what reading, writing or the commit has failed with.
   */
  move(what: Move): Promise<number> {
    const { pool, chunkBytes } = this.#options
    // Before the chunk is locked: writes that wait for it may hold all of the pool.
    return withLease(pool, Math.min(chunkBytes, JOB_STEP_BYTES), (lease) => {
      return this.#moveThrough(lease, what)
    })
  }

  async #moveThrough(lease: Lease, { chunk, from, to }: Move): Promise<number> {
    const { map, io, chunkBytes, committer, space } = this.#options
    const release = await io.lock(chunk * chunkBytes, chunkBytes)
    try {
      if (map.componentOf(chunk) !== from) return 0
      const failure = await committer.pass()
      if (failure) throw failure
      for (;;) {
        const place = this.#placeFor(to)
        space.moving = place
        if (!place && to !== undefined) return 0
        if (!place) throw this.#full()
        const copied = await this.#copyTo(place, chunk, lease)
        if (copied === undefined) continue
        map.move(chunk, place)
        committer.changed(1)
        return copied
      }
    } finally {
      space.moving = undefined
      release()
    }
  }

  /** Resolves when the content of the chunk is durable at `place`, to its length; undefined: the new component has gone. */
  async #copyTo(place: Place, chunk: number, lease: Lease): Promise<number | undefined> {
    const { map, space, pool } = this.#options
    const target = space.component(place.component)?.consumer
    const isThere = (): boolean => space.component(place.component)?.consumer === target
    try {
      const source = this.#consumer(map.componentOf(chunk), chunk)
      const copied = target && (await this.#copyValid(source, target, place, chunk, lease))
      if (target?.features.volatileWriteCache) await flush(target)
      if (pool.isKept(lease)) throw this.#kept(chunk)
      // One that was away meanwhile has lost what was in its cache.
      if (target && isThere()) return copied
    } catch (error) {
      if (isThere() || !(error instanceof PlexusError)) {
        space.give(place)
        throw error
      }
    }
    space.give(place)
    return undefined
  }

  async #copyValid(
    source: Consumer,
    target: Consumer,
    place: Place,
    chunk: number,
    lease: Lease,
  ): Promise<number> {
    const { map, space, chunkBytes } = this.#options
    const from = this.#address(
      space.component(map.componentOf(chunk))?.startBytes,
      map.numberOf(chunk),
    )
    const to = this.#address(space.component(place.component)?.startBytes, place.number)
    const granuleBytes = chunkBytes / map.granules
    const sliceBytes = Math.min(JOB_SLICE_BYTES, lease.bytes.length)
    const parts = partsOf(lease, sliceBytes)
    let copied = 0
    for (let first = 0; first < map.granules; ) {
      const end = map.runEnd(chunk, first)
      if (map.isValid(chunk, first, first)) {
        const [start, length] = [first * granuleBytes, (end - first) * granuleBytes]
        await inSlices(start, start + length, sliceBytes, parts, async (at, bytes, buffer) => {
          const part = { bytes: buffer.bytes.subarray(0, bytes), address: buffer.address }
          await readAt(source, part, from + at, { cause: 'sync' })
          await writeAt(target, part, to + at, { cause: 'sync' })
        })
        copied += length
      }
      first = end
    }
    return copied
  }

  #placeFor(to: number | undefined): Place | undefined {
    const { space } = this.#options
    return to === undefined ? space.take(1)?.[0] : space.takeOn(to)
  }

  #address(startBytes = 0, number: number): number {
    return startBytes + number * this.#options.chunkBytes
  }

  /** Throws `gone`. */
  #consumer(id: number, chunk: number): Consumer {
    const { name, space } = this.#options
    const consumer = space.component(id)?.consumer
    if (consumer) return consumer
    const message = `${name}: component ${id} went missing with chunk ${chunk}; connect it again, and repeat`
    throw new PlexusError('gone', { op: 'move', subject: name, message })
  }

  /** What was copied may be something else: {@link withLease} gives another buffer. */
  #kept(chunk: number): PlexusError {
    const { name } = this.#options
    const message = `${name}: a disk that does not answer may have changed what was read of chunk ${chunk}; it is to be repeated`
    return new PlexusError('aborted', { op: 'move', subject: name, message })
  }

  #full(): PlexusError {
    const { name } = this.#options
    const message = `${name}: there is no room left for a chunk elsewhere; plexus virstor add ${name} DEVICE adds some, then repeat`
    return new PlexusError('no-space', { op: 'move', subject: name, message })
  }
}
