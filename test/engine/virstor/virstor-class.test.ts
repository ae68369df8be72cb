/** Thin devices by their verbs, on a machine that starts, loses disks and its power: creation to destruction. */
import t from 'tap'
import { MIB } from '../../../src/base/limits.ts'
import type { VirstorSet } from '../../../src/engine/virstor/virstor-set.ts'
import { flush, get, Machine, pattern, put } from '../../support/engine.ts'
import { failureOf } from '../../support/failure.ts'
import { goesAtAnchor, MemoryDevice } from '../../support/memory-device.ts'
import { absentIn, volumesIn } from '../../support/objects.ts'
import { CHUNK, carriers, fill, noteOf, row, thin } from '../../support/thin.ts'

t.test("the original's own test: first and last sector survive the next start", async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'])
  const first = pattern(1, 512)
  const last = pattern(2, 512)
  let device = machine.open('thin')
  t.equal(device.geometry.sizeBytes, 64 * MIB)
  t.ok((await get(device, 0, MIB)).equals(Buffer.alloc(MIB)), 'what was never written is zero')
  await put(device, 0, first)
  await put(device, 64 * MIB - 512, last)
  await device.close()
  await machine.shutDown()
  await machine.start()
  device = machine.open('thin')
  t.ok((await get(device, 0, 512)).equals(first))
  t.ok((await get(device, 64 * MIB - 512, 512)).equals(last))
  t.ok((await get(device, 512, MIB)).equals(Buffer.alloc(MIB)))
  await device.close()
})

t.test('what was flushed survives a power cut', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'])
  let device = machine.open('thin')
  const data = pattern(3, MIB)
  await put(device, 5 * MIB, data)
  await flush(device)
  await put(device, 20 * MIB, pattern(4, CHUNK))
  machine.cut()
  await machine.start()
  device = machine.open('thin')
  t.ok((await get(device, 5 * MIB, MIB)).equals(data))
  const after = await get(device, 20 * MIB, CHUNK)
  t.ok(after.equals(Buffer.alloc(CHUNK)), 'what was not flushed is what was there before: zeroes')
  await device.close()
})

t.test('a full device: writes fail, rewrites go on, and add helps', async (t) => {
  const machine = await thin(['d1', 'd2'])
  const device = machine.open('thin')
  const freeBytes = (await row(machine))?.freeBytes ?? 0
  const data = pattern(5, freeBytes)
  for (let at = 0; at < freeBytes; at += MIB) {
    await put(device, at, data.subarray(at, Math.min(at + MIB, freeBytes)))
  }
  t.equal((await row(machine))?.freeBytes, 0)
  t.match(machine.volume('thin'), { health: 'DEGRADED', action: /virstor add thin/ })
  const error = await failureOf(put(device, 40 * MIB, pattern(6, CHUNK)))
  t.equal(error.kind, 'no-space')
  await put(device, 0, pattern(7, CHUNK))
  t.ok((await get(device, 0, CHUNK)).equals(pattern(7, CHUNK)))
  await machine.run('virstor.add', { name: 'thin', devices: ['d3'] })
  await put(device, 40 * MIB, pattern(6, CHUNK))
  await flush(device)
  await device.close()
  await machine.shutDown()
  await machine.start()
  const again = machine.open('thin')
  t.ok((await get(again, 40 * MIB, CHUNK)).equals(pattern(6, CHUNK)))
  t.ok((await get(again, MIB, MIB)).equals(data.subarray(MIB, 2 * MIB)))
  await again.close()
  t.equal(machine.volume('thin').health, 'HEALTHY')
})

t.test('a component that is away takes its chunks, and the map has another copy', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3', 'd4'], { policy: 'round-robin' })
  const device = machine.open('thin')
  const data = pattern(8, 8 * CHUNK)
  await put(device, 0, data)
  await flush(device)
  await machine.pull('d1')
  t.match(machine.volume('thin'), { state: 'DEGRADED', status: /Component d1 is missing/ })
  const answers = await Promise.all(
    [0, 1, 2, 3].map((chunk) =>
      get(device, chunk * CHUNK, CHUNK).then(
        (found) => found.equals(data.subarray(chunk * CHUNK, (chunk + 1) * CHUNK)),
        (error: { kind: string }) => error.kind,
      ),
    ),
  )
  t.strictSame(answers, ['gone', true, true, true])
  await put(device, 30 * MIB, pattern(9, 4 * CHUNK))
  await flush(device)
  await machine.replug('d1')
  t.equal(machine.volume('thin').health, 'HEALTHY')
  t.ok((await get(device, 0, data.length)).equals(data))
  // d2 carries the map since the start; the other copy was made when d1 went.
  while (carriers(machine).length < 2) await new Promise((resolve) => setTimeout(resolve, 5))
  t.strictSame(carriers(machine), ['d2', 'd3'])
  await machine.pull('d2')
  await put(device, 40 * MIB, pattern(11, CHUNK))
  await flush(device)
  await device.close()
  await machine.shutDown()
  await machine.start(['d1', 'd3', 'd4'])
  const again = machine.open('thin')
  t.ok((await get(again, 40 * MIB, CHUNK)).equals(pattern(11, CHUNK)))
  t.ok((await get(again, 0, CHUNK)).equals(data.subarray(0, CHUNK)))
  t.equal((await failureOf(get(again, CHUNK, CHUNK))).kind, 'gone', 'd2 has the second chunk')
  await again.close()
})

t.test('a set without a majority waits, and says what is missing', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'])
  const device = machine.open('thin')
  await put(device, 0, pattern(10, CHUNK))
  await device.close()
  await machine.shutDown()
  await machine.start(['d1'])
  t.notOk(machine.topology.providers.has('thin'))
  t.match(absentIn(machine.topology)[0], {
    status: /with thin is not served: 2 drives are missing: d2, d3/,
    action: /plexus virstor assemble --force/,
  })
  await machine.run('virstor.assemble', { force: true })
  const forced = machine.open('thin')
  t.ok((await get(forced, 0, CHUNK)).equals(pattern(10, CHUNK)))
  await forced.close()
})

t.test('destroy frees the components', async (t) => {
  const machine = await thin(['d1', 'd2'])
  const device = machine.open('thin')
  t.equal((await failureOf(machine.run('virstor.destroy', { name: 'thin' }))).kind, 'in-use')
  await device.close()
  const dry = await machine.run('virstor.destroy', { name: 'thin', dryRun: true })
  t.match(dry.steps[0]?.text, 'destroy thin device thin')
  t.ok(await row(machine), 'a dry run destroys nothing')
  await machine.run('virstor.destroy', { name: 'thin' })
  t.notOk(await row(machine))
  t.notOk(machine.topology.providers.has('thin'))
  await machine.run('virstor.create', {
    name: 'thin',
    devices: ['d1', 'd2'],
    size: '32MiB',
    chunk: '128KiB',
  })
  t.equal((await row(machine))?.sizeBytes, 32 * MIB)
})

t.test('what is refused, is refused before anything is written', async (t) => {
  const machine = await new Machine({ devices: 3, sizeBytes: 5 * MIB }).start()
  const create = (more: object) =>
    failureOf(machine.run('virstor.create', { name: 'thin', devices: ['d1'], ...more }))
  t.match(await create({ chunk: '128MiB' }), { kind: 'invalid', message: /128 KiB to 64 MiB/ })
  t.match(await create({ size: '0' }), { kind: 'invalid' })
  t.match(await create({ devices: ['d1', 'd1'] }), { kind: 'invalid', message: /named twice/ })
  t.match(await create({ devices: ['d9'] }), { kind: 'not-found' })
  t.match(await create({ size: '100TiB' }), { kind: 'no-space', message: /the map takes/ })
  t.match(await create({ name: 'd2' }), { kind: 'exists' })
  for (const name of ['', '-x', 'a b', 'a\x1b[2J', 'x'.repeat(64)]) {
    t.match(await create({ name }), { kind: 'invalid', message: /cannot be the name/ })
  }
  t.match(await create({ fullWait: '1d' }), { kind: 'invalid', message: /at most 10m/ })
  const names = [...machine.topology.providers.values()].filter(({ label }) => label)
  t.strictSame(names, [], 'no label')
  t.match(await failureOf(machine.run('virstor.add', { name: 'thin', devices: ['d1'] })), {
    kind: 'not-found',
    message: /virstor list/,
  })
})

t.test('a thin device on a mirror; nothing of vinum on a thin device', async (t) => {
  const machine = await new Machine({ devices: 3, sizeBytes: 8 * MIB }).start()
  await machine.run('volume.create', { name: 'db', mirror: ['d1', 'd2'] })
  await machine.jobsDone()
  const thinOn = { name: 'thin', devices: ['db'], size: '64MiB', chunk: '128KiB' }
  await machine.run('virstor.create', thinOn)
  let device = machine.open('thin')
  const data = pattern(12, MIB)
  await put(device, 10 * MIB, data)
  await machine.pull('d1')
  await flush(device)
  await device.close()
  const create = machine.run('volume.create', { name: 'over', concat: ['thin'] })
  t.match(await failureOf(create), { kind: 'unsupported', message: /is a thin device/ })
  await machine.shutDown()
  await machine.start(['d2', 'd3', 'd1'])
  device = machine.open('thin')
  t.ok((await get(device, 10 * MIB, MIB)).equals(data))
  await device.close()
})

/** Both disks are gone before the engine has done anything about it. */
async function pullBoth(machine: Machine, ...names: readonly string[]): Promise<void> {
  for (const name of names) machine.device(name).remove()
  await machine.topology.quiet()
}

t.test(
  'without its map the device ends; it is back with it, and tells what may be lost',
  async (t) => {
    const machine = await thin(['d1', 'd2', 'd3', 'd4', 'd5'], { policy: 'round-robin' })
    const before = machine.open('thin')
    const data = pattern(13, 10 * CHUNK)
    await put(before, 0, data)
    await flush(before)
    await put(before, 20 * CHUNK, data)
    await pullBoth(machine, 'd1', 'd2')
    t.notOk(machine.topology.providers.has('thin'))
    await before.close()
    // The set is assembled anew, and finds no map.
    const isDown = () => volumesIn(machine.topology).some(({ state }) => state === 'DOWN')
    while (!isDown()) await new Promise(setImmediate)
    t.match(machine.volume('thin'), {
      health: 'FAULTED',
      status: /its map is on d1 and d2, which are missing|is missing/,
    })
    await machine.replug('d2')
    const after = machine.open('thin')
    t.match(await failureOf(flush(after)), { message: /may be lost/ }, 'what was not flushed')
    await flush(after)
    t.ok((await get(after, CHUNK, CHUNK)).equals(data.subarray(CHUNK, 2 * CHUNK)))
    await machine.replug('d1')
    t.ok((await get(after, 0, data.length)).equals(data))
    await after.close()
  },
)

t.test('what a component has lost is still to be told when the device ends', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3', 'd4', 'd5'], { policy: 'round-robin' })
  const consumer = machine.open('thin')
  await put(consumer, 0, pattern(15, 5 * CHUNK))
  const { device } = machine.topology.find('thin').geom as VirstorSet
  await machine.pull('d5')
  await device?.committer.pass()
  await consumer.close()
  await device?.stop()
  t.match(device?.committer.owes?.message, /may be lost; .* component 5 went away/)
})

t.test('a copy of the map of an older time is not read', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3', 'd4', 'd5'], { policy: 'round-robin' })
  const old = Buffer.from(machine.device('d1').media)
  let device = machine.open('thin')
  await put(device, 0, pattern(14, 5 * CHUNK))
  await flush(device)
  await device.close()
  // Commits that the image does not have.
  await machine.shutDown()
  await machine.start()
  await machine.shutDown()
  await machine.start()
  await pullBoth(machine, 'd1', 'd2')
  machine.renew('d1')
  old.copy(machine.device('d1').media)
  await machine.plug('d1')
  t.notOk(machine.topology.providers.has('thin'), 'the image carries a map, and is not up')
  await machine.replug('d2')
  device = machine.open('thin')
  t.ok((await get(device, CHUNK, CHUNK)).equals(pattern(14, 5 * CHUNK).subarray(CHUNK, 2 * CHUNK)))
  t.equal((await failureOf(get(device, 0, CHUNK))).kind, 'gone', 'nor is its data')
  await device.close()
})

t.test('a component that has gone is told before that is written down', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'])
  machine.device('d2').hold()
  machine.device('d1').remove()
  while (machine.topology.events.history.every(({ event }) => event !== 'drive-down')) {
    await new Promise(setImmediate)
  }
  const { state, status } = machine.volume('thin')
  machine.device('d2').release()
  await machine.topology.quiet()
  t.equal(state, 'DEGRADED')
  t.match(status, /d1 is missing/)
})

t.test('a component that goes again in each commit of its return has missed nothing', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3', 'd4'], { policy: 'round-robin' })
  const device = machine.open('thin')
  const data = pattern(15, 4 * CHUNK)
  await put(device, 0, data)
  await flush(device)
  await machine.pull('d2')
  for (let round = 0; round < 2; round++) {
    machine.renew('d2')
    goesAtAnchor(machine.device('d2'))
    await machine.plug('d2')
    await machine.topology.quiet()
    t.equal(machine.volume('thin').state, 'DEGRADED', `round ${round}`)
  }
  await machine.replug('d2')
  t.equal(machine.volume('thin').health, 'HEALTHY')
  t.ok((await get(device, 0, data.length)).equals(data))
  await device.close()
})

t.test('a component that flaps takes no more places each time', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3', 'd4'])
  const device = machine.open('thin')
  const used = async () => (await row(machine))?.usedBytes ?? 0
  for (let round = 0; round < 6; round++) {
    const [name = ''] = carriers(machine)
    await machine.pull(name)
    while (carriers(machine).length < 2) await new Promise((resolve) => setTimeout(resolve, 5))
    await machine.replug(name)
    await put(device, round * CHUNK, pattern(round, CHUNK))
    await flush(device)
  }
  t.ok(
    (await used()) <= 10 * CHUNK,
    `${(await used()) / CHUNK} chunks: 6, and one for the map on each component`,
  )
  await device.close()
  await machine.shutDown()
  await machine.start()
  const again = machine.open('thin')
  for (let round = 0; round < 6; round++) {
    t.ok((await get(again, round * CHUNK, CHUNK)).equals(pattern(round, CHUNK)), `${round}`)
  }
  await again.close()
})

t.test('a component with larger blocks than the device is refused', async (t) => {
  const machine = await thin(['d1', 'd2'])
  machine.devices.set(
    'd9',
    new MemoryDevice({ sizeBytes: 5 * MIB, blockBytes: 4096, path: '/dev/d9' }),
  )
  await machine.plug('d9')
  const added = machine.run('virstor.add', { name: 'thin', devices: ['d9'] })
  t.match(await failureOf(added), { kind: 'invalid', message: /blocks of 4096 bytes/ })
})

t.test(
  'a component that is back before the map was written again carries a whole copy',
  async (t) => {
    const machine = await thin(['d1', 'd2'])
    const device = machine.open('thin')
    await put(device, 0, pattern(15, CHUNK))
    await flush(device)
    await machine.pull('d1')
    await machine.replug('d1')
    while (carriers(machine).length < 2) await new Promise(setImmediate)
    for (let chunk = 1; chunk < 9; chunk++) {
      await put(device, chunk * CHUNK, pattern(15 + chunk, CHUNK))
      await flush(device)
    }
    machine.cut()
    await machine.start(['d1'])
    await machine.run('virstor.assemble', { force: true })
    const alone = machine.open('thin')
    for (let chunk = 0; chunk < 9; chunk++) {
      t.ok((await get(alone, chunk * CHUNK, CHUNK)).equals(pattern(15 + chunk, CHUNK)), `${chunk}`)
    }
    await alone.close()
  },
)

t.test('space runs low: told once, with what to type, and set changes when', async (t) => {
  const machine = await thin(['d1', 'd2'])
  const { freeBytes = 0, physicalBytes = 0 } = (await row(machine)) ?? { sizeBytes: 0 }
  t.match(await row(machine), {
    isLow: false,
    warnBytes: Math.floor(physicalBytes / CHUNK / 10) * CHUNK,
  })
  const spoken = () =>
    machine.topology.events.history.filter(({ event }) => event === 'space-chunks')
  const device = machine.open('thin')
  for (let at = 0; at < freeBytes - 2 * CHUNK; at += CHUNK) await put(device, at, pattern(1, CHUNK))
  t.match(spoken(), [
    {
      severity: 'warning',
      object: 'thin',
      message: /\d+ of \d+ chunks \(\d+ %\) are free.*plexus virstor add thin DEVICE/,
    },
  ])
  const { health, status, action, facts } = machine.volume('thin')
  t.match(
    { health, status, action },
    {
      health: 'DEGRADED',
      status: /Space runs out: 2 of \d+ chunks/,
      action: /plexus virstor add thin DEVICE/,
    },
  )
  t.match(facts, { freeBytes: 2 * CHUNK, physicalBytes, low: 'chunks, components' })
  await machine.run('virstor.set', { name: 'thin', warnPercent: '0%', warnChunks: '1' })
  t.equal(spoken().length, 2)
  t.match(spoken()[1], { severity: 'info', message: /has space again/ })
  t.match(await row(machine), { isLow: false, warnBytes: CHUNK })
  await device.close()
  await machine.shutDown()
  await machine.start()
  t.match(await row(machine), { isLow: false, warnBytes: CHUNK }, 'the configuration has it')
  await machine.run('virstor.set', { name: 'thin', warnChunks: '2' })
  t.equal(machine.volume('thin').health, 'DEGRADED')
})

t.test('what set and create refuse', async (t) => {
  const machine = await thin(['d1'])
  const refused = async (parameters: object) =>
    (await failureOf(machine.run('virstor.set', { name: 'thin', ...parameters }))).message
  t.match(await refused({}), /nothing is to be changed/)
  t.match(await refused({ warnPercent: '100' }), /--warn-percent 100: 0 to 99/)
  t.match(await refused({ warnChunks: '-1' }), /--warn-chunks -1/)
  t.match(await refused({ warnChunks: '4000' }), /below that of all chunks/)
  t.match(await refused({ fullWait: '11m' }), /--full-wait 11m: at most 10m/)
  const plan = await machine.run('virstor.set', {
    name: 'thin',
    fullWait: '0',
    warnComponents: '2',
  })
  t.match(plan.steps, [{ text: /writes wait 0s for space/ }, { text: /2 components are empty/ }])
})

t.test('set changes which component gives space next', async (t) => {
  const machine = await thin(['d1', 'd2'])
  const chunksOn = (name: string) => Number(/^\d+/.exec(noteOf(machine, name)))
  const device = machine.open('thin')
  await fill(device, 0, 4)
  t.strictSame([chunksOn('d1'), chunksOn('d2')], [5, 1], 'the first, beside a copy of the map each')
  await machine.run('virstor.set', { name: 'thin', policy: 'round-robin' })
  await fill(device, 4, 4)
  t.strictSame([chunksOn('d1'), chunksOn('d2')], [7, 3])
  await flush(device)
  await device.close()
  await machine.shutDown()
  await machine.start()
  const again = machine.open('thin')
  await fill(again, 8, 2)
  t.strictSame([chunksOn('d1'), chunksOn('d2')], [8, 4], 'also after a restart')
  await again.close()
  t.match(await failureOf(machine.run('virstor.set', { name: 'thin', policy: 'best' })), {
    message: /--policy best: sequential or round-robin/,
  })
})

t.test('with --on-missing device nothing is served while a component is away', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3', 'd4'], {
    policy: 'round-robin',
    onMissing: 'device',
  })
  const before = machine.open('thin')
  const data = pattern(16, 8 * CHUNK)
  await put(before, 0, data)
  await flush(before)
  await machine.pull('d4')
  t.notOk(machine.topology.providers.has('thin'))
  await before.close()
  while (machine.volume('thin').state !== 'DOWN') await new Promise(setImmediate)
  t.match(machine.volume('thin'), {
    state: 'DOWN',
    status: /component d4 is missing, and .* set thin --on-missing=chunks/,
  })
  await machine.replug('d4')
  const back = machine.open('thin')
  t.ok((await get(back, 0, data.length)).equals(data))
  await back.close()
  await machine.pull('d4')
  await machine.run('virstor.set', { name: 'thin', onMissing: 'chunks' })
  const rest = machine.open('thin')
  t.ok((await get(rest, 0, CHUNK)).equals(data.subarray(0, CHUNK)), 'the rest is served')
  const end = { name: 'thin', onMissing: 'device' }
  t.match(await failureOf(machine.run('virstor.set', end)), {
    kind: 'in-use',
    message: /component d4 is missing, .* out of service at once.*; connect it first, or .*--force/,
  })
  const plan = await machine.run('virstor.set', { ...end, force: true, dryRun: true })
  t.match(plan.warnings, [/component d4 is missing, so thin is out of service at once/])
  t.ok(machine.topology.providers.has('thin'), 'it is in use still')
  await machine.run('virstor.set', { ...end, force: true })
  t.notOk(machine.topology.providers.has('thin'), 'and no more')
  await rest.close()
  machine.cut()
  await machine.start(['d1', 'd2', 'd3'])
  t.match(machine.volume('thin'), { state: 'DOWN', status: /component d4 is missing/ })
})
