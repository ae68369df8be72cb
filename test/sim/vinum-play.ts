/**
 * The scenario of vinum: volumes of all kinds on a few disks, users who read and write, operators, trouble
 * with disks, power cuts and kills, phase after phase; in the end everything is repaired, read, compared and
 * put away in order. Played by simulate.ts.
 */
import { createEngine } from '../../src/engine/engine.ts'
import type { AlignedPool } from '../../src/hal/aligned-pool.ts'
import { Admin } from './admin.ts'
import type { SimDiskOptions } from './disk.ts'
import { apart } from './episodes/apart.ts'
import { caches } from './episodes/caches.ts'
import { copies } from './episodes/copies.ts'
import { hang } from './episodes/hang.ts'
import { hole } from './episodes/hole.ts'
import { resize } from './episodes/resize.ts'
import { restripe } from './episodes/restripe.ts'
import { selections } from './episodes/selections.ts'
import { SPARE_DISKS, spares } from './episodes/spares.ts'
import { witness } from './episodes/witness.ts'
import { Faults } from './faults.ts'
import { finalCheck, readAll } from './final-check.ts'
import { chooseMixture, type Feature, type Mixture } from './mixture.ts'
import { SimRandom } from './random.ts'
import type { Scenario } from './simulate.ts'
import type { Stage } from './stage.ts'
import { Unit } from './unit.ts'
import { isPlain, jobsOf, volumeOf, volumesOf } from './view.ts'
import { Workload } from './workload.ts'
import type { Machine, World, WorldOptions } from './world.ts'

const KIB = 1024
const MIB = 1024 * KIB

export interface VinumPlayOptions {
  readonly seed: number
  readonly operations: number
  readonly pool: AlignedPool
  readonly wrapDevice?: WorldOptions['wrapDevice']
  readonly isWitnessFooled?: boolean
  /** Instead of one that is chosen by the seed. */
  readonly mixture?: Mixture | undefined
}

export function vinumPlay(options: VinumPlayOptions): Scenario {
  const { seed, operations, pool, wrapDevice, isWitnessFooled } = options
  const random = new SimRandom(seed)
  const mixture = options.mixture ?? chooseMixture(random.fork('mixture'))
  const disks = planDisks(random.fork('disks'), mixture.has('wide'))
  const first = disks[0]
  // As large as the largest, so that they suit any other one.
  const sizeBytes = Math.max(...disks.map((one) => one.sizeBytes))
  const more =
    first && mixture.has('spares') ? SPARE_DISKS.map((name) => ({ ...first, name, sizeBytes })) : []
  // The volumes are of a few MiB: with the usual regions hardly anything would be marked in part.
  const intentRegionBytes = random.fork('regions').pick([16, 64, 256, 1024]) * KIB
  return {
    options: {
      seed,
      pool,
      disks: [...disks, ...more],
      makeTopology: (engine) => createEngine({ ...engine, intentRegionBytes }),
      wrapDevice,
      isWitnessFooled,
    },
    play: (world) => new VinumPlay(world, operations, mixture).run(),
  }
}

function planDisks(random: SimRandom, isWide: boolean): readonly SimDiskOptions[] {
  const blockBytes = random.chance(0.15) ? 4096 : 512
  const volatileCache = random.chance(0.85)
  const discard = random.pick(['zeroes', 'zeroes', 'undefined', 'none'] as const)
  return Array.from({ length: isWide ? random.between(5, 18) : random.between(4, 7) }, (_, i) => ({
    name: `d${i}`,
    sizeBytes: random.between(4, 10) * (MIB / 2),
    blockBytes,
    volatileCache,
    discard,
    meanMs: random.pick([0.05, 0.2, 1, 4]),
    bytesPerMs: random.pick([20_000, 100_000, 500_000]),
  }))
}

type Episode = (stage: Stage) => Promise<void>

/** What takes the place of a phase now and then. */
const EPISODES: readonly (readonly [Feature, Episode])[] = [
  ['hole', hole],
  ['apart', apart],
  ['hang', hang],
  ['caches', caches],
  ['resize', resize],
  ['copies', copies],
  ['selections', selections],
  ['witness', witness],
  ['restripe', restripe],
  ['spares', spares],
]

class VinumPlay {
  readonly #world: World
  readonly #random: SimRandom
  readonly #operations: number
  readonly #mixture: Mixture
  readonly #faults: Faults
  readonly #admin: Admin
  readonly #episodes: SimRandom
  /** The phase ends with a power cut at this moment. */
  #cutNow = false
  /** Of the machine that runs; one that was cut off ends nothing. */
  #verbUnderWay = false

  constructor(world: World, operations: number, mixture: Mixture) {
    this.#world = world
    this.#operations = operations
    this.#random = world.random.fork('play')
    this.#episodes = world.random.fork('episodes')
    this.#mixture = mixture
    this.#faults = new Faults(world, world.random.fork('faults'), mixture)
    this.#admin = new Admin(world, world.random.fork('admin'), this.#faults, {
      isWide: mixture.has('wide'),
      hasSpares: mixture.has('spares'),
      adopt: (machine) => this.#adopt(machine),
    })
  }

  get #stage(): Stage {
    const world = this.#world
    return {
      world,
      random: this.#episodes,
      faults: this.#faults,
      boot: () => this.#boot(),
      whole: async () => {
        const machine = world.machine ?? (await this.#boot())
        await this.#faults.recover(machine)
        await this.#faults.becomeWhole(machine)
        return world.machine === machine && !world.violation ? machine : undefined
      },
      adopt: (machine) => this.#adopt(machine),
      work: (operations) => new Workload(world, operations).run(),
      readAll: async () => {
        for (const unit of world.units) await readAll(unit)
      },
      end: async (how = this.#episodes.pick(['cut', 'kill', 'shutdown'])) => {
        const { machine } = world
        if (!machine) return
        if (how === 'cut') world.cut()
        else if (how === 'kill') world.kill()
        else {
          for (const unit of world.units) await unit.idle()
          await world.shutdown(machine)
        }
      },
    }
  }

  async run(): Promise<void> {
    const world = this.#world
    const first = await world.boot()
    for (let count = this.#random.between(1, 3); count > 0; count--) {
      await this.#admin.create(first)
    }
    while (world.counts.operations < this.#operations && !world.violation) {
      const episode = this.#chooseEpisode()
      if (episode) await episode(this.#stage)
      else await this.#phase()
    }
    const machine = world.machine ?? (await this.#boot())
    await this.#faults.recover(machine)
    await this.#faults.becomeWhole(machine)
    await finalCheck(world)
    await world.shutdown(machine)
  }

  #chooseEpisode(): Episode | undefined {
    const known = EPISODES.filter(([feature]) => this.#mixture.has(feature))
    if (known.length === 0 || this.#world.units.size === 0) return undefined
    return this.#episodes.chance(0.4) ? this.#episodes.pick(known)[1] : undefined
  }

  /** Some work on the machine, and one way in which it ends. */
  async #phase(): Promise<void> {
    const world = this.#world
    const random = this.#random
    const machine = world.machine ?? (await this.#boot())
    if (world.units.size === 0) await this.#admin.create(machine)
    const workload = new Workload(world, random.between(20, 400))
    const working = workload.run()
    const others = this.#meddle(machine, workload)
    await working
    workload.stop()
    if (world.violation) return
    const cuts = this.#mixture.has('cuts')
    const cutNow = this.#cutNow
    this.#cutNow = false
    const end = random.weighted([
      [cutNow ? 1000 : cuts ? 40 : 0, 'cut'],
      [cuts ? 10 : 0, 'cut with a disk missing'],
      [cuts ? 15 : 0, 'kill'],
      [5, 'shutdown'],
      [30, 'rest'],
    ] as const)
    if (end === 'cut') world.cut()
    else if (end === 'cut with a disk missing') this.#cutWithLoss(machine)
    else if (end === 'kill') world.kill()
    else {
      // A verb under way ends first: systemd, too, waits for the daemon.
      await others
      await this.#answered(machine)
      if (end === 'shutdown') await world.shutdown(machine)
      else await world.pause(random.exponential(random.pick([10, 1000, 30_000])))
    }
  }

  /** Nothing is under way. A growth without parity that lacks a disk in the middle of a window lets nobody pass. */
  async #answered(machine: Machine): Promise<void> {
    const units = [...this.#world.units]
    const grows = jobsOf(machine).includes('grow')
    const isHeld = grows && units.some(({ uuid }) => isPlain(machine, uuid))
    if (isHeld && this.#world.machine === machine) await this.#faults.recover(machine)
    for (const unit of units) await unit.idle()
  }

  /** Operators and trouble, while users work. */
  async #meddle(machine: Machine, workload: Workload): Promise<void> {
    const world = this.#world
    // The time, too: phases in which nothing can be sent must not all be the same.
    const random = this.#random.fork(`meddle ${world.counts.operations} ${world.nowMs}`)
    const verbs = this.#mixture.has('verbs')
    const faults = this.#mixture.has('faults')
    const meanMs = random.pick([2, 10, 50])
    while (workload.left > 0 && world.machine === machine && !world.violation) {
      await world.pause(random.exponential(meanMs))
      if (workload.left <= 0) return
      if (this.#faults.faulty) {
        if (random.chance(0.12)) await this.#faults.recover(machine)
      } else if (faults && random.chance(0.3)) {
        this.#faults.inject(machine)
        // What an engine does about trouble takes some milliseconds: a cut in the middle of that.
        if (this.#mixture.has('cuts') && random.chance(0.4)) {
          await world.pause(random.exponential(random.pick([1, 5, 20])))
          this.#cutNow = true
          workload.stop()
          return
        }
      }
      if (!verbs || !random.chance(0.5)) continue
      this.#verbUnderWay = true
      await this.#admin.act(machine)
      this.#verbUnderWay = false
    }
  }

  #cutWithLoss(machine: Machine): void {
    const world = this.#world
    // A verb that is cut off may have taken a copy away: what a volume still bears is not known then.
    const disk = this.#verbUnderWay ? undefined : this.#faults.choose(machine)
    if (disk) {
      this.#faults.mark(machine, disk)
      world.counts.faults++
    }
    world.cut()
    if (disk) disk.present = false
  }

  /** Boots, perhaps not at the first attempt, and looks whether everything is there. */
  async #boot(): Promise<Machine> {
    const world = this.#world
    this.#verbUnderWay = false
    for (;;) {
      const booting = world.boot()
      const failMs =
        this.#mixture.has('cuts') && this.#random.chance(0.1) ? this.#random.below(40) : 0
      const machine =
        failMs > 0 ? await Promise.race([booting, this.#timer(failMs)]) : await booting
      if (machine) {
        // Which of the disks that were used apart is right depends on which of them are there.
        if (this.#faults.parts?.isForced) this.#faults.parts.join()
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

  /** After a boot: every volume that must be there is, under the name that it had or was about to get. */
  async #census(machine: Machine): Promise<void> {
    const world = this.#world
    const complete = !this.#faults.faulty && world.disks.every((one) => one.present)
    for (const unit of [...world.units]) {
      const volume = volumeOf(machine, unit.uuid)
      if (volume) {
        unit.doomed = false
        unit.name = volume.name
        await unit.open(machine)
        if (complete && !unit.mayFail && volume.health === 'FAULTED') {
          world.fail(`${unit.name} is down after a boot with all disks`, [JSON.stringify(volume)])
        }
      } else if (unit.doomed) world.units.delete(unit)
      else if (complete) {
        const sets = machine.topology.report().map((one) => JSON.stringify(one))
        world.fail(`${unit.name} is lost after a boot with all disks`, sets)
      }
    }
    await this.#adopt(machine)
  }

  /** New volumes come under the oracle. */
  async #adopt(machine: Machine): Promise<void> {
    const world = this.#world
    for (const { uuid, name } of volumesOf(machine)) {
      if ([...world.units].some((unit) => unit.uuid === uuid)) continue
      const provider = machine.topology.providers.get(name)
      if (!provider) continue
      const unit = new Unit(world, name, uuid, provider)
      unit.rowsAtRisk = () => this.#faults.rowsAtRisk(uuid)
      unit.mayFail = this.#faults.faulty !== undefined
      await unit.open(machine)
    }
  }
}
