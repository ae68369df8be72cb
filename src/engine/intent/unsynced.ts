/**
 * What may differ between the copies of a volume: to the byte as long as these are few ranges, beyond that whole
 * regions, so that a volume whose writes fail everywhere costs a bounded number of them.
 */
import { alignDown, alignUp } from '../../base/bytes.ts'
import { INTENT_PIECES } from '../../base/limits.ts'
import { RangeSet } from '../../base/range-set.ts'
import type { IntentBits } from './intent-bits.ts'

export class UnsyncedRanges extends RangeSet {
  readonly #layout: Pick<IntentBits, 'sizeBytes' | 'regionBytes' | 'regions'>

  constructor(layout: Pick<IntentBits, 'sizeBytes' | 'regionBytes' | 'regions'>) {
    super()
    this.#layout = layout
  }

  /** Of the range what lies within the volume. */
  override add(offset: number, length: number): void {
    const { sizeBytes, regionBytes } = this.#layout
    const isMany = this.ranges.length >= INTENT_PIECES
    const start = isMany ? alignDown(offset, regionBytes) : offset
    const end = isMany ? alignUp(offset + length, regionBytes) : offset + length
    super.add(start, Math.min(end, sizeBytes) - start)
  }

  /** Where too many ranges are left only whole regions go: the rest of what is equal stays unsynced. */
  override remove(offset: number, length: number): void {
    const { sizeBytes, regionBytes, regions } = this.#layout
    const end = offset + length
    // More than failed writes may have: what a job has made equal must count.
    const isMany = this.ranges.length > regions + 2 * INTENT_PIECES
    const start = isMany ? alignUp(offset, regionBytes) : offset
    super.remove(start, (isMany && end < sizeBytes ? alignDown(end, regionBytes) : end) - start)
  }
}
