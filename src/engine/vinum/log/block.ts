/**
 * The bytes of a ring of the raid5 log (docs/on-disk-format.md): two checkpoints, written in turn, then blocks. Both are
 * sealed (metadata/sealed-block.ts): bytes 0 to 35 are magic, version, CRC32C, the UUID of the subdisk, and the run of the log.
 * Little-endian.
 *
 *   checkpoint `PLEXRCKP`                      block `PLEXRLOG`, 4 KiB of header, then the data of its records
 *   byte  size  field                          byte  size  field
 *     48     8  sequence of the oldest block     36     4  records: 1 to 84
 *               that is needed: the higher one   40     8  sequence: one more than that of the block before
 *               of the two checkpoints counts    48     4  bytes of the block: whole 4 KiB
 *     56     4  its place in the ring            52     4  its place in the ring
 *                                                64  4032  records of 48 bytes
 *
 *   record: entry (8), offset (8) and length (4) in the column, CRC32C of the data (4), columns of the entry as bits
 *   (16), 1 = zeroes, without data (4), reserved (4). The data of the records follow each other without gaps.
 *
 * What is read may be anything: a block that is not whole in every way is none.
 */
import { crc32c } from '../../../base/crc32c.ts'
import {
  isSealed,
  type Origin,
  readSafe,
  SEALED_BYTES,
  SEALED_HEADER_BYTES,
  seal,
  writeSafe,
} from '../../metadata/sealed-block.ts'

export const LOG_BLOCK_BYTES = SEALED_BYTES
/** Where the circle of blocks begins: behind the checkpoints. */
export const CIRCLE_START_BYTES = 2 * SEALED_BYTES
const RECORD_BYTES = 48
const MEMBER_BYTES = 16
/** Records of one block. */
export const BLOCK_RECORDS = (SEALED_BYTES - SEALED_HEADER_BYTES) / RECORD_BYTES
const CHECKPOINT = Buffer.from('PLEXRCKP', 'latin1')
const BLOCK = Buffer.from('PLEXRLOG', 'latin1')

export interface Checkpoint {
  /** Of the oldest block that is needed; one more than that of the last block where none is. */
  readonly sequence: number
  readonly place: number
}

export function encodeCheckpoint(into: Buffer, checkpoint: Checkpoint, origin: Origin): void {
  into.fill(0)
  writeSafe(into, checkpoint.sequence, 48)
  into.writeUInt32LE(checkpoint.place, 56)
  seal(into, CHECKPOINT, origin)
}

/** undefined: it is not whole, or of another ring or run. */
export function decodeCheckpoint(bytes: Buffer, origin: Origin): Checkpoint | undefined {
  if (!isSealed(bytes, CHECKPOINT, origin)) return undefined
  const sequence = readSafe(bytes, 48)
  if (sequence === undefined) return undefined
  return { sequence, place: bytes.readUInt32LE(56) }
}

/** What an entry writes in one column: a part of it. Several records, if it is not in one piece. */
export interface LogRecord {
  readonly entry: number
  /** In the column. */
  readonly offset: number
  readonly length: number
  /** The columns that the entry writes: {@link memberBits}. */
  readonly members: Buffer
  readonly isZeroes: boolean
}

/** A record that was found. `data`: undefined for zeroes. */
export interface FoundRecord extends LogRecord {
  readonly data: Buffer | undefined
  /** Has the data the checksum of the record? */
  readonly isWhole: boolean
}

export interface FoundBlock {
  readonly sequence: number
  /** Of the block in the ring. */
  readonly bytes: number
  readonly records: readonly FoundRecord[]
}

/** Columns as bits, for {@link LogRecord.members}. */
export function memberBits(columns: Iterable<number>): Buffer {
  const bits = Buffer.alloc(MEMBER_BYTES)
  for (const column of columns) {
    bits.writeUInt8(bits.readUInt8(column >> 3) | (1 << (column & 7)), column >> 3)
  }
  return bits
}

export function membersOf(bits: Buffer): number[] {
  const columns: number[] = []
  for (let column = 0; column < MEMBER_BYTES * 8; column++) {
    if (bits.readUInt8(column >> 3) & (1 << (column & 7))) columns.push(column)
  }
  return columns
}

/** The place of record `index` in the header of a block. */
export function encodeRecord(header: Buffer, index: number, record: LogRecord, crc: number): void {
  const at = SEALED_HEADER_BYTES + index * RECORD_BYTES
  writeSafe(header, record.entry, at)
  writeSafe(header, record.offset, at + 8)
  header.writeUInt32LE(record.length, at + 16)
  header.writeUInt32LE(crc, at + 20)
  record.members.copy(header, at + 24)
  header.writeUInt32LE(record.isZeroes ? 1 : 0, at + 40)
  header.writeUInt32LE(0, at + 44)
}

/** Seals a header whose records are there. */
export function sealHeader(
  header: Buffer,
  block: {
    readonly records: number
    readonly sequence: number
    readonly bytes: number
    readonly place: number
  },
  origin: Origin,
): void {
  header.fill(0, SEALED_HEADER_BYTES + block.records * RECORD_BYTES)
  header.fill(0, 36, SEALED_HEADER_BYTES)
  header.writeUInt32LE(block.records, 36)
  writeSafe(header, block.sequence, 40)
  header.writeUInt32LE(block.bytes, 48)
  header.writeUInt32LE(block.place, 52)
  seal(header, BLOCK, origin)
}

/**
 * The block at `place` of a ring that was read whole; undefined: there is none. Its header is whole then; each record says
 * whether its data is.
 */
export function decodeBlock(ring: Buffer, place: number, origin: Origin): FoundBlock | undefined {
  if (place < CIRCLE_START_BYTES || place + LOG_BLOCK_BYTES > ring.length) return undefined
  const header = ring.subarray(place, place + LOG_BLOCK_BYTES)
  if (!isSealed(header, BLOCK, origin)) return undefined
  const count = header.readUInt32LE(36)
  const sequence = readSafe(header, 40)
  const bytes = header.readUInt32LE(48)
  if (sequence === undefined || count > BLOCK_RECORDS || header.readUInt32LE(52) !== place)
    return undefined
  if (bytes % LOG_BLOCK_BYTES !== 0 || bytes === 0 || place + bytes > ring.length) return undefined
  const records: FoundRecord[] = []
  let at = place + LOG_BLOCK_BYTES
  for (let index = 0; index < count; index++) {
    const start = SEALED_HEADER_BYTES + index * RECORD_BYTES
    const entry = readSafe(header, start)
    const offset = readSafe(header, start + 8)
    const length = header.readUInt32LE(start + 16)
    if (entry === undefined || offset === undefined || length === 0) return undefined
    const members = Buffer.from(header.subarray(start + 24, start + 24 + MEMBER_BYTES))
    const isZeroes = header.readUInt32LE(start + 40) === 1
    const dataBytes = isZeroes ? 0 : length
    if (at + dataBytes > place + bytes) return undefined
    const data = isZeroes ? undefined : ring.subarray(at, at + length)
    const isWhole = !data || crc32c(data) === header.readUInt32LE(start + 20)
    records.push({ entry, offset, length, members, isZeroes, data, isWhole })
    at += dataBytes
  }
  return { sequence, bytes, records }
}
