/**
 * Power cuts of a raid5 volume with a log that lacks a column: since before the cut, from the cut on, or soon after it; again
 * and again before the disk is back, with another disk that comes late now and then. Every block is old or new, no read fails,
 * and what is computed of the column that is missing is right.
 */
import type { SimDisk } from '../disk.ts'
import type { Stage } from '../stage.ts'
import { drivesOf, hasLog, volumeOf, volumesOf } from '../view.ts'
import type { World } from '../world.ts'
import { newRaid5 } from './new-raid5.ts'

export async function column(stage: Stage): Promise<void> {
  const { world, random, faults } = stage
  const first = await stage.whole()
  if (!first) return
  const kept = volumesOf(first).find(hasLog)
  const name = kept?.name ?? (await newRaid5(stage, 'log'))
  if (world.machine !== first || name === undefined) return
  const volume = volumesOf(first).find((one) => one.name === name)
  const used = volume ? disksOf(world, drivesOf(volume)) : []
  if (!volume || used.length < 3) return
  const [lost, other] = random.shuffle(used) as [SimDisk, SimDisk]
  faults.mark(first, lost)
  world.counts.faults++
  // Others may lose what is in doubt after the cut.
  const logged = new Set(
    volumesOf(first)
      .filter(hasLog)
      .map(({ uuid }) => uuid),
  )
  for (const unit of world.units) unit.mayFail ||= !logged.has(unit.uuid)
  for (let cuts = random.between(1, 3); cuts > 0; cuts--) {
    await loseAtCut(stage, lost)
    const late = random.chance(0.25) && lost.device === undefined ? other : undefined
    if (late) late.present = false
    const machine = await stage.boot()
    if (late) await comesLate(stage, late)
    if (world.machine !== machine || !volumeOf(machine, volume.uuid)) return
    await stage.readAll()
    await stage.work(random.between(0, 40))
    await stage.readAll()
    if (world.machine !== machine || world.violation) return
  }
}

/** With work under way when the power goes. */
async function loseAtCut(
  { world, random, work, end, ...stage }: Stage,
  lost: SimDisk,
): Promise<void> {
  const when = lost.present ? random.pick(['before', 'with', 'after'] as const) : 'before'
  world.note('column', `${lost.name} is lost: ${when}`)
  const { machine } = world
  await work(random.between(3, 40))
  if (when === 'before' && lost.present) {
    world.unplug(lost, random.chance(0.7))
    await work(random.between(3, 40))
  }
  if (world.machine !== machine) return
  await end(random.chance(0.85) ? 'cut' : 'kill')
  if (when === 'with') lost.present = false
  if (when !== 'after') return
  const next = await stage.boot()
  await world.pause(random.exponential(random.pick([0.1, 2, 20, 200])))
  if (world.machine === next && lost.present) world.unplug(lost, random.chance(0.7))
  await work(random.between(3, 40))
  await end('cut')
}

/** Two columns are missing: errors are right until one of them is back, and what was under way is not lost for that. */
async function comesLate({ world, random, readAll }: Stage, late: SimDisk): Promise<void> {
  const strict = [...world.units].filter(({ mayFail }) => !mayFail)
  for (const unit of strict) unit.mayFail = true
  const { machine } = world
  await world.pause(random.exponential(50))
  if (random.chance(0.5)) await readAll()
  if (world.machine !== machine) return
  await world.plug(late)
  for (const unit of strict) {
    await unit.idle()
    unit.mayFail = false
  }
}

function disksOf(world: World, names: ReadonlySet<string>): SimDisk[] {
  return world.disks.filter(({ name, present }) => present && names.has(name))
}
