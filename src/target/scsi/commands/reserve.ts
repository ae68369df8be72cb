/**
 * RESERVE(6) and RELEASE(6) (SPC-2, 7.21 and 7.16): the whole logical unit for one initiator. ESXi makes
 * no VMFS without them. Third-party and extent reservations are obsolete; their CDB bits are outside the
 * usage masks, so that admission refuses them. Rows of the command table; what a reservation blocks is
 * decided by `allow.reserved` of each row.
 */
import { STATUS } from '../task.ts'
import type { ScsiCommand } from '../types.ts'

export const rows: readonly ScsiCommand[] = [
  {
    name: 'RESERVE(6)',
    opcode: 0x16,
    cdbUsage: [0x16, 0, 0, 0, 0, 0],
    data: 'none',
    serialize: 'none',
    allow: { notReady: true },
    changesUnit: () => true,
    execute(task, lu) {
      if (lu.reservations.reserve(task.nexus)) task.good()
      else task.finish(STATUS.RESERVATION_CONFLICT, undefined)
    },
  },
  {
    name: 'RELEASE(6)',
    opcode: 0x17,
    cdbUsage: [0x17, 0, 0, 0, 0, 0],
    data: 'none',
    serialize: 'none',
    // SPC-2, 7.16.2: a release by somebody else does nothing and is no error.
    allow: { notReady: true, reserved: true },
    execute(task, lu) {
      lu.reservations.release(task.nexus)
      task.good()
    },
  },
]
