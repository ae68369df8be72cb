/** Sense data in both formats, the LUN field, and the command table's own form. */
import fc from 'fast-check'
import t from 'tap'
import { ERROR_KINDS, PlexusError } from '../../../src/base/errors.ts'
import { COMMANDS, findCommand, indexByOpcode } from '../../../src/target/scsi/command-table.ts'
import { decodeLun, encodeLun } from '../../../src/target/scsi/lun.ts'
import { ASC, SENSE_KEY, sense, senseForError } from '../../../src/target/scsi/sense.ts'
import { senseText } from '../../support/scsi-harness.ts'

t.test('fixed format', async (t) => {
  const { ILLEGAL_REQUEST, MISCOMPARE } = SENSE_KEY
  t.equal(
    sense(ILLEGAL_REQUEST, ASC.INVALID_FIELD_IN_CDB, {
      fieldPointer: { byte: 1, bit: 5, inCdb: true },
    }).toString('hex'),
    '70000500000000' + '0a' + '00000000' + '2400' + '00' + 'cd0001',
  )
  t.equal(
    sense(MISCOMPARE, ASC.MISCOMPARE_DURING_VERIFY, { information: 0x12345678 }).toString('hex'),
    'f0000e12345678' + '0a' + '00000000' + '1d00' + '00' + '000000',
  )
  const parameter = sense(ILLEGAL_REQUEST, ASC.INVALID_FIELD_IN_PARAMETER_LIST, {
    fieldPointer: { byte: 0x1234, inCdb: false },
  })
  t.equal(parameter.toString('hex', 15), '801234')
  const large = sense(ILLEGAL_REQUEST, ASC.LBA_OUT_OF_RANGE, { information: 0x100000000n })
  t.same([large[0], large.readUInt32BE(3)], [0x70, 0], 'more than 32 bits: not VALID')
  t.equal(sense(SENSE_KEY.MEDIUM_ERROR, ASC.WRITE_ERROR, { deferred: true })[0], 0x71)
})

t.test('descriptor format', async (t) => {
  const key = SENSE_KEY.ILLEGAL_REQUEST
  t.equal(
    sense(key, ASC.LBA_OUT_OF_RANGE, {
      descriptor: true,
      information: 0xfedcba9876543210n,
    }).toString('hex'),
    '7205210000000' + '00c' + '000a8000' + 'fedcba9876543210',
  )
  t.equal(
    sense(key, ASC.INVALID_FIELD_IN_CDB, {
      descriptor: true,
      fieldPointer: { byte: 10, inCdb: true },
    }).toString('hex'),
    '7205240000000' + '008' + '02060000' + 'c0000a' + '00',
  )
  t.equal(sense(key, 0x2000, { descriptor: true }).toString('hex'), '7205200000000000')
  t.equal(sense(key, 0x2000, { descriptor: true, deferred: true })[0], 0x73)
})

t.test('every kind of error has sense data for reading and writing', async (t) => {
  for (const kind of ERROR_KINDS) {
    const error = new PlexusError(kind, { op: 'x', subject: 'x', message: 'x' })
    for (const op of ['read', 'write', 'flush', 'discard', 'write-zeroes'] as const) {
      t.match(senseText(senseForError(error, op)), /^0[23457B]\/|^07\//, `${kind} on ${op}`)
    }
  }
  const full = new PlexusError('no-space', { op: 'x', subject: 'x', message: 'x' })
  t.equal(senseText(senseForError(full, 'write', { descriptor: true })), '07/27/07')
})

t.test('LUN field', async (t) => {
  const decode = (hex: string) => decodeLun(Buffer.from(hex.padEnd(16, '0'), 'hex'))
  t.equal(decode('0000'), 0)
  t.equal(decode('00ff'), 255)
  t.equal(decode('4000'), 0, 'flat space says 0, too')
  t.equal(decode('4100'), 256)
  t.equal(decode('7fff'), 16383)
  t.equal(decode('d2000005'), 5, 'extended flat space')
  for (const absent of [
    '0100',
    '8000',
    'c101',
    'd3000001',
    '00000100',
    '00000000000001',
    'e2000001',
  ]) {
    t.equal(decode(absent), undefined, absent)
  }
  t.equal(encodeLun(255).toString('hex'), '00ff000000000000')
  t.equal(encodeLun(256).toString('hex'), '4100000000000000')
  t.throws(() => encodeLun(16384))
  fc.assert(fc.property(fc.integer({ min: 0, max: 16383 }), (n) => decodeLun(encodeLun(n)) === n))
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 8, maxLength: 8 }), (bytes) => {
      const lun = decodeLun(Buffer.from(bytes))
      return lun === undefined || (lun >= 0 && lun < 2 ** 24)
    }),
  )
})

t.test('command table', async (t) => {
  for (const row of COMMANDS) {
    const cdb = Buffer.alloc(16)
    cdb[0] = row.opcode
    cdb[1] = row.serviceAction ?? 0
    t.equal(findCommand(cdb), row, row.name)
    t.equal(row.dataOutBytes !== undefined, row.data === 'out', `${row.name}: Data-Out has a size`)
    t.ok(row.serialize === 'none' || row.serialize === 'unit' || row.range, `${row.name}: range`)
    t.notOk(row.writes && row.serialize === 'none', `${row.name}: a write takes part in the order`)
  }
  t.equal(findCommand(Buffer.alloc(16, 0xff)), undefined)
  const [row] = COMMANDS
  t.throws(() => indexByOpcode(row ? [row, row] : []), /once/)
  t.throws(() => indexByOpcode(row ? [{ ...row, cdbUsage: [0x08] }] : []), /usage mask/)
})
