/**
 * Sense data (SPC-5, 4.5): the 18-byte fixed and the descriptor format, the sense keys and additional sense
 * codes that Plexus uses, and the one table from error kinds to sense data. Used by the device server, every
 * command handler and, for aborted transfers, the transport.
 *
 *   fixed       70h|71h VALID, -, key, information(4), length = 10, command-specific(4), ASC, ASCQ, FRU, SKS(3)
 *   descriptor  72h|73h, key, ASC, ASCQ, 0(3), length, descriptors: 00h information, 02h sense key specific
 */
import type { ErrorKind, PlexusError } from '../../base/errors.ts'
import type { IoOp } from '../../hal/block-device.ts'
import { STATUS, type Task } from './task.ts'
import type { AscCode } from './types.ts'

/** Sense keys (SPC-5, table 49). */
export const SENSE_KEY = {
  NO_SENSE: 0x0,
  RECOVERED_ERROR: 0x1,
  NOT_READY: 0x2,
  MEDIUM_ERROR: 0x3,
  HARDWARE_ERROR: 0x4,
  ILLEGAL_REQUEST: 0x5,
  UNIT_ATTENTION: 0x6,
  DATA_PROTECT: 0x7,
  ABORTED_COMMAND: 0xb,
  MISCOMPARE: 0xe,
} as const
export type SenseKey = (typeof SENSE_KEY)[keyof typeof SENSE_KEY]

/** Additional sense codes and qualifiers, ASC << 8 | ASCQ (SPC-5, annex F.2). */
export const ASC = {
  NO_ADDITIONAL_SENSE: 0x0000,
  IO_PROCESS_TERMINATED: 0x0006,
  NOT_READY_CAUSE_NOT_REPORTABLE: 0x0400,
  NOT_READY_INITIALIZING_COMMAND_REQUIRED: 0x0402,
  NOT_READY_MANUAL_INTERVENTION_REQUIRED: 0x0403,
  WRITE_ERROR: 0x0c00,
  UNEXPECTED_UNSOLICITED_DATA: 0x0c0c,
  NOT_ENOUGH_UNSOLICITED_DATA: 0x0c0d,
  INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT: 0x0e03,
  UNRECOVERED_READ_ERROR: 0x1100,
  READ_ERROR_LBA_MARKED_BAD: 0x1114,
  PARAMETER_LIST_LENGTH_ERROR: 0x1a00,
  MISCOMPARE_DURING_VERIFY: 0x1d00,
  INVALID_COMMAND_OPERATION_CODE: 0x2000,
  LBA_OUT_OF_RANGE: 0x2100,
  INVALID_FIELD_IN_CDB: 0x2400,
  LOGICAL_UNIT_NOT_SUPPORTED: 0x2500,
  INVALID_FIELD_IN_PARAMETER_LIST: 0x2600,
  WRITE_PROTECTED: 0x2700,
  SPACE_ALLOCATION_FAILED_WRITE_PROTECT: 0x2707,
  NOT_READY_TO_READY_CHANGE: 0x2800,
  POWER_ON_OR_RESET: 0x2900,
  SCSI_BUS_RESET: 0x2902,
  BUS_DEVICE_RESET_FUNCTION: 0x2903,
  MODE_PARAMETERS_CHANGED: 0x2a01,
  CAPACITY_DATA_HAS_CHANGED: 0x2a09,
  COMMANDS_CLEARED_BY_ANOTHER_INITIATOR: 0x2f00,
  COMMAND_TIMEOUT_DURING_PROCESSING: 0x2e02,
  THIN_PROVISIONING_SOFT_THRESHOLD_REACHED: 0x3807,
  SAVING_PARAMETERS_NOT_SUPPORTED: 0x3900,
  REPORTED_LUNS_DATA_HAS_CHANGED: 0x3f0e,
  INTERNAL_TARGET_FAILURE: 0x4400,
  PROTOCOL_SERVICE_CRC_ERROR: 0x4705,
  INVALID_MESSAGE_ERROR: 0x4900,
} as const

/** The sense key of sense data in either format. */
export function senseKeyOf(sense: Buffer | undefined): number | undefined {
  if (sense === undefined) return undefined
  const isDescriptor = (sense.readUInt8(0) & 0x7f) >= 0x72
  return sense.readUInt8(isDescriptor ? 1 : 2) & 0x0f
}

/** Where a field at fault begins: its byte, and its most significant bit where a single bit is meant. */
export interface FieldPointer {
  readonly byte: number
  readonly bit?: number
  /** The field is in the CDB (C/D = 1), not in the parameter data. */
  readonly inCdb: boolean
}

export interface SenseOptions {
  /** INFORMATION: an LBA or a byte offset, as the command says. Numbers must be exact (below 2^53). */
  readonly information?: number | bigint
  readonly fieldPointer?: FieldPointer
  /** Descriptor format (D_SENSE of the control mode page). */
  readonly descriptor?: boolean
  /** The error belongs to an earlier command that has ended with GOOD (SPC-5, 4.5.6). */
  readonly deferred?: boolean
}

const FIXED_BYTES = 18
const VALID = 0x80
const INFORMATION_DESCRIPTOR_BYTES = 12
const KEY_SPECIFIC_DESCRIPTOR_BYTES = 8

/** Sense data of either format. In the fixed format an INFORMATION above 32 bits is left out (VALID = 0). */
export function sense(key: SenseKey, asc: AscCode, options: SenseOptions = {}): Buffer {
  return options.descriptor ? descriptorSense(key, asc, options) : fixedSense(key, asc, options)
}

function fixedSense(key: SenseKey, asc: AscCode, options: SenseOptions): Buffer {
  const bytes = Buffer.alloc(FIXED_BYTES)
  bytes[0] = options.deferred ? 0x71 : 0x70
  bytes[2] = key
  bytes[7] = FIXED_BYTES - 8
  bytes.writeUInt16BE(asc, 12)
  if (options.information !== undefined && options.information <= 0xffffffff) {
    bytes[0] |= VALID
    bytes.writeUInt32BE(Number(options.information), 3)
  }
  if (options.fieldPointer) writeFieldPointer(bytes, 15, options.fieldPointer)
  return bytes
}

function descriptorSense(key: SenseKey, asc: AscCode, options: SenseOptions): Buffer {
  const informationBytes = options.information === undefined ? 0 : INFORMATION_DESCRIPTOR_BYTES
  const specificBytes = options.fieldPointer === undefined ? 0 : KEY_SPECIFIC_DESCRIPTOR_BYTES
  const bytes = Buffer.alloc(8 + informationBytes + specificBytes)
  bytes[0] = options.deferred ? 0x73 : 0x72
  bytes[1] = key
  bytes.writeUInt16BE(asc, 2)
  bytes[7] = bytes.length - 8
  if (options.information !== undefined) {
    bytes[8] = 0x00
    bytes[9] = INFORMATION_DESCRIPTOR_BYTES - 2
    bytes[10] = VALID
    bytes.writeBigUInt64BE(BigInt(options.information), 12)
  }
  if (options.fieldPointer) {
    const at = 8 + informationBytes
    bytes[at] = 0x02
    bytes[at + 1] = KEY_SPECIFIC_DESCRIPTOR_BYTES - 2
    writeFieldPointer(bytes, at + 4, options.fieldPointer)
  }
  return bytes
}

/** Field pointer sense key specific data (SPC-5, 4.5.2.4.2): SKSV, C/D, BPV, bit pointer, byte pointer. */
function writeFieldPointer(bytes: Buffer, at: number, pointer: FieldPointer): void {
  const bit = pointer.bit === undefined ? 0 : 0x08 | pointer.bit
  bytes[at] = 0x80 | (pointer.inCdb ? 0x40 : 0) | bit
  bytes.writeUInt16BE(pointer.byte, at + 1)
}

interface KeyAndCode {
  readonly key: SenseKey
  readonly asc: AscCode
}

const INTERNAL_FAILURE: KeyAndCode = {
  key: SENSE_KEY.HARDWARE_ERROR,
  asc: ASC.INTERNAL_TARGET_FAILURE,
}
const READ_ERROR: KeyAndCode = { key: SENSE_KEY.MEDIUM_ERROR, asc: ASC.UNRECOVERED_READ_ERROR }
const WRITE_ERROR: KeyAndCode = { key: SENSE_KEY.MEDIUM_ERROR, asc: ASC.WRITE_ERROR }

/** What an error means while data is read; for the kinds where writing differs see the next table. */
const SENSE_FOR_KIND: Readonly<Record<ErrorKind, KeyAndCode>> = {
  invalid: { key: SENSE_KEY.ILLEGAL_REQUEST, asc: ASC.INVALID_FIELD_IN_CDB },
  'not-found': INTERNAL_FAILURE,
  exists: INTERNAL_FAILURE,
  'in-use': INTERNAL_FAILURE,
  foreign: INTERNAL_FAILURE,
  permission: INTERNAL_FAILURE,
  // "Manual intervention required": the truth, and the one code of 02/04/xx for which Linux neither
  // spins the disk up for 100 seconds (04/00) nor retries without an end in sight (04/01).
  gone: { key: SENSE_KEY.NOT_READY, asc: ASC.NOT_READY_MANUAL_INTERVENTION_REQUIRED },
  io: READ_ERROR,
  'no-space': {
    key: SENSE_KEY.DATA_PROTECT,
    asc: ASC.SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
  },
  corrupt: READ_ERROR,
  // Aborted command makes every initiator try again, which is right for all three.
  timeout: { key: SENSE_KEY.ABORTED_COMMAND, asc: ASC.COMMAND_TIMEOUT_DURING_PROCESSING },
  unsupported: INTERNAL_FAILURE,
  aborted: { key: SENSE_KEY.ABORTED_COMMAND, asc: ASC.IO_PROCESS_TERMINATED },
  exhausted: { key: SENSE_KEY.ABORTED_COMMAND, asc: ASC.IO_PROCESS_TERMINATED },
  protocol: INTERNAL_FAILURE,
}

/** Kinds that mean something else when the medium was being changed. */
const SENSE_FOR_KIND_ON_WRITE: Readonly<Partial<Record<ErrorKind, KeyAndCode>>> = {
  io: WRITE_ERROR,
  corrupt: WRITE_ERROR,
  permission: { key: SENSE_KEY.DATA_PROTECT, asc: ASC.WRITE_PROTECTED },
}

/** Sense data for a failed operation of a device. */
export function senseForError(
  error: PlexusError,
  op: IoOp,
  options: Pick<SenseOptions, 'descriptor' | 'deferred' | 'information'> = {},
): Buffer {
  const onWrite = op === 'read' ? undefined : SENSE_FOR_KIND_ON_WRITE[error.kind]
  const { key, asc } = onWrite ?? SENSE_FOR_KIND[error.kind]
  return sense(key, asc, options)
}

/**
 * Ends a task whose operation failed. An exhausted limit of ours is TASK SET FULL, which makes initiators
 * lower their queue depth and try again; every other kind is a CHECK CONDITION. `badLba` is the first bad block
 * (INFORMATION), which a write of one block knows by itself.
 */
export function failTask(task: Task, error: PlexusError, op: IoOp, badLba?: number): void {
  if (error.kind === 'exhausted') {
    task.finish(STATUS.TASK_SET_FULL, undefined)
    return
  }
  const descriptor = usesDescriptorSense(task)
  const information = badLba ?? onlyBlockOfWrite(task, error, op)
  task.check(
    senseForError(
      error,
      op,
      information === undefined ? { descriptor } : { descriptor, information },
    ),
  )
}

/** It is the medium that failed, as opposed to its way or its device: key MEDIUM ERROR. */
export function isMediumError(error: PlexusError): boolean {
  return SENSE_FOR_KIND[error.kind].key === SENSE_KEY.MEDIUM_ERROR
}

/**
 * The bad block of a write that failed, where it has one block. Others do not know it, and are not tried again in smaller steps:
 * that could put old data over what another initiator has written since.
 */
function onlyBlockOfWrite(task: Task, error: PlexusError, op: IoOp): number | undefined {
  const blockBytes = task.unit?.blockBytes
  const isKnown =
    op === 'write' && error.op === 'write' && isMediumError(error) && task.rangeBytes === blockBytes
  return isKnown ? task.rangeOffset / task.rangeBytes : undefined
}

/** The control mode page of the task's unit asks for descriptor format sense data. */
export function usesDescriptorSense(task: Task): boolean {
  return task.mapping?.unit.mode.descriptorSense ?? false
}

/** CHECK CONDITION, ILLEGAL REQUEST, INVALID FIELD IN CDB at a byte, and a bit where one is meant. */
export function failCdbField(task: Task, byte: number, bit?: number): void {
  failField(task, ASC.INVALID_FIELD_IN_CDB, pointerAt(byte, bit, true))
}

/** CHECK CONDITION, ILLEGAL REQUEST, INVALID FIELD IN PARAMETER LIST at a byte. */
export function failParameterField(task: Task, byte: number, bit?: number): void {
  failField(task, ASC.INVALID_FIELD_IN_PARAMETER_LIST, pointerAt(byte, bit, false))
}

/** CHECK CONDITION with any key and code, in the format that the unit is set to. */
export function failWith(
  task: Task,
  key: SenseKey,
  asc: AscCode,
  information?: number | bigint,
): void {
  const descriptor = usesDescriptorSense(task)
  task.check(
    sense(key, asc, information === undefined ? { descriptor } : { descriptor, information }),
  )
}

/** ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE with the first block behind the end (SBC-4, 4.18.1). */
export function failLbaOutOfRange(task: Task, lba: number | bigint, capacityBlocks: number): void {
  const firstBad = typeof lba === 'bigint' ? lba : Math.max(lba, capacityBlocks)
  failWith(task, SENSE_KEY.ILLEGAL_REQUEST, ASC.LBA_OUT_OF_RANGE, firstBad)
}

function failField(task: Task, asc: AscCode, fieldPointer: FieldPointer): void {
  const descriptor = usesDescriptorSense(task)
  task.check(sense(SENSE_KEY.ILLEGAL_REQUEST, asc, { fieldPointer, descriptor }))
}

function pointerAt(byte: number, bit: number | undefined, inCdb: boolean): FieldPointer {
  return bit === undefined ? { byte, inCdb } : { byte, bit, inCdb }
}
