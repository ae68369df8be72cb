/**
 * What an operator does after trouble, when all disks are plugged in: starts what rests, takes drives back, and where
 * nothing else is left says which data counts. Everything must be whole in the end. Used by faults.ts.
 */
import type { ByteRange } from '../../src/base/bytes.ts'
import type { DriveView, PartView } from '../support/objects.ts'
import { readAll } from './final-check.ts'
import type { Parts } from './parts.ts'
import type { SimRandom } from './random.ts'
import type { Unit } from './unit.ts'
import { drivesIn, drivesOf, isPlain, isUp, jobsOf, volumeOf, volumesOf } from './view.ts'
import type { Machine, World } from './world.ts'

/** After the trouble everything must be whole again by then. */
const RECOVERY_MS = 3_600_000
const LOOK_MS = 20
/** The least that is found to be unreadable. */
const LOOK_BYTES = 4096
/** The engine has had its time: the operator decides. */
const PATIENT_ROUNDS = 3

interface Trouble {
  readonly parts: Parts | undefined
}

export class Healing {
  readonly #world: World
  readonly #random: SimRandom
  readonly #trouble: Trouble

  constructor(world: World, random: SimRandom, trouble: Trouble) {
    this.#world = world
    this.#random = random
    this.#trouble = trouble
  }

  /** What was under way has ended: an engine may see only then what has failed, and that a volume is not whole. */
  async answered(machine: Machine): Promise<void> {
    const world = this.#world
    const nowMs = world.nowMs
    while (world.machine === machine && [...world.units].some((unit) => unit.waitsSince(nowMs))) {
      await world.pause(LOOK_MS)
      // A job that waits for a drive out of service, in the middle of a window, lets nobody pass.
      await this.#reviveDrives(machine)
    }
  }

  /** Where caches were lost one flush fails, and users know. */
  async flush(machine: Machine): Promise<void> {
    for (const unit of this.#world.units) {
      if (this.#world.machine !== machine) return
      unit.send('flush', 0, 0, false)
      await unit.idle()
    }
  }

  /** Resolves when every volume is healthy and no job is left. */
  async heal(machine: Machine): Promise<void> {
    const world = this.#world
    const endMs = world.nowMs + RECOVERY_MS
    for (let round = 0; world.machine === machine && !world.violation; round++) {
      const units = [...world.units]
      const sick = units.find((unit) => !isWhole(machine, unit.uuid))
      // What was used apart stays so until somebody says which is right: at the next start it may be asked for.
      const isApart =
        this.#trouble.parts && drivesIn(machine).some(({ state }) => state === 'APART')
      const unit = sick ?? (isApart ? units[0] : undefined)
      if (!unit) return
      const volume = volumeOf(machine, unit.uuid)
      if (world.nowMs > endMs) {
        const lines = [...volumesOf(machine), ...drivesIn(machine)].map((one) =>
          JSON.stringify(one),
        )
        world.fail(`${unit.name} does not become whole again`, lines)
        return
      }
      for (const job of machine.topology.jobs.list()) {
        if (job.report().state === 'paused') job.resume()
      }
      // Before a job that fails for it is started once more.
      if (round > PATIENT_ROUNDS) await this.#giveUp(machine, unit)
      // A resync that has failed is tried again without a word.
      const isTriedAgain = volume?.doubt?.retrySeconds !== undefined
      if (volume && !isTriedAgain && jobsOf(machine).length === 0) {
        // What a check has found is told of until it was made right.
        if (volume.action?.includes('--repair')) {
          await world.verb('volume', 'scrub', { name: volume.name, repair: true })
        } else await world.verb('vinum', 'start', { objects: [volume.name] })
        await this.#reviveDrives(machine)
      } else if (volume?.action?.includes('take it back')) {
        // Also while a job runs: it may be one that waits for the drive.
        await this.#reviveDrives(machine)
      }
      if (volume?.health === 'FAULTED' && round > PATIENT_ROUNDS) await this.#vouch(unit.uuid)
      if (this.#trouble.parts && round > PATIENT_ROUNDS) await this.#decide(machine, unit)
      await world.pause(LOOK_MS * Math.min(round + 1, 1000))
    }
  }

  /** Drives that were taken out of service and answer again come back by the operator's word. */
  async #reviveDrives(machine: Machine): Promise<void> {
    for (const { name, state, device } of drivesIn(machine)) {
      if (state !== 'DOWN' || device === undefined) continue
      await this.#world.verb('vinum', 'setstate', { state: 'up', object: name })
    }
  }

  /** The operator's last resort for a volume of which no good copy is left: what is there counts. */
  async #vouch(uuid: string): Promise<void> {
    const world = this.#world
    const { machine } = world
    const volume = machine && volumeOf(machine, uuid)
    const { parts } = this.#trouble
    if (!machine || !volume || !(parts || isPlain(machine, uuid))) return
    const isFaulted = (): boolean => volumeOf(machine, uuid)?.health === 'FAULTED'
    const plexes = volume.components.filter(({ children }) => children.every((one) => one.device))
    // Also when the power goes before the verb has ended.
    parts?.join()
    // One that is refused has in part what is valid elsewhere, and need not agree with it: another one goes with that.
    for (const plex of plexes) if (isFaulted()) await this.#force('up', plex.children)
    const [first] = plexes
    if (first && isFaulted() && jobsOf(machine, volume.name).length === 0) {
      // None does: what the others have is given up.
      const others = volume.components.filter((one) => one !== first)
      for (const { children } of others) await this.#force('stale', children)
      await this.#force('up', first.children)
    }
    if (world.machine === machine) parts?.join()
  }

  async #force(state: 'up' | 'stale', subdisks: readonly PartView[]): Promise<void> {
    for (const subdisk of subdisks) {
      if (state === 'up' && isUp(subdisk)) continue
      await this.#world.verb('vinum', 'setstate', { state, object: subdisk.name, force: true })
    }
  }

  /** All columns of a raid5 plex serve, and part of it is lost: what cannot be read may be anything from now on. */
  async #giveUp(machine: Machine, unit: Unit): Promise<void> {
    const [plex] = volumeOf(machine, unit.uuid)?.components ?? []
    if (plex?.organization !== 'raid5' || !plex.children.every(isUp)) return
    // Those of another volume may fail, and be tried again, for ever.
    if (jobsOf(machine, unit.name).length > 0) return
    await unit.open(machine)
    const unreadable: ByteRange[] = []
    unit.unreadable = unreadable
    await readAll(unit, LOOK_BYTES)
    unit.unreadable = undefined
    if (this.#world.machine !== machine || unreadable.length === 0) return
    for (const range of unreadable) unit.oracle.damage(range)
    await this.#world.verb('vinum', 'setstate', { state: 'up', object: plex.name, force: true })
  }

  /** Disks were used apart from each other: the operator says what counts. */
  async #decide(machine: Machine, { uuid, drives }: Unit): Promise<void> {
    const world = this.#world
    const waiting = drivesIn(machine).filter(({ state }) => state === 'WAITING')
    if (!volumeOf(machine, uuid) && waiting.length > 0) {
      // Not one that was taken out while it was away: it says what the volume was before.
      const known = waiting.filter(({ name }) => drives.has(name))
      const from = this.#random.pick(known.length > 0 ? known : waiting).name
      this.#trouble.parts?.join()
      const error = await world.verb('vinum', 'assemble', { force: true })
      if (error) await world.verb('vinum', 'assemble', { from })
      if (world.machine !== machine) return
      this.#trouble.parts?.join()
      for (const unit of world.units) await unit.open(machine)
      return
    }
    // The set is right as it runs: what was used apart from it is filled from it.
    const running = drivesIn(machine).find(({ state }) => state === 'UP')
    if (running && drivesIn(machine).some(isFormer)) {
      this.#trouble.parts?.join()
      const error = await world.verb('vinum', 'assemble', { from: running.name })
      if (world.machine !== machine) return
      if (!error) {
        this.#trouble.parts?.join()
        return
      }
    }
    // What the set does not take back comes as a new disk.
    for (const { name } of drivesIn(machine).filter(isFormer)) {
      const disk = world.disks.find((one) => one.name === name)
      if (!disk?.device || world.machine !== machine) return
      world.unplug(disk, false)
      disk.media.renew(this.#random)
      await world.plug(disk)
      if (world.machine !== machine) return
      for (const volume of volumesOf(machine)) {
        if (!drivesOf(volume).has(name)) continue
        const wish = { name: volume.name, oldDrive: name, newDevice: name, wipeSignatures: true }
        await world.verb('volume', 'replace', wish)
      }
    }
  }
}

/** Not used by the set: taken out of it, or used apart from it. */
function isFormer({ state }: DriveView): boolean {
  return state === 'FORMER' || state === 'APART'
}

export function isWhole(machine: Machine, uuid: string): boolean {
  const volume = volumeOf(machine, uuid)
  if (!volume) return false
  // A growth that was interrupted is healthy, and wants to be started again.
  const isGrown = volume.components.every(({ state }) => state !== 'GROWABLE')
  return volume.health === 'HEALTHY' && isGrown && jobsOf(machine).length === 0
}
