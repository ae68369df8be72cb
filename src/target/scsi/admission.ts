/**
 * The checks of a task before its handler sees it, in the order of their precedence, which is that of the tables below.
 * SAM-5, 5.3.3: of several conditions a unit attention 29/xx is reported first, then RESERVATION CONFLICT, then every other
 * CHECK CONDITION; ILLEGAL REQUEST may come in any place. Two moments: `admitTask` when the command arrives, before
 * its Data-Out is fetched, and `checkUnitState` again when the task starts, for what may change in between. A
 * check that fails completes the task. Called by device-server.ts and logical-unit.ts.
 *
 * When the initiator's expected data transfer length (EDTL) is not what the CDB asks for:
 * - Data-In: the command runs, the transport sends what fits; residual count.
 * - Data-Out, EDTL larger: the CDB's amount is taken; residual. Commands whose Data-Out has one right size refuse (`exact`).
 * - Data-Out, EDTL smaller: WRITE and WRITE AND VERIFY take the whole blocks that are there (`whole-blocks`) and end with
 *   GOOD and a residual overflow, which tells the initiator what was left out: what libiscsi's suite demands of
 *   a target. A part of a block, and everything short for all others, is refused with 05/0E/03.
 * - Data for the other direction, of which something is expected: refused with 05/0E/03.
 */
import { LARGE_TRANSFER_BYTES, MAX_TRANSFER_BYTES } from '../../base/limits.ts'
import { hasServiceActions } from './command-table.ts'
import {
  ASC,
  type FieldPointer,
  failLbaOutOfRange,
  failWith,
  SENSE_KEY,
  sense,
  senseForError,
  usesDescriptorSense,
} from './sense.ts'
import { STATUS, TASK_ATTRIBUTE, type Task } from './task.ts'
import { informationOf } from './thresholds.ts'
import type { LogicalUnit, ScsiCommand } from './types.ts'
import { tellUnitAttention } from './unit-attention.ts'

/** Byte 1 of a CDB with a service action: the usage mask has the action's value there, all its bits count. */
const SERVICE_ACTION_BITS = 0x1f

type Check = (task: Task, command: ScsiCommand, unit: LogicalUnit) => boolean

/** After the LUN, unit attentions 29/xx and the operation code: what a command must pass to be admitted. */
const ON_ARRIVAL: readonly Check[] = [
  checkReservation,
  reportPending,
  checkFields,
  sizeTransfer,
  checkWriteProtect,
  checkReady,
  findRange,
]

/** What may have changed since: reservation, protection, the medium and its size. */
const ON_START: readonly Check[] = [
  checkReservation,
  checkWriteProtect,
  checkReady,
  checkRangeAgain,
]

/** True: the task may fetch its Data-Out. False: it is complete. `command` is what the table has for its CDB. */
export function admitTask(
  task: Task,
  command: ScsiCommand | undefined,
  unit: LogicalUnit,
): command is ScsiCommand {
  if (task.mapping === undefined && !command?.allow.noUnit) {
    return refuse(task, ASC.LOGICAL_UNIT_NOT_SUPPORTED)
  }
  return (
    reportReset(task, command, unit) &&
    checkCommand(task, command, unit) &&
    passes(ON_ARRIVAL, task, command, unit)
  )
}

/** The checks again that depend on what may have changed since the task was admitted. */
export function checkUnitState(task: Task, command: ScsiCommand, unit: LogicalUnit): boolean {
  return passes(ON_START, task, command, unit)
}

function passes(
  checks: readonly Check[],
  task: Task,
  command: ScsiCommand,
  unit: LogicalUnit,
): boolean {
  for (const check of checks) if (!check(task, command, unit)) return false
  return true
}

function refuse(task: Task, asc: number): false {
  failWith(task, SENSE_KEY.ILLEGAL_REQUEST, asc)
  return false
}

function refuseField(task: Task, fieldPointer: FieldPointer): false {
  const descriptor = usesDescriptorSense(task)
  task.check(
    sense(SENSE_KEY.ILLEGAL_REQUEST, ASC.INVALID_FIELD_IN_CDB, { fieldPointer, descriptor }),
  )
  return false
}

/** Power on and resets take the place of every command's own result, once; also of one that does not exist. */
function reportReset(task: Task, command: ScsiCommand | undefined, unit: LogicalUnit): boolean {
  if (command?.allow.unitAttention) return true
  const attention = unit.takeResetAttention(task.nexus)
  if (attention === undefined) return true
  failWith(task, SENSE_KEY.UNIT_ATTENTION, attention)
  return false
}

/** The table has the command for this unit, and the CDB has its length. */
function checkCommand(
  task: Task,
  command: ScsiCommand | undefined,
  unit: LogicalUnit,
): command is ScsiCommand {
  if (command === undefined) {
    return hasServiceActions(task.cdb[0] as number)
      ? refuseField(task, { byte: 1, bit: 4, inCdb: true })
      : refuse(task, ASC.INVALID_COMMAND_OPERATION_CODE)
  }
  if (command.available && !command.available(unit)) {
    return refuse(task, ASC.INVALID_COMMAND_OPERATION_CODE)
  }
  if (task.cdb.length < command.cdbUsage.length) {
    return refuse(task, ASC.INVALID_FIELD_IN_CDB)
  }
  if (task.attribute === TASK_ATTRIBUTE.ACA) return refuse(task, ASC.INVALID_MESSAGE_ERROR)
  return true
}

/** A deferred error or a unit attention takes the place of the command's own result, once. */
function reportPending(task: Task, command: ScsiCommand, unit: LogicalUnit): boolean {
  if (command.allow.unitAttention) return true
  const deferred = unit.takeDeferredError(task.nexus)
  if (deferred) {
    const descriptor = usesDescriptorSense(task)
    task.check(senseForError(deferred.error, deferred.op, { descriptor, deferred: true }))
    return false
  }
  const attention = tellUnitAttention(unit, task.nexus)
  if (attention === undefined) return true
  const options = { descriptor: usesDescriptorSense(task), ...informationOf(attention) }
  task.check(sense(SENSE_KEY.UNIT_ATTENTION, attention, options))
  return false
}

function checkReservation(task: Task, command: ScsiCommand, unit: LogicalUnit): boolean {
  const holder = unit.reservations.holder
  if (holder === undefined || holder === task.nexus || command.allow.reserved) return true
  task.finish(STATUS.RESERVATION_CONFLICT, undefined)
  return false
}

function checkFields(task: Task, command: ScsiCommand, unit: LogicalUnit): boolean {
  const cdb = task.cdb
  const usage = command.cdbUsage
  for (let byte = 1; byte < usage.length; byte++) {
    let allowed = usage[byte] as number
    if (byte === 1 && command.serviceAction !== undefined) allowed |= SERVICE_ACTION_BITS
    const wrong = (cdb[byte] as number) & ~allowed
    if (wrong !== 0) return refuseField(task, { byte, bit: 31 - Math.clz32(wrong), inCdb: true })
  }
  const field = command.invalidField?.(cdb, unit)
  return field === undefined || refuseField(task, field)
}

function sizeTransfer(task: Task, command: ScsiCommand, unit: LogicalUnit): boolean {
  if (command.data === 'in' && task.direction === 'out' && task.expectedBytes > 0) {
    return refuse(task, ASC.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT)
  }
  if (!command.dataOutBytes) return true
  const offered = task.direction === 'out' ? task.expectedBytes : 0
  const wanted = command.dataOutBytes(task.cdb, unit, offered)
  task.cdbTransferBytes = wanted
  if (wanted === 0) {
    // A length of zero with data beside it: CDB and initiator contradict each other.
    if (offered === 0 || command.dataOutFit !== 'always-exact') return true
    return refuse(task, ASC.INVALID_FIELD_IN_CDB)
  }
  if (wanted > (command.inPieces ? LARGE_TRANSFER_BYTES : MAX_TRANSFER_BYTES)) {
    return refuse(task, ASC.INVALID_FIELD_IN_CDB)
  }
  const isRead = task.direction === 'in' && task.expectedBytes > 0
  const fit = command.dataOutFit ?? 'at-least'
  const tooShort = offered < wanted && (fit !== 'whole-blocks' || offered % unit.blockBytes !== 0)
  const tooLong = offered > wanted && (fit === 'exact' || fit === 'always-exact')
  if (isRead || tooShort || tooLong) {
    return refuse(task, ASC.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT)
  }
  task.transferOutBytes = Math.min(offered, wanted)
  return true
}

function checkWriteProtect(task: Task, command: ScsiCommand, unit: LogicalUnit): boolean {
  const isProtected = command.writes
    ? task.mapping?.readOnly || unit.mode.softwareWriteProtect || unit.device?.features.readOnly
    : task.mapping?.readOnly && command.changesUnit?.(task.cdb, unit)
  if (!isProtected) return true
  failWith(task, SENSE_KEY.DATA_PROTECT, ASC.WRITE_PROTECTED)
  return false
}

function checkReady(task: Task, command: ScsiCommand, unit: LogicalUnit): boolean {
  if (command.allow.notReady) return true
  if (unit.device === undefined) {
    failWith(task, SENSE_KEY.NOT_READY, ASC.NOT_READY_MANUAL_INTERVENTION_REQUIRED)
    return false
  }
  if (unit.stopped && !command.allow.stopped) {
    failWith(task, SENSE_KEY.NOT_READY, ASC.NOT_READY_INITIALIZING_COMMAND_REQUIRED)
    return false
  }
  return true
}

/** Checks the blocks against the capacity and notes them in the task as bytes. */
function findRange(task: Task, command: ScsiCommand, unit: LogicalUnit): boolean {
  if (!command.range) return true
  const { lba, blocks } = command.range(task.cdb, unit)
  // An LBA beyond 2^53 comes as a bigint; no capacity reaches that far. `blocks` is below 2^53 and compared
  // without a sum, which could be inexact.
  if (typeof lba === 'bigint' || blocks > unit.blocks - lba) {
    failLbaOutOfRange(task, lba, unit.blocks)
    return false
  }
  task.rangeOffset = lba * unit.blockBytes
  task.rangeBytes = blocks * unit.blockBytes
  task.rangeWrites = command.writes ?? false
  return true
}

function checkRangeAgain(task: Task, _command: ScsiCommand, unit: LogicalUnit): boolean {
  const endBytes = task.rangeOffset + task.rangeBytes
  if (task.rangeOffset < 0 || endBytes <= unit.blocks * unit.blockBytes) return true
  failLbaOutOfRange(task, 0, unit.blocks)
  return false
}
