/** A device of FreeBSD's virstor in operation: read right, never written, down with a reason where it is not whole. */
import t from 'tap'
import { MIB } from '../../../../src/base/limits.ts'
import { readLabel } from '../../../../src/engine/geom/label.ts'
import { get, type Machine } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'
import {
  CHUNK,
  type FreebsdVirstorOptions,
  freebsdVirstor,
  readAsFreebsd,
  readWhole,
} from '../../../support/freebsd-virstor.ts'
import { absentIn } from '../../../support/objects.ts'

function mediaOf(machine: Machine): readonly Buffer[] {
  return [...machine.devices.values()].map(({ media }) => Buffer.from(media))
}

function problems(machine: Machine): string {
  return absentIn(machine.topology)
    .map(({ status }) => status)
    .join('\n')
}

function events(machine: Machine, event: string): string {
  const all = machine.topology.events.history.filter((one) => one.event === event)
  return all.map(({ message }) => message).join('\n')
}

t.test('a device is served as FreeBSD has it, and nothing is written', async (t) => {
  const { machine, content } = freebsdVirstor()
  const before = mediaOf(machine)
  t.ok(readAsFreebsd(before)?.equals(content), 'the image is one')
  await machine.start()
  t.ok((await readWhole(machine, 'big')).equals(content))
  t.equal(machine.topology.find('big').features.readOnly, true)
  t.equal((await failureOf((async () => machine.open('big'))())).kind, 'permission')
  t.match(machine.volume('big'), {
    health: 'HEALTHY',
    status: /Read-only/,
    action: /plexus virstor convert big/,
    components: [{ device: 'd1', note: /37 of 37 chunks used, carries the map/ }, {}, {}],
  })
  t.match(await machine.list('virstor.list'), [
    { name: 'big', state: 'READ-ONLY', facts: { usedBytes: 76 * CHUNK, components: 3 } },
  ])
  const create = machine.run('virstor.create', { name: 'x', devices: ['d1'], wipeSignatures: true })
  t.equal((await failureOf(create)).kind, 'in-use')
  t.match(await readLabel(machine.device('d2'), machine.topology.classes), {
    text: "component 1 of big of FreeBSD's virstor",
    volumes: ['big'],
  })
  await machine.shutDown()
  t.ok(mediaOf(machine).every((one, index) => one.equals(before[index] as Buffer)))
  t.equal(machine.pool.leased, 0)
})

t.test('what has no chunk reads as zeroes, and is told so', async (t) => {
  const places = new Map([
    [0, [2, 0]],
    [1, [2, 1]],
    [3, [0, 38]],
  ] as const)
  const { machine, content } = freebsdVirstor({ places })
  await machine.start()
  const access = { read: 1, write: 0, exclusive: 0 }
  const big = machine.topology.attach(machine.topology.find('big'), undefined, 'test', access)
  const across = await get(big, CHUNK - 4096, 3 * CHUNK + 4096)
  t.ok(across.equals(content.subarray(CHUNK - 4096, 4 * CHUNK)))
  t.strictSame(await big.extentAt(0, 64 * MIB), { allocated: true, length: 2 * CHUNK })
  t.strictSame(await big.extentAt(2 * CHUNK, 512), { allocated: false, length: 512 })
  await big.close()
  await machine.shutDown()
})

t.test('one lost component stops the device, which says which; it is back with it', async (t) => {
  const { machine, content } = freebsdVirstor()
  await machine.start(['d1', 'd3'])
  t.equal(machine.topology.providers.has('big'), false)
  t.match(problems(machine), 'component 1 of 3 is missing')
  await machine.plug('d2')
  t.ok((await readWhole(machine, 'big')).equals(content))
  await machine.pull('d3')
  t.equal(machine.topology.providers.has('big'), false)
  t.match(problems(machine), 'component 2 of 3 is missing')
  t.match(events(machine, 'set-incomplete'), 'component 2 of 3 is missing')
  await machine.replug('d3')
  t.ok((await readWhole(machine, 'big')).equals(content))
  await machine.pull('d1')
  await machine.pull('d2')
  t.match(problems(machine), 'components 0, 1 of 3 are missing')
  await machine.shutDown()
})

const DOWN: readonly (readonly [string, FreebsdVirstorOptions, RegExp])[] = [
  [
    'counts that differ',
    { label: (index) => (index === 1 ? { count: 4 } : {}) },
    /components 0 \(d1\) and 1 \(d2\) disagree: 3 and 4 components/,
  ],
  [
    'sizes that differ',
    { label: (index) => (index === 2 ? { virtualBytes: 32 * MIB } : {}) },
    /disagree: 67108864 and 33554432 bytes of size/,
  ],
  [
    'chunks that differ',
    { label: (index) => (index === 2 ? { chunkBytes: 2 * CHUNK, chunks: 19 } : {}) },
    /disagree: 131072 and 262144 bytes of a chunk/,
  ],
  ['a component twice', { label: (index) => (index === 2 ? { index: 1 } : {}) }, /d2 and d3 both/],
  [
    'a component left over from another device of that name',
    { label: (index) => (index === 2 ? { id: 7 } : {}) },
    /component 2 of 3 is missing/,
  ],
  [
    'an entry that names no chunk',
    { map: (map) => map.writeUInt32LE(4000, 8 * 7 + 4) },
    /entry 7 of its map names chunk 4000 of component 0, and it has 39/,
  ],
  [
    'two entries with one chunk',
    { map: (map) => map.copy(map, 8 * 1, 8 * 7, 8 * 8) },
    /entries 1 and 7 of its map both name chunk 3 of component 0/,
  ],
]

for (const [what, options, reason] of DOWN) {
  t.test(`${what}: down, with the reason`, async (t) => {
    const { machine } = freebsdVirstor(options)
    const before = mediaOf(machine)
    await machine.start()
    t.equal(machine.topology.providers.has('big'), false)
    t.match(problems(machine), reason)
    await machine.shutDown()
    t.ok(mediaOf(machine).every((one, index) => one.equals(before[index] as Buffer)))
  })
}

t.test('a label that cannot be used is told of, and the device stays free', async (t) => {
  const { machine } = freebsdVirstor({
    label: (index) => [{ version: 3 }, { mediaBytes: 9 * MIB }, {}][index] ?? {},
  })
  await machine.start()
  t.match(events(machine, 'foreign-drive'), /d1 is not used: .* has version 3/)
  t.match(events(machine, 'foreign-drive'), /d2 is not used: .* of device big is for 9437184 bytes/)
  t.match(problems(machine), 'components 0, 1 of 3 are missing')
  t.equal(machine.topology.find('d1').consumers.size, 0)
  await machine.shutDown()
})

t.test('a copy that comes later is left alone; a taken name is not the end', async (t) => {
  const { machine, content } = freebsdVirstor({ devices: 1 })
  await machine.start()
  const twin = freebsdVirstor({ devices: 1 }).machine.device('d1')
  await machine.topology.addDevice('d9', twin)
  t.match(events(machine, 'duplicate-drive'), /d9 carries component 0 .* present on d1/)
  const other = freebsdVirstor({ devices: 1, label: () => ({ id: 1 }) }).machine.device('d1')
  await machine.topology.addDevice('d8', other)
  t.ok((await readWhole(machine, 'big.freebsd')).equals(content))
  await machine.shutDown()
})
