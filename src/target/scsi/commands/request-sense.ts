/**
 * REQUEST SENSE (SPC-5, 6.39): with autosense there is nothing left to fetch but what is pending: a unit
 * attention, which is taken, or the reason why the unit is not ready. Always GOOD, also for a LUN that is
 * not there. A row of the command table. DESC in the CDB selects the format, not the control page.
 */
import { ASC, SENSE_KEY, type SenseKey, sense } from '../sense.ts'
import type { Task } from '../task.ts'
import type { AscCode, ScsiCommand } from '../types.ts'

const DESC = 0x01

/** Sense key and code of what is pending, the most urgent first. */
function pending(task: Task): readonly [SenseKey, AscCode] {
  const lu = task.mapping?.unit
  if (!lu) return [SENSE_KEY.ILLEGAL_REQUEST, ASC.LOGICAL_UNIT_NOT_SUPPORTED]
  const attention = lu.takeUnitAttention(task.nexus)
  if (attention !== undefined) return [SENSE_KEY.UNIT_ATTENTION, attention]
  if (!lu.device) return [SENSE_KEY.NOT_READY, ASC.NOT_READY_MANUAL_INTERVENTION_REQUIRED]
  if (lu.stopped) return [SENSE_KEY.NOT_READY, ASC.NOT_READY_INITIALIZING_COMMAND_REQUIRED]
  return [SENSE_KEY.NO_SENSE, ASC.NO_ADDITIONAL_SENSE]
}

export const rows: readonly ScsiCommand[] = [
  {
    name: 'REQUEST SENSE',
    opcode: 0x03,
    cdbUsage: [0x03, DESC, 0, 0, 0xff, 0],
    data: 'in',
    serialize: 'none',
    allow: { unitAttention: true, notReady: true, reserved: true, noUnit: true },
    execute(task) {
      const [key, asc] = pending(task)
      const descriptor = (task.cdb.readUInt8(1) & DESC) !== 0
      task.goodWithData(sense(key, asc, { descriptor }), task.cdb.readUInt8(4))
    },
  },
]
