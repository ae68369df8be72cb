/**
 * Keeps clients of a control socket from taking the event loop for themselves: one request in each turn, clients in
 * rotation, and a rest after each in proportion to the time that it took. Made by control-server.ts for each socket.
 */
import type { Clock } from '../base/clock.ts'

export class FairShare {
  readonly #clock: Clock
  readonly #restFactor: number
  /** Work by client; the client served last is at the end. */
  readonly #waiting = new Map<object, (() => void)[]>()
  #isScheduled = false
  #freeAtMs = Number.NEGATIVE_INFINITY

  /** `share`: the part of the event loop's time that all clients together get at most, above 0, up to 1. */
  constructor(clock: Clock, share: number) {
    this.#clock = clock
    this.#restFactor = 1 / share - 1
  }

  /** Runs `work` in a later turn. */
  run(client: object, work: () => void): void {
    const own = this.#waiting.get(client)
    if (own) own.push(work)
    else this.#waiting.set(client, [work])
    this.#schedule()
  }

  /** Charges time that was spent for clients in another turn. */
  charge(tookMs: number): void {
    const nowMs = this.#clock.nowMs()
    this.#freeAtMs = Math.max(this.#freeAtMs, nowMs) + tookMs * this.#restFactor
  }

  /** The client has left: nothing is done for it any more. */
  forget(client: object): void {
    this.#waiting.delete(client)
  }

  #schedule(): void {
    if (this.#isScheduled || this.#waiting.size === 0) return
    this.#isScheduled = true
    const restMs = this.#freeAtMs - this.#clock.nowMs()
    if (restMs <= 0) setImmediate(() => this.#turn())
    else this.#clock.after(restMs, () => this.#turn())
  }

  #turn(): void {
    this.#isScheduled = false
    for (const [client, works] of this.#waiting) {
      this.#waiting.delete(client)
      const work = works.shift()
      if (works.length > 0) this.#waiting.set(client, works)
      const beganMs = this.#clock.nowMs()
      work?.()
      this.charge(this.#clock.nowMs() - beganMs)
      break
    }
    this.#schedule()
  }
}
