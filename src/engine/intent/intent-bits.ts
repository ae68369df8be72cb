/**
 * Which regions of a volume may differ between its copies, as bits, and their form on disk (docs/on-disk-format.md). A
 * region is a power of two of bytes, at least 1 MiB. The bits lie in blocks of 4 KiB; a volume has a pair of places for
 * each of them in the map area of each of its drives, which are written in turn, so that a torn write leaves the other
 * one. Little-endian:
 *
 *   byte  size  field
 *      0     8  magic: `PLEXDIRT`
 *      8     4  version: 1
 *     12     4  CRC32C of the 4,096 bytes, this field taken as zero
 *     16    16  UUID of the volume
 *     32     8  sequence: one more with each write of the map, whichever of its blocks that is of
 *     40     8  size of the volume, bytes
 *     48     8  bytes of a region
 *     56     4  regions in this block
 *     60     4  index of this block: before it lie so many times 28,672 regions
 *     64   448  zero
 *    512  3584  region n of this block is bit n mod 8 of byte n div 8: 1 = its copies may differ; the rest is zero
 *
 * Pure; write-intent-bitmap.ts keeps one of these for each redundant volume, set/intent-store.ts reads them at the start.
 */
import { assert } from '../../base/assert.ts'
import type { ByteRange } from '../../base/bytes.ts'
import { crc32c } from '../../base/crc32c.ts'
import { isUuid, uuidBytes, uuidText } from '../../base/random.ts'

export const INTENT_BLOCK_BYTES = 4096
export const INTENT_REGION_BYTES_MIN = 2 ** 20
export const INTENT_VERSION = 1
const HEADER_BYTES = 512
const BITS_BYTES = INTENT_BLOCK_BYTES - HEADER_BYTES
/** Of one block. */
export const INTENT_BLOCK_REGIONS = BITS_BYTES * 8
const MAGIC = Buffer.from('PLEXDIRT', 'latin1')
const CRC_AT = 12

/** How the bits of a volume are cut. */
export interface IntentLayout {
  readonly sizeBytes: number
  /** Blocks of 4 KiB that it may have: at least 1. */
  readonly blocks: number
  /** The least size of a region, bytes: a power of two. Undefined: 1 MiB. */
  readonly regionBytes?: number | undefined
}

/** A set of regions. */
export class IntentBits {
  readonly sizeBytes: number
  /** The least power of two with which the bits fit the blocks. */
  readonly regionBytes: number
  readonly regions: number
  readonly blocks: number
  readonly #bits: Buffer
  /** Regions in the set, by block. */
  readonly #counts: Uint32Array
  #count = 0

  /** Empty. */
  constructor({ sizeBytes, blocks, regionBytes = INTENT_REGION_BYTES_MIN }: IntentLayout) {
    let bytes = regionBytes
    while (Math.ceil(sizeBytes / bytes) > blocks * INTENT_BLOCK_REGIONS) bytes *= 2
    this.sizeBytes = sizeBytes
    this.regionBytes = bytes
    this.regions = Math.ceil(sizeBytes / bytes)
    this.blocks = Math.max(1, Math.ceil(this.regions / INTENT_BLOCK_REGIONS))
    this.#bits = Buffer.alloc(this.blocks * BITS_BYTES)
    this.#counts = new Uint32Array(this.blocks)
  }

  /** Another one, empty, that is cut in the same way. */
  fresh(): IntentBits {
    return new IntentBits(this)
  }

  /** Regions in the set. */
  get count(): number {
    return this.#count
  }

  countIn(block: number): number {
    return this.#counts[block] ?? 0
  }

  has(region: number): boolean {
    return (((this.#bits[region >> 3] ?? 0) >> (region & 7)) & 1) === 1
  }

  set(region: number): void {
    assert(region >= 0 && region < this.regions, `region ${region} is one of ${this.regions}`)
    if (!this.has(region)) this.#flip(region, 1)
  }

  clear(region: number): void {
    if (this.has(region)) this.#flip(region, -1)
  }

  #flip(region: number, change: 1 | -1): void {
    const block = blockOf(region)
    this.#bits[region >> 3] = (this.#bits[region >> 3] ?? 0) ^ (1 << (region & 7))
    this.#counts[block] = (this.#counts[block] ?? 0) + change
    this.#count += change
  }

  /** First and last region that a range touches; an empty one ends before it begins. */
  firstOf(offset: number): number {
    return Math.floor(offset / this.regionBytes)
  }

  lastOf(offset: number, length: number): number {
    return length > 0 ? Math.floor((offset + length - 1) / this.regionBytes) : -1
  }

  /** The bytes of a region, within the size. */
  rangeOf(region: number): ByteRange {
    const offset = region * this.regionBytes
    return { offset, length: Math.min(this.regionBytes, this.sizeBytes - offset) }
  }

  /** Adds every region that the range touches. */
  mark(offset: number, length: number): void {
    const last = Math.min(this.lastOf(offset, length), this.regions - 1)
    for (let region = this.firstOf(offset); region <= last; region++) this.set(region)
  }

  /** The first region of the set from this one on, undefined when there is none. */
  nextFrom(region: number): number | undefined {
    for (let at = region; at < this.regions; ) {
      const block = blockOf(at)
      if (this.countIn(block) === 0) at = (block + 1) * INTENT_BLOCK_REGIONS
      else if ((at & 7) === 0 && this.#bits[at >> 3] === 0) at += 8
      else if (this.has(at)) return at
      else at++
    }
    return undefined
  }

  /** Its bytes in order, touching regions joined, within the size. */
  ranges(): ByteRange[] {
    const ranges: ByteRange[] = []
    for (let first = this.nextFrom(0); first !== undefined; ) {
      let last = first
      while (last + 1 < this.regions && this.has(last + 1)) last++
      const { offset } = this.rangeOf(first)
      const end = this.rangeOf(last)
      ranges.push({ offset, length: end.offset + end.length - offset })
      first = this.nextFrom(last + 1)
    }
    return ranges
  }

  /** A block as it goes to disk, in a buffer of its own. */
  encode(block: number, volumeUuid: string, sequence: number): Buffer {
    assert(isUuid(volumeUuid), `"${volumeUuid}" is a UUID`)
    const bytes = Buffer.alloc(INTENT_BLOCK_BYTES)
    MAGIC.copy(bytes, 0)
    bytes.writeUInt32LE(INTENT_VERSION, 8)
    uuidBytes(volumeUuid).copy(bytes, 16)
    bytes.writeBigUInt64LE(BigInt(sequence), 32)
    bytes.writeBigUInt64LE(BigInt(this.sizeBytes), 40)
    bytes.writeBigUInt64LE(BigInt(this.regionBytes), 48)
    bytes.writeUInt32LE(regionsIn(block, this.regions), 56)
    bytes.writeUInt32LE(block, 60)
    this.#bits.copy(bytes, HEADER_BYTES, block * BITS_BYTES, (block + 1) * BITS_BYTES)
    bytes.writeUInt32LE(crc32c(bytes), CRC_AT)
    return bytes
  }

  /** The regions of one block are those of an encoded one that is cut in the same way. */
  take(block: number, encoded: Buffer): void {
    encoded.copy(this.#bits, block * BITS_BYTES, HEADER_BYTES)
    let count = 0
    for (let at = HEADER_BYTES; at < INTENT_BLOCK_BYTES; at++) count += ONES[encoded[at] ?? 0] ?? 0
    this.#count += count - this.countIn(block)
    this.#counts[block] = count
  }
}

/** How many of all regions lie in a block. */
function regionsIn(block: number, regions: number): number {
  return Math.min(Math.max(regions - block * INTENT_BLOCK_REGIONS, 0), INTENT_BLOCK_REGIONS)
}

/** Ones in each byte. */
const ONES = Uint8Array.from(
  { length: 256 },
  (_, byte) => byte.toString(2).replaceAll('0', '').length,
)

/** The block in which a region lies. */
export function blockOf(region: number): number {
  return Math.floor(region / INTENT_BLOCK_REGIONS)
}

/** What one block of a pair says. */
export interface IntentCopy {
  readonly block: number
  readonly sequence: number
  readonly regionBytes: number
  /** Which block of the pair it is: the next write goes to the other one. */
  readonly which: 0 | 1
  /** Its regions as ranges of the volume, whose end may lie behind the size. */
  readonly ranges: readonly ByteRange[]
  /** What it tells of, in the same way. */
  readonly covers: ByteRange
}

function decodeBlock(bytes: Buffer, which: 0 | 1, volumeUuid: string): IntentCopy | undefined {
  if (bytes.length !== INTENT_BLOCK_BYTES || bytes.compare(MAGIC, 0, 8, 0, 8) !== 0)
    return undefined
  const unsigned = Buffer.from(bytes)
  unsigned.writeUInt32LE(0, CRC_AT)
  if (bytes.readUInt32LE(CRC_AT) !== crc32c(unsigned)) return undefined
  if (bytes.readUInt32LE(8) !== INTENT_VERSION) return undefined
  if (uuidText(bytes.subarray(16, 32)) !== volumeUuid) return undefined
  const sizeBytes = Number(bytes.readBigUInt64LE(40))
  const regionBytes = Number(bytes.readBigUInt64LE(48))
  const block = bytes.readUInt32LE(60)
  if (!Number.isInteger(Math.log2(regionBytes))) return undefined
  const regions = regionsIn(block, Math.ceil(sizeBytes / regionBytes))
  if (regions !== bytes.readUInt32LE(56)) return undefined
  // As if it were the only block.
  const bits = new IntentBits({ sizeBytes: regions * regionBytes, blocks: 1, regionBytes })
  bits.take(0, bytes)
  const ranges = bits.ranges()
  const marked = ranges.reduce((sum, { length }) => sum + length, 0)
  if (marked !== bits.count * regionBytes) return undefined
  const before = block * INTENT_BLOCK_REGIONS * regionBytes
  return {
    block,
    sequence: Number(bytes.readBigUInt64LE(32)),
    regionBytes,
    which,
    ranges: ranges.map(({ offset, length }) => ({ offset: before + offset, length })),
    covers: { offset: before, length: regions * regionBytes },
  }
}

/**
 * What a pair says of a block of a volume, the newer one first: nothing when neither place has it whole. The older one
 * counts, too, where its regions have another size: the map was being cut anew.
 */
export function decodeIntent(
  pair: readonly [Buffer, Buffer],
  volumeUuid: string,
  block = 0,
): readonly IntentCopy[] {
  const copies = ([0, 1] as const)
    .flatMap((which) => decodeBlock(pair[which], which, volumeUuid) ?? [])
    .filter((copy) => copy.block === block)
    .sort((a, b) => b.sequence - a.sequence)
  return copies.filter(
    ({ regionBytes }, index) => index === 0 || regionBytes !== copies[0]?.regionBytes,
  )
}
