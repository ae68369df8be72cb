/** Components that are lost for good are given up: what only they had fails until it is written again, the rest goes on. */
import t from 'tap'
import { defined } from '../../../../src/base/assert.ts'
import type { PlexusError } from '../../../../src/base/errors.ts'
import { Findings } from '../../../../src/engine/virstor/fsck/findings.ts'
import { PlaceCheck } from '../../../../src/engine/virstor/fsck/place-check.ts'
import { MapTable } from '../../../../src/engine/virstor/map/chunk-map.ts'
import { VirstorSet } from '../../../../src/engine/virstor/virstor-set.ts'
import { discard, writeZeroes } from '../../../../src/hal/io.ts'
import { flush, get, Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'
import { CHUNK, carriers, fill, thin } from '../../../support/thin.ts'
import { cutAtEachWrite } from '../../../support/write-cuts.ts'

const CHUNKS = 12
/** By round robin every third chunk is on d3. */
const LOST = [2, 5, 8, 11]
const GRANULE = CHUNK / 32

async function filled(): Promise<Machine> {
  const machine = await thin(['d1', 'd2', 'd3'], { policy: 'round-robin' })
  const device = machine.open('thin')
  await fill(device, 0, CHUNKS)
  await flush(device)
  await device.close()
  return machine
}

/** As {@link filled}, and d3 is lost for good. */
async function bereft(): Promise<Machine> {
  const machine = await filled()
  await machine.pull('d3')
  await machine.run('virstor.remove', { name: 'thin', devices: ['d3'], force: true })
  return machine
}

/** What each chunk reads as: `data`, `zero`, `lost`, or what is wrong with it. */
async function states(machine: Machine): Promise<readonly string[]> {
  const device = machine.open('thin')
  const found: string[] = []
  for (let chunk = 0; chunk < CHUNKS; chunk++) {
    const read = get(device, chunk * CHUNK, CHUNK)
    const bytes = await read.catch(() => undefined)
    if (!bytes) found.push((await failureOf(read)).kind === 'corrupt' ? 'lost' : 'away')
    else if (bytes.equals(pattern(chunk, CHUNK))) found.push('data')
    else found.push(bytes.every((byte) => byte === 0) ? 'zero' : 'WRONG')
  }
  await device.close()
  return found
}

const EXPECTED = Array.from({ length: CHUNKS }, (_, at) => (LOST.includes(at) ? 'lost' : 'data'))

t.test('the plan tells what is lost, and wants to be forced', async (t) => {
  const machine = await filled()
  const remove = (device: string, more: object = {}) =>
    machine.run('virstor.remove', { name: 'thin', devices: [device], ...more })
  t.match(await failureOf(remove('d3', { force: true })), {
    kind: 'invalid',
    message: /d3 is here, and nothing of it need be lost: plexus virstor remove thin d3 moves/,
  })
  await machine.pull('d3')
  t.match(await failureOf(remove('d3')), {
    kind: 'gone',
    message:
      /missing and holds 4 chunks of 128 KiB, bytes 262144 to 393215, 655360 to 786431, .* and 1 more ranges; connect it.*remove thin d3 --force gives that up/,
  })
  const plan = await remove('d3', { force: true, dryRun: true })
  t.match(plan.steps, [
    { text: /^give up 4 chunks of 128 KiB, bytes 262144 to 393215, .*, on d3$/ },
    { text: 'remove component d3 from thin' },
  ])
  t.match(plan.warnings, [
    /cannot be read until it is written again or discarded/,
    /clear-label d3/,
  ])
  t.match(machine.volume('thin'), { status: /d3 is missing/ }, 'a dry run gives up nothing')
  await machine.replug('d3')
  t.notOk((await states(machine)).includes('lost'))
})

t.test('what only it had is lost, and the rest goes on, also after starts', async (t) => {
  const machine = await bereft()
  const LOSS = /^4 chunks of 128.* KiB were given up with their components, and cannot be read/
  t.strictSame(await states(machine), EXPECTED)
  t.match(machine.volume('thin'), { state: 'UP', health: 'DEGRADED', status: LOSS })
  t.strictSame(carriers(machine), ['d1', 'd2'])
  await machine.shutDown()
  await machine.start(['d1', 'd2'])
  t.strictSame(await states(machine), EXPECTED)
  t.match(machine.volume('thin'), { status: LOSS })
  // Once nothing names the component any more, nor does the configuration.
  machine.cut()
  await machine.start()
  t.strictSame(await states(machine), EXPECTED, 'and it is not believed when it comes back')
  const names = machine.volume('thin').components.map(({ name }) => name)
  t.strictSame(names, ['d1', 'd2'])
  const former = machine.topology.events.history.filter(({ event }) => event === 'former-drive')
  t.match(
    former.at(-1)?.message,
    /d3 is not used: it was taken out .*: plexus device clear-label d3/,
  )
  t.strictSame((await machine.list('virstor.list'))[0]?.facts['lostChunks'], 4)
})

t.test('what is lost is there again, granule by granule, as it is written', async (t) => {
  const machine = await bereft()
  const device = machine.open('thin')
  const at = 2 * CHUNK
  const data = pattern(99, 2 * GRANULE)
  const part = put(device, at + 512, pattern(1, 512))
  t.match(await failureOf(part), { kind: 'corrupt', message: /in whole granules of 4096 bytes/ })
  await put(device, at + GRANULE, data)
  await put(device, at + GRANULE, pattern(98, 512))
  pattern(98, 512).copy(data)
  t.ok((await get(device, at + GRANULE, 2 * GRANULE)).equals(data))
  const holes = [get(device, at, GRANULE), get(device, at + 3 * GRANULE, 512)]
  for (const hole of holes) t.match(await failureOf(hole), { kind: 'corrupt' }, 'never zeroes')
  await device.close()
  machine.cut()
  await machine.start(['d1', 'd2'])
  t.strictSame(await states(machine), EXPECTED, 'what was not flushed is lost as before')
  const again = machine.open('thin')
  await put(again, at, pattern(2, CHUNK))
  await flush(again)
  await again.close()
  machine.cut()
  await machine.start(['d1', 'd2'])
  t.equal((await states(machine))[2], 'data')
  t.match(machine.volume('thin'), { status: /^3 chunks/ })
})

t.test('a discard of what is lost makes zeroes of it', async (t) => {
  const machine = await bereft()
  const device = machine.open('thin')
  const used = async () => (await machine.list('virstor.list'))[0]?.facts['usedBytes']
  const before = await used()
  await discard(device, { offset: 2 * CHUNK, length: CHUNK })
  t.equal(await used(), before, 'all of a chunk costs nothing')
  // From the middle of a chunk to the middle of another one.
  const range = { offset: 5 * CHUNK + GRANULE, length: 3 * CHUNK }
  await writeZeroes(device, range)
  const zeroes = await get(device, range.offset, range.length)
  t.ok(zeroes.every((byte) => byte === 0))
  for (const offset of [5 * CHUNK, 8 * CHUNK + GRANULE]) {
    t.match(await failureOf(get(device, offset, 512)), { kind: 'corrupt' })
  }
  // As the second piece of one that was cut, it has a place in a buffer.
  const { error } = await new Promise<{ error: PlexusError | undefined }>((resolve) =>
    device.submit({
      op: 'discard',
      offset: 8 * CHUNK + 2 * GRANULE,
      length: GRANULE,
      data: undefined,
      dataOffset: 8 * CHUNK,
      fua: false,
      cause: 'initiator',
      complete: (error) => resolve({ error }),
    }),
  )
  t.notOk(error)
  const rest = writeZeroes(device, { offset: 11 * CHUNK + 512, length: 512 })
  t.match(await failureOf(rest), { kind: 'corrupt' }, 'nor of a part of a granule')
  await flush(device)
  await device.close()
  t.strictSame(
    await states(machine),
    EXPECTED.map((was, at) => (at === 2 || at === 6 || at === 7 ? 'zero' : was)),
  )
  t.match(machine.volume('thin'), { status: /^3 chunks/ })
  const report = (await machine.run('virstor.fsck', { name: 'thin' })) as unknown
  t.match(report, { found: 0 })
})

t.test('what is lost is no hole for initiators', async (t) => {
  const machine = await bereft()
  const device = machine.open('thin')
  await discard(device, { offset: 3 * CHUNK, length: CHUNK })
  const extent = await device.extentAt(2 * CHUNK, 8 * CHUNK)
  t.strictSame(extent, { allocated: true, length: CHUNK })
  await device.close()
})

t.test('a cut at each write while a component is given up', async (t) => {
  const alive = setInterval(() => {}, 1000)
  t.teardown(() => clearInterval(alive))
  const base = await filled()
  await base.shutDown()
  const images = new Map([...base.devices].map(([disk, { media }]) => [disk, media]))
  const restored = async (): Promise<Machine> => {
    const machine = new Machine({ devices: 5, sizeBytes: 5 * 2 ** 20 })
    for (const [disk, image] of images) image.copy(machine.device(disk).media)
    await machine.start()
    await machine.pull('d3')
    return machine
  }
  const givenUp = async (machine: Machine): Promise<void> => {
    await machine.run('virstor.remove', { name: 'thin', devices: ['d3'], force: true })
    const device = machine.open('thin')
    await flush(device)
    await device.close()
  }
  const kept = EXPECTED.map(() => 'data')
  let cuts = 0
  let losses = 0
  for await (const { machine, cutAt } of cutAtEachWrite(restored, givenUp)) {
    cuts++
    // With d3: it is back as ever, or given up for good.
    const found = await states(machine)
    const isLost = found.includes('lost')
    losses += Number(isLost)
    t.strictSame(found, isLost ? EXPECTED : kept, `after a cut at write ${cutAt}`)
    await machine.shutDown()
    await machine.start()
    t.strictSame(await states(machine), found, 'and again')
  }
  t.ok(losses > 3 && cuts - losses > 1, `${cuts} cuts, ${losses} with the loss`)
})

t.test('a component with many chunks is given up in parts, also at a start', async (t) => {
  const chunks = 10_000
  const machine = await thin(['d1', 'd2', 'd3'], { size: '2GiB' })
  const set = [...machine.topology.geoms].find((one) => one instanceof VirstorSet)
  const { table, committer } = defined(set?.device, 'the device')
  // As if its disk were large.
  table.growComponent(3, chunks)
  for (let chunk = 0; chunk < chunks; chunk++) table.assign(chunk, { component: 3, number: chunk })
  await committer.commit()
  await machine.pull('d3')

  const waiting = { now: 0, most: 0 }
  const { lose, committed } = MapTable.prototype
  t.teardown(() => Object.assign(MapTable.prototype, { lose, committed }))
  MapTable.prototype.lose = function (chunk) {
    waiting.most = Math.max(waiting.most, ++waiting.now)
    lose.call(this, chunk)
  }
  let commits = 0
  MapTable.prototype.committed = function (changes, sequence) {
    waiting.now -= changes.records.length
    // The power goes in the middle.
    if (++commits === 2) machine.cut()
    return committed.call(this, changes, sequence)
  }
  void machine.run('virstor.remove', { name: 'thin', devices: ['d3'], force: true })
  while (commits < 2) await new Promise(setImmediate)
  t.ok(waiting.most < chunks / 2, `${waiting.most} at once`)

  // And in the middle of the start after it.
  commits = 0
  void machine.start(['d1', 'd2'])
  while (commits < 2) await new Promise(setImmediate)

  Object.assign(waiting, { now: 0, most: 0 })
  await machine.start(['d1', 'd2'])
  t.ok(waiting.most > 0 && waiting.most < chunks / 2, `${waiting.most} at once`)
  t.equal((await machine.list('virstor.list'))[0]?.facts['lostChunks'], chunks)
  const device = machine.open('thin')
  t.match(await failureOf(get(device, 0, 512)), { kind: 'corrupt', message: /given up/ })
})

t.test('checks in the middle of it find no place that is wrong', async (t) => {
  const machine = await filled()
  await machine.pull('d3')
  const set = [...machine.topology.geoms].find((one) => one instanceof VirstorSet)
  const device = defined(set?.device, 'the device')
  const findings = new Findings('thin')
  const checks: Promise<unknown>[] = []
  const options = { nameOf: String, isGivenUp: (id: number) => id === 3 }
  for (let turn = 0; turn < 10; turn++) {
    if (turn === 5) checks.push(device.giveUp({ ...defined(set, 'the set').model, lost: [3] }))
    checks.push(new PlaceCheck(device, findings, options).run())
    await new Promise(setImmediate)
  }
  await Promise.all(checks)
  t.notOk(device.space.component(3))
  t.strictSame(findings.report(), [])
})
