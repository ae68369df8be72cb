/** MODE SENSE and MODE SELECT: pages byte by byte, all or nothing, and their effects (commands/mode.ts). */
import t from 'tap'
import { defined } from '../../../src/base/assert.ts'
import { PlexusError } from '../../../src/base/errors.ts'
import { rows } from '../../../src/target/scsi/commands/mode.ts'
import { defaultModeState } from '../../../src/target/scsi/commands/mode-pages.ts'
import { STATUS, type Task } from '../../../src/target/scsi/task.ts'
import { dataHex, FixedUnit, rowOf, senseText } from '../../support/parameter-unit.ts'

const SENSE_6 = rowOf(rows, 0x1a)
const SENSE_10 = rowOf(rows, 0x5a)
const SELECT_6 = rowOf(rows, 0x15)
const SELECT_10 = rowOf(rows, 0x55)

const RECOVERY = '010ac0000000000000000000'
const CACHING = '0812040000000000000000000000000000000000'
const CACHING_OFF = '0812000000000000000000000000000000000000'
const CONTROL = '0a0a021000400000ffff0000'
const CONTROL_D_SENSE = '0a0a061000400000ffff0000'
const CONTROL_SWP = '0a0a021008400000ffff0000'
const EXCEPTIONS = '1c0a08000000000000000000'
const ALL = RECOVERY + CACHING + CONTROL + EXCEPTIONS
/** 2097152 blocks of 512 bytes. */
const SHORT_DESCRIPTOR = '0020000000000200'
const LONG_DESCRIPTOR = '00000000002000000000000000000200'

const sense6 = (unit: FixedUnit, page: number, subpage = 0, flags = 0, allocation = 255) =>
  unit.run(SENSE_6, [0x1a, flags, page, subpage, allocation, 0])
const sense10 = (unit: FixedUnit, page: number, subpage = 0, flags = 0, allocation = 0xffff) =>
  unit.run(SENSE_10, [
    ...[0x5a, flags, page, subpage, 0, 0, 0],
    ...[allocation >> 8, allocation & 0xff, 0],
  ])

/** MODE SELECT(6) of pages in hex, without a block descriptor. */
const select6 = (unit: FixedUnit, pages: string) => list6(unit, `00000000${pages}`)
const list6 = (unit: FixedUnit, hex: string, flags = 0x10): Promise<Task> => {
  const dataOut = Buffer.from(hex, 'hex')
  return unit.run(SELECT_6, [0x15, flags, 0, 0, dataOut.length, 0], { dataOut })
}
const list10 = (unit: FixedUnit, hex: string): Promise<Task> => {
  const dataOut = Buffer.from(hex, 'hex')
  const cdb = [0x55, 0x10, 0, 0, 0, 0, 0, dataOut.length >> 8, dataOut.length & 0xff, 0]
  return unit.run(SELECT_10, cdb, { dataOut })
}

t.test('all pages, both command lengths, with and without a block descriptor', async (t) => {
  const unit = new FixedUnit()
  const bytes = ALL.length / 2
  const hex = (value: number) => value.toString(16).padStart(2, '0')
  t.equal(dataHex(await sense6(unit, 0x3f)), `${hex(11 + bytes)}001008${SHORT_DESCRIPTOR}${ALL}`)
  t.equal(dataHex(await sense6(unit, 0x3f, 0xff)), dataHex(await sense6(unit, 0x3f)))
  t.equal(dataHex(await sense6(unit, 0x3f, 0, 0x08)), `${hex(3 + bytes)}001000${ALL}`)
  t.equal(
    dataHex(await sense10(unit, 0x3f)),
    `00${hex(14 + bytes)}001000000008${SHORT_DESCRIPTOR}${ALL}`,
  )
  t.equal(
    dataHex(await sense10(unit, 0x3f, 0, 0x10)),
    `00${hex(22 + bytes)}001001000010${LONG_DESCRIPTOR}${ALL}`,
    'LLBAA: a long descriptor',
  )
  t.equal(
    dataHex(await sense10(unit, 0x3f, 0, 0x18)),
    `00${hex(6 + bytes)}001000000000${ALL}`,
    'DBD wins over LLBAA',
  )
})

t.test('single pages, current, changeable and default values', async (t) => {
  const unit = new FixedUnit()
  Object.assign(unit.unit.mode, {
    writeCacheEnabled: false,
    descriptorSense: true,
    softwareWriteProtect: true,
  })
  const get = async (page: number) => dataHex(await sense6(unit, page, 0, 0x08)).slice(8)
  t.equal(await get(0x01), RECOVERY)
  t.equal(await get(0x08), CACHING_OFF)
  t.equal(await get(0x0a), '0a0a061008400000ffff0000')
  t.equal(await get(0x1c), EXCEPTIONS)
  t.equal(await get(0x41), `010a${'00'.repeat(10)}`)
  t.equal(await get(0x48), `081204${'00'.repeat(17)}`)
  t.equal(await get(0x4a), `0a0a04000800${'00'.repeat(6)}`)
  t.equal(await get(0x5c), `1c0a${'00'.repeat(10)}`)
  t.equal(await get(0x81), RECOVERY)
  t.equal(await get(0x88), CACHING)
  t.equal(await get(0x8a), CONTROL)
  t.equal(await get(0xbf), ALL)
})

t.test('what MODE SENSE refuses', async (t) => {
  const unit = new FixedUnit()
  t.equal(senseText(await sense6(unit, 0x02)), '05/24/00 cdb 2.5')
  t.equal(senseText(await sense6(unit, 0x00)), '05/24/00 cdb 2.5')
  t.equal(senseText(await sense10(unit, 0x19)), '05/24/00 cdb 2.5')
  t.equal(senseText(await sense6(unit, 0x0a, 0x01)), '05/24/00 cdb 3')
  t.equal(senseText(await sense6(unit, 0x3f, 0x01)), '05/24/00 cdb 3')
  t.equal(senseText(await sense6(unit, 0xff)), '05/39/00')
  t.equal(senseText(await sense10(unit, 0xca)), '05/39/00')
  t.equal((await sense6(unit, 0x0a, 0xff)).status, STATUS.GOOD, 'a page with all of its subpages')
})

t.test('the allocation length cuts the data and not MODE DATA LENGTH', async (t) => {
  const unit = new FixedUnit()
  const whole = dataHex(await sense6(unit, 0x3f))
  for (const allocation of [0, 1, 4, 12, 30, 67, 68, 255]) {
    t.equal(dataHex(await sense6(unit, 0x3f, 0, 0, allocation)), whole.slice(0, 2 * allocation))
  }
  t.equal(dataHex(await sense10(unit, 0x3f, 0, 0, 2)), '0046')
})

t.test('the header tells about write protection', async (t) => {
  const specific = async (unit: FixedUnit) => [
    dataHex(await sense6(unit, 0x08, 0, 0x08)).slice(4, 6),
    dataHex(await sense10(unit, 0x08, 0, 0x08)).slice(6, 8),
  ]
  t.same(await specific(new FixedUnit()), ['10', '10'], 'DPOFUA alone')
  t.same(await specific(new FixedUnit({ readOnly: true })), ['90', '90'], 'read-only mapping')
  t.same(await specific(new FixedUnit({ features: { readOnly: true } })), ['90', '90'])
  const swp = new FixedUnit()
  swp.unit.mode.softwareWriteProtect = true
  t.same(await specific(swp), ['90', '90'])
})

t.test('block descriptors of large units', async (t) => {
  const unit = new FixedUnit({ blocks: 2 ** 40, blockBytes: 4096 })
  t.equal(dataHex(await sense6(unit, 0x1c)).slice(8, 24), 'ffffffff00001000')
  t.equal(
    dataHex(await sense10(unit, 0x1c, 0, 0x10)).slice(16, 48),
    '00000100000000000000000000001000',
  )
})

t.test('a device without a volatile cache has nothing to turn on or off', async (t) => {
  const unit = new FixedUnit({ features: { volatileWriteCache: false } })
  const get = async (page: number) => dataHex(await sense6(unit, page, 0, 0x08)).slice(8)
  t.equal(await get(0x08), CACHING_OFF)
  t.equal(await get(0x48), `0812${'00'.repeat(18)}`)
  t.equal(await get(0x88), CACHING_OFF)
  t.equal(senseText(await select6(unit, CACHING)), '05/26/00 list 6.2')
  t.equal((await select6(unit, CACHING_OFF)).status, STATUS.GOOD)
  t.same(unit.attentions, [], 'nothing has changed')
  t.equal(unit.flushes, 0)
})

t.test('a missing medium leaves the mode pages readable', async (t) => {
  const unit = new FixedUnit({ device: false, blocks: 0 })
  t.equal(dataHex(await sense6(unit, 0x08)).slice(8), `0000000000000200${CACHING}`)
  t.equal(dataHex(await sense6(unit, 0x48, 0, 0x08)).slice(8), `0812${'00'.repeat(18)}`)
  t.same(defaultModeState(unit.unit), {
    writeCacheEnabled: true,
    descriptorSense: false,
    softwareWriteProtect: false,
    thresholdNotification: true,
  })
})

t.test('MODE SELECT sets D_SENSE and SWP and tells the others', async (t) => {
  const unit = new FixedUnit()
  t.equal((await select6(unit, CONTROL_D_SENSE)).status, STATUS.GOOD)
  t.match(unit.unit.mode, {
    writeCacheEnabled: true,
    descriptorSense: true,
    softwareWriteProtect: false,
  })
  t.same(unit.attentions, [{ code: 0x2a01, except: unit.nexus }])
  t.equal((await list10(unit, `0000000000000000${CONTROL_SWP}`)).status, STATUS.GOOD)
  t.match(unit.unit.mode, {
    writeCacheEnabled: true,
    descriptorSense: false,
    softwareWriteProtect: true,
  })
  t.equal(unit.attentions.length, 2)
  t.equal((await select6(unit, CONTROL_SWP)).status, STATUS.GOOD)
  t.equal(unit.attentions.length, 2, 'no change, no unit attention')
  t.equal(unit.flushes, 0)
})

t.test('several pages and a repeated one apply in order', async (t) => {
  const unit = new FixedUnit()
  const pages = RECOVERY + CONTROL_SWP + CACHING + CONTROL_D_SENSE + EXCEPTIONS
  t.equal((await select6(unit, pages)).status, STATUS.GOOD)
  t.match(unit.unit.mode, {
    writeCacheEnabled: true,
    descriptorSense: true,
    softwareWriteProtect: false,
  })
  t.equal(unit.attentions.length, 1)
})

t.test('what was read can be sent back', async (t) => {
  const unit = new FixedUnit()
  for (const [flags, long] of [
    [0x00, false],
    [0x08, false],
    [0x10, true],
  ] as const) {
    const ten = dataHex(await sense10(unit, 0x3f, 0, flags))
    t.equal((await list10(unit, ten)).status, STATUS.GOOD, `MODE SELECT(10), flags ${flags}`)
    const six = dataHex(await sense6(unit, 0x3f, 0, flags))
    if (!long) t.equal((await list6(unit, six)).status, STATUS.GOOD, `MODE SELECT(6), ${flags}`)
  }
  t.same(unit.attentions, [])
})

t.test('turning the write cache off flushes first', async (t) => {
  const unit = new FixedUnit()
  unit.holdFlushes = true
  const selected = select6(unit, CACHING_OFF)
  await new Promise(setImmediate)
  t.equal(unit.heldFlushes.length, 1)
  t.equal(unit.unit.mode.writeCacheEnabled, true, 'not off before everything is durable')
  unit.finishFlush()
  t.equal((await selected).status, STATUS.GOOD)
  t.equal(unit.unit.mode.writeCacheEnabled, false)
  t.equal(unit.attentions.length, 1)
  t.equal((await select6(unit, CACHING)).status, STATUS.GOOD)
  t.equal(unit.unit.mode.writeCacheEnabled, true)
  t.equal(unit.flushes, 1, 'turning it on needs no flush')
})

t.test('a flush that fails leaves everything as it was', async (t) => {
  const unit = new FixedUnit()
  unit.flushError = new PlexusError('io', { op: 'flush', subject: 'test', message: 'test: flush' })
  const task = await select6(unit, CACHING_OFF + CONTROL_SWP)
  t.equal(task.status, STATUS.CHECK_CONDITION)
  t.equal(senseText(task), '03/0C/00')
  t.same(unit.unit.mode, defaultModeState(unit.unit))
  t.same(unit.attentions, [])
})

t.test('a command that was aborted while it flushed changes nothing', async (t) => {
  const unit = new FixedUnit()
  unit.holdFlushes = true
  const selected = select6(unit, CACHING_OFF)
  await new Promise(setImmediate)
  defined(unit.lastTask, 'task').aborted = true
  unit.finishFlush()
  await selected
  t.equal(unit.unit.mode.writeCacheEnabled, true)
  t.same(unit.attentions, [])
})

t.test('MODE SELECT: what is wrong, and where', async (t) => {
  const before = defaultModeState(new FixedUnit().unit)
  const LENGTH = '05/1A/00'
  for (const [what, hex, expected] of [
    ['half a header', '0000', LENGTH],
    ['half a block descriptor', '0000000800000000', LENGTH],
    ['a page code alone', '000000000a', LENGTH],
    ['half a page', `00000000${CONTROL_SWP.slice(0, -2)}`, LENGTH],
    ['a whole page and half of the next', `00000000${CONTROL_SWP}${CACHING.slice(0, -2)}`, LENGTH],
    ['a medium type', `00010000${CONTROL_SWP}`, '05/26/00 list 1'],
    ['a descriptor of another length', `00000007${'00'.repeat(7)}`, '05/26/00 list 3'],
    ['a long descriptor', `00000010${LONG_DESCRIPTOR}${CONTROL_SWP}`, '05/26/00 list 3'],
    ['another block length', `000000080000000000001000${CONTROL_SWP}`, '05/26/00 list 9'],
    ['another capacity', `000000080000000100000200${CONTROL_SWP}`, '05/26/00 list 4'],
    ['an unknown page', `00000000${CONTROL_SWP}020a${'00'.repeat(10)}`, '05/26/00 list 16.5'],
    ['all pages', '000000003f00', '05/26/00 list 4.5'],
    ['a subpage', `000000004a01001c${'00'.repeat(28)}`, '05/26/00 list 4.6'],
    ['a page that is too long', `000000000a0c${'00'.repeat(12)}`, '05/26/00 list 5'],
    [
      'an unchangeable bit set',
      `00000000${CONTROL_SWP}010ae0${'00'.repeat(9)}`,
      '05/26/00 list 18.5',
    ],
    ['an unchangeable bit cleared', `00000000010a80${'00'.repeat(9)}`, '05/26/00 list 6.6'],
    [
      'read cache disabled',
      '000000000812050000000000000000000000000000000000',
      '05/26/00 list 6.0',
    ],
    ['task aborted status', '000000000a0a021000000000ffff0000', '05/26/00 list 9.6'],
    ['a busy timeout', '000000000a0a0210004000000000ffff', '05/26/00 list 12.7'],
  ] as const) {
    const unit = new FixedUnit()
    const task = await list6(unit, hex)
    t.equal(task.status, STATUS.CHECK_CONDITION, what)
    t.equal(senseText(task), expected, what)
    t.same(unit.unit.mode, before, `${what}: nothing applies`)
    t.same(unit.attentions, [], what)
  }
})

t.test('MODE SELECT(10): what is wrong, and where', async (t) => {
  for (const [what, hex, expected] of [
    ['half a header', '00000000000000', '05/1A/00'],
    ['a medium type', '0000010000000000', '05/26/00 list 2'],
    ['long flag, short descriptor', `0000000001000008${SHORT_DESCRIPTOR}`, '05/26/00 list 6'],
    ['long descriptor without the flag', `0000000000000010${LONG_DESCRIPTOR}`, '05/26/00 list 6'],
    [
      'another block length',
      '000000000100001000000000002000000000000000001000',
      '05/26/00 list 20',
    ],
    ['another capacity', '000000000100001000000000002000010000000000000200', '05/26/00 list 8'],
  ] as const) {
    const task = await list10(new FixedUnit(), hex)
    t.equal(senseText(task), expected, what)
  }
  const most = `0000000001000010${'ff'.repeat(8)}0000000000000200${CONTROL_SWP}`
  t.equal(
    (await list10(new FixedUnit(), most)).status,
    STATUS.GOOD,
    'the largest capacity there is',
  )
})

t.test('MODE SELECT: CDB fields', async (t) => {
  const unit = new FixedUnit()
  t.equal(senseText(await list6(unit, `00000000${CONTROL_SWP}`, 0x00)), '05/24/00 cdb 1.4')
  t.equal((await unit.run(SELECT_6, [0x15, 0x10, 0, 0, 0, 0])).status, STATUS.GOOD, 'an empty list')
  const dataOut = Buffer.from(`00000000${CONTROL_SWP}`, 'hex')
  const short = await unit.run(SELECT_6, [0x15, 0x10, 0, 0, 36, 0], { dataOut })
  t.equal(senseText(short), '05/1A/00', 'less data than announced')
  t.equal(unit.unit.mode.softwareWriteProtect, false)
  t.equal(SELECT_6.dataOutBytes?.(Buffer.from([0x15, 0x10, 0, 0, 24, 0]), unit.unit, 0), 24)
  t.equal(
    SELECT_10.dataOutBytes?.(Buffer.from([0x55, 0x10, 0, 0, 0, 0, 0, 1, 2, 0]), unit.unit, 0),
    258,
  )
  t.equal(defined(SELECT_6.cdbUsage[1], 'mask') & 0x01, 0, 'SP is refused by the mask')
})
