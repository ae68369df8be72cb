/**
 * LOG SENSE (SPC-5, 6.8): the list of supported log pages, with and without subpages, and nothing else:
 * statistics go to operators through metrics. A row of the command table. SP (save parameters), the
 * obsolete PPC and a parameter pointer are outside the usage mask, and admission refuses them.
 *
 *   byte 0  DS, SPF, PAGE CODE   byte 1  SUBPAGE CODE   byte 2  PAGE LENGTH   byte 4  list
 */
import { failCdbField } from '../sense.ts'
import type { ScsiCommand } from '../types.ts'

const SUBPAGE_FORMAT = 0x40
const ALL_SUBPAGES = 0xff

/** Page 00h: the page codes. Page 00h/FFh: pairs of page and subpage code. Both list both of them once. */
const SUPPORTED_PAGES = Buffer.from([0x00, 0x00, 0x00, 0x01, 0x00])
const SUPPORTED_SUBPAGES = Buffer.from([SUBPAGE_FORMAT, ALL_SUBPAGES, 0, 4, 0, 0, 0, ALL_SUBPAGES])

export const rows: readonly ScsiCommand[] = [
  {
    name: 'LOG SENSE',
    opcode: 0x4d,
    cdbUsage: [0x4d, 0, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0],
    data: 'in',
    serialize: 'none',
    // SPC-2, table 10 lists LOG SENSE as allowed under another initiator's reservation.
    allow: { notReady: true, reserved: true },
    execute(task) {
      // The PC field selects between values of parameters; these pages have none.
      if ((task.cdb.readUInt8(2) & 0x3f) !== 0) return failCdbField(task, 2, 5)
      const subpage = task.cdb.readUInt8(3)
      if (subpage !== 0 && subpage !== ALL_SUBPAGES) return failCdbField(task, 3)
      // A copy: the transport owns the buffer once the task is complete.
      const page = subpage === 0 ? SUPPORTED_PAGES : SUPPORTED_SUBPAGES
      task.goodWithData(Buffer.from(page), task.cdb.readUInt16BE(7))
    },
  },
]
