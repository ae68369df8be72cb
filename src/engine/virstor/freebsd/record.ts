/**
 * The record of a conversion that is decided on and has not ended everywhere (convert.ts): in the last block of FreeBSD's
 * component 0, in the place of its label, until the anchor takes it. Little-endian; docs/on-disk-format.md:
 *
 *   byte  size  field
 *      0     8  magic: `PLEXCONV`
 *      8     4  version: 1
 *     12     4  CRC32C of these 512 bytes, this field taken as zero
 *     16    16  UUID of the set that the components become
 *     32     8  where its first configuration is kept, in bytes of this component
 *     40     4  length of the configuration
 *     44     4  CRC32C of it
 *     48    16  zero
 *     64    92  FreeBSD's label, as it was
 *    156   356  zero
 */
import { crc32c } from '../../../base/crc32c.ts'
import { uuidBytes, uuidText } from '../../../base/random.ts'
import { CONVERSION_MAGIC } from '../../../hal/signature-own.ts'

const RECORD_BYTES = 512
const VERSION = 1
const CRC_AT = 12
const LABEL_AT = 64
const LABEL_END = 156

export interface ConversionRecord {
  readonly setUuid: string
  /** Where the payload of its first commit is kept. */
  readonly offset: number
  readonly length: number
  readonly payloadCrc: number
  /** FreeBSD's label: 92 bytes. */
  readonly label: Buffer
}

/** Fills a block with it. */
export function encodeRecord(record: ConversionRecord, block: Buffer): void {
  block.fill(0)
  CONVERSION_MAGIC.copy(block, 0)
  block.writeUInt32LE(VERSION, 8)
  uuidBytes(record.setUuid).copy(block, 16)
  block.writeBigUInt64LE(BigInt(record.offset), 32)
  block.writeUInt32LE(record.length, 40)
  block.writeUInt32LE(record.payloadCrc, 44)
  record.label.copy(block, LABEL_AT)
  block.writeUInt32LE(crc32c(block.subarray(0, RECORD_BYTES)), CRC_AT)
}

/** The record in a block; undefined: there is none that is whole. */
export function decodeRecord(block: Buffer): ConversionRecord | undefined {
  if (block.length < RECORD_BYTES || block.compare(CONVERSION_MAGIC, 0, 8, 0, 8) !== 0) {
    return undefined
  }
  const copy = Buffer.from(block.subarray(0, RECORD_BYTES))
  copy.writeUInt32LE(0, CRC_AT)
  if (block.readUInt32LE(8) !== VERSION || block.readUInt32LE(CRC_AT) !== crc32c(copy)) {
    return undefined
  }
  return {
    setUuid: uuidText(copy.subarray(16, 32)),
    offset: Number(copy.readBigUInt64LE(32)),
    length: copy.readUInt32LE(40),
    payloadCrc: copy.readUInt32LE(44),
    label: copy.subarray(LABEL_AT, LABEL_END),
  }
}
