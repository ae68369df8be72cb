/** The nop class: hands through, delays, fails, tears; comes and goes with what is below and above. */
import t from 'tap'
import { MIB } from '../../../src/base/limits.ts'
import { silentLogger } from '../../../src/base/log.ts'
import type { ObjectList } from '../../../src/control/reports.ts'
import { createEngine } from '../../../src/engine/engine.ts'
import type { Consumer } from '../../../src/engine/geom/consumer.ts'
import type { Topology } from '../../../src/engine/geom/topology.ts'
import type { VerbParameters } from '../../../src/engine/geom/types.ts'
import { allocateAligned, createAlignedPool } from '../../../src/hal/aligned-pool.ts'
import { flush, readAt, writeAt } from '../../../src/hal/io.ts'
import { failureOf } from '../../support/failure.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { MemoryDevice } from '../../support/memory-device.ts'

const pool = createAlignedPool(32 * MIB)
const TIMEOUT_MS = 5_000

/** Random numbers that are always the same fraction. */
function fractionOf(fraction: number) {
  const bytes = (length: number) => {
    const made = Buffer.alloc(length)
    if (length === 4) made.writeUInt32LE(Math.floor(fraction * 2 ** 32))
    return made
  }
  return { bytes }
}

async function start(fraction = 0.5) {
  const clock = new ManualClock()
  const topology = createEngine({
    pool,
    clock,
    random: fractionOf(fraction),
    log: silentLogger(),
    now: () => new Date(),
  })
  const disk = new MemoryDevice({ sizeBytes: 1 * MIB, path: '/dev/disk' })
  await topology.addDevice('disk', disk, { timeoutMs: TIMEOUT_MS })
  await topology.settle()
  return { clock, topology, disk }
}

/** Runs a verb of nop; it answers the nop that it is about. */
async function run(topology: Topology, name: string, parameters: VerbParameters = {}) {
  const verb = topology.classes
    .flatMap((one) => one.verbs)
    .find(({ spec }) => spec.noun === 'nop' && spec.name === name)
  if (!verb) throw new Error(`there is no verb ${name}`)
  return ((await verb.run(parameters, topology)) as ObjectList).objects
}

function open(topology: Topology, name: string): Consumer {
  const access = { read: 1, write: 1, exclusive: 0 }
  return topology.attach(topology.find(name), undefined, 'test', access)
}

function filled(byte: number, length = 4096) {
  const buffer = allocateAligned(length)
  buffer.bytes.fill(byte)
  return buffer
}

t.test('it hands everything through, and is told from its disk by name only', async (t) => {
  const { topology, disk } = await start()
  const made = await run(topology, 'create', { provider: 'disk' })
  t.match(made, [{ name: 'disk.nop', sizeBytes: 1 * MIB, state: 'UP', device: 'disk' }])
  const nop = open(topology, 'disk.nop')
  t.strictSame(nop.geometry, disk.geometry)
  await writeAt(nop, filled(7), 8192)
  t.ok(disk.media.subarray(8192, 12288).equals(filled(7).bytes))
  t.equal(disk.media[8191], 0)
  const into = allocateAligned(4096)
  await readAt(nop, into, 8192)
  t.ok(into.bytes.equals(filled(7).bytes))
  t.equal(disk.unflushed, 1)
  await flush(nop)
  t.equal(disk.unflushed, 0)
  await writeAt(nop, filled(8), 0, { fua: true })
  t.equal(disk.unflushed, 0)
  t.equal(topology.find('disk.nop').rank, 1)
  t.strictSame(await run(topology, 'list'), made)
  await nop.close()
  await run(topology, 'destroy', { name: 'disk.nop' })
  t.strictSame(await run(topology, 'list'), [])
  t.equal(topology.providers.has('disk.nop'), false)
  t.equal(topology.find('disk').consumers.size, 0)
})

t.test('names and uses that clash are refused, and leave nothing behind', async (t) => {
  const { topology } = await start()
  const create = (parameters: VerbParameters) => failureOf(run(topology, 'create', parameters))
  t.equal((await create({ provider: 'dusk' })).kind, 'not-found')
  t.equal((await create({ provider: 'disk', name: 'disk' })).kind, 'exists')
  t.equal((await create({ provider: 'disk', name: 'a b' })).kind, 'invalid')
  t.equal(topology.find('disk').consumers.size, 0, 'the disk is free')
  const user = open(topology, 'disk')
  t.match((await create({ provider: 'disk' })).message, /disk is in use by test/)
  await user.close()
  await run(topology, 'create', { provider: 'disk', name: 'one' })
  t.equal((await create({ provider: 'disk', name: 'two' })).kind, 'in-use')
  await run(topology, 'create', { provider: 'one', name: 'two' })
  t.equal(topology.find('two').rank, 2, 'they stack')
  const busy = await failureOf(run(topology, 'destroy', { name: 'one' }))
  t.match(busy.message, /one is in use by nop two; .*--force/)
  await run(topology, 'destroy', { name: 'one', force: true })
  t.strictSame(await run(topology, 'list'), [], 'what stood on it is gone too')
  const error = await failureOf(run(topology, 'delay', { name: 'one', read: '1' }))
  t.match(error.message, /no nop provider "one"; plexus nop list/)
})

t.test('delays', async (t) => {
  const { topology, clock } = await start()
  await run(topology, 'create', { provider: 'disk', name: 'slow' })
  const nop = open(topology, 'slow')
  await run(topology, 'delay', { name: 'slow', read: '20', write: '50' })
  let ended = 0
  const count = () => ended++
  const work = [
    readAt(nop, filled(0), 0).then(count),
    writeAt(nop, filled(1), 0).then(count),
    flush(nop).then(count),
  ]
  const turn = () => new Promise((resolve) => setImmediate(resolve))
  for (const [ms, expected] of [
    [0, 1],
    [19, 1],
    [1, 2],
    [29, 2],
    [1, 3],
  ] as const) {
    clock.advance(ms)
    await turn()
    await turn()
    t.equal(ended, expected, `${ms} ms later`)
  }
  await Promise.all(work)
  const late = failureOf(writeAt(nop, filled(2), 0))
  await run(topology, 'destroy', { name: 'slow', force: true })
  clock.advance(100)
  t.equal((await late).kind, 'gone', 'held back until it was gone')
  await run(topology, 'create', { provider: 'disk', name: 'slow' })
  t.equal((await failureOf(run(topology, 'delay', { name: 'slow' }))).kind, 'invalid')
  const wrong = await failureOf(run(topology, 'delay', { name: 'slow', read: '-1' }))
  t.match(wrong.message, /--read -1: must be a number/)
})

t.test('faults by number and probability', async (t) => {
  const { topology, disk } = await start(0.5)
  await run(topology, 'create', { provider: 'disk', name: 'n' })
  const nop = open(topology, 'n')
  await run(topology, 'fail', { name: 'n', op: 'write', count: '2' })
  const error = await failureOf(writeAt(nop, filled(1), 4096))
  t.equal(error.kind, 'io')
  t.match(error.message, /n: write of 4096 bytes at offset 4096 failed: injected fault/)
  await readAt(nop, filled(0), 0)
  t.equal((await failureOf(writeAt(nop, filled(1), 0))).kind, 'io')
  t.ok(
    disk.media.every((byte) => byte === 0),
    'nothing was written',
  )
  await writeAt(nop, filled(1), 0)
  await run(topology, 'fail', { name: 'n', op: 'read', kind: 'gone', probability: '0.6' })
  t.equal((await failureOf(readAt(nop, filled(0), 0))).kind, 'gone', '0.5 is below 0.6')
  await run(topology, 'clear', { name: 'n' })
  await run(topology, 'fail', { name: 'n', op: 'read', probability: '0.5' })
  await readAt(nop, filled(0), 0)
  const [set] = await run(topology, 'fail', { name: 'n', op: 'flush' })
  t.match(set?.facts, { faults: 'read io with probability 0.5, flush io', failed: 3 })
  t.equal((await failureOf(flush(nop))).kind, 'io')
  t.equal((await failureOf(flush(nop))).kind, 'io', 'until clear')
  const [clean] = await run(topology, 'clear', { name: 'n' })
  t.match(clean?.facts, { faults: '', tears: 0, readDelayMs: 0 })
  await flush(nop)
  for (const wrong of [{}, { op: 'read', count: '0' }, { op: 'read', probability: '2' }]) {
    t.equal((await failureOf(run(topology, 'fail', { name: 'n', ...wrong }))).kind, 'invalid')
  }
})

t.test('it hangs until clear, which lets go on what is held back', async (t) => {
  const { clock, topology, disk } = await start()
  await run(topology, 'create', { provider: 'disk', name: 'n' })
  const nop = open(topology, 'n')
  t.match(await run(topology, 'hang', { name: 'n', op: 'write' }), [
    { facts: { hangs: 'write', held: 0 } },
  ])
  const write = writeAt(nop, filled(1), 0)
  await readAt(nop, filled(0), 0)
  await run(topology, 'delay', { name: 'n', read: '60000' })
  const read = readAt(nop, filled(0), 0)
  t.match(await run(topology, 'list'), [{ state: 'UP', facts: { held: 2 } }])
  t.equal(disk.media[0], 0)
  t.match(await run(topology, 'clear', { name: 'n' }), [{ facts: { hangs: '', held: 0 } }])
  await Promise.all([write, read])
  t.equal(disk.media[0], 1)
  clock.advance(60_000)
  t.equal(nop.inFlight, 0)
  t.equal((await failureOf(run(topology, 'hang', { name: 'n', op: 'x' }))).kind, 'invalid')
})

t.test('one that hangs too long is called down; clear brings it back', async (t) => {
  const { clock, topology, disk } = await start()
  await run(topology, 'create', { provider: 'disk', name: 'n' })
  const nop = open(topology, 'n')
  await run(topology, 'hang', { name: 'n' })
  const failure = failureOf(writeAt(nop, filled(1), 0))
  clock.advance(TIMEOUT_MS + 1000)
  t.match(await failure, { kind: 'gone', message: /^n: no answer for 5 s/ })
  await topology.quiet()
  t.notOk(topology.providers.has('n'))
  t.ok(topology.providers.has('disk'), 'the disk below has answered')
  t.match(await run(topology, 'list'), [{ state: 'DOWN', health: 'FAULTED', facts: { held: 1 } }])
  await run(topology, 'clear', { name: 'n' })
  t.equal(disk.media[0], 1, 'late, before it is back')
  const again = open(topology, 'n')
  await writeAt(again, filled(2), 0)
  t.equal(disk.media[0], 2)
  t.match(await run(topology, 'list'), [{ state: 'UP', facts: { held: 0 } }])
  await run(topology, 'hang', { name: 'n' })
  const lost = failureOf(writeAt(again, filled(3), 0))
  await run(topology, 'destroy', { name: 'n', force: true })
  t.equal((await lost).kind, 'gone')
  t.equal(topology.geoms.size, 1)
})

t.test('torn writes store whole first blocks', async (t) => {
  for (const [fraction, storedBytes] of [
    [0, 0],
    [0.4, 1536],
    [0.99, 3584],
  ] as const) {
    const { topology, disk } = await start(fraction)
    await run(topology, 'create', { provider: 'disk', name: 'n' })
    const nop = open(topology, 'n')
    await run(topology, 'tear', { name: 'n' })
    const error = await failureOf(writeAt(nop, filled(9), 8192))
    t.match(error.message, new RegExp(`injected fault, ${storedBytes} bytes were stored`))
    const expected = Buffer.alloc(4096).fill(9, 0, storedBytes)
    t.ok(disk.media.subarray(8192, 12288).equals(expected))
    await run(topology, 'tear', { name: 'n', count: '1', succeed: true })
    await writeAt(nop, filled(3), 16384)
    t.ok(disk.media.subarray(16384, 20480).equals(Buffer.alloc(4096).fill(3, 0, storedBytes)))
    await writeAt(nop, filled(4), 16384)
    t.ok(disk.media.subarray(16384, 20480).equals(filled(4).bytes), 'the next one is whole')
    t.match(await run(topology, 'clear', { name: 'n' }), [{ facts: { torn: 2 } }])
  }
})

t.test('it follows its disk: new sizes, loss, the end', async (t) => {
  const { topology, disk } = await start()
  await run(topology, 'create', { provider: 'disk', name: 'n' })
  const nop = open(topology, 'n')
  const heard: string[] = []
  nop.onEvent((event) => heard.push(event))
  disk.resize(2 * MIB)
  await topology.quiet()
  t.equal(nop.geometry.sizeBytes, 2 * MIB)
  await writeAt(nop, filled(1), 2 * MIB - 4096)
  disk.remove()
  await topology.quiet()
  t.strictSame(heard, ['resized', 'gone'])
  t.equal((await failureOf(readAt(nop, filled(0), 0))).kind, 'gone')
  t.strictSame(await run(topology, 'list'), [])

  const second = await start()
  await run(second.topology, 'create', { provider: 'disk' })
  await second.topology.stop()
  t.equal(second.topology.find('disk').consumers.size, 0, 'the disk is let go')
})

t.test('a read-only disk stays one', async (t) => {
  const { topology } = await start()
  const fixed = new MemoryDevice({ sizeBytes: 1 * MIB, features: { readOnly: true } })
  await topology.addDevice('cd', fixed)
  await run(topology, 'create', { provider: 'cd' })
  t.throws(() => open(topology, 'cd.nop'), { message: /read-only/ })
})
