/**
 * Bounded submission of I/O: every device has channels that keep at most their depth of operations with
 * the kernel and the rest in order of arrival. All channels share the slots of one engine and take turns
 * for them; half of the slots are divided among the channels, the other half is left for devices that come
 * later, so that devices that do not answer cannot keep the others from theirs. The queue also finishes what the kernel left half done: short
 * transfers go on from where they stopped, EINTR and EAGAIN are tried again. In the steady state nothing is
 * allocated: operations are recycled. Called by direct-device.ts; made once per process at start.
 */
import { assert, defined } from '../base/assert.ts'
import { PlexusError } from '../base/errors.ts'
import { DEVICE_QUEUE_DEPTH, IO_RETRIES, IO_THREADS, RING_ENTRIES } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { AlignedPool } from './aligned-pool.ts'
import { ERRNO, errnoText, SysError } from './errno.ts'
import { IO_KIND, type IoEngine, IoOperation, type IoSink } from './io-engine.ts'
import { IO_ENDED } from './io-errors.ts'
import { UringEngine } from './io-uring.ts'
import { ThreadPool } from './thread-pool.ts'

export interface IoQueueOptions {
  readonly engine: 'auto' | 'io_uring' | 'threads'
  readonly pool: AlignedPool
  readonly log: Logger
  /** Worker threads of the `threads` engine; IO_THREADS where absent. */
  readonly threads?: number
}

export interface IoQueueStats {
  /** Operations with the kernel now, and waiting in channels. */
  readonly inKernel: number
  readonly waiting: number
  /** Since the start: operations finished, continued or tried again, and calls made to start them. */
  readonly finished: number
  readonly resumed: number
  readonly enters: number
}

/** Told once per operation: 0 when the whole of it is done, else a negated errno or IO_ENDED. */
export type OperationDone = (operation: IoOperation, result: number) => void

/** One device's way into the queue. */
export interface IoChannel {
  /** An empty operation; fill it and submit it. It goes back by itself after `done`. */
  take(): IoOperation
  /** Starts the operation, or puts it in line. `done` is never called from within. */
  submit(operation: IoOperation): void
  /** Ends what waits in line, with ECANCELED; what is with the kernel goes on. */
  cancel(): void
  /** Gives the share of the slots back, when nothing is in flight. */
  close(): void
}

export interface IoQueue {
  readonly engine: 'io_uring' | 'threads'
  readonly stats: IoQueueStats
  /**
   * A channel for one open file; at most `depth` operations at once are with the kernel. `mayStall`: the kernel may
   * wait for somebody while it starts one.
   */
  openChannel(fd: number, done: OperationDone, depth?: number, mayStall?: boolean): IoChannel
  /** Waits for what is in flight, then stops the engine. Devices are closed before. */
  close(): Promise<void>
}

/** First in, first out, linked through the operations themselves. */
class Line {
  #first: IoOperation | undefined = undefined
  #last: IoOperation | undefined = undefined

  get empty(): boolean {
    return this.#first === undefined
  }

  push(operation: IoOperation): void {
    operation.next = undefined
    if (this.#last) this.#last.next = operation
    else this.#first = operation
    this.#last = operation
  }

  shift(): IoOperation {
    const operation = defined(this.#first, 'first in line')
    this.#first = operation.next
    if (!this.#first) this.#last = undefined
    operation.next = undefined
    return operation
  }
}

class Channel implements IoChannel {
  readonly fd: number
  readonly depth: number
  readonly done: OperationDone
  readonly line = new Line()
  /** `depth`, or its share of the slots where there are many channels: at least 1. */
  limit: number
  /** Operations with the kernel. */
  active = 0
  /** Waits in the queue for a slot. */
  listed = false
  readonly #queue: OperationQueue
  readonly #mayStall: boolean

  constructor(
    queue: OperationQueue,
    fd: number,
    done: OperationDone,
    depth: number,
    mayStall: boolean,
  ) {
    this.#queue = queue
    this.#mayStall = mayStall
    this.fd = fd
    this.done = done
    this.depth = depth
    this.limit = depth
  }

  take(): IoOperation {
    const operation = this.#queue.takeOperation()
    operation.fd = this.fd
    operation.mayStall = this.#mayStall
    return operation
  }

  submit(operation: IoOperation): void {
    this.#queue.submit(this, operation)
  }

  cancel(): void {
    this.#queue.cancel(this)
  }

  close(): void {
    assert(this.active === 0 && this.line.empty, 'a channel is closed when it is idle')
    this.#queue.closeChannel(this)
  }
}

/** Makes the engine of a queue; gets the sink for its results. */
export type MakeEngine = (sink: IoSink) => IoEngine

/** The queue over any engine. Exported for tests, which bring engines of their own. */
export class OperationQueue implements IoQueue {
  readonly #engine: IoEngine
  readonly #makeHelper: MakeEngine
  /** Runs ioctls for an engine that does not; made when the first one comes. */
  #helper: IoEngine | undefined = undefined
  readonly #sink: IoSink = (slot, result) => this.#onResult(slot, result)
  readonly #operations: (IoOperation | undefined)[]
  readonly #channels: (Channel | undefined)[]
  readonly #open = new Set<Channel>()
  readonly #freeSlots: Int32Array
  #freeCount: number
  #spare: IoOperation | undefined = undefined
  /** Channels that have somebody in line and room in their depth, but no slot; they take turns. */
  readonly #starved: Channel[] = []
  #waiting = 0
  #finished = 0
  #resumed = 0
  #closing = false
  #onIdle: (() => void) | undefined = undefined

  constructor(slots: number, makeEngine: MakeEngine, makeHelper: MakeEngine) {
    this.#engine = makeEngine(this.#sink)
    this.#makeHelper = makeHelper
    this.#operations = new Array<IoOperation | undefined>(slots).fill(undefined)
    this.#channels = new Array<Channel | undefined>(slots).fill(undefined)
    this.#freeSlots = Int32Array.from({ length: slots }, (_, i) => slots - 1 - i)
    this.#freeCount = slots
  }

  get engine(): 'io_uring' | 'threads' {
    return this.#engine.engine
  }

  get stats(): IoQueueStats {
    return {
      inKernel: this.#operations.length - this.#freeCount,
      waiting: this.#waiting,
      finished: this.#finished,
      resumed: this.#resumed,
      enters: this.#engine.enters + (this.#helper?.enters ?? 0),
    }
  }

  openChannel(
    fd: number,
    done: OperationDone,
    depth = DEVICE_QUEUE_DEPTH,
    mayStall = false,
  ): IoChannel {
    const channel = new Channel(this, fd, done, depth, mayStall)
    this.#open.add(channel)
    this.#share()
    return channel
  }

  cancel(channel: Channel): void {
    if (channel.listed) this.#starved.splice(this.#starved.indexOf(channel), 1)
    channel.listed = false
    while (!channel.line.empty) {
      this.#waiting--
      this.#end(channel, channel.line.shift(), -ERRNO.ECANCELED)
    }
  }

  closeChannel(channel: Channel): void {
    this.#open.delete(channel)
    this.#share()
  }

  /** Half of the slots for the channels that are open, by their depth. */
  #share(): void {
    let total = 0
    for (const { depth } of this.#open) total += depth
    const part = Math.min(1, this.#operations.length / 2 / total)
    for (const channel of this.#open) {
      channel.limit = Math.max(1, Math.floor(channel.depth * part))
    }
  }

  async close(): Promise<void> {
    assert(!this.#closing, 'a queue is closed once')
    this.#closing = true
    if (this.#freeCount < this.#operations.length || this.#waiting > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve
      })
    }
    await this.#engine.close()
    await this.#helper?.close()
  }

  takeOperation(): IoOperation {
    const operation = this.#spare
    if (!operation) return new IoOperation()
    this.#spare = operation.next
    operation.next = undefined
    return operation
  }

  submit(channel: Channel, operation: IoOperation): void {
    assert(!this.#closing, 'devices are closed before their queue')
    operation.doneBytes = 0
    operation.retries = 0
    if (channel.active < channel.limit && channel.line.empty && this.#freeCount > 0) {
      this.#begin(channel, operation)
      return
    }
    channel.line.push(operation)
    this.#waiting++
    this.#list(channel)
  }

  /** Puts a channel that could go on but for a slot at the end of the waiting line. */
  #list(channel: Channel): void {
    if (channel.listed || channel.line.empty || channel.active >= channel.limit) return
    channel.listed = true
    this.#starved.push(channel)
  }

  #begin(channel: Channel, operation: IoOperation): void {
    const slot = this.#freeSlots[--this.#freeCount] as number
    operation.slot = slot
    this.#operations[slot] = operation
    this.#channels[slot] = channel
    channel.active++
    this.#engineFor(operation).start(operation)
  }

  #engineFor(operation: IoOperation): IoEngine {
    if (operation.kind !== IO_KIND.RANGE_IOCTL || this.#engine.takesIoctl) return this.#engine
    this.#helper ??= this.#makeHelper(this.#sink)
    return this.#helper
  }

  #onResult(slot: number, result: number): void {
    const operation = defined(this.#operations[slot], `operation of slot ${slot}`)
    const left = afterResult(operation, result)
    if (left > 0) {
      this.#resumed++
      this.#engineFor(operation).start(operation)
      return
    }
    const channel = defined(this.#channels[slot], `channel of slot ${slot}`)
    this.#operations[slot] = undefined
    this.#channels[slot] = undefined
    this.#freeSlots[this.#freeCount++] = slot
    operation.slot = -1
    channel.active--
    this.#finished++
    this.#list(channel)
    this.#pump()
    this.#end(channel, operation, left)
  }

  #end(channel: Channel, operation: IoOperation, result: number): void {
    channel.done(operation, result)
    operation.request = undefined
    operation.next = this.#spare
    this.#spare = operation
    if (this.#onIdle && this.#waiting === 0 && this.#freeCount === this.#operations.length) {
      this.#onIdle()
    }
  }

  /** Gives free slots to the channels that wait, one each in turn. */
  #pump(): void {
    while (this.#freeCount > 0 && this.#starved.length > 0) {
      const channel = defined(this.#starved.shift(), 'starved channel')
      channel.listed = false
      this.#waiting--
      this.#begin(channel, channel.line.shift())
      this.#list(channel)
    }
  }
}

/** A positive value: start the operation again, something is left. Otherwise its final result. */
function afterResult(operation: IoOperation, result: number): number {
  if (result < 0) {
    const transient = result === -ERRNO.EINTR || result === -ERRNO.EAGAIN
    return transient && operation.retries++ < IO_RETRIES ? 1 : result
  }
  if (operation.kind > IO_KIND.WRITE) return 0
  if (result === 0) return IO_ENDED
  operation.doneBytes += result
  operation.retries = 0
  return operation.length - operation.doneBytes
}

/** How to make the engines; tests bring their own. */
export interface EngineMakers {
  readonly ioUring: MakeEngine
  readonly threads: (count: number) => MakeEngine
}

/**
 * Makes the queue of the process. `auto` takes io_uring and falls back to threads with a line in the
 * log that says why; `io_uring` throws `unsupported` where the kernel refuses it.
 */
export function createIoQueue(options: IoQueueOptions): IoQueue {
  const log = options.log.child({ part: 'io' })
  return chooseEngine(options, {
    ioUring: (sink) => makeUring(options.pool, sink, log),
    threads: (threads) => (sink) => new ThreadPool({ threads, slots: RING_ENTRIES, sink }),
  })
}

function makeUring(pool: AlignedPool, sink: IoSink, log: Logger): IoEngine {
  const engine = new UringEngine({ pool, sink })
  const fields = { engine: 'io_uring', registered: engine.registered }
  if (engine.registered) log.info(fields, 'I/O by io_uring')
  else {
    const why = errnoText(engine.registerErrno)
    log.warn(
      fields,
      `I/O by io_uring, but large transfers are slower: the kernel does not register the buffers (${why}); raise LimitMEMLOCK=`,
    )
  }
  return engine
}

/** Before Linux 5.12 the memory of a ring counts against the limit of locked memory, which then is ENOMEM. */
function ringAdvice({ errno }: SysError): string {
  return errno === ERRNO.ENOMEM
    ? 'the limit of locked memory is too small: raise LimitMEMLOCK= of the service, or ulimit -l'
    : 'look at kernel.io_uring_disabled and at the sandbox of the service'
}

/** {@link createIoQueue} over the given engines. */
export function chooseEngine(
  options: Omit<IoQueueOptions, 'pool'>,
  makers: EngineMakers,
): OperationQueue {
  const log = options.log.child({ part: 'io' })
  const helper = makers.threads(IO_THREADS)
  if (options.engine === 'threads') {
    log.info({ engine: 'threads' }, 'I/O by threads, as configured')
  } else {
    try {
      return new OperationQueue(RING_ENTRIES, makers.ioUring, helper)
    } catch (error) {
      if (!(error instanceof SysError)) throw error
      const why = `io_uring is refused (${error.message}); ${ringAdvice(error)}`
      if (options.engine === 'io_uring') {
        throw new PlexusError('unsupported', {
          op: 'start I/O',
          subject: 'io_uring',
          message: `${why}, or set the engine to auto`,
          cause: error,
        })
      }
      log.warn({ engine: 'threads' }, `${why}; I/O by threads, which is slower`)
    }
  }
  // A thread is busy as long as its call lasts: the channels share the threads, too.
  const threads = options.threads ?? IO_THREADS
  return new OperationQueue(2 * threads, makers.threads(threads), helper)
}
