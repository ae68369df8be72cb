/**
 * Trouble with the disks of thin devices, one disk at a time, and how an operator ends it: what lies on the disk may fail
 * meanwhile, and is never wrong; when the disk is well again everything must be there. Used by thin-play.ts.
 */
import type { Timer } from '../../../src/base/clock.ts'
import { DeviceSet } from '../../../src/engine/metadata/device-set.ts'
import type { SimDisk } from '../disk.ts'
import { FAULTS, FLAPS } from '../faults.ts'
import { QUIET_FAULTS } from '../harm.ts'
import type { SimRandom } from '../random.ts'
import { drivesIn, drivesOf, isRedundant, jobsOf, survives } from '../view.ts'
import type { Machine, World } from '../world.ts'
import { Wounds } from '../wounds.ts'
import { decayMap } from './map-decay.ts'
import type { ThinUnit } from './thin-unit.ts'
import { carriersOf, disksUnder, mirrors, thinDevice, thinDevices } from './thin-view.ts'

/** After the trouble everything must be whole again by then. */
const RECOVERY_MS = 3_600_000
const LOOK_MS = 50
/** The engine has had its time by itself: the operator starts the machine anew. */
const PATIENT_ROUNDS = 20

export class Trouble {
  readonly #world: World
  readonly #random: SimRandom
  readonly #flaps: boolean
  /** The disk that is in trouble, or was and is not whole again. */
  faulty: SimDisk | undefined
  #later: Timer | undefined
  readonly #wounds: Wounds

  constructor(world: World, random: SimRandom, flaps: boolean) {
    this.#world = world
    this.#random = random
    this.#flaps = flaps
    this.#wounds = new Wounds(world)
  }

  get #units(): readonly ThinUnit[] {
    return [...this.#world.units] as ThinUnit[]
  }

  /** A disk that is in use; undefined: there is none, or one is in trouble. */
  choose(machine: Machine): SimDisk | undefined {
    if (this.faulty) return undefined
    const used = new Set(thinDevices(machine).flatMap((one) => [...disksUnder(machine, one)]))
    const disks = this.#world.disks.filter(({ name, present }) => present && used.has(name))
    return disks.length > 0 ? this.#random.pick(disks) : undefined
  }

  /** From now on what lies on `disk` may fail. */
  mark(machine: Machine, disk: SimDisk): void {
    this.#world.counts.faults++
    this.faulty = disk
    for (const unit of this.#units) {
      const device = thinDevice(machine, unit.uuid)
      if (!device || !this.#bears(machine, disksUnder(machine, device), disk)) unit.mayFail = true
    }
  }

  #bears(machine: Machine, disks: ReadonlySet<string>, disk: SimDisk): boolean {
    if (!disks.has(disk.name)) return true
    const below = mirrors(machine).filter((volume) => drivesOf(volume).has(disk.name))
    const areSafe = below.every((one) => isRedundant(one) && survives(machine, one, disk.name))
    return areSafe && !this.#isDirect(machine, disk)
  }

  /** Is the disk a component itself? */
  #isDirect(machine: Machine, disk: SimDisk): boolean {
    return thinDevices(machine).some(({ components }) =>
      components.some(({ name }) => name === disk.name),
    )
  }

  /** Everything may fail from now on. */
  markAll(disk: SimDisk): void {
    this.#world.counts.faults++
    this.faulty = disk
    for (const unit of this.#units) unit.mayFail = true
  }

  inject(machine: Machine): void {
    const world = this.#world
    const random = this.#random
    const disk = this.choose(machine)
    if (!disk) return
    const isCarrier = this.#units.some((unit) =>
      carriersOf(world, machine, unit.name).some((one) => one.disk === disk),
    )
    const isOther = this.#units.every(({ name }) => {
      const disks = thinDevices(machine).find((one) => one.name === name)
      return !disks || !disksUnder(machine, disks).has(disk.name)
    })
    const quiet = isCarrier || isOther ? QUIET_FAULTS : []
    const rows = [...FAULTS, ...(this.#flaps ? FLAPS : []), ...quiet]
    const [name, fault] = random.weighted(rows.map((row) => [row[0], [row[1], row[2]]] as const))
    this.mark(machine, disk)
    world.note('fault', `${disk.name}: ${name}`)
    this.#later = fault(disk, random, world, this.#wounds)
  }

  /** Sectors of the map change on one of two carriers: nobody may notice. undefined: there is none. */
  decay(machine: Machine): SimDisk | undefined {
    const world = this.#world
    if (this.faulty) return undefined
    const units = this.#units.filter(({ name }) => carriersOf(world, machine, name).length === 2)
    if (units.length === 0) return undefined
    const unit = this.#random.pick(units)
    const { disk, component } = this.#random.pick(carriersOf(world, machine, unit.name))
    world.counts.faults++
    this.faulty = disk
    decayMap(world, machine, unit.name, component, disk, this.#random)
    return disk
  }

  /** Takes the trouble away, and waits until everything is whole again; `restart` starts the machine anew where that helps. */
  async recover(machine: Machine, restart?: () => Promise<Machine>): Promise<void> {
    const world = this.#world
    const { faulty } = this
    let running = machine
    if (faulty) {
      this.#later?.cancel()
      world.note('repaired', faulty.name)
      faulty.heal()
      world.witness.trouble = 'none'
      // What could not be read when it was looked at is looked at again when it is plugged in.
      if (faulty.device && this.#random.chance(0.5)) world.unplug(faulty, false)
    }
    const endMs = world.nowMs + RECOVERY_MS
    for (let round = 0; world.machine === running && !world.violation; round++) {
      await this.#plugAll(running)
      // What a disk has failed before it was repaired may be found when its commit ends, which others carry, too.
      for (const geom of [...running.topology.geoms]) {
        if (geom instanceof DeviceSet) await geom.idle()
      }
      if (world.machine !== running) return
      const lacking = this.#lacking(running)
      if (lacking.length === 0) {
        await this.#settle(running)
        if (world.machine !== running) return
        // The flush may be what a drive has failed, or have waited for a drive to go out of service.
        if (this.#lacking(running).length === 0) {
          this.#isFine()
          return
        }
      }
      if (world.nowMs > endMs) {
        world.fail('the thin devices do not become whole again', [
          ...lacking,
          ...running.topology.report().map((one) => JSON.stringify(one)),
        ])
        return
      }
      await this.#help(running)
      if (world.machine !== running) return
      if (round >= PATIENT_ROUNDS && !restart) return
      if (restart && round % PATIENT_ROUNDS === PATIENT_ROUNDS - 1) running = await restart()
      await world.pause(LOOK_MS * Math.min(round + 1, 1000))
    }
  }

  async #plugAll(machine: Machine): Promise<void> {
    const world = this.#world
    for (const disk of this.#random.shuffle([...world.disks])) {
      if (!disk.device && world.machine === machine) await world.plug(disk)
    }
  }

  /** Why the operator has still something to do. */
  #lacking(machine: Machine): readonly string[] {
    const lacking: string[] = []
    for (const { uuid, name } of this.#units) {
      const device = thinDevice(machine, uuid)
      if (device?.state !== 'UP') lacking.push(`${name}: ${JSON.stringify(device)}`)
    }
    for (const { name, health } of mirrors(machine)) {
      if (health !== 'HEALTHY') lacking.push(`${name} is ${health}`)
    }
    if (jobsOf(machine).length > 0) lacking.push('jobs are at work')
    return lacking
  }

  /** Connects what is out of service anew; below, as for vinum. */
  async #help(machine: Machine): Promise<void> {
    const world = this.#world
    for (const job of machine.topology.jobs.list()) {
      if (job.report().state === 'paused') job.resume()
    }
    for (const { name, health } of mirrors(machine)) {
      if (health === 'HEALTHY' || jobsOf(machine).length > 0) continue
      await world.verb('vinum', 'start', { objects: [name] })
    }
    for (const { name, state, device } of drivesIn(machine)) {
      if (state !== 'DOWN' || device === undefined || world.machine !== machine) continue
      await world.verb('vinum', 'setstate', { state: 'up', object: name })
    }
    for (const { uuid } of this.#units) {
      const down = thinDevice(machine, uuid)?.components.filter(({ state }) => state !== 'UP') ?? []
      for (const { name } of down) {
        const disk = world.disks.find((one) => one.name === name)
        if (!disk?.device || world.machine !== machine) continue
        world.unplug(disk, false)
        await world.plug(disk)
      }
    }
  }

  /** Users hear of what was lost. */
  async #settle(machine: Machine): Promise<void> {
    const world = this.#world
    for (const unit of this.#units) {
      await unit.open(machine)
      if (!unit.mayFail) continue
      unit.send('flush', 0, 0, false)
      await unit.idle()
      if (world.machine !== machine) return
    }
  }

  /** No error is right any more. */
  #isFine(): void {
    this.faulty = undefined
    for (const unit of this.#units) unit.mayFail = false
  }
}
