/**
 * The `threads` engine: worker threads that call pread, pwrite and their kin synchronously through
 * koffi. The fallback where io_uring is refused (a sandbox, kernel.io_uring_disabled), and the place
 * where the io_uring engine runs the few ioctls that block. Called by io-queue.ts only.
 *
 * Operations and results travel through shared memory (thread-shared.ts): the event loop pushes a slot
 * number and wakes one worker (Atomics.notify); a worker pushes it back and wakes the loop by an
 * eventfd, once for all results that the loop has not seen yet. A worker is never terminated, since
 * that waits for the system call it sits in: it is asked to leave.
 */
import { closeSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import type { IoEngine, IoOperation, IoSink } from './io-engine.ts'
import { eventfd, eventfdClear, type Watch, watchReadable } from './libc.ts'
import { FIELD, LEAVE, SHARED, SharedQueue } from './thread-shared.ts'

export interface ThreadPoolOptions {
  readonly threads: number
  /** Operations that can be started at once; a power of two. */
  readonly slots: number
  readonly sink: IoSink
}

const WORKER_URL = new URL('./thread-worker.js', import.meta.url)

export class ThreadPool implements IoEngine {
  readonly engine = 'threads'
  readonly takesIoctl = true
  enters = 0
  readonly #sink: IoSink
  readonly #shared: SharedQueue
  readonly #eventFd: number
  readonly #scratch = new BigUint64Array(1)
  readonly #exits: Promise<void>[] = []
  #watch: Watch | undefined
  #inFlight = 0
  #head = 0

  /** Starts the threads; what is submitted before they run waits for them. */
  constructor(options: ThreadPoolOptions) {
    assert(Number.isInteger(Math.log2(options.slots)), 'slots are a power of two')
    this.#sink = options.sink
    this.#shared = new SharedQueue(SharedQueue.allocate(options.slots), options.slots)
    this.#eventFd = eventfd()
    this.#watch = watchReadable(this.#eventFd, () => this.#drain())
    for (let i = 0; i < options.threads; i++) {
      const worker = new Worker(WORKER_URL, {
        name: `plexus-io-${i}`,
        workerData: {
          buffer: this.#shared.buffer,
          slots: options.slots,
          eventFd: this.#eventFd,
        },
      })
      // No 'error' listener: a worker that fails is a defect, and its event ends the process.
      this.#exits.push(new Promise((resolve) => worker.once('exit', () => resolve())))
    }
  }

  start(operation: IoOperation): void {
    const shared = this.#shared
    const at = operation.slot * FIELD.COUNT
    shared.fields[at + FIELD.KIND] = operation.kind
    shared.fields[at + FIELD.FD] = operation.fd
    shared.fields[at + FIELD.ADDRESS] = operation.address + operation.doneBytes
    shared.fields[at + FIELD.LENGTH] = operation.length - operation.doneBytes
    shared.fields[at + FIELD.OFFSET] = operation.offset + operation.doneBytes
    shared.fields[at + FIELD.FLAGS] = operation.flags
    shared.submit(operation.slot)
    this.#inFlight++
    this.enters++
  }

  async close(): Promise<void> {
    assert(this.#inFlight === 0, 'threads stop when they are idle')
    for (const _ of this.#exits) this.#shared.submit(LEAVE)
    await Promise.all(this.#exits)
    this.#watch?.close()
    this.#watch = undefined
    closeSync(this.#eventFd)
  }

  #drain(): void {
    const { words, completed, results, mask } = this.#shared
    eventfdClear(this.#eventFd, this.#scratch)
    // Before looking: a result that comes after the look must wake us again.
    Atomics.store(words, SHARED.SIGNALLED, 0)
    for (;;) {
      const cell = this.#head & mask
      const slot = Atomics.load(completed, cell) - 1
      if (slot < 0) return
      Atomics.store(completed, cell, 0)
      this.#head = (this.#head + 1) | 0
      this.#inFlight--
      this.#sink(slot, results[slot] as number)
    }
  }
}
