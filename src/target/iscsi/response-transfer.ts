/**
 * The result of a task as PDUs: Data-In, cut at the initiator's MaxRecvDataSegmentLength and at
 * MaxBurstLength, with the status in the last one where that is allowed (RFC 7143, 11.7), or a SCSI
 * Response with sense data (11.4). Called when a task completes.
 */
import { KIB } from '../../base/limits.ts'
import {
  FINAL_BIT,
  OPCODE,
  OVERFLOW_BIT,
  putHeader,
  putSequence,
  putU32,
  RESERVED_TAG,
  STATUS_BIT,
  UNDERFLOW_BIT,
} from '../../iscsi/pdu.ts'
import { STATUS, TASK_STATE } from '../scsi/task.ts'
import type { CommandTask } from './command-task.ts'
import type { Session } from './session.ts'

/** A lease whose bytes were all copied is free before they have left, where there are no more than these. */
const EARLY_RELEASE_BYTES_MAX = 8 * KIB

/** The result of a task stands. */
export function completeTask(task: CommandTask): void {
  const { connection } = task
  const session = connection.established
  if (session.tasks.get(task.tag) === task) forgetTask(session, task)
  if (task.aborted || connection.phase !== 'full-feature') {
    task.dataIn?.release()
    task.dataIn = undefined
  } else {
    session.openWindow()
    respond(session, task)
    connection.planFlush()
  }
  task.releaseTransfer()
  if (task.readBytes > 0) returnRead(session, task)
  session.fences.delete(task)
}

/** Its tag is free at once, even where a slow disk still holds its buffers. */
export function abortTask(task: CommandTask): void {
  const { connection, abortAnswer } = task
  const session = connection.established
  forgetTask(session, task)
  session.forgetRead(task)
  session.openWindow()
  if (abortAnswer && connection.phase === 'full-feature') {
    task.status = abortAnswer.status
    task.sense = abortAnswer.sense
    sendResponse(session, task, task.movedBytes - task.expectedBytes)
    connection.planFlush()
  }
  // Before and between pieces nobody but the transport has the buffer.
  if (task.state === TASK_STATE.RUNNING) {
    session.fences.add(task)
    return
  }
  task.releaseTransfer()
  if (task.readBytes > 0) returnRead(session, task)
}

/** The device has read a piece of a long READ: it is sent, and the next one starts when there is room. */
export function continueRead(task: CommandTask): void {
  const { connection } = task
  if (connection.phase === 'full-feature') {
    sendDataIn(connection.established, task, task.movedBytes - task.pieceBytes, task.pieceBytes)
    connection.planFlush()
  } else {
    task.dataIn?.release()
    task.dataIn = undefined
  }
  if (task.readBytes > 0) returnRead(connection.established, task)
  startTask(task)
}

/** Hands a task to the device server: with all the data of a piece, or with room for it. */
export function startTask(task: CommandTask): void {
  const session = task.connection.established
  if (task.leftToRead > 0 && !session.takeRead(task)) return
  execute(task)
}

function execute(task: CommandTask): void {
  task.connection.host.deviceServer.execute(task)
}

/** Gives back a read's part of the session's share, and starts the reads that waited for it. */
function returnRead(session: Session, task: CommandTask): void {
  const { readBytes } = task
  task.readBytes = 0
  session.returnRead(readBytes, execute)
}

/** The task has no response to come: its tag is free again, and the window counts it no more. */
function forgetTask(session: Session, task: CommandTask): void {
  session.tasks.delete(task.tag)
  if (task.immediate) session.immediateTasks--
}

function respond(session: Session, task: CommandTask): void {
  const good = task.status === STATUS.GOOD || task.status === STATUS.CONDITION_MET
  const wanted = good ? task.dataInBytes : task.movedBytes
  const bytes = task.direction === 'in' ? Math.min(wanted, task.expectedBytes) : 0
  const moved = task.direction === 'out' ? task.cdbTransferBytes : wanted
  const difference = moved - task.expectedBytes
  if (bytes === 0 || !good) {
    task.dataIn?.release()
    sendResponse(session, task, difference)
    return
  }
  sendDataIn(session, task, task.movedBytes, bytes - task.movedBytes, difference)
}

function residualFlags(difference: number): number {
  return difference > 0 ? OVERFLOW_BIT : difference < 0 ? UNDERFLOW_BIT : 0
}

/**
 * Data-In for `bytes` of the transfer from `from` on, which are at the start of the task's buffer. The last PDU carries the
 * status and the residual count `difference`; absent: more is to come.
 */
function sendDataIn(
  session: Session,
  task: CommandTask,
  from: number,
  bytes: number,
  difference?: number,
): void {
  const { writer } = task.connection
  const { sendSegmentBytes } = session
  const { maxBurstBytes } = session.parameters
  const lease = task.dataIn
  let copied = true
  let burst = 0
  for (let at = 0; at < bytes; ) {
    const length = Math.min(sendSegmentBytes, bytes - at, maxBurstBytes - burst)
    const ends = at + length === bytes
    const last = ends && difference !== undefined
    burst += length
    // The end of a piece ends the sequence, too: what comes next may be a response with sense data.
    const endsBurst = ends || burst === maxBurstBytes
    if (endsBurst) burst = 0
    const to = writer.begin()
    const header = writer.headerAt
    const flags = last
      ? FINAL_BIT | STATUS_BIT | residualFlags(difference)
      : endsBurst
        ? FINAL_BIT
        : 0
    putHeader(to, header, OPCODE.DATA_IN, flags, length, task.tag)
    putU32(to, header + 20, RESERVED_TAG)
    putSequence(to, header, session)
    putU32(to, header + 36, task.dataPdus++)
    putU32(to, header + 40, from + at)
    if (last) {
      to[header + 3] = task.status
      session.useStatSn()
      putU32(to, header + 44, Math.abs(difference))
    } else {
      // StatSN is reserved unless the PDU carries a status.
      putU32(to, header + 24, 0)
    }
    if (lease !== undefined) copied = writer.endWithLease(lease, at, length) && copied
    else writer.endWith(task.dataInBuffer as Buffer, at, length)
    at += length
  }
  if (lease === undefined) return
  task.dataIn = undefined
  // What was copied out of a long lease into many small PDUs is memory beside the pool: the lease stays until they
  // have left, so that the pool bounds what waits for an initiator that takes nothing.
  if (copied && bytes <= EARLY_RELEASE_BYTES_MAX) {
    lease.release()
    return
  }
  const { readBytes } = task
  task.readBytes = 0
  writer.release({
    bytes: lease.bytes,
    release() {
      lease.release()
      session.returnRead(readBytes, execute)
    },
  })
}

function sendResponse(session: Session, task: CommandTask, difference: number): void {
  const { writer } = task.connection
  const { sense } = task
  const senseBytes = sense === undefined ? 0 : sense.length + 2
  const to = writer.begin()
  const at = writer.headerAt
  const flags = FINAL_BIT | residualFlags(difference)
  putHeader(to, at, OPCODE.SCSI_RESPONSE, flags, senseBytes, task.tag)
  // Byte 2, the iSCSI response: 00, command completed at target.
  to[at + 3] = task.status
  putSequence(to, at, session)
  session.useStatSn()
  putU32(to, at + 36, task.dataPdus)
  putU32(to, at + 44, Math.abs(difference))
  if (sense === undefined) {
    writer.end()
    return
  }
  const segment = Buffer.allocUnsafe(senseBytes)
  segment.writeUInt16BE(sense.length, 0)
  sense.copy(segment, 2)
  writer.endWith(segment, 0, senseBytes)
}
