/** A set of byte ranges: what a bitmap marks, what a copy lacks, what is lost. */
import type { ByteRange } from './bytes.ts'

/** Bytes, as ranges in order, disjoint, none empty. A change costs the ranges behind it a move in memory. */
export class RangeSet {
  readonly #ranges: ByteRange[] = []

  /** `ranges` need not be in order and may overlap. */
  constructor(ranges: Iterable<ByteRange> = []) {
    const sorted = [...ranges].sort((a, b) => a.offset - b.offset)
    for (const { offset, length } of sorted) {
      const last = this.#ranges.at(-1)
      if (last && offset <= last.offset + last.length) {
        const end = Math.max(last.offset + last.length, offset + length)
        this.#ranges[this.#ranges.length - 1] = { offset: last.offset, length: end - last.offset }
      } else if (length > 0) this.#ranges.push({ offset, length })
    }
  }

  get ranges(): readonly ByteRange[] {
    return this.#ranges
  }

  get isEmpty(): boolean {
    return this.#ranges.length === 0
  }

  get bytes(): number {
    return this.#ranges.reduce((sum, { length }) => sum + length, 0)
  }

  /** The first range at or behind the offset, up to so many bytes of it; undefined: there is none. */
  next(offset: number, mostBytes: number): ByteRange | undefined {
    const range = this.#ranges[this.#firstBehind(offset)]
    if (!range) return undefined
    const start = Math.max(range.offset, offset)
    return { offset: start, length: Math.min(range.offset + range.length - start, mostBytes) }
  }

  touches(offset: number, length: number): boolean {
    const next = this.#ranges[this.#firstBehind(offset)]
    return next !== undefined && length > 0 && next.offset < offset + length
  }

  covers(offset: number, length: number): boolean {
    const next = this.#ranges[this.#firstBehind(offset)]
    return (
      next !== undefined && next.offset <= offset && next.offset + next.length >= offset + length
    )
  }

  add(offset: number, length: number): void {
    if (length > 0) this.#replace(offset, length, true)
  }

  remove(offset: number, length: number): void {
    if (length > 0 && this.touches(offset, length)) this.#replace(offset, length, false)
  }

  /** Takes the range out, and puts it in again where it `stays`, joined with what it touches. */
  #replace(offset: number, length: number, stays: boolean): void {
    const end = offset + length
    const first = this.#firstBehind(stays ? offset - 1 : offset)
    let next = first
    let from = offset
    let to = end
    for (; next < this.#ranges.length; next++) {
      const range = this.#ranges[next] as ByteRange
      if (stays ? range.offset > end : range.offset >= end) break
      from = Math.min(from, range.offset)
      to = Math.max(to, range.offset + range.length)
    }
    const parts = stays
      ? [{ offset: from, length: to - from }]
      : [
          { offset: from, length: offset - from },
          { offset: end, length: to - end },
        ]
    this.#ranges.splice(first, next - first, ...parts.filter((part) => part.length > 0))
  }

  /** Index of the first range that ends behind the offset. */
  #firstBehind(offset: number): number {
    let low = 0
    let high = this.#ranges.length
    while (low < high) {
      const middle = (low + high) >> 1
      const range = this.#ranges[middle] as ByteRange
      if (range.offset + range.length <= offset) low = middle + 1
      else high = middle
    }
    return low
  }
}
