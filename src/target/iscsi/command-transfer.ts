/**
 * SCSI Command and Data-Out PDUs (RFC 7143, 11.3 and 11.7) until a task has all of its data: the
 * destination is leased and chosen before the data arrives; immediate data, unsolicited Data-Out and the
 * answers to each R2T (11.8) land in it; only a complete task goes to the device server. Rows of
 * opcode-table.ts.
 */
import { IMMEDIATE_COMMANDS } from '../../base/limits.ts'
import {
  dataSegmentBytes,
  initiatorTaskTag,
  isFinal,
  isImmediate,
  OPCODE,
  putHeader,
  putSequence,
  putU32,
  READ_BIT,
  REJECT_REASON,
  RESERVED_TAG,
  serialAdd,
  targetTransferTag,
  u32,
  WRITE_BIT,
} from '../../iscsi/pdu.ts'
import { ASC, failWith, SENSE_KEY } from '../scsi/sense.ts'
import { STATUS, TASK_ATTRIBUTE, type TaskAttribute, type TaskEvents } from '../scsi/task.ts'
import type { AscCode } from '../scsi/types.ts'
import { CommandTask, type OutstandingR2t, WriteTransfer } from './command-task.ts'
import type { Connection } from './connection.ts'
import type { OpcodeHandler } from './opcode-table.ts'
import { admitRequest } from './requests.ts'
import { abortTask, completeTask, continueRead, startTask } from './response-transfer.ts'

/** How tasks of this transport end, or go on. */
const TASK_EVENTS: TaskEvents = {
  onComplete: (task) => completeTask(task as CommandTask),
  onAborted: (task) => abortTask(task as CommandTask),
  onPiece: (task) => {
    const { transfer } = task as CommandTask
    if (transfer) continueWrite(task as CommandTask, transfer)
    else continueRead(task as CommandTask)
  },
}

export const scsiCommand: OpcodeHandler = {
  name: 'SCSI Command',

  header(connection, bhs) {
    if (!admitRequest(connection, bhs)) return
    const session = connection.established
    const immediate = isImmediate(bhs)
    const refusal =
      session.nexus === undefined
        ? REJECT_REASON.PROTOCOL
        : initiatorTaskTag(bhs) === RESERVED_TAG
          ? REJECT_REASON.INVALID_FIELD
          : session.tasks.has(initiatorTaskTag(bhs))
            ? REJECT_REASON.TASK_IN_PROGRESS
            : immediate && session.immediateTasks >= IMMEDIATE_COMMANDS
              ? REJECT_REASON.IMMEDIATE_COMMANDS
              : commandFault(connection, bhs)
    if (refusal !== 0 || session.nexus === undefined) {
      connection.reject(refusal, bhs)
      return
    }
    const flags = bhs[1] as number
    const lunField = Buffer.allocUnsafe(24)
    bhs.copy(lunField, 0, 8, 16)
    bhs.copy(lunField, 8, 32, 48)
    const task = new CommandTask(connection, immediate, {
      nexus: session.nexus,
      lunField: lunField.subarray(0, 8),
      cdb: lunField.subarray(8, 24),
      attribute: Math.min(flags & 7, TASK_ATTRIBUTE.ACA) as TaskAttribute,
      tag: initiatorTaskTag(bhs),
      expectedBytes: u32(bhs, 20),
      direction: flags & WRITE_BIT ? 'out' : flags & READ_BIT ? 'in' : 'none',
      events: TASK_EVENTS,
    })
    session.tasks.set(task.tag, task)
    session.commands++
    if (immediate) session.immediateTasks++
    if (!connection.host.deviceServer.admit(task)) return
    connection.task = task
    if (task.transferOutBytes > 0) beginWrite(connection, task, bhs)
  },

  complete(connection, bhs, dataDigestOk) {
    const task = connection.task as CommandTask | undefined
    if (task === undefined) return
    connection.task = undefined
    const { transfer } = task
    if (!dataDigestOk) connection.reject(REJECT_REASON.DATA_DIGEST, bhs)
    if (task.completed || task.aborted) {
      task.releaseTransfer()
    } else if (transfer === undefined) {
      if (dataDigestOk) startTask(task)
      else failTransfer(task, ASC.PROTOCOL_SERVICE_CRC_ERROR)
    } else {
      connection.established.dataOutBytes += dataSegmentBytes(bhs)
      if (!dataDigestOk) transfer.failure ??= ASC.PROTOCOL_SERVICE_CRC_ERROR
      advance(task, transfer)
    }
  },
}

/** The Data-Out of a command is not what it should be: ABORTED COMMAND (RFC 7143, 11.4.7.2). */
function failTransfer(task: CommandTask, asc: AscCode): void {
  failWith(task, SENSE_KEY.ABORTED_COMMAND, asc)
}

/** What the protocol forbids in a SCSI Command PDU: a Reject reason, or 0. */
function commandFault(connection: Connection, bhs: Buffer): number {
  const flags = bhs[1] as number
  const { parameters } = connection.established
  const both = (flags & READ_BIT) !== 0 && (flags & WRITE_BIT) !== 0
  if (both) return REJECT_REASON.NOT_SUPPORTED
  const bytes = dataSegmentBytes(bhs)
  if (bytes > 0 && ((flags & WRITE_BIT) === 0 || !parameters.immediateData)) {
    return REJECT_REASON.PROTOCOL
  }
  // F = 0 announces unsolicited Data-Out PDUs, which InitialR2T=Yes forbids.
  if (!isFinal(bhs) && ((flags & WRITE_BIT) === 0 || parameters.initialR2t)) {
    return REJECT_REASON.PROTOCOL
  }
  return 0
}

/** Leases the transfer or its first piece, and points the reader at it. */
function beginWrite(connection: Connection, task: CommandTask, bhs: Buffer): void {
  const { parameters, writes } = connection.established
  const bytes = writes.take(task.transferOutBytes, task.command?.inPieces ?? false)
  const lease = bytes === 0 ? undefined : connection.host.pool.lease(bytes)
  if (lease === undefined) {
    // The window is narrowing already; what came beyond it is to be sent again later (SAM-5, 5.3.1).
    writes.giveBack(bytes)
    task.finish(STATUS.TASK_SET_FULL, undefined)
    return
  }
  const immediateBytes = dataSegmentBytes(bhs)
  const most = Math.min(parameters.firstBurstBytes, task.expectedBytes)
  const transfer = new WriteTransfer(lease, !isFinal(bhs), most)
  task.transfer = transfer
  task.dataOut = lease
  transfer.unsolicitedOffset = immediateBytes
  if (immediateBytes > most) transfer.failure = ASC.UNEXPECTED_UNSOLICITED_DATA
  transfer.receive(connection.reader, 0, immediateBytes)
}

/** After each arrival: end a failed transfer, ask for more, or execute the task. */
function advance(task: CommandTask, transfer: WriteTransfer): void {
  if (transfer.unsolicitedOpen) return
  if (transfer.failure !== undefined) {
    if (transfer.r2ts.length === 0) failTransfer(task, transfer.failure)
    return
  }
  if (transfer.solicitOffset < transfer.unsolicitedOffset) {
    transfer.solicitOffset = transfer.unsolicitedOffset
  }
  if (transfer.solicitOffset < transfer.end) solicit(task, transfer)
  else if (transfer.r2ts.length === 0) {
    task.pieceBytes = transfer.end - transfer.base
    startTask(task)
  }
}

/** The device has taken a piece of a write: on to the next one. */
function continueWrite(task: CommandTask, transfer: WriteTransfer): void {
  transfer.nextPiece(task.transferOutBytes)
  advance(task, transfer)
}

/** Sends R2Ts, in order, as many as may be outstanding (RFC 7143, 11.8). */
function solicit(task: CommandTask, transfer: WriteTransfer): void {
  const { connection } = task
  const session = connection.established
  const { maxOutstandingR2t, maxBurstBytes } = session.parameters
  const { writer } = connection
  while (transfer.r2ts.length < maxOutstandingR2t && transfer.solicitOffset < transfer.end) {
    const offset = transfer.solicitOffset
    const length = Math.min(maxBurstBytes, transfer.end - offset)
    const targetTransferTag = connection.newTag()
    transfer.r2ts.push({ targetTransferTag, offset, end: offset + length, dataSn: 0 })
    transfer.solicitOffset += length
    const to = writer.begin()
    const at = writer.headerAt
    putHeader(to, at, OPCODE.R2T, 0x80, 0, task.tag)
    task.lunField.copy(to, at + 8)
    putU32(to, at + 20, targetTransferTag)
    putSequence(to, at, session)
    putU32(to, at + 36, transfer.r2tSn)
    putU32(to, at + 40, offset)
    putU32(to, at + 44, length)
    transfer.r2tSn = serialAdd(transfer.r2tSn, 1)
    task.dataPdus++
    writer.end()
  }
  connection.planFlush()
}

export const dataOut: OpcodeHandler = {
  name: 'Data-Out',

  header(connection, bhs) {
    const task = connection.established.tasks.get(initiatorTaskTag(bhs))
    const transfer = task?.transfer
    // Data for a command that has ended meanwhile is on its way for a while: thrown away in silence.
    if (task === undefined || transfer === undefined || task.completed || task.aborted) return
    // The disk has the buffer: nothing that still comes may touch it, or end the task.
    if (task.executing) return
    const bytes = dataSegmentBytes(bhs)
    const offset = u32(bhs, 40)
    const tag = targetTransferTag(bhs)
    const solicited = tag !== RESERVED_TAG
    const r2t = solicited ? transfer.r2ts.find((r) => r.targetTransferTag === tag) : undefined
    if (solicited ? r2t === undefined : !transfer.unsolicitedOpen) {
      // Nobody asked for it, and what was asked for may never come: the command ends now.
      failTransfer(task, ASC.UNEXPECTED_UNSOLICITED_DATA)
      return
    }
    connection.task = task
    const failure = r2t
      ? solicitedFault(r2t, offset, bytes, u32(bhs, 36))
      : unsolicitedFault(transfer, offset, bytes, u32(bhs, 36))
    if (failure !== undefined) {
      transfer.failure ??= failure
      return
    }
    transfer.receive(connection.reader, offset, bytes)
    if (r2t === undefined) {
      transfer.unsolicitedOffset += bytes
      transfer.unsolicitedDataSn = serialAdd(transfer.unsolicitedDataSn, 1)
    } else {
      r2t.offset += bytes
      r2t.dataSn = serialAdd(r2t.dataSn, 1)
    }
  },

  complete(connection, bhs, dataDigestOk) {
    const task = connection.task as CommandTask | undefined
    connection.task = undefined
    if (!dataDigestOk) connection.reject(REJECT_REASON.DATA_DIGEST, bhs)
    if (task === undefined) return
    const { transfer } = task
    if (transfer === undefined || task.completed || task.aborted) {
      task.releaseTransfer()
      return
    }
    connection.established.dataOutBytes += dataSegmentBytes(bhs)
    if (!dataDigestOk) transfer.failure ??= ASC.PROTOCOL_SERVICE_CRC_ERROR
    if (isFinal(bhs)) endSequence(transfer, targetTransferTag(bhs))
    else if (transfer.failure === undefined) return
    advance(task, transfer)
  },
}

/** The F bit ends the unsolicited burst or one R2T's sequence, which must be complete then. */
function endSequence(transfer: WriteTransfer, tag: number): void {
  if (tag === RESERVED_TAG) {
    transfer.unsolicitedOpen = false
    return
  }
  const at = transfer.r2ts.findIndex((r) => r.targetTransferTag === tag)
  if (at < 0) return
  const [r2t] = transfer.r2ts.splice(at, 1)
  if (r2t !== undefined && r2t.offset !== r2t.end)
    transfer.failure ??= ASC.NOT_ENOUGH_UNSOLICITED_DATA
}

function unsolicitedFault(
  transfer: WriteTransfer,
  offset: number,
  bytes: number,
  dataSn: number,
): AscCode | undefined {
  if (offset + bytes > transfer.unsolicitedBytesMax) return ASC.UNEXPECTED_UNSOLICITED_DATA
  const inOrder = offset === transfer.unsolicitedOffset && dataSn === transfer.unsolicitedDataSn
  return inOrder ? undefined : ASC.NOT_ENOUGH_UNSOLICITED_DATA
}

function solicitedFault(
  r2t: OutstandingR2t,
  offset: number,
  bytes: number,
  dataSn: number,
): AscCode | undefined {
  const inOrder = offset === r2t.offset && dataSn === r2t.dataSn
  return inOrder && offset + bytes <= r2t.end ? undefined : ASC.NOT_ENOUGH_UNSOLICITED_DATA
}
