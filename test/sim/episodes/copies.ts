/**
 * A disk as it was at an earlier time: restored over the disk itself between two boots, or plugged in beside it. What
 * was written since is not taken for lost, and old and new are never mixed; where nobody can tell which one is right,
 * errors are.
 */
import { Parts } from '../parts.ts'
import type { Stage } from '../stage.ts'
import { drivesOf, volumesOf } from '../view.ts'

export async function copies({ world, random, faults, ...stage }: Stage): Promise<void> {
  const first = await stage.whole()
  if (!first) return
  const used = new Set(volumesOf(first).flatMap((volume) => [...drivesOf(volume)]))
  const disk = random.pick([...world.disks].filter(({ name }) => used.has(name)))
  // The only disk of a set has nobody who knows better.
  if (!disk || used.size === 1) return
  await stage.end(random.pick(['cut', 'shutdown'] as const))
  const image = disk.image()
  const parts = new Parts(world)
  parts.note()
  for (let boots = random.between(1, 2); boots > 0; boots--) {
    await stage.boot()
    await stage.work(random.between(5, 80))
    await stage.end(random.pick(['cut', 'shutdown'] as const))
  }
  for (const unit of world.units) unit.mayFail = true
  faults.faulty = disk
  faults.parts = parts
  world.counts.faults++
  if (random.chance(0.5)) {
    world.note('copies', `${disk.name} is as it was before`)
    disk.restore(image)
    await stage.boot()
    await stage.readAll()
    await stage.work(random.between(5, 60))
    return
  }
  world.note('copies', `an old copy of ${disk.name} is there, too`)
  const twin = world.makeDisk({ ...disk.options, name: `${disk.name}-copy` })
  twin.restore(image)
  world.disks.push(twin)
  // The copy is there from the start, or comes later.
  twin.present = random.chance(0.6)
  const machine = await stage.boot()
  if (!twin.present) await world.plug(twin)
  await stage.readAll()
  await stage.work(random.between(5, 60))
  // The operator finds out.
  if (world.machine !== machine) return
  world.unplug(twin, false)
  world.disks.splice(world.disks.indexOf(twin), 1)
  // Where neither was taken, the right one is looked at again.
  if (disk.device) world.unplug(disk, false)
}
