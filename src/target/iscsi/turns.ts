/**
 * Divides the turns of the event loop among connections, so that nobody's requests keep the others' waiting. A connection processes
 * what it has received for a slice of time; with the rest it waits, and nothing more is read from its socket. In each turn those
 * that wait are served round robin for a bounded time, so that a turn is short however many they are. Without this one socket
 * full of small requests, which libuv reads up to 32 times before it looks at the next socket, is a turn of a second. Owned by
 * portal.ts, used by connection.ts.
 */
import type { Clock } from '../../base/clock.ts'
import {
  ACTIVE_MS,
  OWED_MS_MAX,
  OWED_TIMES,
  SLICE_MS,
  SPENT_MS,
  TURN_MS,
} from '../../base/limits.ts'

/** A connection with PDUs that are not processed yet. */
export interface Worker {
  /** Goes on with a new slice; calls `wait` again if that is not enough. */
  work(): void
}

export class Turns {
  readonly #clock: Clock
  /** Who waits, the next one first. */
  readonly #waiting = new Set<Worker>()
  #planned = false
  /** Who has worked since `#sinceMs`, and how many did in the time before. */
  readonly #active = new Set<Worker>()
  #activeBefore = 0
  #sinceMs = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** How many have worked of late, `worker` among them. */
  workers(worker: Worker, nowMs: number): number {
    if (nowMs - this.#sinceMs > ACTIVE_MS) {
      this.#activeBefore = this.#active.size
      this.#active.clear()
      this.#sinceMs = nowMs
    }
    this.#active.add(worker)
    return Math.max(this.#active.size, this.#activeBefore)
  }

  /** Puts a worker at the end of the line, unless it is in it. */
  wait(worker: Worker): void {
    this.#waiting.add(worker)
    this.#plan()
  }

  leave(worker: Worker): void {
    this.#waiting.delete(worker)
  }

  /** The worker is gone. */
  forget(worker: Worker): void {
    this.leave(worker)
    this.#active.delete(worker)
  }

  /** The event loop has looked at all sockets: now those are served that wait. */
  next(): void {
    this.#planned = false
    const untilMs = this.#clock.nowMs() + TURN_MS
    let left = this.#waiting.size
    for (const worker of this.#waiting) {
      // Whoever waits again is at the end, behind those that were there.
      if (left-- === 0) break
      this.#waiting.delete(worker)
      worker.work()
      if (this.#clock.nowMs() >= untilMs) break
    }
    if (this.#waiting.size > 0) this.#plan()
  }

  #plan(): void {
    if (this.#planned) return
    this.#planned = true
    setImmediate(nextTurn, this)
  }
}

function nextTurn(turns: Turns): void {
  turns.next()
}

/**
 * One worker's use of the event loop. Time used is added up, and time without work is taken off: a connection that is called again
 * and again without a pause comes to the end of its slice without a mark for each turn.
 */
export class Slice {
  readonly #turns: Turns
  readonly #worker: Worker
  #usedMs = 0
  #owedMs = 0
  /** Since work began. */
  #requests = 0
  #answered = 0
  #beganMs = 0
  #endedMs = 0
  #untilMs = 0

  constructor(turns: Turns, worker: Worker) {
    this.#turns = turns
    this.#worker = worker
  }

  /** Work begins. `isNew`: with a new slice, since it is the worker's turn. */
  begin(nowMs: number, isNew = false): void {
    // The time in which others work is not a pause: each gets its own part of it back.
    const pauseMs = (nowMs - this.#endedMs) / this.#turns.workers(this.#worker, nowMs)
    this.#usedMs = isNew ? 0 : Math.max(0, this.#usedMs - pauseMs)
    this.#owedMs = Math.max(0, this.#owedMs - pauseMs)
    this.#beganMs = nowMs
    this.#untilMs = nowMs + SLICE_MS - (isNew ? 0 : this.#usedMs + this.#owedMs)
  }

  /** The slice is used up: what has been received waits. */
  isOver(nowMs: number): boolean {
    return nowMs >= this.#untilMs
  }

  /** A request has been processed; `answered`: without a device. */
  count(answered: boolean): void {
    this.#requests++
    if (answered) this.#answered++
  }

  /**
   * Work rests. An initiator can send requests that are answered without a device without end, so their time is owed once
   * more: outside of the worker's turns there is less for it. True: so much work without a pause that nothing more shall be
   * received before the worker's next turn.
   */
  end(nowMs: number): boolean {
    const workedMs = nowMs - this.#beganMs
    this.#usedMs += workedMs
    if (this.#answered > 0) {
      const answeredMs = (workedMs * this.#answered) / this.#requests
      this.#owedMs = Math.min(OWED_MS_MAX, this.#owedMs + answeredMs * OWED_TIMES)
    }
    this.#requests = 0
    this.#answered = 0
    this.#endedMs = nowMs
    return this.#usedMs >= SPENT_MS
  }
}
