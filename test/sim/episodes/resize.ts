/**
 * Media that have another size: grown while the machine is off or runs, copied to a larger disk, or cut short and put
 * right again. What is on them is there, and a disk without its end is not used.
 */
import type { SimDisk } from '../disk.ts'
import type { Stage } from '../stage.ts'
import { drivesOf, volumesOf } from '../view.ts'

const GRAIN_BYTES = 64 * 1024

export async function resize({ world, random, faults, ...stage }: Stage): Promise<void> {
  const first = await stage.whole()
  if (!first) return
  const grow = (disk: SimDisk): void => {
    disk.resize(disk.sizeBytes + random.between(1, 8) * GRAIN_BYTES)
    world.note('resize', disk.name, disk.sizeBytes)
  }
  await stage.work(random.between(5, 60))
  if (world.machine !== first) return
  if (random.chance(0.3)) {
    for (const disk of world.disks.filter(({ device }) => device && random.chance(0.4))) grow(disk)
    await stage.work(random.between(5, 60))
  }
  for (const unit of world.units) await unit.idle()
  if (world.machine !== first) return
  const used = new Set(volumesOf(first).flatMap((volume) => [...drivesOf(volume)]))
  const disk = random.pick(world.disks.filter(({ name }) => used.has(name)))
  await stage.end(random.pick(['cut', 'shutdown'] as const))
  const kind = random.pick(['grown', 'copied', 'short'] as const)
  if (kind === 'grown') for (const one of world.disks) if (random.chance(0.4)) grow(one)
  if (kind === 'copied') {
    // A drive is named as the disk that it was made of: view.ts.
    const { name } = disk
    const sizeBytes = disk.sizeBytes + random.between(1, 64) * GRAIN_BYTES
    const large = world.makeDisk({ ...disk.options, name, sizeBytes })
    large.media.write(0, disk.image(), true)
    world.note('resize', `${name} was copied to a larger disk`, sizeBytes)
    world.disks.splice(world.disks.indexOf(disk), 1, large)
  }
  if (kind === 'short') {
    const { sizeBytes } = disk
    for (const unit of world.units) unit.mayFail = true
    faults.faulty = disk
    world.counts.faults++
    disk.resize(sizeBytes - random.between(1, 8) * GRAIN_BYTES)
    world.note('resize', disk.name, disk.sizeBytes)
    const machine = await stage.boot()
    if (used.size > 1) await stage.work(random.between(5, 60))
    const isUsed = machine.topology.providers.get(disk.name)?.consumers.size !== 0
    if (world.machine === machine && isUsed) world.fail(`${disk.name} is used without its end`)
    await stage.end(random.pick(['cut', 'shutdown'] as const))
    disk.resize(sizeBytes)
  }
  await stage.boot()
  await stage.work(random.between(5, 60))
  await stage.readAll()
}
