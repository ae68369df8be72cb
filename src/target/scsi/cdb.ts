/**
 * Fields of command descriptor blocks (SPC-5, 4.3; SBC-4, 5): the length of a CDB by its operation code's
 * group, and where block commands keep LBA, length and flags. Used by the device server and the medium commands.
 */

/** Bytes of a CDB by the operation code's upper three bits; 0 for groups that Plexus has no command in. */
const GROUP_BYTES = [6, 10, 10, 0, 16, 12, 0, 0] as const

/** Bytes of the CDB with this operation code, 0 for reserved, variable-length and vendor specific groups. */
export function cdbBytes(opcode: number): number {
  return GROUP_BYTES[opcode >> 5] ?? 0
}

/** The service action of commands that have one in byte 1. */
export function serviceActionOf(cdb: Buffer): number {
  return (cdb[1] as number) & 0x1f
}

/** A 64-bit field as a number where that is exact, as a bigint (always beyond any capacity) otherwise. */
function readUint64(bytes: Buffer, at: number): number | bigint {
  const high = bytes.readUInt32BE(at)
  if (high >= 0x200000) return bytes.readBigUInt64BE(at)
  return high * 0x100000000 + bytes.readUInt32BE(at + 4)
}

/** LOGICAL BLOCK ADDRESS of a 6, 10, 12 or 16-byte block command. */
export function lbaOf(cdb: Buffer): number | bigint {
  const group = (cdb[0] as number) >> 5
  if (group === 0) return cdb.readUInt32BE(0) & 0x1fffff
  return group === 4 ? readUint64(cdb, 2) : cdb.readUInt32BE(2)
}

/** TRANSFER LENGTH (or VERIFICATION LENGTH, NUMBER OF LOGICAL BLOCKS …), in blocks, as the field has it. */
export function lengthFieldOf(cdb: Buffer): number {
  const group = (cdb[0] as number) >> 5
  if (group === 0) return cdb[4] as number
  if (group === 4) return cdb.readUInt32BE(10)
  return group === 5 ? cdb.readUInt32BE(6) : cdb.readUInt16BE(7)
}

/** First byte of the length field, for field pointers. */
export function lengthFieldAt(cdb: Buffer): number {
  const group = (cdb[0] as number) >> 5
  if (group === 0) return 4
  if (group === 4) return 10
  return group === 5 ? 6 : 7
}

/** 64-bit LBA of an UNMAP block descriptor. */
export function lbaAt(bytes: Buffer, at: number): number | bigint {
  return readUint64(bytes, at)
}

/** DPO and FUA, byte 1 of 10, 12 and 16-byte reads and writes. DPO is advice and is ignored: there is no cache. */
export const DPO_FUA = 0x18
const FUA = 0x08

/** The write must be on the medium before GOOD: the FUA bit, which 6-byte commands do not have. */
export function hasFua(cdb: Buffer): boolean {
  return (cdb[0] as number) >= 0x20 && ((cdb[1] as number) & FUA) !== 0
}

/**
 * Usage masks of the block commands' four shapes: all bits of LBA and length, `flags` in byte 1. GROUP NUMBER is
 * accepted and has no effect (SBC-4, 4.22: GROUP_SUP = 0), as initiators and test suites send it.
 */
export function usage6(opcode: number): readonly number[] {
  return [opcode, 0x1f, 0xff, 0xff, 0xff, 0]
}
export function usage10(opcode: number, flags: number): readonly number[] {
  return [opcode, flags, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0]
}
export function usage12(opcode: number, flags: number): readonly number[] {
  return [opcode, flags, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0]
}
export function usage16(opcode: number, flags: number): readonly number[] {
  return [opcode, flags, ...new Array<number>(12).fill(0xff), 0x1f, 0]
}
