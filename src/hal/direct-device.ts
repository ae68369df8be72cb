/**
 * A block device or a regular file of this machine as a {@link BlockDevice}: O_DIRECT transfers through
 * the submission queue, FUA as RWF_DSYNC, flush as fdatasync, discard and write-zeroes as fallocate or
 * ioctl. The one central check of state, range and alignment is here; nobody above checks again.
 * Made by open-device.ts only.
 */
import { existsSync, fstat, fstatSync } from 'node:fs'
import { assert } from '../base/assert.ts'
import type { Clock, Timer } from '../base/clock.ts'
import { type ErrorKind, PlexusError } from '../base/errors.ts'
import {
  DEVICE_POLL_MS,
  DEVICE_QUEUE_DEPTH,
  DEVICE_RANGE_DEPTH,
  ZERO_WRITE_BYTES,
} from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { allocateAligned } from './aligned-pool.ts'
import type {
  AlignedBuffer,
  BlockDevice,
  DeviceEvent,
  DeviceFeatures,
  DeviceIdentity,
  Extent,
  Geometry,
  IoOp,
  IoRequest,
} from './block-device.ts'
import { ERRNO } from './errno.ts'
import { IO_KIND, type IoOperation } from './io-engine.ts'
import { IO_ENDED, ioError } from './io-errors.ts'
import type { IoChannel, IoQueue } from './io-queue.ts'
import { BLKGETSIZE64, fileExtent, ioctlU64, RWF_DSYNC } from './libc.ts'
import { discardMethods, NOT_THIS_WAY, type RangeMethod, zeroMethods } from './range-methods.ts'

export interface DirectDeviceInit {
  readonly path: string
  /** An open descriptor; the device owns and closes it. */
  readonly fd: number
  readonly kind: 'block' | 'file'
  /** A file on a network or of another process: the kernel may wait for somebody in any call. */
  readonly mayStall: boolean
  readonly readOnly: boolean
  readonly geometry: Geometry
  readonly identity: DeviceIdentity
  readonly features: DeviceFeatures
  /** Directory that exists as long as the device does. */
  readonly sysfsDir: string | undefined
  readonly queue: IoQueue
  readonly clock: Clock
  readonly log: Logger
  readonly closeFd: (fd: number) => Promise<void>
}

const IS_GONE: ReadonlySet<number> = new Set([-ERRNO.ENODEV, -ERRNO.ENXIO, -ERRNO.ENOMEDIUM])
/**
 * What requests behind the end of a block device get: writes ENOSPC, reads nothing. Linux gives a disk that was pulled
 * out the size 0 (blk_mark_disk_dead, NVMe above all), so this may be how one hears of it.
 */
const IS_BEHIND_END: ReadonlySet<number> = new Set([-ERRNO.ENOSPC, IO_ENDED])

/** A discard or write-zeroes under way: one kernel call after the other. */
interface RangeJob {
  readonly request: IoRequest
  /** The device's methods for it, shared by all its jobs; the first one is in use. */
  readonly methods: RangeMethod[]
  method: RangeMethod
  offset: number
  readonly end: number
  stepBytes: number
}

export class DirectDevice implements BlockDevice {
  readonly path: string
  readonly identity: DeviceIdentity
  readonly features: DeviceFeatures
  readonly #init: DirectDeviceInit
  readonly #transfers: IoChannel
  readonly #ranges: IoChannel
  readonly #discardMethods: RangeMethod[]
  readonly #zeroMethods: RangeMethod[]
  readonly #jobs = new Map<IoRequest, RangeJob>()
  readonly #listeners = new Set<(event: DeviceEvent) => void>()
  readonly #poll: Timer
  #zeroes: AlignedBuffer | undefined = undefined
  #geometry: Geometry
  #inFlight = 0
  #gone = false
  #deleted = false
  #looking = false
  #closed: Promise<void> | undefined = undefined
  #onIdle: (() => void) | undefined = undefined
  /** The last question after holes. */
  #extents: Promise<unknown> = Promise.resolve()

  constructor(init: DirectDeviceInit) {
    this.#init = init
    this.path = init.path
    this.identity = init.identity
    this.features = init.features
    this.#geometry = init.geometry
    this.#transfers = init.queue.openChannel(
      init.fd,
      (op, result) => this.#onDone(op, result),
      DEVICE_QUEUE_DEPTH,
      init.mayStall,
    )
    this.#ranges = init.queue.openChannel(
      init.fd,
      (op, result) => this.#onRangeDone(op, result),
      DEVICE_RANGE_DEPTH,
      init.mayStall,
    )
    this.#discardMethods = discardMethods(init)
    this.#zeroMethods = zeroMethods(init)
    this.#poll = init.clock.every(DEVICE_POLL_MS, () => this.#look())
  }

  get geometry(): Geometry {
    return this.#geometry
  }

  get inFlight(): number {
    return this.#inFlight
  }

  get deleted(): boolean {
    return this.#deleted
  }

  submit(request: IoRequest): void {
    this.#inFlight++
    const error = this.#check(request)
    if (error || (request.length === 0 && request.op !== 'flush')) {
      process.nextTick(finishLater, this, request, error)
      return
    }
    START[request.op](this, request)
  }

  /** Holes of a regular file, one question after the other; a block device of the kernel does not say. */
  extentAt(offset: number, length: number): Promise<Extent> {
    const extent = this.#extents.then(() => this.#extentAt(offset, length))
    this.#extents = extent.catch(() => {})
    return extent
  }

  async #extentAt(offset: number, length: number): Promise<Extent> {
    if (this.#closed || this.#gone) throw this.#goneError('read')
    if (this.#init.kind !== 'file') return { allocated: true, length }
    // Counted, so that `close` waits for it: the descriptor must not be another file's meanwhile.
    this.#inFlight++
    try {
      const { hole, end } = await fileExtent(this.#init.fd, offset)
      return { allocated: !hole, length: Math.min(length, (end ?? Infinity) - offset) }
    } finally {
      this.#inFlight--
      if (this.#inFlight === 0) this.#onIdle?.()
    }
  }

  onEvent(listener: (event: DeviceEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  abandon(): void {
    this.#setGone('the device does not answer, and counts as gone')
    this.#transfers.cancel()
    this.#ranges.cancel()
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    this.#poll.cancel()
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve
      })
    }
    this.#transfers.close()
    this.#ranges.close()
    await this.#init.closeFd(this.#init.fd)
  }

  /** A read or a write. Only {@link START} calls this and its siblings. */
  startTransfer(request: IoRequest, kind: typeof IO_KIND.READ | typeof IO_KIND.WRITE): void {
    const operation = this.#transfers.take()
    operation.kind = kind
    operation.address = (request.data as AlignedBuffer).address + request.dataOffset
    operation.offset = request.offset
    operation.length = request.length
    operation.flags = kind === IO_KIND.WRITE && request.fua ? RWF_DSYNC : 0
    operation.request = request
    this.#transfers.submit(operation)
  }

  startFlush(request: IoRequest): void {
    const operation = this.#transfers.take()
    operation.kind = IO_KIND.FLUSH
    operation.address = 0
    operation.offset = 0
    operation.length = 0
    operation.flags = 0
    operation.request = request
    this.#transfers.submit(operation)
  }

  startRange(request: IoRequest): void {
    const methods = request.op === 'discard' ? this.#discardMethods : this.#zeroMethods
    const method = methods[0]
    if (!method) {
      process.nextTick(finishLater, this, request, this.#unsupported(request))
      return
    }
    const job: RangeJob = {
      request,
      methods,
      method,
      offset: request.offset,
      end: request.offset + request.length,
      stepBytes: 0,
    }
    this.#jobs.set(request, job)
    this.#step(job, method)
  }

  #step(job: RangeJob, method: RangeMethod): void {
    const operation = this.#ranges.take()
    job.method = method
    job.stepBytes = Math.min(job.end - job.offset, method.stepBytes)
    operation.kind = method.kind
    operation.address = method.kind === IO_KIND.WRITE ? this.#zeroBuffer().address : 0
    operation.offset = job.offset
    operation.length = job.stepBytes
    operation.flags = method.flags
    operation.request = job.request
    this.#ranges.submit(operation)
  }

  #zeroBuffer(): AlignedBuffer {
    this.#zeroes ??= allocateAligned(ZERO_WRITE_BYTES)
    return this.#zeroes
  }

  #onDone(operation: IoOperation, result: number): void {
    const request = operation.request as IoRequest
    this.finish(request, result === 0 ? undefined : this.#failed(request, result))
  }

  #onRangeDone(operation: IoOperation, result: number): void {
    const job = this.#jobs.get(operation.request as IoRequest)
    assert(job, 'a range operation belongs to a job')
    if (NOT_THIS_WAY.has(result) && job.method.kind !== IO_KIND.WRITE) {
      // Another job may have found out before.
      if (job.methods[0] === job.method) job.methods.shift()
      const next = job.methods[0]
      if (next) this.#step(job, next)
      else this.#finishJob(job, this.#unsupported(job.request))
      return
    }
    if (result !== 0 || this.#gone) {
      this.#finishJob(job, this.#failed(job.request, result))
      return
    }
    job.offset += job.stepBytes
    if (job.offset < job.end) this.#step(job, job.methods[0] ?? job.method)
    else this.#finishJob(job, undefined)
  }

  #finishJob(job: RangeJob, error: PlexusError | undefined): void {
    this.#jobs.delete(job.request)
    this.finish(job.request, error)
  }

  /** Ends a request; the last thing that this device does with it. */
  finish(request: IoRequest, error: PlexusError | undefined): void {
    this.#inFlight--
    request.complete(error)
    if (this.#inFlight === 0) this.#onIdle?.()
  }

  #failed(request: IoRequest, result: number): PlexusError {
    const { kind, sysfsDir } = this.#init
    if (IS_GONE.has(result)) this.#setGone()
    else if (result === -ERRNO.EIO && sysfsDir && !existsSync(sysfsDir)) this.#setGone()
    else if (kind === 'block' && IS_BEHIND_END.has(result)) this.#look()
    return this.#gone
      ? this.#goneError(request.op)
      : ioError(result, request.op, this.path, request.offset, request.length)
  }

  #unsupported(request: IoRequest): PlexusError {
    return ioError(-ERRNO.EOPNOTSUPP, request.op, this.path, request.offset, request.length)
  }

  #goneError(op: IoOp): PlexusError {
    return new PlexusError('gone', {
      op,
      subject: this.path,
      message: `${this.path}: ${op} failed: the device is gone; check its cabling and the kernel log`,
    })
  }

  #refuse(kind: ErrorKind, request: IoRequest, why: string): PlexusError {
    const { op, offset, length } = request
    return new PlexusError(kind, {
      op,
      subject: this.path,
      message: `${this.path}: ${op} of ${length} bytes at offset ${offset} refused: ${why}`,
    })
  }

  /** The central check of a request; undefined when it may go on. */
  #check(request: IoRequest): PlexusError | undefined {
    const { op, offset, length, data } = request
    if (this.#closed) return this.#refuse('gone', request, 'the device is closed')
    if (this.#gone) return this.#goneError(op)
    if (op === 'flush') return undefined
    const { sizeBytes, logicalBlockBytes: block } = this.#geometry
    if (op !== 'read' && this.#init.readOnly) {
      return this.#refuse('permission', request, 'it was opened read-only')
    }
    if (!(offset >= 0 && length >= 0 && offset + length <= sizeBytes)) {
      return this.#refuse('invalid', request, `outside the device of ${sizeBytes} bytes`)
    }
    if (offset % block !== 0 || length % block !== 0) {
      return this.#refuse('invalid', request, `not whole blocks of ${block} bytes`)
    }
    if (op !== 'read' && op !== 'write') return undefined
    if (!data || !(request.dataOffset >= 0) || request.dataOffset + length > data.bytes.length) {
      return this.#refuse('invalid', request, 'the buffer is too short for it')
    }
    if ((data.address + request.dataOffset) % block !== 0) {
      return this.#refuse('invalid', request, `the buffer is not aligned to ${block} bytes`)
    }
    return undefined
  }

  /** Looks whether the device is still there and how large it is; cheap, every few seconds. */
  #look(): void {
    const { fd, kind, sysfsDir, mayStall } = this.#init
    if (this.#gone || this.#closed || this.#looking) return
    if (mayStall) {
      // Each question that waits holds a thread of the process; while requests are under way they tell.
      if (this.#inFlight === 0) this.#lookLater()
      return
    }
    try {
      if (kind === 'file') this.#seen(fstatSync(fd))
      else {
        const isThere = sysfsDir === undefined || existsSync(sysfsDir)
        this.#seen({ size: isThere ? ioctlU64(fd, BLKGETSIZE64) : 0, nlink: 1 })
      }
    } catch (error) {
      this.#cannotAsk(error)
    }
  }

  /** Where the question may wait for an answer. Counted, so that the descriptor is not another file's meanwhile. */
  #lookLater(): void {
    this.#looking = true
    this.#inFlight++
    fstat(this.#init.fd, (error, stats) => {
      this.#looking = false
      if (error) this.#cannotAsk(error)
      else if (!this.#gone && !this.#closed) this.#seen(stats)
      this.#inFlight--
      if (this.#inFlight === 0) this.#onIdle?.()
    })
  }

  #cannotAsk(error: unknown): void {
    this.#init.log.warn({ device: this.path, err: error }, `${this.path}: cannot ask its size`)
    this.#setGone()
  }

  #seen({ size, nlink }: { readonly size: number; readonly nlink: number }): void {
    this.#deleted = nlink === 0
    const sizeBytes = this.#deleted ? 0 : size - (size % this.#geometry.logicalBlockBytes)
    if (sizeBytes === 0) {
      this.#setGone()
    } else if (sizeBytes !== this.#geometry.sizeBytes) {
      const { sizeBytes: before } = this.#geometry
      this.#geometry = { ...this.#geometry, sizeBytes }
      this.#init.log.info(
        { device: this.path, before, sizeBytes },
        `${this.path}: changed its size`,
      )
      this.#emit('resized')
    }
  }

  #setGone(why = 'the device is gone'): void {
    if (this.#gone) return
    this.#gone = true
    this.#poll.cancel()
    this.#init.log.error({ device: this.path, event: 'gone' }, `${this.path}: ${why}`)
    this.#emit('gone')
  }

  #emit(event: DeviceEvent): void {
    for (const listener of this.#listeners) listener(event)
  }
}

function finishLater(
  device: DirectDevice,
  request: IoRequest,
  error: PlexusError | undefined,
): void {
  device.finish(request, error)
}

const START: Readonly<Record<IoOp, (device: DirectDevice, request: IoRequest) => void>> = {
  read: (device, request) => device.startTransfer(request, IO_KIND.READ),
  write: (device, request) => device.startTransfer(request, IO_KIND.WRITE),
  flush: (device, request) => device.startFlush(request),
  discard: (device, request) => device.startRange(request),
  'write-zeroes': (device, request) => device.startRange(request),
}
