/**
 * A block device in memory whose completions tests hold back, let go in any order, or make fail: what the task set and
 * the error paths need. For everything else memory-device.ts has the shape of a real device.
 */
import { type ErrorKind, PlexusError } from '../../src/base/errors.ts'
import type {
  BlockDevice,
  DeviceEvent,
  DeviceFeatures,
  Geometry,
  IoRequest,
} from '../../src/hal/block-device.ts'

interface HeldRequest {
  readonly request: IoRequest
  /** Does the work and completes, as the disk would. */
  finish(): void
}

export interface ScriptedDeviceInit {
  readonly sizeBytes?: number
  readonly logicalBlockBytes?: number
  readonly physicalBlockBytes?: number
  readonly features?: Partial<DeviceFeatures>
}

export class ScriptedDevice implements BlockDevice {
  readonly path = '/dev/scripted'
  readonly identity = { wwid: undefined, serial: undefined, vendor: undefined, model: undefined }
  readonly features: DeviceFeatures
  geometry: Geometry
  bytes: Buffer
  /** Every request as it was submitted, oldest first. */
  readonly requests: IoRequest[] = []
  /** Requests that wait for `release`; filled while `holding`. */
  readonly held: HeldRequest[] = []
  holding = false
  inFlight = 0
  /** The kind with which the next request of that operation fails. */
  readonly failures = new Map<string, ErrorKind>()
  /** Blocks that cannot be read: a read of any of them fails with `io`. */
  readonly badBlocks = new Set<number>()
  readonly #listeners = new Set<(event: DeviceEvent) => void>()

  constructor(init: ScriptedDeviceInit = {}) {
    const sizeBytes = init.sizeBytes ?? 1024 * 1024
    this.bytes = Buffer.alloc(sizeBytes)
    this.geometry = {
      sizeBytes,
      logicalBlockBytes: init.logicalBlockBytes ?? 512,
      physicalBlockBytes: init.physicalBlockBytes ?? 4096,
      alignmentOffsetBytes: 0,
      ioMinBytes: 0,
      ioOptBytes: 0,
      maxTransferBytes: 0,
    }
    this.features = {
      volatileWriteCache: true,
      rotational: false,
      readOnly: false,
      discardGranularityBytes: 4096,
      discardAlignmentBytes: 0,
      discardMaxBytes: 1024 * 1024,
      discardZeroes: true,
      writeZeroes: true,
      ...init.features,
    }
  }

  submit(request: IoRequest): void {
    this.requests.push(request)
    this.inFlight++
    const entry: HeldRequest = { request, finish: () => this.#finish(request) }
    if (this.holding) this.held.push(entry)
    else queueMicrotask(entry.finish)
  }

  /** Lets the oldest held request (or the one at `index`) reach the disk and complete. */
  release(index = 0): void {
    const [entry] = this.held.splice(index, 1)
    if (!entry) throw new Error(`no held request ${index}`)
    entry.finish()
  }

  resize(sizeBytes: number): void {
    const bytes = Buffer.alloc(sizeBytes)
    this.bytes.copy(bytes)
    this.bytes = bytes
    this.geometry = { ...this.geometry, sizeBytes }
    this.emit('resized')
  }

  emit(event: DeviceEvent): void {
    for (const listener of [...this.#listeners]) listener(event)
  }

  onEvent(listener: (event: DeviceEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  get listeners(): number {
    return this.#listeners.size
  }

  async close(): Promise<void> {}

  #finish(request: IoRequest): void {
    this.inFlight--
    const kind = this.failures.get(request.op) ?? (this.#isBad(request) ? 'io' : undefined)
    this.failures.delete(request.op)
    if (kind) {
      const message = `${this.path}: ${request.op} fails as the test asked`
      request.complete(new PlexusError(kind, { op: request.op, subject: this.path, message }))
      return
    }
    this.#transfer(request)
    request.complete(undefined)
  }

  #isBad({ op, offset, length }: IoRequest): boolean {
    const block = this.geometry.logicalBlockBytes
    return (
      op === 'read' &&
      [...this.badBlocks].some((lba) => lba * block < offset + length && (lba + 1) * block > offset)
    )
  }

  #transfer(request: IoRequest): void {
    const { op, offset, length, data, dataOffset } = request
    const block = this.geometry.logicalBlockBytes
    if (offset % block !== 0 || length % block !== 0 || offset + length > this.bytes.length) {
      throw new Error(`${op} ${offset}+${length} is outside of the device or not aligned`)
    }
    const medium = this.bytes.subarray(offset, offset + length)
    if (op === 'read') medium.copy(data?.bytes ?? medium, dataOffset)
    else if (op === 'write') data?.bytes.copy(medium, 0, dataOffset, dataOffset + length)
    else if (op === 'write-zeroes') medium.fill(0)
    else if (op === 'discard') medium.fill(this.features.discardZeroes ? 0 : 0xdd)
  }
}
