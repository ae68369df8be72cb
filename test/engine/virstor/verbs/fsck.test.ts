/** `virstor fsck` while the device serves: rotten slots, blocks and labels, places that are wrong, and what is repaired. */
import t, { type Test } from 'tap'
import { defined } from '../../../../src/base/assert.ts'
import { crc32c } from '../../../../src/base/crc32c.ts'
import { operatingError } from '../../../../src/base/errors.ts'
import { KIB, MIB } from '../../../../src/base/limits.ts'
import type { FsckReport } from '../../../../src/control/virstor-verbs.ts'
import { VirstorSet } from '../../../../src/engine/virstor/virstor-set.ts'
import type { IoRequest } from '../../../../src/hal/block-device.ts'
import { discard } from '../../../../src/hal/io.ts'
import { flush, get, type Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'
import type { MemoryDevice } from '../../../support/memory-device.ts'
import { CHUNK, fill, row, thin } from '../../../support/thin.ts'

const BLOCK = 4 * KIB

/** With three chunks written. */
async function written(more: object = {}): Promise<Machine> {
  const machine = await thin(['d1', 'd2', 'd3'], more)
  const device = machine.open('thin')
  for (const chunk of [0, 3, 300]) await put(device, chunk * CHUNK, pattern(chunk, CHUNK))
  await flush(device)
  await device.close()
  return machine
}

async function fsck(machine: Machine, repair = false): Promise<FsckReport> {
  const report = await machine.run('virstor.fsck', { name: 'thin', ...(repair ? { repair } : {}) })
  return report as unknown as FsckReport
}

const messages = ({ findings }: FsckReport) => findings.map(({ message }) => message)

/** Blocks of a disk that begin so. */
function blocksOf(machine: Machine, name: string, magic: string): readonly Buffer[] {
  const { media } = machine.device(name)
  const blocks: Buffer[] = []
  for (let at = 0; at < media.length; at += BLOCK) {
    if (media.toString('latin1', at, at + magic.length) === magic) {
      blocks.push(media.subarray(at, at + BLOCK))
    }
  }
  return blocks
}

const rot = (block: Buffer | undefined): void =>
  void defined(block, 'a block').fill(0x5a, 1000, 1512)

/** The entry of chunk 3 names another place, and the checksum is right. */
function forge(block: Buffer): void {
  block.writeUInt32LE(17, 64 + 3 * 16 + 8)
  block.writeUInt32LE(0, 12)
  block.writeUInt32LE(crc32c(block), 12)
}

async function restarted(machine: Machine): Promise<Machine> {
  await machine.shutDown()
  return machine.start()
}

/** Nothing is found meanwhile; `chunks`: those of each worker, which are written and discarded. */
async function checkUnderLoad(t: Test, machine: Machine, chunks: number): Promise<void> {
  const device = machine.open('thin')
  let hasEnded = false
  const load = async (worker: number): Promise<void> => {
    for (let round = 0; !hasEnded; round++) {
      const chunk = 40 * worker + (round % chunks)
      await put(device, chunk * CHUNK, pattern(round, CHUNK), round % 2 === 0).catch(operatingError)
      await discard(device, { offset: chunk * CHUNK, length: CHUNK })
      if (round % 5 === 0) await flush(device)
    }
  }
  const loads = [load(1), load(2), load(3)]
  for (let round = 0; round < 10; round++) {
    const report = await fsck(machine)
    t.strictSame(messages(report), [])
    t.match(report, { checked: { pages: 3, chunks: 512 }, found: 0 })
  }
  hasEnded = true
  await Promise.all(loads)
  await device.close()
}

t.test('nothing is found on a sound device under load', async (t) => {
  await checkUnderLoad(t, await written(), 8)
})

t.test('nor on one that is full, whose places go from chunk to chunk', async (t) => {
  const machine = await thin(['d1'])
  const device = machine.open('thin')
  const { freeBytes = 0 } = (await row(machine)) ?? {}
  await fill(device, 200, freeBytes / CHUNK - 2)
  await device.close()
  await checkUnderLoad(t, machine, 1)
})

/** Such requests wait from now on, until the function is called that comes back. */
function holdAll(device: MemoryDevice, isHeld: (request: IoRequest) => boolean): () => void {
  const submit = device.submit.bind(device)
  const held: IoRequest[] = []
  device.submit = (request) => void (isHeld(request) ? held.push(request) : submit(request))
  return () => {
    device.submit = submit
    for (const request of held) submit(request)
  }
}

t.test('a place that is being discarded, or that a chunk is being moved to', async (t) => {
  const machine = await written()
  const device = machine.open('thin')
  const release = holdAll(machine.device('d1'), ({ op }) => op === 'discard')
  await put(device, 100 * CHUNK, pattern(1, 8 * CHUNK))
  await discard(device, { offset: 0, length: CHUNK })
  await flush(device)
  await device.close()
  const report = fsck(machine)
  await new Promise((resolve) => setTimeout(resolve, 200))
  release()
  t.strictSame(messages(await report), [])
  const goOn = holdAll(machine.device('d3'), ({ op, length }) => op === 'write' && length === CHUNK)
  await machine.run('virstor.rebalance', { name: 'thin' })
  await new Promise((resolve) => setTimeout(resolve, 200))
  const [job] = machine.topology.jobs.list()
  t.equal(job?.state, 'running')
  t.strictSame(messages(await fsck(machine)), [])
  goOn()
  t.match(await machine.jobsDone(), [{ kind: 'rebalance', state: 'done' }])
  t.strictSame(messages(await fsck(machine)), [])
})

t.test('rotten slots of one carrier are told, and repaired from memory', async (t) => {
  const machine = await written()
  await restarted(machine)
  const [a, b, c] = blocksOf(machine, 'd1', 'PLEXVMAP')
  for (const block of [a, b, c]) rot(block)
  const found = await fsck(machine)
  t.equal(found.found, 3)
  t.match(found.findings[0], {
    severity: 'warning',
    object: 'd1',
    message: 'slot A of page 0 of the map is damaged',
    action: /^plexus virstor fsck thin --repair: it is written again/,
    repaired: false,
  })
  t.equal((await fsck(machine)).found, 3, 'only looking repairs nothing')
  const repaired = await fsck(machine, true)
  t.ok(repaired.findings.length === 3 && repaired.findings.every((one) => one.repaired))
  t.strictSame(messages(await fsck(machine)), [])
  // The other carrier is lost.
  machine.cut()
  await machine.start(['d1', 'd3'])
  const device = machine.open('thin')
  t.ok((await get(device, 3 * CHUNK, CHUNK)).equals(pattern(3, CHUNK)))
  await device.close()
})

t.test('all slots of a page are rotten: memory still has it', async (t) => {
  const machine = await restarted(await written())
  for (const name of ['d1', 'd2']) for (const one of blocksOf(machine, name, 'PLEXVMAP')) rot(one)
  t.ok((await fsck(machine, true)).findings.every(({ repaired }) => repaired))
  await restarted(machine)
  const device = machine.open('thin')
  t.ok((await get(device, 300 * CHUNK, CHUNK)).equals(pattern(300, CHUNK)))
  await device.close()
})

t.test('a slot that is whole and says something else', async (t) => {
  const machine = await restarted(await written())
  const slots = ['d1', 'd2'].flatMap((name) =>
    blocksOf(machine, name, 'PLEXVMAP').filter((block) => block.readUInt32LE(36) === 0),
  )
  t.equal(slots.length, 4)
  forge(defined(slots[1], 'a slot'))
  const [finding] = (await fsck(machine, true)).findings
  t.match(finding, { severity: 'warning', object: 'd1', message: /slot B.*something else/ })
  t.equal(finding?.repaired, true)
  t.equal((await fsck(machine)).found, 0)
  for (const block of slots) forge(block)
  const all = await fsck(machine, true)
  t.equal(all.found, 4)
  for (const one of all.findings) {
    t.match(one, { severity: 'critical', repaired: false, action: /copy the data elsewhere/ })
  }
})

t.test('a rotten block of the journal that is needed', async (t) => {
  const machine = await written()
  const blocks = blocksOf(machine, 'd1', 'PLEXVJNL')
  for (const block of blocks) rot(block)
  const found = await fsck(machine)
  t.match(found.findings[0], {
    object: 'd1',
    message: /^block \d+ of the journal of the map is dam/,
  })
  t.ok((await fsck(machine, true)).findings.every(({ repaired }) => repaired))
  t.strictSame(messages(await fsck(machine)), [])
  machine.cut()
  await machine.start(['d1', 'd3'])
  const device = machine.open('thin')
  t.ok((await get(device, 3 * CHUNK, CHUNK)).equals(pattern(3, CHUNK)))
  await device.close()
})

t.test('labels and components', async (t) => {
  const machine = await written()
  for (const block of blocksOf(machine, 'd3', 'PLEXSLOT')) block.fill(0, 0, 512)
  const [label] = (await fsck(machine)).findings
  t.match(label, { object: 'd3', message: /its label cannot be read: .*both copies/ })
  t.ok((await fsck(machine, true)).findings.every(({ repaired }) => repaired))
  t.strictSame(messages(await fsck(machine)), [])
  machine.device('d3').media.fill(0, 5 * MIB - 512)
  t.match((await fsck(machine, true)).findings, [
    { object: 'd3', message: /no anchor in the last/ },
  ])
  defined(blocksOf(machine, 'd2', 'PLEXHEAD')[0], 'the front copy').fill(0, 0, 512)
  t.match((await fsck(machine, true)).findings, [{ object: 'd2', message: /has no front copy/ }])
  t.strictSame(messages(await fsck(machine)), [])
  await machine.pull('d3')
  const missing = await fsck(machine, true)
  t.match(missing.findings, [{ object: 'd3', message: /missing/, repaired: false }])
})

for (const name of ['d1', 'd3']) {
  t.test(`d3 leaves while the label of ${name} is read`, async (t) => {
    const machine = await written()
    const last = 5 * MIB - 512
    const release = holdAll(
      machine.device(name),
      ({ op, offset }) => op === 'read' && offset === last,
    )
    const report = fsck(machine)
    await new Promise((resolve) => setTimeout(resolve, 100))
    await machine.run('virstor.remove', { name: 'thin', devices: ['d3'] })
    while (blocksOf(machine, 'd3', 'PLEXHEAD').length > 0) {
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    release()
    t.strictSame(messages(await report), [])
    t.equal((await fsck(machine)).checked.components, 2)
  })
}

t.test('a carrier leaves while its copy of the map is read', async (t) => {
  for (const magic of ['PLEXVJNL', 'PLEXVMAP']) {
    const machine = await thin(['d1', 'd2'])
    const device = machine.open('thin')
    await put(device, 0, pattern(1, CHUNK))
    await flush(device)
    const { media } = machine.device('d2')
    const first = defined(blocksOf(machine, 'd2', magic)[0], magic).byteOffset - media.byteOffset
    const release = holdAll(machine.device('d2'), ({ op, offset, length }) => {
      return op === 'read' && offset <= first && first < offset + length
    })
    const report = fsck(machine, true)
    await new Promise((resolve) => setTimeout(resolve, 50))
    await machine.run('virstor.remove', { name: 'thin', devices: ['d2'] })
    while (blocksOf(machine, 'd2', 'PLEXHEAD').length > 0) {
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    release()
    t.strictSame(messages(await report), [], magic)
    await device.close()
  }
})

t.test('a commit is under way while a label is read', async (t) => {
  const machine = await written()
  const last = 5 * MIB - 512
  const letRead = holdAll(
    machine.device('d2'),
    ({ op, offset }) => op === 'read' && offset === last,
  )
  const report = fsck(machine)
  await new Promise((resolve) => setTimeout(resolve, 50))
  const letWrite = holdAll(
    machine.device('d3'),
    ({ op, offset }) => op === 'write' && offset === last,
  )
  const changed = machine.run('virstor.set', { name: 'thin', warnPercent: '50' })
  await new Promise((resolve) => setTimeout(resolve, 50))
  letRead()
  await new Promise((resolve) => setTimeout(resolve, 50))
  letWrite()
  await changed
  t.strictSame(messages(await report), [])
})

t.test('places: in use and free, and neither', async (t) => {
  const machine = await written()
  const set = [...machine.topology.geoms].find((one) => one instanceof VirstorSet)
  const { space, table } = defined(set?.device, 'the device')
  const place = { component: table.componentOf(3), number: table.numberOf(3) }
  space.give(place)
  t.match((await fsck(machine)).findings, [
    { severity: 'critical', object: 'd1', message: /is in use, and counts as free/ },
  ])
  space.claim(place)
  space.claim({ component: 3, number: 7 })
  t.match((await fsck(machine)).findings, [
    {
      severity: 'warning',
      object: 'd3',
      message: 'place 7 is neither free nor does a chunk have it',
    },
  ])
})

t.test('a place is being discarded on its component', async (t) => {
  const machine = await written({ policy: 'round-robin' })
  const device = machine.open('thin')
  const disk = machine.device('d3')
  disk.hold()
  await discard(device, { offset: 300 * CHUNK, length: CHUNK })
  await flush(device)
  const looked = fsck(machine)
  for (let turn = 0; turn < 100; turn++) await new Promise(setImmediate)
  disk.release()
  t.strictSame(messages(await looked), [])
  await device.close()
})

t.test('a device that is not served', async (t) => {
  const machine = await written()
  await machine.pull('d1')
  await machine.pull('d2')
  await machine.shutDown()
  await machine.start(['d3'])
  t.match(await failureOf(fsck(machine)), {
    kind: 'gone',
    message: /its map is on d1 and d2|is missing/,
  })
})
