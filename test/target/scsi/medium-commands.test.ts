/** Reads, writes, verification, COMPARE AND WRITE, WRITE SAME, UNMAP and cache commands over a scripted device. */
import { randomFillSync } from 'node:crypto'
import t from 'tap'
import {
  LARGE_TRANSFER_BYTES,
  MAX_TRANSFER_BYTES,
  MAX_WRITE_SAME_BLOCKS,
  UNMAP_BLOCKS,
} from '../../../src/base/limits.ts'
import { STATUS } from '../../../src/target/scsi/task.ts'
import { MemoryDevice } from '../../support/memory-device.ts'
import {
  createHarness,
  type HarnessInit,
  type ScsiHarness,
  senseText,
} from '../../support/scsi-harness.ts'

const BLOCK = 512
const { GOOD, CHECK_CONDITION, TASK_SET_FULL } = STATUS

function u16(value: number): number[] {
  return [value >>> 8, value & 0xff]
}
function u32(value: number): number[] {
  return [...u16(value >>> 16), ...u16(value & 0xffff)]
}
function u64(value: number | bigint): number[] {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return [...bytes]
}
const six = (opcode: number, lba: number, blocks: number) => [
  opcode,
  (lba >>> 16) & 0x1f,
  ...u16(lba & 0xffff),
  blocks,
  0,
]
const ten = (opcode: number, lba: number, blocks: number, flags = 0) => [
  opcode,
  flags,
  ...u32(lba),
  0,
  ...u16(blocks),
  0,
]
const twelve = (opcode: number, lba: number, blocks: number, flags = 0) => [
  opcode,
  flags,
  ...u32(lba),
  ...u32(blocks),
  0,
  0,
]
const sixteen = (opcode: number, lba: number | bigint, blocks: number, flags = 0) => [
  opcode,
  flags,
  ...u64(lba),
  ...u32(blocks),
  0,
  0,
]
const compareAndWrite = (lba: number, blocks: number, flags = 0) => [
  0x89,
  flags,
  ...u64(lba),
  0,
  0,
  0,
  blocks,
  0,
  0,
]
const unmap = (listBytes: number, flags = 0) => [0x42, flags, 0, 0, 0, 0, 0, ...u16(listBytes), 0]

function unmapList(descriptors: readonly (readonly [number | bigint, number])[]): Buffer {
  const body = descriptors.flatMap(([lba, blocks]) => [...u64(lba), ...u32(blocks), 0, 0, 0, 0])
  return Buffer.from([...u16(body.length + 6), ...u16(body.length), 0, 0, 0, 0, ...body])
}

function random(bytes: number): Buffer {
  return randomFillSync(Buffer.alloc(bytes))
}

/** A harness whose medium holds random data. */
function filled(init: HarnessInit = {}): ScsiHarness {
  const harness = createHarness(init)
  randomFillSync(harness.device.bytes)
  return harness
}

async function expectSense(
  test: Tap,
  harness: ScsiHarness,
  cdb: readonly number[],
  wanted: string,
  options: Parameters<ScsiHarness['run']>[1] = {},
): Promise<Buffer | undefined> {
  const result = await harness.run(cdb, options)
  test.equal(result.status, CHECK_CONDITION, `${wanted}: CHECK CONDITION`)
  test.equal(senseText(result.sense), wanted, wanted)
  return result.sense
}
type Tap = Pick<typeof t, 'equal' | 'same' | 'ok' | 'notOk'>

/** INFORMATION of fixed sense data, or undefined when VALID is 0. */
function information(sense: Buffer | undefined): number | undefined {
  return sense && ((sense[0] ?? 0) & 0x80) !== 0 ? sense.readUInt32BE(3) : undefined
}

t.test('all forms of WRITE and READ move the same blocks', async (t) => {
  const harness = createHarness()
  const forms = [
    { write: six(0x0a, 5, 2), read: six(0x08, 5, 2), at: 5 },
    { write: ten(0x2a, 9, 2), read: ten(0x28, 9, 2), at: 9 },
    { write: twelve(0xaa, 13, 2), read: twelve(0xa8, 13, 2), at: 13 },
    { write: sixteen(0x8a, 17, 2), read: sixteen(0x88, 17, 2), at: 17 },
  ]
  for (const { write, read, at } of forms) {
    const data = random(2 * BLOCK)
    const before = Buffer.from(harness.device.bytes)
    t.equal((await harness.run(write, { dataOut: data })).status, GOOD)
    data.copy(before, at * BLOCK)
    t.ok(harness.device.bytes.equals(before), 'exactly these blocks have changed')
    const result = await harness.run(read, { expectedBytes: 2 * BLOCK })
    t.equal(result.status, GOOD)
    t.ok(result.dataIn.equals(data))
    t.equal(result.task.dataInBytes, 2 * BLOCK)
  }
  t.equal(harness.pool.leased, 0, 'no lease is left')
  t.equal(harness.unit.tasks.size, 0, 'no task is left')
  t.match(harness.unit.statistics[0x2a], {
    name: 'WRITE(10)',
    operations: 1,
    bytes: 1024,
    errors: 0,
  })
})

t.test('length 0 is 256 blocks with 6 bytes and nothing with more', async (t) => {
  const harness = filled()
  const six256 = await harness.run(six(0x08, 1, 0))
  t.ok(six256.dataIn.equals(harness.device.bytes.subarray(BLOCK, 257 * BLOCK)))
  const requests = harness.device.requests.length
  for (const cdb of [
    ten(0x28, 0, 0),
    ten(0x2a, 3, 0),
    twelve(0xa8, 2048, 0),
    sixteen(0x8a, 2048, 0),
  ]) {
    t.equal((await harness.run(cdb, { expectedBytes: 0 })).status, GOOD, 'LBA up to the capacity')
  }
  t.equal(harness.device.requests.length, requests, 'no request was made')
  for (const cdb of [ten(0x28, 2049, 0), sixteen(0x8a, 2049, 0), ten(0x2f, 2049, 0)]) {
    await expectSense(t, harness, cdb, '05/21/00', { expectedBytes: 0 })
  }
})

t.test('LBAs beyond the end are refused exactly, up to 64 bits', async (t) => {
  const harness = createHarness()
  const cases: [number[], number | undefined][] = [
    [six(0x08, 2047, 2), 2048],
    [ten(0x28, 2048, 1), 2048],
    [ten(0x28, 0xffffffff, 1), 0xffffffff],
    [twelve(0xa8, 2047, 2), 2048],
    [sixteen(0x88, 0x1fffffffffffffn, 1), undefined],
    [sixteen(0x88, 0x20000000000000n, 1), undefined],
    [sixteen(0x88, 0x8000000000000000n, 1), undefined],
    [sixteen(0x88, 0xffffffffffffffffn, 1), undefined],
    [sixteen(0x88, 0xffffffffffffffffn, 0xff), undefined],
    [sixteen(0x8f, 1, 0xffffffff), 2048],
    [ten(0x35, 2048, 1), 2048],
    [ten(0x34, 2047, 2), 2048],
  ]
  for (const [cdb, lba] of cases) {
    t.equal(information(await expectSense(t, harness, cdb, '05/21/00')), lba)
  }
  for (const cdb of [ten(0x2a, 2047, 2), sixteen(0x8a, 0xffffffffffffffffn, 2)]) {
    await expectSense(t, harness, cdb, '05/21/00', { dataOut: random(1024) })
  }
  t.equal(harness.device.requests.length, 0, 'the device never heard of them')
  harness.unit.mode.descriptorSense = true
  const sense = await expectSense(t, harness, sixteen(0x88, 0xffffffffffffffffn, 1), '05/21/00')
  t.equal(sense?.readBigUInt64BE(12), 0xffffffffffffffffn, 'descriptor sense has the whole LBA')
})

t.test('reserved bits, protection and too long transfers are invalid fields', async (t) => {
  const harness = createHarness({ sizeBytes: 16 * 1024 * 1024 })
  const blocks = MAX_TRANSFER_BYTES / BLOCK
  const most = LARGE_TRANSFER_BYTES / BLOCK
  const cases: [number[], number, number | undefined][] = [
    [ten(0x28, 0, 1, 0x20), 1, 5],
    [sixteen(0x88, 0, 1, 0xe0), 1, 7],
    [ten(0x28, 0, 1, 0x01), 1, 0],
    [[...ten(0x28, 0, 1).slice(0, 9), 0x04], 9, 2],
    [twelve(0xa8, 0, most + 1), 6, undefined],
    [sixteen(0x8a, 0, most + 1), 10, undefined],
    [ten(0x2f, 0, 1, 0x04), 1, 2],
    [ten(0x2e, 0, 1, 0x06), 1, 2],
    [ten(0x41, 0, 1, 0x10), 1, 4],
    [ten(0x41, 0, 1, 0x01), 1, 0],
    [unmap(24, 1), 1, 0],
    [six(0x08, 0, 1).with(1, 0x20), 1, 5],
  ]
  for (const [cdb, byte, bit] of cases) {
    const sense = await expectSense(t, harness, cdb, '05/24/00', {
      direction: 'out',
      expectedBytes: 1024,
    })
    t.equal(sense?.readUInt16BE(16), byte, 'field pointer: byte')
    t.equal(sense?.[15], bit === undefined ? 0xc0 : 0xc8 | bit, 'field pointer: CDB, bit')
  }
  t.equal((await harness.run(twelve(0xa8, 0, blocks))).status, GOOD, 'the largest transfer')
  t.equal((await harness.run(ten(0x28, 0, 1, 0x18))).status, GOOD, 'DPO and FUA')
  t.equal((await harness.run(ten(0x34, 0, 1).with(6, 3))).status, GOOD, 'GROUP NUMBER is ignored')
})

t.test('writes reach the medium as FUA and WCE say', async (t) => {
  const fua = async (init: HarnessInit, cdb: number[], wce: boolean) => {
    const harness = createHarness(init)
    harness.unit.mode.writeCacheEnabled = wce
    const result = await harness.run(cdb, { dataOut: random(cdb[0] === 0x89 ? 0 : BLOCK) })
    t.equal(result.status, GOOD)
    return harness.device.requests[0]?.fua
  }
  t.equal(await fua({}, ten(0x2a, 0, 1), true), false)
  t.equal(await fua({}, ten(0x2a, 0, 1, 0x08), true), true)
  t.equal(await fua({}, ten(0x2a, 0, 1, 0x10), true), false, 'DPO is not FUA')
  t.equal(await fua({}, ten(0x2a, 0, 1), false), true, 'WCE = 0')
  t.equal(await fua({}, six(0x0a, 0x80000, 1).with(1, 0), true), false, 'WRITE(6) has no FUA')
  t.equal(
    await fua({ sizeBytes: 2 ** 29 }, six(0x0a, 0x080000, 1), true),
    false,
    'LBA bits are no FUA',
  )
  const stable = { features: { volatileWriteCache: false } }
  t.equal(await fua(stable, ten(0x2a, 0, 1), false), false, 'nothing to force through')
})

t.test('expected data transfer length other than the CDB says: reads', async (t) => {
  const harness = filled()
  const block = harness.device.bytes.subarray(0, BLOCK)
  const read = ten(0x28, 0, 1)
  const none = await harness.run(read, { expectedBytes: 0 })
  t.same([none.status, none.dataIn.length, none.task.dataInBytes], [GOOD, 0, BLOCK])
  const short = await harness.run(read, { expectedBytes: 200 })
  t.same([short.status, short.task.dataInBytes], [GOOD, BLOCK])
  t.ok(short.dataIn.equals(block.subarray(0, 200)))
  const long = await harness.run(read, { expectedBytes: 10000 })
  t.same([long.status, long.task.dataInBytes], [GOOD, BLOCK])
  t.ok(long.dataIn.equals(block))
  const two = await harness.run(ten(0x28, 0, 2), { expectedBytes: BLOCK })
  t.same([two.task.dataInBytes, two.dataIn.length], [2 * BLOCK, BLOCK])
  t.ok(two.dataIn.equals(block))
  for (const cdb of [read, [0x12, 0, 0, 0, 96, 0]]) {
    const asWrite = await harness.run(cdb, { direction: 'out', expectedBytes: BLOCK })
    t.equal(senseText(asWrite.sense), '05/0E/03', 'a read flagged as a write')
    t.same([asWrite.task.dataInBytes, asWrite.task.transferOutBytes], [0, 0])
  }
  t.equal(harness.pool.leased, 0)
})

t.test('expected data transfer length other than the CDB says: writes', async (t) => {
  const harness = filled()
  const before = Buffer.from(harness.device.bytes)
  for (const expectedBytes of [0, BLOCK]) {
    const dataOut = random(expectedBytes)
    const result = await harness.run(ten(0x2a, 0, 2), { direction: 'out', dataOut })
    t.same([result.status, result.task.transferOutBytes], [GOOD, expectedBytes], 'whole blocks')
    t.equal(result.task.cdbTransferBytes, 2 * BLOCK, 'for the residual')
    dataOut.copy(before)
    t.ok(harness.device.bytes.equals(before), 'no byte more')
  }
  for (const [blocks, expectedBytes] of [
    [1, 200],
    [2, 200],
    [2, BLOCK + 1],
    [2, 2 * BLOCK - 1],
  ] as const) {
    const result = await harness.run(ten(0x2a, 0, blocks), { dataOut: random(expectedBytes) })
    t.equal(senseText(result.sense), '05/0E/03', `${expectedBytes} bytes are no whole blocks`)
    t.equal(result.task.transferOutBytes, 0)
    t.ok(harness.device.bytes.equals(before), 'nothing was written')
  }
  const asRead = await harness.run(ten(0x2a, 0, 1), { direction: 'in', expectedBytes: BLOCK })
  t.equal(senseText(asRead.sense), '05/0E/03', 'a WRITE flagged as a read')
  t.ok(harness.device.bytes.equals(before), 'nothing was written')

  const data = random(2 * BLOCK)
  const long = await harness.run(ten(0x2a, 0, 1), { dataOut: data })
  t.same([long.status, long.task.transferOutBytes], [GOOD, BLOCK])
  data.copy(before, 0, 0, BLOCK)
  t.ok(harness.device.bytes.equals(before), 'only the block of the CDB was written')

  for (const opcode of [0x2e, 0xae, 0x8e]) {
    const cdb = (blocks: number) =>
      opcode === 0x2e
        ? ten(opcode, 0, blocks)
        : opcode === 0xae
          ? twelve(opcode, 0, blocks)
          : sixteen(opcode, 0, blocks)
    for (const [blocks, expectedBytes, moved] of [
      [1, 0, 0],
      [1, 200, undefined],
      [1, 10000, BLOCK],
      [2, BLOCK, BLOCK],
    ] as const) {
      const dataOut = random(expectedBytes)
      const result = await harness.run(cdb(blocks), { dataOut, direction: 'out' })
      if (moved === undefined) {
        t.equal(senseText(result.sense), '05/0E/03')
        t.ok(harness.device.bytes.equals(before), 'nothing was written')
        continue
      }
      t.same([result.status, result.task.transferOutBytes], [GOOD, moved], 'WRITE AND VERIFY')
      t.equal(result.task.cdbTransferBytes, blocks * BLOCK)
      dataOut.copy(before, 0, 0, moved)
      t.ok(harness.device.bytes.equals(before), 'whole blocks that came, no byte more')
    }
  }
})

t.test('VERIFY reads, compares, and compares with one block', async (t) => {
  const harness = filled({ sizeBytes: 4 * 1024 * 1024 })
  const { bytes } = harness.device
  const forms = [
    (flags: number) => ten(0x2f, 8, 4, flags),
    (flags: number) => twelve(0xaf, 8, 4, flags),
    (flags: number) => sixteen(0x8f, 8, 4, flags),
  ]
  for (const form of forms) {
    const same = Buffer.from(bytes.subarray(8 * BLOCK, 12 * BLOCK))
    t.equal((await harness.run(form(0x10))).status, GOOD, 'BYTCHK 0')
    t.equal((await harness.run(form(0), { dataOut: random(2048) })).status, GOOD, 'data is ignored')
    t.equal((await harness.run(form(0x02), { dataOut: same })).status, GOOD, 'BYTCHK 1, equal')
    same.writeUInt8(same.readUInt8(1500) ^ 0x40, 1500)
    const sense = await expectSense(t, harness, form(0x02), '0E/1D/00', { dataOut: same })
    t.equal(information(sense), 1500, 'offset of the first difference')
    await expectSense(t, harness, form(0x02), '05/0E/03', { dataOut: random(1024) })
  }
  const block = random(BLOCK)
  for (let lba = 8; lba < 12; lba++) block.copy(bytes, lba * BLOCK)
  t.equal((await harness.run(ten(0x2f, 8, 4, 0x06), { dataOut: block })).status, GOOD, 'BYTCHK 3')
  const sense = await expectSense(t, harness, ten(0x2f, 8, 5, 0x06), '0E/1D/00', { dataOut: block })
  t.ok((information(sense) ?? 0) >= 4 * BLOCK && (information(sense) ?? 0) < 5 * BLOCK)

  harness.device.requests.length = 0
  t.equal((await harness.run(sixteen(0x8f, 0, 8192))).status, GOOD, 'the whole device')
  const lengths = harness.device.requests.map((request) => request.length)
  t.equal(
    lengths.reduce((sum, length) => sum + length, 0),
    bytes.length,
  )
  t.ok(Math.max(...lengths) <= 1024 * 1024, 'in bounded pieces')
  const most = Buffer.from(bytes.subarray(0, 3 * 1024 * 1024))
  const long = twelve(0xaf, 0, 6144, 0x02)
  t.equal((await harness.run(long, { dataOut: most })).status, GOOD, 'several pieces compared')
  most.writeUInt8(most.readUInt8(2_500_000) ^ 1, 2_500_000)
  t.equal(
    information(await expectSense(t, harness, long, '0E/1D/00', { dataOut: most })),
    2_500_000,
  )
  harness.device.failures.set('read', 'io')
  await expectSense(t, harness, ten(0x2f, 8, 4), '03/11/00')
  t.equal(harness.pool.leased, 0)
})

t.test('WRITE AND VERIFY finds what the medium did not keep', async (t) => {
  const harness = filled()
  const data = random(2 * BLOCK)
  for (const flags of [0, 0x02, 0x10]) {
    t.equal((await harness.run(ten(0x2e, 3, 2, flags), { dataOut: data })).status, GOOD)
    t.ok(harness.device.bytes.subarray(3 * BLOCK, 5 * BLOCK).equals(data))
  }
  t.ok(harness.device.requests.filter((r) => r.op === 'write').every((r) => r.fua))
  harness.device.holding = true
  const { task, done } = harness.start(ten(0x2e, 3, 2, 0x02), { dataOut: data })
  const other = harness.start(ten(0x2a, 4, 1), { dataOut: random(BLOCK) })
  t.equal(harness.device.held.length, 1, 'no other write comes between writing and reading back')
  harness.device.release()
  await new Promise(setImmediate)
  harness.device.bytes.writeUInt8(harness.device.bytes.readUInt8(3 * BLOCK + 7) ^ 1, 3 * BLOCK + 7)
  harness.device.release()
  await done
  t.equal(senseText(task.sense), '0E/1D/00')
  t.equal(information(task.sense), 7)
  harness.collect(task)
  harness.device.release()
  harness.collect(await other.done)
  t.equal(harness.pool.leased, 0)
})

t.test('COMPARE AND WRITE', async (t) => {
  const harness = filled()
  const { bytes } = harness.device
  const fresh = random(2 * BLOCK)
  const dataOut = Buffer.concat([bytes.subarray(4 * BLOCK, 6 * BLOCK), fresh])
  t.equal((await harness.run(compareAndWrite(4, 2), { dataOut })).status, GOOD)
  t.ok(bytes.subarray(4 * BLOCK, 6 * BLOCK).equals(fresh))
  const before = Buffer.from(bytes)
  const sense = await expectSense(t, harness, compareAndWrite(4, 2), '0E/1D/00', {
    dataOut: Buffer.concat([
      fresh.subarray(0, 777),
      Buffer.from([fresh.readUInt8(777) ^ 0xff]),
      random(2 * BLOCK - 778),
      random(2 * BLOCK),
    ]),
  })
  t.equal(information(sense), 777, 'INFORMATION is the offset of the first difference')
  t.ok(bytes.equals(before), 'nothing is written after a miscompare')
  await expectSense(t, harness, compareAndWrite(4, 1), '05/0E/03', { dataOut: random(4 * BLOCK) })
  await expectSense(t, harness, compareAndWrite(4, 3), '05/0E/03', { dataOut: random(4 * BLOCK) })
  await expectSense(t, harness, compareAndWrite(2047, 2), '05/21/00', {
    dataOut: random(4 * BLOCK),
  })
  await expectSense(t, harness, compareAndWrite(0, 1, 0x20), '05/24/00', { dataOut: random(1024) })
  t.equal((await harness.run(compareAndWrite(0, 0), { expectedBytes: 0 })).status, GOOD, '0 blocks')
  const most = Buffer.concat([bytes.subarray(0, 255 * BLOCK), random(255 * BLOCK)])
  harness.device.requests.length = 0
  t.equal((await harness.run(compareAndWrite(0, 255, 0x08), { dataOut: most })).status, GOOD)
  t.ok(bytes.subarray(0, 255 * BLOCK).equals(most.subarray(255 * BLOCK)))
  t.equal(harness.device.requests.at(-1)?.fua, true, 'FUA')
  t.equal(harness.pool.leased, 0)
})

t.test('WRITE SAME', async (t) => {
  const harness = filled({ sizeBytes: 8 * 1024 * 1024 })
  const { device } = harness
  const want = Buffer.from(device.bytes)
  const check = (name: string) => t.ok(device.bytes.equals(want), name)
  const pattern = random(BLOCK)
  const fill = (lba: number, blocks: number, block: Buffer) => {
    for (let at = lba; at < lba + blocks; at++) block.copy(want, at * BLOCK)
  }
  t.equal((await harness.run(ten(0x41, 5, 7), { dataOut: pattern })).status, GOOD)
  fill(5, 7, pattern)
  check('a pattern, 10 bytes')
  t.equal((await harness.run(sixteen(0x93, 100, 5000), { dataOut: pattern })).status, GOOD)
  fill(100, 5000, pattern)
  check('a pattern in several pieces, 16 bytes')
  const zero = Buffer.alloc(BLOCK)
  t.equal((await harness.run(ten(0x41, 2, 3), { dataOut: zero })).status, GOOD)
  fill(2, 3, zero)
  check('zeroes')
  t.equal(device.requests.at(-1)?.op, 'write-zeroes', 'as one order to the device')
  t.equal((await harness.run(sixteen(0x93, 9, 2, 0x01), { expectedBytes: 0 })).status, GOOD)
  fill(9, 2, zero)
  check('NDOB')
  t.equal((await harness.run(sixteen(0x93, 16380, 0), { dataOut: pattern })).status, GOOD)
  fill(16380, 4, pattern)
  check('0 blocks mean up to the end')
  t.equal((await harness.run(sixteen(0x93, 16384, 0), { dataOut: pattern })).status, GOOD)
  check('of which there is nothing left')

  device.requests.length = 0
  t.equal((await harness.run(sixteen(0x93, 3, 30, 0x08), { dataOut: zero })).status, GOOD)
  fill(3, 30, zero)
  check('UNMAP of zeroes reads as zeroes, unaligned ends too')
  t.same(
    device.requests.map(({ op, offset, length }) => [op, offset / BLOCK, length / BLOCK]),
    [
      ['discard', 8, 24],
      ['write-zeroes', 3, 5],
      ['write-zeroes', 32, 1],
    ],
    'whole granules are unmapped',
  )
  t.equal((await harness.run(ten(0x41, 40, 2, 0x08), { expectedBytes: 0 })).status, GOOD)
  fill(40, 2, zero)
  check('UNMAP without Data-Out')
  t.equal((await harness.run(ten(0x41, 60, 20, 0x08), { dataOut: pattern })).status, GOOD)
  fill(60, 20, pattern)
  check('UNMAP of a block that is not zero writes it, 10 bytes')
  t.equal((await harness.run(sixteen(0x93, 61, 40, 0x08), { dataOut: pattern })).status, GOOD)
  fill(61, 40, pattern)
  check('and with 16 bytes')

  await expectSense(t, harness, ten(0x41, 0, 1, 0x08), '05/0E/03', { dataOut: random(256) })
  await expectSense(t, harness, ten(0x41, 0, 1, 0x08), '05/0E/03', { dataOut: random(1024) })
  await expectSense(t, harness, ten(0x41, 0, 1), '05/0E/03', { direction: 'out', expectedBytes: 0 })
  await expectSense(t, harness, sixteen(0x93, 16385, 0), '05/21/00', { dataOut: pattern })
  await expectSense(t, harness, sixteen(0x93, 0x8000000000000000n, 0), '05/21/00', {
    dataOut: pattern,
  })
  await expectSense(t, harness, sixteen(0x93, 0, MAX_WRITE_SAME_BLOCKS + 1), '05/24/00', {
    dataOut: pattern,
  })
  check('refused commands change nothing')
  t.equal(harness.pool.leased, 0)
})

t.test('WRITE SAME where unmapping is not possible or promises nothing', async (t) => {
  const thick = filled({ thin: false })
  await expectSense(t, thick, ten(0x41, 0, 8, 0x08), '05/24/00', { dataOut: Buffer.alloc(BLOCK) })
  const vague = filled({ features: { discardZeroes: false } })
  await vague.run(ten(0x41, 0, 8, 0x08), { dataOut: Buffer.alloc(BLOCK) })
  t.ok(
    vague.device.bytes.subarray(0, 4096).every((byte) => byte === 0),
    'zeroes are written',
  )
  t.notOk(vague.device.requests.some(({ op }) => op === 'discard'))
})

t.test('UNMAP', async (t) => {
  const harness = filled()
  const { device } = harness
  const want = Buffer.from(device.bytes)
  const send = (list: Buffer) => harness.run(unmap(list.length), { dataOut: list })
  const refused = (list: Buffer, wanted: string) =>
    expectSense(t, harness, unmap(list.length), wanted, { dataOut: list })

  t.equal(
    (
      await send(
        unmapList([
          [3, 30],
          [100, 0],
          [64, 8],
        ]),
      )
    ).status,
    GOOD,
  )
  want.fill(0, 3 * BLOCK, 33 * BLOCK).fill(0, 64 * BLOCK, 72 * BLOCK)
  t.ok(device.bytes.equals(want), 'ranges read as zeroes')
  t.equal((await harness.run(unmap(0), { expectedBytes: 0 })).status, GOOD, 'no list')
  t.equal((await send(unmapList([]))).status, GOOD, 'no descriptors')
  t.equal((await send(unmapList([[2048, 0]]))).status, GOOD, 'nothing at the end')
  t.equal((await send(unmapList([[1, 3]]))).status, GOOD, 'less than a granule')
  want.fill(0, BLOCK, 4 * BLOCK)
  t.ok(device.bytes.equals(want))

  device.requests.length = 0
  await refused(unmapList([[0, 8]]).subarray(0, 7), '05/1A/00')
  await refused(unmapList([[0, 8]]).subarray(0, 20), '05/1A/00')
  await refused(
    unmapList([
      [0, 8],
      [2047, 2],
    ]),
    '05/21/00',
  )
  for (const [lba, blocks, first] of [
    [2047, 2, 2048],
    [3000, 1, 3000],
  ] as const) {
    const sense = await refused(unmapList([[lba, blocks]]), '05/21/00')
    t.equal(information(sense), first, 'the first block behind the end')
  }
  await refused(unmapList([[0xffffffffffffffffn, 1]]), '05/21/00')
  await refused(unmapList(new Array(257).fill([0, 1])), '05/26/00')
  await expectSense(t, harness, unmap(24), '05/0E/03', { dataOut: random(8) })
  t.equal(device.requests.length, 0, 'a bad list changes nothing at all')

  const big = createHarness({ sizeBytes: 1024 * 1024 })
  big.device.geometry = { ...big.device.geometry, sizeBytes: UNMAP_BLOCKS * BLOCK * 2 }
  big.device.emit('resized')
  await big.run([0, 0, 0, 0, 0, 0])
  const over = unmapList([
    [0, UNMAP_BLOCKS],
    [0, 1],
  ])
  const sense = await expectSense(t, big, unmap(over.length), '05/26/00', { dataOut: over })
  t.equal(sense?.readUInt16BE(16), 32, 'the descriptor that is too much')
  t.equal(sense?.[15], 0x80, 'a field of the parameter list')

  const list = unmapList([[0, 8]])
  for (const init of [{ thin: false }, { features: { discardGranularityBytes: 0 } }]) {
    await expectSense(t, filled(init), unmap(24), '05/20/00', { dataOut: list })
  }
  const vague = filled({ features: { discardZeroes: false } })
  const tail = Buffer.from(vague.device.bytes.subarray(0, BLOCK * 8))
  await vague.run(unmap(24), { dataOut: unmapList([[1, 15]]) })
  t.ok(
    vague.device.bytes.subarray(0, BLOCK * 8).equals(tail),
    'without LBPRZ partial granules stay',
  )
  t.ok(vague.device.bytes.subarray(8 * BLOCK, 16 * BLOCK).every((byte) => byte === 0xdd))
})

t.test('changes are durable with WCE = 0', async (t) => {
  const harness = filled()
  harness.unit.mode.writeCacheEnabled = false
  await harness.run(unmap(24), { dataOut: unmapList([[0, 8]]) })
  t.equal(harness.device.requests.at(-1)?.op, 'flush')
  await harness.run(ten(0x41, 5, 7), { dataOut: random(BLOCK) })
  t.equal(harness.device.requests.at(-1)?.op, 'flush')
})

t.test('SYNCHRONIZE CACHE and PRE-FETCH', async (t) => {
  const harness = createHarness()
  const { device } = harness
  for (const cdb of [ten(0x35, 0, 0), ten(0x35, 10, 5, 0x04), sixteen(0x91, 0, 1)]) {
    t.equal((await harness.run(cdb, { expectedBytes: 0 })).status, GOOD)
    t.equal(device.requests.at(-1)?.op, 'flush')
  }
  for (const cdb of [ten(0x34, 0, 0), ten(0x34, 2048, 0, 0x02), sixteen(0x90, 0, 9)]) {
    t.equal((await harness.run(cdb, { expectedBytes: 0 })).status, GOOD)
  }
  device.failures.set('flush', 'io')
  await expectSense(t, harness, ten(0x35, 0, 0), '03/0C/00')

  device.failures.set('flush', 'io')
  device.holding = true
  const other = harness.newNexus()
  const immediate = await harness.run(ten(0x35, 0, 0, 0x02))
  t.equal(immediate.status, GOOD, 'IMMED answers while the flush is under way')
  t.equal(device.held.length, 1)
  device.release()
  await new Promise(setImmediate)
  device.holding = false
  t.equal((await harness.run([0, 0, 0, 0, 0, 0], { nexus: other })).status, GOOD, 'not the others')
  const sense = await expectSense(t, harness, [0, 0, 0, 0, 0, 0], '03/0C/00')
  t.equal(sense?.[0], 0x71, 'its failure is a deferred error of the nexus')
  t.equal((await harness.run([0, 0, 0, 0, 0, 0])).status, GOOD, 'told once')

  for (const [descriptor, code] of [
    [0, 0x71],
    [1, 0x73],
  ] as const) {
    device.failures.set('flush', 'io')
    t.equal((await harness.run(ten(0x35, 0, 0, 0x02))).status, GOOD)
    await new Promise(setImmediate)
    const { dataIn } = await harness.run([0x03, descriptor, 0, 0, 252, 0])
    t.same([senseText(dataIn), dataIn[0]], ['03/0C/00', code], 'REQUEST SENSE tells it, too')
    t.equal((await harness.run([0, 0, 0, 0, 0, 0])).status, GOOD, 'and it is told once')
  }
})

t.test('errors of the device become sense data', async (t) => {
  const cases = [
    ['io', '03/11/00', '03/0C/00'],
    ['gone', '02/04/03', '02/04/03'],
    ['no-space', '07/27/07', '07/27/07'],
    ['timeout', '0B/2E/02', '0B/2E/02'],
    ['corrupt', '03/11/00', '03/0C/00'],
    ['permission', '04/44/00', '07/27/00'],
  ] as const
  for (const [kind, onRead, onWrite] of cases) {
    const harness = createHarness()
    harness.device.failures.set('read', kind)
    await expectSense(t, harness, ten(0x28, 0, 1), onRead)
    harness.device.failures.set('write', kind)
    await expectSense(t, harness, ten(0x2a, 0, 1), onWrite, { dataOut: random(BLOCK) })
    t.equal(harness.pool.leased, 0, `${kind}: no lease is left`)
    t.equal(harness.unit.statistics[0x28]?.errors, 1)
  }
  const full = createHarness()
  full.device.failures.set('write', 'exhausted')
  const result = await full.run(ten(0x2a, 0, 1), { dataOut: random(BLOCK) })
  t.equal(result.status, TASK_SET_FULL)
})

t.test('an empty pool: reads wait, commands that hold data give way', async (t) => {
  const harness = filled()
  const { pool } = harness
  const dataOut = Buffer.concat([harness.device.bytes.subarray(0, BLOCK), random(BLOCK)])
  const started = harness.task(compareAndWrite(0, 1), { dataOut })
  t.ok(harness.server.admit(started.task))
  const taken = []
  started.task.dataOut = pool.lease(1024)
  dataOut.copy(started.task.dataOut?.bytes ?? Buffer.alloc(0))
  for (const size of [4 * 1024 * 1024, 4096]) {
    for (let lease = pool.lease(size); lease; lease = pool.lease(size)) taken.push(lease)
  }
  harness.server.execute(started.task)
  t.equal((await started.done).status, TASK_SET_FULL)
  harness.collect(started.task)
  for (let lease = pool.lease(4096); lease; lease = pool.lease(4096)) taken.push(lease)

  const read = harness.start(ten(0x28, 0, 1))
  const verify = harness.start(ten(0x2f, 0, 4))
  const aborted = harness.start(ten(0x28, 0, 1))
  await new Promise(setImmediate)
  t.notOk(read.task.completed || verify.task.completed, 'waiting for a buffer')
  t.equal(harness.server.manage(1, harness.nexus, Buffer.alloc(8), aborted.task.tag), 0)
  harness.device.requests.length = 0
  for (const lease of taken) lease.release()
  await Promise.all([read.done, verify.done, aborted.done])
  t.same([read.task.status, verify.task.status], [GOOD, GOOD])
  t.ok(harness.collect(read.task).dataIn.equals(harness.device.bytes.subarray(0, BLOCK)))
  harness.collect(aborted.task)
  t.equal(harness.device.requests.length, 2, 'the aborted one reads nothing')
  t.equal(pool.leased, 0)
})

t.test('blocks of the unit larger than those of the device', async (t) => {
  const harness = filled({ blockBytes: 4096 })
  t.equal(harness.unit.blocks, 256)
  const data = random(4096)
  t.equal((await harness.run(ten(0x2a, 255, 1), { dataOut: data })).status, GOOD)
  t.ok(harness.device.bytes.subarray(255 * 4096).equals(data))
  await expectSense(t, harness, ten(0x28, 256, 1), '05/21/00')
})

t.test('what a power cut leaves', async (t) => {
  const zeroes = Buffer.alloc(BLOCK)
  const data = random(BLOCK)
  const list = unmapList([[0, 8]])
  const swap = Buffer.concat([Buffer.alloc(BLOCK, 7), data])
  const cases = [
    { name: 'WRITE', cdb: ten(0x2a, 0, 1), dataOut: data, durable: false },
    { name: 'WRITE, FUA', cdb: ten(0x2a, 0, 1, 0x08), dataOut: data, durable: true },
    { name: 'WRITE AND VERIFY', cdb: ten(0x2e, 0, 1), dataOut: data, durable: true },
    { name: 'COMPARE AND WRITE', cdb: compareAndWrite(0, 1), dataOut: swap, durable: false },
    { name: 'the same, FUA', cdb: compareAndWrite(0, 1, 0x08), dataOut: swap, durable: true },
    { name: 'WRITE SAME', cdb: ten(0x41, 0, 1), dataOut: data, durable: false },
    { name: 'zeroes', cdb: ten(0x41, 0, 1), dataOut: zeroes, durable: false },
    { name: 'UNMAP', cdb: unmap(24), dataOut: list, durable: false },
  ]
  for (const { name, cdb, dataOut, durable } of cases) {
    for (const [how, lasts] of [
      ['WCE = 1', durable],
      ['WCE = 0', true],
      ['SYNCHRONIZE CACHE', true],
    ] as const) {
      const medium = new MemoryDevice({
        sizeBytes: 1024 * 1024,
        features: { volatileWriteCache: true, discardGranularityBytes: 4096, discardZeroes: true },
      })
      medium.media.fill(7)
      const harness = createHarness({ medium })
      harness.unit.mode.writeCacheEnabled = how !== 'WCE = 0'
      t.equal((await harness.run(cdb, { dataOut })).status, GOOD)
      if (how === 'SYNCHRONIZE CACHE') await harness.run(ten(0x35, 0, 0))
      t.notOk(
        medium.media.every((byte) => byte === 7),
        `${name} has changed the medium`,
      )
      medium.powerCut()
      const lost = medium.media.every((byte) => byte === 7)
      t.equal(!lost, lasts, `${name}, ${how}: ${lasts ? 'durable' : 'in the cache'}`)
    }
  }
})
