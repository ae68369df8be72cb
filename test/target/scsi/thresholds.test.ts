/**
 * What initiators learn of the space of a thin device: pages, counts, and the unit attention when it runs low. Over virstor
 * and vinum as they are, through the command path.
 */
import t from 'tap'
import { KIB, MIB } from '../../../src/base/limits.ts'
import { granulesOf } from '../../../src/engine/virstor/device.ts'
import type { BlockDevice } from '../../../src/hal/block-device.ts'
import { STATUS } from '../../../src/target/scsi/task.ts'
import type { Nexus } from '../../../src/target/scsi/types.ts'
import { Machine } from '../../support/engine.ts'
import { createHarness, type ScsiHarness, senseText } from '../../support/scsi-harness.ts'

const CHUNK = 128 * KIB
const CHUNK_BLOCKS = CHUNK / 512
const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0]
const CLEAR = '00/00/00'

async function thin(more: object = {}): Promise<{ machine: Machine; harness: ScsiHarness }> {
  const machine = await new Machine({ devices: 3, sizeBytes: 5 * MIB }).start()
  await machine.run('virstor.create', {
    name: 'thin',
    devices: ['d1'],
    size: '64MiB',
    chunk: '128KiB',
    fullWait: '0',
    warnPercent: '0',
    warnChunks: '4',
    ...more,
  })
  return { machine, harness: createHarness({ medium: machine.open('thin') }) }
}

async function data(harness: ScsiHarness, cdb: readonly number[]): Promise<Buffer> {
  const { status, sense, dataIn } = await harness.run(cdb)
  if (status !== STATUS.GOOD) throw new Error(senseText(sense))
  return dataIn
}

const vpd = (page: number) => [0x12, 1, page, 0, 255, 0]
const log = (page: number) => [0x4d, 0, 0x40 | page, 0, 0, 0, 0, 0, 255, 0]
/** Without a block descriptor. */
const modeSense = (page: number, subpage: number) => [0x5a, 8, page, subpage, 0, 0, 0, 0, 255, 0]
const write = (lba: number, blocks: number) => [
  ...[0x2a, 0, 0, 0, lba >> 8, lba & 0xff, 0, 0, blocks, 0],
]

/** Writes the first block of so many chunks from `first` on. */
async function fill(harness: ScsiHarness, first: number, count: number): Promise<string[]> {
  const answers = []
  for (let chunk = first; chunk < first + count; chunk++) {
    const { sense } = await harness.run(write(chunk * CHUNK_BLOCKS, 1), {
      dataOut: Buffer.alloc(512, chunk),
    })
    answers.push(senseText(sense))
  }
  return answers
}

/** What a nexus is told next, with INFORMATION. */
async function told(harness: ScsiHarness, nexus: Nexus): Promise<string> {
  const { sense } = await harness.run([0x03, 0, 0, 0, 252, 0], { nexus }).then(({ dataIn }) => ({
    sense: dataIn,
  }))
  const valid = ((sense[0] ?? 0) & 0x80) !== 0
  return `${senseText(sense)}${valid ? ` ${sense.readUInt32BE(3)}` : ''}`
}

/** Available and used LBA mapping resources, in threshold sets. */
async function resources(harness: ScsiHarness): Promise<readonly number[]> {
  const page = await data(harness, log(0x0c))
  return [page.readUInt32BE(8), page.readUInt32BE(20)]
}

t.test('pages: granularity, zeroes, threshold sets, resources', async (t) => {
  const { machine, harness } = await thin()
  const limits = await data(harness, vpd(0xb0))
  t.equal(limits.readUInt32BE(28), 8, 'OPTIMAL UNMAP GRANULARITY: what is given and cleared apart')
  t.equal(limits.readUInt32BE(32), 0x80000000, 'aligned to 0')
  t.equal(limits.readUInt32BE(12), CHUNK_BLOCKS, 'OPTIMAL TRANSFER LENGTH: a chunk')
  const capacity = await data(harness, [0x9e, 0x10, ...Array(11).fill(0), 32, 0, 0])
  t.equal(capacity.readUInt8(14), 0xc0, 'LBPME, LBPRZ')
  t.equal(
    (await data(harness, vpd(0xb2))).toString('hex'),
    '00b2000408e40200',
    '2^8 blocks: a chunk',
  )
  const { facts } = machine.volume('thin')
  const used = Number(facts['usedBytes']) / CHUNK
  const total = Number(facts['physicalBytes']) / CHUNK
  t.same(await resources(harness), [total - used, used])
  const page = await data(harness, log(0x0c))
  t.equal(page.toString('hex', 0, 8), '0c00001800010308', 'page, and parameter 0001h')
  t.equal(page.toString('hex', 12, 20), '0100000000020308', 'SCOPE: dedicated; parameter 0002h')
  t.equal(page.toString('hex', 24), '01000000')
  await fill(harness, 0, 3)
  t.same(await resources(harness), [total - used - 3, used + 3])
  t.equal((await data(harness, log(0))).toString('hex'), '000000060002030c192f')
  const status = await data(harness, [0x9e, 0x12, ...Array(11).fill(0), 40, 0, 0])
  t.same(
    [8, 24].map((at) => [
      status.readUInt32BE(at + 4),
      status.readUInt32BE(at + 8),
      status[at + 12],
    ]),
    [
      [0, 8, 0],
      [8, CHUNK_BLOCKS - 8, 1],
    ],
    'one granule is mapped',
  )
})

// VMware frees space by itself only where the granularity is at most 1 MiB.
t.test('the granularity is at most 1 MiB, and small UNMAPs add up to a chunk', async (t) => {
  for (let chunkBytes = CHUNK; chunkBytes <= 64 * MIB; chunkBytes *= 2) {
    t.ok(chunkBytes / granulesOf(chunkBytes) <= MIB, `of chunks of ${chunkBytes}`)
  }
  const { harness } = await thin()
  const [free = 0, used = 0] = await resources(harness)
  await harness.run(write(0, CHUNK_BLOCKS / 2), { dataOut: Buffer.alloc(CHUNK / 2, 1) })
  t.same(await resources(harness), [free - 1, used + 1])
  const granule = (await data(harness, vpd(0xb0))).readUInt32BE(28)
  for (let lba = 0; lba < CHUNK_BLOCKS / 2; lba += granule) {
    t.same(await resources(harness), [free - 1, used + 1], `before the one at ${lba}`)
    const list = Buffer.alloc(24)
    list.writeUInt16BE(22, 0)
    list.writeUInt16BE(16, 2)
    list.writeBigUInt64BE(BigInt(lba), 8)
    list.writeUInt32BE(granule, 16)
    await harness.run([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], { dataOut: list })
  }
  await harness.run([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0])
  // It is discarded below first.
  for (let turn = 0; turn < 100; turn++) await new Promise(setImmediate)
  t.same(await resources(harness), [free, used])
})

t.test('a chunk that is no power of two is several threshold sets', async (t) => {
  const { harness, machine } = await thin({ chunk: '384KiB', warnChunks: '2' })
  t.equal((await data(harness, vpd(0xb2))).readUInt8(4), 8, 'three of 128 KiB')
  const free = (machine.volume('thin').freeBytes ?? 0) / (384 * KIB)
  t.equal((await resources(harness))[0], 3 * free)
  const page = await data(harness, modeSense(0x1c, 2))
  t.equal(page.readUInt32BE(8 + 20), 6)
})

t.test('the soft threshold is told once to every nexus, and again after it was left', async (t) => {
  const { harness, machine } = await thin()
  const { nexus } = harness
  const other = harness.newNexus()
  const [available = 0] = await resources(harness)
  const answers = await fill(harness, 0, available - 5)
  t.ok(answers.every((answer) => answer === ''))
  t.equal(await told(harness, other), CLEAR)
  await fill(harness, available - 5, 1)
  const { sense } = await harness.run(TEST_UNIT_READY)
  t.equal(senseText(sense), '06/38/07')
  t.equal(sense?.readUInt32BE(3), 16, 'INFORMATION: where the descriptor is')
  t.equal(sense?.readUInt8(0), 0xf0, 'VALID')
  t.equal(await told(harness, nexus), CLEAR)
  await fill(harness, available - 4, 4)
  t.equal(await told(harness, nexus), CLEAR, 'once')
  t.equal(await told(harness, other), '06/38/07 16', 'and the other nexus')
  t.equal(await told(harness, other), CLEAR)
  t.same(await fill(harness, available, 1), ['07/27/07'], 'full: space allocation failed')
  t.same(await fill(harness, 0, 1), [''], 'what has its place can be written')
  await machine.run('virstor.add', { name: 'thin', devices: ['d2'] })
  t.equal(await told(harness, nexus), CLEAR)
  const [more = 0] = await resources(harness)
  await fill(harness, available, more - 4)
  t.equal(await told(harness, nexus), '06/38/07 16')
})

t.test('the mode page has the threshold, LBPERE turns it off, a reset on again', async (t) => {
  const { harness, machine } = await thin()
  const other = harness.newNexus()
  const descriptor = '80010000' + '00000004'
  const page = `5c020014${'00'.repeat(12)}${descriptor}`
  t.equal((await data(harness, modeSense(0x1c, 2))).toString('hex', 8), page)
  t.equal(
    (await data(harness, modeSense(0x5c, 2))).toString('hex', 8),
    `5c020014${'00'.repeat(20)}`,
  )
  t.ok((await data(harness, modeSense(0x3f, 0xff))).toString('hex').endsWith(page))
  t.notOk((await data(harness, modeSense(0x3f, 0))).toString('hex').includes(page), 'page_0 only')
  t.equal(
    (await data(harness, modeSense(0x1c, 0xff))).toString('hex', 8),
    `1c0a08${'00'.repeat(9)}${page}`,
  )
  const recovery = (await data(harness, modeSense(1, 0))).subarray(8)
  t.equal(recovery.toString('hex'), '010ac0000000008000000000')
  const select = async (pages: Buffer) => {
    const dataOut = Buffer.concat([Buffer.alloc(8), pages])
    return senseText(
      (await harness.run([0x55, 0x10, 0, 0, 0, 0, 0, 0, dataOut.length, 0], { dataOut })).sense,
    )
  }
  t.equal(await select(Buffer.from(page, 'hex')), '', 'as it is')
  for (const [at, value] of [
    [23, 5],
    [16, 0],
    [4, 1],
  ] as const) {
    const changed = Buffer.from(page, 'hex')
    changed[at] = value
    t.equal(await select(changed), '05/26/00', `byte ${at}: the count is the administrator's`)
  }
  t.equal(await select(Buffer.from(page.slice(0, 6), 'hex')), '05/1A/00', 'cut in the header')
  t.equal(await select(Buffer.from(`5c020013${page.slice(8)}`, 'hex')), '05/26/00')
  const off = Buffer.from(recovery)
  off[7] = 0
  t.equal(await select(off), '')
  t.equal(await told(harness, other), '06/2A/01')
  const [available = 0] = await resources(harness)
  t.same(new Set(await fill(harness, 0, available - 2)), new Set(['']), 'LBPERE is 0')
  harness.unit.reset(0x2900)
  t.equal(
    (await data(harness, modeSense(1, 0)).catch(() => data(harness, modeSense(1, 0)))).readUInt8(
      15,
    ),
    0x80,
  )
  await told(harness, other)
  await machine.run('virstor.set', { name: 'thin', warnChunks: '1' })
  t.equal(await told(harness, other), '06/2A/01', 'the page has another threshold')
})

t.test('what knows nothing of its space has none of it', async (t) => {
  const machine = await new Machine({ devices: 2, sizeBytes: 5 * MIB }).start()
  await machine.run('volume.create', { name: 'v', concat: ['d1'] })
  const media: readonly (readonly [string, BlockDevice | undefined, object])[] = [
    ['a volume of vinum', machine.open('v'), {}],
    ['a disk', undefined, {}],
    [
      'a thin device that is not to be shown as thin',
      (await thin()).machine.open('thin'),
      { thin: false },
    ],
  ]
  for (const [what, medium, more] of media) {
    const harness = createHarness({ ...(medium ? { medium } : {}), ...more })
    t.equal((await data(harness, vpd(0xb2))).readUInt8(4), 0, `${what}: no threshold exponent`)
    t.equal((await data(harness, log(0))).toString('hex'), '00000005000203192f')
    t.equal(senseText((await harness.run(log(0x0c))).sense), '05/24/00')
    t.equal(senseText((await harness.run(modeSense(0x1c, 2))).sense), '05/24/00')
    t.equal((await data(harness, modeSense(0x3f, 0xff))).at(15), 0, 'LBPERE')
    harness.device.emit('low')
    t.equal(await told(harness, harness.nexus), CLEAR)
  }
})
