/**
 * A simulated disk: bits that outlive power cuts, and trouble that waits to happen. What one power-up of the machine
 * sees of it is a device (device.ts). Made by world.ts; trouble is asked for by faults.ts.
 */
import type { IoRequest } from '../../src/hal/block-device.ts'
import type { Scheduler } from './clock.ts'
import { SimDevice } from './device.ts'
import { SimMedia } from './media.ts'
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
  /** It leaves and comes back (World.flap). */
  flaps: boolean
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
  flaps: false,
  misdirect: undefined,
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
  /** Answers nothing: not to this machine, and not to the next one. */
  hangs = false
  sizeBytes: number
  /** Acknowledgements so far. */
  acknowledged = 0
  operations = 0
  device: SimDevice | undefined
  /** Pulled out of the machine that runs, with requests that have still to fail. */
  #former: SimDevice[] = []
  /** A machine has sent it a request. */
  onRequest: () => void = () => {}
  /** Acknowledged writes are gone without a power cut. */
  onCacheLost: () => void = () => {}

  constructor(options: SimDiskOptions, scheduler: Scheduler, random: SimRandom, trace: Trace) {
    this.name = options.name
    this.options = options
    this.scheduler = scheduler
    this.random = random
    this.trace = trace
    this.sizeBytes = options.sizeBytes
    this.media = new SimMedia(options.sizeBytes, options.blockBytes, random)
  }

  /** Powered up, or plugged in. */
  connect(): SimDevice {
    this.present = true
    this.device = new SimDevice(this)
    if (this.hangs) this.device.stall(true)
    return this.device
  }

  /** Nobody has taken its device. */
  release(): void {
    this.#abandon()
  }

  hang(): void {
    this.hangs = true
    this.device?.stall(true)
  }

  /** The engine has given it up: what it has of it ends when it answers again. */
  letGo(device: SimDevice): void {
    if (this.device !== device) return
    this.device = undefined
    this.#former.push(device)
  }

  /** A medium may grow at any time, and shrink while the machine is off. */
  resize(sizeBytes: number): void {
    this.sizeBytes = sizeBytes
    this.media.reserve(sizeBytes, this.random)
    this.device?.resize(sizeBytes)
  }

  /** All that is on it, for {@link restore}. Only while nothing is under way or volatile. */
  image(): Buffer {
    return Buffer.from(this.media.content.subarray(0, this.sizeBytes))
  }

  /** Behind everybody's back, between two boots. */
  restore(image: Buffer): void {
    this.resize(image.length)
    this.media.write(0, image, true)
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
    const devices = [...this.#former, ...(this.device ? [this.device] : [])]
    this.#former = []
    this.device = undefined
    return devices.flatMap((device) => device.end())
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
    this.hangs = false
    for (const device of [...this.#former, this.device]) device?.stall(false)
  }
}
