/**
 * Shares the turns of the event loop among connections: nobody's requests keep the others' waiting. A connection works off
 * what it has received for as long as its slice of the turn lasts; with the rest it waits for the next turn, in line with
 * the others that have more. Without this one socket full of small requests, which libuv reads up to 32 times before it looks
 * at the next socket, is a turn of a second. Owned by portal.ts, used by connection.ts.
 */
import { ACTIVE_MS, SLICE_MS_MIN, TURN_MS } from '../../base/limits.ts'

/** Who has more to do. */
export interface Worker {
  /** Goes on, within its slice of a new turn. */
  work(): void
}

export class Turns {
  readonly #waiting = new Set<Worker>()
  #planned = false
  /** Who has worked since `#sinceMs`, and how many did in the time before. */
  readonly #active = new Set<Worker>()
  #activeBefore = 0
  #sinceMs = 0

  /** What one worker may take of a turn, milliseconds: who works is counted. */
  sliceMs(worker: Worker, nowMs: number): number {
    if (nowMs - this.#sinceMs > ACTIVE_MS) {
      this.#activeBefore = this.#active.size
      this.#active.clear()
      this.#sinceMs = nowMs
    }
    this.#active.add(worker)
    const workers = Math.max(this.#active.size, this.#activeBefore)
    return Math.max(SLICE_MS_MIN, TURN_MS / workers)
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

  /** The worker is gone. */
  forget(worker: Worker): void {
    this.leave(worker)
    this.#active.delete(worker)
  }

  next(): void {
    this.#planned = false
    for (const worker of [...this.#waiting]) worker.work()
  }
}

function nextTurn(turns: Turns): void {
  turns.next()
}

/**
 * One worker's part of the event loop. Work makes a debt, rest pays it back: who is called again and again without a rest, as libuv
 * does where a socket has more, comes to the end of its part, and no turn has to be told from the next for that.
 */
export class Slice {
  readonly #turns: Turns
  readonly #worker: Worker
  #debtMs = 0
  #beganMs = 0
  #endedMs = 0
  #untilMs = 0

  constructor(turns: Turns, worker: Worker) {
    this.#turns = turns
    this.#worker = worker
  }

  /** Work begins. `isTurn`: as the worker's part of a new turn, with the whole slice. */
  begin(nowMs: number, isTurn = false): void {
    this.#debtMs = isTurn ? 0 : Math.max(0, this.#debtMs - (nowMs - this.#endedMs))
    this.#beganMs = nowMs
    this.#untilMs = nowMs + this.#turns.sliceMs(this.#worker, nowMs) - this.#debtMs
  }

  /** The slice is used up: what has been received waits for the next turn. */
  isOver(nowMs: number): boolean {
    return nowMs >= this.#untilMs
  }

  /** Work rests. True: a whole turn is used up without a rest, and no more shall be received before the next one. */
  end(nowMs: number): boolean {
    this.#debtMs += nowMs - this.#beganMs
    this.#endedMs = nowMs
    return this.#debtMs >= TURN_MS
  }
}
