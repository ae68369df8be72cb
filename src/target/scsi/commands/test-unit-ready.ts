/**
 * TEST UNIT READY (SPC-5, 6.47): one row of the command table. The prechecks of the logical unit (unit
 * attention, reservation, missing medium, stopped) are the whole answer; whoever comes this far is ready.
 */
import type { ScsiCommand } from '../types.ts'

export const rows: readonly ScsiCommand[] = [
  {
    name: 'TEST UNIT READY',
    opcode: 0x00,
    cdbUsage: [0x00, 0, 0, 0, 0, 0],
    data: 'none',
    serialize: 'none',
    // SPC-2, 5.5.1: conflicts with another initiator's reservation, unlike under SPC-3 reservations.
    allow: {},
    execute: (task) => task.good(),
  },
]
