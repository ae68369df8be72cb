/**
 * The layout of iSCSI PDUs (RFC 7143, 11): offsets, codes, and small functions that read a basic header
 * segment in place and write one into a buffer. No sockets, no state. Used by both ends of the protocol.
 *
 *   byte  0        1         2..3      4          5..7                8..15      16..19
 *        |.I|opcode| F| op-specific   |TotalAHS  |DataSegmentLength  |LUN or…   |initiator task tag
 *              4-byte words, so is TotalAHSLength ^       ^ bytes, without padding
 *   byte 20..47: opcode-specific; the fields are named at each writer below.
 */

export const BHS_BYTES = 48
export const DIGEST_BYTES = 4
/** TotalAHSLength counts up to 255 words. */
export const AHS_BYTES_MAX = 255 * 4
/** A tag that stands for none. */
export const RESERVED_TAG = 0xffffffff

export const OPCODE = {
  NOP_OUT: 0x00,
  SCSI_COMMAND: 0x01,
  TASK_MANAGEMENT: 0x02,
  LOGIN: 0x03,
  TEXT: 0x04,
  DATA_OUT: 0x05,
  LOGOUT: 0x06,
  SNACK: 0x10,
  NOP_IN: 0x20,
  SCSI_RESPONSE: 0x21,
  TASK_MANAGEMENT_RESPONSE: 0x22,
  LOGIN_RESPONSE: 0x23,
  TEXT_RESPONSE: 0x24,
  DATA_IN: 0x25,
  LOGOUT_RESPONSE: 0x26,
  R2T: 0x31,
  ASYNC_MESSAGE: 0x32,
  REJECT: 0x3f,
} as const

export const IMMEDIATE_BIT = 0x40
export const FINAL_BIT = 0x80
/** Text and login: the text goes on in the next PDU. */
export const CONTINUE_BIT = 0x40
/** SCSI command: data to the initiator, data to the target. */
export const READ_BIT = 0x40
export const WRITE_BIT = 0x20

/** Reject reasons (RFC 7143, 11.17.1). */
export const REJECT_REASON = {
  DATA_DIGEST: 0x02,
  SNACK: 0x03,
  PROTOCOL: 0x04,
  NOT_SUPPORTED: 0x05,
  IMMEDIATE_COMMANDS: 0x06,
  TASK_IN_PROGRESS: 0x07,
  INVALID_DATA_ACK: 0x08,
  INVALID_FIELD: 0x09,
  LONG_OPERATION: 0x0a,
  WAITING_FOR_LOGOUT: 0x0c,
} as const

/** Asynchronous message events (RFC 7143, 11.9.1). */
export const ASYNC_EVENT = {
  SCSI: 0,
  LOGOUT_REQUEST: 1,
  DROP_CONNECTION: 2,
  DROP_SESSION: 3,
} as const

/** Logout reasons and responses (RFC 7143, 11.14.1 and 11.15.1). */
export const LOGOUT_REASON = { SESSION: 0, CONNECTION: 1, RECOVERY: 2 } as const
export const LOGOUT_RESPONSE = { OK: 0, NO_CID: 1, NO_RECOVERY: 2, FAILED: 3 } as const

export function opcodeOf(bhs: Buffer): number {
  return (bhs[0] as number) & 0x3f
}

export function isImmediate(bhs: Buffer): boolean {
  return ((bhs[0] as number) & IMMEDIATE_BIT) !== 0
}

export function isFinal(bhs: Buffer): boolean {
  return ((bhs[1] as number) & FINAL_BIT) !== 0
}

/** Bytes of all additional header segments. */
export function ahsBytes(bhs: Buffer): number {
  return (bhs[4] as number) * 4
}

/** Bytes of the data segment, without padding. */
export function dataSegmentBytes(bhs: Buffer): number {
  return ((bhs[5] as number) << 16) | ((bhs[6] as number) << 8) | (bhs[7] as number)
}

/** Padding after `bytes` to the next multiple of four. */
export function padBytes(bytes: number): number {
  return -bytes & 3
}

export function u32(bytes: Buffer, at: number): number {
  return (
    (((bytes[at] as number) << 24) |
      ((bytes[at + 1] as number) << 16) |
      ((bytes[at + 2] as number) << 8) |
      (bytes[at + 3] as number)) >>>
    0
  )
}

export function putU32(bytes: Buffer, at: number, value: number): void {
  bytes[at] = value >>> 24
  bytes[at + 1] = value >>> 16
  bytes[at + 2] = value >>> 8
  bytes[at + 3] = value
}

export function putU24(bytes: Buffer, at: number, value: number): void {
  bytes[at] = value >>> 16
  bytes[at + 1] = value >>> 8
  bytes[at + 2] = value
}

export function initiatorTaskTag(bhs: Buffer): number {
  return u32(bhs, 16)
}

/** Target transfer tag of Data-Out, NOP-Out and Text; SNACK has it, too. */
export function targetTransferTag(bhs: Buffer): number {
  return u32(bhs, 20)
}

/** CmdSN of every request but Data-Out and SNACK. */
export function cmdSn(bhs: Buffer): number {
  return u32(bhs, 24)
}

// Serial number arithmetic on 32 bits (RFC 1982, as RFC 7143, 4.2.2.1 asks).

/** `a` comes before `b`. */
export function serialBefore(a: number, b: number): boolean {
  return ((a - b) | 0) < 0
}

export function serialAdd(a: number, n: number): number {
  return (a + n) >>> 0
}

/** Fields that nearly every PDU to the initiator carries: StatSN at 24, ExpCmdSN at 28, MaxCmdSN at 32. */
export interface Sequence {
  statSn: number
  expCmdSn: number
  maxCmdSn: number
}

/** Zeroes 48 bytes at `at` and writes what all PDUs share. */
export function putHeader(
  to: Buffer,
  at: number,
  opcode: number,
  flags: number,
  dataBytes: number,
  itt: number,
): void {
  to.fill(0, at, at + BHS_BYTES)
  to[at] = opcode
  to[at + 1] = flags
  putU24(to, at + 5, dataBytes)
  putU32(to, at + 16, itt)
}

export function putSequence(to: Buffer, at: number, sequence: Sequence): void {
  putU32(to, at + 24, sequence.statSn)
  putU32(to, at + 28, sequence.expCmdSn)
  putU32(to, at + 32, sequence.maxCmdSn)
}

/** Residual flags of SCSI Response and Data-In (RFC 7143, 11.4.5). */
export const OVERFLOW_BIT = 0x04
export const UNDERFLOW_BIT = 0x02
/** Data-In: this PDU carries the status, too (with F only). */
export const STATUS_BIT = 0x01
