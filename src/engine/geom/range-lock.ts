/**
 * Who may be where in an address space at the same time: requests in flight and windows of jobs, as half-open
 * ranges [offset, offset + length), so that neighbours never collide (docs/vinum.md, 7). Strictly first in,
 * first out among those that conflict: an entry waits for the earlier ones that it conflicts with and for
 * nobody else, so there is neither starvation nor a cycle, as long as nobody enters again while it holds.
 * For volumes and for moves. No I/O, no clock.
 *
 * An entry is found by where it is: the address space is cut into buckets of one size, which share a fixed number
 * of slots. An entry is in the slot of each of its buckets, so who comes looks at its neighbours alone, however many
 * are in flight. The few that are wider than {@link WIDE_BUCKETS} are in a list of their own, which everybody looks at.
 */
import { assert } from '../../base/assert.ts'
import { KIB } from '../../base/limits.ts'

/**
 * read: a request that only a job's `all` keeps off. write: a request that changes data; two that overlap go
 * one after the other, or two legs of a mirror could see them in different order. writes: a job or a repair
 * that needs the content to stand still. all: a job that moves the content elsewhere.
 */
export type LockMode = 'read' | 'write' | 'writes' | 'all'

/** Bit n: conflicts with the mode of rank n, in the order of RANK. Two conflict whichever of them is first. */
const RANK: Readonly<Record<LockMode, number>> = { read: 0, write: 1, writes: 2, all: 3 }
const CONFLICTS: Readonly<Record<LockMode, number>> = {
  read: 0b1000,
  write: 0b1110,
  writes: 0b1110,
  all: 0b1111,
}

/** Small enough that requests one behind the other spread, large enough that one of 1 MiB is in few of them. */
const BUCKET_BYTES = 64 * KIB
/** A power of two. More than an entry has buckets, so that none is twice in a slot. */
const SLOTS = 512
const WIDE_BUCKETS = 32

/** One stay in a lock. Request objects extend it, so that entering allocates nothing; it may be used again. */
export abstract class LockEntry {
  lockStart = 0
  lockEnd = 0
  /** Its buckets, the last one included. */
  firstBucket = 0
  lastBucket = 0
  /** Its place in the order of arrival. */
  arrival = 0
  /** What it conflicts with, and what it is: see CONFLICTS. 0 while it is outside. */
  conflicts = 0
  rankBit = 0
  /** Earlier entries in the way. It is in when none is left. */
  blockers = 0

  /** It is in: called once for each {@link RangeLock.add}, from within when nothing is in the way. */
  abstract granted(): void
}

export class CallbackEntry extends LockEntry {
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
  /** In no order. Made with the first entry: most volumes never lock anything. */
  #slots: LockEntry[][] = []
  readonly #wide: LockEntry[] = []
  #arrivals = 0
  #size = 0

  /** Entries that are in or wait. */
  get size(): number {
    return this.#size
  }

  /** Resolves when in, to what {@link leave} takes. */
  hold(offset: number, length: number, mode: LockMode): Promise<LockEntry> {
    return new Promise((resolve) => {
      const entry: LockEntry = new CallbackEntry(() => resolve(entry))
      this.add(entry, offset, length, mode)
    })
  }

  /** Enters, and calls `granted` when in: at once where nothing is in the way. Allocates nothing. An empty range conflicts with what it lies within. */
  add(entry: LockEntry, offset: number, length: number, mode: LockMode): void {
    assert(entry.rankBit === 0, 'an entry is in one place at a time')
    if (this.#slots.length === 0) this.#slots = Array.from({ length: SLOTS }, () => [])
    entry.lockStart = offset
    entry.lockEnd = offset + length
    entry.firstBucket = Math.floor(offset / BUCKET_BYTES)
    entry.lastBucket = Math.floor((offset + Math.max(length, 1) - 1) / BUCKET_BYTES)
    entry.arrival = ++this.#arrivals
    entry.conflicts = CONFLICTS[mode]
    entry.rankBit = 1 << RANK[mode]
    entry.blockers = 0
    this.#meet(entry, undefined)
    if (isWide(entry)) this.#wide.push(entry)
    else {
      for (let bucket = entry.firstBucket; bucket <= entry.lastBucket; bucket++) {
        this.#slot(bucket).push(entry)
      }
    }
    this.#size++
    if (entry.blockers === 0) entry.granted()
  }

  /** Leaves; whoever waited for this alone is let in, in order of arrival. Only who is in may leave. */
  leave(entry: LockEntry): void {
    assert(entry.rankBit !== 0 && entry.blockers === 0, 'who leaves was let in')
    if (isWide(entry)) remove(this.#wide, entry)
    else {
      for (let bucket = entry.firstBucket; bucket <= entry.lastBucket; bucket++) {
        remove(this.#slot(bucket), entry)
      }
    }
    this.#size--
    const ready: LockEntry[] = []
    this.#meet(entry, ready)
    entry.rankBit = 0
    if (ready.length > 1) ready.sort((one, other) => one.arrival - other.arrival)
    // Only now: whoever is let in may enter and leave again.
    for (const other of ready) other.granted()
  }

  /**
   * Goes through all entries that overlap `entry` and conflict with it, each once. Without `ready` it has come: they
   * are in its way. With it, it has gone: who came later has one less in the way, and is put there when that was the
   * last one.
   */
  #meet(entry: LockEntry, ready: LockEntry[] | undefined): void {
    const { firstBucket, lastBucket } = entry
    for (const other of this.#wide) if (conflict(entry, other)) settle(entry, other, ready)
    if (isWide(entry)) {
      for (let slot = 0; slot < SLOTS; slot++) {
        for (const other of this.#slot(slot)) {
          // Others are in several slots, and count in that of their first bucket.
          const counts = slotOf(other.firstBucket) === slot
          if (counts && conflict(entry, other)) settle(entry, other, ready)
        }
      }
      return
    }
    for (let bucket = firstBucket; bucket <= lastBucket; bucket++) {
      for (const other of this.#slot(bucket)) {
        // Two share several buckets, and meet in the first one.
        const counts = bucket === Math.max(firstBucket, other.firstBucket)
        if (counts && conflict(entry, other)) settle(entry, other, ready)
      }
    }
  }

  #slot(bucket: number): LockEntry[] {
    return this.#slots[slotOf(bucket)] as LockEntry[]
  }
}

/** By its lowest bits, which this takes from numbers beyond 32 bits, too. */
function slotOf(bucket: number): number {
  return bucket & (SLOTS - 1)
}

function isWide({ firstBucket, lastBucket }: LockEntry): boolean {
  return lastBucket - firstBucket >= WIDE_BUCKETS
}

function conflict(one: LockEntry, other: LockEntry): boolean {
  return (
    (one.rankBit & other.conflicts) !== 0 &&
    one.lockStart < other.lockEnd &&
    other.lockStart < one.lockEnd
  )
}

function settle(entry: LockEntry, other: LockEntry, ready: LockEntry[] | undefined): void {
  if (!ready) entry.blockers++
  else if (other.arrival > entry.arrival && --other.blockers === 0) ready.push(other)
}

function remove(entries: LockEntry[], entry: LockEntry): void {
  const index = entries.indexOf(entry)
  assert(index >= 0, 'who leaves is there')
  entries[index] = entries.at(-1) as LockEntry
  entries.pop()
}
