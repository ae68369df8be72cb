/**
 * START STOP UNIT (SBC-4, 5.31). A row of the command table. STOP makes everything durable first and then
 * answers media commands with 02/04/02 for all initiators until somebody starts the unit again.
 *
 *   byte 1  IMMED   byte 3  POWER CONDITION MODIFIER
 *   byte 4  POWER CONDITION (7 to 4), NO_FLUSH, LOEJ, START
 *
 * IMMED and NO_FLUSH permit the device to be quicker; that is not taken up, since a STOP is followed by
 * switching something off. Power conditions (a page 1Ah would describe them) and LOEJ (the medium is not
 * removable) are refused.
 */
import { failCdbField } from '../sense.ts'
import { STATUS } from '../task.ts'
import type { ScsiCommand } from '../types.ts'
import { makeDurable } from './make-durable.ts'

const IMMED = 0x01
const POWER_CONDITION = 0xf0
const POWER_CONDITION_MODIFIER = 0x0f
const NO_FLUSH = 0x04
const LOEJ = 0x02
const START = 0x01

export const rows: readonly ScsiCommand[] = [
  {
    name: 'START STOP UNIT',
    opcode: 0x1b,
    cdbUsage: [
      0x1b,
      IMMED,
      0,
      POWER_CONDITION_MODIFIER,
      POWER_CONDITION | NO_FLUSH | LOEJ | START,
      0,
    ],
    data: 'none',
    serialize: 'unit',
    // SBC-4, table 17: under somebody else's reservation a START is allowed and a STOP conflicts, below.
    allow: { notReady: true, reserved: true },
    // A START of a unit that runs, which initiators send as a matter of course, changes nothing.
    changesUnit: (cdb, lu) => (cdb.readUInt8(4) & START) === 0 || lu.stopped,
    async execute(task, lu) {
      const flags = task.cdb.readUInt8(4)
      if ((flags & POWER_CONDITION) !== 0) return failCdbField(task, 4, 7)
      if ((task.cdb.readUInt8(3) & POWER_CONDITION_MODIFIER) !== 0) {
        return failCdbField(task, 3, 3)
      }
      if ((flags & LOEJ) !== 0) return failCdbField(task, 4, 1)
      if ((flags & START) !== 0) {
        lu.stopped = false
        return task.good()
      }
      const { holder } = lu.reservations
      if (holder !== undefined && holder !== task.nexus) {
        return task.finish(STATUS.RESERVATION_CONFLICT, undefined)
      }
      if (!(await makeDurable(task, lu))) return
      // A reset that came meanwhile has ended this command: it must not act after it.
      if (!task.aborted) lu.stopped = true
      task.good()
    },
  },
]
