/**
 * What users do to the volumes: requests of all kinds and sizes, overlapping, some places more often than
 * others, with pauses. Runs by itself until it is stopped; vinum-play.ts starts one for each phase.
 */
import { alignDown } from '../../src/base/bytes.ts'
import type { IoOp } from '../../src/hal/block-device.ts'
import type { SimRandom } from './random.ts'
import type { Unit } from './unit.ts'
import type { World } from './world.ts'

/** The character of one phase. */
export interface Mood {
  readonly depth: number
  readonly thinkMs: number
  readonly mostBytes: number
  readonly ops: readonly (readonly [number, IoOp])[]
  /** Part of the volume that most requests go to. */
  readonly hot: number
  /** Part of the writes that are durable at once. */
  readonly fua: number
  /** Part of the writes that come as many small ones at once, near each other: as a file system flushes. */
  readonly burst: number
}

const MIXED: Mood['ops'] = [
  [40, 'read'],
  [45, 'write'],
  [6, 'flush'],
  [5, 'write-zeroes'],
  [4, 'discard'],
]
const WRITING: Mood['ops'] = [
  [10, 'read'],
  [80, 'write'],
  [4, 'flush'],
  [3, 'write-zeroes'],
  [3, 'discard'],
]
const READING: Mood['ops'] = [
  [80, 'read'],
  [18, 'write'],
  [2, 'flush'],
]

/** Moods of volumes, one as likely as the other. */
const USUAL: readonly Mood['ops'][] = [MIXED, MIXED, WRITING, READING]

const BURST_BYTES = 4096
const FULL_MS_MAX = 100

export class Workload {
  /** The next pause while the queue is full. */
  #fullMs = 0
  readonly #world: World
  readonly #random: SimRandom
  readonly #mood: Mood
  readonly #operations: number
  #onDone: (() => void) | undefined
  #stopped = false
  #sent = 0

  /** `operations`: how many to send at most; `moods`: what it may consist of. */
  constructor(world: World, operations: number, moods = USUAL) {
    this.#world = world
    this.#random = world.random.fork(`workload at ${world.counts.operations} ${world.nowMs}`)
    const random = this.#random
    this.#mood = {
      depth: random.pick([1, 2, 4, 8, 16, 32]),
      thinkMs: random.pick([0.02, 0.2, 1, 5]),
      mostBytes: random.pick([4096, 16384, 65536, 262144, 1048576]),
      ops: random.pick(moods),
      hot: random.pick([1, 0.3, 0.05]),
      fua: random.pick([0, 0.1, 0.1, 1]),
      burst: random.pick([0, 0.01, 0.1]),
    }
    this.#operations = operations
  }

  /** Requests that it will still send. */
  get left(): number {
    return this.#stopped ? 0 : this.#operations - this.#sent
  }

  /** Resolves when all is sent, or `stop` was called; requests may still be under way. */
  run(): Promise<void> {
    return new Promise((resolve) => {
      this.#onDone = resolve
      this.#turn()
    })
  }

  stop(): void {
    if (this.#stopped) return
    this.#stopped = true
    this.#onDone?.()
  }

  #turn(): void {
    if (this.#stopped) return
    if (this.left <= 0 || !this.#world.machine) {
      this.stop()
      return
    }
    const units = [...this.#world.units].filter((one) => one.consumer)
    const busy = units.reduce((sum, one) => sum + one.inFlight, 0)
    if (units.length > 0 && busy < this.#mood.depth) this.#send(this.#random.pick(units))
    // Where nothing can be sent, time passes all the same, and counts as work: a phase has an end.
    else if (units.length === 0) this.#sent++
    // With the queue full there is nothing to do before one of the disks has answered, which may be never.
    this.#fullMs = busy < this.#mood.depth ? 0 : Math.min(FULL_MS_MAX, this.#fullMs * 1.5 + 0.2)
    const pauseMs = Math.max(this.#mood.thinkMs, this.#fullMs)
    this.#world.scheduler.after(this.#random.exponential(pauseMs), () => this.#turn())
  }

  #send(unit: Unit): void {
    const random = this.#random
    const op = random.weighted(this.#mood.ops)
    const fua = op === 'write' && random.chance(this.#mood.fua)
    if (op === 'flush') {
      if (unit.send(op, 0, 0, false)) this.#sent++
      return
    }
    const { blockBytes, sizeBytes } = unit.oracle
    const { discardGranularityBytes } = unit.consumer?.features ?? { discardGranularityBytes: 0 }
    if (op === 'discard' && discardGranularityBytes === 0) return
    if (op === 'write' && random.chance(this.#mood.burst)) {
      this.#burst(unit)
      return
    }
    const length = this.#length(blockBytes, sizeBytes)
    const range = random.chance(0.8) ? sizeBytes * this.#mood.hot : sizeBytes
    const last = Math.max(0, Math.min(sizeBytes - length, range))
    // Edges of stripes, subdisks and regions are where mistakes live.
    const grain = random.pick([blockBytes, 4096, 65536])
    const offset = alignDown(random.below(last + 1), Math.max(grain, blockBytes))
    if (unit.send(op, offset, length, fua)) this.#sent++
  }

  /** Many small writes to one place, each to a block of its own. */
  #burst(unit: Unit): void {
    const random = this.#random
    const { sizeBytes } = unit.oracle
    const pages = Math.floor(sizeBytes / BURST_BYTES)
    const span = Math.min(pages, random.pick([16, 64, 256, 1024, 4096]))
    const first = random.below(pages - span + 1)
    const places = Array.from({ length: random.between(8, 40) }, () => first + random.below(span))
    for (const page of new Set(places)) {
      if (unit.send('write', page * BURST_BYTES, BURST_BYTES, false)) this.#sent++
    }
  }

  #length(blockBytes: number, sizeBytes: number): number {
    const random = this.#random
    const most = Math.min(this.#mood.mostBytes, sizeBytes)
    const wanted = random.chance(0.5) ? random.pick([4096, 16384, 65536]) : random.below(most)
    return Math.max(blockBytes, alignDown(Math.min(wanted, most), blockBytes))
  }
}
