/**
 * Disks of one set that were used apart from each other: what the volumes held when one part of the disks was left
 * behind may be there whenever other disks come together. Made by episodes; used until everything is whole.
 */
import type { Contents } from './oracle.ts'
import type { Unit } from './unit.ts'
import { drivesOf, rowSizes, volumeOf } from './view.ts'
import type { World } from './world.ts'

export class Parts {
  readonly #world: World
  /** By an operator's word: what one part had may be lost. */
  isForced = false
  readonly #known = new Map<Unit, Contents[]>()

  constructor(world: World) {
    this.#world = world
  }

  /** From now on some disks may keep what there is now. */
  note(): void {
    const { machine, units } = this.#world
    for (const unit of units) {
      const volume = machine && volumeOf(machine, unit.uuid)
      if (volume) unit.rowSizes = rowSizes(volume)
      if (volume?.name === unit.name) unit.drives = drivesOf(volume)
      this.#known.set(unit, [...(this.#known.get(unit) ?? []), unit.oracle.contents()])
    }
  }

  /** Any of it may be there now; in rows of RAID5 that changed, what was computed from a mixture. */
  join(): void {
    this.isForced = true
    this.note()
    for (const [unit, known] of this.#known) {
      const changed = unit.oracle.join(known)
      unit.damageRows(unit.rowSizes, changed)
      // All of it, in one: what is joined again must not grow each time.
      this.#known.set(unit, [unit.oracle.contents()])
    }
  }
}
