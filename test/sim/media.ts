/**
 * The medium of a simulated disk with the volatile cache above it: which content a sector has for readers,
 * and which it may have after a power cut. Every sector keeps the versions that have not become durable; a
 * cut chooses one of them, or the durable one, for each sector by itself: that is how writes are lost,
 * reordered and torn. Used by disk.ts.
 */
import type { SimRandom } from './random.ts'

/** One write as it lies in the cache. */
export interface CachedWrite {
  /** Number of the acknowledgement; a flush that came later covers it. */
  acknowledged: number
}

interface Version {
  readonly source: Buffer
  readonly at: number
  readonly write: CachedWrite
}

const COPIES_BYTES = 256 * 1024
const DURABLE: CachedWrite = { acknowledged: 0 }

/** A sector that is not what it should be, as long as it is `bad`. */
interface Scar {
  readonly sector: number
  readonly bad: Buffer
  readonly good: Buffer
}

export class SimMedia {
  /** As reads see it. */
  content: Buffer
  readonly #sectorBytes: number
  /** By sector, oldest first; the first one is durable. Sectors that are wholly durable have no entry. */
  readonly #versions = new Map<number, Version[]>()
  #scars: Scar[] = []
  readonly #copies = new Copies()

  constructor(sizeBytes: number, sectorBytes: number, random: SimRandom) {
    this.content = Buffer.alloc(sizeBytes)
    this.#sectorBytes = sectorBytes
    random.fill(this.content)
  }

  /** Room for so many bytes; new ones hold noise. */
  reserve(sizeBytes: number, random: SimRandom): void {
    const { length } = this.content
    if (sizeBytes <= length) return
    this.content = Buffer.concat([this.content, random.bytes(sizeBytes - length)])
  }

  /** Another disk, as it comes from its maker. */
  renew(random: SimRandom): void {
    random.fill(this.content)
    this.#versions.clear()
    this.#scars = []
  }

  /** Sectors with content that a cut may take back. */
  get volatileSectors(): number {
    return this.#versions.size
  }

  write(offset: number, data: Buffer, durable: boolean): CachedWrite {
    const size = this.#sectorBytes
    const write: CachedWrite = { acknowledged: Number.POSITIVE_INFINITY }
    if (durable) {
      for (let at = 0; at < data.length; at += size) this.#versions.delete((offset + at) / size)
    } else {
      const before = this.#copies.copy(this.content, offset, data.length)
      const source = this.#copies.copy(data, 0, data.length)
      for (let at = 0; at < data.length; at += size) {
        const sector = (offset + at) / size
        let list = this.#versions.get(sector)
        if (!list) {
          list = [{ source: before, at, write: DURABLE }]
          this.#versions.set(sector, list)
        }
        list.push({ source, at, write })
      }
    }
    data.copy(this.content, offset)
    return write
  }

  /** What was acknowledged up to number `acknowledged` becomes durable. */
  flush(acknowledged: number): void {
    for (const [sector, list] of this.#versions) {
      let last = list.length - 1
      while (last > 0 && (list[last]?.write.acknowledged ?? 0) > acknowledged) last--
      if (last === list.length - 1) this.#versions.delete(sector)
      else list.splice(0, last)
    }
  }

  /** The cache is lost: each sector has one of its versions, now durably. */
  cut(random: SimRandom): void {
    // Whole cuts that lose or keep everything are as good at finding faults as mixed ones.
    const mood = random.weighted([
      [2, 'oldest'],
      [1, 'newest'],
      [5, 'any'],
    ] as const)
    for (const [sector, list] of this.#versions) {
      const index =
        mood === 'oldest' ? 0 : mood === 'newest' ? list.length - 1 : random.below(list.length)
      const version = list[index]
      version?.source.copy(
        this.content,
        sector * this.#sectorBytes,
        version.at,
        version.at + this.#sectorBytes,
      )
    }
    this.#versions.clear()
  }

  /** A write that was under way: some of its sectors have reached the medium. */
  tear(offset: number, data: Buffer, random: SimRandom): void {
    const size = this.#sectorBytes
    const sectors = data.length / size
    const prefix = random.chance(0.5) ? random.below(sectors + 1) : undefined
    for (let i = 0; i < sectors; i++) {
      if (prefix === undefined ? random.chance(0.5) : i < prefix) {
        this.write(offset + i * size, data.subarray(i * size, (i + 1) * size), true)
      }
    }
  }

  /** Changes sectors behind everybody's back, until {@link undoHarm}. */
  harm(offset: number, content: Buffer): void {
    this.#scar(offset, content, this.content.subarray(offset, offset + content.length))
    this.write(offset, content, true)
  }

  /** A write is taken for done, and its place is as before. */
  losesWrite(offset: number, data: Buffer): undefined {
    this.#scar(offset, this.content.subarray(offset, offset + data.length), data)
  }

  /** A write is taken for done, and is at `place` instead. */
  misplacesWrite(offset: number, place: number, data: Buffer, durable: boolean): CachedWrite {
    this.losesWrite(offset, data)
    this.#scar(place, data, this.content.subarray(place, place + data.length))
    return this.write(place, data, durable)
  }

  #scar(offset: number, bad: Buffer, good: Buffer): void {
    const size = this.#sectorBytes
    for (let at = 0; at < bad.length; at += size) {
      const part = (of: Buffer): Buffer => Buffer.from(of.subarray(at, at + size))
      this.#scars.push({ sector: (offset + at) / size, bad: part(bad), good: part(good) })
    }
  }

  /** Sectors that were harmed, and that nobody has written since, are as they should be. */
  undoHarm(): void {
    const size = this.#sectorBytes
    // The last harm first: it may have come over an earlier one.
    for (const { sector, bad, good } of this.#scars.reverse()) {
      const list = this.#versions.get(sector) ?? []
      for (const [index, { source, at, write }] of list.entries()) {
        if (bad.compare(source, at, at + size) === 0) list[index] = { source: good, at: 0, write }
      }
      const content = this.content.subarray(sector * size, (sector + 1) * size)
      if (content.equals(bad)) good.copy(content)
    }
    this.#scars = []
  }
}

/** Copies of bytes, many in one piece of memory: an ArrayBuffer for each costs a tenth of a run. */
class Copies {
  #piece = Buffer.alloc(0)
  #used = 0

  copy(from: Buffer, offset: number, length: number): Buffer {
    if (this.#used + length > this.#piece.length) {
      this.#piece = Buffer.allocUnsafeSlow(Math.max(length, COPIES_BYTES))
      this.#used = 0
    }
    const copy = this.#piece.subarray(this.#used, this.#used + length)
    this.#used += length
    from.copy(copy, 0, offset, offset + length)
    return copy
  }
}
