/**
 * Time as an argument, so that tests and the simulator drive the shipped code with a clock of their
 * own. Times are milliseconds since an arbitrary start and never go back.
 */
export interface Timer {
  cancel(): void
}

export interface Clock {
  /** Monotonic milliseconds, with fractions. */
  nowMs(): number
  /** Runs `callback` once after `delayMs`. A pending timer does not keep the process alive. */
  after(delayMs: number, callback: () => void): Timer
  /** Runs `callback` every `periodMs` until cancelled. */
  every(periodMs: number, callback: () => void): Timer
}

export const realClock: Clock = {
  nowMs: () => performance.now(),
  after(delayMs, callback) {
    const handle = setTimeout(callback, delayMs)
    handle.unref()
    return { cancel: () => clearTimeout(handle) }
  },
  every(periodMs, callback) {
    const handle = setInterval(callback, periodMs)
    handle.unref()
    return { cancel: () => clearInterval(handle) }
  },
}

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
