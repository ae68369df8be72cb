/**
 * What the submission queue (io-queue.ts) and its engines (io-uring.ts, thread-pool.ts) agree on: one
 * operation, and the way to start it. An engine only moves operations into the kernel and results
 * back; bounds, retries and short transfers are the queue's part.
 */
import type { IoRequest } from './block-device.ts'

/** Kinds of operations, as small numbers for tables and shared memory. */
export const IO_KIND = {
  READ: 0,
  WRITE: 1,
  /** fdatasync: acknowledged data and what is needed to find it. */
  FLUSH: 2,
  /** fallocate with mode `flags` on `length` bytes at `offset`. */
  ALLOCATE: 3,
  /** ioctl `flags` with a {offset, length} argument: BLKDISCARD, BLKZEROOUT. */
  RANGE_IOCTL: 4,
} as const
export type IoKind = (typeof IO_KIND)[keyof typeof IO_KIND]

/** One operation. Recycled by the queue: a device takes one, fills it, submits it. */
export class IoOperation {
  kind: IoKind = IO_KIND.READ
  fd = -1
  /** Memory of READ and WRITE. */
  address = 0
  length = 0
  offset = 0
  /** WRITE: RWF_ flags; ALLOCATE: mode; RANGE_IOCTL: request number. */
  flags = 0
  /** Starting it may wait, as for a file on a network: a kernel thread of its own starts it. */
  mayStall = false
  /** The request that it works for; the queue only keeps it. */
  request: IoRequest | undefined = undefined
  /** Bytes that earlier, shorter transfers of this operation have moved. */
  doneBytes = 0
  /** Starts of the same transfer again after EINTR or EAGAIN. */
  retries = 0
  /** Index in the engine's tables while it is with the engine; -1 otherwise. */
  slot = -1
  /** Link of the free list, or of the waiting line of a channel. */
  next: IoOperation | undefined = undefined
}

/** Called with a slot and what the system call returned: bytes or 0, or a negated errno. */
export type IoSink = (slot: number, result: number) => void

export interface IoEngine {
  readonly engine: 'io_uring' | 'threads'
  /** It starts RANGE_IOCTL, too. */
  readonly takesIoctl: boolean
  /** System calls (io_uring) or wake-ups (threads) made to start operations. */
  readonly enters: number
  /**
   * Starts what is left of an operation (`doneBytes` onwards). The queue never has more operations
   * started than the engine has slots. The result comes through the sink, never from within `start`.
   */
  start(operation: IoOperation): void
  /** Gives everything back to the system. Nothing may be in flight. */
  close(): Promise<void>
}
