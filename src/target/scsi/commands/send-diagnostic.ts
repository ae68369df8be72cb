/**
 * SEND DIAGNOSTIC (SPC-4): the default self-test, which is GOOD for a unit that has its medium; what is below is tested
 * by whoever reads and writes. Other self-tests would have to leave results in log page 10h, and diagnostic pages
 * do not exist: both are refused. A row of the command table.
 *
 *   byte 1  SELF-TEST CODE (7 to 5), PF, SELFTEST, DEVOFFL, UNITOFFL   byte 3  PARAMETER LIST LENGTH (2)
 */
import type { ScsiCommand } from '../types.ts'

const SELF_TEST_CODE = 0xe0
const PF = 0x10
const SELFTEST = 0x04
const OFFLINE = 0x03

export const rows: readonly ScsiCommand[] = [
  {
    name: 'SEND DIAGNOSTIC',
    opcode: 0x1d,
    cdbUsage: [0x1d, SELF_TEST_CODE | PF | SELFTEST | OFFLINE, 0, 0xff, 0xff, 0],
    data: 'none',
    serialize: 'none',
    allow: { stopped: true },
    invalidField(cdb) {
      if ((cdb.readUInt8(1) & SELF_TEST_CODE) !== 0) return { byte: 1, bit: 7, inCdb: true }
      return cdb.readUInt16BE(3) === 0 ? undefined : { byte: 3, inCdb: true }
    },
    execute: (task) => task.good(),
  },
]
