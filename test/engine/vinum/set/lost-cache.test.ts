/** Drives that leave with a cache that was not flushed, while the daemon lives: the next flush says so, once. */
import t, { type Test } from 'tap'
import { MIB } from '../../../../src/base/limits.ts'
import type { Consumer } from '../../../../src/engine/geom/consumer.ts'
import { flush, get, Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'

// The clock's timers do not keep a process alive.
const alive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(alive))

/** A volume of this layout; three more drives keep the majority when its own are gone. */
async function machineWith(layout: Record<string, readonly string[]>): Promise<Machine> {
  const machine = await new Machine({ devices: 6 }).start()
  await machine.run('volume.create', { name: 'v', ...layout })
  await machine.run('volume.create', { name: 'other', mirror: ['d4', 'd5', 'd6'] })
  await machine.jobsDone()
  return machine
}

/** The power of these drives goes, and comes back. */
async function blink(machine: Machine, ...names: string[]): Promise<void> {
  for (const name of names) machine.device(name).powerCut()
  for (const name of names) machine.device(name).remove()
  await machine.topology.quiet()
  for (const name of names) await machine.replug(name)
  await machine.topology.quiet()
}

async function checkOwed(t: Test, volume: Consumer): Promise<void> {
  t.match(await failureOf(flush(volume)), { kind: 'io', message: /may be lost/ })
  await flush(volume)
}

for (const [name, layout] of Object.entries({
  mirror: { mirror: ['d1', 'd2', 'd3'] },
  raid5: { raid5: ['d1', 'd2', 'd3'] },
  striped: { stripe: ['d1', 'd2', 'd3'] },
  concat: { concat: ['d1', 'd2', 'd3'] },
})) {
  t.test(`${name}: a flush fails once after all copies have lost their caches`, async (t) => {
    const machine = await machineWith(layout)
    const volume = machine.open('v')
    await put(volume, 0, pattern(1, MIB))
    await flush(volume)
    await blink(machine, 'd1', 'd2', 'd3')
    await flush(volume)
    t.ok((await get(volume, 0, MIB)).equals(pattern(1, MIB)), 'nothing was lost, and nothing said')
    await put(volume, 0, pattern(2, MIB))
    await blink(machine, 'd1', 'd2', 'd3')
    await checkOwed(t, volume)
    await put(volume, 0, pattern(3, MIB))
    await blink(machine, 'd1', 'd2', 'd3')
    t.match(await failureOf(put(volume, 2 * MIB, pattern(4, 4096), true)), { kind: 'io' })
    await put(volume, 2 * MIB, pattern(4, 4096), true)
  })
}

t.test('one copy that keeps its cache is enough, and the last one is not', async (t) => {
  const machine = await machineWith({ mirror: ['d1', 'd2'] })
  const volume = machine.open('v')
  await put(volume, 0, pattern(1, MIB))
  await flush(volume)
  await put(volume, 0, pattern(2, MIB))
  await blink(machine, 'd1')
  await machine.jobsDone()
  await flush(volume)
  t.ok((await get(volume, 0, MIB)).equals(pattern(2, MIB)))
  await put(volume, 0, pattern(3, MIB))
  await machine.pull('d1')
  await blink(machine, 'd2')
  await checkOwed(t, volume)
})

t.test(
  'copies that left together agree again before anybody reads one after the other',
  async (t) => {
    const machine = await machineWith({ mirror: ['d1', 'd2'] })
    const volume = machine.open('v')
    await put(volume, 0, pattern(1, MIB))
    await flush(volume)
    await put(volume, 0, pattern(2, MIB))
    machine.topology.jobs.limitBytesPerSecond = 1
    machine.device('d2').powerCut()
    for (const name of ['d1', 'd2']) machine.device(name).remove()
    await machine.topology.quiet()
    for (const name of ['d1', 'd2']) await machine.replug(name)
    const first = await get(volume, 0, MIB)
    for (let round = 0; round < 4; round++) t.ok((await get(volume, 0, MIB)).equals(first))
    machine.topology.jobs.limitBytesPerSecond = undefined
    await machine.jobsDone()
    await machine.run('volume.scrub', { name: 'v' })
    for (const { mismatches } of await machine.jobsDone()) t.equal(mismatches, 0)
  },
)

t.test('a set that failed with its drives owes the flush when it is back', async (t) => {
  const machine = await new Machine({ devices: 2 }).start()
  await machine.run('volume.create', { name: 'v', mirror: ['d1', 'd2'] })
  await machine.jobsDone()
  await put(machine.open('v'), 0, pattern(1, MIB))
  await blink(machine, 'd1', 'd2')
  await machine.topology.settle()
  await checkOwed(t, machine.open('v'))
})
