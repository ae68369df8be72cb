/**
 * The simulated machine: disks that outlive it, and the shipped engine that is started on them at every boot
 * and dropped at every power cut. Nothing of a dead machine runs on: its clock, its buffers and its view of
 * the disks are dead. The run ends at the first violation. Driven by vinum-play.ts.
 */
import { PlexusError } from '../../src/base/errors.ts'
import { silentLogger } from '../../src/base/log.ts'
import type { EngineOptions } from '../../src/engine/engine.ts'
import type { Topology } from '../../src/engine/geom/topology.ts'
import type { AlignedPool } from '../../src/hal/aligned-pool.ts'
import type { BlockDevice } from '../../src/hal/block-device.ts'
import { Scheduler, SimClock } from './clock.ts'
import { SimDisk, type SimDiskOptions } from './disk.ts'
import { OracleClock } from './oracle.ts'
import { EpochPool } from './pool.ts'
import { SimRandom } from './random.ts'
import { Trace, WORLD } from './trace.ts'
import type { Unit } from './unit.ts'
import { SimWitness } from './witness.ts'

/** The engine did what it must never do. */
export class Violation extends Error {
  override readonly name = 'Violation'
  readonly details: readonly string[]

  constructor(message: string, details: readonly string[] = []) {
    super(message)
    this.details = details
  }
}

export interface WorldOptions {
  readonly seed: number
  readonly pool: AlignedPool
  readonly disks: readonly SimDiskOptions[]
  readonly makeTopology: (options: EngineOptions) => Topology
  /** Stands between the engine and each disk: how a broken build is made for the test of the test. */
  readonly wrapDevice?: ((device: BlockDevice, scheduler: Scheduler) => BlockDevice) | undefined
  /** The machine takes an old note of its witness for a new one: a daemon that is broken on purpose. */
  readonly isWitnessFooled?: boolean | undefined
}

/** One power-up. */
export interface Machine {
  readonly clock: SimClock
  readonly pool: EpochPool
  readonly topology: Topology
}

/** Nothing that somebody waits for may take longer. */
export const HANG_MS = 3_600_000
/** The daemon tries a device that the engine has not taken again and again; so often it must not be needed. */
const PLUG_TRIES = 10
const PLUG_RETRY_MS = 1000
/** 2026-01-01: wall-clock time of the start of every run. */
const START_MS = Date.UTC(2026, 0, 1)

export class World {
  readonly seed: number
  readonly random: SimRandom
  readonly scheduler = new Scheduler()
  readonly trace = new Trace()
  readonly oracleClock = new OracleClock()
  readonly disks: SimDisk[]
  readonly witness: SimWitness
  readonly units = new Set<Unit>()
  readonly counts = { operations: 0, cuts: 0, kills: 0, boots: 0, faults: 0, verbs: 0, jobs: 0 }
  machine: Machine | undefined
  violation: Violation | undefined
  readonly #options: WorldOptions
  /** Requests to a disk that take longer are given up. */
  readonly #timeoutMs: number

  constructor(options: WorldOptions) {
    this.#options = options
    this.seed = options.seed
    this.random = new SimRandom(options.seed)
    this.#timeoutMs = this.random.fork('timeout').pick([5_000, 30_000])
    this.disks = options.disks.map((one) => this.makeDisk(one))
    this.witness = new SimWitness(this, this.random.fork('witness'))
  }

  get isWitnessFooled(): boolean {
    return this.#options.isWitnessFooled === true
  }

  /** It is not plugged in by that. */
  makeDisk(options: SimDiskOptions): SimDisk {
    const { scheduler, random, trace } = this
    const disk = new SimDisk(options, scheduler, random.fork(`disk ${options.name}`), trace)
    disk.onCacheLost = () => this.#cacheLost(disk)
    return disk
  }

  /** What does not end by then stands still. */
  async within<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
    const { machine } = this
    const watch = this.scheduler.after(ms, () => {
      if (this.machine === machine) this.fail(`${what}: it takes more than ${ms / 1000} s`)
    })
    try {
      return await work
    } finally {
      watch.cancel()
    }
  }

  /** Volumes without another copy may have lost what was not flushed. */
  #cacheLost(disk: SimDisk): void {
    this.note('cache lost', disk.name)
    for (const unit of this.units) unit.afterCacheLost()
  }

  get nowMs(): number {
    return this.scheduler.nowMs
  }

  /** Resolves after some time; never, when the power goes first. */
  pause(ms: number): Promise<void> {
    const { machine, scheduler } = this
    return new Promise((resolve) => {
      scheduler.after(ms, () => {
        if (this.machine === machine) resolve()
      })
    })
  }

  note(what: string, text: string, a = 0, b = 0): void {
    this.trace.add(this.nowMs, WORLD, what, a, b, text)
  }

  /** The first one counts. */
  fail(message: string, details: readonly string[] = []): void {
    if (this.violation) return
    this.violation = new Violation(message, details)
    this.note('VIOLATION', message)
  }

  /** Powers up: all disks that are plugged in are tasted. Resolves when the engine has settled. */
  async boot(): Promise<Machine> {
    this.counts.boots++
    this.note('boot', this.disks.map((one) => `${one.name}${one.present ? '' : ' missing'}`).join())
    const clock = new SimClock(this.scheduler)
    const pool = new EpochPool(this.#options.pool)
    const topology = this.#options.makeTopology({
      pool,
      clock,
      random: this.random.fork(`boot ${this.counts.boots}`),
      log: silentLogger(),
      now: () => new Date(START_MS + this.nowMs),
      witness: this.witness,
    })
    const machine: Machine = { clock, pool, topology }
    this.machine = machine
    topology.events.onEvent(({ event, object, message }) => {
      if (this.machine === machine) this.note(event, `${object}: ${message}`)
    })
    topology.jobs.onChange((job) => {
      if (this.machine !== machine) return
      const { id, kind, object, state, doneBytes, totalBytes, error } = job.report()
      if (state === 'done') this.counts.jobs++
      this.note(`job ${state}`, `${id} ${kind} ${object} ${error ?? ''}`, doneBytes, totalBytes)
    })
    topology.onProvider((provider, event) => {
      if (this.machine !== machine) return
      for (const unit of this.units) unit.providerEvent(machine, provider, event)
    })
    const present = this.random.shuffle(this.disks.filter((one) => one.present))
    for (const disk of present) {
      try {
        await this.#plug(machine, disk)
      } catch (error) {
        // One that does not answer is not waited for.
        if (!(error instanceof PlexusError) || !disk.hangs) throw error
      }
    }
    await topology.settle()
    return machine
  }

  /** The power goes: now, whatever is under way. */
  cut(): void {
    this.counts.cuts++
    this.note('power cut', '')
    for (const unit of this.units) unit.beforeCut()
    this.#drop((disk) => disk.powerCut())
    for (const unit of this.units) unit.oracle.cut(true)
  }

  /** The process is killed; the disks go on. */
  kill(): void {
    this.counts.kills++
    this.note('kill', '')
    for (const unit of this.units) unit.beforeCut()
    this.#drop((disk) => disk.detach())
    for (const unit of this.units) unit.afterKill()
  }

  /** The run is over. */
  abandon(): void {
    this.#drop((disk) => disk.detach())
  }

  /** What has begun and not ended, for the report of a standstill. */
  *outstanding(): Generator<string> {
    for (const unit of this.units) yield* unit.outstanding()
    for (const disk of this.disks) {
      if (disk.device) yield `${disk.name}: ${disk.device.inFlight} requests`
    }
  }

  #drop(end: (disk: SimDisk) => void): void {
    const { machine } = this
    this.machine = undefined
    machine?.clock.kill()
    for (const disk of this.disks) end(disk)
    // Not before: what a disk makes of a write under way comes from its buffer.
    machine?.pool.abandon()
    for (const unit of this.units) unit.drop()
  }

  /** As systemd stops the daemon: in order. Buffers that are still lent out then are a leak. */
  async shutdown(machine: Machine): Promise<void> {
    this.note('shutdown', '')
    for (const unit of this.units) await unit.close()
    await machine.topology.stop()
    if (this.machine !== machine) return
    const isAnswered = this.disks.every((disk) => !disk.hangs)
    if (machine.pool.leased > 0 && isAnswered) {
      this.fail(`${machine.pool.leased} buffers are lent out after the engine has stopped`)
    }
    const busy = this.disks.filter((one) => !one.hangs && (one.device?.inFlight ?? 0) > 0)
    if (busy.length > 0) {
      this.fail(`${busy.map((one) => one.name).join()} have requests after the engine has stopped`)
    }
    for (const unit of this.units) unit.beforeCut()
    this.#drop((disk) => disk.powerCut())
    for (const unit of this.units) unit.oracle.cut(true)
  }

  /** A disk is pulled out. */
  unplug(disk: SimDisk, powerLost: boolean): void {
    this.note('unplug', `${disk.name}${powerLost ? ', its cache is lost' : ''}`)
    disk.lose(powerLost)
    // The HAL's `gone` event takes it out of the graph.
  }

  /** And comes back with what it had. Resolves when the engine has taken it, or it has left again. */
  async plug(disk: SimDisk): Promise<void> {
    const { machine } = this
    this.note('plug', disk.name)
    disk.present = true
    if (!machine) return
    // The daemon opens a device again when the old one has left the graph.
    await machine.topology.quiet()
    for (let tries = 0; this.machine === machine && disk.present && !disk.device; tries++) {
      try {
        await this.#plug(machine, disk)
      } catch (error) {
        if (!(error instanceof PlexusError)) throw error
        if (tries === PLUG_TRIES) this.fail(`${disk.name} is never taken: ${error.message}`)
        // As the daemon does.
        disk.release()
        await this.pause(PLUG_RETRY_MS)
      }
    }
  }

  /** A disk leaves and comes back, several times, whatever the engine is at, until it is healed: seldom with its power. */
  async flap(disk: SimDisk, random: SimRandom): Promise<void> {
    const { machine } = this
    disk.faults.flaps = true
    const goesOn = (): boolean => this.machine === machine && disk.faults.flaps
    for (let times = random.between(1, 4); times > 0 && goesOn(); times--) {
      if (disk.device) this.unplug(disk, random.chance(0.2))
      await this.pause(random.exponential(random.pick([0.1, 2, 20])))
      if (!goesOn()) return
      // Before it is taken, in the middle of it, or after.
      void this.plug(disk)
      await this.pause(random.exponential(random.pick([0.5, 2, 20])))
    }
  }

  #plug(machine: Machine, disk: SimDisk): Promise<unknown> {
    const { wrapDevice } = this.#options
    const device = disk.connect()
    const timeoutMs = this.#timeoutMs
    const seen = wrapDevice?.(device, this.scheduler) ?? device
    return machine.topology.addDevice(disk.name, seen, { timeoutMs })
  }

  /**
   * Carries out a verb as the control server does. Resolves to the error that refused it. Never settles when
   * the power goes first. `onAnswer` gets what it answers.
   */
  async verb(
    noun: string,
    name: string,
    parameters: Readonly<Record<string, string | boolean | readonly string[]>>,
    onAnswer: (answer: unknown) => void = () => {},
  ): Promise<PlexusError | undefined> {
    const { machine } = this
    if (!machine) return undefined
    const verb = machine.topology.classes
      .flatMap((one) => one.verbs)
      .find(({ spec }) => spec.noun === noun && spec.name === name)
    if (!verb) throw new Error(`there is no verb ${noun} ${name}`)
    return this.attempt(`${noun} ${name} ${JSON.stringify(parameters)}`, async () =>
      onAnswer(await verb.run(parameters, machine.topology)),
    )
  }

  /** An order of an operator, which may be refused. */
  async attempt(text: string, work: () => Promise<unknown>): Promise<PlexusError | undefined> {
    const { machine } = this
    this.counts.verbs++
    this.note('verb', text)
    const watch = this.scheduler.after(HANG_MS, () => {
      if (this.machine === machine) this.fail(`${text} never ends`)
    })
    try {
      await work()
      if (this.machine === machine) this.note('verb done', text)
      return undefined
    } catch (error) {
      if (!(error instanceof PlexusError)) throw error
      if (this.machine === machine) this.note('verb refused', `${text}: ${error.message}`)
      return error
    } finally {
      watch.cancel()
    }
  }
}
