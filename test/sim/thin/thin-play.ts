/**
 * The scenario of virstor: thin devices on a few disks that are full of what other people wrote, users who write and
 * discard, operators, trouble with disks, power cuts and kills, phase after phase; in the end everything is whole, read,
 * and its accounts add up. Played by simulate.ts.
 */
import { createEngine } from '../../../src/engine/engine.ts'
import type { AlignedPool } from '../../../src/hal/aligned-pool.ts'
import type { SimDiskOptions } from '../disk.ts'
import { readAll } from '../final-check.ts'
import { chooseThinMixture, type ThinFeature, type ThinMixture } from '../mixture.ts'
import { SimRandom } from '../random.ts'
import type { Scenario } from '../simulate.ts'
import { type Mood, Workload } from '../workload.ts'
import type { Machine, World, WorldOptions } from '../world.ts'
import { audit } from './accounts.ts'
import { decay, force, hang, type ThinStage, witness } from './episodes.ts'
import { Operator } from './operator.ts'
import { ThinUnit } from './thin-unit.ts'
import { setOf, thinDevice, thinDevices } from './thin-view.ts'
import { Trouble } from './trouble.ts'

const KIB = 1024
const MIB = 1024 * KIB

export interface ThinPlayOptions {
  readonly seed: number
  readonly operations: number
  readonly pool: AlignedPool
  readonly wrapDevice?: WorldOptions['wrapDevice']
  /** Instead of one that is chosen by the seed. */
  readonly mixture?: ThinMixture | undefined
}

export function thinPlay(options: ThinPlayOptions): Scenario {
  const { seed, operations, pool, wrapDevice } = options
  const random = new SimRandom(seed)
  const mixture = options.mixture ?? chooseThinMixture(random.fork('thin mixture'))
  const disks = planDisks(random.fork('thin disks'))
  return {
    options: { seed, pool, disks, makeTopology: createEngine, wrapDevice },
    play: (world) => new ThinPlay(world, operations, mixture).run(),
  }
}

function planDisks(random: SimRandom): readonly SimDiskOptions[] {
  const blockBytes = random.chance(0.15) ? 4096 : 512
  const volatileCache = random.chance(0.85)
  const discard = random.pick(['zeroes', 'undefined', 'none'] as const)
  return Array.from({ length: random.between(3, 8) }, (_, i) => ({
    name: `d${i}`,
    sizeBytes: random.between(3, 10) * (MIB / 2),
    blockBytes,
    volatileCache,
    discard,
    meanMs: random.pick([0.05, 0.2, 1, 4]),
    bytesPerMs: random.pick([20_000, 100_000, 500_000]),
  }))
}

/** Users who fill it, who give space back, and who read. */
const MOODS: readonly Mood['ops'][] = [
  [
    [40, 'read'],
    [40, 'write'],
    [8, 'flush'],
    [5, 'write-zeroes'],
    [7, 'discard'],
  ],
  [
    [10, 'read'],
    [70, 'write'],
    [10, 'flush'],
    [2, 'write-zeroes'],
    [8, 'discard'],
  ],
  [
    [10, 'read'],
    [35, 'write'],
    [10, 'flush'],
    [15, 'write-zeroes'],
    [30, 'discard'],
  ],
  [
    [80, 'read'],
    [15, 'write'],
    [2, 'flush'],
    [3, 'discard'],
  ],
]

type Episode = (stage: ThinStage) => Promise<void>

/** What takes the place of a phase now and then. */
const EPISODES: readonly (readonly [ThinFeature, Episode])[] = [
  ['decay', decay],
  ['hang', hang],
  ['force', force],
  ['witness', witness],
]

class ThinPlay {
  readonly #world: World
  readonly #random: SimRandom
  readonly #operations: number
  readonly #mixture: ThinMixture
  readonly #trouble: Trouble
  readonly #operator: Operator

  constructor(world: World, operations: number, mixture: ThinMixture) {
    this.#world = world
    this.#operations = operations
    this.#random = world.random.fork('thin play')
    this.#mixture = mixture
    this.#trouble = new Trouble(world, world.random.fork('trouble'), mixture.has('flapping'))
    this.#operator = new Operator(world, world.random.fork('operator'), {
      isFull: mixture.has('full'),
      isMirrored: mixture.has('mirrors'),
      faulty: () => this.#trouble.faulty?.name,
      adopt: (machine) => this.#adopt(machine),
    })
  }

  get #units(): readonly ThinUnit[] {
    return [...this.#world.units] as ThinUnit[]
  }

  get #stage(): ThinStage {
    const world = this.#world
    return {
      world,
      random: this.#random,
      trouble: this.#trouble,
      whole: () => this.#whole(),
      boot: () => this.#boot(),
      work: (operations) => new Workload(world, operations, MOODS).run(),
      readAll: () => this.#readAll(),
      end: (how = this.#random.pick(['cut', 'kill', 'shutdown'])) => this.#end(how),
    }
  }

  async run(): Promise<void> {
    const world = this.#world
    const first = await this.#boot()
    for (let count = this.#random.between(1, 2); count > 0; count--) {
      await this.#operator.create(first)
    }
    while (world.counts.operations < this.#operations && !world.violation) {
      const episode = this.#chooseEpisode()
      if (episode) await episode(this.#stage)
      else await this.#phase()
    }
    await this.#finalCheck()
  }

  #chooseEpisode(): Episode | undefined {
    const known = EPISODES.filter(([feature]) => this.#mixture.has(feature))
    if (known.length === 0 || this.#world.units.size === 0) return undefined
    return this.#random.chance(0.3) ? this.#random.pick(known)[1] : undefined
  }

  /** Some work on the machine, and one way in which it ends. */
  async #phase(): Promise<void> {
    const world = this.#world
    const random = this.#random
    const machine = world.machine ?? (await this.#boot())
    if (world.units.size === 0) await this.#operator.create(machine)
    if (world.machine !== machine) return
    const workload = new Workload(world, random.between(20, 400), MOODS)
    const working = workload.run()
    const others = this.#meddle(machine, workload)
    await working
    workload.stop()
    if (world.violation || world.machine !== machine) return
    const cuts = this.#mixture.has('cuts')
    const end = random.weighted([
      [cuts ? 15 : 0, 'cut'],
      [cuts ? 20 : 0, 'cut in a commit'],
      [cuts ? 25 : 0, 'cut at a request'],
      [cuts ? 10 : 0, 'cut with a disk missing'],
      [cuts ? 10 : 0, 'kill'],
      [8, 'shutdown'],
      [30, 'rest'],
    ] as const)
    if (end === 'cut') world.cut()
    else if (end === 'cut in a commit') await this.#cutInCommit(machine)
    else if (end === 'cut at a request') await this.#cutAtRequest(machine)
    else if (end === 'cut with a disk missing') this.#cutWithLoss(machine)
    else if (end === 'kill') world.kill()
    else {
      // A verb under way ends first: systemd, too, waits for the daemon.
      await others
      for (const unit of this.#units) await unit.idle()
      if (world.machine !== machine) return
      if (end === 'shutdown') await this.#end('shutdown')
      else await world.pause(random.exponential(random.pick([10, 1000, 30_000])))
    }
  }

  /** Operators and trouble, while users work. */
  async #meddle(machine: Machine, workload: Workload): Promise<void> {
    const world = this.#world
    const random = this.#random.fork(`meddle ${world.counts.operations} ${world.nowMs}`)
    const meanMs = random.pick([2, 10, 50])
    while (workload.left > 0 && world.machine === machine && !world.violation) {
      await world.pause(random.exponential(meanMs))
      if (workload.left <= 0) return
      if (this.#trouble.faulty) {
        if (random.chance(0.15)) await this.#trouble.recover(machine)
      } else if (this.#mixture.has('faults') && random.chance(0.3)) this.#trouble.inject(machine)
      if (this.#mixture.has('verbs') && random.chance(0.4)) await this.#operator.act(machine)
    }
  }

  async #cutInCommit(machine: Machine): Promise<void> {
    const world = this.#world
    for (const unit of this.#units) unit.send('flush', 0, 0, false)
    await world.pause(this.#random.exponential(this.#random.pick([0.5, 3, 15])))
    if (world.machine === machine) world.cut()
  }

  /** The power goes with the n-th request to a disk from now on: of users, or of the engine by itself. */
  async #cutAtRequest(machine: Machine): Promise<void> {
    const world = this.#world
    let left = this.#random.between(1, this.#random.pick([5, 30, 200]))
    const isCut = new Promise<void>((resolve) => {
      const sent = (): void => {
        if (--left !== 0) return
        world.scheduler.after(0, () => {
          if (world.machine === machine) world.cut()
          resolve()
        })
      }
      for (const disk of world.disks) disk.onRequest = sent
    })
    const working = new Workload(world, this.#random.between(5, 100), MOODS).run()
    const flushing = working.then(() => {
      for (const unit of this.#units) unit.send('flush', 0, 0, false)
      // Of so few requests there may be none that reaches a disk.
      return world.pause(20_000)
    })
    await Promise.race([isCut, flushing])
    for (const disk of world.disks) disk.onRequest = () => {}
    if (world.machine === machine) world.cut()
  }

  #cutWithLoss(machine: Machine): void {
    const disk = this.#trouble.choose(machine)
    if (disk) this.#trouble.mark(machine, disk)
    this.#world.cut()
    if (disk) disk.present = false
  }

  async #end(how: 'cut' | 'kill' | 'shutdown'): Promise<void> {
    const world = this.#world
    const { machine } = world
    if (!machine) return
    if (how === 'cut') world.cut()
    else if (how === 'kill') world.kill()
    else {
      for (const unit of this.#units) await unit.idle()
      if (world.machine !== machine) return
      // An end in order is as good as a flush.
      for (const { oracle, mayFail } of this.#units) {
        if (!mayFail) oracle.endFlush(oracle.beginFlush(), true)
      }
      await world.shutdown(machine)
    }
  }

  /** Boots, perhaps not at the first attempt, and looks whether everything is there. */
  async #boot(): Promise<Machine> {
    const world = this.#world
    const random = this.#random
    for (;;) {
      const booting = world.boot()
      const isCut = this.#mixture.has('cuts') && world.counts.boots > 1 && random.chance(0.25)
      const failMs = isCut ? random.exponential(random.pick([2, 20, 60])) : 0
      const machine =
        failMs > 0 ? await Promise.race([booting, this.#timer(failMs)]) : await booting
      if (machine) {
        await this.#census(machine)
        return machine
      }
      world.cut()
    }
  }

  #timer(ms: number): Promise<undefined> {
    return new Promise((resolve) => {
      this.#world.scheduler.after(ms, () => resolve(undefined))
    })
  }

  /** After a boot: every device is there, and serves. */
  async #census(machine: Machine): Promise<void> {
    const world = this.#world
    const isComplete = world.disks.every(({ present, hangs }) => present && !hangs)
    for (const unit of this.#units) {
      const device = thinDevice(machine, unit.uuid)
      if (device) {
        unit.doomed = false
        await unit.open(machine)
        if (isComplete && !unit.mayFail && device.state !== 'UP') {
          const { state } = device
          const details = machine.topology.report().map((one) => JSON.stringify(one))
          world.fail(`${unit.name} is ${state} after a boot with all disks`, details)
        }
        this.#checkMap(machine, unit)
      } else if (unit.doomed) world.units.delete(unit)
      else if (isComplete && !unit.mayFail) {
        const details = machine.topology.report().map((one) => JSON.stringify(one))
        world.fail(`${unit.name} is lost after a boot with all disks`, details)
      }
    }
    await this.#adopt(machine)
  }

  /** Whatever was cut off: no entry of the map is ever wrong. */
  #checkMap(machine: Machine, { name }: ThinUnit): void {
    const { faults = [] } = setOf(machine, name)?.device?.table ?? {}
    const texts = faults.map(({ chunk, reason }) => `chunk ${chunk}: ${reason}`)
    if (faults.length > 0) this.#world.fail(`${name}: its map has entries that are wrong`, texts)
  }

  /** New devices come under the oracle. */
  async #adopt(machine: Machine): Promise<void> {
    const world = this.#world
    for (const { uuid, name } of thinDevices(machine)) {
      if (this.#units.some((unit) => unit.uuid === uuid)) continue
      const set = setOf(machine, name)
      const provider = machine.topology.providers.get(name)
      if (!set || !provider) continue
      const unit = new ThinUnit(world, name, uuid, provider, set.model.fullWaitMs)
      unit.mayFail = this.#trouble.faulty !== undefined
      await unit.open(machine)
    }
  }

  async #whole(): Promise<Machine | undefined> {
    const world = this.#world
    const machine = world.machine ?? (await this.#boot())
    for (const unit of this.#units) await unit.idle()
    await this.#trouble.recover(machine, async () => {
      await this.#end('shutdown')
      return world.machine ?? (await this.#boot())
    })
    return world.violation ? undefined : world.machine
  }

  async #readAll(): Promise<void> {
    for (const unit of this.#units) await readAll(unit)
  }

  async #finalCheck(): Promise<void> {
    const world = this.#world
    for (let round = 0; round < 2 && !world.violation; round++) {
      const machine = await this.#whole()
      if (!machine) return
      await this.#readAll()
      for (const unit of this.#units) await this.#auditUnit(machine, unit)
      if (world.violation || world.machine !== machine) return
      // And all of it again after a start.
      await this.#end('shutdown')
    }
  }

  async #auditUnit(machine: Machine, unit: ThinUnit): Promise<void> {
    const world = this.#world
    if (!unit.consumer) {
      world.fail(`${unit.name} cannot be opened at the end`)
      return
    }
    // What a discard has released comes back with the next commit.
    for (let times = 0; times < 2; times++) {
      unit.send('flush', 0, 0, false)
      await unit.idle()
    }
    const set = setOf(machine, unit.name)
    const problems = set ? await audit(set) : ['it is not there']
    if (world.machine !== machine || world.violation) return
    if (problems.length > 0) {
      world.fail(`${unit.name}: its accounts do not add up: ${problems[0]}`, problems)
      return
    }
    await this.#operator.check(machine, unit.name)
  }
}
