/**
 * Who may change a row of a RAID5 plex, or rely on its parity: one at a time, in order of arrival. Writes,
 * degraded reads, repairs and the steps of jobs take the lock of a row; healthy reads take none. Rows are
 * half-open: neighbours never meet.
 *
 * No deadlock: who holds several rows has taken them in ascending order, and who holds rows waits for nothing but
 * scratch memory and devices. Scratch comes in the end whoever holds the pool (raid5/scratch.ts); jobs take
 * theirs before the rows.
 */
import { assert, defined } from '../../../base/assert.ts'

export interface RowWaiter {
  /** The row is the waiter's until it is released. Never called from within `acquire` or `release`. */
  granted(): void
  /** May `next`, which waits right behind this one, be done together with it? True: it has been taken over. */
  absorb(next: RowWaiter): boolean
}

export class RowLocks {
  /** A locked row has an entry: those who wait for it. */
  readonly #rows = new Map<number, RowWaiter[]>()

  /** Rows that are locked. */
  get held(): number {
    return this.#rows.size
  }

  /**
   * Queues for a row. The grant comes in a microtask at the earliest, so that writes that arrive together (one
   * read of a socket) become one update of the row.
   */
  acquire(row: number, waiter: RowWaiter): void {
    const queue = this.#rows.get(row)
    if (queue) {
      queue.push(waiter)
      return
    }
    this.#rows.set(row, [waiter])
    queueMicrotask(() => this.#grant(row))
  }

  release(row: number): void {
    const queue = this.#rows.get(row)
    assert(queue, 'a row that is released is locked')
    if (queue.length === 0) this.#rows.delete(row)
    else queueMicrotask(() => this.#grant(row))
  }

  /** Takes `count` rows from `first` on, one after the other. */
  acquireSpan(first: number, count: number, granted: () => void): void {
    let next = first
    const waiter: RowWaiter = {
      granted: () => {
        next++
        if (next === first + count) granted()
        else this.acquire(next, waiter)
      },
      absorb: () => false,
    }
    this.acquire(first, waiter)
  }

  releaseSpan(first: number, count: number): void {
    for (let row = first; row < first + count; row++) this.release(row)
  }

  #grant(row: number): void {
    const queue = defined(this.#rows.get(row), 'the queue of a locked row')
    const first = defined(queue.shift(), 'the one who waits for the row')
    while (queue[0] && first.absorb(queue[0])) queue.shift()
    first.granted()
  }
}
