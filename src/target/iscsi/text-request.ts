/**
 * Text requests of full feature phase (RFC 7143, 11.10): SendTargets (appendix C) and a new
 * MaxRecvDataSegmentLength. The connection puts the text of a request together over the C bit, calls handleText, and
 * cuts the answer into PDUs.
 */
import { PlexusError } from '../../base/errors.ts'
import { normalizeIscsiName } from '../../iscsi/names.ts'
import {
  decodeText,
  encodeText,
  NOT_UNDERSTOOD,
  REJECT,
  RESERVED_VALUES,
} from '../../iscsi/text.ts'
import { findKey, isExtensionKey, parseSegmentLength } from '../../iscsi/text-keys.ts'
import type { SessionType } from './login-identity.ts'
import { type Asker, targetRecord } from './send-targets.ts'
import type { TargetNode, TargetRegistry } from './target-node.ts'

export interface TextRequest extends Asker {
  /** The whole text of the request. */
  readonly text: Buffer
  readonly sessionType: SessionType
  /** The target of a normal session. */
  readonly target: TargetNode | undefined
  readonly registry: TargetRegistry
}

/** Reject reasons (RFC 7143, 11.17.1) that a text can earn. */
export const TEXT_REJECT = { PROTOCOL_ERROR: 0x04 } as const

export type TextResult =
  | {
      readonly text: Buffer
      /** The peer's new MaxRecvDataSegmentLength, from this answer on. */
      readonly newSendSegmentBytes?: number
    }
  | { readonly rejectReason: number; readonly why: string }

const NOTHING = Buffer.alloc(0)

/** What one pair contributes: answers, a new segment length, or a reason to reject the whole request. */
interface Contribution {
  readonly answer: Buffer
  readonly sendSegmentBytes?: number
}

/**
 * Answers a text request. Never throws for anything a peer can send; a rejected request changes nothing and leaves the
 * session as it is.
 */
export function handleText(request: TextRequest): TextResult {
  try {
    const answers: Buffer[] = []
    const seen = new Set<string>()
    let sendSegmentBytes: number | undefined
    for (const [name, value] of decodeText(request.text)) {
      if (seen.has(name)) throw rejection(`${name} came twice in one text request`)
      seen.add(name)
      const contribution = answerPair(name, value, request)
      answers.push(contribution.answer)
      sendSegmentBytes = contribution.sendSegmentBytes ?? sendSegmentBytes
    }
    const text = answers.length === 1 && answers[0] ? answers[0] : Buffer.concat(answers)
    return sendSegmentBytes === undefined
      ? { text }
      : { text, newSendSegmentBytes: sendSegmentBytes }
  } catch (error) {
    if (!(error instanceof PlexusError)) throw error
    return { rejectReason: TEXT_REJECT.PROTOCOL_ERROR, why: error.message }
  }
}

function answerPair(name: string, value: string, request: TextRequest): Contribution {
  const key = findKey(name)
  if (!key) {
    // Names are registered or begin with X- or X# (RFC 7143, 6.1). Others are no keys: `SendTargetsPlease`,
    // `sENDtARGETS`. NotUnderstood for them makes libiscsi drop the connection, a Reject fails the request alone
    // (docs/conformance.md).
    if (isExtensionKey(name)) return { answer: encodeText([[name, NOT_UNDERSTOOD]]) }
    throw rejection(`"${name}" is no key`)
  }
  if (name === 'SendTargets') return { answer: sendTargets(value, request) }
  if (name === 'MaxRecvDataSegmentLength') {
    const sendSegmentBytes = parseSegmentLength(value)
    if (sendSegmentBytes !== undefined) return { answer: NOTHING, sendSegmentBytes }
    return { answer: RESERVED_VALUES.has(value) ? NOTHING : encodeText([[name, REJECT]]) }
  }
  if (RESERVED_VALUES.has(value)) throw rejection(`${name}=${value} is proposed`)
  // A declaration that may come at any time and changes nothing here.
  if (name === 'InitiatorAlias') return { answer: NOTHING }
  return { answer: encodeText([[name, REJECT]]) }
}

/**
 * RFC 7143, appendix C: `All` in a discovery session lists every target; a name lists that one; an empty value in a normal
 * session its own target. The RFC reserves `All` for discovery sessions. In a normal one it is answered as the empty value:
 * nothing is told that the initiator does not know, and libiscsi's conformance test wants an answer. Other values are
 * no protocol and reject the request.
 */
function sendTargets(value: string, request: TextRequest): Buffer {
  const { registry, initiatorName, portalGroup } = request
  const own = request.sessionType === 'normal' ? request.target : undefined
  if (own && (value === 'All' || value === '')) return encodeText(targetRecord(own, request))
  if (value === 'All') return registry.answers.allTargets(request, registry)
  const name = normalizeIscsiName(value)
  if (name === undefined || (own && own.name !== name)) {
    throw rejection(`SendTargets=${value} in a ${request.sessionType} session`)
  }
  const named = registry.get(name)
  // To an initiator that may not log in to it, a target is not there.
  const isThere = own ?? (named?.offeredOn(portalGroup) && named.admits(initiatorName))
  return named && isThere ? encodeText(targetRecord(named, request)) : Buffer.alloc(0)
}

function rejection(why: string): PlexusError {
  return new PlexusError('protocol', { op: 'text request', subject: 'text request', message: why })
}
