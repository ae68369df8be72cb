/**
 * NOP-Out, Text, Task Management and Logout requests (RFC 7143, 11.18, 11.10, 11.5, 11.14) in the full
 * feature phase. Rows of opcode-table.ts.
 */
import { PlexusError } from '../../base/errors.ts'
import { TEXT_ANSWER_BYTES } from '../../base/limits.ts'
import {
  CONTINUE_BIT,
  dataSegmentBytes,
  FINAL_BIT,
  initiatorTaskTag,
  isFinal,
  LOGOUT_REASON,
  LOGOUT_RESPONSE,
  OPCODE,
  putHeader,
  putSequence,
  putU32,
  REJECT_REASON,
  RESERVED_TAG,
  targetTransferTag,
  u32,
} from '../../iscsi/pdu.ts'
import { TASK_MANAGEMENT, TASK_MANAGEMENT_RESPONSE } from '../scsi/types.ts'
import type { Connection } from './connection.ts'
import type { OpcodeHandler } from './opcode-table.ts'
import { handleText } from './text-request.ts'

/** Counts the request's CmdSN. False: the request is to be ignored, or the session cannot go on. */
export function admitRequest(connection: Connection, bhs: Buffer): boolean {
  const admission = connection.established.admit(bhs)
  if (admission === 'gap') {
    // With one connection and no recovery, requests come in order; a hole cannot be filled any more.
    connection.fail('a request skipped a CmdSN')
  }
  return admission === 'accept'
}

/** The common form of the four: keep the data, and act once it is there and right. */
function keepingData(
  name: string,
  act: (connection: Connection, bhs: Buffer, data: Buffer) => void,
  needsTag = true,
): OpcodeHandler {
  return {
    name,
    header(connection, bhs) {
      connection.keepData(dataSegmentBytes(bhs))
    },
    complete(connection, bhs, dataDigestOk) {
      const data = connection.data ?? Buffer.alloc(0)
      if (!dataDigestOk) {
        connection.reject(REJECT_REASON.DATA_DIGEST, bhs)
        return
      }
      if (needsTag && initiatorTaskTag(bhs) === RESERVED_TAG) {
        connection.reject(REJECT_REASON.INVALID_FIELD, bhs)
        return
      }
      act(connection, bhs, data)
    },
  }
}

export const nopOut = keepingData(
  'NOP-Out',
  (connection, bhs, data) => {
    const itt = initiatorTaskTag(bhs)
    if (itt === RESERVED_TAG) {
      // An answer to our NOP-In, or a sign of life that wants none. It uses no CmdSN.
      return
    }
    if (!admitRequest(connection, bhs)) return
    const session = connection.established
    const { writer } = connection
    const bytes = Math.min(data.length, session.sendSegmentBytes)
    const to = writer.begin()
    const at = writer.headerAt
    putHeader(to, at, OPCODE.NOP_IN, FINAL_BIT, bytes, itt)
    bhs.copy(to, at + 8, 8, 16)
    putU32(to, at + 20, RESERVED_TAG)
    putSequence(to, at, session)
    session.useStatSn()
    writer.endWith(data, 0, bytes)
    connection.planFlush()
  },
  false,
)

export const taskManagement = keepingData('Task Management', (connection, bhs) => {
  if (!admitRequest(connection, bhs)) return
  const session = connection.established
  const itt = initiatorTaskTag(bhs)
  const fn = (bhs[1] as number) & 0x7f
  const response = session.nexus
    ? connection.host.deviceServer.manage(fn, session.nexus, bhs.subarray(8, 16), u32(bhs, 20))
    : TASK_MANAGEMENT_RESPONSE.REJECTED
  const { writer } = connection
  const to = writer.begin()
  const at = writer.headerAt
  putHeader(to, at, OPCODE.TASK_MANAGEMENT_RESPONSE, FINAL_BIT, 0, itt)
  to[at + 2] = response
  session.openWindow()
  putSequence(to, at, session)
  session.useStatSn()
  writer.end()
  connection.planFlush()
  const cold = fn === TASK_MANAGEMENT.TARGET_COLD_RESET
  if (cold && response === TASK_MANAGEMENT_RESPONSE.COMPLETE) {
    // RFC 7143, 11.5.1: a cold reset ends all sessions of the target; ours after the response.
    connection.host.endSessions(session.target, 'target cold reset')
  }
})

export const text = keepingData('Text', (connection, bhs, data) => {
  if (!admitRequest(connection, bhs)) return
  const session = connection.established
  const flags = bhs[1] as number
  const tag = targetTransferTag(bhs)
  if (tag !== RESERVED_TAG && (tag !== connection.textTag || connection.textTag === 0)) {
    connection.reject(REJECT_REASON.INVALID_FIELD, bhs)
    return
  }
  if (tag === RESERVED_TAG) {
    // A new exchange ends one that was not finished (RFC 7143, 11.10.4).
    connection.textIn.take()
    connection.textRest = undefined
  }
  if (connection.textRest !== undefined) {
    answerText(connection, bhs, connection.textRest)
    return
  }
  const continued = (flags & CONTINUE_BIT) !== 0
  const problem = gatherText(connection, data, continued, isFinal(bhs))
  if (problem !== undefined) {
    connection.textIn.take()
    connection.complain({ event: 'text', why: problem }, 'a text request was refused')
    connection.reject(REJECT_REASON.PROTOCOL, bhs)
    return
  }
  if (continued) {
    // More text is to come: an empty answer that gives the tag for it.
    answerText(connection, bhs, undefined)
    return
  }
  const request = connection.textIn.take()
  const answer = handleText({
    text: request,
    sessionType: session.target === undefined ? 'discovery' : 'normal',
    target: session.target,
    initiatorName: session.initiatorName,
    registry: connection.host.registry,
    portalGroup: connection.group,
    localAddress: connection.stream.localAddress,
    localPort: connection.stream.localPort,
  })
  if ('rejectReason' in answer) {
    connection.complain({ event: 'text', why: answer.why }, 'a text request was refused')
    connection.reject(answer.rejectReason, bhs)
    return
  }
  if (answer.newSendSegmentBytes !== undefined) {
    session.sendSegmentBytes = answer.newSendSegmentBytes
  }
  answerText(connection, bhs, answer.text)
})

/** Keeps one PDU's text; what is wrong with it, or undefined. */
function gatherText(
  connection: Connection,
  data: Buffer,
  continued: boolean,
  final: boolean,
): string | undefined {
  if (continued && final) return 'a Text request has the F and the C bit set'
  try {
    connection.textIn.add(data, continued)
    return undefined
  } catch (error) {
    if (!(error instanceof PlexusError)) throw error
    return error.message
  }
}

/** One Text response with as much of `rest` as fits; undefined: the initiator's text goes on. */
function answerText(connection: Connection, bhs: Buffer, rest: Buffer | undefined): void {
  const session = connection.established
  const limit = Math.min(session.sendSegmentBytes, TEXT_ANSWER_BYTES)
  const part = rest === undefined ? Buffer.alloc(0) : rest.subarray(0, limit)
  const left = rest === undefined ? undefined : rest.subarray(part.length)
  const more = left !== undefined && left.length > 0
  const open = more || left === undefined
  connection.textRest = more ? left : undefined
  connection.textTag = open ? connection.newTag() : 0
  const { writer } = connection
  const to = writer.begin()
  const at = writer.headerAt
  const flags = open ? (more ? CONTINUE_BIT : 0) : FINAL_BIT
  putHeader(to, at, OPCODE.TEXT_RESPONSE, flags, part.length, initiatorTaskTag(bhs))
  bhs.copy(to, at + 8, 8, 16)
  putU32(to, at + 20, open ? connection.textTag : RESERVED_TAG)
  putSequence(to, at, session)
  session.useStatSn()
  writer.endWith(part, 0, part.length)
  connection.planFlush()
}

export const logout = keepingData('Logout', (connection, bhs) => {
  if (!admitRequest(connection, bhs)) return
  const session = connection.established
  const reason = (bhs[1] as number) & 0x7f
  const cid = bhs.readUInt16BE(20)
  const response =
    reason === LOGOUT_REASON.SESSION
      ? LOGOUT_RESPONSE.OK
      : reason === LOGOUT_REASON.CONNECTION
        ? cid === connection.cid
          ? LOGOUT_RESPONSE.OK
          : LOGOUT_RESPONSE.NO_CID
        : LOGOUT_RESPONSE.NO_RECOVERY
  const { writer } = connection
  const to = writer.begin()
  const at = writer.headerAt
  putHeader(to, at, OPCODE.LOGOUT_RESPONSE, FINAL_BIT, 0, initiatorTaskTag(bhs))
  to[at + 2] = response
  putSequence(to, at, session)
  session.useStatSn()
  to.writeUInt16BE(session.parameters.time2WaitS, at + 40)
  to.writeUInt16BE(session.parameters.time2RetainS, at + 42)
  writer.end()
  connection.planFlush()
  if (response === LOGOUT_RESPONSE.OK) connection.end('logged out')
})
