/**
 * `virstor trim`: a job that reads the chunks which have space, and gives back those that are all zero, while the device is
 * in use. A chunk is read once with writes going on, up to its first piece that is not zero; one without any is read
 * again with writes kept off, and only then it goes. What was written is zero on the disk, and what has no place reads as
 * zeroes, so whatever a crash finds of it is right. Its place is given again when the record of its end is durable, and the
 * reads that were under way have ended (io/device-io.ts).
 */
import { formatSize } from '../../base/bytes.ts'
import { PlexusError } from '../../base/errors.ts'
import { VIRSTOR_DISCARD_CHUNKS } from '../../base/limits.ts'
import type { AlignedBuffer, BufferPool } from '../../hal/block-device.ts'
import type { JobPlan } from '../jobs/job.ts'
import { slice, withLease } from '../jobs/slices.ts'
import type { VirstorDevice } from './device.ts'
import { CHUNK_BYTES } from './model.ts'
import type { VirstorSet } from './virstor-set.ts'

/** Every chunk is whole pieces of so much. */
const PIECE_BYTES = CHUNK_BYTES.unit

/** A job of which nothing is remembered: a restart ends it. Throws `gone` where the device is not served. */
export function trimPlan(set: VirstorSet): JobPlan {
  const device = set.served('trim')
  const { pool, events } = set.topology
  const { name, uuid, chunkBytes, virtualBytes } = set.model
  const { space } = device
  let released = 0
  return {
    id: `trim-${uuid.slice(0, 8)}`,
    kind: 'trim',
    object: name,
    parent: name,
    totalBytes: virtualBytes,
    startBytes: 0,
    busy: () => space.components.some(({ component }) => (component.consumer?.inFlight ?? 0) > 0),
    async step(offset, maxBytes, job) {
      if (set.device !== device) throw endedError(name)
      const end = virtualBytes / chunkBytes
      let chunk = offset / chunkBytes
      let read = 0
      for (
        let looks = 0;
        chunk < end && looks < VIRSTOR_DISCARD_CHUNKS && read < maxBytes;
        looks++
      ) {
        const look = new ChunkLook(device, pool, chunk++)
        if (!look.isHere) {
          job.skip(chunkBytes)
          continue
        }
        await withLease(pool, PIECE_BYTES, (lease) => look.trim(slice(lease, 0, PIECE_BYTES)))
        read += look.readBytes
        job.skip(Math.max(0, chunkBytes - look.readBytes))
        if (look.isReleased) released++
      }
      return chunk * chunkBytes
    },
    checkpoint: async () => {},
    async finish() {
      const failure = await device.committer.pass()
      if (failure) throw failure
      const text = `trim of ${name} has given back ${formatSize(released * chunkBytes)}`
      events.emit('info', 'trim-result', name, text)
    },
    abandon: async () => {},
  }
}

/** A look at one chunk. */
class ChunkLook {
  readonly #device: VirstorDevice
  readonly #pool: BufferPool
  readonly #chunk: number
  readBytes = 0
  isReleased = false

  constructor(device: VirstorDevice, pool: BufferPool, chunk: number) {
    this.#device = device
    this.#pool = pool
    this.#chunk = chunk
  }

  /** Has it a place, on a component that is here? */
  get isHere(): boolean {
    const { table, io } = this.#device
    const component = table.componentOf(this.#chunk)
    return component !== 0 && io.isPresent(component)
  }

  /** Gives the chunk back when it is all zero. */
  async trim(buffer: AlignedBuffer): Promise<void> {
    const { io } = this.#device
    const { chunkBytes } = io.runs
    if (!(await this.#isZero(buffer))) return
    const leave = await io.lock(this.#chunk * chunkBytes, chunkBytes)
    try {
      // It may have gone, or have been written to, by now; and its component may go while it is read.
      if (!this.isHere || !(await this.#isZero(buffer)) || !this.isHere) return
      this.isReleased = io.releaseChunk(this.#chunk)
    } finally {
      leave()
    }
  }

  /** What cannot be read is not known to be zero, nor what a disk that does not answer may write to still. */
  async #isZero(buffer: AlignedBuffer): Promise<boolean> {
    const { io } = this.#device
    const { chunkBytes } = io.runs
    const start = this.#chunk * chunkBytes
    for (let at = 0; at < chunkBytes; at += PIECE_BYTES) {
      const error = await new Promise<PlexusError | undefined>((complete) => {
        const read = { op: 'read', offset: start + at, length: PIECE_BYTES, data: buffer } as const
        io.start({ ...read, dataOffset: 0, fua: false, cause: 'sync', complete })
      })
      this.readBytes += PIECE_BYTES
      if (error || this.#pool.isKept(buffer) || !isZero(buffer.bytes)) return false
    }
    return true
  }
}

function isZero(bytes: Buffer): boolean {
  return bytes[0] === 0 && bytes.compare(bytes, 1, undefined, 0, bytes.length - 1) === 0
}

function endedError(name: string): PlexusError {
  const message = `${name} is not served any more; plexus status says why`
  return new PlexusError('gone', { op: 'trim', subject: name, message })
}
