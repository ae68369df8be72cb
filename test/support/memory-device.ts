/**
 * A {@link BlockDevice} in memory for tests of everything above the HAL: with faults on order, delays,
 * a hold on completions, and a volatile write cache that a power cut empties. Behaves as
 * direct-device.ts does: the same checks, completions never from within `submit`.
 */
import { assert } from '../../src/base/assert.ts'
import type { ByteRange } from '../../src/base/bytes.ts'
import type { Clock } from '../../src/base/clock.ts'
import { type ErrorKind, PlexusError } from '../../src/base/errors.ts'
import type {
  BlockDevice,
  DeviceEvent,
  DeviceFeatures,
  DeviceIdentity,
  Geometry,
  IoOp,
  IoRequest,
} from '../../src/hal/block-device.ts'

export interface MemoryDeviceOptions {
  readonly sizeBytes: number
  /** 512 (default) or 4096. */
  readonly blockBytes?: number
  readonly path?: string
  readonly identity?: Partial<DeviceIdentity>
  readonly features?: Partial<DeviceFeatures>
  /** Needed for `delayMs` only. */
  readonly clock?: Clock
}

interface Fault {
  readonly op: IoOp
  readonly kind: ErrorKind
  /** Only of operations that touch it. */
  readonly within: ByteRange | undefined
  times: number
}

/** What a cut of power restores: the durable bytes under an acknowledged write. */
interface Undo {
  /** Number of the write, in order of completion. */
  readonly sequence: number
  readonly offset: number
  readonly before: Buffer
}

export class MemoryDevice implements BlockDevice {
  readonly path: string
  readonly identity: DeviceIdentity
  readonly features: DeviceFeatures
  /** The medium as reads see it; tests may look and change. */
  media: Buffer
  /** Completed and failed operations since the start, by kind. */
  readonly counts: Record<IoOp, number> = {
    read: 0,
    write: 0,
    flush: 0,
    discard: 0,
    'write-zeroes': 0,
  }
  /** Completions come this much later by the clock; 0 = in the next turn of the event loop. */
  delayMs = 0
  /** What a discard leaves behind, durably and at once. Default: what `discardZeroes` says, in the cache. */
  discardsTo: number | undefined
  readonly #blockBytes: number
  readonly #physicalBytes: number
  readonly #clock: Clock | undefined
  readonly #listeners = new Set<(event: DeviceEvent) => void>()
  readonly #faults: Fault[] = []
  /** Writes that a power cut undoes, oldest first. */
  #unflushed: Undo[] = []
  #held: (() => void)[] | undefined = undefined
  #sequence = 0
  /** Cuts of power so far; what was submitted before the last one is lost. */
  #powerCuts = 0
  #inFlight = 0
  #gone = false
  #closed = false
  #onIdle: (() => void)[] = []

  constructor(options: MemoryDeviceOptions) {
    this.#blockBytes = options.blockBytes ?? 512
    this.#physicalBytes = Math.max(this.#blockBytes, 4096)
    assert(options.sizeBytes % this.#blockBytes === 0, 'a memory device has whole blocks')
    this.path = options.path ?? 'memory'
    this.media = Buffer.alloc(options.sizeBytes)
    this.#clock = options.clock
    this.identity = {
      wwid: undefined,
      serial: undefined,
      vendor: undefined,
      model: undefined,
      ...options.identity,
    }
    this.features = {
      volatileWriteCache: true,
      rotational: false,
      readOnly: false,
      discardGranularityBytes: this.#blockBytes,
      discardAlignmentBytes: 0,
      discardMaxBytes: options.sizeBytes,
      discardZeroes: true,
      writeZeroes: true,
      ...options.features,
    }
  }

  get geometry(): Geometry {
    return {
      sizeBytes: this.media.length,
      logicalBlockBytes: this.#blockBytes,
      physicalBlockBytes: this.#physicalBytes,
      alignmentOffsetBytes: 0,
      ioMinBytes: 0,
      ioOptBytes: 0,
      maxTransferBytes: 0,
    }
  }

  get inFlight(): number {
    return this.#inFlight
  }

  /** Acknowledged writes that a power cut would lose. */
  get unflushed(): number {
    return this.#unflushed.length
  }

  /** The next `times` operations of kind `op`, perhaps of a range only, fail with `kind` and change nothing. */
  fail(op: IoOp, kind: ErrorKind, times = 1, within?: ByteRange): void {
    this.#faults.push({ op, kind, within, times })
  }

  /** All that was ordered to fail works again. */
  heal(): void {
    this.#faults.length = 0
  }

  /** Freezes completions until {@link release}. Operations take effect when they complete. */
  hold(): void {
    this.#held ??= []
  }

  /** Lets the oldest of what is held complete. */
  releaseOne(): void {
    const [run] = this.#held?.splice(0, 1) ?? []
    const held = this.#held
    this.#held = undefined
    run?.()
    this.#held = held
  }

  /** Lets everything held complete, in the order of submission. */
  release(): void {
    const held = this.#held ?? []
    this.#held = undefined
    for (const run of held) run()
  }

  /**
   * The device loses what was acknowledged and not flushed; what is in flight completes with `gone`
   * and has no effect. It works again at once: power has come back.
   */
  powerCut(): void {
    this.#powerCuts++
    for (const { offset, before } of this.#unflushed.reverse()) before.copy(this.media, offset)
    this.#unflushed = []
  }

  /** Surprise removal: listeners hear it; what is in flight and what comes fails with `gone`. */
  remove(): void {
    if (this.#gone) return
    this.#gone = true
    this.#emit('gone')
  }

  /** Grows with zeroes or shrinks, and tells. */
  resize(sizeBytes: number): void {
    assert(sizeBytes % this.#blockBytes === 0, 'a memory device has whole blocks')
    const media = Buffer.alloc(sizeBytes)
    this.media.copy(media)
    this.media = media
    this.#unflushed = this.#unflushed.filter(
      (undo) => undo.offset + undo.before.length <= sizeBytes,
    )
    this.#emit('resized')
  }

  submit(request: IoRequest): void {
    this.#inFlight++
    const closed = this.#closed
    const powerCuts = this.#powerCuts
    // A flush covers what was acknowledged before it came, no more.
    const sequence = this.#sequence
    const run = (): void => {
      if (this.#held) {
        this.#held.push(run)
        return
      }
      const lost = closed || powerCuts !== this.#powerCuts
      this.#complete(request, lost, sequence)
    }
    if (this.#held) this.#held.push(run)
    else if (this.delayMs > 0) {
      assert(this.#clock, 'delayMs needs a clock')
      this.#clock.after(this.delayMs, run)
    } else setImmediate(run)
  }

  onEvent(listener: (event: DeviceEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async close(): Promise<void> {
    this.#closed = true
    if (this.#inFlight === 0) return
    await new Promise<void>((resolve) => this.#onIdle.push(resolve))
  }

  #complete(request: IoRequest, lost: boolean, sequence: number): void {
    this.counts[request.op]++
    const error = lost
      ? this.#error('gone', request, 'closed, or without power')
      : (this.#check(request) ?? this.#takeFault(request))
    if (!error) EFFECT[request.op](this, request, sequence)
    this.#inFlight--
    request.complete(error)
    if (this.#inFlight === 0) for (const resolve of this.#onIdle.splice(0)) resolve()
  }

  /** Changes the medium; `durable` survives a power cut. Only {@link EFFECT} calls it. */
  change(offset: number, length: number, durable: boolean, source: Buffer | undefined): void {
    const target = this.media.subarray(offset, offset + length)
    if (durable || !this.features.volatileWriteCache) this.#makeDurable(offset, length)
    else {
      const sequence = this.#sequence++
      this.#unflushed.push({ sequence, offset, before: Buffer.from(target) })
    }
    if (source) source.copy(target)
    else target.fill(0)
  }

  /** FLUSH: writes numbered below `sequence` are not lost any more. */
  harden(sequence: number): void {
    this.#unflushed = this.#unflushed.filter((undo) => undo.sequence >= sequence)
  }

  /** A durable write covers older, volatile ones of the same bytes: undoing those must not undo it. */
  #makeDurable(offset: number, length: number): void {
    const kept: Undo[] = []
    for (const undo of this.#unflushed) {
      const end = undo.offset + undo.before.length
      if (end <= offset || undo.offset >= offset + length) {
        kept.push(undo)
        continue
      }
      if (undo.offset < offset) {
        kept.push({ ...undo, before: undo.before.subarray(0, offset - undo.offset) })
      }
      if (end > offset + length) {
        const from = offset + length
        kept.push({ ...undo, offset: from, before: undo.before.subarray(from - undo.offset) })
      }
    }
    this.#unflushed = kept
  }

  #takeFault(request: IoRequest): PlexusError | undefined {
    const index = this.#faults.findIndex(({ op, within }) => {
      const { offset, length } = request
      const touches = (one: ByteRange): boolean =>
        one.offset < offset + length && offset < one.offset + one.length
      return op === request.op && (!within || touches(within))
    })
    const fault = this.#faults[index]
    if (!fault) return undefined
    if (--fault.times === 0) this.#faults.splice(index, 1)
    return this.#error(fault.kind, request, 'injected fault')
  }

  #check(request: IoRequest): PlexusError | undefined {
    const { op, offset, length, data, dataOffset } = request
    if (this.#gone) return this.#error('gone', request, 'the device is gone')
    if (op === 'flush') return undefined
    if (op !== 'read' && this.features.readOnly) {
      return this.#error('permission', request, 'read-only')
    }
    if (!(offset >= 0 && length >= 0 && offset + length <= this.media.length)) {
      return this.#error('invalid', request, 'outside the device')
    }
    if (offset % this.#blockBytes !== 0 || length % this.#blockBytes !== 0) {
      return this.#error('invalid', request, 'not whole blocks')
    }
    if (op === 'discard' && this.features.discardGranularityBytes === 0) {
      return this.#error('unsupported', request, 'no discard')
    }
    if (op !== 'read' && op !== 'write') return undefined
    if (!data || !(dataOffset >= 0) || dataOffset + length > data.bytes.length) {
      return this.#error('invalid', request, 'the buffer is too short')
    }
    return dataOffset % this.#blockBytes === 0
      ? undefined
      : this.#error('invalid', request, 'the buffer is not aligned')
  }

  #error(kind: ErrorKind, request: IoRequest, why: string): PlexusError {
    const { op, offset, length } = request
    return new PlexusError(kind, {
      op,
      subject: this.path,
      message: `${this.path}: ${op} of ${length} bytes at offset ${offset} failed: ${why}`,
    })
  }

  #emit(event: DeviceEvent): void {
    for (const listener of this.#listeners) listener(event)
  }
}

const EFFECT: Readonly<
  Record<IoOp, (device: MemoryDevice, request: IoRequest, sequence: number) => void>
> = {
  read(device, { data, dataOffset, offset, length }) {
    if (data) device.media.copy(data.bytes, dataOffset, offset, offset + length)
  },
  write(device, { data, dataOffset, offset, length, fua }) {
    if (!data) return
    device.change(offset, length, fua, data.bytes.subarray(dataOffset, dataOffset + length))
  },
  flush(device, _request, sequence) {
    device.harden(sequence)
  },
  discard(device, { offset, length }) {
    const { discardsTo } = device
    if (discardsTo !== undefined) {
      device.change(offset, length, true, Buffer.alloc(length, discardsTo))
    } else if (device.features.discardZeroes) device.change(offset, length, false, undefined)
  },
  'write-zeroes'(device, { offset, length }) {
    device.change(offset, length, false, undefined)
  },
}

/** The next write of the last block is durable, and the device goes before it answers. */
export function goesAtAnchor(device: MemoryDevice): void {
  const { sizeBytes, logicalBlockBytes } = device.geometry
  const submit = device.submit.bind(device)
  device.submit = (request) => {
    if (request.op === 'write' && request.offset === sizeBytes - logicalBlockBytes) {
      const { data, dataOffset, length } = request
      data?.bytes.copy(device.media, request.offset, dataOffset, dataOffset + length)
      device.remove()
    }
    submit(request)
  }
}
