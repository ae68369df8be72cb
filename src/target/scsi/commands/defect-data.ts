/**
 * READ DEFECT DATA(10) and (12) (SBC-3): both lists are there and empty, in the format that is asked
 * for. A logical unit has no defects of its own: the disks below it replace their bad blocks. Rows of the command table.
 *
 *   (10)  byte 1  PLISTV, GLISTV, DEFECT LIST FORMAT   byte 2  DEFECT LIST LENGTH (2)
 *   (12)  byte 1  the same   byte 2  GENERATION CODE (2)   byte 4  DEFECT LIST LENGTH (4)
 */
import type { Task } from '../task.ts'
import type { ScsiCommand } from '../types.ts'

/** REQ_PLIST, REQ_GLIST and DEFECT LIST FORMAT; PLISTV and GLISTV have the places of the first two. */
const LISTS_AND_FORMAT = 0x1f

function emptyLists(task: Task, selection: number, bytes: number, allocationBytes: number): void {
  const data = Buffer.alloc(bytes)
  data[1] = selection & LISTS_AND_FORMAT
  task.goodWithData(data, allocationBytes)
}

const READ_DEFECT_DATA = { data: 'in', serialize: 'none', allow: {} } as const

export const rows: readonly ScsiCommand[] = [
  {
    ...READ_DEFECT_DATA,
    name: 'READ DEFECT DATA(10)',
    opcode: 0x37,
    cdbUsage: [0x37, 0, LISTS_AND_FORMAT, 0, 0, 0, 0, 0xff, 0xff, 0],
    execute: (task) => emptyLists(task, task.cdb.readUInt8(2), 4, task.cdb.readUInt16BE(7)),
  },
  {
    ...READ_DEFECT_DATA,
    name: 'READ DEFECT DATA(12)',
    opcode: 0xb7,
    cdbUsage: [0xb7, LISTS_AND_FORMAT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
    execute: (task) => emptyLists(task, task.cdb.readUInt8(1), 8, task.cdb.readUInt32BE(6)),
  },
]
