/**
 * What operators do while users work: verbs of the class's own table (src/engine/vinum/verbs), through the
 * same door as the control server, and jobs that are paused, resumed and cancelled. A verb that is refused must
 * have changed nothing; the oracle sees to that. Used by vinum-play.ts.
 */
import type { PlexusError } from '../../src/base/errors.ts'
import { handleSpares, SPARE_DISKS } from './episodes/spares.ts'
import type { Faults } from './faults.ts'
import type { SimRandom } from './random.ts'
import { rehearse } from './rehearsal.ts'
import type { Unit } from './unit.ts'
import { drivesIn, drivesOf, subdisksOf, volumeOf, volumesOf } from './view.ts'
import type { Machine, World } from './world.ts'

const KIB = 1024
const UNITS_MAX = 4
const STRIPES = [4, 16, 64, 128] as const
const WIDE_STRIPES = [4, 16, 64, 128, 256, 512, 1024, 1536] as const
const WIDE_COLUMN_BYTES = 1536 * KIB

interface AdminOptions {
  /** Many columns, and stripes of all sizes. */
  readonly isWide: boolean
  /** There are disks that are spares. */
  readonly hasSpares: boolean
  /** Takes volumes under the oracle that are new. */
  readonly adopt: (machine: Machine) => Promise<void>
}

export class Admin {
  readonly #world: World
  readonly #random: SimRandom
  readonly #faults: Faults
  /** For what came later: the old verbs stay as frequent as they were. */
  readonly #later: SimRandom
  /** A volume may have come of a verb that the power cut off. */
  creating = false
  #named = 0

  readonly #options: AdminOptions

  constructor(world: World, random: SimRandom, faults: Faults, options: AdminOptions) {
    this.#world = world
    this.#random = random
    this.#later = random.fork('later verbs')
    this.#faults = faults
    this.#options = options
  }

  /** One verb, chosen by chance. Resolves when it has ended. */
  async act(machine: Machine): Promise<void> {
    const random = this.#random
    const units = [...this.#world.units].filter((one) => volumeOf(machine, one.uuid))
    const unit = units.length > 0 ? random.pick(units) : undefined
    if (this.#options.hasSpares && unit && this.#later.chance(0.15)) {
      await handleSpares(this.#world, this.#later, unit.name)
      return
    }
    const action = this.#later.chance(0.1)
      ? this.#later.weighted(LATER_ACTIONS)
      : random.weighted(ACTIONS)
    // While a disk is in trouble nothing is placed anew: which errors are right would be anybody's guess.
    if (this.#faults.faulty && PLACES.has(action)) return
    if (action === 'create') await this.create(machine)
    else if (unit) await this.#on[action](machine, unit)
  }

  readonly #on: Readonly<
    Record<Exclude<Action, 'create'>, (machine: Machine, unit: Unit) => Promise<unknown>>
  > = {
    rename: (machine, unit) => this.#rename(machine, unit),
    grow: async (_machine, { name }) => {
      const devices = this.#some(this.#random.between(1, 2))
      await this.#verb('volume', 'grow', { name, devices, wipeSignatures: true })
    },
    move: async (machine, unit) => {
      const volume = volumeOf(machine, unit.uuid)
      const subdisks = volume ? subdisksOf(volume).map(({ name }) => name) : []
      const drive = this.#some(1)[0]
      if (subdisks.length === 0 || drive === undefined) return
      const parameters = { drive, subdisks: [this.#random.pick(subdisks)], wipeSignatures: true }
      await this.#verb('vinum', 'move', parameters)
    },
    'add-mirror': async (_machine, { name }) => {
      const devices = this.#some(this.#random.between(1, 3))
      await this.#verb('volume', 'add-mirror', { name, devices, wipeSignatures: true })
    },
    'remove-mirror': async (machine, unit) => {
      const volume = volumeOf(machine, unit.uuid)
      if (!volume || volume.components.length < 2) return
      const plex = this.#random.pick(volume.components).name
      await this.#verb('volume', 'remove-mirror', { name: unit.name, plex })
    },
    policy: async (machine, unit) => {
      const readPolicy = this.#random.pick(['round-robin', 'least-queue', 'prefer'])
      const plexes = volumeOf(machine, unit.uuid)?.components ?? []
      const plex = plexes.length > 0 ? this.#random.pick(plexes).name : ''
      const choice = readPolicy === 'prefer' ? { plex } : {}
      await this.#verb('volume', 'set', { name: unit.name, readPolicy, ...choice })
    },
    scrub: async (_machine, { name }) => {
      const repair = this.#random.chance(0.3) ? { repair: true } : {}
      await this.#verb('volume', 'scrub', { name, ...repair })
    },
    start: async (_machine, { name }) => {
      await this.#verb('vinum', 'start', { objects: [name] })
    },
    detach: (machine, unit) => this.#detach(machine, unit),
    destroy: (machine, unit) => this.#destroy(machine, unit),
    job: async (machine) => {
      const jobs = machine.topology.jobs.list().filter((job) => job.report().state !== 'done')
      if (jobs.length === 0) return
      const job = this.#random.pick(jobs)
      const { id, kind, state } = job.report()
      const what = this.#random.pick(['pause', 'resume', 'limit', 'cancel'])
      await this.#world.attempt(`${what} ${id}`, async () => {
        if (what === 'pause' && state === 'running') await job.pause()
        else if (what === 'resume' && state === 'paused') job.resume()
        else if (what === 'limit') job.setLimit(this.#random.pick([20e6, 200e6]))
        else if (what === 'cancel' && kind !== 'resync' && !this.#faults.faulty) await job.cancel()
      })
    },
    replace: (machine, unit) => this.#replace(machine, unit),
    retire: async (machine) => {
      const used = new Set(volumesOf(machine).flatMap((volume) => [...drivesOf(volume)]))
      const idle = drivesIn(machine).filter(({ name }) => !used.has(name))
      if (idle.length === 0) return
      await this.#verb('vinum', 'rm', { objects: [this.#later.pick(idle).name] })
    },
    rehearse: async (machine, { name }) => {
      const objects = drivesIn(machine).map((drive) => drive.name)
      const [noun, verb, parameters] = this.#later.pick([
        ['vinum', 'stop', {}],
        ['vinum', 'resetconfig', { force: true }],
        ['vinum', 'rm', { objects, recursive: true, force: true }],
        ['volume', 'destroy', { name, force: true }],
      ] as const)
      await this.#rehearse(noun, verb, parameters)
    },
    look: async () => {
      await this.#world.verb('vinum', 'list', {})
      await this.#world.verb('vinum', 'printconfig', {})
      if (this.#random.chance(0.5)) await this.#verb('vinum', 'saveconfig', {})
    },
  }

  /** A volume of any kind on some disks; it is under the oracle as soon as it is there. */
  async create(machine: Machine): Promise<void> {
    const world = this.#world
    const random = this.#random
    if (world.units.size >= UNITS_MAX) return
    const name = `v${this.#named++}`
    const { isWide } = this.#options
    const kind = random.weighted([
      [4, 'mirror'],
      [isWide ? 8 : 4, 'raid5'],
      [1, 'stripe'],
      [1, 'concat'],
      [1, 'striped mirror'],
    ] as const)
    const most = { mirror: 3, raid5: isWide ? 16 : 5, stripe: isWide ? 16 : 5, concat: 5 }
    const stripeBytes = random.pick(isWide ? WIDE_STRIPES : STRIPES) * KIB
    const stripeSize = String(stripeBytes)
    // Wide rows count only where whole ones fit.
    const rows = Math.max(1, Math.floor(random.below(WIDE_COLUMN_BYTES) / stripeBytes))
    const sizeOf = (columns: number): string =>
      String(
        isWide && kind === 'raid5'
          ? rows * (columns - 1) * stripeBytes
          : random.between(4, 40) * 64 * KIB,
      )
    const wipeSignatures = true
    this.creating = true
    if (kind === 'striped mirror') {
      const devices = this.#some(4)
      await this.#verb('vinum', 'mirror', { devices, striped: true, name, wipeSignatures })
    } else {
      const least = { mirror: 2, raid5: 3, stripe: 2, concat: 1 }[kind]
      const devices = this.#some(random.between(least, most[kind]))
      const parity = random.pick(['left-symmetric', 'left-asymmetric'])
      const layout = {
        mirror: { mirror: devices },
        concat: { concat: devices },
        stripe: { stripe: devices, stripeSize },
        raid5: { raid5: devices, stripeSize, parity },
      }[kind]
      await this.#verb('volume', 'create', {
        name,
        size: sizeOf(devices.length),
        ...layout,
        wipeSignatures,
      })
    }
    if (world.machine !== machine) return
    this.creating = false
    await this.#options.adopt(machine)
  }

  /** As the world carries it out; at times it is only said first what would happen. */
  async #verb(...[noun, name, parameters]: Verb): Promise<PlexusError | undefined> {
    if (this.#later.chance(0.1)) await this.#rehearse(noun, name, parameters)
    return this.#world.verb(noun, name, parameters)
  }

  #rehearse(...[noun, name, parameters]: Verb): Promise<void> {
    return rehearse(this.#world, noun, name, parameters, () => !this.#faults.faulty)
  }

  /** A drive of the volume leaves for a spare disk: one in trouble only when the engine has given it up. */
  async #replace(machine: Machine, unit: Unit): Promise<void> {
    const { faulty } = this.#faults
    const volume = volumeOf(machine, unit.uuid)
    const drives = volume ? [...drivesOf(volume)] : []
    const oldDrive = faulty ? faulty.name : drives.length > 0 ? this.#later.pick(drives) : ''
    const drive = drivesIn(machine).find(({ name }) => name === oldDrive)
    const isOut = drive?.state === 'DOWN' || drive?.device === undefined
    if (!drive || !drives.includes(oldDrive) || (faulty && !isOut)) return
    const spares = this.#world.disks.filter(
      (one) => one.present && one !== faulty && !drives.includes(one.name),
    )
    if (spares.length === 0) return
    const newDevice = this.#later.pick(spares).name
    const wish = { name: unit.name, oldDrive, newDevice, wipeSignatures: true }
    const error = await this.#verb('volume', 'replace', wish)
    if (error || !faulty || this.#world.machine !== machine) return
    // Taken out of its set: it comes back as a new disk.
    if (!drivesIn(machine).some(({ uuid }) => uuid === drive.uuid)) this.#faults.discard(faulty)
  }

  async #rename(machine: Machine, unit: Unit): Promise<void> {
    const to = `r${this.#named++}`
    // As an operator must: the unit lets go, and comes back under the new name.
    await unit.idle()
    await unit.close()
    // A power cut ends the wait, too.
    if (this.#world.machine !== machine) return
    const error = await this.#verb('volume', 'rename', { name: unit.name, to })
    if (this.#world.machine !== machine) return
    if (!error) unit.name = to
    await unit.open(machine)
  }

  async #detach(machine: Machine, unit: Unit): Promise<void> {
    const volume = volumeOf(machine, unit.uuid)
    if (!volume || volume.components.length < 2) return
    const plex = this.#random.pick(volume.components).name
    const error = await this.#verb('vinum', 'detach', { object: plex })
    if (error || this.#world.machine !== machine) return
    await this.#world.pause(this.#random.exponential(50))
    await this.#verb('vinum', 'attach', { object: plex, parent: unit.name })
  }

  async #destroy(machine: Machine, unit: Unit): Promise<void> {
    if (this.#world.units.size < 2) return
    unit.doomed = true
    await unit.idle()
    await unit.close()
    if (this.#world.machine !== machine) return
    const error = await this.#verb('volume', 'destroy', { name: unit.name })
    if (this.#world.machine !== machine) return
    unit.doomed = false
    if (error) await unit.open(machine)
    else this.#world.units.delete(unit)
  }

  /** Disks that are plugged in. */
  #some(count: number): readonly string[] {
    const present = this.#world.disks.filter((one) => one.present).map(({ name }) => name)
    const free = present.filter((name) => !SPARE_DISKS.includes(name))
    return this.#random.shuffle(free).slice(0, count)
  }
}

const ACTIONS = [
  [3, 'create'],
  [2, 'rename'],
  [4, 'grow'],
  [4, 'move'],
  [3, 'add-mirror'],
  [2, 'remove-mirror'],
  [2, 'policy'],
  [4, 'scrub'],
  [2, 'start'],
  [2, 'detach'],
  [1, 'destroy'],
  [4, 'job'],
  [2, 'look'],
] as const
/** A tenth of all. */
const LATER_ACTIONS = [
  [4, 'replace'],
  [1, 'retire'],
  [2, 'rehearse'],
] as const
type Action = (typeof ACTIONS | typeof LATER_ACTIONS)[number][1]
type Verb = readonly [
  noun: string,
  name: string,
  parameters: Readonly<Record<string, string | boolean | readonly string[]>>,
]
const PLACES: ReadonlySet<Action> = new Set([
  // Waits until the unit is idle, which may be long after the disk is back.
  'rename',
  'create',
  'grow',
  'move',
  'add-mirror',
  'remove-mirror',
  'detach',
  'destroy',
  'retire',
])
