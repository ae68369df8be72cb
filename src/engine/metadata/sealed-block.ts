/**
 * What the pages of the map and the blocks of its journal have in common (docs/on-disk-format.md): 4 KiB that begin with
 * magic, version, CRC32C over all of it, UUID of the device, and the epoch of the copy that they belong to. Whoever lays a
 * copy out anew gives it another epoch, so that nothing of an older one is ever taken for a part of it.
 */
import { assert } from '../../base/assert.ts'
import { crc32c } from '../../base/crc32c.ts'

export const SEALED_BYTES = 4096
/** In front of entries and records. */
export const SEALED_HEADER_BYTES = 64
export const SEALED_VERSION = 1
const CRC_AT = 12

/** What a block belongs to. */
export interface Origin {
  /** UUID of the device, 16 bytes. */
  readonly uuid: Buffer
  /** Of the copy: 1 to 2^32 - 1. */
  readonly epoch: number
}

/** Fills in what all blocks have; the rest is there already. */
export function seal(bytes: Buffer, magic: Buffer, { uuid, epoch }: Origin): void {
  assert(bytes.length === SEALED_BYTES, 'a block of the map is whole')
  magic.copy(bytes, 0)
  bytes.writeUInt32LE(SEALED_VERSION, 8)
  bytes.writeUInt32LE(0, CRC_AT)
  uuid.copy(bytes, 16)
  bytes.writeUInt32LE(epoch, 32)
  bytes.writeUInt32LE(crc32c(bytes), CRC_AT)
}

/** Is it whole, of this kind, and of this copy? */
export function isSealed(bytes: Buffer, magic: Buffer, { uuid, epoch }: Origin): boolean {
  if (bytes.length !== SEALED_BYTES || bytes.compare(magic, 0, 8, 0, 8) !== 0) return false
  if (bytes.readUInt32LE(8) !== SEALED_VERSION || bytes.readUInt32LE(32) !== epoch) return false
  if (bytes.compare(uuid, 0, 16, 16, 32) !== 0) return false
  const crc = bytes.readUInt32LE(CRC_AT)
  bytes.writeUInt32LE(0, CRC_AT)
  const sum = crc32c(bytes)
  bytes.writeUInt32LE(crc, CRC_AT)
  return sum === crc
}

/** A number of 64 bits that is exact in JavaScript: undefined where it is none. */
export function readSafe(bytes: Buffer, at: number): number | undefined {
  const value = bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32
  return Number.isSafeInteger(value) ? value : undefined
}

export function writeSafe(bytes: Buffer, value: number, at: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, `${value} is a number of 53 bits`)
  bytes.writeUInt32LE(value % 2 ** 32, at)
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4)
}
