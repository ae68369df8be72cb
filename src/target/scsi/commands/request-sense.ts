/**
 * REQUEST SENSE (SPC-5, 6.39). Sense data comes with each status (autosense), so only a deferred error or a unit attention
 * can be pending, which is taken; otherwise the reason why the unit is not ready. Always GOOD, also for a LUN that is
 * not there. A row of the command table. DESC in the CDB selects the format, not the control page.
 */
import { ASC, SENSE_KEY, sense, senseForError } from '../sense.ts'
import type { Task } from '../task.ts'
import { informationOf } from '../thresholds.ts'
import type { ScsiCommand } from '../types.ts'
import { tellUnitAttention } from '../unit-attention.ts'

const DESC = 0x01

/** Sense data of what is pending, the most urgent first. */
function pending(task: Task, descriptor: boolean): Buffer {
  const { nexus } = task
  const lu = task.mapping?.unit
  if (!lu) return sense(SENSE_KEY.ILLEGAL_REQUEST, ASC.LOGICAL_UNIT_NOT_SUPPORTED, { descriptor })
  const reset = lu.takeResetAttention(nexus)
  const deferred = reset === undefined ? lu.takeDeferredError(nexus) : undefined
  if (deferred) return senseForError(deferred.error, deferred.op, { descriptor, deferred: true })
  const attention = reset ?? tellUnitAttention(lu, nexus)
  if (attention !== undefined) {
    const options = { descriptor, ...informationOf(attention) }
    return sense(SENSE_KEY.UNIT_ATTENTION, attention, options)
  }
  if (!lu.device) {
    return sense(SENSE_KEY.NOT_READY, ASC.NOT_READY_MANUAL_INTERVENTION_REQUIRED, { descriptor })
  }
  if (lu.stopped) {
    return sense(SENSE_KEY.NOT_READY, ASC.NOT_READY_INITIALIZING_COMMAND_REQUIRED, { descriptor })
  }
  return sense(SENSE_KEY.NO_SENSE, ASC.NO_ADDITIONAL_SENSE, { descriptor })
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
      const descriptor = (task.cdb.readUInt8(1) & DESC) !== 0
      task.goodWithData(pending(task, descriptor), task.cdb.readUInt8(4))
    },
  },
]
