/** `volume grow` without devices: what is free on the volume's own drives, as after they have become larger. */
import t from 'tap'
import { MIB } from '../../../../src/base/limits.ts'
import { get, Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'

// The clock's timers do not keep a process alive.
const alive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(alive))

const DRIVES = ['d1', 'd2', 'd3']
const BEFORE = 16 * MIB
const AFTER = 28 * MIB

async function enlarge(machine: Machine, names: readonly string[] = DRIVES): Promise<void> {
  for (const name of names) {
    machine.device(name).resize(AFTER)
    // The drive takes it into use in a change of its own.
    for (let change = 0; change < 3; change++) await machine.topology.quiet()
  }
}

/** By how much a volume of each shape grows when each of its three drives has 12 MiB more. */
const SHAPES = { stripe: 3, raid5: 2, concat: 3, mirror: 1 } as const

for (const [shape, drives] of Object.entries(SHAPES)) {
  t.test(`${shape}: over larger drives, in use, with a restart`, async (t) => {
    const machine = await new Machine({ devices: 3, sizeBytes: BEFORE }).start()
    await machine.run('volume.create', { name: 'v', [shape]: DRIVES })
    await machine.jobsDone()
    const before = machine.volume('v').sizeBytes
    const volume = machine.open('v')
    await put(volume, 0, pattern(1, before), true)
    const full = await failureOf(machine.run('volume.grow', { name: 'v' }))
    t.match(full, { kind: 'no-space', message: /plexus device resize DEVICE/ })

    await enlarge(machine)
    const dry = await machine.run('volume.grow', { name: 'v', dryRun: true })
    t.equal(machine.volume('v').sizeBytes, before, 'a dry run changes nothing')
    const made = await machine.run('volume.grow', { name: 'v' })
    t.strictSame(
      made.steps.map(({ text }) => text),
      dry.steps.map(({ text }) => text),
    )
    const { sizeBytes } = machine.volume('v')
    t.ok(sizeBytes >= before + drives * 11 * MIB, `${before} to ${sizeBytes}`)
    t.ok((await get(volume, 0, before)).equals(pattern(1, before)))
    // Across the old end, before the parity of the new rows is computed and behind it.
    await put(volume, before - MIB, pattern(2, 2 * MIB), true)
    await put(volume, sizeBytes - MIB, pattern(3, MIB), true)
    await machine.jobsDone()
    t.equal(machine.volume('v').health, 'HEALTHY')

    machine.cut()
    await machine.start()
    await machine.jobsDone()
    t.equal(machine.volume('v').sizeBytes, sizeBytes)
    const again = machine.open('v')
    if (shape === 'raid5' || shape === 'mirror') await machine.pull('d2')
    t.ok((await get(again, 0, before - MIB)).equals(pattern(1, before).subarray(0, before - MIB)))
    t.ok((await get(again, before - MIB, 2 * MIB)).equals(pattern(2, 2 * MIB)))
    t.ok((await get(again, sizeBytes - MIB, MIB)).equals(pattern(3, MIB)))
  })
}

t.test('raid5: parity of the new rows is computed, and no more', async (t) => {
  const machine = await new Machine({ devices: 3, sizeBytes: BEFORE }).start()
  await machine.run('volume.create', { name: 'v', raid5: DRIVES })
  await machine.jobsDone()
  const before = machine.volume('v').sizeBytes
  // What lay on the new part of the disks before is not zero.
  await enlarge(machine)
  for (const name of DRIVES) machine.device(name).media.fill(0x5a, BEFORE, BEFORE + MIB)
  machine.topology.jobs.limitBytesPerSecond = 1
  const { jobs } = await machine.run('volume.grow', { name: 'v' })
  t.match(jobs, [{ kind: 'initialise', doneBytes: before }])
  machine.topology.jobs.limitBytesPerSecond = undefined
  await machine.jobsDone()
  await machine.run('volume.scrub', { name: 'v' })
  for (const { mismatches } of await machine.jobsDone()) t.equal(mismatches, 0)
})

t.test('one drive without room says which', async (t) => {
  const machine = await new Machine({ devices: 3, sizeBytes: BEFORE }).start()
  await machine.run('volume.create', { name: 'v', raid5: DRIVES })
  await machine.jobsDone()
  await enlarge(machine, ['d1', 'd3'])
  const refused = await failureOf(machine.run('volume.grow', { name: 'v' }))
  t.match(refused, { kind: 'no-space', message: /behind v\.p0\.s1/ })
  t.equal(machine.volume('v').health, 'HEALTHY')
})
