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
import { STATUS, type Task } from '../scsi/task.ts'
import type { CommandTask } from './command-task.ts'
import type { Session } from './session.ts'

/** A lease whose bytes were all copied is free before they have left, where there are no more than these. */
const EARLY_RELEASE_BYTES_MAX = 8 * KIB

/** Task.onComplete of every task of this transport. */
export function completeTask(done: Task): void {
  const task = done as CommandTask
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
  if (task.readBytes > 0) returnRead(session, task.readBytes)
}

/** Hands a task with all its data to the device server. */
export function startTask(task: CommandTask): void {
  task.executing = true
  task.connection.host.deviceServer.execute(task)
}

/** Gives back a read's part of the session's share, and starts the reads that waited for it. */
function returnRead(session: Session, bytes: number): void {
  let next = session.returnRead(bytes)
  while (next !== undefined) {
    startTask(next)
    next = session.returnRead(0)
  }
}

/** The task has no response to come: its tag is free again, and the window counts it no more. */
export function forgetTask(session: Session, task: CommandTask): void {
  session.tasks.delete(task.tag)
  if (task.immediate) session.immediateTasks--
}

/**
 * Tasks that task management has aborted never answer: their tags are free at once, even where a slow
 * disk still holds their buffers.
 */
export function sweepAborted(session: Session): void {
  for (const task of session.tasks.values()) {
    if (!task.aborted) continue
    forgetTask(session, task)
    // Before execution nobody but the transport has the buffer.
    if (!task.executing) task.releaseTransfer()
  }
  session.openWindow()
}

function respond(session: Session, task: CommandTask): void {
  const good = task.status === STATUS.GOOD || task.status === STATUS.CONDITION_MET
  const wanted = good ? task.dataInBytes : 0
  const bytes = task.direction === 'in' ? Math.min(wanted, task.expectedBytes) : 0
  const moved = task.direction === 'out' ? task.cdbTransferBytes : wanted
  const difference = moved - task.expectedBytes
  if (bytes === 0) {
    task.dataIn?.release()
    sendResponse(session, task, difference)
    return
  }
  sendDataIn(session, task, bytes, difference)
}

function residualFlags(difference: number): number {
  return difference > 0 ? OVERFLOW_BIT : difference < 0 ? UNDERFLOW_BIT : 0
}

function sendDataIn(session: Session, task: CommandTask, bytes: number, difference: number): void {
  const { writer } = task.connection
  const { sendSegmentBytes } = session
  const { maxBurstBytes } = session.parameters
  const lease = task.dataIn
  let copied = true
  let burst = 0
  for (let offset = 0; offset < bytes; ) {
    const length = Math.min(sendSegmentBytes, bytes - offset, maxBurstBytes - burst)
    const last = offset + length === bytes
    burst += length
    const endsBurst = last || burst === maxBurstBytes
    if (endsBurst) burst = 0
    const to = writer.begin()
    const at = writer.headerAt
    const flags = last
      ? FINAL_BIT | STATUS_BIT | residualFlags(difference)
      : endsBurst
        ? FINAL_BIT
        : 0
    putHeader(to, at, OPCODE.DATA_IN, flags, length, task.tag)
    putU32(to, at + 20, RESERVED_TAG)
    putSequence(to, at, session)
    putU32(to, at + 36, task.dataPdus++)
    putU32(to, at + 40, offset)
    if (last) {
      to[at + 3] = task.status
      session.useStatSn()
      putU32(to, at + 44, Math.abs(difference))
    } else {
      // StatSN is reserved unless the PDU carries a status.
      putU32(to, at + 24, 0)
    }
    if (lease !== undefined) copied = writer.endWithLease(lease, offset, length) && copied
    else writer.endWith(task.dataInBuffer as Buffer, offset, length)
    offset += length
  }
  if (lease === undefined) return
  task.dataIn = undefined
  // What was copied out of a long lease into many small PDUs is memory beside the pool: the lease stays until they
  // have left, so that the pool bounds what waits for an initiator that takes nothing.
  if (copied && bytes <= EARLY_RELEASE_BYTES_MAX) {
    lease.release()
    return
  }
  const readBytes = task.readBytes
  task.readBytes = 0
  writer.release({
    bytes: lease.bytes,
    release() {
      lease.release()
      returnRead(session, readBytes)
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
