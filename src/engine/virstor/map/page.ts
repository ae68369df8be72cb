/**
 * A page of the chunk map as it lies on disk (docs/on-disk-format.md): the entries of 252 chunks. Little-endian:
 *
 *   byte  size  field
 *      0     8  magic: `PLEXVMAP`
 *      8     4  version: 1
 *     12     4  CRC32C of the 4,096 bytes, this field taken as zero
 *     16    16  UUID of the device
 *     32     4  epoch of the copy
 *     36     4  number of the page
 *     40     8  sequence: all blocks of the journal up to this one are in it
 *     48    16  zero
 *     64  4032  entries of 16 bytes: valid granules 0 to 31 and 32 to 63 (4 + 4), number of the physical chunk (4),
 *               id of the component (2; 0: unallocated), owner (2; 0, but for {@link LOST_BIT})
 *
 * In memory a page is the same bytes as words of 32 bits, on the little-endian machines that Plexus runs on. Pure.
 */

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

export const MAP_PAGE_BYTES = SEALED_BYTES
export const ENTRY_BYTES = 16
/** Chunks of one page. */
export const PAGE_ENTRIES = (MAP_PAGE_BYTES - SEALED_HEADER_BYTES) / ENTRY_BYTES
/** A page, its header and an entry as words of 32 bits. */
export const PAGE_WORDS = MAP_PAGE_BYTES / 4
export const HEADER_WORDS = SEALED_HEADER_BYTES / 4
export const ENTRY_WORDS = ENTRY_BYTES / 4
/** Of the last word of an entry, component and owner: granules that are not valid are lost. */
export const LOST_BIT = 0x8000_0000
const MAGIC = Buffer.from('PLEXVMAP', 'latin1')

/** What the map says of a chunk. */
export type Entry = Omit<MapRecord, 'chunk'>

export const UNALLOCATED: Entry = {
  component: 0,
  number: 0,
  validLow: 0,
  validHigh: 0,
  lost: false,
}

export function isSameEntry(one: Entry, other: Entry): boolean {
  return (
    ownerWord(one) === ownerWord(other) &&
    one.number === other.number &&
    one.validLow === other.validLow &&
    one.validHigh === other.validHigh
  )
}

/** Pages for so many chunks. */
export function pagesFor(chunks: number): number {
  return Math.ceil(chunks / PAGE_ENTRIES)
}

/** Puts the header before the entries that are in `bytes`. */
export function sealPage(bytes: Buffer, origin: Origin, page: number, sequence: number): void {
  bytes.fill(0, 0, SEALED_HEADER_BYTES)
  bytes.writeUInt32LE(page, 36)
  writeSafe(bytes, sequence, 40)
  seal(bytes, MAGIC, origin)
}

/** The sequence of a page that is whole and the one asked for; undefined: it is damaged, or another one. */
export function decodePage(bytes: Buffer, origin: Origin, page: number): number | undefined {
  if (!isSealed(bytes, MAGIC, origin) || bytes.readUInt32LE(36) !== page) return undefined
  return readSafe(bytes, 40)
}

/** Byte of a page where an entry begins. */
export function entryAt(index: number): number {
  return SEALED_HEADER_BYTES + index * ENTRY_BYTES
}

/** The last word of an entry: its component, and whether what is not valid is lost. */
export function ownerWord({ component, lost }: Pick<Entry, 'component' | 'lost'>): number {
  return lost ? component + LOST_BIT : component
}

/** Puts an entry in its place; its owner is 0. */
export function writeEntry(bytes: Buffer, index: number, entry: Entry): void {
  const at = entryAt(index)
  bytes.writeUInt32LE(entry.validLow, at)
  bytes.writeUInt32LE(entry.validHigh, at + 4)
  bytes.writeUInt32LE(entry.number, at + 8)
  bytes.writeUInt32LE(ownerWord(entry), at + 12)
}

const NO_ENTRIES = Buffer.alloc(MAP_PAGE_BYTES)

/** Is none of its chunks allocated? */
export function isEmptyPage(bytes: Buffer): boolean {
  return bytes.compare(NO_ENTRIES, SEALED_HEADER_BYTES, undefined, SEALED_HEADER_BYTES) === 0
}
