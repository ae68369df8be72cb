/**
 * First writes to parts of one granule that come in one turn of the event loop. They make it valid together, so that
 * zeroes go only where none of them writes, and none waits for another one: a sequential writer of small blocks writes
 * each block once. All of them end when all pieces have been written, and one that fails fails them all, since what the
 * granule is then nobody knows. The first one holds the granule; the others are in by it.
 */
import type { PlexusError } from '../../../base/errors.ts'

/** A write, as its granule sees it. */
export interface FillWrite {
  /** Bytes of the device, within the granule. */
  readonly start: number
  readonly end: number
  /** Sends its data; calls {@link GranuleFill.ended} when that has ended. */
  send(): void
  /** Sends zeroes. Before {@link send}. */
  addZeroes(from: number, to: number): void
  /** All have ended. Called of the first one before the others. */
  filled(error: PlexusError | undefined): void
}

export class GranuleFill {
  readonly start: number
  readonly end: number
  readonly #writes: FillWrite[]
  #left = 0
  #error: PlexusError | undefined

  constructor(first: FillWrite, start: number, end: number) {
    this.start = start
    this.end = end
    this.#writes = [first]
  }

  /** May a write of this range join? Where it overlaps with another one, it waits for the granule. */
  takes(start: number, end: number): boolean {
    if (start < this.start || end > this.end) return false
    return this.#writes.every((one) => end <= one.start || one.end <= start)
  }

  join(write: FillWrite): void {
    this.#writes.push(write)
  }

  /** Sends the data of all, and zeroes to the rest. Nobody may join any more. */
  send(): void {
    const [first] = this.#writes
    this.#left = this.#writes.length
    let at = this.start
    for (const { start, end } of [...this.#writes].sort((a, b) => a.start - b.start)) {
      if (at < start) first?.addZeroes(at, start)
      at = end
    }
    if (at < this.end) first?.addZeroes(at, this.end)
    for (const write of this.#writes) write.send()
  }

  ended(error: PlexusError | undefined): void {
    this.#error ??= error
    if (--this.#left > 0) return
    for (const write of this.#writes) write.filled(this.#error)
  }
}
