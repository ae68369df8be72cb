/**
 * A raid5 volume grows by columns, or by longer ones, with rows in doubt now and then, and loses a disk on the way: before
 * the power goes, with it, or after it. What was not being written is there in the new place, or cannot be read: it is
 * never another block.
 */
import type { Stage } from '../stage.ts'
import { drivesOf, volumeOf, volumesOf } from '../view.ts'
import { newRaid5 } from './new-raid5.ts'

export async function restripe(stage: Stage): Promise<void> {
  const { world, random, faults } = stage
  const first = await stage.whole()
  if (!first) return
  const kept = volumesOf(first).find(({ components }) => components[0]?.organization === 'raid5')
  const name = kept?.name ?? (await newRaid5(stage, random.pick(['log', 'intent'] as const)))
  if (world.machine !== first || name === undefined) return
  await stage.work(random.between(10, 60))
  if (world.machine !== first) return
  if (random.chance(0.5)) await stage.end(random.pick(['cut', 'kill'] as const))
  const machine = world.machine ?? (await stage.boot())
  const volume = volumesOf(machine).find((one) => one.name === name)
  if (!volume) return
  const spares = world.disks.filter(({ name: one }) => !drivesOf(volume).has(one))
  const devices = random.shuffle(spares.map((one) => one.name)).slice(0, random.between(1, 2))
  // Without devices: into the room behind its columns.
  if (random.chance(0.25)) devices.length = 0
  else if (devices.length === 0) return
  await world.verb('volume', 'grow', { name, devices, wipeSignatures: true })
  if (world.machine !== machine) return
  await stage.work(random.between(0, 30))
  await world.pause(random.exponential(random.pick([1, 20, 100, 500])))
  const grown = world.machine === machine ? volumeOf(machine, volume.uuid) : undefined
  if (!grown) return
  const used = world.disks.filter((disk) => disk.present && drivesOf(grown).has(disk.name))
  if (used.length === 0) return
  const lost = random.pick(used)
  for (const unit of world.units) unit.mayFail = true
  faults.faulty = lost
  world.counts.faults++
  const when = random.pick(['before', 'with', 'after', 'no cut'] as const)
  world.note('restripe', `${name} loses ${lost.name}: ${when}`)
  const pull = () => world.unplug(lost, random.chance(0.7))
  const pauseMs = random.exponential(random.pick([0.1, 2, 20, 200]))
  if (when === 'before' || when === 'no cut') pull()
  if (when === 'no cut') await stage.work(random.between(5, 60))
  else {
    if (when === 'before') await world.pause(pauseMs)
    await stage.end(random.chance(0.8) ? 'cut' : 'kill')
    if (when === 'with') lost.present = false
    const next = await stage.boot()
    if (when === 'after') {
      await world.pause(pauseMs)
      if (world.machine === next && lost.present) pull()
    }
  }
  await stage.work(random.between(0, 60))
  await stage.readAll()
  if (random.chance(0.4)) {
    await stage.end(random.chance(0.8) ? 'cut' : 'kill')
    if (random.chance(0.5)) lost.present = true
    await stage.boot()
    await stage.work(random.between(0, 30))
  }
  if (!(await stage.whole())) return
  await stage.readAll()
}
