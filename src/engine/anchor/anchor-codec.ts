/**
 * Anchor and slot header as bytes: little-endian, CRC32C (docs/on-disk-format.md). Both begin alike, so that a
 * slot header says everything that the anchor says. Used by anchor-find.ts and anchored-device.ts. The front copy has the
 * form of an anchor without a commit: it is written at format and resize only.
 *
 *   byte  size  field
 *      0     8  magic: `PLEXUS::` anchor, `PLEXHEAD` front copy, `PLEXSLOT` slot header
 *      8     4  version: 2
 *     12     4  CRC32C of these 512 bytes, this field taken as zero
 *     16    16  UUID of the device
 *     32    16  UUID of the set that it belongs to
 *     48    16  class, ASCII, padded with zeroes
 *     64     4  logical block, bytes
 *     68     4  anchor: newest slot, 0 = A or 1 = B; slot header: which slot this is
 *     72     8  size of the medium, bytes
 *     80     8  generation: of the newest slot; of this slot
 *     88  8, 8  data: start, end
 *    104  8, 8  slot A: offset, length
 *    120  8, 8  slot B
 *    136  8, 8  journal
 *    152  8, 8  map
 *    168     4  slot header: length of the payload; anchor: zero
 *    172     4  CRC32C of the payload
 *    176    16  UUID of the line of commits
 *
 *   the rest of a slot header; of an anchor: zero
 *    192    28  the commit that this one is built on: generation, CRC32C of its payload, line; generation 0: none
 *    220    28  the last commit that was relied upon for certain; in the second copy: this one
 *    248   264  zero
 */
import { assert } from '../../base/assert.ts'
import type { ByteRange } from '../../base/bytes.ts'
import { crc32c } from '../../base/crc32c.ts'
import { PlexusError } from '../../base/errors.ts'
import { isUuid, uuidBytes, uuidText } from '../../base/random.ts'
import { PLEXUS_FRONT_MAGIC, PLEXUS_MAGIC } from '../../hal/signature-own.ts'
import {
  ANCHOR_BYTES,
  type Anchor,
  endOf,
  frontOf,
  payloadRoom,
  SLOT_HEADER_ROOM_BYTES,
} from './anchor-layout.ts'
import { type CommitId, isSameCommit } from './anchor-quorum.ts'

export const ANCHOR_VERSION = 2
/** What an anchor names before the first commit. */
export const NO_COMMIT: CommitId = {
  line: uuidText(Buffer.alloc(16)),
  generation: 0,
  payloadCrc: 0,
}
export const SLOT_MAGIC = Buffer.from('PLEXSLOT', 'latin1')
const CLASS_NAME_BYTES = 16
const LINE_AT = 176
const COMMITS_AT = { follows: 192, relied: 220 }
const RANGES_AT = { slotA: 104, slotB: 120, journal: 136, map: 152 }

export interface SlotHeader extends CommitId {
  /** Everything as the anchor of this commit has it. */
  readonly anchor: Anchor
  readonly payloadBytes: number
  readonly follows: CommitId | undefined
  readonly relied: CommitId | undefined
}

/** Is there an anchor, right or damaged? */
export function hasAnchorMagic(block: Buffer): boolean {
  return hasMagic(block, PLEXUS_MAGIC)
}

/** An anchor, a front copy or a slot header, right or damaged? */
export function hasOurMagic(block: Buffer): boolean {
  return [PLEXUS_MAGIC, PLEXUS_FRONT_MAGIC, SLOT_MAGIC].some((magic) => hasMagic(block, magic))
}

function hasMagic(block: Buffer, magic: Buffer): boolean {
  return block.subarray(0, magic.length).equals(magic)
}

/** Writes the anchor's 512 bytes to the head of `block` and zeroes the rest. */
export function encodeAnchor(anchor: Anchor, block: Buffer): void {
  encodeCommon(anchor, PLEXUS_MAGIC, block)
  seal(block)
}

/**
 * The anchor in a block, or undefined when there is none or its CRC or its content does not hold. Throws
 * `unsupported` for one of a newer version, whose CRC is right.
 */
export function decodeAnchor(block: Buffer, subject: string): Anchor | undefined {
  return decodeCommon(block, PLEXUS_MAGIC, subject)
}

/** As {@link encodeAnchor}, the front copy: everything but the commit. */
export function encodeFront(anchor: Anchor, block: Buffer): void {
  encodeCommon({ ...anchor, newestSlot: 0, ...NO_COMMIT }, PLEXUS_FRONT_MAGIC, block)
  seal(block)
}

/** As {@link decodeAnchor}; of generation 0. */
export function decodeFront(block: Buffer, subject: string): Anchor | undefined {
  return decodeCommon(block, PLEXUS_FRONT_MAGIC, subject)
}

/** Writes the header to `block`, the whole room of it. */
export function encodeSlotHeader(header: SlotHeader, block: Buffer): void {
  assert(isSameCommit(header, header.anchor), 'a slot has the commit of its anchor')
  assert(block.length === SLOT_HEADER_ROOM_BYTES, 'the room of a slot header')
  encodeCommon(header.anchor, SLOT_MAGIC, block)
  block.writeUInt32LE(header.payloadBytes, 168)
  writeCommit(block, header.follows, COMMITS_AT.follows)
  writeCommit(block, header.relied, COMMITS_AT.relied)
  seal(block)
}

/** As {@link decodeAnchor}. */
export function decodeSlotHeader(block: Buffer, subject: string): SlotHeader | undefined {
  const anchor = decodeCommon(block, SLOT_MAGIC, subject)
  if (!anchor) return undefined
  const payloadBytes = block.readUInt32LE(168)
  if (payloadBytes > payloadRoom(anchor.slots[anchor.newestSlot])) return undefined
  const { line, generation, payloadCrc } = anchor
  const follows = readCommit(block, COMMITS_AT.follows)
  const relied = readCommit(block, COMMITS_AT.relied)
  return { anchor, line, generation, payloadBytes, payloadCrc, follows, relied }
}

function encodeCommon(anchor: Anchor, magic: Buffer, block: Buffer): void {
  const { deviceUuid, setUuid, className } = anchor
  assert(isUuid(deviceUuid) && isUuid(setUuid), 'an anchor names its device and set')
  assert(/^[a-z0-9-]{1,16}$/.test(className), `a class name of 1 to 16 characters: ${className}`)
  block.fill(0)
  magic.copy(block, 0)
  block.writeUInt32LE(anchor.version, 8)
  uuidBytes(deviceUuid).copy(block, 16)
  uuidBytes(setUuid).copy(block, 32)
  block.write(className, 48, CLASS_NAME_BYTES, 'latin1')
  block.writeUInt32LE(anchor.blockBytes, 64)
  block.writeUInt32LE(anchor.newestSlot, 68)
  writeNumber(block, anchor.mediaBytes, 72)
  writeNumber(block, anchor.generation, 80)
  writeNumber(block, anchor.dataStartBytes, 88)
  writeNumber(block, anchor.dataEndBytes, 96)
  writeRange(block, anchor.slots[0], RANGES_AT.slotA)
  writeRange(block, anchor.slots[1], RANGES_AT.slotB)
  writeRange(block, anchor.journal, RANGES_AT.journal)
  writeRange(block, anchor.map, RANGES_AT.map)
  block.writeUInt32LE(anchor.payloadCrc, 172)
  uuidBytes(anchor.line).copy(block, LINE_AT)
}

function seal(block: Buffer): void {
  block.writeUInt32LE(crcOf(block), 12)
}

function crcOf(block: Buffer): number {
  const copy = Buffer.from(block.subarray(0, ANCHOR_BYTES))
  copy.writeUInt32LE(0, 12)
  return crc32c(copy)
}

function decodeCommon(block: Buffer, magic: Buffer, subject: string): Anchor | undefined {
  if (!hasMagic(block, magic)) return undefined
  if (block.readUInt32LE(12) !== crcOf(block)) return undefined
  const version = block.readUInt32LE(8)
  if (version > ANCHOR_VERSION) {
    const message =
      `${subject} has metadata of version ${version}; this Plexus knows version ${ANCHOR_VERSION}: ` +
      'use the newer Plexus that wrote it'
    throw new PlexusError('unsupported', { op: 'read', subject, message })
  }
  const slot = block.readUInt32LE(68)
  if (version !== ANCHOR_VERSION || slot > 1) return undefined
  const anchor: Anchor = {
    version,
    deviceUuid: uuidText(block.subarray(16, 32)),
    setUuid: uuidText(block.subarray(32, 48)),
    className: block.toString('latin1', 48, 48 + CLASS_NAME_BYTES).replace(/\0+$/, ''),
    blockBytes: block.readUInt32LE(64),
    newestSlot: slot === 0 ? 0 : 1,
    mediaBytes: readNumber(block, 72),
    generation: readNumber(block, 80),
    dataStartBytes: readNumber(block, 88),
    dataEndBytes: readNumber(block, 96),
    slots: [readRange(block, RANGES_AT.slotA), readRange(block, RANGES_AT.slotB)],
    journal: readRange(block, RANGES_AT.journal),
    map: readRange(block, RANGES_AT.map),
    payloadCrc: block.readUInt32LE(172),
    line: uuidText(block.subarray(LINE_AT, LINE_AT + 16)),
  }
  return isSound(anchor) ? anchor : undefined
}

/** Whatever the bytes said: the places lie on the medium, in whole blocks, and apart from each other. */
function isSound(anchor: Anchor): boolean {
  const { blockBytes, mediaBytes, dataStartBytes, dataEndBytes, generation } = anchor
  const data = { offset: dataStartBytes, length: dataEndBytes - dataStartBytes }
  const blocks = [frontOf(anchor), endOf(anchor)]
  const ranges = [data, ...anchor.slots, anchor.journal, anchor.map, ...blocks]
    .filter(({ length }) => length !== 0)
    .sort((a, b) => a.offset - b.offset)
  const areIn = ranges.every(
    ({ offset, length }) =>
      Number.isSafeInteger(offset) &&
      Number.isSafeInteger(length) &&
      offset >= 0 &&
      length > 0 &&
      offset + length <= mediaBytes &&
      offset % blockBytes === 0 &&
      length % blockBytes === 0,
  )
  const areApart = ranges.every((range, index) => {
    const next = ranges[index + 1]
    return !next || range.offset + range.length <= next.offset
  })
  return (
    [512, 1024, 2048, 4096].includes(blockBytes) &&
    Number.isSafeInteger(generation) &&
    anchor.slots.every((slot) => payloadRoom(slot) > 0) &&
    areIn &&
    areApart
  )
}

function writeCommit(block: Buffer, commit: CommitId | undefined, at: number): void {
  if (!commit) return
  writeNumber(block, commit.generation, at)
  block.writeUInt32LE(commit.payloadCrc, at + 8)
  uuidBytes(commit.line).copy(block, at + 12)
}

function readCommit(block: Buffer, at: number): CommitId | undefined {
  const generation = readNumber(block, at)
  if (generation === 0 || !Number.isSafeInteger(generation)) return undefined
  const line = uuidText(block.subarray(at + 12, at + 28))
  return { line, generation, payloadCrc: block.readUInt32LE(at + 8) }
}

function writeRange(block: Buffer, range: ByteRange, at: number): void {
  writeNumber(block, range.offset, at)
  writeNumber(block, range.length, at + 8)
}

function readRange(block: Buffer, at: number): ByteRange {
  return { offset: readNumber(block, at), length: readNumber(block, at + 8) }
}

function writeNumber(block: Buffer, value: number, at: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, `a whole number from 0: ${value}`)
  block.writeBigUInt64LE(BigInt(value), at)
}

/** Unsafe when it is larger than 2^53: the caller checks. */
function readNumber(block: Buffer, at: number): number {
  return Number(block.readBigUInt64LE(at))
}
