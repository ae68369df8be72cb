/**
 * Virtual time for one run: events in a heap, and clocks (base/clock.ts) that live for one power-up of the
 * simulated machine. Between two events all promises are let run to their end, so that nothing in a run
 * depends on real time.
 */
import { assert } from '../../src/base/assert.ts'
import type { Clock, Timer } from '../../src/base/clock.ts'

/** Events that were cancelled lie in the heap until there are more of them than this. */
const CANCELLED_MAX = 100

interface SimEvent {
  readonly dueMs: number
  readonly sequence: number
  /** undefined: cancelled. */
  run: (() => void) | undefined
}

/** The events of the whole run, over all power cuts. */
export class Scheduler {
  #nowMs = 0
  #sequence = 0
  readonly #heap: SimEvent[] = []
  /** In the heap. */
  #cancelled = 0

  get nowMs(): number {
    return this.#nowMs
  }

  /** Runs `work` after `delayMs`; returns the way to cancel it. */
  after(delayMs: number, work: () => void): Timer {
    assert(delayMs >= 0, `time does not go back by ${-delayMs} ms`)
    const event: SimEvent = { dueMs: this.#nowMs + delayMs, sequence: this.#sequence++, run: work }
    this.#push(event)
    return {
      cancel: () => {
        if (event.run) this.#cancelled++
        event.run = undefined
        if (this.#cancelled > CANCELLED_MAX && this.#cancelled > this.#heap.length / 2) this.#tidy()
      },
    }
  }

  /** Watches that nobody needs any more are most of all events: without them. */
  #tidy(): void {
    const left = this.#heap.filter(({ run }) => run)
    this.#heap.length = 0
    this.#cancelled = 0
    for (const event of left) this.#push(event)
  }

  /**
   * Runs events until `done` says so after one, or nothing is left, or the time is `untilMs`. Rejects with
   * what an event throws. Every event is a turn of the real event loop: Node empties the queue of promises
   * after it.
   */
  run(done: () => boolean, untilMs = Number.POSITIVE_INFINITY): Promise<'done' | 'idle' | 'late'> {
    return new Promise((resolve, reject) => {
      const turn = (): void => {
        try {
          const ended = this.#turn(done, untilMs)
          if (ended) resolve(ended)
          else setImmediate(turn)
        } catch (error) {
          reject(error)
        }
      }
      setImmediate(turn)
    })
  }

  #turn(done: () => boolean, untilMs: number): 'done' | 'idle' | 'late' | undefined {
    if (done()) return 'done'
    const event = this.#pop(untilMs)
    if (!event) {
      if (this.#heap.length === 0) return 'idle'
      this.#nowMs = untilMs
      return 'late'
    }
    this.#nowMs = event.dueMs
    const { run } = event
    // What has run is not cancelled any more.
    event.run = undefined
    run?.()
    return undefined
  }

  #push(event: SimEvent): void {
    const heap = this.#heap
    let at = heap.push(event) - 1
    while (at > 0) {
      const up = (at - 1) >> 1
      const parent = heap[up]
      if (!parent || !before(event, parent)) break
      heap[at] = parent
      at = up
    }
    heap[at] = event
  }

  /** The next event that is not cancelled and due by `untilMs`. */
  #pop(untilMs: number): SimEvent | undefined {
    const heap = this.#heap
    for (;;) {
      const top = heap[0]
      if (!top || (top.run && top.dueMs > untilMs)) return undefined
      const last = heap.pop()
      if (last && heap.length > 0) this.#sink(last)
      if (top.run) return top
      this.#cancelled--
    }
  }

  #sink(event: SimEvent): void {
    const heap = this.#heap
    let at = 0
    for (;;) {
      const left = heap[2 * at + 1]
      const right = heap[2 * at + 2]
      if (!left) break
      const child = right && before(right, left) ? right : left
      if (!before(child, event)) break
      heap[at] = child
      at = child === left ? 2 * at + 1 : 2 * at + 2
    }
    heap[at] = event
  }
}

function before(a: SimEvent, b: SimEvent): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.sequence < b.sequence)
}

/** The clock of one power-up: when it is dead its timers never run. */
export class SimClock implements Clock {
  readonly #scheduler: Scheduler
  #dead = false

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler
  }

  nowMs(): number {
    return this.#scheduler.nowMs
  }

  after(delayMs: number, callback: () => void): Timer {
    return this.#scheduler.after(Math.max(0, delayMs), () => {
      if (!this.#dead) callback()
    })
  }

  every(periodMs: number, callback: () => void): Timer {
    assert(periodMs > 0, 'a period is longer than nothing')
    let cancelled = false
    const again = (): void => {
      this.after(periodMs, () => {
        if (cancelled) return
        again()
        callback()
      })
    }
    again()
    return {
      cancel: () => {
        cancelled = true
      },
    }
  }

  kill(): void {
    this.#dead = true
  }
}
