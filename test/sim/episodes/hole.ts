/**
 * A power cut with all disks there, and then one of them lost before the resync has ended: RAID5 cannot compute a
 * column from a row whose parity is in doubt. Errors are right for it, a guess is not: a block that was not being
 * written at the cut reads as it was, or not at all, and it never changes. With a log nothing is in doubt, and no read fails.
 */
import type { Stage } from '../stage.ts'
import { drivesOf, hasLog, volumesOf } from '../view.ts'

export async function hole({ world, random, faults, ...stage }: Stage): Promise<void> {
  const before = await stage.whole()
  if (!before) return
  // What is under way, and what is not flushed, is in doubt after the cut.
  await stage.work(random.between(5, 80))
  if (world.machine !== before) return
  const used = new Set(volumesOf(before).flatMap((volume) => [...drivesOf(volume)]))
  const disks = world.disks.filter(({ name, present }) => present && used.has(name))
  const logged = new Set(
    volumesOf(before)
      .filter(hasLog)
      .map(({ uuid }) => uuid),
  )
  await stage.end(random.chance(0.8) ? 'cut' : 'kill')
  if (disks.length === 0) return
  const lost = random.pick(disks)
  for (const unit of world.units) unit.mayFail ||= !logged.has(unit.uuid)
  faults.faulty = lost
  world.counts.faults++
  world.note('hole', `${lost.name} is lost before the resync has ended`)
  if (random.chance(0.3)) lost.present = false
  const machine = await stage.boot()
  if (lost.present) {
    await world.pause(random.exponential(random.pick([1, 10, 50])))
    if (world.machine === machine && lost.present) world.unplug(lost, random.chance(0.5))
  }
  await stage.readAll()
  await stage.work(random.between(5, 60))
  await stage.readAll()
}
