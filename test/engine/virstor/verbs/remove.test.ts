/** Components that leave a thin device: by a job that moves what they hold, and through all that may happen meanwhile. */
import t from 'tap'
import { flush, type Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'
import { MemoryDevice } from '../../../support/memory-device.ts'
import {
  CHUNK,
  carriers,
  fill,
  goOn,
  halfWay,
  noteOf,
  row,
  thin,
  wrong,
} from '../../../support/thin.ts'

/** A device on d1 to d3 with chunks in all of them. */
async function filled(count: number, more: object = {}): Promise<Machine> {
  const machine = await thin(['d1', 'd2', 'd3'], { policy: 'round-robin', ...more })
  const device = machine.open('thin')
  await fill(device, 0, count)
  await flush(device)
  await device.close()
  return machine
}

function names(machine: Machine): readonly string[] {
  return machine.volume('thin').components.map(({ name }) => name)
}

// The original lost the tail of its list, did not renumber what it kept, and threw the data of a component away.
for (const name of ['d1', 'd2', 'd3']) {
  t.test(`${name} leaves with data on it, and the others have all of it`, async (t) => {
    const machine = await filled(24)
    const report = await machine.run('virstor.remove', { name: 'thin', devices: [name] })
    t.match(report.jobs, [{ kind: 'evacuate', parent: 'thin', totalBytes: 8 * CHUNK }])
    t.match(noteOf(machine, name), /is being emptied/)
    t.match(await machine.jobsDone(), [{ state: 'done', doneBytes: 8 * CHUNK }])
    const others = ['d1', 'd2', 'd3'].filter((one) => one !== name)
    t.strictSame(names(machine), others)
    t.strictSame(carriers(machine), others, 'the map has two copies')
    t.equal((await row(machine))?.usedBytes, (24 + 2) * CHUNK)
    t.strictSame(await wrong(machine, 24), [])
    t.equal(machine.topology.providers.get(name)?.label, undefined, 'its label is cleared')
    await machine.shutDown()
    await machine.start()
    t.match(machine.volume('thin'), { health: 'HEALTHY' })
    t.strictSame(names(machine), others)
    t.strictSame(await wrong(machine, 24), [])
    // Its place in the device is not given again, and the disk is free for another use.
    await machine.run('virstor.add', { name: 'thin', devices: [name] })
    t.strictSame(names(machine), [...others, name])
    await machine.shutDown()
    await machine.start()
    t.strictSame(await wrong(machine, 24), [])
  })
}

t.test('several leave at once, and writes meanwhile go to those that stay', async (t) => {
  const machine = await filled(12)
  await machine.run('virstor.add', { name: 'thin', devices: ['d4'] })
  const device = machine.open('thin')
  await machine.run('virstor.remove', { name: 'thin', devices: ['d1', 'd3'] })
  await fill(device, 12, 12)
  t.match((await machine.jobsDone()).at(-1), { state: 'done' })
  await flush(device)
  await device.close()
  t.strictSame(names(machine), ['d2', 'd4'])
  t.strictSame(await wrong(machine, 24), [])
  t.strictSame(carriers(machine), ['d2', 'd4'])
})

t.test('most leave at once, and the one that stays stands alone after a power cut', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'])
  await machine.run('virstor.remove', { name: 'thin', devices: ['d2', 'd3'] })
  t.match((await machine.jobsDone()).at(-1), { state: 'done' })
  await machine.topology.quiet()
  for (const name of ['d2', 'd3']) t.notOk(machine.topology.providers.get(name)?.label, name)
  machine.cut()
  await machine.start()
  t.match(machine.volume('thin'), { health: 'HEALTHY' })
})

t.test('what is refused, and a dry run', async (t) => {
  const machine = await filled(60)
  const remove = (devices: readonly string[], more: object = {}) =>
    machine.run('virstor.remove', { name: 'thin', devices, ...more })
  t.match(await failureOf(remove(['d9'])), { kind: 'not-found', message: /d1, d2, d3/ })
  t.match(await failureOf(remove(['d1', 'd2', 'd3'])), {
    kind: 'invalid',
    message: /one component stays; plexus virstor destroy thin/,
  })
  t.match(await failureOf(remove(['d1', 'd2'])), {
    kind: 'no-space',
    message:
      /5.13 MiB must go .* have 1.88 MiB free: 3.25 MiB are missing; plexus virstor add thin/,
  })
  const report = await remove(['d1'], { dryRun: true })
  t.match(report.steps, [
    { text: 'move 2.50 MiB from d1 to the other components, while in use' },
    { text: 'have another component carry the map instead of d1' },
    { text: 'remove component d1 from thin, and its label' },
  ])
  t.strictSame(machine.topology.jobs.list(), [], 'a dry run begins nothing')
  t.match(noteOf(machine, 'd1'), /^21 of \d+ chunks used, carries the map$/)
})

t.test('a missing component goes when it holds nothing, and only then', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'])
  const device = machine.open('thin')
  await fill(device, 0, 6)
  await flush(device)
  await device.close()
  await machine.pull('d3')
  await machine.run('virstor.add', { name: 'thin', devices: ['d4'] })
  const report = await machine.run('virstor.remove', { name: 'thin', devices: ['d3'] })
  t.match(report.warnings, [/plexus device clear-label d3/])
  t.match(await machine.jobsDone(), [{ state: 'done' }])
  t.strictSame(names(machine), ['d1', 'd2', 'd4'])
  t.equal(machine.volume('thin').health, 'HEALTHY')
  await machine.replug('d3')
  t.strictSame(names(machine), ['d1', 'd2', 'd4'], 'it does not come back')
  await machine.pull('d1')
  t.match(await failureOf(machine.run('virstor.remove', { name: 'thin', devices: ['d1'] })), {
    kind: 'gone',
    message:
      /holds 6 chunks of 128 KiB, bytes 0 to 786431; connect it.*remove thin d1 --force gives/,
  })
})

t.test('a job that is paused, resumed, cancelled', async (t) => {
  const machine = await filled(24)
  const remove = () => machine.run('virstor.remove', { name: 'thin', devices: ['d2'] })
  const job = await halfWay(machine, 'remove', { devices: ['d2'] })
  t.ok(job.doneBytes < 8 * CHUNK)
  t.match(machine.volume('thin').process, { state: 'paused' })
  t.match(await failureOf(remove()), { kind: 'in-use', message: /plexus wait thin/ })
  const grow = machine.run('virstor.grow', { name: 'thin', size: '128MiB' })
  t.match(await failureOf(grow), { kind: 'in-use', message: /plexus wait thin/ })
  job.resume()
  await job.cancel()
  t.strictSame(names(machine), ['d1', 'd2', 'd3'])
  t.strictSame(carriers(machine).length, 2)
  t.notMatch(noteOf(machine, 'd2'), /emptied/)
  t.strictSame(await wrong(machine, 24), [])
  await remove()
  t.match((await machine.jobsDone()).at(-1), { state: 'done' })
  t.strictSame(names(machine), ['d1', 'd3'])
  t.strictSame(await wrong(machine, 24), [])
})

t.test('a job goes on after a restart, paused as it was', async (t) => {
  const machine = await filled(24)
  const before = await halfWay(machine, 'remove', { devices: ['d1'] })
  before.setLimit(1_000_000)
  before.resume()
  await before.pause()
  await machine.shutDown()
  await machine.start()
  const job = machine.topology.jobs.get(before.id)
  t.ok(job.plan.totalBytes < 8 * CHUNK, 'what was moved is not moved again')
  t.match(job.report(), { state: 'paused', limitBytesPerSecond: 1_000_000 })
  t.match(noteOf(machine, 'd1'), /is being emptied/)
  t.strictSame(await wrong(machine, 24), [])
  job.setLimit(undefined)
  t.match(await goOn(machine, job), { state: 'done' })
  t.strictSame(names(machine), ['d2', 'd3'])
  t.strictSame(await wrong(machine, 24), [])
})

t.test('a source that goes in the middle: what it held waits for it', async (t) => {
  const machine = await filled(24)
  const job = await halfWay(machine, 'remove', { devices: ['d2'] })
  await machine.pull('d2')
  t.match(await goOn(machine, job), { state: 'failed', error: /component 2 went missing/ })
  await machine.replug('d2')
  t.match(await machine.run('virstor.fsck', { name: 'thin' }), { found: 0 }, 'no place is lost')
  t.strictSame(names(machine), ['d1', 'd2', 'd3'])
  t.strictSame(await wrong(machine, 24), [])
  await machine.run('virstor.remove', { name: 'thin', devices: ['d2'] })
  t.match((await machine.jobsDone()).at(-1), { state: 'done' })
  t.strictSame(await wrong(machine, 24), [])
})

t.test('a target that goes in the middle: the rest goes to another one', async (t) => {
  const machine = await filled(24)
  const job = await halfWay(machine, 'remove', { devices: ['d1'] })
  await machine.pull('d2')
  t.match(await goOn(machine, job), { state: 'done' })
  t.strictSame(names(machine), ['d2', 'd3'])
  await machine.replug('d2')
  t.strictSame(await wrong(machine, 24), [])
})

t.test('the block size that initiators know stays when who has it leaves', async (t) => {
  const machine = await thin(['d1', 'd2'])
  machine.devices.set(
    'd9',
    new MemoryDevice({ sizeBytes: 5 * 2 ** 20, blockBytes: 4096, path: '/dev/d9' }),
  )
  await machine.plug('d9')
  await machine.run('virstor.destroy', { name: 'thin' })
  await machine.run('virstor.create', {
    name: 'thin',
    devices: ['d1', 'd9'],
    size: '64MiB',
    chunk: '128KiB',
  })
  t.equal(machine.topology.find('thin').geometry.logicalBlockBytes, 4096)
  await machine.run('virstor.remove', { name: 'thin', devices: ['d9'] })
  t.match(await machine.jobsDone(), [{ state: 'done' }])
  await machine.shutDown()
  await machine.start()
  t.equal(machine.topology.find('thin').geometry.logicalBlockBytes, 4096)
  const device = machine.open('thin')
  await put(device, 0, pattern(1, 4096))
  await device.close()
})
