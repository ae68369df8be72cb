/**
 * Who may be where in an address space at the same time: requests in flight and windows of jobs, as half-open
 * ranges [offset, offset + length), so that neighbours never collide (spec/vinum.md, 7). Strictly first in,
 * first out among those that conflict: an entry waits for the earlier ones that it conflicts with and for
 * nobody else, so there is neither starvation nor a cycle, as long as nobody enters again while it holds.
 * Used by volume-io.ts for volumes and by subdisk.ts for moves. No I/O, no clock, no promises.
 */
import { assert } from '../../../base/assert.ts'

/**
 * read: a request that only a job's `all` keeps off. write: a request that changes data; two that overlap go
 * one after the other, or two legs of a mirror could see them in different order. writes: a job or a repair
 * that needs the content to stand still. all: a job that moves the content elsewhere.
 */
export type LockMode = 'read' | 'write' | 'writes' | 'all'

/** Bit n: conflicts with the mode of rank n, in the order of RANK. */
const RANK: Readonly<Record<LockMode, number>> = { read: 0, write: 1, writes: 2, all: 3 }
const CONFLICTS: Readonly<Record<LockMode, number>> = {
  read: 0b1000,
  write: 0b1110,
  writes: 0b1110,
  all: 0b1111,
}

/** One stay in a lock. Request objects extend it, so that entering allocates nothing; it may be used again. */
export abstract class LockEntry {
  lockStart = 0
  lockEnd = 0
  /** What it conflicts with, and what it is: see CONFLICTS. 0 while it is outside. */
  conflicts = 0
  rankBit = 0
  /** Earlier entries in the way. It is in when none is left. */
  blockers = 0
  before: LockEntry | undefined = undefined
  after: LockEntry | undefined = undefined

  /** It is in: called once for each {@link RangeLock.add}, from within when nothing is in the way. */
  abstract granted(): void
}

class CallbackEntry extends LockEntry {
  readonly #callback: () => void

  constructor(callback: () => void) {
    super()
    this.#callback = callback
  }

  granted(): void {
    this.#callback()
  }
}

export class RangeLock {
  /** Everybody in order of arrival: those who are in and those who wait. */
  #first: LockEntry | undefined = undefined
  #last: LockEntry | undefined = undefined
  #size = 0

  /** Entries that are in or wait. */
  get size(): number {
    return this.#size
  }

  /**
   * Enters, and calls `granted` when in: at once where nothing is in the way. The answer is what
   * {@link leave} takes.
   */
  enter(offset: number, length: number, mode: LockMode, granted: () => void): LockEntry {
    const entry = new CallbackEntry(granted)
    this.add(entry, offset, length, mode)
    return entry
  }

  /** As {@link enter}, without any allocation. An empty range conflicts with nothing. */
  add(entry: LockEntry, offset: number, length: number, mode: LockMode): void {
    assert(entry.rankBit === 0, 'an entry is in one place at a time')
    entry.lockStart = offset
    entry.lockEnd = offset + length
    entry.conflicts = CONFLICTS[mode]
    entry.rankBit = 1 << RANK[mode]
    let blockers = 0
    for (let other = this.#first; other; other = other.after) if (inTheWay(other, entry)) blockers++
    entry.blockers = blockers
    entry.before = this.#last
    entry.after = undefined
    if (this.#last) this.#last.after = entry
    else this.#first = entry
    this.#last = entry
    this.#size++
    if (blockers === 0) entry.granted()
  }

  /** Leaves; whoever waited for this alone is let in, in order of arrival. Only who is in may leave. */
  leave(entry: LockEntry): void {
    assert(entry.rankBit !== 0 && entry.blockers === 0, 'who leaves was let in')
    const { before, after } = entry
    if (before) before.after = after
    else this.#first = after
    if (after) after.before = before
    else this.#last = before
    this.#size--
    let ready: LockEntry[] | undefined
    for (let other = after; other; other = other.after) {
      if (!inTheWay(entry, other)) continue
      if (--other.blockers > 0) continue
      ready ??= []
      ready.push(other)
    }
    entry.rankBit = 0
    entry.before = undefined
    entry.after = undefined
    // Only now: whoever is let in may enter and leave again.
    if (ready) for (const other of ready) other.granted()
  }
}

function inTheWay(earlier: LockEntry, later: LockEntry): boolean {
  return (
    (earlier.rankBit & later.conflicts) !== 0 &&
    earlier.lockStart < later.lockEnd &&
    later.lockStart < earlier.lockEnd
  )
}
