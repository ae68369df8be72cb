/**
 * Shares the turns of the event loop among connections: nobody's requests keep the others' waiting. A connection works off
 * what it has received for as long as its slice of the turn lasts; with the rest it waits for the next turn, in line with
 * the others that have more. Without this one socket full of small requests, which libuv reads up to 32 times before it looks
 * at the next socket, is a turn of a second. Owned by portal.ts, used by connection.ts.
 */
import type { Clock } from '../../base/clock.ts'
import { TURN_MS } from '../../base/limits.ts'

/** Who has more to do. */
export interface Worker {
  /** Goes on, within its slice of a new turn. */
  work(): void
}

export class Turns {
  readonly clock: Clock
  /** Counts the turns in which anybody worked. */
  number = 0
  #waiting = new Set<Worker>()
  #planned = false

  constructor(clock: Clock) {
    this.clock = clock
  }

  /** What one worker may take of this turn, milliseconds. */
  get sliceMs(): number {
    return TURN_MS / Math.max(1, this.#waiting.size)
  }

  /** Puts a worker in line for the next turn. */
  wait(worker: Worker): void {
    this.#waiting.add(worker)
    this.plan()
  }

  leave(worker: Worker): void {
    this.#waiting.delete(worker)
  }

  /** This turn is used: it ends when the event loop has looked at all sockets. */
  plan(): void {
    if (this.#planned) return
    this.#planned = true
    setImmediate(nextTurn, this)
  }

  next(): void {
    this.#planned = false
    this.number++
    // All keep their places in line until they have no more to do: that says how the turn is cut.
    for (const worker of [...this.#waiting]) worker.work()
  }
}

function nextTurn(turns: Turns): void {
  turns.next()
}

/** One worker's part of each turn. */
export class Slice {
  readonly #turns: Turns
  #turn = -1
  #leftMs = 0
  #untilMs = 0

  constructor(turns: Turns) {
    this.#turns = turns
  }

  /** Work begins at `nowMs`, perhaps again within the same turn. */
  begin(nowMs: number): void {
    const turns = this.#turns
    if (this.#turn !== turns.number) {
      this.#turn = turns.number
      this.#leftMs = turns.sliceMs
    }
    turns.plan()
    this.#untilMs = nowMs + this.#leftMs
  }

  isOver(): boolean {
    return this.#turns.clock.nowMs() >= this.#untilMs
  }

  /** Work rests: what has not been used may be used in the same turn. */
  end(): void {
    this.#leftMs = this.#untilMs - this.#turns.clock.nowMs()
  }
}
