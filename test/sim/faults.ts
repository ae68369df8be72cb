/**
 * Trouble with disks, never more than the volumes bear: one disk at a time is faulty, and the next one only
 * when everything is whole again. Volumes that have no copy without that disk may answer with errors then, but
 * never with wrong data. Used by vinum-play.ts.
 */
import type { Timer } from '../../src/base/clock.ts'
import type { SimDisk } from './disk.ts'
import { DATA_FAULTS, type Fault, QUIET_FAULTS } from './harm.ts'
import { Healing, isWhole } from './healing.ts'
import type { Mixture } from './mixture.ts'
import type { Parts } from './parts.ts'
import type { SimRandom } from './random.ts'
import {
  drivesIn,
  drivesOf,
  hasLog,
  isPlain,
  isRedundant,
  isUp,
  jobsOf,
  rowSizes,
  survives,
  volumeOf,
  volumesOf,
} from './view.ts'
import type { Machine, World } from './world.ts'
import { Wounds } from './wounds.ts'

/** Of all trouble: what disks report, what they do not, and more than redundancy bears. */
const KINDS = [
  [32, 'loud'],
  [6, 'quiet'],
  [2, 'beyond'],
] as const

/** What can be wrong with a disk, and how often it is chosen. */
export const FAULTS: readonly (readonly [number, string, Fault])[] = [
  [
    4,
    'unreadable sectors',
    (disk, random) => {
      const { sizeBytes } = disk
      const { blockBytes } = disk.options
      for (let count = random.between(1, 20); count > 0; count--) {
        const length = random.pick([blockBytes, 4096, 65536])
        const offset = Math.floor(random.below(sizeBytes - length) / 4096) * 4096
        disk.spoil(offset, length)
      }
    },
  ],
  [
    2,
    'reads fail',
    (disk, random) => {
      disk.faults.failReads = random.between(1, 10)
    },
  ],
  [
    4,
    'writes fail for a while',
    (disk, random) => {
      disk.faults.failWrites = random.between(1, 5)
    },
  ],
  [
    2,
    'writes fail',
    (disk) => {
      disk.faults.writesFail = true
    },
  ],
  [
    3,
    'flushes fail',
    (disk, random) => {
      disk.faults.failFlushes = random.between(1, 3)
    },
  ],
  [
    4,
    'pulled out',
    (disk, random, world) => {
      world.unplug(disk, random.chance(0.6))
    },
  ],
  [
    2,
    'hangs, then is gone',
    (disk, random, world) => {
      const { machine } = world
      disk.device?.stall(true)
      return world.scheduler.after(random.exponential(200), () => {
        if (world.machine === machine && disk.present) world.unplug(disk, true)
      })
    },
  ],
  [
    2,
    'hangs for a while',
    (disk, random, world) => {
      const device = disk.device
      device?.stall(true)
      return world.scheduler.after(random.exponential(500), () => device?.stall(false))
    },
  ],
]

export const FLAPS: typeof FAULTS = [
  [
    12,
    'flaps',
    (disk, random, world) => {
      void world.flap(disk, random)
      return undefined
    },
  ],
]

export class Faults {
  readonly #world: World
  readonly #wounds: Wounds
  readonly #random: SimRandom
  /** For the kinds that came later: old ones stay as frequent as they were. */
  readonly #quietly: SimRandom
  /** The disk that is in trouble, or was and is not whole again. */
  faulty: SimDisk | undefined
  /** It was replaced, and goes to the scrap heap. */
  #isDiscarded = false
  #later: Timer | undefined
  readonly #healing: Healing
  /** What disks may hold that were used apart from each other, until all are whole. */
  parts: Parts | undefined
  /** More disks are in trouble than redundancy bears. */
  isBeyond = false

  readonly #mixture: Mixture

  constructor(world: World, random: SimRandom, mixture: Mixture) {
    this.#mixture = mixture
    this.#world = world
    this.#wounds = new Wounds(world)
    this.#healing = new Healing(world, random.fork('healing'), this)
    this.#random = random
    this.#quietly = random.fork('quiet faults')
  }

  /** Does everything that has a copy bear trouble with `disk` now? */
  isBearable(machine: Machine, disk: SimDisk): boolean {
    return [...this.#world.units].every((unit) => {
      const volume = volumeOf(machine, unit.uuid)
      return volume && (isPlain(machine, unit.uuid) || survives(machine, volume, disk.name))
    })
  }

  /** Chooses a disk that is in use and whose trouble is bearable; undefined: there is none. */
  choose(machine: Machine): SimDisk | undefined {
    if (this.faulty) return undefined
    const used = new Set(volumesOf(machine).flatMap((volume) => [...drivesOf(volume)]))
    const disks = this.#world.disks.filter(
      (disk) => disk.present && used.has(disk.name) && this.isBearable(machine, disk),
    )
    return disks.length > 0 ? this.#random.pick(disks) : undefined
  }

  /** Marks `disk` as the one in trouble: plain volumes on it may fail from now on. */
  mark(machine: Machine, disk: SimDisk): void {
    this.faulty = disk
    for (const unit of this.#world.units) {
      const volume = volumeOf(machine, unit.uuid)
      // What has no copy may be about to move to it.
      const moves = isPlain(machine, unit.uuid) && jobsOf(machine).includes('move')
      if (!volume || moves || !survives(machine, volume, disk.name)) unit.mayFail = true
    }
  }

  inject(machine: Machine): void {
    const disk = this.choose(machine)
    if (!disk) return
    this.mark(machine, disk)
    const kind = this.#quietly.weighted(KINDS)
    if (kind === 'beyond' && this.#pullTwo(machine, disk)) return
    const random = kind === 'quiet' ? this.#quietly : this.#random
    const loud = this.#mixture.has('flapping') ? [...FAULTS, ...FLAPS] : FAULTS
    const rows = kind === 'quiet' ? this.#quietFaults(machine) : loud
    const [name, fault] = random.weighted(rows.map((row) => [row[0], [row[1], row[2]]] as const))
    this.#world.counts.faults++
    this.#world.note('fault', `${disk.name}: ${name}`)
    this.#later = fault(disk, random, this.#world, this.#wounds)
  }

  /**
   * Two disks of one volume are pulled out, at once or one after the other: errors are right until they are back.
   * False: there is no such pair.
   */
  #pullTwo(machine: Machine, disk: SimDisk): boolean {
    const world = this.#world
    const random = this.#quietly
    const partners = volumesOf(machine)
      .filter((volume) => isRedundant(volume) && drivesOf(volume).has(disk.name))
      .flatMap((volume) => [...drivesOf(volume)])
    const others = world.disks.filter(
      (one) => one !== disk && one.present && partners.includes(one.name),
    )
    if (others.length === 0) return false
    const second = random.pick(others)
    this.isBeyond = true
    world.counts.faults++
    world.note('fault', `${disk.name}, ${second.name}: pulled out`)
    for (const unit of world.units) unit.mayFail = true
    this.rowsInDoubt()
    world.unplug(disk, random.chance(0.5))
    this.#later = world.scheduler.after(random.pick([0, random.exponential(5), 100]), () => {
      if (world.machine !== machine || !second.present) return
      this.rowsInDoubt()
      world.unplug(second, random.chance(0.5))
    })
    return true
  }

  /** Where a column is computed, what is under way in its row counts, also when it has failed. */
  rowsInDoubt(): void {
    const { machine } = this.#world
    for (const unit of this.#world.units) {
      const volume = machine && volumeOf(machine, unit.uuid)
      if (volume) unit.rowSizes = rowSizes(volume)
      unit.damageRows(unit.rowSizes)
    }
  }

  /** Rows of the volume that a power cut now may damage: raid5 that is not whole. */
  rowsAtRisk(uuid: string): readonly number[] {
    const { machine } = this.#world
    const volume = machine && volumeOf(machine, uuid)
    if (!volume) return []
    // A part may have moved to the disk in trouble, and nobody knows it yet.
    const moves = this.faulty !== undefined && jobsOf(machine).includes('move')
    // A plex with all of its columns knows what another one would have to compute.
    const isSafe = volume.components.some(({ children }) =>
      children.every((one) => isUp(one) && one.drive !== this.faulty?.name),
    )
    return isSafe && !moves ? [] : rowSizes(volume)
  }

  /** Does the volume close the write hole? Then no cut takes anything from it. */
  hasLog(uuid: string): boolean {
    const { machine } = this.#world
    const volume = machine && volumeOf(machine, uuid)
    return volume !== undefined && hasLog(volume)
  }

  /** Data changes only while everything is whole, and nothing on its way to another place. */
  #quietFaults(machine: Machine): typeof QUIET_FAULTS {
    const isCalm = [...this.#world.units].every((unit) => isWhole(machine, unit.uuid))
    return isCalm ? [...QUIET_FAULTS, ...DATA_FAULTS] : QUIET_FAULTS
  }

  /** The disk in trouble was replaced: where it was comes a new one. */
  discard(disk: SimDisk): void {
    this.#world.note('discarded', disk.name)
    this.#isDiscarded = disk === this.faulty
  }

  /** Takes the trouble away, and waits until everything is whole again. */
  async recover(machine: Machine): Promise<void> {
    const { faulty } = this
    const world = this.#world
    if (!faulty) return
    this.#later?.cancel()
    await this.#wounds.mustBeFound(machine)
    if (world.machine !== machine) return
    world.note('repaired', faulty.name)
    faulty.heal()
    // A drive that could not be read when it was looked at is looked at again when it is plugged in.
    const known = drivesIn(machine).find(({ name }) => name === faulty.name)
    // One whose label could not be used is not looked at again while the set waits for it.
    const waits = [...world.units].some(({ uuid }) => !volumeOf(machine, uuid))
    if (faulty.device && (known?.device === undefined || this.#isDiscarded || waits)) {
      world.unplug(faulty, false)
    }
    if (this.#isDiscarded) faulty.media.renew(this.#quietly)
    this.#isDiscarded = false
    if (this.isBeyond) this.rowsInDoubt()
    for (const disk of this.#quietly.shuffle([...world.disks])) {
      if (!disk.device) await world.plug(disk)
    }
    if (world.machine !== machine) return
    await this.#healing.answered(machine)
    await this.#healing.heal(machine)
    if (world.machine !== machine) return
    await this.#wounds.mend(machine)
    await this.#healing.flush(machine)
    if (world.machine !== machine) return
    this.faulty = undefined
    this.isBeyond = false
    this.#isFine()
  }

  /** Starts what is needed until every volume is healthy and no job is left. */
  async becomeWhole(machine: Machine): Promise<void> {
    await this.#healing.heal(machine)
    if (this.#world.machine === machine) this.#isFine()
  }

  /** No error is right any more, and all blocks have one content. */
  #isFine(): void {
    this.parts = undefined
    for (const unit of this.#world.units) {
      unit.mayFail = false
      unit.oracle.mend()
    }
  }
}
