/**
 * What operators do to thin devices while users work: verbs of the class's own table, through the same door as the control
 * server. A new verb is a row of {@link ACTIONS}. Used by thin-play.ts.
 */
import type { ObjectList } from '../../../src/control/reports.ts'
import type { FsckReport } from '../../../src/control/virstor-verbs.ts'
import type { SimDisk } from '../disk.ts'
import type { SimRandom } from '../random.ts'
import type { Machine, World } from '../world.ts'
import type { ThinUnit } from './thin-unit.ts'
import { mirrors, setOf, thinDevice, unusedDevices } from './thin-view.ts'

const KIB = 1024
const UNITS_MAX = 2
const CHUNKS_MAX = 600
const SIZE_BYTES_MAX = 128 * 1024 * KIB
/** A mirror of smaller disks is too small for a component, and nothing ever takes it away again. */
const MIRROR_BYTES_MIN = 2 * 1024 * KIB

/** What a thin device says of its space. */
type Space = 'usedBytes' | 'freeBytes' | 'physicalBytes'

export interface OperatorOptions {
  /** Devices are larger than their space, so that they are full soon. */
  readonly isFull: boolean
  /** Some components are mirrors. */
  readonly isMirrored: boolean
  /** The disk that is in trouble, or was and is not whole again. */
  readonly faulty: () => SimDisk | undefined
  /** Takes devices under the oracle that are new. */
  readonly adopt: (machine: Machine) => Promise<void>
}

/** Of thin devices; those of mirrors nobody steers here. */
const JOBS: ReadonlySet<string> = new Set(['trim', 'evacuate', 'rebalance'])

type Parameters = Readonly<Record<string, string | boolean | readonly string[]>>

/** One thing that is done to one device. */
interface Action {
  readonly weight: number
  readonly verb: string
  readonly run: (operator: Operator, machine: Machine, unit: ThinUnit) => Promise<unknown>
}

const ACTIONS: readonly Action[] = [
  { weight: 3, verb: 'create', run: (operator, machine) => operator.create(machine) },
  {
    weight: 6,
    verb: 'add',
    run: (operator, machine, { name }) => {
      const devices = operator.some(machine, operator.random.between(1, 2))
      return operator.verb('add', { name, devices, wipeSignatures: true })
    },
  },
  { weight: 1, verb: 'destroy', run: (operator, machine, unit) => operator.destroy(machine, unit) },
  { weight: 1, verb: 'assemble', run: (operator) => operator.force() },
  { weight: 2, verb: 'list', run: (operator, machine) => operator.list(machine) },
  {
    weight: 3,
    verb: 'grow',
    run: (operator, machine, { name, uuid }) => {
      const { sizeBytes = 0 } = thinDevice(machine, uuid) ?? {}
      const size = Math.min(SIZE_BYTES_MAX, sizeBytes + operator.random.between(1, 40) * 128 * KIB)
      return operator.verb('grow', { name, size: String(size) })
    },
  },
  {
    weight: 2,
    verb: 'trim',
    run: (operator, _machine, { name }) => operator.verb('trim', { name }),
  },
  { weight: 4, verb: 'remove', run: (operator, machine, unit) => operator.remove(machine, unit) },
  { weight: 4, verb: 'remove', run: (operator, machine, unit) => operator.giveUp(machine, unit) },
  {
    weight: 3,
    verb: 'rebalance',
    run: (operator, _machine, { name }) => operator.verb('rebalance', { name }),
  },
  { weight: 4, verb: 'trim', run: (operator, machine) => operator.steerJob(machine) },
  { weight: 2, verb: 'fsck', run: (operator, machine, { name }) => operator.check(machine, name) },
  {
    weight: 1,
    verb: 'set',
    run: (operator, _machine, { name }) =>
      operator.verb('set', { name, warnChunks: String(operator.random.between(0, 9)) }),
  },
  {
    weight: 2,
    verb: 'destroy',
    run: (operator, _machine, { name }) => operator.verb('destroy', { name, dryRun: true }),
  },
]

export class Operator {
  readonly random: SimRandom
  readonly #world: World
  readonly #options: OperatorOptions
  #named = 0
  #hasDestroyed = false

  constructor(world: World, random: SimRandom, options: OperatorOptions) {
    this.#world = world
    this.random = random
    this.#options = options
  }

  /** One action, chosen by chance. Resolves when it has ended. */
  async act(machine: Machine): Promise<void> {
    const units = [...this.#world.units].filter((one) => thinDevice(machine, one.uuid))
    if (units.length === 0) {
      await this.create(machine)
      return
    }
    const rows = ACTIONS.filter(({ verb }) => this.knows(machine, verb))
    const action = this.random.weighted(rows.map((row) => [row.weight, row] as const))
    await action.run(this, machine, this.random.pick(units) as ThinUnit)
  }

  /** Verbs come and go with versions of the engine. */
  knows(machine: Machine, name: string): boolean {
    const verbs = machine.topology.classes.flatMap((one) => one.verbs)
    return verbs.some(({ spec }) => spec.noun === 'virstor' && spec.name === name)
  }

  verb(name: string, parameters: Parameters): Promise<unknown> {
    return this.#world.verb('virstor', name, parameters)
  }

  /** A device of any kind on some disks; it is under the oracle as soon as it is there. */
  async create(machine: Machine): Promise<void> {
    const world = this.#world
    const { random } = this
    const { isFull, isMirrored, adopt } = this.#options
    if (world.units.size >= UNITS_MAX) return
    if (isMirrored && random.chance(0.7)) await this.#createMirror(machine)
    if (world.machine !== machine) return
    const devices = this.some(machine, random.between(1, 4))
    if (devices.length === 0) return
    const chunkBytes = random.pick([128, 128, 256, 384, 512, 1024]) * KIB
    const rawBytes = devices.reduce((sum, name) => sum + this.#sizeOf(machine, name), 0)
    const part = isFull ? random.between(80, 400) : random.pick([20, 60, 100, 150, 1000])
    const chunks = Math.ceil((rawBytes * part) / 100 / chunkBytes)
    const name = `t${this.#named++}`
    const refusal = await world.verb('virstor', 'create', {
      name,
      devices,
      size: String(Math.max(2, Math.min(CHUNKS_MAX, chunks)) * chunkBytes),
      chunk: String(chunkBytes),
      policy: random.pick(['sequential', 'round-robin']),
      fullWait: random.pick(isFull ? ['0', '200ms', '2s', '20s'] : ['0', '20s']),
      wipeSignatures: true,
    })
    if (world.machine === machine && !refusal) await adopt(machine)
  }

  async #createMirror(machine: Machine): Promise<void> {
    const devices = this.some(machine, 2).filter(
      (name) => (this.#disk(name)?.sizeBytes ?? 0) >= MIRROR_BYTES_MIN,
    )
    if (devices.length < 2) return
    const name = `m${this.#named++}`
    const parameters = { devices, name, wipeSignatures: true }
    await this.#world.verb('vinum', 'mirror', parameters)
  }

  /** A component that was away when its device was destroyed waits for the others for ever: nobody goes on with that. */
  async force(): Promise<void> {
    if (!this.#hasDestroyed) await this.verb('assemble', { force: true })
  }

  /** As an operator must: users let go first. */
  async destroy(machine: Machine, unit: ThinUnit): Promise<void> {
    const world = this.#world
    if (world.units.size < 2) return
    unit.doomed = true
    await unit.idle()
    await unit.close()
    if (world.machine !== machine) return
    this.#hasDestroyed = true
    const error = await world.verb('virstor', 'destroy', { name: unit.name })
    if (world.machine !== machine) return
    // One whose configuration could not be written may be gone at the next start, or not.
    if (thinDevice(machine, unit.uuid)) {
      if (!unit.mayFail) unit.doomed = false
      await unit.open(machine)
    } else if (!error) world.units.delete(unit)
  }

  /** What it says of space must add up. */
  async list(machine: Machine): Promise<void> {
    const world = this.#world
    let rows: ObjectList['objects'] = []
    await world.verb('virstor', 'list', {}, (answer) => {
      rows = (answer as ObjectList).objects
    })
    if (world.machine !== machine) return
    // One that is not served has no space to tell of.
    for (const row of rows.filter(({ state }) => state !== 'DOWN')) {
      const { usedBytes, freeBytes, physicalBytes } = row.facts as Record<Space, number>
      if (usedBytes >= 0 && freeBytes >= 0 && usedBytes + freeBytes <= physicalBytes) continue
      world.fail(`${row.name}: its space does not add up`, [JSON.stringify(row)])
    }
  }

  /** Where no disk is in trouble nothing is found, whatever users and verbs are at. */
  async check(machine: Machine, name: string): Promise<void> {
    const world = this.#world
    const wasCalm = !this.#options.faulty()
    let report: FsckReport | undefined
    const repair = this.random.chance(0.3) ? { repair: true } : {}
    await world.verb('virstor', 'fsck', { name, ...repair }, (answer) => {
      report = answer as FsckReport
    })
    if (world.machine !== machine || !wasCalm || this.#options.faulty()) return
    if (report && report.found > 0) {
      const texts = report.findings.map((one) => JSON.stringify(one))
      world.fail(`${name}: a check finds what nobody has damaged`, texts)
    }
  }

  /** One component leaves, or two. */
  async remove(machine: Machine, { name, uuid }: ThinUnit): Promise<void> {
    const { components = [] } = thinDevice(machine, uuid) ?? {}
    const devices = this.random
      .shuffle(components.map((one) => one.name))
      .slice(0, this.random.pick([1, 1, 2]))
    await this.verb('remove', { name, devices })
  }

  /** What lies on components that are missing is lost from then on: reads of it fail, and are never zeroes. */
  async giveUp(machine: Machine, { name, oracle }: ThinUnit): Promise<void> {
    const world = this.#world
    const set = setOf(machine, name)
    if (!set?.device) return
    const { components, chunkBytes } = set.model
    const missing = components.filter((one) => set.driveOf(one).record.state !== 'up')
    if (missing.length === 0) return
    const devices = missing.map((one) => set.driveOf(one).record.name)
    const remove = { name, devices, force: true }
    if (await world.verb('virstor', 'remove', { ...remove, dryRun: true })) return
    if (world.machine !== machine || !set.device) return
    const { table } = set.device
    const losses = missing
      .flatMap(({ id }) => [...table.chunksOn(id)])
      .map((chunk) => [chunk, oracle.beginLoss(chunk * chunkBytes, chunkBytes)] as const)
    const error = await world.verb('virstor', 'remove', remove)
    if (world.machine !== machine) return
    for (const [chunk, loss] of losses) {
      // A chunk of which nothing was durable may have gone with the last write that failed, and is as it was before.
      oracle.endWrite(loss, !error && table.isLost(chunk), true)
    }
    if (!error) world.note('given up', `${name}: ${losses.length} chunks`)
  }

  /** Pauses, resumes or cancels a job. */
  async steerJob(machine: Machine): Promise<void> {
    const jobs = machine.topology.jobs.list().filter((job) => JOBS.has(job.report().kind))
    if (jobs.length === 0) return
    const job = this.random.pick(jobs)
    const { id, state } = job.report()
    const what = this.random.pick(['pause', 'resume', 'cancel'])
    await this.#world.attempt(`${what} ${id}`, async () => {
      if (what === 'pause' && state === 'running') await job.pause()
      else if (what === 'resume' && state === 'paused') job.resume()
      else if (what === 'cancel' && state !== 'done') await job.cancel()
    })
  }

  /** Devices that nobody uses, nor waits for, none of them in trouble. */
  some(machine: Machine, count: number): readonly string[] {
    const units = [...this.#world.units]
    if (!units.every(({ uuid }) => thinDevice(machine, uuid))) return []
    const unused = unusedDevices(this.#world, machine, this.#options.faulty())
    return this.random.shuffle([...unused]).slice(0, count)
  }

  #disk(name: string) {
    return this.#world.disks.find((one) => one.name === name)
  }

  #sizeOf(machine: Machine, name: string): number {
    const volume = mirrors(machine).find((one) => one.name === name)
    return volume?.sizeBytes ?? this.#disk(name)?.sizeBytes ?? 0
  }
}
