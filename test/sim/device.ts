/**
 * A simulated disk as one power-up of the machine sees it. Requests complete after a time of their own, so they
 * overtake each other; effect and completion are apart at times. Made by disk.ts.
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
import type { SimDisk } from './disk.ts'
import type { CachedWrite } from './media.ts'

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

export class SimDevice implements BlockDevice {
  readonly path: string
  geometry: Geometry
  readonly identity: DeviceIdentity
  readonly features: DeviceFeatures
  readonly #disk: SimDisk
  readonly #pending = new Set<Pending>()
  readonly #listeners = new Set<(event: DeviceEvent) => void>()
  #state: 'open' | 'closed' | 'gone' | 'abandoned' = 'open'
  #stalled: (() => void)[] | undefined
  #onIdle: (() => void)[] = []

  constructor(disk: SimDisk) {
    const { blockBytes, discard, volatileCache } = disk.options
    const { sizeBytes } = disk
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
    disk.onRequest()
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

  /** The engine waits no longer: it is gone for it, and what it has comes to its end when the disk answers again. */
  abandon(): void {
    if (this.#state !== 'open') return
    this.#state = 'gone'
    this.#disk.letGo(this)
  }

  /** Nothing completes any more, nobody hears of it. Returns what was under way without effect. */
  end(): readonly IoRequest[] {
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
    this.#tell('gone')
  }

  resize(sizeBytes: number): void {
    this.geometry = { ...this.geometry, sizeBytes }
    this.#tell('resized')
  }

  #tell(event: DeviceEvent): void {
    for (const listener of [...this.#listeners]) listener(event)
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
