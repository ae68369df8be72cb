/** Thin devices when their set starts again: after a power cut, after verbs that were cut off, after trouble with their map. */
import t from 'tap'
import { PlexusError } from '../../../src/base/errors.ts'
import { KIB, MIB } from '../../../src/base/limits.ts'
import type { VirstorSet } from '../../../src/engine/virstor/virstor-set.ts'
import { flush, get, Machine, Notes, pattern, put } from '../../support/engine.ts'
import { failureOf } from '../../support/failure.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { volumesIn } from '../../support/objects.ts'
import { cutAtEachWrite } from '../../support/write-cuts.ts'

const CHUNK = 128 * KIB

function thinOn(devices: readonly string[]) {
  return { name: 'thin', devices, size: '16MiB', chunk: '128KiB', fullWait: '0' }
}

function devicesOf(machine: Machine): readonly string[] {
  return volumesIn(machine.topology).map(({ name }) => name)
}

t.test(
  'it waits for the volumes that it stands on, though most components are disks',
  async (t) => {
    const machine = await new Machine({ devices: 4, sizeBytes: 5 * MIB }).start()
    await machine.run('volume.create', { name: 'db', mirror: ['d1', 'd2'] })
    await machine.jobsDone()
    await machine.run('virstor.create', { ...thinOn(['db', 'd3', 'd4']), policy: 'round-robin' })
    let device = machine.open('thin')
    const data = pattern(1, 3 * CHUNK)
    await put(device, 0, data)
    await flush(device)
    machine.cut()
    await machine.start()
    device = machine.open('thin')
    await flush(device)
    t.pass('nothing is missing, so nothing is told to be lost')
    t.ok((await get(device, 0, 3 * CHUNK)).equals(data))
    await device.close()
    const events = machine.topology.events.history.map(({ event }) => event)
    t.notOk(events.includes('drive-up'), 'no component had to come back')
  },
)

t.test('a destruction that is cut off leaves all of the device, or none', async (t) => {
  const make = async (): Promise<Machine> => {
    const witness = new Notes()
    const machine = await new Machine({ devices: 2, sizeBytes: 3 * MIB, witness }).start()
    await machine.run('virstor.create', thinOn(['d1', 'd2']))
    return machine
  }
  const seen = new Set<string>()
  for await (const { machine, cutAt } of cutAtEachWrite(make, (machine) =>
    machine.run('virstor.destroy', { name: 'thin' }),
  )) {
    const [name] = devicesOf(machine)
    seen.add(String(name))
    if (name !== undefined) t.equal(machine.volume('thin').state, 'UP', `write ${cutAt}`)
  }
  t.strictSame([...seen].sort(), ['thin', 'undefined'])
})

t.test('a device whose map cannot be written ends, and starts again by itself', async (t) => {
  const clock = new ManualClock()
  const machine = await new Machine({ devices: 1, sizeBytes: 5 * MIB, clock }).start()
  await machine.run('virstor.create', thinOn(['d1']))
  let device = machine.open('thin')
  await put(device, 0, pattern(1, CHUNK))
  await flush(device)
  await put(device, CHUNK, pattern(2, CHUNK))
  machine.device('d1').fail('write', 'io', 1)
  t.match(await failureOf(flush(device)), { message: /carries its map/ })
  t.notOk(devicesOf(machine).includes('thin'), 'it is not called up')
  await device.close()
  for (let turn = 0; turn < 100; turn++) {
    clock.advance(1000)
    await machine.topology.quiet()
  }
  t.equal(machine.volume('thin').state, 'UP')
  device = machine.open('thin')
  t.match(await failureOf(flush(device)), { message: /may be lost/ }, 'of what was not flushed')
  t.ok((await get(device, 0, CHUNK)).equals(pattern(1, CHUNK)))
  await put(device, CHUNK, pattern(3, CHUNK))
  await flush(device)
  await device.close()
})

t.test('a component whose flush fails, whoever asked for it, has lost what it had', async (t) => {
  const machine = await new Machine({ devices: 3, sizeBytes: 5 * MIB }).start()
  await machine.run('virstor.create', thinOn(['d1', 'd2', 'd3']))
  const device = machine.open('thin')
  await put(device, 0, pattern(1, CHUNK))
  const set = machine.topology.find('thin').geom as VirstorSet
  const [component] = set.model.components
  const consumer = component && set.driveOf(component).consumer
  if (!consumer) throw new Error('its first component is not there')
  machine.device('d1').fail('flush', 'io')
  await failureOf(flush(consumer))
  t.match(await failureOf(get(device, 0, CHUNK)), { kind: 'gone' }, 'it is read no more')
  t.match(await failureOf(flush(device)), { message: /may be lost/ })
  t.equal(machine.volume('thin').state, 'DEGRADED')
  await device.close()
})

t.test('what a device still does when its set has ended is refused', async (t) => {
  const machine = await new Machine({ devices: 1, sizeBytes: 5 * MIB }).start()
  await machine.run('virstor.create', thinOn(['d1']))
  const set = machine.topology.find('thin').geom as VirstorSet
  await machine.pull('d1')
  await machine.topology.quiet()
  t.notOk(set.assembled)
  const error = new PlexusError('gone', { op: 'flush', subject: 'd1', message: 'gone' })
  t.match(await failureOf(set.loseComponent(1, error)), error)
  t.match(await failureOf(set.loseCopy(1, error)), error)
})

t.test('granules are whole blocks of 4 KiB, whatever the size of a chunk', async (t) => {
  const machine = await new Machine({ devices: 1, sizeBytes: 8 * MIB, blockBytes: 4096 }).start()
  await machine.run('virstor.create', { ...thinOn(['d1']), chunk: '384KiB' })
  const device = machine.open('thin')
  for (let at = 0; at < 96; at += 3) await put(device, at * 4096, pattern(at, 4096))
  for (let at = 0; at < 96; at++) {
    const wanted = at % 3 === 0 ? pattern(at, 4096) : Buffer.alloc(4096)
    t.ok((await get(device, at * 4096, 4096)).equals(wanted), `block ${at}`)
  }
  await device.close()
})

t.test('a destruction while the map is being copied', async (t) => {
  for (let turns = 0; turns < 40; turns += 2) {
    const machine = await new Machine({ devices: 3, sizeBytes: 3 * MIB }).start()
    await machine.run('virstor.create', thinOn(['d1', 'd2', 'd3']))
    await machine.pull('d1')
    for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate)
    await machine.run('virstor.destroy', { name: 'thin' })
    for (let turn = 0; turn < 100; turn++) await new Promise(setImmediate)
    t.strictSame(devicesOf(machine), [])
  }
})

t.test('a device ends while its map is being copied, and is back at once', async (t) => {
  const machine = await new Machine({ devices: 3, sizeBytes: 5 * MIB }).start()
  await machine.run('virstor.create', thinOn(['d1', 'd2', 'd3']))
  let device = machine.open('thin')
  await put(device, 0, pattern(1, CHUNK))
  await flush(device)
  await device.close()
  const set = machine.topology.find('thin').geom as VirstorSet
  await set.served('test').store.checkpoint()
  const target = machine.device('d3')
  const submit = target.submit.bind(target)
  let goOn = (): void => {}
  // The first block of its ring.
  target.submit = (request) => {
    if (!request.fua || request.length !== 4096) {
      submit(request)
      return
    }
    target.submit = submit
    goOn = () => submit(request)
  }
  await machine.pull('d2')
  while (target.submit !== submit) await new Promise(setImmediate)
  let hasEnded = false
  const end = { name: 'thin', onMissing: 'device', force: true }
  const ended = machine.run('virstor.set', end).then(() => {
    hasEnded = true
  })
  for (let turn = 0; turn < 100; turn++) await new Promise(setImmediate)
  t.notOk(hasEnded, 'a start would read the map while it is written')
  goOn()
  await ended
  await machine.replug('d2')
  device = machine.open('thin')
  await put(device, CHUNK, pattern(2, CHUNK))
  await flush(device)
  machine.cut()
  await machine.start()
  device = machine.open('thin')
  t.ok((await get(device, CHUNK, CHUNK)).equals(pattern(2, CHUNK)))
  await device.close()
})

t.test('forced on by a disk that cannot tell whether its last commit counts', async (t) => {
  const machine = await new Machine({ devices: 3, sizeBytes: 5 * MIB }).start()
  await machine.run('virstor.create', thinOn(['d1', 'd2', 'd3']))
  const writer = machine.open('thin')
  await put(writer, 0, pattern(1, CHUNK))
  await flush(writer)
  await writer.close()
  t.ok(machine.device('d3').unflushed > 0, 'the second copy of the configuration')
  machine.cut()
  await machine.start(['d3'])
  await machine.run('virstor.assemble', { force: true })
  t.strictSame(devicesOf(machine), ['thin'])
  t.notOk(machine.topology.providers.has('thin'), 'its map is not here')
  // They have missed nothing: what was forced is what they have.
  await machine.plug('d1')
  const reader = machine.open('thin')
  t.ok((await get(reader, 0, CHUNK)).equals(pattern(1, CHUNK)))
  await reader.close()
  machine.cut()
  await machine.start()
  t.strictSame(
    machine.volume('thin').components.map(({ name, state }) => `${name} ${state}`),
    ['d1 UP', 'd2 UP', 'd3 UP'],
  )
  const events = machine.topology.events.history.map(({ event }) => event)
  t.notOk(
    events.some((event) => /apart|incomplete/.test(event)),
    `${events}`,
  )
})
