/**
 * Writes that wait for physical space, in order of arrival and for a bounded time. None of them holds anything: neither
 * places nor its range. Used by device-io.ts.
 */
import { defined } from '../../../base/assert.ts'
import type { Clock, Timer } from '../../../base/clock.ts'
import { VIRSTOR_SPACE_WAITERS } from '../../../base/limits.ts'

export interface SpaceWaiter {
  /** When it gives up, by the clock; set while it is in the queue. */
  deadlineMs: number
  /** Enters its range again and asks again; {@link SpaceQueue.served} or {@link SpaceQueue.wait} follow. */
  retry(): void
  giveUp(): void
}

export class SpaceQueue {
  readonly #clock: Clock
  readonly #waitMs: number
  readonly #waiters: SpaceWaiter[] = []
  /** The first one has been called in, and has not been served or come back. */
  #isTrying = false
  #isDue = false
  #hasEnded = false
  #timer: Timer | undefined

  /** `waitMs` 0: nobody waits. */
  constructor(clock: Clock, waitMs: number) {
    this.#clock = clock
    this.#waitMs = waitMs
  }

  get size(): number {
    return this.#waiters.length
  }

  /** May it take space, as the first in line or where nobody waits? */
  mayTake(waiter: SpaceWaiter): boolean {
    return this.#waiters.length === 0 || this.#waiters[0] === waiter
  }

  /** It waits from now on, or goes on waiting. False: it must not, or no longer, and is not in the queue. */
  wait(waiter: SpaceWaiter): boolean {
    if (this.#waiters[0] === waiter) {
      this.#isTrying = false
      if (!this.#hasEnded && this.#clock.nowMs() < waiter.deadlineMs) {
        this.#arm()
        return true
      }
      this.served(waiter)
      return false
    }
    if (this.#hasEnded || this.#waitMs === 0 || this.#waiters.length >= VIRSTOR_SPACE_WAITERS)
      return false
    waiter.deadlineMs = this.#clock.nowMs() + this.#waitMs
    this.#waiters.push(waiter)
    this.#arm()
    return true
  }

  /** It waits no more, if it did: who is behind it may try. */
  served(waiter: SpaceWaiter): void {
    if (this.#waiters[0] !== waiter) return
    this.#waiters.shift()
    this.#isTrying = false
    this.#arm()
    this.retry()
  }

  /** Something is free: the first one tries again, soon. */
  retry(): void {
    if (this.#isDue || this.#waiters.length === 0) return
    this.#isDue = true
    queueMicrotask(this.#try)
  }

  /** Nothing will be free any more. */
  end(): void {
    this.#hasEnded = true
    this.#timer?.cancel()
    const rest = this.#waiters.splice(this.#isTrying ? 1 : 0)
    for (const waiter of rest) waiter.giveUp()
  }

  readonly #try = (): void => {
    this.#isDue = false
    if (this.#isTrying || this.#waiters.length === 0) return
    this.#isTrying = true
    defined(this.#waiters[0], 'who waits').retry()
  }

  /** The waits are equally long, so the first one is over first. */
  #arm(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    // One that tries finds out by itself, in wait().
    const next = this.#waiters[this.#isTrying ? 1 : 0]
    if (!next) return
    const delayMs = Math.max(0, next.deadlineMs - this.#clock.nowMs())
    this.#timer = this.#clock.after(delayMs, this.#expire)
  }

  readonly #expire = (): void => {
    const nowMs = this.#clock.nowMs()
    const at = this.#isTrying ? 1 : 0
    while ((this.#waiters[at]?.deadlineMs ?? Number.POSITIVE_INFINITY) <= nowMs) {
      for (const waiter of this.#waiters.splice(at, 1)) waiter.giveUp()
    }
    this.#arm()
  }
}
