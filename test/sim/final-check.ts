/**
 * The end of a run, with everything whole and at rest: every block is read, twice, so that other copies answer;
 * a scrub finds nothing; and a block that is changed behind the engine's back is found by the next one. Called by
 * vinum-play.ts.
 */
import { scrub } from './scrub.ts'
import type { Unit } from './unit.ts'
import { isRedundant, volumeOf } from './view.ts'
import type { Machine, World } from './world.ts'
import { isCompared } from './wounds.ts'

const READ_BYTES = 128 * 1024

export async function finalCheck(world: World): Promise<void> {
  const { machine } = world
  if (!machine || world.violation) return
  for (const unit of world.units) {
    await unit.open(machine)
    if (!unit.consumer) {
      world.fail(`${unit.name} cannot be opened at the end`)
      return
    }
    for (let round = 0; round < 2; round++) await readAll(unit)
    if (world.violation) return
    const volume = volumeOf(machine, unit.uuid)
    if (volume && isRedundant(volume)) await scrubs(world, machine, unit)
  }
}

/** Reads every block of it. */
export async function readAll(unit: Unit, atOnceBytes = READ_BYTES): Promise<void> {
  const { sizeBytes } = unit.oracle
  for (let at = 0; at < sizeBytes; at += atOnceBytes) {
    unit.send('read', at, Math.min(atOnceBytes, sizeBytes - at), false)
    if (unit.inFlight >= 8) await unit.idle()
  }
  await unit.idle()
}

async function scrubs(world: World, machine: Machine, unit: Unit): Promise<void> {
  // Where discarded blocks read as anything, copies may differ there.
  if (world.disks.some((disk) => disk.options.discard === 'undefined')) return
  const before = await scrub(world, machine, unit.name)
  if (before !== 0) world.fail(`${unit.name}: a scrub finds ${before} mismatches in good data`)
  const random = world.random.fork(`corruption of ${unit.uuid}`)
  const volume = volumeOf(machine, unit.uuid)
  if (world.violation || !volume) return
  const spots = volume.components.flatMap((plex) =>
    plex.children.map((subdisk, column) => ({ volume, plex, column, subdisk })),
  )
  // Where the first sector of a subdisk lies behind the volume, all of it does.
  const spot = random.pick(spots.filter((one) => isCompared(one, 0)))
  const { subdisk } = spot
  const disk = world.disks.find(({ name }) => name === subdisk.drive)
  if (!disk) return
  const { blockBytes } = disk.options
  let place: number
  do place = Math.floor(random.below(subdisk.sizeBytes) / blockBytes) * blockBytes
  while (!isCompared(spot, place))
  const offset = (subdisk.driveOffsetBytes ?? 0) + place
  disk.media.harm(offset, random.bytes(blockBytes))
  world.note('corrupted', `${disk.name}, ${subdisk.name}`, offset, blockBytes)
  const found = await scrub(world, machine, unit.name)
  disk.media.undoHarm()
  if (found === 0) {
    world.fail(`${unit.name}: a scrub does not find a changed block of ${subdisk.name} at ${place}`)
  }
}
