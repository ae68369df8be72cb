/**
 * Shares the turns of the event loop among connections: nobody's requests keep the others' waiting. A connection works off
 * what it has received for as long as its slice of the turn lasts; with the rest it waits for the next turn, in line with
 * the others that have more. Without this one socket full of small requests, which libuv reads up to 32 times before it looks
 * at the next socket, is a turn of a second. Owned by portal.ts, used by connection.ts.
 */
import { TURN_MS } from '../../base/limits.ts'

/** Who has more to do. */
export interface Worker {
  /** Goes on, within its slice of a new turn. */
  work(): void
}

export class Turns {
  readonly #waiting = new Set<Worker>()
  #planned = false

  /** What one worker may take of a turn, milliseconds. */
  get sliceMs(): number {
    return TURN_MS / Math.max(1, this.#waiting.size)
  }

  /** Puts a worker in line for the next turn. */
  wait(worker: Worker): void {
    this.#waiting.add(worker)
    if (this.#planned) return
    this.#planned = true
    setImmediate(nextTurn, this)
  }

  leave(worker: Worker): void {
    this.#waiting.delete(worker)
  }

  next(): void {
    this.#planned = false
    // All keep their places in line until they have no more to do: that says how the turn is cut.
    for (const worker of [...this.#waiting]) worker.work()
  }
}

function nextTurn(turns: Turns): void {
  turns.next()
}

/**
 * One worker's part of the event loop. Work makes a debt, rest pays it back: who is called again and again without a rest, as libuv
 * does where a socket has more, comes to the end of its slice, and no turn has to be told from the next for that.
 */
export class Slice {
  readonly #turns: Turns
  #debtMs = 0
  #beganMs = 0
  #endedMs = 0
  #untilMs = 0

  constructor(turns: Turns) {
    this.#turns = turns
  }

  /** Work begins. `isTurn`: as the worker's part of a new turn, with the whole slice. */
  begin(nowMs: number, isTurn = false): void {
    this.#debtMs = isTurn ? 0 : Math.max(0, this.#debtMs - (nowMs - this.#endedMs))
    this.#beganMs = nowMs
    this.#untilMs = nowMs + this.#turns.sliceMs - this.#debtMs
  }

  isOver(nowMs: number): boolean {
    return nowMs >= this.#untilMs
  }

  /** Work rests. */
  end(nowMs: number): void {
    this.#debtMs += nowMs - this.#beganMs
    this.#endedMs = nowMs
  }
}
