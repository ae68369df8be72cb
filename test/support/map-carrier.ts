/**
 * Simulated carriers of a chunk map for crash tests: pages in a volatile cache, a journal that is written through, and a
 * power cut at any step. Each write, and each end of one, is a step; the cut tears what is under way or in a cache in pieces
 * of 512 or 4096 bytes, any subset of which is on the medium afterwards.
 */
import { PlexusError } from '../../src/base/errors.ts'
import type { Carrier } from '../../src/engine/virstor/map/carrier.ts'
import type { Slot } from '../../src/engine/virstor/map/layout.ts'
import type { AlignedBuffer } from '../../src/hal/block-device.ts'

const SECTOR = 512
const BLOCK = 4096

/** Numbers from 0 to below 1 that a seed decides. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** The power of a machine. */
export class Power {
  readonly random: () => number
  /** The step at which it goes; 0: never. */
  readonly cutAt: number
  steps = 0
  isOff = false
  readonly disks: MapDisk[] = []
  readonly off: Promise<void>
  #cut: () => void = () => {}

  constructor(seed: number, cutAt = 0) {
    this.random = seeded(seed)
    this.cutAt = cutAt
    this.off = new Promise((resolve) => {
      this.#cut = resolve
    })
  }

  /** Whoever is under way when the power goes never hears of it. */
  async step(): Promise<void> {
    if (!this.isOff && ++this.steps === this.cutAt) {
      this.isOff = true
      for (const disk of this.disks) disk.tear(this.random)
      this.#cut()
    }
    await this.check()
  }

  /** Without power nothing goes on. */
  async check(): Promise<void> {
    if (this.isOff) await new Promise(() => {})
  }
}

interface Cached {
  readonly area: number
  readonly offset: number
  readonly bytes: Buffer
}

/** A and B slots, and the ring. */
const RING = 2

/** A medium; `on` gives the carrier of a machine that has it. */
export class MapDisk {
  readonly id: number
  readonly #media: readonly Buffer[]
  /** What the medium may lack, oldest first. */
  #cache: Cached[] = []
  /** Fails everything from now on. */
  isBroken = false
  /** Fault of a disk, or of an order: a flush says that it is done, and does nothing. */
  ignoresFlush = false
  /** The same with the journal. */
  ignoresForce = false

  constructor(id: number, pages: number, blocks: number) {
    this.id = id
    this.#media = [pages, pages, blocks].map((count) => Buffer.alloc(count * BLOCK))
  }

  /** A block as reads see it, for damage. */
  block(area: Slot | 'ring', index: number): Buffer {
    const media = this.#media[area === 'ring' ? RING : area] as Buffer
    return media.subarray(index * BLOCK, (index + 1) * BLOCK)
  }

  /** The power goes: of what is not durable, some sectors are. */
  tear(random: () => number): void {
    const lost = this.#cache
    this.#cache = []
    // Back to what is durable, then forth by what has got there.
    for (const { area, offset, bytes } of lost.toReversed()) {
      bytes.copy(this.#media[area] as Buffer, offset, bytes.length / 2)
    }
    for (const { area, offset, bytes } of lost) {
      // Whole blocks as well: of a write in small pieces hardly any block is left.
      const unit = random() < 0.5 ? SECTOR : BLOCK
      for (let at = 0; at < bytes.length / 2; at += unit) {
        if (random() < 0.5) bytes.copy(this.#media[area] as Buffer, offset + at, at, at + unit)
      }
    }
  }

  on(power: Power, epoch = 1): Carrier {
    power.disks.push(this)
    const read = async (area: number, first: number, into: AlignedBuffer): Promise<void> => {
      this.#check('read')
      await power.check()
      ;(this.#media[area] as Buffer).copy(into.bytes, 0, first * BLOCK)
    }
    const write = async (area: number, first: number, from: AlignedBuffer): Promise<Cached> => {
      this.#check('write')
      await power.check()
      const media = this.#media[area] as Buffer
      const offset = first * BLOCK
      const { length } = from.bytes
      // The new bytes, then the old ones.
      const bytes = Buffer.concat([from.bytes, media.subarray(offset, offset + length)])
      const cached = { area, offset, bytes }
      this.#cache.push(cached)
      from.bytes.copy(media, offset)
      await power.step()
      if (power.random() < 0.5) await null
      this.#check('write')
      return cached
    }
    return {
      id: this.id,
      epoch,
      journalBlocks: (this.#media[RING] as Buffer).length / BLOCK,
      readPages: read,
      writePages: async (slot, first, from) => {
        await write(slot, first, from)
      },
      readJournal: (first, into) => read(RING, first, into),
      writeJournal: async (first, from) => {
        const cached = await write(RING, first, from)
        // Through the cache: nothing older of the ring is in it, and no page shares bytes with it.
        if (!this.ignoresForce) this.#cache = this.#cache.filter((one) => one !== cached)
        await power.step()
      },
      flush: async () => {
        this.#check('flush')
        const before = new Set(this.#cache)
        await power.step()
        this.#check('flush')
        if (!this.ignoresFlush) this.#cache = this.#cache.filter((one) => !before.has(one))
      },
    }
  }

  #check(op: string): void {
    if (!this.isBroken) return
    const subject = `disk ${this.id}`
    throw new PlexusError('io', { op, subject, message: `${subject}: ${op} failed` })
  }
}
