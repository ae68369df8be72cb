/**
 * The engine on devices in memory, for tests of sets, verbs and jobs: a machine that can be shut down, cut off and
 * started again on the same media. Time is the real one, unless a test brings a clock.
 */
import { type Clock, realClock } from '../../src/base/clock.ts'
import type { PlexusError } from '../../src/base/errors.ts'
import { MIB } from '../../src/base/limits.ts'
import { silentLogger } from '../../src/base/log.ts'
import { systemRandom } from '../../src/base/random.ts'
import type { JobReport, ObjectList, ObjectReport, PlanReport } from '../../src/control/reports.ts'
import { createEngine } from '../../src/engine/engine.ts'
import type { Consumer } from '../../src/engine/geom/consumer.ts'
import type { LunNames } from '../../src/engine/geom/names.ts'
import type { Topology } from '../../src/engine/geom/topology.ts'
import type { VerbParameters } from '../../src/engine/geom/types.ts'
import type { WitnessStore } from '../../src/engine/metadata/witness.ts'
import { type AlignedPool, allocateAligned, createAlignedPool } from '../../src/hal/aligned-pool.ts'
import { flush, readAt, writeAt } from '../../src/hal/io.ts'
import { MemoryDevice } from './memory-device.ts'
import { type VolumeView, volumesIn } from './objects.ts'

export interface MachineOptions {
  /** Number of devices: d1, d2, … */
  readonly devices: number
  readonly sizeBytes?: number
  readonly blockBytes?: number
  readonly clock?: Clock
  /** Of each device; default: it may take as long as it likes. */
  readonly timeoutMs?: number
  readonly lunNames?: LunNames
  /** Sets have a witness, whose notes are here. */
  readonly witness?: Notes
}

/** The notes of witnesses, in memory; `failure`: why they cannot be written. */
export class Notes implements WitnessStore {
  readonly path = '/state/witness'
  readonly notes = new Map<string, string>()
  failure: PlexusError | undefined

  async read(setUuid: string): Promise<string | undefined> {
    return this.notes.get(setUuid)
  }

  async write(setUuid: string, note: string): Promise<void> {
    if (this.failure) throw this.failure
    this.notes.set(setUuid, note)
  }
}

export class Machine {
  readonly pool: AlignedPool = createAlignedPool(32 * MIB, { poison: true })
  readonly devices = new Map<string, MemoryDevice>()
  readonly #options: MachineOptions
  topology: Topology

  readonly witness: Notes | undefined

  constructor(options: MachineOptions) {
    this.witness = options.witness
    this.#options = options
    for (let index = 1; index <= options.devices; index++) {
      const name = `d${index}`
      const device = new MemoryDevice({
        sizeBytes: options.sizeBytes ?? 16 * MIB,
        blockBytes: options.blockBytes ?? 512,
        path: `/dev/${name}`,
      })
      this.devices.set(name, device)
    }
    this.topology = this.#engine()
  }

  #engine(): Topology {
    return createEngine({
      pool: this.pool,
      clock: this.#options.clock ?? realClock,
      random: systemRandom,
      log: silentLogger(),
      now: () => new Date(),
      ...(this.witness ? { witness: this.witness } : {}),
      ...(this.#options.lunNames ? { lunNames: this.#options.lunNames } : {}),
    })
  }

  /** Starts with all devices, or with these. */
  async start(names: readonly string[] = [...this.devices.keys()]): Promise<this> {
    for (const name of names) await this.plug(name)
    await this.topology.settle()
    return this
  }

  device(name: string): MemoryDevice {
    const device = this.devices.get(name)
    if (!device) throw new Error(`there is no device ${name}`)
    return device
  }

  async plug(name: string): Promise<void> {
    const { timeoutMs } = this.#options
    await this.topology.addDevice(
      name,
      this.device(name),
      timeoutMs === undefined ? {} : { timeoutMs },
    )
  }

  /** Pulls a device; {@link replug} brings it back with what it had. */
  async pull(name: string): Promise<void> {
    this.device(name).remove()
    await this.topology.quiet()
  }

  /** The same medium as a device that works again. */
  async replug(name: string): Promise<void> {
    this.renew(name)
    await this.plug(name)
  }

  renew(name: string): void {
    const old = this.device(name)
    const { sizeBytes, logicalBlockBytes } = old.geometry
    const device = new MemoryDevice({ sizeBytes, blockBytes: logicalBlockBytes, path: old.path })
    old.media.copy(device.media)
    this.devices.set(name, device)
  }

  /** An orderly end, and a new engine that has seen nothing yet. */
  async shutDown(): Promise<void> {
    await this.topology.stop()
    for (const name of this.devices.keys()) this.renew(name)
    this.topology = this.#engine()
  }

  /** The plug is pulled: unflushed data is lost, the old engine never hears of its disks again. */
  cut(): void {
    for (const device of this.devices.values()) device.powerCut()
    this.kill()
  }

  /** The process is killed, and the disks go on: what was acknowledged is there. */
  kill(): void {
    for (const [name, device] of [...this.devices]) {
      const { sizeBytes, logicalBlockBytes } = device.geometry
      const next = new MemoryDevice({ sizeBytes, blockBytes: logicalBlockBytes, path: device.path })
      device.media.copy(next.media)
      next.discardsTo = device.discardsTo
      device.hold()
      this.devices.set(name, next)
    }
    this.topology = this.#engine()
  }

  /** Runs a verb: `vinum.create`, `volume.destroy`. */
  async run(method: string, parameters: VerbParameters = {}): Promise<PlanReport> {
    const [noun, name] = method.split('.')
    const verb = this.topology.classes
      .flatMap((one) => one.verbs)
      .find(({ spec }) => spec.noun === noun && spec.name === name)
    if (!verb) throw new Error(`there is no verb ${method}`)
    return (await verb.run(parameters, this.topology)) as PlanReport
  }

  /** The objects that a verb lists. */
  async list(method: string, parameters: VerbParameters = {}): Promise<readonly ObjectReport[]> {
    const answer: unknown = await this.run(method, parameters)
    return (answer as ObjectList).objects
  }

  volume(name: string): VolumeView {
    const report = volumesIn(this.topology).find((one) => one.name === name)
    if (!report) throw new Error(`there is no volume ${name}`)
    return report
  }

  open(name: string): Consumer {
    const access = { read: 1, write: 1, exclusive: 0 }
    return this.topology.attach(this.topology.find(name), undefined, 'test', access)
  }

  /** Waits until no job is at work. Returns the reports of all. */
  async jobsDone(): Promise<readonly JobReport[]> {
    // The clock's timers do not keep a process alive.
    const alive = setInterval(() => {}, 1000)
    for (;;) {
      const running = this.topology.jobs.list().filter((job) => job.report().state === 'running')
      if (running.length === 0) break
      await Promise.all(running.map((job) => job.ended))
      await this.topology.quiet()
    }
    clearInterval(alive)
    return this.topology.jobs.list().map((job) => job.report())
  }
}

/** `length` bytes that tell their place and `seed`. */
export function pattern(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at + 4 <= length; at += 4)
    bytes.writeUInt32LE((at * 2654435761 + seed) >>> 0, at)
  return bytes
}

export async function put(target: Consumer, offset: number, bytes: Buffer, fua = false) {
  const buffer = allocateAligned(bytes.length)
  bytes.copy(buffer.bytes)
  await writeAt(target, buffer, offset, { fua, cause: 'initiator' })
}

export async function get(target: Consumer, offset: number, length: number): Promise<Buffer> {
  const buffer = allocateAligned(length)
  await readAt(target, buffer, offset, { cause: 'initiator' })
  return Buffer.from(buffer.bytes)
}

export { flush }
