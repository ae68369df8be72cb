/**
 * Faults of FreeBSD's virstor that must not come back, as far as no other test has them: docs/virstor.md lists all of
 * them with their tests.
 */
import t from 'tap'
import { defined } from '../../../src/base/assert.ts'
import { KIB, MIB } from '../../../src/base/limits.ts'
import { findLabel } from '../../../src/engine/anchor/anchor-find.ts'
import { flush, Machine, pattern, put } from '../../support/engine.ts'
import { failureOf } from '../../support/failure.ts'
import { freebsdVirstor, readWhole } from '../../support/freebsd-virstor.ts'
import { MemoryDevice } from '../../support/memory-device.ts'
import { type Row, row } from '../../support/thin.ts'

const CHUNK = 128 * KIB
const THIN = { name: 'thin', size: '64MiB', chunk: '128KiB', fullWait: '0' }

async function spaceOf(machine: Machine, name = 'thin'): Promise<Row> {
  return defined(await row(machine, name), 'the thin device')
}

/** Writes to all chunks that are free, for virtual ones that have none yet; which. */
async function fill(
  machine: Machine,
  name: string,
  taken: ReadonlySet<number> = new Set(),
): Promise<readonly number[]> {
  const { freeBytes, sizeBytes } = await spaceOf(machine, name)
  const all = [...Array(sizeBytes / CHUNK).keys()].filter((chunk) => !taken.has(chunk))
  const filled = all.slice(0, freeBytes / CHUNK)
  const device = machine.open(name)
  for (const chunk of filled) await put(device, chunk * CHUNK, pattern(1000 + chunk, CHUNK))
  await flush(device)
  await device.close()
  return filled
}

t.test('hints in labels are not believed: what holds data is what the map says', async (t) => {
  const image = freebsdVirstor({
    sizeBytes: 3 * MIB,
    virtualBytes: 16 * MIB,
    // Holes, and data behind what the labels call the next free chunk.
    places: new Map([
      [3, [0, 9]],
      [9, [1, 5]],
      [64, [2, 17]],
    ]),
    label: (index) => ({ flags: 0, next: index === 2 ? 0xffff_ffff : 0 }),
  })
  const { machine, content, places } = image
  await machine.start()
  t.ok((await readWhole(machine, 'big')).equals(content))
  await machine.run('virstor.convert', { name: 'big' })
  await machine.run('virstor.grow', { name: 'big', size: '64MiB' })
  const filled = await fill(machine, 'big', new Set(places.keys()))
  t.ok(filled.length > 30, `${filled.length} chunks`)
  await machine.shutDown()
  await machine.start()
  const after = await readWhole(machine, 'big')
  for (const chunk of places.keys()) {
    const [from, to] = [chunk * CHUNK, (chunk + 1) * CHUNK]
    t.ok(after.subarray(from, to).equals(content.subarray(from, to)), `chunk ${chunk}`)
  }
  for (const chunk of filled) {
    const bytes = after.subarray(chunk * CHUNK, (chunk + 1) * CHUNK)
    if (!bytes.equals(pattern(1000 + chunk, CHUNK))) t.fail(`chunk ${chunk}`)
  }
  await machine.shutDown()
})

t.test('components of any size are filled to the last chunk, and keep their labels', async (t) => {
  const machine = new Machine({ devices: 3, sizeBytes: 3 * MIB })
  machine.devices.set('d2', new MemoryDevice({ sizeBytes: 1 * MIB, path: '/dev/d2' }))
  await machine.start()
  await machine.run('virstor.create', { ...THIN, devices: ['d1', 'd2', 'd3'] })
  const { freeBytes } = await spaceOf(machine)
  const filled = await fill(machine, 'thin')
  t.equal(filled.length, freeBytes / CHUNK)
  const { physicalBytes, usedBytes, freeBytes: left } = await spaceOf(machine)
  t.equal(left, 0)
  t.equal(usedBytes, physicalBytes, 'the chunks of the map count once')
  await machine.shutDown()
  await machine.start()
  t.equal(machine.volume('thin').state, 'UP')
  const after = await readWhole(machine, 'thin')
  for (const chunk of filled) {
    const bytes = after.subarray(chunk * CHUNK, (chunk + 1) * CHUNK)
    if (!bytes.equals(pattern(1000 + chunk, CHUNK))) t.fail(`chunk ${chunk}`)
  }
  await machine.shutDown()
})

t.test('a create that fails half way leaves no label, and says so', async (t) => {
  const machine = await new Machine({ devices: 3, sizeBytes: 5 * MIB }).start()
  machine.device('d2').fail('write', 'io')
  const error = await failureOf(machine.run('virstor.create', { ...THIN, devices: ['d1', 'd2'] }))
  t.equal(error.kind, 'io')
  for (const name of ['d1', 'd2']) t.equal(await findLabel(machine.device(name)), undefined, name)
  await machine.run('virstor.create', { ...THIN, devices: ['d1', 'd2'] })
  await machine.shutDown()
})

t.test('an add takes all devices or none, and no disk twice', async (t) => {
  const machine = new Machine({ devices: 3, sizeBytes: 5 * MIB })
  const identity = { wwid: 'naa.5000c500a1b2c3d4' }
  for (const name of ['d2', 'd4']) {
    machine.devices.set(
      name,
      new MemoryDevice({ sizeBytes: 5 * MIB, path: `/dev/${name}`, identity }),
    )
  }
  await machine.start(['d1', 'd2', 'd3'])
  await machine.run('virstor.create', { ...THIN, devices: ['d1', 'd2'] })
  await machine.plug('d4')
  const before = (await spaceOf(machine)).physicalBytes
  const add = (...devices: string[]) =>
    failureOf(machine.run('virstor.add', { name: 'thin', devices }))
  t.equal((await add('d3', 'd9')).kind, 'not-found')
  t.equal((await add('d3', 'd1')).kind, 'in-use')
  t.match(await add('d3', 'd4'), { kind: 'in-use', message: /the same disk as d2/ })
  machine.device('d3').fail('write', 'io')
  t.equal((await add('d3')).kind, 'io')
  t.equal((await spaceOf(machine)).physicalBytes, before)
  t.equal(await findLabel(machine.device('d3')), undefined)
  await machine.run('virstor.add', { name: 'thin', devices: ['d3'] })
  t.ok((await spaceOf(machine)).physicalBytes > before)
  await machine.shutDown()
})

t.test('a label that could not be taken off is told of; nothing of memory is in one', async (t) => {
  const machine = await new Machine({ devices: 2, sizeBytes: 5 * MIB }).start()
  await machine.run('virstor.create', { ...THIN, devices: ['d1', 'd2'] })
  const { media } = machine.device('d1')
  t.ok(media.subarray(media.length - 512 + 192).every((byte) => byte === 0))
  const device = machine.device('d2')
  const submit = device.submit.bind(device)
  device.submit = (request) => {
    if (request.op === 'write-zeroes') device.fail('write-zeroes', 'io')
    submit(request)
  }
  const { warnings } = await machine.run('virstor.destroy', { name: 'thin' })
  t.match(warnings.join(), 'the label on drive d2 may still be there')
  t.notMatch(warnings.join(), 'd1')
  await machine.shutDown()
})
