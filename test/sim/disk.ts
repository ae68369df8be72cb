/**
 * A simulated disk: bits that outlive power cuts (SimDisk), and the device that one power-up of the machine
 * sees of them (SimDevice, a BlockDevice). Requests complete after a time of their own, so they overtake each
 * other; effect and completion are apart at times; faults are asked for by faults.ts. Made by world.ts.
 */
import { type ErrorKind, PlexusError } from '../../src/base/errors.ts'
import type {
  BlockDevice,
  DeviceEvent,
  DeviceFeatures,
  DeviceIdentity,
  Geometry,
  IoRequest,
} from '../../src/hal/block-device.ts'
import type { Scheduler } from './clock.ts'
import { type CachedWrite, SimMedia } from './media.ts'
import type { SimRandom } from './random.ts'
import type { Trace } from './trace.ts'

export interface SimDiskOptions {
  readonly name: string
  readonly sizeBytes: number
  readonly blockBytes: number
  readonly volatileCache: boolean
  /** Discarded blocks read as zeroes; otherwise a discard does nothing or anything. */
  readonly discard: 'zeroes' | 'undefined' | 'none'
  readonly meanMs: number
  readonly bytesPerMs: number
}

/** Trouble that waits to happen; numbers count down. */
export interface Faults {
  failReads: number
  failWrites: number
  failFlushes: number
  /** All writes and flushes fail, for good. */
  writesFail: boolean
  /**
   * Where a write goes instead of where it should, once; undefined: not this one. The disk says that all went well.
   */
  misdirect: ((offset: number, length: number) => number | 'nowhere' | undefined) | undefined
}

const NO_FAULTS: Faults = {
  failReads: 0,
  failWrites: 0,
  failFlushes: 0,
  writesFail: false,
  misdirect: undefined,
}

/** Request that the device has and has not completed. */
interface Pending {
  readonly request: IoRequest
  /** Acknowledgements before it came: what a flush covers. */
  readonly acknowledged: number
  /** The write in the cache, once it has had its effect. */
  cached: CachedWrite | undefined
  effected: boolean
  error: PlexusError | undefined
}

export class SimDisk {
  readonly name: string
  readonly options: SimDiskOptions
  readonly media: SimMedia
  readonly scheduler: Scheduler
  readonly random: SimRandom
  readonly trace: Trace
  readonly badSectors = new Set<number>()
  readonly faults: Faults = { ...NO_FAULTS }
  /** Plugged in; a boot finds only these. */
  present = true
  /** Acknowledgements so far. */
  acknowledged = 0
  operations = 0
  device: SimDevice | undefined
  /** Pulled out of the machine that runs, with requests that have still to fail. */
  #former: SimDevice[] = []
  /** Acknowledged writes are gone without a power cut. */
  onCacheLost: () => void = () => {}

  constructor(options: SimDiskOptions, scheduler: Scheduler, random: SimRandom, trace: Trace) {
    this.name = options.name
    this.options = options
    this.scheduler = scheduler
    this.random = random
    this.trace = trace
    this.media = new SimMedia(options.sizeBytes, options.blockBytes, random)
  }

  /** Powered up, or plugged in. */
  connect(): SimDevice {
    this.present = true
    this.device = new SimDevice(this)
    return this.device
  }

  /** Nobody has taken its device. */
  release(): void {
    this.#abandon()
  }

  /** The machine has lost its power: nothing completes any more. */
  powerCut(): void {
    const pending = this.#abandon()
    this.media.cut(this.random)
    for (const request of pending) this.tear(request)
  }

  /** The process has ended, the disk has not: requests under way reach it or do not. */
  detach(): void {
    for (const request of this.#abandon()) this.tear(request)
  }

  /** Nothing of this machine hears of the disk any more. Returns what was under way without effect. */
  #abandon(): readonly IoRequest[] {
    for (const device of this.#former) device.abandon()
    this.#former = []
    const pending = this.device?.abandon() ?? []
    this.device = undefined
    return pending
  }

  /** Pulled out. With `power` lost, the cache is lost, too. */
  lose(power: boolean): void {
    this.present = false
    const device = this.device
    this.device = undefined
    if (device) this.#former.push(device)
    const unfinished = device?.fail() ?? []
    if (power) this.dropCache()
    // Before anybody hears of it: then the buffers are not ours any more.
    for (const request of unfinished) if (this.random.chance(0.5)) this.tear(request)
    device?.tellGone()
  }

  /** Some sectors of a write that did not come to its end are on the medium. */
  tear({ op, offset, length, data, dataOffset }: IoRequest): void {
    if (op === 'write' && data) {
      this.media.tear(offset, data.bytes.subarray(dataOffset, dataOffset + length), this.random)
    } else if (op === 'write-zeroes') this.media.tear(offset, Buffer.alloc(length), this.random)
  }

  dropCache(): void {
    if (this.media.volatileSectors === 0) return
    this.media.cut(this.random)
    this.onCacheLost()
  }

  /** Unreadable until they are written. */
  spoil(offset: number, length: number): void {
    const size = this.options.blockBytes
    for (let at = offset; at < offset + length; at += size) this.badSectors.add(at / size)
  }

  heal(): void {
    this.badSectors.clear()
    Object.assign(this.faults, NO_FAULTS)
    this.media.undoHarm()
    this.device?.stall(false)
  }
}

export class SimDevice implements BlockDevice {
  readonly path: string
  readonly geometry: Geometry
  readonly identity: DeviceIdentity
  readonly features: DeviceFeatures
  readonly #disk: SimDisk
  readonly #pending = new Set<Pending>()
  readonly #listeners = new Set<(event: DeviceEvent) => void>()
  #state: 'open' | 'closed' | 'gone' | 'abandoned' = 'open'
  #stalled: (() => void)[] | undefined
  #onIdle: (() => void)[] = []

  constructor(disk: SimDisk) {
    const { sizeBytes, blockBytes, discard, volatileCache } = disk.options
    this.#disk = disk
    this.path = `/dev/sim/${disk.name}`
    this.geometry = {
      sizeBytes,
      logicalBlockBytes: blockBytes,
      physicalBlockBytes: Math.max(blockBytes, 4096),
      alignmentOffsetBytes: 0,
      ioMinBytes: 0,
      ioOptBytes: 0,
      maxTransferBytes: 0,
    }
    this.identity = { wwid: undefined, serial: disk.name, vendor: 'sim', model: undefined }
    this.features = {
      volatileWriteCache: volatileCache,
      rotational: false,
      readOnly: false,
      discardGranularityBytes: discard === 'none' ? 0 : blockBytes,
      discardAlignmentBytes: 0,
      discardMaxBytes: discard === 'none' ? 0 : sizeBytes,
      discardZeroes: discard === 'zeroes',
      writeZeroes: true,
    }
  }

  get inFlight(): number {
    return this.#pending.size
  }

  submit(request: IoRequest): void {
    const disk = this.#disk
    if (this.#state === 'abandoned') return
    disk.operations++
    disk.trace.add(
      disk.scheduler.nowMs,
      disk.name,
      request.fua ? 'write fua' : request.op,
      request.offset,
      request.length,
      request.cause,
    )
    const pending: Pending = {
      request,
      acknowledged: disk.acknowledged,
      cached: undefined,
      effected: false,
      error: this.#refusal(request),
    }
    this.#pending.add(pending)
    if (pending.error) pending.effected = true
    const { random, options } = disk
    let delayMs = random.exponential(options.meanMs) + request.length / options.bytesPerMs
    if (random.chance(0.01)) delayMs += random.exponential(options.meanMs * 50)
    if (request.op === 'flush') delayMs += random.exponential(options.meanMs * 3)
    // Mostly the effect comes with the completion, at times long before. A flush that fails tells of it at once.
    if (request.op !== 'flush' && random.chance(0.3)) {
      this.#later(delayMs * (random.u32() / 2 ** 32), () => this.#effect(pending))
    }
    this.#later(delayMs, () => this.#complete(pending))
  }

  onEvent(listener: (event: DeviceEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async close(): Promise<void> {
    if (this.#state === 'open') this.#state = 'closed'
    if (this.#pending.size > 0) await new Promise<void>((resolve) => this.#onIdle.push(resolve))
  }

  /** Requests wait (true) or go on. */
  stall(on: boolean): void {
    if (on) this.#stalled ??= []
    else {
      const waiting = this.#stalled ?? []
      this.#stalled = undefined
      for (const go of waiting) go()
    }
  }

  /** Nothing completes any more, nobody hears of it. Returns what was under way without effect. */
  abandon(): readonly IoRequest[] {
    this.#state = 'abandoned'
    this.#listeners.clear()
    const unfinished = this.#unfinished()
    this.#pending.clear()
    return unfinished
  }

  /** Requests under way are going to fail. Returns those without effect. */
  fail(): readonly IoRequest[] {
    this.#state = 'gone'
    const unfinished = this.#unfinished()
    for (const pending of this.#pending) {
      pending.cached = undefined
      pending.error = this.#error('gone', pending.request, 'the device is gone')
      pending.effected = true
    }
    return unfinished
  }

  tellGone(): void {
    this.stall(false)
    for (const listener of [...this.#listeners]) listener('gone')
  }

  /** Requests without effect. What has had its effect lies in the cache, and the next flush covers it. */
  #unfinished(): readonly IoRequest[] {
    for (const { cached } of this.#pending) {
      if (cached) cached.acknowledged = ++this.#disk.acknowledged
    }
    return [...this.#pending].flatMap(({ effected, request }) => (effected ? [] : [request]))
  }

  #later(delayMs: number, run: () => void): void {
    const go = (): void => {
      if (this.#state === 'abandoned') return
      if (this.#stalled) this.#stalled.push(go)
      else run()
    }
    this.#disk.scheduler.after(delayMs, go)
  }

  #effect(pending: Pending): void {
    if (pending.effected) return
    pending.effected = true
    pending.error = this.#takeFault(pending.request)
    if (pending.error) return
    const disk = this.#disk
    const { op, offset, length, data, dataOffset, fua } = pending.request
    const durable = fua || !this.features.volatileWriteCache
    if (op === 'read') {
      if (data) disk.media.content.copy(data.bytes, dataOffset, offset, offset + length)
      return
    }
    if (op === 'flush') {
      disk.media.flush(pending.acknowledged)
      return
    }
    const content = this.#written(pending.request)
    if (!content) return
    const place = op === 'write' ? this.#placeOf(offset, length) : offset
    if (place !== offset) {
      pending.cached =
        place === 'nowhere'
          ? disk.media.losesWrite(offset, content)
          : disk.media.misplacesWrite(offset, place, content, durable)
      return
    }
    pending.cached = disk.media.write(offset, content, durable)
    const size = disk.options.blockBytes
    for (let at = offset; at < offset + length; at += size) disk.badSectors.delete(at / size)
  }

  /** Where a write goes. */
  #placeOf(offset: number, length: number): number | 'nowhere' {
    const { faults } = this.#disk
    const place = faults.misdirect?.(offset, length) ?? offset
    if (place !== offset) faults.misdirect = undefined
    return place
  }

  #written({ op, length, data, dataOffset }: IoRequest): Buffer | undefined {
    if (op === 'write') return data?.bytes.subarray(dataOffset, dataOffset + length)
    if (op === 'write-zeroes' || this.features.discardZeroes) return Buffer.alloc(length)
    // A discard that promises nothing: old content or noise.
    return this.#disk.random.chance(0.5) ? undefined : this.#disk.random.bytes(length)
  }

  #complete(pending: Pending): void {
    this.#effect(pending)
    this.#pending.delete(pending)
    if (pending.cached) pending.cached.acknowledged = ++this.#disk.acknowledged
    const { request, error } = pending
    if (error) {
      const { scheduler, trace, name } = this.#disk
      trace.add(scheduler.nowMs, name, `${request.op} failed`, request.offset, request.length)
    }
    request.complete(error)
    if (this.#pending.size === 0) for (const resolve of this.#onIdle.splice(0)) resolve()
  }

  #takeFault(request: IoRequest): PlexusError | undefined {
    const disk = this.#disk
    const { faults, random } = disk
    const { op } = request
    if (op === 'read') {
      if (this.#hitsBadSector(request)) return this.#error('io', request, 'unreadable sector')
      if (faults.failReads === 0) return undefined
      faults.failReads--
      return this.#error('io', request, 'transient read error')
    }
    if (op === 'flush') {
      if (!faults.writesFail && faults.failFlushes === 0) return undefined
      if (faults.failFlushes > 0) faults.failFlushes--
      // A cache that could not be written is often dropped.
      if (random.chance(0.5)) disk.dropCache()
      return this.#error('io', request, 'flush failed')
    }
    if (!faults.writesFail && faults.failWrites === 0) return undefined
    if (faults.failWrites > 0) faults.failWrites--
    if (random.chance(0.5)) disk.tear(request)
    return this.#error('io', request, 'write error')
  }

  #hitsBadSector({ offset, length }: IoRequest): boolean {
    const disk = this.#disk
    if (disk.badSectors.size === 0) return false
    const size = disk.options.blockBytes
    for (let at = offset; at < offset + length; at += size) {
      if (disk.badSectors.has(at / size)) return true
    }
    return false
  }

  #refusal(request: IoRequest): PlexusError | undefined {
    const { op, offset, length, data, dataOffset } = request
    if (this.#state !== 'open') return this.#error('gone', request, `the device is ${this.#state}`)
    if (op === 'flush') return undefined
    const { sizeBytes, logicalBlockBytes } = this.geometry
    if (!(offset >= 0 && length >= 0 && offset + length <= sizeBytes)) {
      return this.#error('invalid', request, 'outside the device')
    }
    if (offset % logicalBlockBytes !== 0 || length % logicalBlockBytes !== 0) {
      return this.#error('invalid', request, 'not whole blocks')
    }
    if (op === 'discard' && this.features.discardGranularityBytes === 0) {
      return this.#error('unsupported', request, 'no discard')
    }
    if (op !== 'read' && op !== 'write') return undefined
    if (!data || dataOffset + length > data.bytes.length) {
      return this.#error('invalid', request, 'the buffer is too short')
    }
    return undefined
  }

  #error(kind: ErrorKind, { op, offset, length }: IoRequest, why: string): PlexusError {
    return new PlexusError(kind, {
      op,
      subject: this.path,
      message: `${this.path}: ${op} of ${length} bytes at offset ${offset} failed: ${why}`,
    })
  }
}
