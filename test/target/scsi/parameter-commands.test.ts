/**
 * The parameter-data commands through the whole device server: capacity, REPORT LUNS, sense, start and stop,
 * reservations, LOG SENSE, what is supported; and that no CDB of theirs can do harm.
 */
import fc from 'fast-check'
import t from 'tap'
import { defined } from '../../../src/base/assert.ts'
import { COMMANDS } from '../../../src/target/scsi/command-table.ts'
import { rows as capacityRows } from '../../../src/target/scsi/commands/capacity.ts'
import { STATUS } from '../../../src/target/scsi/task.ts'
import { type Nexus, TASK_MANAGEMENT } from '../../../src/target/scsi/types.ts'
import { dataHex, FixedUnit, type FixedUnitOptions, rowOf } from '../../support/parameter-unit.ts'
import {
  createHarness,
  type RunOptions,
  type ScsiHarness,
  senseText,
} from '../../support/scsi-harness.ts'

const TEST_UNIT_READY = [0x00, 0, 0, 0, 0, 0]
const REQUEST_SENSE = [0x03, 0, 0, 0, 252, 0]
const RESERVE = [0x16, 0, 0, 0, 0, 0]
const RELEASE = [0x17, 0, 0, 0, 0, 0]
const START = [0x1b, 0, 0, 0, 0x01, 0]
const STOP = [0x1b, 0, 0, 0, 0x00, 0]

/** Status, or sense data where there is some, of one command. */
async function outcome(harness: ScsiHarness, cdb: readonly number[], options: RunOptions = {}) {
  const result = await harness.run(cdb, options)
  return result.sense ? senseText(result.sense) : result.status
}

/** Byte and bit of the field pointer in fixed-format sense data. */
async function pointer(harness: ScsiHarness, cdb: readonly number[]): Promise<string> {
  const sense = defined((await harness.run(cdb)).sense, 'sense data')
  const specific = sense.readUInt8(15)
  const bit = (specific & 0x08) !== 0 ? `.${specific & 7}` : ''
  return `${senseText(sense)} ${sense.readUInt16BE(16)}${bit}`
}

async function data(harness: ScsiHarness, cdb: readonly number[], options: RunOptions = {}) {
  const result = await harness.run(cdb, options)
  t.equal(result.status, STATUS.GOOD)
  return result.dataIn.toString('hex')
}

const CAPACITY_10 = rowOf(capacityRows, 0x25)
const CAPACITY_16 = rowOf(capacityRows, 0x9e, 0x10)

t.test('READ CAPACITY(10)', async (t) => {
  const of = async (options: FixedUnitOptions) =>
    dataHex(await new FixedUnit(options).run(CAPACITY_10, [0x25]))
  t.equal(await of({}), '001fffff00000200')
  t.equal(await of({ blocks: 2 ** 32, blockBytes: 4096 }), 'ffffffff00001000')
  t.equal(await of({ blocks: 2 ** 32 - 1 }), 'fffffffe00000200', 'the last one that fits')
  t.equal(await of({ blocks: 2 ** 32 + 5 }), 'ffffffff00000200')
  const harness = createHarness()
  t.equal(await pointer(harness, [0x25, 0, 0, 0, 0, 1]), '05/24/00 2')
  t.equal(await data(harness, [0x25, 0, 0, 0, 0, 1, 0, 0, 1, 0]), '000007ff00000200', 'PMI')
})

t.test('READ CAPACITY(16)', async (t) => {
  const of = async (options: FixedUnitOptions) =>
    dataHex(
      await new FixedUnit(options).run(CAPACITY_16, [0x9e, 0x10, ...new Array(11).fill(0), 32]),
    )
  const tail = '00'.repeat(16)
  t.equal(await of({}), `00000000001fffff00000200${'0003'}${'0000'}${tail}`)
  t.equal(await of({ blocks: 2 ** 40 }), `000000ffffffffff00000200${'0003'}${'0000'}${tail}`)
  t.equal(await of({ thin: true }), `00000000001fffff00000200${'0003'}${'c000'}${tail}`)
  t.equal(
    await of({ thin: true, features: { discardZeroes: false } }),
    `00000000001fffff00000200${'0003'}${'8000'}${tail}`,
  )
  t.equal(
    await of({ geometry: { alignmentOffsetBytes: 3584 } }),
    `00000000001fffff00000200${'0003'}${'0007'}${tail}`,
    'the first aligned block',
  )
  for (const [what, geometry] of [
    ['one to one', { physicalBlockBytes: 512 }],
    ['no power of two', { physicalBlockBytes: 1536 }],
    ['nothing known', { physicalBlockBytes: 0 }],
    ['aligned inside a block', { alignmentOffsetBytes: 100 }],
    ['aligned out of reach', { alignmentOffsetBytes: 512 * 0x4000 }],
  ] as const) {
    t.equal(await of({ geometry }), `00000000001fffff00000200${'0000'}${'0000'}${tail}`, what)
  }
  const harness = createHarness()
  const cdb = (allocation: number, lba = 0, pmi = 0) => [
    ...[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, allocation, pmi, 0],
  ]
  for (let allocation = 0; allocation <= 33; allocation++) {
    const length = Math.min(allocation, 32)
    t.equal((await data(harness, cdb(allocation))).length, 2 * length, `${allocation} bytes`)
  }
  t.equal(await pointer(harness, cdb(32, 1)), '05/24/00 2')
  t.equal((await data(harness, cdb(32, 1, 1))).slice(0, 24), '00000000000007ff00000200')
})

t.test('REPORT LUNS', async (t) => {
  const harness = createHarness()
  const report = (select: number, allocation: number) => [
    ...[0xa0, 0, select, 0, 0, 0, 0, 0, allocation >> 8, allocation & 0xff, 0, 0],
  ]
  t.equal(await data(harness, report(0, 4096)), `0000000800000000${'00'.repeat(8)}`)
  const mapping = defined(harness.nexus.luns.get(0), 'LUN 0')
  const previous = harness.nexus.luns
  harness.nexus.luns = new Map([300, 7, 255].map((lun) => [lun, { ...mapping, lun }]))
  harness.server.lunsChanged(harness.nexus, previous)
  const three = [
    '0000001800000000',
    '0007',
    '00'.repeat(6),
    '00ff',
    '00'.repeat(6),
    '412c',
    '00'.repeat(6),
  ]
  for (const select of [0, 2]) {
    t.equal(await data(harness, report(select, 4096)), three.join(''), 'at LUN 0, which is absent')
  }
  t.equal(await data(harness, report(1, 4096), { lun: 7 }), '00'.repeat(8), 'no well known units')
  t.equal(await data(harness, report(0, 16)), three.join('').slice(0, 32), 'cut')
  for (let allocation = 0; allocation < 16; allocation++) {
    t.equal(await pointer(harness, report(0, allocation)), '05/24/00 6', `${allocation} bytes`)
  }
  for (const select of [0x03, 0x10, 0x11, 0x12, 0xff]) {
    t.equal(await pointer(harness, report(select, 4096)), '05/24/00 2', `SELECT REPORT ${select}`)
  }
})

t.test('TEST UNIT READY and REQUEST SENSE tell what is pending', async (t) => {
  const harness = createHarness({ keepAttention: true })
  const sensed = async (cdb = REQUEST_SENSE, lun = 0) => {
    const result = await harness.run(cdb, { lun })
    t.equal(result.status, STATUS.GOOD, 'REQUEST SENSE always succeeds')
    return senseText(result.dataIn)
  }
  t.equal(await sensed(), '06/29/00')
  t.equal(await sensed(), '00/00/00', 'the unit attention was taken')
  t.equal(await outcome(harness, TEST_UNIT_READY), STATUS.GOOD)
  t.equal(await sensed(REQUEST_SENSE, 9), '05/25/00', 'a LUN that is not there')
  t.equal(await outcome(harness, TEST_UNIT_READY, { lun: 9 }), '05/25/00')

  const fixed = await harness.run(REQUEST_SENSE)
  t.equal(fixed.dataIn.toString('hex'), `700000000000000a${'00'.repeat(10)}`)
  const descriptor = await harness.run([0x03, 1, 0, 0, 252, 0])
  t.equal(descriptor.dataIn.toString('hex'), '7200000000000000', 'DESC')
  t.equal((await harness.run([0x03, 0, 0, 0, 4, 0])).dataIn.length, 4)
  t.equal((await harness.run([0x03, 0, 0, 0, 0, 0])).dataIn.length, 0)
  harness.unit.mode.descriptorSense = true
  t.equal((await harness.run(REQUEST_SENSE)).dataIn[0], 0x70, 'D_SENSE is not for REQUEST SENSE')

  harness.unit.stopped = true
  t.equal(await sensed(), '02/04/02')
  harness.unit.setDevice(undefined)
  t.equal(await sensed(), '02/04/03')
  t.equal(await outcome(harness, TEST_UNIT_READY), '02/04/03')
})

t.test('STOP makes everything durable, START brings the unit back', async (t) => {
  const harness = createHarness()
  harness.device.holding = true
  const stop = harness.start(STOP)
  t.equal(harness.device.held[0]?.request.op, 'flush')
  t.equal(harness.unit.stopped, false, 'not before the flush is done')
  harness.device.holding = false
  harness.device.release()
  await stop.done
  t.equal(stop.task.status, STATUS.GOOD)
  t.equal(await outcome(harness, TEST_UNIT_READY), '02/04/02')
  t.equal(await outcome(harness, [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), '02/04/02')
  t.equal(await outcome(harness, [0x12, 0, 0, 0, 96, 0]), STATUS.GOOD, 'INQUIRY')
  t.equal(await outcome(harness, [0x1a, 0, 0x3f, 0, 255, 0]), STATUS.GOOD, 'MODE SENSE')
  t.equal(await outcome(harness, [0x25]), STATUS.GOOD, 'READ CAPACITY(10)')
  const capacity16 = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]
  t.equal(await outcome(harness, capacity16), STATUS.GOOD, 'READ CAPACITY(16)')
  t.equal(await outcome(harness, START), STATUS.GOOD)
  t.equal(await outcome(harness, TEST_UNIT_READY), STATUS.GOOD)

  t.equal(await outcome(harness, [0x1b, 1, 0, 0, 0x04, 0]), STATUS.GOOD, 'IMMED, NO_FLUSH')
  t.equal(harness.device.requests.filter((request) => request.op === 'flush').length, 2)
  t.equal(await outcome(harness, START), STATUS.GOOD)

  harness.device.failures.set('flush', 'io')
  t.equal(await outcome(harness, STOP), '03/0C/00', 'a flush that fails')
  t.equal(await outcome(harness, TEST_UNIT_READY), STATUS.GOOD, 'and the unit goes on')
})

t.test('a reset ends a STOP that is still flushing', async (t) => {
  const harness = createHarness()
  harness.device.holding = true
  const stop = harness.start(STOP)
  const { nexus, server } = harness
  t.equal(server.manage(TASK_MANAGEMENT.LOGICAL_UNIT_RESET, nexus, Buffer.alloc(8), 0), 0)
  harness.device.holding = false
  harness.device.release()
  await stop.done
  t.equal(harness.unit.stopped, false)
})

t.test('START STOP UNIT: what is refused', async (t) => {
  const harness = createHarness()
  const startStop = (modifier: number, flags: number) => [0x1b, 0, 0, modifier, flags, 0]
  t.equal(await pointer(harness, startStop(0, 0x02)), '05/24/00 4.1', 'eject')
  t.equal(await pointer(harness, startStop(0, 0x03)), '05/24/00 4.1', 'load')
  for (let condition = 1; condition < 16; condition++) {
    for (const flags of [0, 1, 2]) {
      t.equal(await pointer(harness, startStop(0, (condition << 4) | flags)), '05/24/00 4.7')
    }
  }
  t.equal(await pointer(harness, startStop(1, 0x01)), '05/24/00 3.3', 'power condition modifier')
  t.equal(await outcome(harness, TEST_UNIT_READY), STATUS.GOOD)
})

t.test('RESERVE and RELEASE between two initiators', async (t) => {
  const harness = createHarness()
  const first = harness.nexus
  const second = harness.newNexus()
  const as = (nexus: Nexus, cdb: readonly number[]) => outcome(harness, cdb, { nexus })
  t.equal(await as(first, RESERVE), STATUS.GOOD)
  t.equal(await as(first, RESERVE), STATUS.GOOD, 'again')
  t.equal(await as(second, RESERVE), STATUS.RESERVATION_CONFLICT)
  t.equal(await as(second, RELEASE), STATUS.GOOD, 'has no effect')
  t.equal(harness.unit.reservations.holder, first)

  // SPC-2, table 10 and SBC, table 5: what the other initiator may still do.
  const allowed: readonly (readonly number[])[] = [
    [0x12, 0, 0, 0, 96, 0],
    REQUEST_SENSE,
    [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0],
    [0x4d, 0, 0, 0, 0, 0, 0, 0, 64, 0],
    [0x25],
    [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0],
    [0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0],
    [0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0],
    START,
    RELEASE,
  ]
  const conflicting: readonly (readonly number[])[] = [
    TEST_UNIT_READY,
    RESERVE,
    STOP,
    [0x1a, 0, 0x3f, 0, 255, 0],
    [0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 255, 0],
    [0x15, 0x10, 0, 0, 0, 0],
    [0x55, 0x10, 0, 0, 0, 0, 0, 0, 0, 0],
    [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0],
  ]
  for (const cdb of allowed) t.equal(await as(second, cdb), STATUS.GOOD, `${cdb} is allowed`)
  for (const cdb of conflicting) {
    t.equal(await as(second, cdb), STATUS.RESERVATION_CONFLICT, `${cdb} conflicts`)
    t.equal(await as(first, cdb), STATUS.GOOD, `${cdb} of the holder`)
    if (cdb === STOP) t.equal(await as(first, START), STATUS.GOOD)
  }
  t.equal(await as(first, RELEASE), STATUS.GOOD)
  t.equal(await as(second, RESERVE), STATUS.GOOD)
  t.equal(await as(second, RELEASE), STATUS.GOOD)
})

t.test('RESERVE and RELEASE: third parties and extents are refused', async (t) => {
  const harness = createHarness()
  for (const opcode of [0x16, 0x17]) {
    t.equal(await pointer(harness, [opcode, 0x10, 0, 0, 0, 0]), '05/24/00 1.4', '3RDPTY')
    t.equal(await pointer(harness, [opcode, 0x01, 0, 0, 0, 0]), '05/24/00 1.0', 'EXTENT')
    t.equal(await pointer(harness, [opcode, 0, 1, 0, 0, 0]), '05/24/00 2.0', 'identification')
    t.equal(await pointer(harness, [opcode, 0, 0, 0, 8, 0]), '05/24/00 4.3', 'parameter list')
  }
  t.equal(harness.unit.reservations.holder, undefined)
})

t.test('SEND DIAGNOSTIC: the default self-test and nothing else', async (t) => {
  const harness = createHarness()
  const diagnostic = (flags: number, listBytes = 0) => [0x1d, flags, 0, 0, listBytes, 0]
  for (const flags of [0x04, 0x14, 0x07, 0x00, 0x10]) {
    t.equal(await outcome(harness, diagnostic(flags)), STATUS.GOOD, `flags ${flags}`)
  }
  for (let code = 1; code < 8; code++) {
    t.equal(await pointer(harness, diagnostic(code << 5)), '05/24/00 1.7', `self-test ${code}`)
  }
  t.equal(await pointer(harness, diagnostic(0x10, 8)), '05/24/00 3', 'a diagnostic page')
  harness.unit.setDevice(undefined)
  harness.unit.takeUnitAttention(harness.nexus)
  t.equal(await outcome(harness, diagnostic(0x04)), '02/04/03', 'nothing there to test')
})

t.test(
  'PREVENT ALLOW MEDIUM REMOVAL changes nothing, READ DEFECT DATA lists nothing',
  async (t) => {
    const harness = createHarness()
    for (const prevent of [1, 0]) {
      t.equal(await outcome(harness, [0x1e, 0, 0, 0, prevent, 0]), STATUS.GOOD)
    }
    t.equal(await pointer(harness, [0x1e, 0, 0, 0, 2, 0]), '05/24/00 4.1', 'obsolete')
    const ten = (flags: number, allocation: number) => [
      ...[0x37, 0, flags, 0, 0, 0, 0, 0, allocation, 0],
    ]
    const twelve = (flags: number, allocation: number) => [
      ...[0xb7, flags, 0, 0, 0, 0, 0, 0, 0, allocation, 0, 0],
    ]
    for (const flags of [0x00, 0x08, 0x10, 0x1d]) {
      const hex = flags.toString(16).padStart(2, '0')
      t.equal(await data(harness, ten(flags, 255)), `00${hex}0000`, 'PLISTV and GLISTV as asked')
      t.equal(await data(harness, twelve(flags, 255)), `00${hex}${'00'.repeat(6)}`)
    }
    t.equal((await data(harness, ten(0x18, 2))).length, 4, 'cut')
    t.equal(await pointer(harness, ten(0x20, 4)), '05/24/00 2.5')
  },
)

t.test('FORMAT UNIT does not exist', async (t) => {
  const harness = createHarness()
  harness.device.bytes.fill(7)
  for (const flags of [0x00, 0x10, 0x1f]) {
    t.equal(await outcome(harness, [0x04, flags, 0, 0, 0, 0]), '05/20/00')
  }
  t.ok(
    harness.device.bytes.every((byte) => byte === 7),
    'and destroys nothing',
  )
})

const log = (page: number, subpage = 0, allocation = 255) => [
  ...[0x4d, 0, page, subpage, 0, 0, 0, 0, allocation, 0],
]

t.test('LOG SENSE lists its pages, and has what it lists', async (t) => {
  const harness = createHarness()
  const listed = '0203192f'
  t.equal(await data(harness, log(0x00)), `0000000500${listed}`)
  t.equal(await data(harness, log(0x40)), `0000000500${listed}`, 'PC has no meaning here')
  t.equal(await data(harness, log(0x00, 0xff)), '40ff000c000000ff0200030019002f00')
  t.equal(await data(harness, log(0x00, 0xff, 3)), '40ff00')
  for (let page = 1; page < 0x40; page++) {
    const code = page.toString(16).padStart(2, '0')
    if (!listed.match(/../g)?.includes(code)) {
      t.equal(await pointer(harness, log(0x40 | page)), '05/24/00 2.5', `page ${code}`)
      continue
    }
    const bytes = Buffer.from(await data(harness, log(0x40 | page)), 'hex')
    t.same([bytes[0], bytes.readUInt16BE(2)], [page, bytes.length - 4])
    t.equal(await pointer(harness, log(0x40 | page, 0xff)), '05/24/00 3', 'no subpages')
    for (const control of [0x00, 0x80, 0xc0]) {
      t.equal(await pointer(harness, log(control | page)), '05/24/00 2.7', 'no thresholds')
    }
  }
  t.equal(await pointer(harness, log(0x3f, 0xff)), '05/24/00 2.5')
  t.equal(await pointer(harness, log(0x00, 1)), '05/24/00 3')
  t.equal(await pointer(harness, [0x4d, 1, 0, 0, 0, 0, 0, 0, 64, 0]), '05/24/00 1.0', 'SP')
  t.equal(await pointer(harness, [0x4d, 2, 0, 0, 0, 0, 0, 0, 64, 0]), '05/24/00 1.1', 'PPC')
  t.equal(await pointer(harness, [0x4d, 0, 0, 0, 0, 0, 1, 0, 64, 0]), '05/24/00 6.0', 'pointer')
})

t.test('LOG SENSE: counters of the unit', async (t) => {
  const harness = createHarness()
  const { device, clock } = harness
  const block = (opcode: number, lba: number, blocks: number) => [
    ...[opcode, 0, 0, 0, 0, lba, 0, 0, blocks, 0],
  ]
  device.holding = true
  const read = harness.start(block(0x28, 0, 3))
  clock.advance(25)
  device.holding = false
  device.release()
  await read.done
  harness.collect(read.task)
  await harness.run(block(0x2a, 0, 2), { dataOut: Buffer.alloc(1024) })
  await harness.run(block(0x2e, 0, 1), { dataOut: Buffer.alloc(512) })
  device.badBlocks.add(9)
  for (const opcode of [0x28, 0x28, 0x2f]) await harness.run(block(opcode, 8, 4))
  t.equal(await outcome(harness, block(0x28, 255, 1).with(2, 255)), '05/21/00', 'no medium error')
  const u64 = (value: number) => value.toString(16).padStart(16, '0')
  const counters = (page: string, bytes: number, errors: number) =>
    `${page}000018${'00050008'}${u64(bytes)}${'00060008'}${u64(errors)}`
  t.equal(await data(harness, log(0x42)), counters('02', 1536, 0), 'writes')
  t.equal(await data(harness, log(0x43)), counters('03', 1536, 2), 'reads')
  t.equal(
    await data(harness, log(0x59)),
    [
      '19000050',
      '00010340',
      ...[3, 2, 3, 3, 25, 0, 0, 0].map(u64),
      '00030308',
      '0000000300000001', // milliseconds
    ].join(''),
  )
  t.equal(await data(harness, log(0x6f)), '2f000008000003040000ff00', 'no exceptions')
})

const operationCodes = (options: number, opcode = 0, action = 0, allocation = 0xffff) => [
  ...[0xa3, 0x0c, options, opcode, action >> 8, action & 0xff],
  ...[0, 0, allocation >> 8, allocation & 0xff, 0, 0],
]

t.test('REPORT SUPPORTED OPERATION CODES: all commands', async (t) => {
  for (const thin of [true, false]) {
    const harness = createHarness({ thin })
    const offered = COMMANDS.filter((command) => thin || command.opcode !== 0x42)
    for (const timeouts of [false, true]) {
      const bytes = Buffer.from(await data(harness, operationCodes(timeouts ? 0x80 : 0)), 'hex')
      const size = timeouts ? 20 : 8
      t.equal(bytes.readUInt32BE(0), bytes.length - 4)
      t.equal(bytes.length, 4 + size * offered.length)
      const listed: string[] = []
      for (let at = 4; at < bytes.length; at += size) {
        const opcode = bytes.readUInt8(at)
        const action = bytes.readUInt16BE(at + 2)
        const flags = bytes.readUInt8(at + 5)
        listed.push(`${opcode}/${flags & 1 ? action : '-'}/${bytes.readUInt16BE(at + 6)}`)
        t.equal(flags & 0x02, timeouts ? 0x02 : 0, 'CTDP')
        if ((flags & 1) === 0) t.equal(action, 0)
        if (timeouts) t.equal(bytes.toString('hex', at + 8, at + 20), `000a${'00'.repeat(10)}`)
      }
      t.same(
        listed.toSorted(),
        offered
          .map((row) => `${row.opcode}/${row.serviceAction ?? '-'}/${row.cdbUsage.length}`)
          .toSorted(),
      )
      const opcodes = listed.map((text) => Number.parseInt(text, 10))
      t.same(
        opcodes,
        opcodes.toSorted((a, b) => a - b),
        'in ascending order',
      )
    }
    t.equal((await data(harness, operationCodes(0, 0, 0, 10))).length, 20, 'cut')
  }
})

t.test('REPORT SUPPORTED OPERATION CODES: one command', async (t) => {
  const harness = createHarness({ thin: true })
  for (const row of COMMANDS) {
    const { opcode, serviceAction } = row
    const usage = Buffer.from(row.cdbUsage).toString('hex')
    const length = row.cdbUsage.length.toString(16).padStart(4, '0')
    const hasAction = serviceAction !== undefined
    const action = serviceAction ?? 0
    const good = hasAction ? 2 : 1
    t.equal(
      await data(harness, operationCodes(good, opcode, action)),
      `0003${length}${usage}`,
      row.name,
    )
    t.equal(
      await pointer(harness, operationCodes(3 - good, opcode, action)),
      '05/24/00 3',
      row.name,
    )
    t.equal(
      await data(harness, operationCodes(0x83, opcode, action)),
      `0083${length}${usage}000a${'00'.repeat(10)}`,
      `${row.name} with timeouts`,
    )
  }
  for (const options of [1, 2, 3]) {
    t.equal(await data(harness, operationCodes(options, 0x04)), '00010000', 'FORMAT UNIT')
  }
  t.equal(await data(harness, operationCodes(2, 0xa3, 0x0a)), '00010000', 'unknown service action')
  t.equal(await data(harness, operationCodes(3, 0xa3, 0x0a)), '00010000')
  t.equal(await data(harness, operationCodes(3, 0x12, 1)), '00010000', 'none where there is none')
  for (const options of [4, 5, 6, 7, 0x87]) {
    t.equal(await pointer(harness, operationCodes(options, 0x12)), '05/24/00 2.2')
  }
  const thick = createHarness({ thin: false })
  t.equal(await data(thick, operationCodes(1, 0x42)), '00010000', 'UNMAP of a thick unit')
})

t.test('REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS says what manage() does', async (t) => {
  const harness = createHarness()
  const functions = (extended: number, allocation: number) => [
    ...[0xa3, 0x0d, extended, 0, 0, 0, 0, 0, 0, allocation, 0, 0],
  ]
  t.equal(await data(harness, functions(0, 255)), 'da000000')
  t.equal(await data(harness, functions(0x80, 255)), `da00000c${'00'.repeat(12)}`)
  t.equal(await data(harness, functions(0x80, 4)), 'da00000c')
  for (const allocation of [0, 1, 2, 3]) {
    t.equal(await pointer(harness, functions(0, allocation)), '05/24/00 6')
  }
  // Byte 0: ATS, ATSS, CACAS, CTSS, LURS, QTS, TRS, WAKES.
  const bits = Number.parseInt((await data(harness, functions(0, 4))).slice(0, 2), 16)
  for (const [fn, bit] of [
    [TASK_MANAGEMENT.ABORT_TASK, 0x80],
    [TASK_MANAGEMENT.ABORT_TASK_SET, 0x40],
    [TASK_MANAGEMENT.CLEAR_ACA, 0x20],
    [TASK_MANAGEMENT.CLEAR_TASK_SET, 0x10],
    [TASK_MANAGEMENT.LOGICAL_UNIT_RESET, 0x08],
    [TASK_MANAGEMENT.TARGET_WARM_RESET, 0x02],
  ] as const) {
    const refused = harness.server.manage(fn, harness.nexus, Buffer.alloc(8), 1) === 5
    t.equal((bits & bit) === 0, refused, `function ${fn}`)
  }
})

t.test('MODE SELECT through the device server', async (t) => {
  const harness = createHarness()
  const other = harness.newNexus()
  const swp = Buffer.from('000000000a0a021008400000ffff0000', 'hex')
  const select = [0x15, 0x10, 0, 0, swp.length, 0]
  t.equal(await pointer(harness, [0x15, 0x11, 0, 0, 0, 0]), '05/24/00 1.0', 'SP')
  t.equal(
    await outcome(harness, select, { dataOut: swp.subarray(0, 12) }),
    '05/0E/03',
    'too little',
  )
  t.equal(await outcome(harness, select, { dataOut: swp }), STATUS.GOOD)
  t.equal(await outcome(harness, TEST_UNIT_READY), STATUS.GOOD, 'no unit attention for oneself')
  t.equal(await outcome(harness, TEST_UNIT_READY, { nexus: other }), '06/2A/01')
  const write = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]
  t.equal(await outcome(harness, write, { dataOut: Buffer.alloc(512) }), '07/27/00')
  t.equal(await outcome(harness, [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), STATUS.GOOD)
  const dsense = Buffer.from('000000000a0a061000400000ffff0000', 'hex')
  t.equal(await outcome(harness, select, { dataOut: dsense }), STATUS.GOOD)
  const refused = await harness.run([0x1a, 0, 0x02, 0, 255, 0])
  t.equal(refused.sense?.[0], 0x72, 'D_SENSE: descriptor format')
  t.equal(senseText(refused.sense), '05/24/00')
  harness.server.manage(TASK_MANAGEMENT.LOGICAL_UNIT_RESET, harness.nexus, Buffer.alloc(8), 0)
  t.equal(harness.unit.mode.descriptorSense, false, 'a reset brings the defaults back')
})

t.test('property: any CDB ends in a legal status, within its allocation length', async (t) => {
  const opcodes = [
    ...[0x00, 0x03, 0x12, 0x15, 0x16, 0x17, 0x1a, 0x1b, 0x1d, 0x1e, 0x25, 0x37, 0x4d, 0x55],
    ...[0x5a, 0x9e, 0xa0, 0xa3, 0xb7],
  ]
  const legal: readonly number[] = [
    STATUS.GOOD,
    STATUS.CHECK_CONDITION,
    STATUS.RESERVATION_CONFLICT,
  ]
  const legalKeys = [0x02, 0x05, 0x06]
  const harness = createHarness()
  const bare = createHarness({ medium: null })
  const sparse = fc.oneof(
    { weight: 3, arbitrary: fc.constant(0) },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 255 }) },
  )
  const firstByte = fc.constantFrom(0, 0x0c, 0x0d, 0x10, 0x12, 0x01, 0x08, 0x18, 0xff)
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...opcodes),
      fc.oneof(firstByte, sparse),
      fc.array(sparse, { minLength: 14, maxLength: 14 }),
      fc.uint8Array({ maxLength: 80 }),
      fc.constantFrom(0, 0, 0, 5),
      fc.boolean(),
      fc.nat(300),
      async (opcode, first, rest, list, lun, withMedium, expectedBytes) => {
        const target = withMedium ? harness : bare
        const out = opcode === 0x15 || opcode === 0x1d || opcode === 0x55
        const { status, sense, dataIn, task } = await target.run([opcode, first, ...rest], {
          lun,
          ...(out ? { dataOut: Buffer.from(list) } : { expectedBytes }),
        })
        if (!legal.includes(status)) throw new Error(`status ${status}`)
        if ((status === STATUS.CHECK_CONDITION) !== (sense !== undefined)) throw new Error('sense')
        if (sense) {
          const key = ((sense[0] ?? 0) & 0x7f) >= 0x72 ? sense[1] : (sense[2] ?? 0) & 0x0f
          if (!legalKeys.includes(key ?? -1)) throw new Error(`key ${key}`)
        }
        if (status !== STATUS.GOOD && task.dataInBytes > 0) throw new Error('data without GOOD')
        if (out && dataIn.length > 0) throw new Error('data from a Data-Out command')
        if (!out && dataIn.length > expectedBytes) throw new Error('more than expected')
      },
    ),
    { numRuns: 1500 },
  )
  t.equal(harness.pool.leased + bare.pool.leased, 0, 'no lease is left')
  // Whatever the commands did to the unit, a reset brings it back.
  harness.server.manage(TASK_MANAGEMENT.LOGICAL_UNIT_RESET, harness.nexus, Buffer.alloc(8), 0)
  harness.unit.takeUnitAttention(harness.nexus)
  t.equal(await outcome(harness, TEST_UNIT_READY), STATUS.GOOD)
})
