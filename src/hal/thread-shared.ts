/**
 * The memory that thread-pool.ts and thread-worker.ts share. Two rings of slot numbers: one producer
 * (the event loop) and many consumers of submissions, many producers and one consumer of results.
 * Both have room for every slot, so neither ever overflows.
 *
 *   words | submitted[slots] | completed[slots] (slot + 1; 0 = empty) | results[slots] | fields[slots]
 */

/** Indexes of the control words. */
export const SHARED = {
  /** Next submission to write; workers wait on it. */
  SUBMIT_TAIL: 0,
  /** Next submission to take. */
  SUBMIT_HEAD: 1,
  /** Next cell for a result. */
  COMPLETE_TAIL: 2,
  /** 1: the event loop has been woken and has not looked yet. */
  SIGNALLED: 3,
  COUNT: 16,
} as const

/** Indexes of the fields of one operation: numbers up to 2^53. */
export const FIELD = {
  KIND: 0,
  FD: 1,
  ADDRESS: 2,
  LENGTH: 3,
  OFFSET: 4,
  FLAGS: 5,
  COUNT: 8,
} as const

/** In place of a slot: the worker that takes it leaves. */
export const LEAVE = -1

export class SharedQueue {
  readonly buffer: SharedArrayBuffer
  readonly mask: number
  readonly words: Int32Array
  readonly submitted: Int32Array
  readonly completed: Int32Array
  /** What the system call returned, bytes or a negated errno; by slot. */
  readonly results: Int32Array
  readonly fields: Float64Array

  static allocate(slots: number): SharedArrayBuffer {
    return new SharedArrayBuffer((SHARED.COUNT + 3 * slots) * 4 + slots * FIELD.COUNT * 8)
  }

  constructor(buffer: SharedArrayBuffer, slots: number) {
    const ringBytes = slots * 4
    const first = SHARED.COUNT * 4
    this.buffer = buffer
    this.mask = slots - 1
    this.words = new Int32Array(buffer, 0, SHARED.COUNT)
    this.submitted = new Int32Array(buffer, first, slots)
    this.completed = new Int32Array(buffer, first + ringBytes, slots)
    this.results = new Int32Array(buffer, first + 2 * ringBytes, slots)
    this.fields = new Float64Array(buffer, first + 3 * ringBytes, slots * FIELD.COUNT)
  }

  /** Event loop: pushes a slot, or {@link LEAVE}, and wakes one worker. */
  submit(slot: number): void {
    const { words, submitted, mask } = this
    const tail = Atomics.load(words, SHARED.SUBMIT_TAIL)
    Atomics.store(submitted, tail & mask, slot)
    Atomics.store(words, SHARED.SUBMIT_TAIL, (tail + 1) | 0)
    Atomics.notify(words, SHARED.SUBMIT_TAIL, 1)
  }

  /** Worker: waits for a submission and takes it. */
  take(): number {
    const { words, submitted, mask } = this
    for (;;) {
      const head = Atomics.load(words, SHARED.SUBMIT_HEAD)
      const tail = Atomics.load(words, SHARED.SUBMIT_TAIL)
      if (head === tail) {
        Atomics.wait(words, SHARED.SUBMIT_TAIL, tail)
        continue
      }
      const slot = Atomics.load(submitted, head & mask)
      // Lost against another worker: what we read may be stale, and is not ours.
      if (Atomics.compareExchange(words, SHARED.SUBMIT_HEAD, head, (head + 1) | 0) === head) {
        return slot
      }
    }
  }

  /** Worker: hands a result back. True: the event loop must be woken. */
  give(slot: number, result: number): boolean {
    const { words, completed, results, mask } = this
    results[slot] = result
    const cell = Atomics.add(words, SHARED.COMPLETE_TAIL, 1) & mask
    Atomics.store(completed, cell, slot + 1)
    return Atomics.exchange(words, SHARED.SIGNALLED, 1) === 0
  }
}
