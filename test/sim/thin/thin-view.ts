/** What the engine says of its thin devices, and which disks they lie on. The oracle never asks it. */
import { VirstorSet } from '../../../src/engine/virstor/virstor-set.ts'
import type { VolumeView } from '../../support/objects.ts'
import type { SimDisk } from '../disk.ts'
import { drivesOf, volumesOf } from '../view.ts'
import type { Machine, World } from '../world.ts'

export function thinDevices(machine: Machine): readonly VolumeView[] {
  return volumesOf(machine).filter(({ className }) => className === 'virstor')
}

export function thinDevice(machine: Machine, uuid: string): VolumeView | undefined {
  return thinDevices(machine).find((one) => one.uuid === uuid)
}

/** Volumes that thin devices stand on. */
export function mirrors(machine: Machine): readonly VolumeView[] {
  return volumesOf(machine).filter(({ className }) => className === 'vinum')
}

/** Names of the disks that it lies on, by itself or through a volume. A component is named as its device. */
export function disksUnder(machine: Machine, { components }: VolumeView): ReadonlySet<string> {
  const volumes = mirrors(machine)
  return new Set(
    components.flatMap(({ name }) => {
      const volume = volumes.find((one) => one.name === name)
      return volume ? [...drivesOf(volume)] : [name]
    }),
  )
}

/** Disks and volumes that nobody uses. */
export function unusedDevices(world: World, machine: Machine): readonly string[] {
  const volumes = mirrors(machine)
  const used = new Set([
    ...thinDevices(machine).flatMap(({ components }) => components.map(({ name }) => name)),
    ...volumes.flatMap((volume) => [...drivesOf(volume)]),
  ])
  const disks = world.disks.filter(({ present, device }) => present && device)
  return [...disks, ...volumes].map(({ name }) => name).filter((name) => !used.has(name))
}

/** The running set of the device; for accounts and for choosing what to spoil. */
export function setOf(machine: Machine, name: string): VirstorSet | undefined {
  const geom = machine.topology.providers.get(name)?.geom
  return geom instanceof VirstorSet ? geom : undefined
}

/** Disks that carry a copy of its map while there is another one: what is spoiled on one of them, the other one has. */
export function carriersOf(
  world: World,
  machine: Machine,
  name: string,
): readonly { readonly disk: SimDisk; readonly component: number }[] {
  const set = setOf(machine, name)
  const { copies = [], components = [] } = set?.device ? set.model : {}
  if (!set || copies.length < 2) return []
  return copies.flatMap(({ component }) => {
    const record = components.find(({ id }) => id === component)
    const drive = record && set.driveOf(record)
    if (!drive?.present || drive.record.state !== 'up') return []
    const disk = world.disks.find(({ name, present }) => present && name === drive.device)
    return disk ? [{ disk, component }] : []
  })
}
