/** Media that have grown when the machine starts again, and shrink back: everything on them is there. */
import type { Stage } from '../stage.ts'

const GRAIN_BYTES = 64 * 1024

export async function resize({ world, random, ...stage }: Stage): Promise<void> {
  const first = await stage.whole()
  if (!first) return
  await stage.work(random.between(5, 60))
  for (const unit of world.units) await unit.idle()
  if (world.machine !== first) return
  await stage.end(random.pick(['cut', 'shutdown'] as const))
  for (const disk of world.disks.filter(() => random.chance(0.4))) {
    disk.resize(disk.sizeBytes + random.between(1, 8) * GRAIN_BYTES)
    world.note('resize', disk.name, disk.sizeBytes)
  }
  await stage.boot()
  await stage.work(random.between(5, 60))
  await stage.readAll()
}
