/** Which part of a reviving subdisk is valid already, in plex space: everything but what its job has still to copy. */
import type { ByteRange } from '../../../base/bytes.ts'
import { RangeSet } from '../../../base/range-set.ts'
import type { Validity } from '../runtime.ts'

/** A validity that a job makes grow. */
export interface GrowingValidity extends Validity {
  /** The range has valid content now. */
  markValid(offset: number, length: number): void
}

/** Valid except in a set of ranges that are still missing. */
export class RegionValidity implements GrowingValidity {
  readonly #missing: RangeSet

  /** `missing` need not be in order and may overlap. */
  constructor(missing: Iterable<ByteRange>) {
    this.#missing = new RangeSet(missing)
  }

  /** The first range at or behind the offset that is missing, up to so many bytes of it. */
  nextMissing(offset: number, mostBytes: number): ByteRange | undefined {
    return this.#missing.next(offset, mostBytes)
  }

  covers(offset: number, length: number): boolean {
    return !this.#missing.touches(offset, length)
  }

  markValid(offset: number, length: number): void {
    this.#missing.remove(offset, length)
  }
}
