/**
 * The areas of a device with an anchor that its class writes: map and journal; and the resize, which moves them and the
 * slots (docs/on-disk-format.md). anchored-device.ts adds the configuration.
 */
import { assert, defined } from '../../base/assert.ts'
import type { ByteRange } from '../../base/bytes.ts'
import { allocateAligned } from '../../hal/aligned-pool.ts'
import type { AlignedBuffer } from '../../hal/block-device.ts'
import { flush, readAt, writeAt, writeZeroes } from '../../hal/io.ts'
import { type AnchorTarget, copyArea, settleEnds, writeAnchor } from './anchor-ends.ts'
import {
  type Anchor,
  type AnchorLayout,
  MAP_BLOCK_BYTES,
  MAP_PAIR_BYTES,
  planResize,
} from './anchor-layout.ts'

export class AnchorAreas {
  readonly device: AnchorTarget
  protected current: Anchor
  /** Blocks for the map that no write uses now. */
  readonly #mapBuffers: AlignedBuffer[] = []
  /** Writes to areas and slots under way: a resize, which moves them, waits for these. */
  readonly #writes = new Set<Promise<unknown>>()
  /** The end of a resize that moves the areas; what would write to them waits for it. */
  #moving: Promise<unknown> | undefined

  protected constructor(device: AnchorTarget, anchor: Anchor) {
    this.device = device
    this.current = anchor
  }

  /** As it is on the device now. */
  get anchor(): Anchor {
    return this.current
  }

  /** Once somebody has taken the device: puts right what a resize that was cut off, or damage, has left at its ends. */
  async settle(): Promise<void> {
    await settleEnds(this.device, this.current)
  }

  /**
   * Takes a medium that has grown into use: slots, map and journal are copied to where they belong now, then the new
   * anchor counts, durably, then the front copy is renewed and the old anchor wiped. Wherever it is cut off, the device
   * has its newest configuration. Only the copying holds writes back. Rejects as the device does, with everything as it
   * was; where the new anchor counts but the front copy could not be written, {@link settle} has work left.
   */
  async resize(): Promise<void> {
    const { device } = this
    const old = this.current
    const layout = planResize(old, device.geometry.sizeBytes)
    const areas = layout.dataEndBytes > old.dataEndBytes ? areasOf(layout) : []
    for (const area of areas) await writeZeroes(device, area)
    assert(!this.#moving, `${device.path}: one resize at a time`)
    const work = this.#moveTo(layout, areas)
    this.#moving = work.catch(() => {})
    await work.finally(() => {
      this.#moving = undefined
    })
    await this.settle()
  }

  async #moveTo(layout: AnchorLayout, areas: readonly ByteRange[]): Promise<void> {
    await Promise.allSettled(this.#writes)
    const { device } = this
    const from = areasOf(this.current)
    for (const [index, to] of areas.entries()) {
      await copyArea(device, defined(from[index], 'the old place of an area'), to)
    }
    await flush(device)
    const anchor = { ...this.current, ...layout }
    await writeAnchor(device, anchor)
    this.current = anchor
  }

  /** Something that writes to the areas or the slots: not while a resize moves them. */
  protected async inPlace<T>(work: () => Promise<T>): Promise<T> {
    while (this.#moving) await this.#moving
    const write = work()
    this.#writes.add(write)
    try {
      return await write
    } finally {
      this.#writes.delete(write)
    }
  }

  /** Pairs of blocks in the map area; 0: the device has none. */
  get mapSlots(): number {
    return Math.floor(this.current.map.length / MAP_PAIR_BYTES)
  }

  get journalBytes(): number {
    return this.current.journal.length
  }

  /**
   * The two blocks of a pair, as they are. Throws when one of them cannot be read: it may be the newer one, and
   * the other one alone would hide what it says.
   */
  async readMapPair(index: number): Promise<[Buffer, Buffer]> {
    const pair = allocateAligned(MAP_PAIR_BYTES)
    await readAt(this.device, pair, this.#offsetIn('map', index * MAP_PAIR_BYTES, MAP_PAIR_BYTES))
    return [pair.bytes.subarray(0, MAP_BLOCK_BYTES), pair.bytes.subarray(MAP_BLOCK_BYTES)]
  }

  /** Writes one block (4096 bytes) of a pair; with `fua` it is durable when this resolves. */
  async writeMapBlock(
    index: number,
    which: 0 | 1,
    block: Buffer,
    options: { readonly fua?: boolean } = {},
  ): Promise<void> {
    assert(block.length === MAP_BLOCK_BYTES, 'a block of the map is whole')
    const buffer = this.#mapBuffers.pop() ?? allocateAligned(MAP_BLOCK_BYTES)
    block.copy(buffer.bytes)
    await this.inPlace(() => {
      const at = index * MAP_PAIR_BYTES + which * MAP_BLOCK_BYTES
      return writeAt(this.device, buffer, this.#offsetIn('map', at, MAP_BLOCK_BYTES), options)
    })
    // Not after a failure: a disk that does not answer may still have it.
    this.#mapBuffers.push(buffer)
  }

  /** `length` bytes of the journal area from `offset` in it, both whole blocks. */
  async readJournal(offset: number, length: number): Promise<AlignedBuffer> {
    const into = allocateAligned(length)
    await readAt(this.device, into, this.#offsetIn('journal', offset, length))
    return into
  }

  /** Writes the whole of `from` to byte `offset` of the journal area; with `fua` durable when this resolves. */
  async writeJournal(
    offset: number,
    from: AlignedBuffer,
    options: { readonly fua?: boolean } = {},
  ): Promise<void> {
    const { length } = from.bytes
    await this.inPlace(() =>
      writeAt(this.device, from, this.#offsetIn('journal', offset, length), options),
    )
  }

  #offsetIn(area: 'map' | 'journal', offset: number, length: number): number {
    const place = this.current[area]
    assert(
      offset >= 0 && offset + length <= place.length,
      `${this.device.path}: bytes ${offset} to ${offset + length} lie in its ${area}`,
    )
    return place.offset + offset
  }
}

/** What a resize moves, in this order. */
function areasOf({ map, journal, slots }: AnchorLayout): readonly ByteRange[] {
  return [map, journal, ...slots]
}
