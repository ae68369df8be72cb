/**
 * Starts with some of the disks, each cut off or killed soon, and at times a configuration that cannot be read on one
 * of them. Nothing that was acknowledged is lost; and when all disks are there, and none is damaged, no start waits
 * for an operator.
 */
import { harmSlot } from '../harm.ts'
import type { Stage } from '../stage.ts'
import { drivesIn } from '../view.ts'

export async function selections({ world, random, faults, ...stage }: Stage): Promise<void> {
  const first = await stage.whole()
  if (!first) return
  const [left] = world.disks
  if (!left) return
  const isRotten = random.chance(0.4)
  for (const unit of world.units) unit.mayFail = true
  // Until all are there, none of them is missed.
  faults.faulty = left
  world.note('selections', isRotten ? 'with a slot that rots' : '')
  await stage.end()
  for (let boots = random.between(2, 5); boots > 0; boots--) {
    const count = random.between(Math.floor(world.disks.length / 2), world.disks.length)
    const there = new Set(random.shuffle([...world.disks]).slice(0, count))
    for (const disk of world.disks) disk.present = there.has(disk)
    if (isRotten && boots === 2) harmSlot(random.pick(world.disks), random, world)
    if (random.chance(0.5)) {
      // Cut off in the middle of it.
      const soonMs = random.exponential(random.pick([2, 10, 40]))
      const booting = world.boot()
      await Promise.race([booting, world.pause(soonMs)])
    } else {
      await stage.boot()
      await stage.work(random.between(1, 30))
    }
    await stage.end(random.chance(0.7) ? 'cut' : 'kill')
    if (world.violation) return
  }
  for (const disk of world.disks) {
    disk.present = true
    disk.heal()
  }
  const machine = await stage.boot()
  const isWaiting = drivesIn(machine).some(({ state }) => state === 'WAITING')
  if (isWaiting && !isRotten) {
    world.fail('a start with all disks, of which none was damaged, waits for an operator')
  }
}
