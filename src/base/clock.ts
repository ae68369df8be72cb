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
