/** Standard INQUIRY data and the vital product data pages, byte by byte (commands/inquiry.ts, vpd.ts). */
import t from 'tap'
import {
  COMPARE_AND_WRITE_BLOCKS,
  MAX_TRANSFER_BYTES,
  MAX_WRITE_SAME_BLOCKS,
  UNMAP_BLOCKS,
  UNMAP_DESCRIPTORS,
} from '../../../src/base/limits.ts'
import { rows } from '../../../src/target/scsi/commands/inquiry.ts'
import { STATUS, type Task } from '../../../src/target/scsi/task.ts'
import {
  dataHex,
  FixedUnit,
  type FixedUnitOptions,
  rowOf,
  senseText,
} from '../../support/parameter-unit.ts'

const INQUIRY = rowOf(rows, 0x12)

const standard = (unit: FixedUnit, allocation: number, lun = true): Promise<Task> =>
  unit.run(INQUIRY, [0x12, 0, 0, allocation >> 8, allocation & 0xff, 0], { lun })

const vital = (unit: FixedUnit, page: number, allocation = 0xffff, lun = true): Promise<Task> =>
  unit.run(INQUIRY, [0x12, 1, page, allocation >> 8, allocation & 0xff, 0], { lun })

/** A VPD page, its header checked, as a buffer that still has the header. */
async function page(code: number, options: FixedUnitOptions = {}): Promise<Buffer> {
  const task = await vital(new FixedUnit(options), code)
  t.equal(task.status, STATUS.GOOD)
  const data = Buffer.from(dataHex(task), 'hex')
  t.equal(data[0], 0x00)
  t.equal(data[1], code)
  t.equal(data.readUInt16BE(2), data.length - 4, 'PAGE LENGTH')
  return data
}

t.test('standard data is what initiators expect of an SPC-4 disk', async (t) => {
  const task = await standard(new FixedUnit(), 260)
  t.equal(task.status, STATUS.GOOD)
  t.equal(
    dataHex(task),
    [
      '00', // qualifier 0, type 0
      '00', // not removable
      '06', // SPC-4
      '12', // HISUP, format 2
      '5b', // 91 bytes follow
      '000002', // no TPGS, 3PC, PROTECT; CMDQUE
      '504c455855532020', // "PLEXUS  "
      '566f6c756d6520202020202020202020', // "Volume          "
      '30303031',
      '00'.repeat(22),
      '00a00960046004c0', // SAM-5, iSCSI, SPC-4, SBC-3
      '00'.repeat(30),
    ].join(''),
  )
})

t.test('the allocation length cuts the data and not the additional length', async (t) => {
  const unit = new FixedUnit()
  const whole = dataHex(await standard(unit, 96))
  for (const allocation of [0, 1, 5, 36, 95, 96, 97, 255, 256, 65535]) {
    const task = await standard(unit, allocation)
    t.equal(task.status, STATUS.GOOD)
    t.equal(dataHex(task), whole.slice(0, 2 * allocation), `allocation length ${allocation}`)
    t.equal(task.dataInBytes, Math.min(allocation, 96))
  }
})

t.test('identity strings are cut, padded and made printable', async (t) => {
  const unit = new FixedUnit()
  Object.assign(unit.unit.identity, {
    vendor: 'ÄCME\u0001LONGNAME',
    product: '12345678901234567890',
    revision: '1',
  })
  const data = Buffer.from(dataHex(await standard(unit, 96)), 'hex')
  t.equal(data.toString('latin1', 8, 36), '_CME_LON12345678901234561   ')
})

t.test('a LUN without a unit', async (t) => {
  const unit = new FixedUnit()
  const data = Buffer.from(dataHex(await standard(unit, 255, false)), 'hex')
  t.equal(data.length, 96)
  t.equal(data[0], 0x7f)
  t.equal(data.toString('latin1', 8, 16), 'PLEXUS  ')
  t.equal(dataHex(await vital(unit, 0x00, 255, false)), '7f00000100', 'lists page 00h only')
  t.equal(senseText(await vital(unit, 0x83, 255, false)), '05/24/00 cdb 2')
})

t.test('what INQUIRY refuses', async (t) => {
  const unit = new FixedUnit()
  t.equal(senseText(await unit.run(INQUIRY, [0x12, 0, 0x83, 0, 255, 0])), '05/24/00 cdb 2')
  t.equal(senseText(await unit.run(INQUIRY, [0x12, 0, 0x01, 0, 0, 0])), '05/24/00 cdb 2')
  const pages = Buffer.from(dataHex(await vital(unit, 0)), 'hex').subarray(4)
  for (let code = 0; code < 256; code++) {
    const task = await vital(unit, code)
    if (pages.includes(code)) t.equal(task.status, STATUS.GOOD, `page ${code} is listed`)
    else t.equal(senseText(task), '05/24/00 cdb 2', `page ${code} is not listed`)
  }
})

t.test('VPD 00h lists the pages in ascending order', async (t) => {
  t.equal((await page(0x00)).toString('hex'), '000000080080838688b0b1b2')
})

t.test('VPD 80h is the serial number', async (t) => {
  t.equal((await page(0x80)).toString('latin1', 4), 'PX0001')
  t.equal((await page(0x80, { serial: 'a\u00e9b' })).toString('latin1', 4), 'a_b')
})

t.test('VPD 83h', async (t) => {
  const text = (value: string, bytes: number) =>
    Buffer.concat([Buffer.from(value)], bytes).toString('hex')
  t.equal(
    (await page(0x83)).toString('hex'),
    [
      '0083007e',
      '01030010', // unit, NAA, binary
      '6589cfc000000f5e0d2b3c4d5e6f7081',
      '0201001e', // unit, T10 vendor identification, ASCII
      text('PLEXUS  Volume          PX0001', 30),
      '5194000400000001', // port, relative target port, iSCSI
      '5195000400000001', // port, target port group
      '5398001c', // port, SCSI name, UTF-8
      text('iqn.2026-01.test:t,t,0x0001', 28),
      '53a80014', // device, SCSI name, UTF-8
      text('iqn.2026-01.test:t', 20),
    ].join(''),
  )
})

t.test(
  'VPD 83h: names are NUL terminated and padded to four bytes whatever their length',
  async (t) => {
    for (const length of [4, 5, 6, 7, 8, 223]) {
      const unit = new FixedUnit()
      const targetName = 'iqn.'.padEnd(length, 'x')
      Object.assign(unit.nexus, {
        targetName,
        targetPort: `${targetName},t,0x0102`,
        targetPortalGroupTag: 0x0102,
        relativePortId: 0x0304,
      })
      const data = Buffer.from(dataHex(await vital(unit, 0x83)), 'hex')
      const designators: { kind: string; value: Buffer }[] = []
      for (let at = 4; at < data.length; ) {
        const end = at + 4 + data.readUInt8(at + 3)
        designators.push({
          kind: data.toString('hex', at, at + 2),
          value: data.subarray(at + 4, end),
        })
        at = end
      }
      t.equal(data.readUInt16BE(2), data.length - 4)
      t.same(
        designators.map((designator) => designator.kind),
        ['0103', '0201', '5194', '5195', '5398', '53a8'],
      )
      for (const index of [4, 5]) {
        const value = designators[index]?.value ?? Buffer.alloc(0)
        t.equal(value.length % 4, 0)
        t.equal(value.at(-1), 0)
        t.equal(
          value.toString('utf8').replace(/\0+$/, ''),
          index === 4 ? `${targetName},t,0x0102` : targetName,
        )
      }
      t.equal(designators[2]?.value.toString('hex'), '00000304')
      t.equal(designators[3]?.value.toString('hex'), '00000102')
    }
  },
)

t.test('VPD 88h and MULTIP', async (t) => {
  const unit = new FixedUnit()
  const name = (tag: string) => Buffer.from(`iqn.2026-01.test:t,t,0x${tag}\0`).toString('hex')
  const port = (id: string, tag: string) => `0000${id}0000000000000020${'5398001c'}${name(tag)}`
  const ports = async () => dataHex(await vital(unit, 0x88))
  const multip = async () => Buffer.from(dataHex(await standard(unit, 96)), 'hex')[6]
  t.equal(await ports(), `0088002c${port('0001', '0001')}`)
  t.equal(await multip(), 0, 'one port')
  Object.assign(unit.nexus, {
    targetPorts: [
      { relativePortId: 1, name: 'iqn.2026-01.test:t,t,0x0001' },
      { relativePortId: 0x0203, name: 'iqn.2026-01.test:t,t,0x0007' },
    ],
  })
  t.equal(await ports(), `00880058${port('0001', '0001')}${port('0203', '0007')}`)
  t.equal(await multip(), 0x10, 'two ports')
})

t.test('VPD 86h', async (t) => {
  const cached = await page(0x86)
  t.equal(cached.toString('hex'), `0086003c00070101${'00'.repeat(56)}`)
  const through = await page(0x86, { features: { volatileWriteCache: false } })
  t.equal(through[6], 0, 'V_SUP tells whether there is a volatile cache')
})

t.test('VPD B0h of a thick unit', async (t) => {
  const data = await page(0xb0)
  t.equal(data.length, 64)
  t.equal(data[4], 0, 'WSNZ')
  t.equal(data[5], COMPARE_AND_WRITE_BLOCKS)
  t.equal(data.readUInt16BE(6), 8, 'optimal granularity: 4 KiB')
  t.equal(data.readUInt32BE(8), MAX_TRANSFER_BYTES / 512)
  t.equal(data.readUInt32BE(12), 0, 'optimal length is not reported by the device')
  t.equal(data.toString('hex', 16, 36), '00'.repeat(20), 'no prefetch limit, no unmap')
  t.equal(data.readBigUInt64BE(36), BigInt(MAX_WRITE_SAME_BLOCKS))
  t.equal(data.toString('hex', 44), '00'.repeat(20), 'no atomic writes')
})

t.test('VPD B0h: lengths follow the block length and the geometry', async (t) => {
  const data = await page(0xb0, {
    blockBytes: 4096,
    geometry: { logicalBlockBytes: 4096, ioMinBytes: 65536, ioOptBytes: 3 * 65536 },
  })
  t.equal(data.readUInt32BE(8), MAX_TRANSFER_BYTES / 4096)
  t.equal(data.readUInt16BE(6), 16)
  t.equal(data.readUInt32BE(12), 48)
  const odd = await page(0xb0, {
    blockBytes: 4096,
    geometry: { ioMinBytes: 512, ioOptBytes: 2 * MAX_TRANSFER_BYTES },
  })
  t.equal(odd.readUInt16BE(6), 0, 'less than a block says nothing')
  t.equal(odd.readUInt32BE(12), 0, 'more than a transfer says nothing')
  const missing = await page(0xb0, { device: false })
  t.equal(missing.readUInt32BE(8), MAX_TRANSFER_BYTES / 512)
  t.equal(missing.readUInt32BE(12), 0)
})

t.test('VPD B0h of a thin unit', async (t) => {
  const limits = async (options: FixedUnitOptions) => {
    const data = await page(0xb0, { thin: true, ...options })
    t.equal(data.readUInt32BE(20), UNMAP_BLOCKS)
    t.equal(data.readUInt32BE(24), UNMAP_DESCRIPTORS)
    return [data.readUInt32BE(28), data.readUInt32BE(32)]
  }
  t.same(await limits({}), [8, 0x80000000])
  t.same(await limits({ features: { discardAlignmentBytes: 1024 } }), [8, 0x80000002])
  t.same(await limits({ features: { discardAlignmentBytes: 100 } }), [8, 0])
  t.same(await limits({ features: { discardGranularityBytes: 512 } }), [1, 0x80000000])
  t.same(await limits({ features: { discardGranularityBytes: 0 } }), [1, 0])
  t.same(
    await limits({ blockBytes: 4096, features: { discardGranularityBytes: 512 } }),
    [1, 0x80000000],
    'granules smaller than a block',
  )
  t.same(
    await limits({ blockBytes: 4096, features: { discardGranularityBytes: 6144 } }),
    [3, 0x80000000],
    'granules that are no whole number of blocks: the least common multiple',
  )
  t.ok(UNMAP_BLOCKS <= 2 ** 20, 'libiscsi takes more for insane')
})

t.test('VPD B1h', async (t) => {
  t.equal((await page(0xb1)).toString('hex'), `00b1003c0001${'00'.repeat(58)}`)
  const disk = await page(0xb1, { features: { rotational: true } })
  t.equal(disk.readUInt16BE(4), 0, 'a rate that nobody told us')
  t.equal((await page(0xb1, { device: false })).readUInt16BE(4), 0)
})

t.test('VPD B2h', async (t) => {
  t.equal((await page(0xb2)).toString('hex'), '00b2000400000000')
  t.equal((await page(0xb2, { thin: true })).toString('hex'), '00b2000400e40200')
  t.equal(
    (await page(0xb2, { thin: true, features: { discardZeroes: false } })).toString('hex'),
    '00b2000400e00200',
  )
})
