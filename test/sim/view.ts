/**
 * What the engine says of its volumes (control/reports.ts), read as scenarios need it: which disks a volume
 * lies on, whether it bears the loss of one. The oracle never asks it: data is judged without the engine's word.
 */
import type { JobKind } from '../../src/control/reports.ts'
import { objectsOf } from '../../src/engine/geom/listing.ts'
import {
  type DriveView,
  drivesIn as drivesOn,
  type PartView,
  type VolumeView,
  volumesIn,
} from '../support/objects.ts'
import type { Machine } from './world.ts'

export function volumesOf(machine: Machine): readonly VolumeView[] {
  return volumesIn(machine.topology)
}

export function drivesIn(machine: Machine): readonly DriveView[] {
  return drivesOn(machine.topology)
}

/** Names of the drives that are spares, and their states. */
export function sparesIn({ topology }: Machine): ReadonlyMap<string, string> {
  const all = objectsOf(topology.classes).filter(({ type }) => type === 'spare')
  return new Map(all.map(({ name, state }) => [name, state]))
}

export function volumeOf(machine: Machine, uuid: string): VolumeView | undefined {
  return volumesOf(machine).find((one) => one.uuid === uuid)
}

export function subdisksOf(volume: VolumeView): readonly PartView[] {
  return volume.components.flatMap(({ children }) => children)
}

export function isUp({ state }: PartView): boolean {
  return state === 'UP'
}

/** Names of the drives that it lies on; a drive is named as the disk that it was made of. */
export function drivesOf(volume: VolumeView): ReadonlySet<string> {
  return new Set(subdisksOf(volume).flatMap(({ drive }) => drive ?? []))
}

/** Jobs at work, or paused, on any volume, or on the one of this name. */
export function jobsOf(machine: Machine, name?: string): readonly JobKind[] {
  return machine.topology.jobs
    .list()
    .map((job) => job.report())
    .filter(({ state }) => state === 'running' || state === 'paused')
    .filter(({ parent }) => name === undefined || parent === name)
    .map(({ kind }) => kind)
}

/** While these run, copies or parity are not what they will be, or not durably. */
const NOT_YET_SAFE: ReadonlySet<JobKind> = new Set(['resync', 'initialise'])

/** Does every byte stay readable without `drive`? A part that moves may be there at any moment. */
export function survives(machine: Machine, volume: VolumeView, drive: string): boolean {
  const isOn = drivesOf(volume).has(drive) || jobsOf(machine).includes('move')
  if (!isOn) return volume.health !== 'FAULTED'
  if (volume.doubt || jobsOf(machine).some((kind) => NOT_YET_SAFE.has(kind))) return false
  return volume.components.some((plex) => {
    const lacking = plex.children.filter((one) => !isUp(one) || one.drive === drive)
    const spare = plex.organization === 'raid5' && plex.state !== 'INITIALIZING' ? 1 : 0
    return plex.children.length > 0 && lacking.length <= spare
  })
}

/** Has it a copy or parity at all, when all is well? */
export function isRedundant(volume: VolumeView): boolean {
  return (
    volume.components.length > 1 ||
    volume.components.some(({ organization }) => organization === 'raid5')
  )
}

/** Data bytes in a row of its raid5 plexes, in the layouts that a growth may have left. */
export function rowSizes(volume: VolumeView): readonly number[] {
  return volume.components.flatMap(({ organization, stripeBytes, subdisks, children }) => {
    if (organization !== 'raid5' || stripeBytes === undefined) return []
    const most = Math.max(subdisks ?? 0, children.length)
    return Array.from({ length: Math.max(0, most - 2) }, (_, i) => (i + 2) * stripeBytes)
  })
}

/** Has it never had a copy? Then trouble with its disks may reach its users. */
export function isPlain(machine: Machine, uuid: string): boolean {
  const volume = volumeOf(machine, uuid)
  return volume?.components.length === 1 && volume.components[0]?.organization !== 'raid5'
}
