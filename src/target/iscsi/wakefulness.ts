/**
 * Keeps the event loop awake for a moment after a command of a session that has few: the next one, or the
 * disk's answer, comes sooner than a processor wakes up. At queue depth 1 this is half of the round trip
 * (docs/performance.md). Bounded in time and in turns; a busy loop never sleeps anyway and needs none of it.
 * Owned by portal.ts, called by connection.ts.
 */
import { AWAKE_MS, AWAKE_TURNS } from '../../base/limits.ts'

export class Wakefulness {
  #untilMs = 0
  #turns = 0
  #turning = false
  readonly #nowMs: () => number
  readonly #turn = (): void => {
    this.#turns++
    if (this.#turns < AWAKE_TURNS && this.#nowMs() < this.#untilMs) setImmediate(this.#turn)
    else this.#turning = false
  }

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs
  }

  /** The loop does not sleep for the next {@link AWAKE_MS}. `nowMs` is the time that the caller has just read. */
  stay(nowMs: number): void {
    this.#untilMs = nowMs + AWAKE_MS
    this.#turns = 0
    if (this.#turning) return
    this.#turning = true
    setImmediate(this.#turn)
  }
}
