/**
 * Vital product data pages (SPC-5, 7.7 and SBC-4, 6.6) as a table: a page that is listed can be read. Each
 * `build` returns the page without its four header bytes, which inquiry.ts puts in front.
 */
import { alignUp, isAligned } from '../../../base/bytes.ts'
import {
  COMPARE_AND_WRITE_BLOCKS,
  MAX_TRANSFER_BYTES,
  MAX_WRITE_SAME_BLOCKS,
  UNMAP_BLOCKS,
  UNMAP_DESCRIPTORS,
} from '../../../base/limits.ts'
import { thresholdsOf } from '../thresholds.ts'
import type { LogicalUnit, Nexus } from '../types.ts'

export interface VpdPage {
  readonly code: number
  readonly name: string
  build(lu: LogicalUnit, nexus: Nexus): Buffer
}

/** `text` as a left-aligned ASCII field of `length` bytes, blank padded (SPC-5, 4.3.1). */
export function asciiField(text: string, length: number): Buffer {
  return Buffer.from(printable(text).padEnd(length).slice(0, length), 'latin1')
}

/** Identity may come from a disk's own strings: whatever is not printable ASCII becomes an underscore. */
function printable(text: string): string {
  return text.replace(/[^ -~]/g, '_')
}

// ---- 83h device identification (SPC-5, 7.7.6) ----
//   byte 0  PROTOCOL IDENTIFIER, CODE SET   byte 1  PIV, ASSOCIATION, DESIGNATOR TYPE
//   byte 2  reserved                        byte 3  DESIGNATOR LENGTH   byte 4  designator
const CODE_SET = { BINARY: 1, ASCII: 2, UTF8: 3 } as const
const ASSOCIATION = { UNIT: 0x00, PORT: 0x10, DEVICE: 0x20 } as const
const DESIGNATOR = { T10: 1, NAA: 3, RELATIVE_PORT: 4, PORT_GROUP: 5, SCSI_NAME: 8 } as const
const PROTOCOL_ISCSI = 0x50
const PROTOCOL_VALID = 0x80

function designator(association: number, type: number, codeSet: number, value: Buffer): Buffer {
  // The protocol is meaningful for ports and devices only.
  const ofProtocol = association !== ASSOCIATION.UNIT
  return Buffer.concat([
    Buffer.from([
      (ofProtocol ? PROTOCOL_ISCSI : 0) | codeSet,
      (ofProtocol ? PROTOCOL_VALID : 0) | association | type,
      0,
      value.length,
    ]),
    value,
  ])
}

/** A SCSI name string: UTF-8, ended by a NUL and padded with NULs to four bytes (SPC-5, 7.7.6.11). */
function nameString(name: string): Buffer {
  const text = Buffer.from(name, 'utf8')
  const padded = Buffer.alloc(alignUp(text.length + 1, 4))
  text.copy(padded)
  return padded
}

/** Four bytes whose last two hold `value`. */
function shortId(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt16BE(value, 2)
  return bytes
}

/** The NAA designator comes first: some initiators look at the first one only. */
function deviceIdentification(lu: LogicalUnit, nexus: Nexus): Buffer {
  const { naa, vendor, product, serial } = lu.identity
  const { UNIT, PORT, DEVICE } = ASSOCIATION
  const t10 = [asciiField(vendor, 8), asciiField(product, 16), Buffer.from(printable(serial))]
  return Buffer.concat([
    designator(UNIT, DESIGNATOR.NAA, CODE_SET.BINARY, naa),
    designator(UNIT, DESIGNATOR.T10, CODE_SET.ASCII, Buffer.concat(t10).subarray(0, 0xff)),
    designator(PORT, DESIGNATOR.RELATIVE_PORT, CODE_SET.BINARY, shortId(nexus.relativePortId)),
    designator(PORT, DESIGNATOR.PORT_GROUP, CODE_SET.BINARY, shortId(nexus.targetPortalGroupTag)),
    designator(PORT, DESIGNATOR.SCSI_NAME, CODE_SET.UTF8, nameString(nexus.targetPort)),
    designator(DEVICE, DESIGNATOR.SCSI_NAME, CODE_SET.UTF8, nameString(nexus.targetName)),
  ])
}

// ---- 86h extended INQUIRY data (SPC-5, 7.7.7) ----
const SIMPSUP_ORDSUP_HEADSUP = 0x07
const V_SUP = 0x01
/** Who was told 3F/0E by one unit of the target is not told it by the others. */
const LUICLR = 0x01

function extendedInquiry(lu: LogicalUnit): Buffer {
  const page = Buffer.alloc(0x3c)
  page[1] = SIMPSUP_ORDSUP_HEADSUP
  page[2] = lu.device?.features.volatileWriteCache ? V_SUP : 0
  page[3] = LUICLR
  return page
}

// ---- 88h SCSI ports (SPC-5, 7.7.14): one descriptor for each port of the target ----
//   byte 0  reserved   byte 2  RELATIVE PORT IDENTIFIER (2)   byte 4  reserved   byte 6  initiator port transport id, length (2)
//   byte 8  reserved   byte 10 TARGET PORT DESCRIPTORS LENGTH (2)   byte 12 designators as in page 83h
function scsiPorts(_lu: LogicalUnit, nexus: Nexus): Buffer {
  const descriptors = nexus.targetPorts.map(({ relativePortId, name }) => {
    const named = designator(
      ASSOCIATION.PORT,
      DESIGNATOR.SCSI_NAME,
      CODE_SET.UTF8,
      nameString(name),
    )
    const header = Buffer.alloc(12)
    header.writeUInt16BE(relativePortId, 2)
    header.writeUInt16BE(named.length, 10)
    return Buffer.concat([header, named])
  })
  return Buffer.concat(descriptors)
}

// ---- B0h block limits (SBC-4, 6.6.4); offsets count from the page's header, as in the standard ----
const UGAVALID = 0x8000_0000
const GRANULARITY_MAX_BLOCKS = 0xffff

/** `bytes` in logical blocks, or 0 (not reported) where they are no whole number of them up to `most`. */
function wholeBlocks(bytes: number, blockBytes: number, most: number): number {
  const blocks = bytes / blockBytes
  return Number.isInteger(blocks) && blocks <= most ? blocks : 0
}

/** The smallest number of logical blocks that is a whole number of discard granules. */
function unmapGranularity(granuleBytes: number, blockBytes: number): number {
  if (granuleBytes <= blockBytes) return 1
  let blocks = Math.ceil(granuleBytes / blockBytes)
  while (!isAligned(blocks * blockBytes, granuleBytes)) blocks++
  return blocks
}

function blockLimits(lu: LogicalUnit): Buffer {
  const { blockBytes } = lu
  const transferBlocks = Math.floor(MAX_TRANSFER_BYTES / blockBytes)
  const geometry = lu.device?.geometry
  const page = Buffer.alloc(0x40)
  // WSNZ (byte 4) = 0: WRITE SAME of 0 blocks means the rest of the unit.
  // COMPARE AND WRITE brings every block twice.
  page[5] = Math.min(COMPARE_AND_WRITE_BLOCKS, Math.floor(transferBlocks / 2))
  page.writeUInt16BE(wholeBlocks(geometry?.ioMinBytes ?? 0, blockBytes, GRANULARITY_MAX_BLOCKS), 6)
  page.writeUInt32BE(transferBlocks, 8)
  page.writeUInt32BE(wholeBlocks(geometry?.ioOptBytes ?? 0, blockBytes, transferBlocks), 12)
  // MAXIMUM PREFETCH LENGTH (byte 16) = 0: no limit is reported, PRE-FETCH moves nothing.
  page.writeBigUInt64BE(BigInt(MAX_WRITE_SAME_BLOCKS), 36)
  if (lu.thin) {
    const granuleBytes = lu.device?.features.discardGranularityBytes ?? 0
    const alignmentBytes = lu.device?.features.discardAlignmentBytes ?? 0
    page.writeUInt32BE(UNMAP_BLOCKS, 20)
    page.writeUInt32BE(UNMAP_DESCRIPTORS, 24)
    page.writeUInt32BE(unmapGranularity(granuleBytes, blockBytes), 28)
    if (granuleBytes > 0 && isAligned(alignmentBytes, blockBytes)) {
      page.writeUInt32BE(UGAVALID + alignmentBytes / blockBytes, 32)
    }
  }
  // Atomic transfer limits (bytes 44 to 63) = 0: there is no WRITE ATOMIC.
  return page.subarray(4)
}

// ---- B1h block device characteristics (SBC-4, 6.6.2) ----
const NON_ROTATING = 1
const ROTATION_NOT_REPORTED = 0

function blockDeviceCharacteristics(lu: LogicalUnit): Buffer {
  const page = Buffer.alloc(0x3c)
  const rotational = lu.device?.features.rotational ?? true
  page.writeUInt16BE(rotational ? ROTATION_NOT_REPORTED : NON_ROTATING, 0)
  return page
}

// ---- B2h logical block provisioning (SBC-4, 6.6.6) ----
const LBPU_LBPWS_LBPWS10 = 0xe0
const LBPRZ_ZEROES = 0x04
//   byte 4  THRESHOLD EXPONENT   byte 5  LBPU, LBPWS, LBPWS10, LBPRZ   byte 6  PROVISIONING TYPE   byte 7  THRESHOLD PERCENTAGE
/** Thin is the weaker promise: the device may be an SSD or a pool that can run full; we cannot know. */
const PROVISIONING_THIN = 2

function provisioning(lu: LogicalUnit): Buffer {
  if (!lu.thin) return Buffer.alloc(4)
  const zeroes = lu.device?.features.discardZeroes ? LBPRZ_ZEROES : 0
  const { exponent = 0 } = thresholdsOf(lu) ?? {}
  return Buffer.from([exponent, LBPU_LBPWS_LBPWS10 | zeroes, PROVISIONING_THIN, 0])
}

const pages: readonly VpdPage[] = [
  { code: 0x00, name: 'supported VPD pages', build: () => Buffer.from(pages.map((p) => p.code)) },
  {
    code: 0x80,
    name: 'unit serial number',
    build: (lu) => Buffer.from(printable(lu.identity.serial)),
  },
  { code: 0x83, name: 'device identification', build: deviceIdentification },
  { code: 0x86, name: 'extended INQUIRY data', build: extendedInquiry },
  { code: 0x88, name: 'SCSI ports', build: scsiPorts },
  { code: 0xb0, name: 'block limits', build: blockLimits },
  { code: 0xb1, name: 'block device characteristics', build: blockDeviceCharacteristics },
  { code: 0xb2, name: 'logical block provisioning', build: provisioning },
]

/** The page of that code, or undefined. The table is in ascending order, as page 00h must list it. */
export function findVpdPage(code: number): VpdPage | undefined {
  return pages.find((page) => page.code === code)
}

/** What a LUN without a unit answers: the list, which names only itself. */
export const absentUnitPages: ReadonlyMap<number, Buffer> = new Map([[0x00, Buffer.from([0x00])]])
