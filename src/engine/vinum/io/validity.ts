/**
 * Which part of a reviving subdisk is valid already, in plex space: everything below a cursor after a full
 * copy, or everything but some regions after a drive was away for a while. The sync and rebuild jobs move
 * them on; plex-linear.ts and plex-raid5.ts ask them before they read.
 */
import type { ByteRange } from '../../../base/bytes.ts'
import type { Validity } from '../runtime.ts'

/** A validity that a job makes grow. */
export interface GrowingValidity extends Validity {
  /** The range has valid content now. */
  markValid(offset: number, length: number): void
}

/** Valid below the cursor. */
export class CursorValidity implements GrowingValidity {
  #cursorBytes: number

  constructor(cursorBytes: number) {
    this.#cursorBytes = cursorBytes
  }

  get cursorBytes(): number {
    return this.#cursorBytes
  }

  covers(offset: number, length: number): boolean {
    return offset + length <= this.#cursorBytes
  }

  /** Moves the cursor when the range begins at or below it; what lies further up stays unknown. */
  markValid(offset: number, length: number): void {
    if (offset <= this.#cursorBytes) {
      this.#cursorBytes = Math.max(this.#cursorBytes, offset + length)
    }
  }
}

/** Valid except in a set of ranges that are still missing. */
export class RegionValidity implements GrowingValidity {
  /** In order, disjoint, none empty. */
  #missing: readonly ByteRange[]

  /** `missing` need not be in order and may overlap. */
  constructor(missing: Iterable<ByteRange>) {
    this.#missing = joined(missing)
  }

  get missing(): readonly ByteRange[] {
    return this.#missing
  }

  covers(offset: number, length: number): boolean {
    const end = offset + length
    let low = 0
    let high = this.#missing.length
    // The first missing range that ends behind the offset.
    while (low < high) {
      const middle = (low + high) >> 1
      const range = this.#missing[middle] as ByteRange
      if (range.offset + range.length <= offset) low = middle + 1
      else high = middle
    }
    const next = this.#missing[low]
    return next === undefined || next.offset >= end
  }

  /** The range is missing again. */
  markMissing(offset: number, length: number): void {
    this.#missing = joined([...this.#missing, { offset, length }])
  }

  markValid(offset: number, length: number): void {
    if (this.covers(offset, length)) return
    const end = offset + length
    this.#missing = this.#missing.flatMap((range) => {
      const rangeEnd = range.offset + range.length
      if (rangeEnd <= offset || range.offset >= end) return [range]
      const rest: ByteRange[] = []
      if (range.offset < offset) rest.push({ offset: range.offset, length: offset - range.offset })
      if (rangeEnd > end) rest.push({ offset: end, length: rangeEnd - end })
      return rest
    })
  }
}

/** The same bytes in order, with overlapping and touching ranges joined and empty ones left out. */
function joined(ranges: Iterable<ByteRange>): readonly ByteRange[] {
  const sorted = [...ranges].filter(({ length }) => length > 0).sort((a, b) => a.offset - b.offset)
  const result: { offset: number; length: number }[] = []
  for (const { offset, length } of sorted) {
    const last = result.at(-1)
    if (last && offset <= last.offset + last.length) {
      last.length = Math.max(last.length, offset + length - last.offset)
    } else result.push({ offset, length })
  }
  return result
}
