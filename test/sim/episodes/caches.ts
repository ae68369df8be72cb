/**
 * All copies of a volume lose their caches while the machine runs: what was acknowledged and not flushed may be gone.
 * Then the next flush must say so: after one that ends well everything acknowledged before it is there.
 */
import type { Stage } from '../stage.ts'
import { drivesOf, volumeOf } from '../view.ts'

export async function caches({ world, random, faults, ...stage }: Stage): Promise<void> {
  const machine = await stage.whole()
  const unit = random.pick([...world.units])
  const volume = machine && volumeOf(machine, unit.uuid)
  if (!machine || !volume) return
  await stage.work(random.between(5, 60))
  await unit.idle()
  if (world.machine !== machine) return
  const acknowledged = unit.oracle.contents()
  const failedBefore = unit.flushesFailed
  const names = drivesOf(volume)
  const disks = random.shuffle(world.disks.filter(({ name }) => names.has(name)))
  const [first] = disks
  if (!first) return
  for (const one of world.units) one.mayFail = true
  faults.faulty = first
  faults.rowsInDoubt()
  world.counts.faults++
  world.note('caches', `all disks of ${volume.name} lose their caches`)
  for (const disk of disks) {
    world.unplug(disk, true)
    await world.pause(random.exponential(random.pick([0.01, 5, 50])))
    if (world.machine !== machine) return
  }
  faults.rowsInDoubt()
  for (const disk of random.shuffle(disks)) await world.plug(disk)
  if (world.machine !== machine) return
  await faults.recover(machine)
  if (world.machine !== machine || world.violation) return
  await unit.open(machine)
  if (!unit.consumer) return
  unit.mayFail = true
  unit.send('flush', 0, 0, false)
  await unit.idle()
  await stage.readAll()
  if (world.machine !== machine) return
  unit.mayFail = false
  const lost = unit.oracle.lost(acknowledged)
  if (lost.length === 0 || unit.flushesFailed > failedBefore) return
  const blocks = `${lost.length} blocks, the first one ${lost[0]}`
  world.fail(`${unit.name}: a flush ends well, and acknowledged writes are gone: ${blocks}`)
}
