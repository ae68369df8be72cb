/**
 * Writes that wait for physical space, in order of arrival. None of them holds places or its range, but each holds a buffer
 * of its session: so only few wait here, and the others are to be sent again (`busy`), which costs nobody anything. The
 * time is counted from when the device became full: after it all writes fail at once, until somebody gets space.
 * Used by device-io.ts.
 */
import { defined } from '../../../base/assert.ts'
import type { Clock, Timer } from '../../../base/clock.ts'
import { VIRSTOR_SPACE_WAIT_BYTES, VIRSTOR_SPACE_WAITERS } from '../../../base/limits.ts'

export interface SpaceWaiter {
  /** Its buffer. */
  readonly heldBytes: number
  /** Enters its range again and asks again; {@link SpaceQueue.served} or {@link SpaceQueue.wait} follow. */
  retry(): void
  giveUp(): void
}

/** `waits`: it is in the queue. `full`: its time is over. `busy`: too many wait, and it may come again. */
export type WaitAnswer = 'waits' | 'full' | 'busy'

export class SpaceQueue {
  readonly #clock: Clock
  #waitMs: number
  /** Since then somebody has asked for space, and nobody has got any. */
  #sinceMs: number | undefined
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

  /** Counts for those who wait already, too. */
  set waitMs(value: number) {
    this.#waitMs = value
    this.#arm()
  }

  /** May it take space, as the first in line or where nobody waits? */
  mayTake(waiter: SpaceWaiter): boolean {
    return this.#waiters.length === 0 || this.#waiters[0] === waiter
  }

  /** Somebody has got space: who waits for more has all of the time again. */
  taken(): void {
    this.#sinceMs = undefined
  }

  /** `isComing`: space is known to come back soon. */
  wait(waiter: SpaceWaiter, isComing: boolean): WaitAnswer {
    if (this.#waiters[0] === waiter) {
      this.#isTrying = false
      if (!this.#hasEnded && !this.#isOver) {
        this.#arm()
        return 'waits'
      }
      this.served(waiter)
      return 'full'
    }
    if (this.#hasEnded || this.#waitMs === 0) return 'full'
    if (isComing && this.#waiters.length === 0) this.#sinceMs = undefined
    this.#sinceMs ??= this.#clock.nowMs()
    if (this.#isOver) return 'full'
    if (this.#isCrowded(waiter)) return 'busy'
    this.#waiters.push(waiter)
    this.#arm()
    return 'waits'
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
    this.#giveUp()
  }

  get #isOver(): boolean {
    return this.#sinceMs !== undefined && this.#clock.nowMs() >= this.#sinceMs + this.#waitMs
  }

  #isCrowded({ heldBytes }: SpaceWaiter): boolean {
    const { length } = this.#waiters
    const held = this.#waiters.reduce((sum, one) => sum + one.heldBytes, heldBytes)
    return length >= VIRSTOR_SPACE_WAITERS || (length > 0 && held > VIRSTOR_SPACE_WAIT_BYTES)
  }

  readonly #try = (): void => {
    this.#isDue = false
    if (this.#isTrying || this.#waiters.length === 0) return
    this.#isTrying = true
    defined(this.#waiters[0], 'who waits').retry()
  }

  #arm(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    if (this.#waiters.length === 0) return
    const nowMs = this.#clock.nowMs()
    this.#sinceMs ??= nowMs
    const delayMs = Math.max(0, this.#sinceMs + this.#waitMs - nowMs)
    this.#timer = this.#clock.after(delayMs, () => this.#giveUp())
  }

  /** All but one that tries, which finds out by itself, in {@link wait}. */
  #giveUp(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    for (const waiter of this.#waiters.splice(this.#isTrying ? 1 : 0)) waiter.giveUp()
  }
}
