/** Chunks that move until all components are filled by their size. */
import t from 'tap'
import { flush, type Machine } from '../../../support/engine.ts'
import { MemoryDevice } from '../../../support/memory-device.ts'
import { CHUNK, fill, goOn, halfWay, noteOf, thin, wrong } from '../../../support/thin.ts'

/** Two components with 12 chunks in each, and d3, which is empty and three times as large. */
async function uneven(): Promise<Machine> {
  const machine = await thin(['d1', 'd2'], { policy: 'round-robin' })
  const device = machine.open('thin')
  await fill(device, 0, 24)
  await flush(device)
  await device.close()
  machine.devices.set('d9', new MemoryDevice({ sizeBytes: 13 * 2 ** 20, path: '/dev/d9' }))
  await machine.plug('d9')
  await machine.run('virstor.add', { name: 'thin', devices: ['d9'] })
  return machine
}

const rebalance = (machine: Machine, more: object = {}) =>
  machine.run('virstor.rebalance', { name: 'thin', ...more })

/** Chunks of the map and of data on a component. */
function usedOn(machine: Machine, name: string): number {
  return Number(/^\d+/.exec(noteOf(machine, name)))
}

function used(machine: Machine): readonly number[] {
  return ['d1', 'd2', 'd9'].map((name) => usedOn(machine, name))
}

t.test('all are filled by their size, and a second time does nothing', async (t) => {
  const machine = await uneven()
  t.strictSame(used(machine), [13, 13, 0])
  const dry = await rebalance(machine, { dryRun: true })
  t.strictSame(
    dry.steps.map(({ text }) => text),
    ['move 896 KiB away from d1', 'move 896 KiB away from d2', 'move 1.75 MiB to d9'],
  )
  const { jobs } = await rebalance(machine)
  t.match(jobs, [{ kind: 'rebalance', parent: 'thin', totalBytes: 14 * CHUNK }])
  t.match(await machine.jobsDone(), [{ state: 'done' }])
  t.strictSame(used(machine), [6, 6, 14])
  t.strictSame(await wrong(machine, 24), [])
  const again = await rebalance(machine)
  t.match(again, { steps: [{ text: /filled evenly/ }], jobs: [] })
  await machine.shutDown()
  await machine.start()
  t.strictSame(used(machine), [6, 6, 14])
  t.strictSame(await wrong(machine, 24), [])
})

t.test('it goes on after a restart, and what was moved stays when it is cancelled', async (t) => {
  const machine = await uneven()
  const before = await halfWay(machine, 'rebalance')
  await machine.shutDown()
  await machine.start()
  const job = machine.topology.jobs.get(before.id)
  t.equal(job.report().state, 'paused')
  t.ok(job.plan.totalBytes < 14 * CHUNK, 'what was moved is not moved again')
  await job.cancel()
  const [d1 = 0, d2 = 0, d9 = 0] = used(machine)
  t.ok(d9 >= 2 && d9 < 14 && d1 + d2 + d9 === 26, `${d1}, ${d2} and ${d9}`)
  t.strictSame(await wrong(machine, 24), [])
  t.match(await goOn(machine, await halfWay(machine, 'rebalance')), { state: 'done' })
  t.strictSame(used(machine), [6, 6, 14])
  t.strictSame(await wrong(machine, 24), [])
})

t.test('a component that is away neither gives nor takes', async (t) => {
  const machine = await uneven()
  await machine.pull('d2')
  await rebalance(machine)
  t.match(await machine.jobsDone(), [{ state: 'done' }])
  await machine.replug('d2')
  const [d1 = 0, d2 = 0] = used(machine)
  t.ok(d1 < 13)
  t.equal(d2, 13)
  t.strictSame(await wrong(machine, 24), [])
})
