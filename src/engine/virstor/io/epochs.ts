/**
 * When has everybody gone who was under way at some time? Requests are counted in two epochs in turn. Whoever asks
 * waits for the end of the epoch that was open then; newcomers are counted in the other one. One number for each request.
 */
import { assert } from '../../../base/assert.ts'

export class Epochs {
  readonly #counts = [0, 0]
  /** Whose turn it is: newcomers count here. */
  #now = 0
  /** Wait for the other epoch to end. */
  #waiting: (() => void)[] = []
  /** Came meanwhile: wait for this epoch. */
  #next: (() => void)[] = []

  /** Who is under way. */
  get size(): number {
    return this.#count(0) + this.#count(1)
  }

  /** What {@link leave} takes. */
  enter(): number {
    this.#counts[this.#now] = this.#count(this.#now) + 1
    return this.#now
  }

  leave(epoch: number): void {
    const left = this.#count(epoch) - 1
    assert(left >= 0, 'who leaves has come in')
    this.#counts[epoch] = left
    if (left === 0 && epoch !== this.#now && this.#waiting.length > 0) this.#end()
  }

  /** Calls `done` when all have ended who are under way now; at once where there is nobody. */
  afterAll(done: () => void): void {
    this.#next.push(done)
    this.#turn()
  }

  #turn(): void {
    if (this.#waiting.length > 0 || this.#next.length === 0) return
    this.#waiting = this.#next
    this.#next = []
    this.#now ^= 1
    if (this.#count(this.#now ^ 1) === 0) this.#end()
  }

  #end(): void {
    const ended = this.#waiting
    this.#waiting = []
    for (const done of ended) done()
    this.#turn()
  }

  #count(epoch: number): number {
    return this.#counts[epoch] as number
  }
}
