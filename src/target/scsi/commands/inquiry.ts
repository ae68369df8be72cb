/**
 * INQUIRY (SPC-5, 6.7): standard data here, vital product data in vpd.ts. A row of the command table;
 * answers whatever the state of the unit is, and for LUNs that are not there.
 *
 *   byte 0  peripheral qualifier, device type   byte 1  RMB, LU_CONG    byte 2  VERSION
 *   byte 3  NORMACA, HISUP, format              byte 4  additional length
 *   byte 5  SCCS, TPGS, 3PC, PROTECT            byte 6  ENCSERV, MULTIP  byte 7  CMDQUE
 *   byte 8  vendor (8)  byte 16 product (16)    byte 32 revision (4)
 *   byte 58 version descriptors (2 each)        byte 74 to 95 reserved
 */
import { failCdbField } from '../sense.ts'
import type { Task } from '../task.ts'
import type { LogicalUnit, Nexus, ScsiCommand, UnitIdentity } from '../types.ts'
import { absentUnitPages, asciiField, findVpdPage } from './vpd.ts'

const EVPD = 0x01

/** Peripheral qualifier 0 and device type 0: a connected direct access block device. */
const BLOCK_DEVICE = 0x00
/** Qualifier 3, type 1Fh: this target cannot have a unit at this LUN now (SPC-5, table 142). */
const NO_UNIT = 0x7f

const STANDARD_BYTES = 96
const VERSION_SPC_4 = 0x06
const HISUP_FORMAT_2 = 0x12
const CMDQUE = 0x02
/** The target has more than one port. */
const MULTIP = 0x10
/** SAM-5, iSCSI, SPC-4, SBC-3, without a claimed revision (SPC-5, table 148). */
const VERSION_DESCRIPTORS = [0x00a0, 0x0960, 0x0460, 0x04c0] as const

/** What a LUN without a unit says of itself. */
const ABSENT_IDENTITY: Pick<UnitIdentity, 'vendor' | 'product' | 'revision'> = {
  vendor: 'PLEXUS',
  product: '',
  revision: '',
}

function standardData(lu: LogicalUnit | undefined, nexus: Nexus): Buffer {
  const identity = lu?.identity ?? ABSENT_IDENTITY
  const data = Buffer.alloc(STANDARD_BYTES)
  data[0] = lu ? BLOCK_DEVICE : NO_UNIT
  data[2] = VERSION_SPC_4
  data[3] = HISUP_FORMAT_2
  data[4] = STANDARD_BYTES - 5
  if (lu && nexus.targetPorts.length > 1) data[6] = MULTIP
  data[7] = CMDQUE
  asciiField(identity.vendor, 8).copy(data, 8)
  asciiField(identity.product, 16).copy(data, 16)
  asciiField(identity.revision, 4).copy(data, 32)
  VERSION_DESCRIPTORS.forEach((descriptor, index) => {
    data.writeUInt16BE(descriptor, 58 + 2 * index)
  })
  return data
}

/** A VPD page with its header: peripheral byte, page code, PAGE LENGTH (2), then the page. */
function vpdData(task: Task, lu: LogicalUnit | undefined, code: number): Buffer | undefined {
  const page = lu ? findVpdPage(code)?.build(lu, task.nexus) : absentUnitPages.get(code)
  if (!page) return undefined
  const header = Buffer.from([lu ? BLOCK_DEVICE : NO_UNIT, code, 0, 0])
  header.writeUInt16BE(page.length, 2)
  return Buffer.concat([header, page])
}

export const rows: readonly ScsiCommand[] = [
  {
    name: 'INQUIRY',
    opcode: 0x12,
    cdbUsage: [0x12, EVPD, 0xff, 0xff, 0xff, 0],
    data: 'in',
    serialize: 'none',
    allow: { unitAttention: true, notReady: true, reserved: true, noUnit: true },
    execute(task) {
      const lu = task.mapping?.unit
      const vital = (task.cdb.readUInt8(1) & EVPD) !== 0
      const pageCode = task.cdb.readUInt8(2)
      if (!vital && pageCode !== 0) return failCdbField(task, 2)
      const data = vital ? vpdData(task, lu, pageCode) : standardData(lu, task.nexus)
      if (!data) return failCdbField(task, 2)
      task.goodWithData(data, task.cdb.readUInt16BE(3))
    },
  },
]
