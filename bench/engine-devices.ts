/**
 * Devices that only this benchmark has: what they hold is thrown away, except metadata, so that what is measured is
 * the engine above them.
 *
 *   null    a request ends in the next turn of the event loop: what is left is the CPU time of the layers
 *   paced   a disk by its data sheet: one request after the other, so long for each and so long for each byte. Disks
 *           that each have a rate of their own, which loop devices over one memory and two processors have not
 *
 * Until all is made, requests with the cause `metadata` (labels, anchors, maps) are kept, for whoever reads them, and take no time
 * of their own; then they are as any other, since the log of raid5 is among them. Called by engine.ts.
 */
import { performance } from 'node:perf_hooks'
import { defined } from '../src/base/assert.ts'
import { PAGE_BYTES } from '../src/base/limits.ts'
import type {
  BlockDevice,
  DeviceFeatures,
  DeviceIdentity,
  Geometry,
  IoRequest,
} from '../src/hal/block-device.ts'

export interface DiskModel {
  readonly bytesPerSecond: number
  /** For each request, whatever its size. */
  readonly requestUs: number
}

/** A solid-state disk behind SATA: 30,000 requests of 4 KiB or 400 MB each second. */
export const PACED_DISK: DiskModel = { bytesPerSecond: 400e6, requestUs: 20 }
export const NULL_DISK: DiskModel = { bytesPerSecond: Number.POSITIVE_INFINITY, requestUs: 0 }

const BLOCK_BYTES = 512
/** Completed requests that are cleared away at once. */
const SWEEP = 1024

/** The turns of the event loop in which all devices complete what is due, as a ring's completions come together. */
export class Turns {
  readonly #devices: ModelDevice[] = []
  #armed = false

  add(device: ModelDevice): void {
    this.#devices.push(device)
  }

  arm(): void {
    if (this.#armed) return
    this.#armed = true
    setImmediate(this.#turn)
  }

  readonly #turn = (): void => {
    this.#armed = false
    const nowMs = performance.now()
    let waiting = false
    for (const device of this.#devices) if (device.completeDue(nowMs)) waiting = true
    if (waiting) this.arm()
  }
}

export class ModelDevice implements BlockDevice {
  readonly path: string
  readonly geometry: Geometry
  readonly identity: DeviceIdentity = {
    wwid: undefined,
    serial: undefined,
    vendor: undefined,
    model: undefined,
  }
  readonly features: DeviceFeatures = {
    volatileWriteCache: true,
    rotational: false,
    readOnly: false,
    discardGranularityBytes: 0,
    discardAlignmentBytes: 0,
    discardMaxBytes: 0,
    discardZeroes: false,
    writeZeroes: false,
  }
  readonly #turns: Turns
  readonly #msPerByte: number
  readonly #msPerRequest: number
  /** In order of submission, with the times at which they are due; everything below `#head` has ended. */
  readonly #requests: (IoRequest | undefined)[] = []
  readonly #dueMs: number[] = []
  #head = 0
  #busyUntilMs = 0
  #isReady = false
  readonly #kept = new Map<number, Buffer>()

  constructor(path: string, sizeBytes: number, model: DiskModel, turns: Turns) {
    this.path = path
    this.geometry = {
      sizeBytes,
      logicalBlockBytes: BLOCK_BYTES,
      physicalBlockBytes: PAGE_BYTES,
      alignmentOffsetBytes: 0,
      ioMinBytes: 0,
      ioOptBytes: 0,
      maxTransferBytes: 0,
    }
    this.#turns = turns
    this.#msPerByte = 1000 / model.bytesPerSecond
    this.#msPerRequest = model.requestUs / 1000
    turns.add(this)
  }

  get inFlight(): number {
    return this.#requests.length - this.#head
  }

  submit(request: IoRequest): void {
    this.#requests.push(request)
    this.#dueMs.push(this.#isKept(request) ? 0 : this.#due(request.length))
    this.#turns.arm()
  }

  /** Nobody reads metadata again from now on. */
  madeReady(): void {
    this.#isReady = true
  }

  #isKept({ cause, op }: IoRequest): boolean {
    return cause === 'metadata' && (op === 'read' || !this.#isReady)
  }

  #due(length: number): number {
    const serviceMs = this.#msPerRequest + length * this.#msPerByte
    if (serviceMs === 0) return 0
    this.#busyUntilMs = Math.max(this.#busyUntilMs, performance.now()) + serviceMs
    return this.#busyUntilMs
  }

  /** Ends what was there at the beginning of the turn and is due. True: something is left. */
  completeDue(nowMs: number): boolean {
    const { length } = this.#requests
    while (this.#head < length && defined(this.#dueMs[this.#head], 'a time') <= nowMs) {
      const request = defined(this.#requests[this.#head], 'a request')
      this.#requests[this.#head++] = undefined
      if (this.#isKept(request)) this.#keep(request)
      request.complete(undefined)
    }
    if (this.#head >= SWEEP) {
      this.#requests.splice(0, this.#head)
      this.#dueMs.splice(0, this.#head)
      this.#head = 0
    }
    return this.#head < this.#requests.length
  }

  #keep({ op, offset, length, data, dataOffset }: IoRequest): void {
    if (!data) {
      // Zeroes are what is read where nothing is kept. A flush has no length.
      const end = offset + length
      for (const block of this.#kept.keys()) {
        if (block * BLOCK_BYTES >= offset && block * BLOCK_BYTES < end) this.#kept.delete(block)
      }
      return
    }
    for (let at = 0; at < length; at += BLOCK_BYTES) {
      const part = data.bytes.subarray(dataOffset + at, dataOffset + at + BLOCK_BYTES)
      const block = (offset + at) / BLOCK_BYTES
      if (op === 'write') this.#kept.set(block, Buffer.from(part))
      else {
        const kept = this.#kept.get(block)
        if (kept) kept.copy(part)
        else part.fill(0)
      }
    }
  }

  onEvent(): () => void {
    return () => {}
  }

  async close(): Promise<void> {}
}
