/**
 * Which regions of a volume may differ between its copies, as bits, and their form on disk (spec/vinum.md, 9;
 * docs/on-disk-format.md). A region is a power of two of bytes, at least 1 MiB, so large that all bits fit one
 * block of 4 KiB. Each volume has a pair of such blocks in the map area of each of its drives; they are written
 * in turn, so that a torn write leaves the other one. Little-endian:
 *
 *   byte  size  field
 *      0     8  magic: `PLEXDIRT`
 *      8     4  version: 1
 *     12     4  CRC32C of the 4,096 bytes, this field taken as zero
 *     16    16  UUID of the volume
 *     32     8  sequence: one more with each write
 *     40     8  size of the volume, bytes
 *     48     8  bytes of a region
 *     56     4  regions
 *     60   452  zero
 *    512  3584  region n is bit n mod 8 of byte n div 8: 1 = its copies may differ; the rest is zero
 *
 * Pure; dirty-regions.ts keeps one of these for each redundant volume, vinum-set.ts reads them at the start.
 */
import { assert } from '../../../base/assert.ts'
import type { ByteRange } from '../../../base/bytes.ts'
import { crc32c } from '../../../base/crc32c.ts'
import { isUuid, uuidBytes, uuidText } from '../../../base/random.ts'

export const INTENT_BLOCK_BYTES = 4096
export const INTENT_REGION_BYTES_MIN = 2 ** 20
export const INTENT_VERSION = 1
const HEADER_BYTES = 512
const BITS_BYTES = INTENT_BLOCK_BYTES - HEADER_BYTES
export const INTENT_REGIONS_MAX = BITS_BYTES * 8
const MAGIC = Buffer.from('PLEXDIRT', 'latin1')
const CRC_AT = 12

/** Bytes of a region of a volume of that size: `least`, a power of two, unless there were too many then. */
export function regionBytesOf(sizeBytes: number, least = INTENT_REGION_BYTES_MIN): number {
  let bytes = least
  while (Math.ceil(sizeBytes / bytes) > INTENT_REGIONS_MAX) bytes *= 2
  return bytes
}

export class IntentBits {
  readonly sizeBytes: number
  readonly regionBytes: number
  readonly regions: number
  readonly #bits = Buffer.alloc(BITS_BYTES)
  #count = 0

  /** All clean. `least`: see {@link regionBytesOf}. */
  constructor(sizeBytes: number, least?: number) {
    this.sizeBytes = sizeBytes
    this.regionBytes = regionBytesOf(sizeBytes, least)
    this.regions = Math.ceil(sizeBytes / this.regionBytes)
  }

  /** Dirty regions. */
  get count(): number {
    return this.#count
  }

  has(region: number): boolean {
    return (((this.#bits[region >> 3] ?? 0) >> (region & 7)) & 1) === 1
  }

  set(region: number): void {
    assert(region >= 0 && region < this.regions, `region ${region} is one of ${this.regions}`)
    if (this.has(region)) return
    this.#bits[region >> 3] = (this.#bits[region >> 3] ?? 0) | (1 << (region & 7))
    this.#count++
  }

  clear(region: number): void {
    if (!this.has(region)) return
    this.#bits[region >> 3] = (this.#bits[region >> 3] ?? 0) & ~(1 << (region & 7))
    this.#count--
  }

  /** Is any region that the range touches dirty? */
  touches(offset: number, length: number): boolean {
    if (this.#count === 0 || length === 0) return false
    const last = this.lastOf(offset, length)
    for (let region = this.firstOf(offset); region <= last; region++) {
      if (this.has(region)) return true
    }
    return false
  }

  /** First and last region that a range touches. */
  firstOf(offset: number): number {
    return Math.floor(offset / this.regionBytes)
  }

  lastOf(offset: number, length: number): number {
    return Math.floor((offset + length - 1) / this.regionBytes)
  }

  /** Marks every region that the range touches. */
  mark(offset: number, length: number): void {
    if (length === 0) return
    const last = Math.min(this.lastOf(offset, length), this.regions - 1)
    for (let region = this.firstOf(offset); region <= last; region++) this.set(region)
  }

  /** Also everything that is dirty in `other`, which may be of another size. */
  merge(other: IntentBits): void {
    for (const { offset, length } of other.ranges()) this.mark(offset, length)
  }

  copy(): IntentBits {
    const copy = new IntentBits(this.sizeBytes, this.regionBytes)
    this.#bits.copy(copy.#bits)
    copy.#count = this.#count
    return copy
  }

  /** The dirty bytes in order, touching regions joined, within the size. */
  ranges(): ByteRange[] {
    const ranges: ByteRange[] = []
    for (let region = 0; region < this.regions; region++) {
      if (!this.has(region)) continue
      const first = region
      while (region + 1 < this.regions && this.has(region + 1)) region++
      const offset = first * this.regionBytes
      const end = Math.min(this.sizeBytes, (region + 1) * this.regionBytes)
      ranges.push({ offset, length: end - offset })
    }
    return ranges
  }

  /** The block as it goes to disk. `block` has {@link INTENT_BLOCK_BYTES} bytes and is filled whole. */
  encode(block: Buffer, volumeUuid: string, sequence: number): void {
    assert(block.length === INTENT_BLOCK_BYTES, 'a map is one block')
    assert(isUuid(volumeUuid), `"${volumeUuid}" is a UUID`)
    block.fill(0, 0, HEADER_BYTES)
    MAGIC.copy(block, 0)
    block.writeUInt32LE(INTENT_VERSION, 8)
    uuidBytes(volumeUuid).copy(block, 16)
    block.writeBigUInt64LE(BigInt(sequence), 32)
    block.writeBigUInt64LE(BigInt(this.sizeBytes), 40)
    block.writeBigUInt64LE(BigInt(this.regionBytes), 48)
    block.writeUInt32LE(this.regions, 56)
    this.#bits.copy(block, HEADER_BYTES)
    block.writeUInt32LE(crc32c(block), CRC_AT)
  }

  /**
   * The bits of a block that {@link decodeBlock} has found right in its frame; undefined when they do not fit it. Any
   * power of two is taken for a region: who wrote it may have had another least one.
   */
  static fromBlock(block: Buffer): IntentBits | undefined {
    const regionBytes = Number(block.readBigUInt64LE(48))
    if (regionBytes < 1 || !Number.isInteger(Math.log2(regionBytes))) return undefined
    const bits = new IntentBits(Number(block.readBigUInt64LE(40)), regionBytes)
    if (bits.regionBytes !== regionBytes || bits.regions !== block.readUInt32LE(56)) {
      return undefined
    }
    for (let region = 0; region < INTENT_REGIONS_MAX; region++) {
      if (((block[HEADER_BYTES + (region >> 3)] ?? 0) >> (region & 7)) % 2 === 0) continue
      if (region >= bits.regions) return undefined
      bits.set(region)
    }
    return bits
  }
}

/** What a pair of blocks says. */
export interface IntentCopy {
  readonly bits: IntentBits
  readonly sequence: number
  /** Which block of the pair it is: the next write goes to the other one. */
  readonly which: 0 | 1
}

function decodeBlock(block: Buffer, which: 0 | 1, volumeUuid: string): IntentCopy | undefined {
  if (block.length !== INTENT_BLOCK_BYTES || block.compare(MAGIC, 0, 8, 0, 8) !== 0) {
    return undefined
  }
  const unsigned = Buffer.from(block)
  unsigned.writeUInt32LE(0, CRC_AT)
  if (block.readUInt32LE(CRC_AT) !== crc32c(unsigned)) return undefined
  if (block.readUInt32LE(8) !== INTENT_VERSION) return undefined
  if (uuidText(block.subarray(16, 32)) !== volumeUuid) return undefined
  const bits = IntentBits.fromBlock(block)
  return bits && { bits, sequence: Number(block.readBigUInt64LE(32)), which }
}

/** The newer block of a pair that is whole and belongs to the volume; undefined: neither. */
export function decodeIntent(
  pair: readonly [Buffer, Buffer],
  volumeUuid: string,
): IntentCopy | undefined {
  const a = decodeBlock(pair[0], 0, volumeUuid)
  const b = decodeBlock(pair[1], 1, volumeUuid)
  if (!a || !b) return a ?? b
  return a.sequence > b.sequence ? a : b
}

/**
 * All that any drive remembers, for a volume of `sizeBytes`: a write was allowed when its bit was on the drives
 * that were up, so what one of them says may not be left out. Stale drives add at most work. `least`: see
 * {@link regionBytesOf}.
 */
export function mergeIntent(
  copies: Iterable<IntentCopy>,
  sizeBytes: number,
  least?: number,
): IntentBits {
  const merged = new IntentBits(sizeBytes, least)
  for (const { bits } of copies) merged.merge(bits)
  return merged
}
