/**
 * Copies that overlap in part, with drives away: what is here of a volume is served, though a copy that is away has
 * missed nothing and comes back as it is. What was read once must not change with it.
 */
import t from 'tap'
import { KIB, MIB } from '../../../../src/base/limits.ts'
import { flush, get, Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'

// The clock's timers do not keep a process alive.
const alive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(alive))

/** In the second half of the volume: on d1 and d3. */
const PLACE = 5 * MIB

/** One copy on d1, the other one in halves on d2 and d3; further drives of the set have nothing of it. */
async function machineWith(others: readonly string[]): Promise<Machine> {
  const machine = await new Machine({ devices: 3 + others.length }).start()
  const lines = ['d1', 'd2', 'd3', ...others].map((name) => `drive ${name} device ${name}`)
  const file = `${lines.join('\n')}
volume v
plex org concat
sd drive d1 len 8m
plex org concat
sd drive d2 len 4m
sd drive d3 len 4m
`
  await machine.run('vinum.create', { file })
  await machine.jobsDone()
  return machine
}

/** The power goes before d3 has flushed what d1 has. */
async function cutBetweenFlushes(machine: Machine): Promise<void> {
  const volume = machine.open('v')
  await put(volume, PLACE, pattern(1, MIB))
  await flush(volume)
  await put(volume, PLACE, pattern(2, MIB))
  await flush(machine.device('d1'))
  machine.cut()
}

/** All copies say this, whichever is asked. */
async function allSay(machine: Machine, expected: Buffer): Promise<boolean> {
  const volume = machine.open('v')
  for (let round = 0; round < 4; round++) {
    const found = await get(volume, PLACE, MIB)
    if (!found.equals(expected)) return false
  }
  return true
}

for (const [how, others, isForced, back, content] of [
  ['by the vote of the others', ['d4', 'd5'], false, ['d1', 'd2'], 2],
  // With the whole second copy there the first one is filled from it.
  ['by force', ['d4', 'd5', 'd6', 'd7'], true, ['d2', 'd1'], 1],
] as const) {
  t.test(`served ${how}: what is in doubt waits for the copy that is away`, async (t) => {
    const here = isForced ? ['d3'] : ['d3', ...others]
    const machine = await machineWith(others)
    await cutBetweenFlushes(machine)
    await machine.start(here)
    if (isForced) await machine.run('vinum.assemble', { force: true })
    await machine.jobsDone()
    const failure = await failureOf(get(machine.open('v'), PLACE, MIB))
    t.match(failure, { kind: 'gone', message: /may differ, .*drive d1 is missing/ })
    await get(machine.open('v'), PLACE + 2 * MIB, MIB)
    for (const name of back) await machine.plug(name)
    await machine.jobsDone()
    t.ok(await allSay(machine, pattern(content, MIB)))
    await machine.run('volume.scrub', { name: 'v' })
    for (const { mismatches } of await machine.jobsDone()) t.equal(mismatches, 0)
  })
}

t.test('nor does a resync call copies equal without it', async (t) => {
  const machine = await machineWith(['d4', 'd5'])
  await cutBetweenFlushes(machine)
  await machine.start(['d3', 'd4', 'd5'])
  t.strictSame(await machine.jobsDone(), [], 'it waits')
  t.match(machine.volume('v'), { health: 'FAULTED' })
  await machine.plug('d1')
  await machine.jobsDone()
  t.ok(await allSay(machine, pattern(2, MIB)))
})

t.test('a copy that is given up by force does not come back with it', async (t) => {
  const machine = await machineWith(['d4', 'd5'])
  await cutBetweenFlushes(machine)
  await machine.start(['d3', 'd4', 'd5'])
  await machine.run('vinum.setstate', { state: 'stale', object: 'v.p0.s0', force: true })
  t.ok(await allSay(machine, pattern(1, MIB)))
  for (const name of ['d2', 'd1']) await machine.plug(name)
  await machine.jobsDone()
  t.match(machine.volume('v'), { health: 'HEALTHY' })
  t.ok(await allSay(machine, pattern(1, MIB)))
})

t.test('a write that failed for want of it does not show until it is back', async (t) => {
  const machine = await machineWith(['d4', 'd5'])
  const volume = machine.open('v')
  await put(volume, PLACE, pattern(1, MIB), true)
  for (const name of ['d2', 'd1']) await machine.pull(name)
  t.ok((await get(volume, PLACE, MIB)).equals(pattern(1, MIB)), 'what was read is there')
  t.match(await failureOf(put(volume, PLACE, pattern(2, 64 * KIB))), { kind: 'io' })
  t.match(await failureOf(get(volume, PLACE, 64 * KIB)), { kind: 'gone' })
  for (const name of ['d2', 'd1']) await machine.replug(name)
  await machine.jobsDone()
  t.ok(await allSay(machine, pattern(1, MIB)))
})
