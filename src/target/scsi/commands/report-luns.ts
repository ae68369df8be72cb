/**
 * REPORT LUNS (SPC-5, 6.34): the logical units that this nexus sees, in ascending order. Answers at any LUN
 * number, also at one that is absent: initiators send it to LUN 0 without knowing whether there is one. Clears
 * 3F/0E of all units of the nexus (SPC-4, 6.33). A row of the command table.
 *
 *   byte 0  LUN LIST LENGTH (n x 8)   byte 4  reserved   byte 8  n LUN fields of 8 bytes
 */
import { encodeLun } from '../lun.ts'
import { failCdbField } from '../sense.ts'
import type { ScsiCommand } from '../types.ts'
import { forgetLunsChanged } from '../unit-attention.ts'

const HEADER_BYTES = 8
const LUN_BYTES = 8
/** SPC-3 wants room for one LUN at least; SPC-5 only advises it, and libiscsi checks the refusal. */
const ALLOCATION_MIN_BYTES = 16

/**
 * SELECT REPORT (SPC-5, table 289) -> does the report list our units? We have no well known, administrative
 * or subsidiary units: 01h lists nothing and 10h to 12h are refused.
 */
const SELECT_REPORT: ReadonlyMap<number, boolean> = new Map([
  [0x00, true],
  [0x01, false],
  [0x02, true],
])

export const rows: readonly ScsiCommand[] = [
  {
    name: 'REPORT LUNS',
    opcode: 0xa0,
    cdbUsage: [0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
    data: 'in',
    serialize: 'none',
    allow: { unitAttention: true, notReady: true, reserved: true, noUnit: true },
    execute(task) {
      const listed = SELECT_REPORT.get(task.cdb.readUInt8(2))
      if (listed === undefined) return failCdbField(task, 2)
      const allocationBytes = task.cdb.readUInt32BE(6)
      if (allocationBytes < ALLOCATION_MIN_BYTES) return failCdbField(task, 6)
      forgetLunsChanged(task.nexus)
      const luns = listed ? [...task.nexus.luns.keys()].sort((a, b) => a - b) : []
      const data = Buffer.alloc(HEADER_BYTES + luns.length * LUN_BYTES)
      data.writeUInt32BE(luns.length * LUN_BYTES, 0)
      luns.forEach((lun, index) => {
        encodeLun(lun).copy(data, HEADER_BYTES + index * LUN_BYTES)
      })
      task.goodWithData(data, allocationBytes)
    },
  },
]
