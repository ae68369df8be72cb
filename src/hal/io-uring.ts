/**
 * The io_uring engine (io_uring_setup(2) and its kin; Linux 6.0 or later for SINGLE_ISSUER), driven
 * from the event loop's own thread: operations started in one turn enter the kernel with one system
 * call, completions arrive because the ring's descriptor polls readable. docs/adr/0001 says why.
 * Called by io-queue.ts only.
 *
 *   start() writes an SQE -> nextTick: io_uring_enter, then drain what has completed within it
 *   ring readable         -> drain the CQ; what that started enters at once
 */
import { closeSync, openSync } from 'node:fs'
import { assert } from '../base/assert.ts'
import { GIB, RING_BATCH, RING_ENTRIES, RING_RETRY_MS } from '../base/limits.ts'
import type { AlignedPool } from './aligned-pool.ts'
import { ERRNO, SysError } from './errno.ts'
import { IO_KIND, type IoEngine, type IoOperation, type IoSink } from './io-engine.ts'
import {
  ioUringEnter,
  ioUringRegisterBuffers,
  ioUringSetup,
  ioUringSetWorkers,
} from './io-uring-calls.ts'
import { mmapShared, munmap, viewMemory, type Watch, watchReadable } from './libc.ts'

// linux/io_uring.h
const SETUP_COOP_TASKRUN = 1 << 8
const SETUP_SINGLE_ISSUER = 1 << 12
const FEAT_SINGLE_MMAP = 1
const FEAT_NODROP = 2
const ENTER_GETEVENTS = 1
const OFF_SQES = 0x10000000
const OP_NOP = 0
const OP_FSYNC = 3
const OP_READ_FIXED = 4
const OP_WRITE_FIXED = 5
const OP_FALLOCATE = 17
const OP_READ = 22
const OP_WRITE = 23
const FSYNC_DATASYNC = 1
/** IOSQE_ASYNC, in the second byte: never started within io_uring_enter, where FUSE would wait for its server. */
const SQE_ASYNC = (1 << 4) << 8
const SQE_WORDS = 16
const CQE_WORDS = 4
/** The kernel takes at most 1 GiB per registered buffer. A pool's chunks never cross its pieces. */
const REGISTERED_PIECE_BYTES = GIB
const TWO_32 = 2 ** 32

/** Byte offsets into struct io_uring_params: sq_off begins at 40, cq_off at 80. */
const PARAM = {
  sqEntries: 0,
  cqEntries: 4,
  flags: 8,
  features: 20,
  sqHead: 40,
  sqTail: 44,
  sqMask: 48,
  sqArray: 64,
  cqHead: 80,
  cqTail: 84,
  cqMask: 88,
  cqCqes: 100,
} as const

export interface UringOptions {
  readonly pool: AlignedPool
  readonly sink: IoSink
}

export class UringEngine implements IoEngine {
  readonly engine = 'io_uring'
  readonly takesIoctl = false
  /** Leases are registered with the kernel: no page pinning per operation. */
  readonly registered: boolean
  /** Why they are not; 0 when they are. */
  readonly registerErrno: number
  enters = 0
  readonly #sink: IoSink
  readonly #fd: number
  readonly #pool: AlignedPool
  readonly #ringAddress: number
  readonly #ringBytes: number
  readonly #sqesAddress: number
  readonly #sqesBytes: number
  /** The rings' memory as 32-bit words, and indexes of the words that matter. */
  #words: Int32Array
  #sqes: Int32Array
  readonly #sqTailAt: number
  readonly #sqMask: number
  readonly #cqHeadAt: number
  readonly #cqTailAt: number
  readonly #cqMask: number
  readonly #cqesAt: number
  readonly #cqEntries: number
  /** Submissions written, and those of them that the kernel has taken (both wrap at 2^32). */
  #tail = 0
  #taken = 0
  #inKernel = 0
  #scheduled = false
  #draining = false
  /** The last enter completed operations by itself: the device is synchronous. */
  #synchronous = false
  #watch: Watch | undefined
  readonly #onTick = (): void => this.#enterScheduled()

  /** Sets the ring up and tries it with a NOP and a READ. Throws {@link SysError} where the kernel refuses. */
  constructor(options: UringOptions) {
    this.#sink = options.sink
    this.#pool = options.pool
    const params = new Uint8Array(120)
    const view = new DataView(params.buffer)
    const word = (at: number): number => view.getUint32(at, true)
    view.setUint32(PARAM.flags, SETUP_COOP_TASKRUN | SETUP_SINGLE_ISSUER, true)
    const fd = ioUringSetup(RING_ENTRIES, params)
    if (fd < 0) throw new SysError('io_uring_setup', -fd)
    this.#fd = fd
    this.#cqEntries = word(PARAM.cqEntries)
    this.#sqMask = word(PARAM.sqEntries) - 1
    this.#cqMask = this.#cqEntries - 1
    this.#ringBytes = Math.max(
      word(PARAM.sqArray) + word(PARAM.sqEntries) * 4,
      word(PARAM.cqCqes) + this.#cqEntries * CQE_WORDS * 4,
    )
    this.#sqesBytes = word(PARAM.sqEntries) * SQE_WORDS * 4
    try {
      const features = word(PARAM.features)
      if ((features & FEAT_SINGLE_MMAP) === 0 || (features & FEAT_NODROP) === 0) {
        throw new SysError('io_uring_setup (kernel older than 5.5)', ERRNO.ENOSYS)
      }
      this.#ringAddress = mmapShared(fd, this.#ringBytes, 0)
      this.#sqesAddress = mmapShared(fd, this.#sqesBytes, OFF_SQES)
    } catch (error) {
      closeSync(fd) // and with it whatever is mapped but never seen
      throw error
    }
    this.#words = new Int32Array(viewMemory(this.#ringAddress, this.#ringBytes))
    this.#sqes = new Int32Array(viewMemory(this.#sqesAddress, this.#sqesBytes))
    this.#sqTailAt = word(PARAM.sqTail) / 4
    this.#cqHeadAt = word(PARAM.cqHead) / 4
    this.#cqTailAt = word(PARAM.cqTail) / 4
    this.#cqesAt = word(PARAM.cqCqes) / 4
    // The indirection between ring position and SQE is not used: position i is SQE i.
    for (let i = 0; i <= this.#sqMask; i++) this.#words[word(PARAM.sqArray) / 4 + i] = i
    try {
      this.#probe()
    } catch (error) {
      this.#unmap()
      throw error
    }
    const pool = options.pool
    this.registerErrno = -ioUringRegisterBuffers(
      fd,
      pool.baseAddress,
      pool.totalBytes,
      REGISTERED_PIECE_BYTES,
    )
    this.registered = this.registerErrno === 0
    // Where the kernel refuses it, flushes of many disks wait for each other sooner: no reason not to start.
    ioUringSetWorkers(fd, RING_ENTRIES)
    this.#watch = watchReadable(fd, () => this.#onReadable())
  }

  start(operation: IoOperation): void {
    const sqes = this.#sqes
    const at = (this.#tail & this.#sqMask) * SQE_WORDS
    PREPARE[operation.kind](this, sqes, at, operation)
    if (operation.mayStall) sqes[at] = (sqes[at] as number) | SQE_ASYNC
    sqes[at + 1] = operation.fd
    sqes[at + 8] = operation.slot
    this.#tail = (this.#tail + 1) | 0
    this.#schedule()
  }

  /** The index of the registered buffer that holds the range, or -1. */
  registeredIndex(address: number, length: number): number {
    if (!this.registered) return -1
    const offset = address - this.#pool.baseAddress
    if (offset < 0 || offset + length > this.#pool.totalBytes) return -1
    return Math.floor(offset / REGISTERED_PIECE_BYTES)
  }

  close(): Promise<void> {
    assert(this.#inKernel === 0 && this.#tail === this.#taken, 'a ring closes when it is idle')
    this.#watch?.close()
    this.#watch = undefined
    this.#unmap()
    return Promise.resolve()
  }

  /** Drops the views first: memory that is unmapped under a view ends the process when touched. */
  #unmap(): void {
    this.#words = new Int32Array(0)
    this.#sqes = new Int32Array(0)
    munmap(this.#ringAddress, this.#ringBytes)
    munmap(this.#sqesAddress, this.#sqesBytes)
    closeSync(this.#fd)
  }

  #schedule(): void {
    // While draining, whoever drains enters afterwards.
    if (this.#scheduled || this.#draining) return
    this.#scheduled = true
    // A device that completes within the enter would let ticks beget ticks without end, and sockets
    // would starve; such a device waits for the loop to come around.
    if (this.#synchronous) setImmediate(this.#onTick)
    else process.nextTick(this.#onTick)
  }

  #enterScheduled(): void {
    this.#scheduled = false
    this.#enterOnce()
  }

  #onReadable(): void {
    this.#drain()
    this.#enterOnce()
  }

  /** Hands up to {@link RING_BATCH} operations to the kernel, then takes what is complete. */
  #enterOnce(): void {
    const waiting = (this.#tail - this.#taken) | 0
    if (waiting > 0) {
      const batch = Math.min(waiting, RING_BATCH)
      Atomics.store(this.#words, this.#sqTailAt, this.#tail)
      const taken = this.#enter(batch)
      this.#taken = (this.#taken + taken) | 0
      this.#inKernel += taken
      this.#synchronous = this.#drain() > 0
      // Short of memory: the kernel needs a moment, not a busy loop.
      if (taken === 0 && !this.#scheduled) {
        this.#scheduled = true
        setTimeout(this.#onTick, RING_RETRY_MS)
      }
    }
    if (this.#tail !== this.#taken && !this.#scheduled) {
      this.#scheduled = true
      setImmediate(this.#onTick)
    }
  }

  /** Submissions that the kernel took: fewer than asked for, or none, when it is short of memory. */
  #enter(count: number): number {
    for (;;) {
      const result = ioUringEnter(this.#fd, count, 0, 0)
      this.enters++
      if (result >= 0) return result
      if (result === -ERRNO.EINTR) continue
      // EAGAIN: no memory for requests now; EBUSY: completions wait that we have not taken yet.
      if (result === -ERRNO.EAGAIN || result === -ERRNO.EBUSY) return 0
      throw new SysError('io_uring_enter', -result)
    }
  }

  /** Delivers all completions that are in the CQ now; returns their number. */
  #drain(): number {
    if (this.#draining) return 0
    const words = this.#words
    let head = words[this.#cqHeadAt] as number
    const tail = Atomics.load(words, this.#cqTailAt)
    const count = (tail - head) | 0
    if (count === 0) return 0
    this.#draining = true
    try {
      while (head !== tail) {
        const at = this.#cqesAt + (head & this.#cqMask) * CQE_WORDS
        const slot = words[at] as number
        const result = words[at + 2] as number
        head = (head + 1) | 0
        Atomics.store(words, this.#cqHeadAt, head)
        this.#inKernel--
        this.#sink(slot, result)
      }
    } finally {
      this.#draining = false
    }
    return count
  }

  /** A NOP and a READ of /dev/zero, waited for: a sandbox may allow the setup and refuse the rest. */
  #probe(): void {
    const lease = this.#pool.lease(4096)
    assert(lease, 'the queue is made while the pool is free')
    const zero = openSync('/dev/zero', 'r')
    try {
      for (const opcode of [OP_NOP, OP_READ]) {
        const at = (this.#tail & this.#sqMask) * SQE_WORDS
        this.#sqes.fill(0, at, at + SQE_WORDS)
        this.#sqes[at] = opcode
        if (opcode === OP_READ) {
          this.#sqes[at + 1] = zero
          putTransfer(this.#sqes, at, 0, lease.address, lease.bytes.length)
        }
        this.#tail = (this.#tail + 1) | 0
        Atomics.store(this.#words, this.#sqTailAt, this.#tail)
        const entered = ioUringEnter(this.#fd, 1, 1, ENTER_GETEVENTS)
        if (entered !== 1) throw new SysError('io_uring_enter', -entered)
        this.#taken = this.#tail
        const head = this.#words[this.#cqHeadAt] as number
        const result = this.#words[this.#cqesAt + (head & this.#cqMask) * CQE_WORDS + 2] as number
        Atomics.store(this.#words, this.#cqHeadAt, (head + 1) | 0)
        const expected = opcode === OP_READ ? lease.bytes.length : 0
        if (result !== expected) throw new SysError('io_uring read', -result)
      }
    } finally {
      closeSync(zero)
      lease.release()
    }
  }
}

function putTransfer(
  sqes: Int32Array,
  at: number,
  offset: number,
  address: number,
  length: number,
): void {
  sqes[at + 2] = offset | 0
  sqes[at + 3] = offset / TWO_32
  sqes[at + 4] = address | 0
  sqes[at + 5] = address / TWO_32
  sqes[at + 6] = length
}

type Prepare = (ring: UringEngine, sqes: Int32Array, at: number, operation: IoOperation) => void

function prepareTransfer(plainOpcode: number, fixedOpcode: number): Prepare {
  return (ring, sqes, at, operation) => {
    const address = operation.address + operation.doneBytes
    const length = operation.length - operation.doneBytes
    const index = ring.registeredIndex(address, length)
    sqes[at] = index < 0 ? plainOpcode : fixedOpcode
    putTransfer(sqes, at, operation.offset + operation.doneBytes, address, length)
    sqes[at + 7] = operation.flags
    sqes[at + 10] = Math.max(index, 0)
  }
}

/** How each kind fills its submission entry; by IO_KIND. RANGE_IOCTL never comes here. */
const PREPARE: Readonly<Record<number, Prepare>> & Readonly<Record<IoOperation['kind'], Prepare>> =
  {
    [IO_KIND.READ]: prepareTransfer(OP_READ, OP_READ_FIXED),
    [IO_KIND.WRITE]: prepareTransfer(OP_WRITE, OP_WRITE_FIXED),
    [IO_KIND.FLUSH]: (_ring, sqes, at) => {
      sqes[at] = OP_FSYNC
      putTransfer(sqes, at, 0, 0, 0)
      sqes[at + 7] = FSYNC_DATASYNC
      sqes[at + 10] = 0
    },
    [IO_KIND.ALLOCATE]: (_ring, sqes, at, operation) => {
      // The length travels in the address field, the mode in the length field.
      sqes[at] = OP_FALLOCATE
      putTransfer(sqes, at, operation.offset, operation.length, operation.flags)
      sqes[at + 7] = 0
      sqes[at + 10] = 0
    },
    [IO_KIND.RANGE_IOCTL]: () => {
      assert(false, 'io_uring takes no ioctl')
    },
  }
