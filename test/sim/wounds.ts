/**
 * Data that has changed behind the engine's back: nothing on a disk tells it from good data, so a read may show it,
 * in its block and, where parity was computed from it, in its row. The oracle is told which blocks those are; a
 * scrub must count what differs, and after one that repairs they have one content again. Used by faults.ts.
 */
import type { ByteRange } from '../../src/base/bytes.ts'
import type { PartView, VolumeView } from '../support/objects.ts'
import type { SimDisk } from './disk.ts'
import { scrub } from './scrub.ts'
import type { Unit } from './unit.ts'
import { isRedundant, jobsOf, volumeOf } from './view.ts'
import type { Machine, World } from './world.ts'

/** A subdisk on the disk, with what it belongs to. */
export interface Spot {
  readonly unit: Unit
  readonly disk: SimDisk
  readonly volume: VolumeView
  readonly plex: PartView
  readonly column: number
  /** On the disk. */
  readonly range: ByteRange
}

/** One changed sector. */
interface Wound {
  readonly spot: Spot
  /** In the subdisk. */
  readonly at: number
}

export class Wounds {
  readonly #world: World
  #wounds: Wound[] = []

  constructor(world: World) {
    this.#world = world
  }

  /** Where data lies on the disk, as long as nothing is placed anew. */
  spotsOn(machine: Machine, disk: SimDisk): readonly Spot[] {
    return [...this.#world.units].flatMap((unit) => {
      const volume = volumeOf(machine, unit.uuid)
      return (volume?.components ?? []).flatMap((plex) =>
        plex.children.flatMap((child, column) => {
          if (!volume || child.drive !== disk.name) return []
          const range = { offset: child.driveOffsetBytes ?? 0, length: child.sizeBytes }
          return [{ unit, disk, volume, plex, column, range }]
        }),
      )
    })
  }

  /** This range of the disk has changed: what may be read there is not known. */
  hurt(spots: readonly Spot[], { offset, length }: ByteRange): void {
    for (const spot of spots) {
      const { range, unit, disk } = spot
      const begin = Math.max(offset, range.offset)
      const end = Math.min(offset + length, range.offset + range.length)
      const size = disk.options.blockBytes
      for (let at = begin; at < end; at += size) {
        const wound = { spot, at: at - range.offset }
        this.#wounds.push(wound)
        unit.oracle.damage(affected(spot, wound.at, size))
      }
    }
  }

  /** A scrub must count what differs on the disks before and after it. */
  async mustBeFound(machine: Machine): Promise<void> {
    const world = this.#world
    const spot = this.#wounds.find(({ spot }) => isRedundant(spot.volume))?.spot
    if (!spot) return
    const { unit } = spot
    const volume = volumeOf(machine, unit.uuid)
    if (volume?.health !== 'HEALTHY' || jobsOf(machine).length > 0) return
    const before = this.#differing(unit)
    const found = await scrub(world, machine, volume.name)
    if (found !== 0 || world.machine !== machine) return
    const after = new Set(this.#differing(unit))
    const missed = before.filter((one) => after.has(one))
    if (missed.length > 0) world.fail(`${volume.name}: a scrub does not find changed data`, missed)
  }

  /** Makes copies and parity equal, whatever their content is: it is the only one from then on. */
  async mend(machine: Machine): Promise<void> {
    const world = this.#world
    for (const unit of new Set(this.#wounds.map(({ spot }) => spot.unit))) {
      const volume = volumeOf(machine, unit.uuid)
      if (volume && isRedundant(volume)) {
        const found = await scrub(world, machine, volume.name, { repair: true })
        if (found === undefined) return
      }
      unit.oracle.mend()
    }
    this.#wounds = []
  }

  /** Wounds of the unit that show on the disks, with what they show. */
  #differing(unit: Unit): readonly string[] {
    return this.#wounds.flatMap((wound) => {
      const { spot, at } = wound
      const places = spot.unit === unit ? this.#compared(wound) : []
      const contents = places.map(({ disk, offset }) =>
        disk.media.content.subarray(offset, offset + disk.options.blockBytes),
      )
      if (contents.length < 2 || !differ(contents, spot.plex.organization === 'raid5')) return []
      const text = contents.map((one) => one.toString('hex')).join(' ')
      return [`${spot.disk.name}, ${at} in a subdisk of ${spot.plex.name}: ${text}`]
    })
  }

  /** All that a scrub compares with the sector, and it. Empty: it compares nothing with it. */
  #compared({ spot, at }: Wound): readonly { disk: SimDisk; offset: number }[] {
    const { volume, plex } = spot
    const place = (child: PartView | undefined, inside: number) => {
      const disk = this.#world.disks.find(({ name }) => name === child?.drive)
      return disk ? [{ disk, offset: (child?.driveOffsetBytes ?? 0) + inside }] : []
    }
    if (!isCompared(spot, at)) return []
    if (plex.organization === 'raid5') return plex.children.flatMap((child) => place(child, at))
    const { offset } = affected(spot, at, spot.disk.options.blockBytes)
    return volume.components.flatMap((one) => {
      const { column, inside } = placeIn(one, offset)
      return place(one.children[column], inside)
    })
  }
}

function differ(contents: readonly Buffer[], isParity: boolean): boolean {
  const [first, ...others] = contents
  if (!isParity) return others.some((one) => first?.equals(one) === false)
  return first?.some((byte, i) => others.reduce((sum, one) => sum ^ (one[i] ?? 0), byte)) ?? false
}

/**
 * Does a scrub compare this place of the subdisk with others? It compares all rows of raid5, and copies as far as their
 * volume goes: a copy may be larger, by whole columns, too.
 */
export function isCompared(spot: Pick<Spot, 'volume' | 'plex' | 'column'>, at: number): boolean {
  const { volume, plex } = spot
  return plex.organization === 'raid5' || affected(spot, at, 0).offset < volume.sizeBytes
}

/** What of the volume a sector of a subdisk is, or is computed with. */
function affected(
  { plex, column }: Pick<Spot, 'plex' | 'column'>,
  at: number,
  length: number,
): ByteRange {
  const { organization, stripeBytes = 0, children } = plex
  if (organization === 'concat') {
    const before = children.slice(0, column)
    return { offset: before.reduce((sum, { sizeBytes }) => sum + sizeBytes, at), length }
  }
  const row = Math.floor(at / stripeBytes)
  if (organization === 'striped') {
    return { offset: (row * children.length + column) * stripeBytes + (at % stripeBytes), length }
  }
  const rowBytes = (children.length - 1) * stripeBytes
  return { offset: row * rowBytes, length: rowBytes }
}

/** Where a byte lies in a plex that is not raid5. */
function placeIn(plex: PartView, offset: number): { column: number; inside: number } {
  const { organization, stripeBytes = 0, children } = plex
  if (organization === 'striped') {
    const unit = Math.floor(offset / stripeBytes)
    const row = Math.floor(unit / children.length)
    return { column: unit % children.length, inside: row * stripeBytes + (offset % stripeBytes) }
  }
  let [column, inside] = [0, offset]
  while (inside >= (children[column]?.sizeBytes ?? Number.POSITIVE_INFINITY)) {
    inside -= children[column]?.sizeBytes ?? 0
    column++
  }
  return { column, inside }
}
