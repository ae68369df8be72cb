/** A validity for tests of plexes: a reviving subdisk is valid below a cursor. */
import type { GrowingValidity } from '../../src/engine/vinum/io/validity.ts'

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
