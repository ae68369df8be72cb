/**
 * The blocks of the map's journal (docs/on-disk-format.md), and which of those that are found count. Little-endian:
 *
 *   byte  size  field
 *      0     8  magic: `PLEXVJNL`
 *      8     4  version: 1
 *     12     4  CRC32C of the 4,096 bytes, this field taken as zero
 *     16    16  UUID of the device
 *     32     4  epoch of the copy
 *     36     4  records in this block: 0 to 168
 *     40     8  sequence: one more than that of the block before, from 1
 *     48     8  oldest: the first block that is still needed when this one counts
 *     56     2  index in its group
 *     58     2  blocks of its group: they count together or not at all
 *     60     4  zero
 *     64  4032  records of 24 bytes: chunk (8), valid granules (4 + 4), number (4), component (2), owner (2): the
 *               whole new entry of the chunk, so that applying it again does no harm
 *
 * One group is written at a time, and the next one begins when it is durable. So a power cut can tear the newest group
 * only, any part of it: which is why its blocks say how many there are. Pure.
 */
import { PlexusError } from '../../../base/errors.ts'
import {
  isSealed,
  type Origin,
  readSafe,
  SEALED_BYTES,
  SEALED_HEADER_BYTES,
  seal,
  writeSafe,
} from '../../metadata/sealed-block.ts'
import type { MapRecord } from '../runtime.ts'
import { LOST_BIT, ownerWord } from './page.ts'

export const JOURNAL_BLOCK_BYTES = SEALED_BYTES
const RECORD_BYTES = 24
/** Records of one block. */
export const BLOCK_RECORDS = (JOURNAL_BLOCK_BYTES - SEALED_HEADER_BYTES) / RECORD_BYTES
const MAGIC = Buffer.from('PLEXVJNL', 'latin1')

/** A block that is whole. */
export interface JournalBlock {
  readonly sequence: number
  readonly oldest: number
  /** First and last sequence of its group. */
  readonly groupFirst: number
  readonly groupLast: number
  readonly bytes: Buffer
}

/** Blocks of a group with so many records: one without any only says what is the oldest. */
export function blocksFor(records: number): number {
  return Math.max(1, Math.ceil(records / BLOCK_RECORDS))
}

/** Writes a group into the first {@link blocksFor} blocks of `into`; its first block gets sequence `first`. */
export function encodeBlocks(
  into: Buffer,
  records: readonly MapRecord[],
  origin: Origin,
  group: { readonly first: number; readonly oldest: number },
): void {
  const blocks = blocksFor(records.length)
  for (let index = 0; index < blocks; index++) {
    const at = index * JOURNAL_BLOCK_BYTES
    const bytes = into.subarray(at, at + JOURNAL_BLOCK_BYTES).fill(0)
    const part = records.slice(index * BLOCK_RECORDS, (index + 1) * BLOCK_RECORDS)
    bytes.writeUInt32LE(part.length, 36)
    writeSafe(bytes, group.first + index, 40)
    writeSafe(bytes, group.oldest, 48)
    bytes.writeUInt16LE(index, 56)
    bytes.writeUInt16LE(blocks, 58)
    for (const [place, record] of part.entries()) {
      const start = SEALED_HEADER_BYTES + place * RECORD_BYTES
      writeSafe(bytes, record.chunk, start)
      bytes.writeUInt32LE(record.validLow, start + 8)
      bytes.writeUInt32LE(record.validHigh, start + 12)
      bytes.writeUInt32LE(record.number, start + 16)
      bytes.writeUInt32LE(ownerWord(record), start + 20)
    }
    seal(bytes, MAGIC, origin)
  }
}

/** The same block for another copy. */
export function blockFor(block: JournalBlock, origin: Origin): Buffer {
  const bytes = Buffer.from(block.bytes)
  seal(bytes, MAGIC, origin)
  return bytes
}

/** undefined: it is damaged, or not of this copy. The block keeps `bytes`. */
export function decodeBlock(bytes: Buffer, origin: Origin): JournalBlock | undefined {
  if (!isSealed(bytes, MAGIC, origin) || bytes.readUInt32LE(36) > BLOCK_RECORDS) return undefined
  const sequence = readSafe(bytes, 40)
  const oldest = readSafe(bytes, 48)
  if (sequence === undefined || oldest === undefined || oldest > sequence) return undefined
  const groupFirst = sequence - bytes.readUInt16LE(56)
  const groupLast = groupFirst + bytes.readUInt16LE(58) - 1
  if (sequence > groupLast || oldest < 1) return undefined
  return { sequence, oldest, groupFirst, groupLast, bytes }
}

/** What a block says of its chunks, in order. */
export function recordsOf({ bytes }: JournalBlock): MapRecord[] {
  return Array.from({ length: bytes.readUInt32LE(36) }, (_, place) => {
    const start = SEALED_HEADER_BYTES + place * RECORD_BYTES
    return {
      chunk: readSafe(bytes, start) ?? Number.POSITIVE_INFINITY,
      validLow: bytes.readUInt32LE(start + 8),
      validHigh: bytes.readUInt32LE(start + 12),
      number: bytes.readUInt32LE(start + 16),
      component: bytes.readUInt16LE(start + 20),
      lost: bytes.readUInt32LE(start + 20) >= LOST_BIT,
    }
  })
}

/**
 * The blocks that are to be applied, in order: from the oldest that the newest one names, without a gap. `found`: all
 * blocks of all carriers, by sequence. A newest group that is not complete was torn, and does not count. Throws
 * `corrupt` when there is no block at all, or one is missing before the newest.
 */
export function replayable(
  found: ReadonlyMap<number, JournalBlock>,
  subject: string,
): readonly JournalBlock[] {
  let newest = found.get([...found.keys()].reduce((most, sequence) => Math.max(most, sequence), 0))
  if (newest && !isComplete(found, newest)) newest = found.get(newest.groupFirst - 1)
  if (!newest) {
    throw corrupt(subject, 'no copy of the journal of its map has a block that is whole')
  }
  const { oldest, sequence } = newest
  return Array.from({ length: sequence - oldest + 1 }, (_, index) => {
    const block = found.get(oldest + index)
    if (block) return block
    const what = `block ${oldest + index} of the journal of its map is damaged on every copy`
    throw corrupt(subject, `${what} (blocks ${oldest} to ${sequence} are needed)`)
  })
}

function isComplete(found: ReadonlyMap<number, JournalBlock>, block: JournalBlock): boolean {
  for (let at = block.groupFirst; at <= block.groupLast; at++) {
    const other = found.get(at)
    if (other?.groupFirst !== block.groupFirst || other.groupLast !== block.groupLast) return false
  }
  return true
}

/** The map on disk does not hold. */
export function corrupt(subject: string, what: string): PlexusError {
  const message = `${subject}: ${what}; restore the disks that carry the map, or the device from a backup`
  return new PlexusError('corrupt', { op: 'load', subject, message })
}
