/**
 * Keeps a peer from filling the log: so many lines in a period, and the number of those left out with the
 * first line of a later one. For events that a stranger can cause at will. Used by target/iscsi.
 */
import type { Clock } from './clock.ts'

export class LogLimit {
  readonly #clock: Clock
  readonly #lines: number
  readonly #periodMs: number
  #beganMs = Number.NEGATIVE_INFINITY
  #written = 0
  #omitted = 0

  constructor(clock: Clock, lines: number, periodMs: number) {
    this.#clock = clock
    this.#lines = lines
    this.#periodMs = periodMs
  }

  /** Fields for a line that may be written (`omitted`, if any were), or undefined for one that may not. */
  take(): { readonly omitted?: number } | undefined {
    const nowMs = this.#clock.nowMs()
    if (nowMs - this.#beganMs >= this.#periodMs) {
      this.#beganMs = nowMs
      this.#written = 0
    }
    if (this.#written >= this.#lines) {
      this.#omitted++
      return undefined
    }
    this.#written++
    const omitted = this.#omitted
    this.#omitted = 0
    return omitted === 0 ? {} : { omitted }
  }
}
