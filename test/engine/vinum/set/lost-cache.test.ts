/** Drives that leave with a cache that was not flushed, or are away at the start with one: the next flush says so, once. */
import t, { type Test } from 'tap'
import { KIB, MIB } from '../../../../src/base/limits.ts'
import type { Consumer } from '../../../../src/engine/geom/consumer.ts'
import { flush, get, Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'

// The clock's timers do not keep a process alive.
const alive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(alive))

/** A volume of this layout; three more drives keep the majority when its own are gone. */
async function machineWith(layout: Record<string, readonly string[] | string>): Promise<Machine> {
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

for (const [first, second] of [
  ['d1', 'd2'],
  ['d2', 'd1'],
] as const) {
  for (const isWritten of [false, true]) {
    const name = `raid5: two columns leave together, ${first} returns first, ${isWritten ? 'writes' : 'no writes'} until the other returns`
    t.test(name, async (t) => {
      const machine = await machineWith({ raid5: ['d1', 'd2', 'd3'], stripeSize: '64KiB' })
      const volume = machine.open('v')
      await put(volume, 0, pattern(1, MIB))
      await flush(volume)
      // One unit in each row, so that its neighbour stands beside a write that may be lost in part.
      const written = (row: number) => row * 128 * KIB
      for (let row = 0; row < 6; row++) await put(volume, written(row), pattern(10 + row, 64 * KIB))
      for (const name of ['d1', 'd2']) machine.device(name).powerCut()
      for (const name of ['d1', 'd2']) machine.device(name).remove()
      await machine.topology.quiet()
      const check = async (when: string, isWhole: boolean) => {
        for (let row = 0; row < 6; row++) {
          const beside = written(row) + 64 * KIB
          const expected = pattern(1, MIB).subarray(beside, beside + 64 * KIB)
          const found = await get(volume, beside, 64 * KIB).catch((error: unknown) => error)
          if (found instanceof Buffer) t.ok(found.equals(expected), `row ${row} ${when}`)
          else t.notOk(isWhole, `row ${row} ${when}: ${String(found)}`)
        }
      }
      await machine.replug(first)
      await machine.topology.quiet()
      await check('with one of them', false)
      const late = pattern(30, 512 * KIB)
      if (isWritten) await put(volume, 2 * MIB, late)
      await check('with one of them, and a write', false)
      await machine.replug(second)
      await machine.topology.quiet()
      const kinds = (await machine.jobsDone()).map(({ kind }) => kind)
      t.equal(kinds.includes('rebuild'), isWritten, 'without a write it is taken as it is')
      await check('with both', true)
      if (isWritten) t.ok((await get(volume, 2 * MIB, late.length)).equals(late))
      t.match(await failureOf(flush(volume)), { kind: 'io', message: /may be lost/ })
      await machine.run('volume.scrub', { name: 'v' })
      for (const { mismatches } of await machine.jobsDone()) t.equal(mismatches ?? 0, 0)
      t.match(machine.volume('v'), { health: 'HEALTHY' })
    })
  }
}

t.test('raid5: a column that is away at the start has a cache that no flush reaches', async (t) => {
  const machine = await machineWith({ raid5: ['d1', 'd2', 'd3'] })
  await put(machine.open('v'), 0, pattern(1, MIB))
  const others = [...machine.devices.keys()].filter((name) => name !== 'd2')
  for (const when of ['after the crash', 'after another one']) {
    machine.cut()
    await machine.start(others)
    t.match(machine.volume('v').status, /are lost/, when)
    await checkOwed(t, machine.open('v'))
  }
  await machine.replug('d2')
  await machine.topology.quiet()
  await machine.jobsDone()
  machine.cut()
  await machine.start()
  await flush(machine.open('v'))
  t.equal(machine.volume('v').health, 'HEALTHY')
})

t.test('raid5: a column that is away before parity is computed misses no write', async (t) => {
  const machine = await new Machine({ devices: 6 }).start()
  machine.topology.jobs.limitBytesPerSecond = 4 * MIB
  await machine.run('volume.create', { name: 'v', raid5: ['d1', 'd2', 'd3'], stripeSize: '64KiB' })
  await machine.run('volume.create', { name: 'other', mirror: ['d4', 'd5', 'd6'] })
  const volume = machine.open('v')
  await put(volume, 0, pattern(1, MIB), true)
  const [job] = machine.topology.jobs.list()
  while (job?.doneBytes === 0) await new Promise((resolve) => setTimeout(resolve, 2))
  await job?.pause()
  t.equal(job?.state, 'paused')
  await machine.pull('d2')
  const put1 = (row: number) => put(volume, row * 128 * KIB, pattern(10 + row, 128 * KIB), true)
  const results = await Promise.allSettled([0, 1, 2, 3, 4, 5].map(put1))
  await machine.replug('d2')
  await machine.topology.quiet()
  machine.topology.jobs.limitBytesPerSecond = undefined
  await job?.resume()
  await machine.jobsDone()
  for (const [row, { status }] of results.entries()) {
    if (status === 'rejected') continue
    const found = await get(volume, row * 128 * KIB, 128 * KIB)
    t.ok(found.equals(pattern(10 + row, 128 * KIB)), `row ${row} was acknowledged`)
  }
  await machine.run('volume.scrub', { name: 'v' })
  for (const { mismatches } of await machine.jobsDone()) t.equal(mismatches ?? 0, 0)
})

/** The daemon is killed; the first flush of this drive after the next start fails, and its cache is lost. */
async function killed(machine: Machine, name: string): Promise<void> {
  machine.device(name).powerCut()
  machine.kill()
  machine.device(name).fail('flush', 'io')
  await machine.start()
}

t.test(
  'a copy that fails its first flush after a kill is not taken for the right one',
  async (t) => {
    const machine = await machineWith({ mirror: ['d1', 'd2'] })
    const volume = machine.open('v')
    await put(volume, 0, pattern(1, MIB))
    await flush(volume)
    await put(volume, 0, pattern(2, MIB))
    await killed(machine, 'd1')
    const again = machine.open('v')
    for (let round = 0; round < 4; round++) {
      t.ok((await get(again, 0, MIB)).equals(pattern(2, MIB)), 'what was acknowledged is there')
    }
    await machine.jobsDone()
    await flush(again)
    await machine.pull('d2')
    t.ok((await get(again, 0, MIB)).equals(pattern(2, MIB)), 'and is copied')
  },
)

for (const [name, layout] of Object.entries({
  concat: { concat: ['d1'] },
  raid5: { raid5: ['d1', 'd2', 'd3'] },
})) {
  t.test(`${name}: a flush that failed at the start after a kill is told of once`, async (t) => {
    const machine = await machineWith(layout)
    await put(machine.open('v'), 0, pattern(1, MIB))
    await killed(machine, 'd1')
    await checkOwed(t, machine.open('v'))
  })
}
