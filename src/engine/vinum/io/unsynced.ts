/**
 * What may differ between the copies of a volume: whole regions as bits, and parts of regions as ranges as long as
 * they are few. So a volume whose writes fail everywhere costs no more than its bits. Used by dirty-regions.ts.
 */
import type { ByteRange } from '../../../base/bytes.ts'
import { INTENT_PIECES } from '../../../base/limits.ts'
import type { IntentBits } from './intent-bits.ts'
import { RangeSet } from './validity.ts'

export class UnsyncedRanges {
  /** Regions that have an unsynced part. */
  readonly #bits: IntentBits
  /** Of regions that are not unsynced as a whole: which part is. */
  readonly #parts = new Map<number, RangeSet>()
  /** Ranges in #parts. */
  #pieces = 0

  /** `bits` become this object's. */
  constructor(bits: IntentBits) {
    this.#bits = bits
  }

  get isEmpty(): boolean {
    return this.#bits.count === 0
  }

  has(region: number): boolean {
    return this.#bits.has(region)
  }

  touches(offset: number, length: number): boolean {
    if (this.isEmpty || length === 0) return false
    const last = this.#bits.lastOf(offset, length)
    for (let region = this.#bits.firstOf(offset); region <= last; region++) {
      if (!this.#bits.has(region)) continue
      const parts = this.#parts.get(region)
      if (!parts || parts.touches(offset, length)) return true
    }
    return false
  }

  add(offset: number, length: number): void {
    this.#eachPart(offset, length, (region, part, isWhole) => {
      const parts = this.#bits.has(region) ? this.#parts.get(region) : new RangeSet()
      this.#bits.set(region)
      // Unsynced as a whole already.
      if (!parts) return
      this.#forget(region)
      parts.add(part.offset, part.length)
      if (!isWhole) this.#remember(region, parts, INTENT_PIECES)
    })
  }

  /** What is equal in a region of which too many pieces are left is not remembered: all of it stays unsynced. */
  remove(offset: number, length: number): void {
    this.#eachPart(offset, length, (region, part) => {
      if (!this.#bits.has(region)) return
      const parts = this.#parts.get(region) ?? new RangeSet([this.#bits.rangeOf(region)])
      this.#forget(region)
      parts.remove(part.offset, part.length)
      if (parts.ranges.length === 0) this.#bits.clear(region)
      // More than failed writes may have: what a job has made equal must count.
      else this.#remember(region, parts, 2 * INTENT_PIECES)
    })
  }

  /** The first unsynced range at or behind the offset, up to so many bytes of it; undefined: there is none. */
  next(offset: number, mostBytes: number): ByteRange | undefined {
    let found: { offset: number; length: number } | undefined
    for (const range of this.#each(this.#bits.firstOf(offset))) {
      const start = Math.max(range.offset, offset)
      const length = range.offset + range.length - start
      if (length <= 0) continue
      if (!found) found = { offset: start, length }
      else if (start === found.offset + found.length) found.length += length
      else break
      if (found.length >= mostBytes) break
    }
    return found && { offset: found.offset, length: Math.min(found.length, mostBytes) }
  }

  /** In order. */
  get ranges(): readonly ByteRange[] {
    const { ranges } = new RangeSet(this.#each())
    return ranges
  }

  get bytes(): number {
    let sum = 0
    for (const { length } of this.#each()) sum += length
    return sum
  }

  *#each(from = 0): Iterable<ByteRange> {
    for (let at = this.#bits.nextFrom(from); at !== undefined; at = this.#bits.nextFrom(at + 1)) {
      yield* this.#rangesIn(at)
    }
  }

  #rangesIn(region: number): readonly ByteRange[] {
    return this.#parts.get(region)?.ranges ?? [this.#bits.rangeOf(region)]
  }

  #eachPart(
    offset: number,
    length: number,
    work: (region: number, part: ByteRange, isWhole: boolean) => void,
  ): void {
    if (length === 0) return
    const last = this.#bits.lastOf(offset, length)
    for (let region = this.#bits.firstOf(offset); region <= last; region++) {
      const whole = this.#bits.rangeOf(region)
      const start = Math.max(offset, whole.offset)
      const end = Math.min(offset + length, whole.offset + whole.length)
      const part = { offset: start, length: end - start }
      work(region, part, part.length === whole.length)
    }
  }

  #forget(region: number): void {
    this.#pieces -= this.#parts.get(region)?.ranges.length ?? 0
    this.#parts.delete(region)
  }

  #remember(region: number, parts: RangeSet, most: number): void {
    if (this.#pieces + parts.ranges.length > most) return
    this.#pieces += parts.ranges.length
    this.#parts.set(region, parts)
  }
}
