/** Raid5 volumes with policy `log`: power cuts with a column missing before, at and after the cut. */
import t, { type Test } from 'tap'
import { KIB, MIB } from '../../../../src/base/limits.ts'
import { flush, get, Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'

// The clock's timers do not keep a process alive.
const alive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(alive))

const DRIVES = ['d1', 'd2', 'd3']

async function made(policy = 'log'): Promise<Machine> {
  const machine = await new Machine({ devices: 5 }).start()
  await machine.run('volume.create', { name: 'v', raid5: DRIVES, stripeSize: '64KiB', policy })
  await machine.run('volume.create', { name: 'other', mirror: ['d4', 'd5'] })
  await machine.jobsDone()
  return machine
}

function events(machine: Machine, event: string): readonly string[] {
  const { history } = machine.topology.events
  return history.filter((one) => one.event === event).map(({ message }) => message)
}

/** Units of one row each: the one that is written, and its neighbour, which must never change. */
const WRITTEN = (row: number) => row * 128 * KIB
const NEIGHBOUR = (row: number) => WRITTEN(row) + 64 * KIB

async function checkRows(t: Test, machine: Machine, rows: number): Promise<void> {
  const volume = machine.open('v')
  for (let row = 0; row < rows; row++) {
    const neighbour = await get(volume, NEIGHBOUR(row), 64 * KIB)
    t.ok(neighbour.equals(pattern(100 + row, 64 * KIB)), `row ${row}: the neighbour`)
    const written = await get(volume, WRITTEN(row), 64 * KIB)
    const is = [1, 2].some((version) => written.equals(pattern(version * 1000 + row, 64 * KIB)))
    t.ok(is, `row ${row}: old or new`)
  }
}

for (const lost of ['before', 'at', 'after'] as const) {
  t.test(`a column is lost ${lost} the cut, which hits rows in place`, async (t) => {
    const machine = await made()
    const volume = machine.open('v')
    const rows = 8
    for (let row = 0; row < rows; row++) {
      await put(volume, NEIGHBOUR(row), pattern(100 + row, 64 * KIB))
      await put(volume, WRITTEN(row), pattern(1000 + row, 64 * KIB))
    }
    await flush(volume)
    if (lost === 'before') await machine.pull('d2')
    for (let row = 0; row < rows; row++)
      await put(volume, WRITTEN(row), pattern(2000 + row, 64 * KIB))
    // Of what is in the caches one drive loses all, the others nothing.
    machine.device('d1').powerCut()
    machine.kill()
    const names = ['d1', 'd2', 'd3', 'd4', 'd5'].filter((one) => one !== 'd2' || lost === 'after')
    await machine.start(names)
    if (lost === 'after') await machine.pull('d2')
    t.equal(events(machine, 'log-replayed').length, 1)
    await checkRows(t, machine, rows)
    t.equal(events(machine, 'data-lost').length, 0)
  })
}

t.test('the same with policy intent loses what the log keeps', async (t) => {
  const machine = await made('intent')
  const volume = machine.open('v')
  await put(volume, NEIGHBOUR(0), pattern(100, 64 * KIB))
  await put(volume, WRITTEN(0), pattern(1000, 64 * KIB))
  await flush(volume)
  await machine.pull('d2')
  await put(volume, WRITTEN(0), pattern(2000, 64 * KIB))
  machine.device('d1').powerCut()
  machine.kill()
  await machine.start(['d1', 'd3', 'd4', 'd5'])
  const neighbour = await get(machine.open('v'), NEIGHBOUR(0), 64 * KIB)
  t.notOk(neighbour.equals(pattern(100, 64 * KIB)), 'the write hole')
})

t.test('the policy is set and taken back in use', async (t) => {
  const machine = await made('intent')
  const volume = machine.open('v')
  await put(volume, 0, pattern(1, MIB))
  await machine.run('volume.set', { name: 'v', policy: 'log' })
  await put(volume, 0, pattern(2, MIB))
  const steps = await machine.run('volume.set', { name: 'v', policy: 'intent' })
  t.match(steps.warnings.join(), /where the power fails while a drive is missing/)
  await put(volume, 0, pattern(3, MIB))
  t.ok((await get(volume, 0, MIB)).equals(pattern(3, MIB)))
  t.match(await failureOf(machine.run('volume.set', { name: 'other', policy: 'log' })), {
    kind: 'unsupported',
  })
})

t.test('a drive that returns is filled, and its ring begins anew', async (t) => {
  const machine = await made()
  const volume = machine.open('v')
  for (let round = 0; round < 6; round++) {
    const name = DRIVES[round % 3] as string
    await put(volume, 0, pattern(10 * round, 2 * MIB))
    await machine.pull(name)
    await put(volume, 0, pattern(10 * round + 1, 2 * MIB))
    await machine.replug(name)
    await machine.jobsDone()
    t.equal(machine.volume('v').health, 'HEALTHY')
    t.ok((await get(volume, 0, 2 * MIB)).equals(pattern(10 * round + 1, 2 * MIB)))
  }
  machine.cut()
  await machine.start()
  await machine.jobsDone()
  await machine.run('volume.scrub', { name: 'v' })
  for (const { mismatches } of await machine.jobsDone()) t.equal(mismatches, 0)
})
