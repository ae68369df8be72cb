/**
 * Disks of one set that are used apart from each other, by an operator's force: a disk leaves, users go on without
 * it, and then the machine is started with that disk, and without others. What the others had may be lost from then
 * on, as the operator was told. But what is read once stays so, and when all disks are back and everything is whole
 * all copies agree.
 */
import type { SimDisk } from '../disk.ts'
import { Parts } from '../parts.ts'
import type { Stage } from '../stage.ts'
import { volumeOf } from '../view.ts'
import type { Machine, World } from '../world.ts'

export async function apart({ world, random, faults, ...stage }: Stage): Promise<void> {
  const first = await stage.whole()
  const left = first && faults.choose(first)
  if (!first || !left) return
  faults.mark(first, left)
  const parts = new Parts(world)
  faults.parts = parts
  parts.note()
  world.note('apart', `${left.name} leaves`)
  world.unplug(left, random.chance(0.5))
  await stage.work(random.between(5, 60))
  for (let round = random.between(1, 2); round > 0; round--) {
    await stage.end()
    parts.note()
    const there = new Set(round % 2 === 1 ? [left] : [])
    const most = random.chance(0.6) ? 0 : world.disks.length - 2
    for (const disk of random.shuffle([...world.disks]).slice(0, random.below(most + 1)))
      there.add(disk)
    if (there.size === 0) there.add(random.pick(world.disks.filter((one) => one !== left)))
    for (const disk of world.disks) disk.present = there.has(disk)
    for (const unit of world.units) unit.mayFail = true
    const machine = await stage.boot()
    await force(world, machine, parts)
    for (const unit of world.units) await unit.open(machine)
    await stage.readAll()
    await stage.work(random.between(5, 60))
    if (world.violation) return
  }
  // Some come back while it runs, the others when everything is repaired.
  const back: SimDisk[] = random.shuffle(world.disks.filter((one) => !one.present))
  for (const disk of back.slice(0, random.below(back.length + 1))) await world.plug(disk)
  await stage.readAll()
  await stage.work(random.between(5, 60))
}

/** The order of an operator, where the set waits for disks. */
async function force(world: World, machine: Machine, parts: Parts): Promise<void> {
  if ([...world.units].every(({ uuid }) => volumeOf(machine, uuid))) return
  // Also when the power goes before the verb has ended.
  parts.join()
  const error = await world.verb('vinum', 'assemble', { force: true })
  if (!error && world.machine === machine) parts.join()
}
