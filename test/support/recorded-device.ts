/**
 * A device that keeps what was done to it, and makes the media that a cut of power could have left: before, after
 * and at each block inside each write. Used by tests of everything that must be atomic.
 */
import type { BlockDevice, Geometry, IoOp, IoRequest } from '../../src/hal/block-device.ts'

export interface RecordedOperation {
  readonly op: IoOp
  readonly offset: number
  /** What a write stored. */
  readonly bytes: Buffer
}

export interface Cut {
  readonly image: Buffer
  /** Nothing is missing: everything was durable. */
  readonly done: boolean
  /** Where it was cut, for messages. */
  readonly what: string
}

export class RecordedDevice {
  readonly path: string
  readonly geometry: Geometry
  readonly log: RecordedOperation[] = []
  readonly #device: BlockDevice

  constructor(device: BlockDevice) {
    this.#device = device
    this.path = device.path
    this.geometry = device.geometry
  }

  submit(request: IoRequest): void {
    const { op, offset, length, data, dataOffset } = request
    const isWrite = op === 'write' && data
    const bytes = isWrite
      ? Buffer.from(data.bytes.subarray(dataOffset, dataOffset + length))
      : Buffer.alloc(op === 'write-zeroes' ? length : 0)
    this.log.push({ op, offset, bytes })
    this.#device.submit(request)
  }

  /**
   * The media after each whole number of blocks of each write, from `before`. Cuts in the middle of a write come
   * in two forms: its first blocks are stored, or its last ones.
   */
  *cuts(before: Buffer, blockBytes: number): Generator<Cut> {
    const media = Buffer.from(before)
    const writes = this.log.filter(({ bytes }) => bytes.length > 0)
    for (const [index, { op, offset, bytes }] of writes.entries()) {
      for (let length = 0; length < bytes.length; length += blockBytes) {
        const first = Buffer.from(media)
        bytes.copy(first, offset, 0, length)
        const what = `${op} ${index} of ${writes.length}, cut at byte ${length} of ${bytes.length}`
        yield { image: first, done: false, what }
        const last = Buffer.from(media)
        bytes.copy(last, offset + length, length)
        yield { image: last, done: false, what: `${what}, from behind` }
      }
      bytes.copy(media, offset)
    }
    yield { image: media, done: true, what: 'the end' }
  }
}
