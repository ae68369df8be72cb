/** Thin devices that go out of service and come back: `stop` and `assemble`, a map that is lost, a name that is taken. */
import t from 'tap'
import { KIB, MIB, WITNESS_PROBE_MS } from '../../../src/base/limits.ts'
import { flush, get, Machine, Notes, pattern, put } from '../../support/engine.ts'
import { failureOf } from '../../support/failure.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { MemoryDevice } from '../../support/memory-device.ts'
import { absentIn } from '../../support/objects.ts'
import { CHUNK, thin } from '../../support/thin.ts'

const problems = ({ topology }: Machine) => absentIn(topology)

t.test('stop takes a device out of service, and assemble brings it back', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'])
  let device = machine.open('thin')
  await put(device, 0, pattern(1, CHUNK))
  const stop = (more: object = {}) => machine.run('virstor.stop', { name: 'thin', ...more })
  t.match(await failureOf(stop()), { kind: 'in-use', message: /--force/ })
  await device.close()
  t.match((await stop({ dryRun: true })).steps[0]?.text, 'stop thin; nothing')
  t.ok(machine.topology.providers.has('thin'))
  await stop()
  t.notOk(machine.topology.providers.has('thin'))
  t.strictSame([...(machine.topology.find('d1').consumers ?? [])], [], 'its components are free')
  t.match(problems(machine), [
    { status: 'thin is not served: it was stopped.', action: /assemble thin$/ },
  ])
  const again = { name: 'thin', devices: ['d4'], size: '64MiB' }
  t.equal((await failureOf(machine.run('virstor.create', again))).kind, 'exists')
  const used = { name: 'other', devices: ['d1'], size: '64MiB' }
  t.equal((await failureOf(machine.run('virstor.create', used))).kind, 'foreign')
  const dry = await machine.run('virstor.assemble', { set: 'thin', dryRun: true })
  t.match(dry.steps[0]?.text, 'assemble thin, which was stopped')
  await machine.run('virstor.assemble', { set: 'thin' })
  t.strictSame(problems(machine), [])
  device = machine.open('thin')
  t.ok((await get(device, 0, CHUNK)).equals(pattern(1, CHUNK)))
  await flush(device)
  // Forced, with what was not flushed.
  await put(device, CHUNK, pattern(2, CHUNK))
  t.match(await stop({ force: true }), { warnings: [/is in use, and is taken away/] })
  t.equal((await failureOf(get(device, 0, CHUNK))).kind, 'gone')
  await device.close()
  await machine.shutDown()
  await machine.start()
  device = machine.open('thin')
  t.ok((await get(device, CHUNK, CHUNK)).equals(pattern(2, CHUNK)), 'a start serves it, too')
  await device.close()
  const nothing = await failureOf(machine.run('virstor.assemble'))
  t.match(nothing, { kind: 'invalid', message: /no thin device waits/ })
})

t.test('after stop a component that is missing is waited for', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'])
  await machine.run('virstor.stop', { name: 'thin' })
  await machine.pull('d1')
  await machine.pull('d2')
  t.match(await machine.run('virstor.assemble'), { warnings: [/waits: 2 drives are missing/] })
  await machine.replug('d2')
  t.ok(machine.topology.providers.has('thin'))
})

t.test('going on without components leaves alone what was stopped', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'])
  const other = { name: 'other', devices: ['d4', 'd5'], size: '64MiB', chunk: `${CHUNK}` }
  await machine.run('virstor.create', other)
  await machine.shutDown()
  await machine.start(['d1', 'd4', 'd5'])
  await machine.run('virstor.stop', { name: 'other' })
  const { steps } = await machine.run('virstor.assemble', { force: true })
  t.match(steps[0]?.text, 'although')
  t.ok(machine.topology.providers.has('thin'))
  t.notOk(machine.topology.providers.has('other'))
  await machine.run('virstor.assemble', { set: 'other', force: true })
  t.ok(machine.topology.providers.has('other'))
  await machine.shutDown()
})

t.test('a device that waits is named as itself, or as its set', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'])
  await machine.shutDown()
  await machine.start(['d1'])
  t.match(await failureOf(machine.run('virstor.assemble', { set: 'other', force: true })), {
    message: /no thin device waits/,
  })
  await machine.run('virstor.assemble', { set: 'thin', force: true })
  t.ok(machine.topology.providers.has('thin'))
  await machine.shutDown()
})

t.test('a map that could not be read is tried again by assemble', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'])
  await machine.shutDown()
  const { media } = machine.device('d1')
  const saved = Buffer.from(media)
  const place = media.indexOf('PLEXVMAP')
  for (const name of ['d1', 'd2']) {
    const disk = machine.device(name).media
    for (let at = 0; at < disk.length; at += 4 * KIB) {
      if (disk.toString('latin1', at, at + 8) === 'PLEXVMAP') disk.fill(0, at, at + 8)
    }
  }
  await machine.start()
  t.match(machine.volume('thin'), { state: 'DOWN', status: /page 0 of its map is damaged/ })
  const failed = await machine.run('virstor.assemble', { set: 'thin' })
  t.match(failed.warnings, [/thin is not served: thin: page 0/])
  // As after somebody has restored them.
  saved.copy(machine.device('d1').media, place, place, place + 128 * KIB)
  t.match(await machine.run('virstor.assemble'), { warnings: [] })
  t.match(machine.volume('thin'), { state: 'UP', status: '' })
})

t.test('where the newest commit of the map cannot be read, force goes on without it', async (t) => {
  const machine = await thin(['d1'])
  let device = machine.open('thin')
  await put(device, 0, pattern(1, CHUNK))
  await flush(device)
  const { media } = machine.device('d1')
  let newest = -1
  for (let at = 0; at < media.length; at += 4 * KIB) {
    if (media.toString('latin1', at, at + 8) === 'PLEXVJNL') newest = at
  }
  machine.cut()
  const disk = machine.device('d1')
  const submit = disk.submit.bind(disk)
  disk.submit = (request) => {
    const { op, offset, length } = request
    const isBad = op === 'read' && offset <= newest && newest < offset + length
    if (isBad) disk.fail('read', 'io')
    submit(request)
  }
  await machine.start()
  t.match(machine.volume('thin'), {
    state: 'DOWN',
    status: /virstor assemble thin tries again; with --force/,
  })
  const failed = await machine.run('virstor.assemble', { set: 'thin' })
  t.match(failed.warnings, [/thin is not served: .* may be the newest/])
  t.match(await machine.run('virstor.assemble', { set: 'thin', force: true }), { warnings: [] })
  device = machine.open('thin')
  t.match(await failureOf(flush(device)), { message: /may be lost/ })
  t.ok((await get(device, 0, CHUNK)).equals(Buffer.alloc(CHUNK)))
  await put(device, 0, pattern(2, CHUNK))
  await flush(device)
  await device.close()
})

t.test('a name that is taken at the start is tried again when it is free', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'])
  await machine.shutDown()
  machine.devices.set('thin', new MemoryDevice({ sizeBytes: MIB, path: '/dev/thin' }))
  await machine.start(['thin', 'd1', 'd2', 'd3'])
  t.match(machine.volume('thin'), { state: 'DOWN', status: /something else is named thin/ })
  await machine.pull('thin')
  await machine.topology.quiet()
  t.match(machine.volume('thin'), { state: 'UP', status: '' })
  t.equal(machine.open('thin').geometry.sizeBytes, 64 * MIB)
})

for (const method of ['virstor.create', 'volume.create']) {
  t.test(`a ${method} that fails leaves no set, and nothing that goes on`, async (t) => {
    const clock = new ManualClock()
    const witness = new Notes()
    const machine = await new Machine({ devices: 2, sizeBytes: 8 * MIB, clock, witness }).start()
    let writes = 0
    const write = witness.write.bind(witness)
    witness.write = (...parameters) => {
      writes++
      return write(...parameters)
    }
    machine.device('d2').fail('write', 'io')
    machine.device('d2').fail('write-zeroes', 'io')
    const what =
      method === 'virstor.create'
        ? { devices: ['d1', 'd2'], size: '64MiB', chunk: `${CHUNK}` }
        : { mirror: ['d1', 'd2'] }
    t.equal((await failureOf(machine.run(method, { name: 'thin', ...what }))).kind, 'io')
    const before = writes
    for (let probe = 0; probe < 3; probe++) {
      clock.advance(WITNESS_PROBE_MS)
      for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate)
    }
    t.equal(writes, before, 'nobody looks after its witness any more')
    t.strictSame(problems(machine), [])
  })
}
