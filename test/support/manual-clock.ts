/** A clock for tests, which moves when it is told to. */
import type { Clock, Timer } from '../../src/base/clock.ts'

interface ManualTimer extends Timer {
  dueMs: number
  readonly periodMs: number | undefined
  readonly callback: () => void
  readonly sequence: number
}

/** A clock that only moves when told to; timers that are due together run in the order of making. */
export class ManualClock implements Clock {
  #nowMs = 0
  #sequence = 0
  readonly #timers = new Set<ManualTimer>()

  nowMs(): number {
    return this.#nowMs
  }

  after(delayMs: number, callback: () => void): Timer {
    return this.#add(delayMs, undefined, callback)
  }

  every(periodMs: number, callback: () => void): Timer {
    return this.#add(periodMs, periodMs, callback)
  }

  /** Moves time forward by `ms` and runs what falls due on the way. */
  advance(ms: number): void {
    const endMs = this.#nowMs + ms
    for (let next = this.#next(endMs); next; next = this.#next(endMs)) {
      this.#nowMs = next.dueMs
      if (next.periodMs === undefined) this.#timers.delete(next)
      else next.dueMs += next.periodMs
      next.callback()
    }
    this.#nowMs = endMs
  }

  /** Moves time forward by `ms` while the process is stopped: what falls due runs late, and once. */
  skip(ms: number): void {
    this.#nowMs += ms
    for (const timer of this.#timers) timer.dueMs = Math.max(timer.dueMs, this.#nowMs)
  }

  #add(delayMs: number, periodMs: number | undefined, callback: () => void): Timer {
    const timer: ManualTimer = {
      dueMs: this.#nowMs + delayMs,
      periodMs,
      callback,
      sequence: this.#sequence++,
      cancel: () => {
        this.#timers.delete(timer)
      },
    }
    this.#timers.add(timer)
    return timer
  }

  #next(endMs: number): ManualTimer | undefined {
    let best: ManualTimer | undefined
    for (const timer of this.#timers) {
      if (timer.dueMs > endMs) continue
      if (
        !best ||
        timer.dueMs < best.dueMs ||
        (timer.dueMs === best.dueMs && timer.sequence < best.sequence)
      ) {
        best = timer
      }
    }
    return best
  }
}
