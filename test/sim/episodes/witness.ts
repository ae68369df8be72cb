/**
 * Half of the drives of a set are away at the start: with the vote of the machine the other half starts by itself, when it
 * missed nothing. The half that the others went on without never does, whatever has become of the witness.
 */
import type { Stage } from '../stage.ts'
import { drivesIn, volumesOf } from '../view.ts'

export async function witness({ world, random, faults, ...stage }: Stage): Promise<void> {
  const first = await stage.whole()
  // One that is in no configuration any more has no vote.
  const drives = first ? drivesIn(first).filter(({ state }) => state === 'UP') : []
  const names = drives.map(({ name }) => name)
  const disks = random.shuffle(world.disks.filter(({ name }) => names.includes(name)))
  if (!first || disks.length < 2 || disks.length % 2 === 1 || disks.length < names.length) return
  const half = disks.slice(0, disks.length / 2)
  const [left] = half
  if (!left) return
  for (const unit of world.units) unit.mayFail = true
  faults.faulty = left
  faults.isBeyond = true
  world.counts.faults++
  // A commit that asks all of them and the witness alike: the one before may have joined the last of them.
  if (await world.verb('vinum', 'saveconfig', {})) return
  if (world.machine !== first) return
  const old = world.witness.image()
  if (random.chance(0.5)) {
    faults.rowsInDoubt()
    world.note('witness', `the machine starts without ${half.map(({ name }) => name).join()}`)
    await stage.end(random.pick(['cut', 'shutdown'] as const))
    for (const disk of half) disk.present = false
    const machine = await stage.boot()
    if (volumesOf(machine).length === 0)
      world.fail('half of the drives and the witness do not start')
    await stage.work(random.between(5, 60))
    return
  }
  const troubles = ['none', 'none', 'lost', 'unwritable', 'hung'] as const
  const trouble = random.pick(troubles)
  world.note('witness', `${half.map(({ name }) => name).join()} leave; witness: ${trouble}`)
  if (trouble === 'unwritable' || trouble === 'hung') world.witness.trouble = trouble
  faults.rowsInDoubt()
  for (const disk of half) world.unplug(disk, false)
  await first.topology.quiet()
  await stage.work(random.between(5, 60))
  if (world.machine !== first) return
  // What the others have missed is durable when this has ended well.
  const refusal = await world.verb('vinum', 'saveconfig', {})
  if (world.machine !== first) return
  const wentOn = !refusal && volumesOf(first).length > 0
  await stage.end()
  if (trouble === 'lost') world.witness.lose()
  if (world.isWitnessFooled) world.witness.restore(old)
  world.witness.trouble = random.chance(0.5) ? 'none' : world.witness.trouble
  for (const disk of disks) disk.present = half.includes(disk)
  const older = await stage.boot()
  if (wentOn && volumesOf(older).length > 0)
    world.fail('the older half of the drives starts by itself')
  if (world.violation) return
  await stage.end()
  world.witness.trouble = 'none'
  for (const disk of disks) disk.present = !half.includes(disk)
  const newer = await stage.boot()
  if (wentOn && volumesOf(newer).length === 0) {
    world.fail('the newer half of the drives does not start by itself')
  }
  await stage.work(random.between(5, 60))
}
