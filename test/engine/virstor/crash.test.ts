/**
 * A thin device of the whole engine through power cuts at any moment, disks that go and come back, a full pool and
 * `add`: what was flushed is there, and nothing shows that was never written to the device, though its disks are full of it,
 * and every discard that reaches them makes it so at once.
 */
import t from 'tap'
import { PlexusError } from '../../../src/base/errors.ts'
import { KIB, MIB } from '../../../src/base/limits.ts'
import type { Consumer } from '../../../src/engine/geom/consumer.ts'
import { allocateAligned } from '../../../src/hal/aligned-pool.ts'
import { discard, flush, readAt, writeAt, writeZeroes } from '../../../src/hal/io.ts'
import { Machine } from '../../support/engine.ts'
import { BlockHistory } from '../../support/virstor-history.ts'

const BLOCK = 4 * KIB
const SIZE = 6 * MIB
const BLOCKS = SIZE / BLOCK
/** What the disks are full of before: never written to the device. */
const STALE = 0xee
const SEEDS = 4
const BOOTS = 6
const WORKERS = 4

/** Numbers from 0 to below `n`, the same for a seed. */
function dice(seed: number): (n: number) => number {
  let state = seed * 2_654_435_761
  return (n) => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0
    return (state >>> 4) % n
  }
}

class Play {
  readonly machine = new Machine({ devices: 4, sizeBytes: 3 * MIB })
  /** What was wrong while it worked. */
  fault: string | undefined
  /** That have reached the disks. */
  discards = 0
  #history = new BlockHistory(BLOCKS)
  readonly roll: (n: number) => number
  #value = 0
  #isCut = false

  constructor(seed: number) {
    this.roll = dice(seed)
    for (const device of this.machine.devices.values()) {
      device.media.fill(STALE)
      device.discardsTo = STALE
    }
  }

  async create(): Promise<void> {
    await this.machine.start()
    await this.machine.run('virstor.create', {
      name: 'thin',
      devices: ['d1', 'd2', 'd3'],
      size: `${SIZE}`,
      chunk: '128KiB',
      fullWait: '0',
      policy: 'round-robin',
      wipeSignatures: true,
      // Discards leave alone what is nearly full.
      warnPercent: '0',
      warnChunks: '0',
    })
  }

  /** Works until the power goes. */
  async boot(): Promise<void> {
    const device = this.machine.open('thin')
    this.#isCut = false
    // Those that wait for a disk of before never end.
    for (let worker = 0; worker < WORKERS; worker++) void this.#worker(device)
    for (let turns = this.roll(400); turns > 0; turns--) await new Promise(setImmediate)
    this.#isCut = true
    for (const { counts } of this.machine.devices.values()) this.discards += counts.discard
    this.machine.cut()
    await this.machine.start()
  }

  async #worker(device: Consumer): Promise<void> {
    while (!this.#isCut) {
      try {
        await this.#operation(device)
      } catch (error) {
        if (this.#isCut) return
        if (error instanceof PlexusError && error.kind === 'no-space') continue
        this.fault ??= String(error)
        return
      }
    }
  }

  async #operation(device: Consumer): Promise<void> {
    const what = this.roll(10)
    if (what === 0) {
      const startedAt = this.#history.now()
      await flush(device)
      if (!this.#isCut) this.#history.flushed(startedAt)
      return
    }
    const first = this.roll(BLOCKS)
    const count = 1 + this.roll(Math.min(this.roll(3) === 0 ? 100 : 8, BLOCKS - first))
    const range = { offset: first * BLOCK, length: count * BLOCK }
    if (what < 4) {
      const into = allocateAligned(range.length)
      const startedAt = this.#history.now()
      await readAt(device, into, range.offset)
      if (this.#isCut) return
      const fault = this.#history.checkRead(first, into.bytes, startedAt, BLOCK)
      if (fault) throw new Error(fault)
      return
    }
    const isZero = what < 6
    this.#value = (this.#value % 200) + 1
    const change = this.#history.begin(first, count, isZero ? 0 : this.#value)
    const fua = this.roll(8) === 0
    if (what === 4) await discard(device, range)
    else if (what === 5) await writeZeroes(device, range)
    else {
      const from = allocateAligned(range.length)
      from.bytes.fill(this.#value)
      await writeAt(device, from, range.offset, { fua })
    }
    if (!this.#isCut) this.#history.end(change, fua && !isZero)
  }

  /** What is there after a crash; it is what counts from now on. */
  async check(): Promise<string | undefined> {
    const device = this.machine.open('thin')
    const into = allocateAligned(SIZE)
    await readAt(device, into, 0)
    await device.close()
    const fault = this.fault ?? this.#history.checkCrash(into.bytes, BLOCK)
    this.#history = new BlockHistory(BLOCKS)
    for (let block = 0; block < BLOCKS; block++) {
      const change = this.#history.begin(block, 1, into.bytes[block * BLOCK] as number)
      this.#history.end(change, true)
    }
    return fault
  }
}

for (let seed = 1; seed <= SEEDS; seed++) {
  t.test(`seed ${seed}`, async (t) => {
    const play = new Play(seed)
    await play.create()
    for (let boot = 1; boot <= BOOTS; boot++) {
      await play.boot()
      t.equal(await play.check(), undefined, `after power cut ${boot}`)
    }
    t.ok(play.discards > 0, `${play.discards} discards have reached the disks`)
  })
}
