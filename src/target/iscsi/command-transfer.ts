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
import { ASC, SENSE_KEY, sense } from '../scsi/sense.ts'
import { STATUS, TASK_ATTRIBUTE, type TaskAttribute } from '../scsi/task.ts'
import { CommandTask, type OutstandingR2t, WriteTransfer } from './command-task.ts'
import type { Connection } from './connection.ts'
import type { OpcodeHandler } from './opcode-table.ts'
import { admitRequest } from './requests.ts'
import { completeTask, startTask } from './response-transfer.ts'

/** A data segment came where none was announced, or more than announced (RFC 7143, 11.4.7.2). */
const UNEXPECTED_DATA = (): Buffer =>
  sense(SENSE_KEY.ABORTED_COMMAND, ASC.UNEXPECTED_UNSOLICITED_DATA)
const WRONG_AMOUNT = (): Buffer => sense(SENSE_KEY.ABORTED_COMMAND, ASC.NOT_ENOUGH_UNSOLICITED_DATA)
const DATA_CRC = (): Buffer => sense(SENSE_KEY.ABORTED_COMMAND, ASC.PROTOCOL_SERVICE_CRC_ERROR)

export const scsiCommand: OpcodeHandler = {
  name: 'SCSI Command',

  header(connection, bhs) {
    if (!admitRequest(connection, bhs)) return
    const session = connection.established
    const immediate = isImmediate(bhs)
    const refusal =
      session.nexus === undefined
        ? REJECT_REASON.PROTOCOL
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
      onComplete: completeTask,
    })
    if (flags & WRITE_BIT) task.startedMs = connection.host.clock.nowMs()
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
      if (dataDigestOk) execute(task)
      else task.check(DATA_CRC())
    } else {
      if (!dataDigestOk) transfer.failure ??= DATA_CRC()
      advance(connection, task, transfer)
    }
  },
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

/** Leases the whole transfer, and points the reader at it. */
function beginWrite(connection: Connection, task: CommandTask, bhs: Buffer): void {
  const session = connection.established
  const { parameters } = session
  const bytes = task.transferOutBytes
  if (!session.takeWrite(bytes)) {
    task.finish(STATUS.TASK_SET_FULL, undefined)
    return
  }
  const lease = connection.host.pool.lease(bytes)
  if (lease === undefined) {
    // The window is narrowing already; what came beyond it is to be sent again later (SAM-5, 5.3.1).
    session.returnWrite(bytes)
    task.finish(STATUS.TASK_SET_FULL, undefined)
    return
  }
  const immediateBytes = dataSegmentBytes(bhs)
  const most = Math.min(parameters.firstBurstBytes, task.expectedBytes)
  const transfer = new WriteTransfer(lease, !isFinal(bhs), most)
  task.transfer = transfer
  task.dataOut = lease
  transfer.unsolicitedOffset = immediateBytes
  if (immediateBytes > most) transfer.failure = UNEXPECTED_DATA()
  if (immediateBytes > 0) {
    connection.reader.into(lease.bytes, 0, Math.min(immediateBytes, lease.bytes.length))
  }
}

/** After each arrival: end a failed transfer, ask for more, or execute the task. */
function advance(connection: Connection, task: CommandTask, transfer: WriteTransfer): void {
  if (transfer.unsolicitedOpen) return
  if (transfer.failure !== undefined) {
    if (transfer.r2ts.length === 0) task.check(transfer.failure)
    return
  }
  if (transfer.solicitOffset < transfer.unsolicitedOffset) {
    transfer.solicitOffset = transfer.unsolicitedOffset
  }
  if (transfer.solicitOffset < task.transferOutBytes) solicit(connection, task, transfer)
  else if (transfer.r2ts.length === 0) execute(task)
}

function execute(task: CommandTask): void {
  const bytes = task.wantedReadBytes
  if (bytes > 0 && !task.connection.established.takeRead(task, bytes)) return
  startTask(task)
}

/** Sends R2Ts, in order, as many as may be outstanding (RFC 7143, 11.8). */
function solicit(connection: Connection, task: CommandTask, transfer: WriteTransfer): void {
  const session = connection.established
  const { maxOutstandingR2t, maxBurstBytes } = session.parameters
  const { writer } = connection
  while (
    transfer.r2ts.length < maxOutstandingR2t &&
    transfer.solicitOffset < task.transferOutBytes
  ) {
    const offset = transfer.solicitOffset
    const length = Math.min(maxBurstBytes, task.transferOutBytes - offset)
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
    connection.task = task
    const bytes = dataSegmentBytes(bhs)
    const offset = u32(bhs, 40)
    const tag = targetTransferTag(bhs)
    const solicited = tag !== RESERVED_TAG
    const r2t = solicited ? transfer.r2ts.find((r) => r.targetTransferTag === tag) : undefined
    const failure = solicited
      ? solicitedFault(r2t, offset, bytes, u32(bhs, 36))
      : unsolicitedFault(transfer, offset, bytes, u32(bhs, 36))
    if (failure !== undefined) {
      transfer.failure ??= failure
      return
    }
    const room = Math.max(0, transfer.lease.bytes.length - offset)
    if (bytes > 0 && room > 0) {
      connection.reader.into(transfer.lease.bytes, offset, Math.min(bytes, room))
    }
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
    if (task === undefined) {
      if (!dataDigestOk) connection.reject(REJECT_REASON.DATA_DIGEST, bhs)
      return
    }
    const { transfer } = task
    if (!dataDigestOk) connection.reject(REJECT_REASON.DATA_DIGEST, bhs)
    if (transfer === undefined || task.completed || task.aborted) {
      task.releaseTransfer()
      return
    }
    if (!dataDigestOk) transfer.failure ??= DATA_CRC()
    if (isFinal(bhs)) endSequence(transfer, targetTransferTag(bhs))
    else if (transfer.failure === undefined) return
    advance(connection, task, transfer)
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
  if (r2t !== undefined && r2t.offset !== r2t.end) transfer.failure ??= WRONG_AMOUNT()
}

function unsolicitedFault(
  transfer: WriteTransfer,
  offset: number,
  bytes: number,
  dataSn: number,
): Buffer | undefined {
  if (!transfer.unsolicitedOpen) return UNEXPECTED_DATA()
  if (offset + bytes > transfer.unsolicitedBytesMax) return UNEXPECTED_DATA()
  const inOrder = offset === transfer.unsolicitedOffset && dataSn === transfer.unsolicitedDataSn
  return inOrder ? undefined : WRONG_AMOUNT()
}

function solicitedFault(
  r2t: OutstandingR2t | undefined,
  offset: number,
  bytes: number,
  dataSn: number,
): Buffer | undefined {
  if (r2t === undefined) return UNEXPECTED_DATA()
  const inOrder = offset === r2t.offset && dataSn === r2t.dataSn
  return inOrder && offset + bytes <= r2t.end ? undefined : WRONG_AMOUNT()
}
