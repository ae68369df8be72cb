/**
 * Cuts a range of a virstor device into runs that are one piece on one component. One object for all requests: it holds
 * the last answer, so that asking makes nothing.
 */
import { assert } from '../../../base/assert.ts'
import type { ChunkMap } from '../runtime.ts'

export class Runs {
  readonly chunkBytes: number
  readonly granuleBytes: number
  /** The last answer: id of the component, 0 for none; byte from its chunk 0; bytes; and whether they are not valid. */
  component = 0
  address = 0
  length = 0
  isHole = false
  readonly #map: ChunkMap

  constructor(map: ChunkMap, chunkBytes: number) {
    this.#map = map
    this.chunkBytes = chunkBytes
    this.granuleBytes = chunkBytes / map.granules
    assert(Number.isInteger(this.granuleBytes), 'a chunk is whole granules')
  }

  /** The run of valid bytes from `offset`, up to `end`, or one of bytes that are not: {@link isHole}. */
  valid(offset: number, end: number): void {
    const map = this.#map
    const chunk = this.chunkOf(offset)
    const start = chunk * this.chunkBytes
    const limit = Math.min(this.chunkBytes, end - start)
    this.component = map.componentOf(chunk)
    this.isHole = this.component === 0
    if (this.isHole) {
      this.length = start + limit - offset
      return
    }
    const granule = Math.floor((offset - start) / this.granuleBytes)
    const last = Math.floor((limit - 1) / this.granuleBytes)
    if (map.isValid(chunk, granule, last)) {
      this.address = map.numberOf(chunk) * this.chunkBytes + offset - start
      this.length = start + limit - offset
      if (offset + this.length < end) this.#extend(chunk, end, true)
      return
    }
    this.length = Math.min(map.runEnd(chunk, granule) * this.granuleBytes, limit) + start - offset
    this.isHole = !map.isValid(chunk, granule, granule)
    if (!this.isHole) this.address = map.numberOf(chunk) * this.chunkBytes + offset - start
  }

  /** The run of bytes that have a place, valid or not; {@link component} is 0 where a chunk has none. */
  placed(offset: number, end: number): void {
    const map = this.#map
    const chunk = this.chunkOf(offset)
    const start = chunk * this.chunkBytes
    this.component = map.componentOf(chunk)
    this.address = map.numberOf(chunk) * this.chunkBytes + offset - start
    this.length = Math.min(this.chunkBytes, end - start) + start - offset
    if (offset + this.length < end && this.component !== 0) this.#extend(chunk, end, false)
  }

  /** Is every granule valid that the range touches? */
  isValid(offset: number, end: number): boolean {
    for (let chunk = this.chunkOf(offset); chunk * this.chunkBytes < end; chunk++) {
      if (this.#map.componentOf(chunk) === 0) return false
      if (!this.#map.isValid(chunk, this.first(chunk, offset), this.last(chunk, end))) return false
    }
    return true
  }

  /** Is the granule lost in which a byte lies? */
  isLostAt(offset: number): boolean {
    const chunk = this.chunkOf(offset)
    const granule = this.first(chunk, offset)
    return this.#map.isLost(chunk) && !this.#map.isValid(chunk, granule, granule)
  }

  chunkOf(offset: number): number {
    return Math.floor(offset / this.chunkBytes)
  }

  /** The first granule of a chunk that a range touches which begins at `offset`. */
  first(chunk: number, offset: number): number {
    return Math.max(0, Math.floor((offset - chunk * this.chunkBytes) / this.granuleBytes))
  }

  /** The last granule of a chunk that a range touches which ends before `end`. */
  last(chunk: number, end: number): number {
    const within = Math.min(end - chunk * this.chunkBytes, this.chunkBytes)
    return Math.ceil(within / this.granuleBytes) - 1
  }

  /** Neighbours that are neighbours on the component, too, are one run. */
  #extend(chunk: number, end: number, ifValid: boolean): void {
    const map = this.#map
    const number = map.numberOf(chunk) - chunk
    for (let next = chunk + 1; next * this.chunkBytes < end; next++) {
      if (map.componentOf(next) !== this.component || map.numberOf(next) !== number + next) return
      // What is valid in part only begins a run of its own.
      if (ifValid && !map.isValid(next, 0, this.last(next, end))) return
      this.length += Math.min(this.chunkBytes, end - next * this.chunkBytes)
    }
  }
}
