/**
 * PREVENT ALLOW MEDIUM REMOVAL (SBC-3): GOOD without effect, since the medium cannot be removed by a command (RMB is 0,
 * START STOP UNIT ejects nothing). A row of the command table.
 */
import type { ScsiCommand } from '../types.ts'

/** Byte 4, PREVENT; the second bit of the field is obsolete. */
const PREVENT = 0x01

export const rows: readonly ScsiCommand[] = [
  {
    name: 'PREVENT ALLOW MEDIUM REMOVAL',
    opcode: 0x1e,
    cdbUsage: [0x1e, 0, 0, 0, PREVENT, 0],
    data: 'none',
    serialize: 'none',
    allow: { stopped: true, reserved: true },
    execute: (task) => task.good(),
  },
]
