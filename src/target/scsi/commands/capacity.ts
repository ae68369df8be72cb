/**
 * READ CAPACITY(10) and READ CAPACITY(16) (SBC-4, 5.20 and 5.21). Rows of the command table; the logical
 * unit has checked that the medium is there.
 *
 *   (10)  byte 0  last LBA, FFFFFFFFh = use (16)   byte 4  block length
 *   (16)  byte 0  last LBA (8)   byte 8  block length   byte 12  RC BASIS, P_TYPE, PROT_EN
 *         byte 13 P_I_EXPONENT, LBPPBE   byte 14  LBPME, LBPRZ, LOWEST ALIGNED LBA   byte 16  reserved
 *
 * The fields LOGICAL BLOCK ADDRESS and PMI are obsolete. As in SBC-2, an address without PMI is refused and
 * with PMI the last block is the answer, since all blocks of a disk array are equally far away.
 */
import { isAligned } from '../../../base/bytes.ts'
import { failCdbField } from '../sense.ts'
import type { LogicalUnit, ScsiCommand } from '../types.ts'

const PARTIAL_MEDIUM_INDICATOR = 0x01
const LAST_LBA_32 = 0xffff_ffff
const PROVISIONING_ENABLED = 0x8000
const READ_ZEROES = 0x4000
const LOWEST_ALIGNED_LBA_MAX = 0x3fff
const EXPONENT_MAX = 15

/** Logical blocks per physical block as an exponent of 2, and the first LBA that begins one. */
export interface PhysicalLayout {
  readonly exponent: number
  readonly lowestAlignedLba: number
}

/**
 * How logical blocks lie in physical ones. A layout that the fields cannot express (not a power of two, an
 * offset inside a logical block) is reported as one to one: a hint that is wrong costs more than none.
 */
export function physicalLayout(lu: LogicalUnit): PhysicalLayout {
  const geometry = lu.device?.geometry
  const perPhysical = (geometry?.physicalBlockBytes ?? 0) / lu.blockBytes
  const exponent = Math.log2(perPhysical)
  const alignmentBytes = geometry?.alignmentOffsetBytes ?? 0
  const lowestAlignedLba = alignmentBytes / lu.blockBytes
  const expressible =
    Number.isInteger(exponent) &&
    exponent > 0 &&
    exponent <= EXPONENT_MAX &&
    isAligned(alignmentBytes, lu.blockBytes) &&
    lowestAlignedLba <= LOWEST_ALIGNED_LBA_MAX
  return expressible ? { exponent, lowestAlignedLba } : { exponent: 0, lowestAlignedLba: 0 }
}

/** The address of the last block. */
function lastLba(lu: LogicalUnit): number {
  return Math.max(lu.blocks - 1, 0)
}

function readCapacity10(lu: LogicalUnit): Buffer {
  const data = Buffer.alloc(8)
  data.writeUInt32BE(Math.min(lastLba(lu), LAST_LBA_32), 0)
  data.writeUInt32BE(lu.blockBytes, 4)
  return data
}

function readCapacity16(lu: LogicalUnit): Buffer {
  const layout = physicalLayout(lu)
  const readsZeroes = lu.thin && (lu.device?.features.discardZeroes ?? false)
  const data = Buffer.alloc(32)
  data.writeBigUInt64BE(BigInt(lastLba(lu)), 0)
  data.writeUInt32BE(lu.blockBytes, 8)
  data.writeUInt8(layout.exponent, 13)
  data.writeUInt16BE(
    (lu.thin ? PROVISIONING_ENABLED : 0) |
      (readsZeroes ? READ_ZEROES : 0) |
      layout.lowestAlignedLba,
    14,
  )
  return data
}

export const rows: readonly ScsiCommand[] = [
  {
    name: 'READ CAPACITY(10)',
    opcode: 0x25,
    cdbUsage: [0x25, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, PARTIAL_MEDIUM_INDICATOR, 0],
    data: 'in',
    serialize: 'none',
    allow: { reserved: true, stopped: true },
    execute(task, lu) {
      const pmi = (task.cdb.readUInt8(8) & PARTIAL_MEDIUM_INDICATOR) !== 0
      if (!pmi && task.cdb.readUInt32BE(2) !== 0) return failCdbField(task, 2)
      // No allocation length: the eight bytes are the command's whole transfer.
      const data = readCapacity10(lu)
      task.goodWithData(data, data.length)
    },
  },
  {
    name: 'READ CAPACITY(16)',
    opcode: 0x9e,
    serviceAction: 0x10,
    cdbUsage: [0x9e, 0x10, ...new Array<number>(12).fill(0xff), PARTIAL_MEDIUM_INDICATOR, 0],
    data: 'in',
    serialize: 'none',
    allow: { reserved: true, stopped: true },
    execute(task, lu) {
      const pmi = (task.cdb.readUInt8(14) & PARTIAL_MEDIUM_INDICATOR) !== 0
      if (!pmi && task.cdb.readBigUInt64BE(2) !== 0n) return failCdbField(task, 2)
      task.goodWithData(readCapacity16(lu), task.cdb.readUInt32BE(10))
    },
  },
]
