/**
 * How fast a job may go and how fast it goes: a token bucket over an injected clock, and a rate smoothed over
 * the last seconds. Used by job.ts only.
 */
import type { Clock } from '../../base/clock.ts'
import { JOB_BURST_MS, JOB_RATE_WINDOW_MS } from '../../base/limits.ts'

/**
 * A token bucket in bytes. It is charged after the work, so it may go into debt by one step; whoever comes next
 * waits until the debt is paid. The debt is in bytes: a changed rate counts for it at once.
 */
export class TokenBucket {
  readonly #clock: Clock
  #bytesPerSecond: number | undefined
  #tokens = 0
  #filledMs: number

  constructor(clock: Clock, bytesPerSecond: number | undefined) {
    this.#clock = clock
    this.#bytesPerSecond = bytesPerSecond
    this.#filledMs = clock.nowMs()
  }

  get bytesPerSecond(): number | undefined {
    return this.#bytesPerSecond
  }

  /** undefined: no limit, and no debt any more. */
  set bytesPerSecond(value: number | undefined) {
    this.#fill()
    this.#bytesPerSecond = value
    if (value === undefined) this.#tokens = 0
  }

  /** Milliseconds until more may be done; 0: now. */
  get waitMs(): number {
    this.#fill()
    if (this.#bytesPerSecond === undefined || this.#tokens >= 0) return 0
    return Math.ceil((-this.#tokens / this.#bytesPerSecond) * 1000)
  }

  take(bytes: number): void {
    this.#fill()
    if (this.#bytesPerSecond !== undefined) this.#tokens -= bytes
  }

  /** What was not used is kept for {@link JOB_BURST_MS} only, so that a pause is not made up for by a storm. */
  #fill(): void {
    const nowMs = this.#clock.nowMs()
    const rate = this.#bytesPerSecond
    if (rate !== undefined) {
      const most = (rate * JOB_BURST_MS) / 1000
      this.#tokens = Math.min(most, this.#tokens + (rate * (nowMs - this.#filledMs)) / 1000)
    }
    this.#filledMs = nowMs
  }
}

interface Sample {
  readonly atMs: number
  readonly bytes: number
}

/** Samples of the window that are kept; more are not needed for a smooth figure. */
const SAMPLES = 20

/** Bytes per second over the last {@link JOB_RATE_WINDOW_MS}, or since {@link RateMeter.restart}. */
export class RateMeter {
  readonly #clock: Clock
  #samples: Sample[] = []

  constructor(clock: Clock, bytes: number) {
    this.#clock = clock
    this.restart(bytes)
  }

  /** Forgets the past: what happened before a pause says nothing of the rate after it. */
  restart(bytes: number): void {
    this.#samples = [{ atMs: this.#clock.nowMs(), bytes }]
  }

  /** `bytes` is the progress so far. */
  note(bytes: number): void {
    const atMs = this.#clock.nowMs()
    const last = this.#samples.at(-1)
    if (last && atMs - last.atMs < JOB_RATE_WINDOW_MS / SAMPLES) return
    this.#samples.push({ atMs, bytes })
    // One sample beyond the window stays: it is where the window begins.
    while ((this.#samples[1]?.atMs ?? atMs) < atMs - JOB_RATE_WINDOW_MS) this.#samples.shift()
  }

  /** Rate at this moment, with the progress so far; 0 before there is anything to go by. */
  bytesPerSecond(bytes: number): number {
    const from = this.#samples[0]
    const ms = from ? this.#clock.nowMs() - from.atMs : 0
    return from && ms > 0 ? ((bytes - from.bytes) * 1000) / ms : 0
  }
}
