/** A disk of any size in memory that keeps only the blocks that were written; each start of an engine sees it anew. */
import type { BlockDevice, IoRequest } from '../../src/hal/block-device.ts'

const BLOCK = 4096

export class SparseDisk {
  readonly blocks = new Map<number, Buffer>()
  readonly #sizeBytes: number

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes
  }

  /** The device of one start. After `cut` it answers nothing any more. */
  device(path: string): BlockDevice & { cut(): void } {
    const { blocks } = this
    const sizeBytes = this.#sizeBytes
    let isCut = false
    const submit = (request: IoRequest): void => {
      setImmediate(() => {
        if (isCut) return
        const { op, offset, length, data, dataOffset } = request
        for (let at = 0; op !== 'flush' && at < length; at += BLOCK) {
          const key = (offset + at) / BLOCK
          const part = data?.bytes.subarray(dataOffset + at, dataOffset + at + BLOCK)
          if (op === 'read' && part) (blocks.get(key) ?? Buffer.alloc(BLOCK)).copy(part)
          else if (op === 'write' && part) blocks.set(key, Buffer.from(part))
          else blocks.delete(key)
        }
        request.complete(undefined)
      })
    }
    return {
      path,
      geometry: {
        sizeBytes,
        logicalBlockBytes: BLOCK,
        physicalBlockBytes: BLOCK,
        alignmentOffsetBytes: 0,
        ioMinBytes: 0,
        ioOptBytes: 0,
        maxTransferBytes: 0,
      },
      identity: { wwid: undefined, serial: undefined, vendor: undefined, model: undefined },
      features: {
        volatileWriteCache: false,
        rotational: false,
        readOnly: false,
        discardGranularityBytes: BLOCK,
        discardAlignmentBytes: 0,
        discardMaxBytes: sizeBytes,
        discardZeroes: true,
        writeZeroes: true,
      },
      inFlight: 0,
      submit,
      onEvent: () => () => {},
      async close() {},
      cut() {
        isCut = true
      },
    }
  }
}
