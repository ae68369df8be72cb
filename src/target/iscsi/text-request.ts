/**
 * Text requests of full feature phase (RFC 7143, 11.10): SendTargets (appendix C) and a new
 * MaxRecvDataSegmentLength. The connection puts the text of a request together over the C bit, calls handleText, and
 * cuts the answer into PDUs.
 */
import { isIP } from 'node:net'
import { PlexusError } from '../../base/errors.ts'
import { normalizeIscsiName } from '../../iscsi/names.ts'
import {
  decodeText,
  encodeText,
  NOT_UNDERSTOOD,
  REJECT,
  RESERVED_VALUES,
  type TextPair,
} from '../../iscsi/text.ts'
import { findKey, isExtensionKey, parseSegmentLength } from '../../iscsi/text-keys.ts'
import type { SessionType } from './login-identity.ts'
import type { PortalAddress, PortalGroup, TargetNode, TargetRegistry } from './target-node.ts'

export interface TextRequest {
  /** The whole text of the request. */
  readonly text: Buffer
  readonly sessionType: SessionType
  /** The target of a normal session. */
  readonly target: TargetNode | undefined
  /** Normalized. */
  readonly initiatorName: string
  readonly registry: TargetRegistry
  /** The group whose portal the connection came through. */
  readonly portalGroup: PortalGroup
  /** Where the connection arrived: stands in for addresses that mean every address. */
  readonly localAddress: string
  /** Stands in for port 0, which lets the system choose. */
  readonly localPort: number
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

/** What one pair contributes: answers, a new segment length, or a reason to reject the whole request. */
interface Contribution {
  readonly answers: readonly TextPair[]
  readonly sendSegmentBytes?: number
}

/**
 * Answers a text request. Never throws for anything a peer can send; a rejected request changes nothing and leaves the
 * session as it is.
 */
export function handleText(request: TextRequest): TextResult {
  try {
    const answers: TextPair[] = []
    const seen = new Set<string>()
    let sendSegmentBytes: number | undefined
    for (const [name, value] of decodeText(request.text)) {
      if (seen.has(name)) throw rejection(`${name} came twice in one text request`)
      seen.add(name)
      const contribution = answerPair(name, value, request)
      answers.push(...contribution.answers)
      sendSegmentBytes = contribution.sendSegmentBytes ?? sendSegmentBytes
    }
    const text = encodeText(answers)
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
    // `sENDtARGETS`. NotUnderstood for them makes libiscsi drop the connection, a Reject fails the request alone.
    if (isExtensionKey(name)) return { answers: [[name, NOT_UNDERSTOOD]] }
    throw rejection(`"${name}" is no key`)
  }
  if (name === 'SendTargets') return { answers: sendTargets(value, request) }
  if (name === 'MaxRecvDataSegmentLength') {
    const sendSegmentBytes = parseSegmentLength(value)
    return sendSegmentBytes === undefined
      ? { answers: RESERVED_VALUES.has(value) ? [] : [[name, REJECT]] }
      : { answers: [], sendSegmentBytes }
  }
  if (RESERVED_VALUES.has(value)) throw rejection(`${name}=${value} is proposed`)
  // A declaration that may come at any time and changes nothing here.
  if (name === 'InitiatorAlias') return { answers: [] }
  return { answers: [[name, REJECT]] }
}

/**
 * RFC 7143, appendix C: `All` in a discovery session lists every target; a name lists that one; an empty value in a normal
 * session its own target. The RFC reserves `All` for discovery sessions. In a normal one it is answered as the empty value:
 * nothing is told that the initiator does not know, and libiscsi's conformance test wants an answer. Other values are
 * no protocol and reject the request.
 */
function sendTargets(value: string, request: TextRequest): TextPair[] {
  const { target, registry, initiatorName, portalGroup } = request
  const own = request.sessionType === 'normal' ? target : undefined
  const targets = own ? [own] : registry.visibleTo(initiatorName, portalGroup)
  if (value === 'All' || (value === '' && own)) {
    return targets.flatMap((each) => targetRecord(each, request))
  }
  const name = normalizeIscsiName(value)
  const named = name === undefined ? undefined : targets.find((each) => each.name === name)
  if (name === undefined || (own && !named)) {
    throw rejection(`SendTargets=${value} in a ${request.sessionType} session`)
  }
  // To an initiator that may not log in to it, a target is not there.
  return named ? targetRecord(named, request) : []
}

/**
 * TargetName and an address for each portal of each of its groups. With no address that the initiator could use it tries
 * the one it asked, as appendix C says.
 */
function targetRecord(target: TargetNode, request: TextRequest): TextPair[] {
  const addresses = new Set<string>()
  for (const group of target.portalGroups) {
    for (const portal of group.listen) {
      const host = reachableHost(portal.host, request.localAddress)
      if (host !== undefined) addresses.add(`${printAddress(host, portal, request)},${group.tag}`)
    }
  }
  return [
    ['TargetName', target.name],
    ...[...addresses].map((address): TextPair => ['TargetAddress', address]),
  ]
}

function printAddress(host: string, portal: PortalAddress, request: TextRequest): string {
  const port = portal.port === 0 ? request.localPort : portal.port
  return `${isIP(host) === 6 ? `[${host}]` : host}:${port}`
}

/**
 * The host that an initiator is told for a portal, or undefined for none: a wildcard becomes the address on which the
 * request came if it can have come through it. Link-local IPv6 needs a zone that only the initiator knows, and
 * loopback means the initiator itself, unless the request came that way.
 */
function reachableHost(host: string, localAddress: string): string | undefined {
  const local = plainAddress(localAddress)
  let told = plainAddress(host)
  if (told === '0.0.0.0') {
    if (isIP(local) !== 4) return undefined
    told = local
  } else if (told === '::') {
    told = local
  }
  if (isLinkLocal(told)) return undefined
  if (isLoopback(told) && !isLoopback(local)) return undefined
  return told
}

/** An IPv4 address that came through an IPv6 socket in its own form, without brackets or zone otherwise untouched. */
function plainAddress(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)
  return mapped?.[1] ?? address
}

function isLinkLocal(address: string): boolean {
  return /^fe[89ab][0-9a-f]:/i.test(address)
}

function isLoopback(address: string): boolean {
  return address === '::1' || address === 'localhost' || /^127\./.test(address)
}

function rejection(why: string): PlexusError {
  return new PlexusError('protocol', { op: 'text request', subject: 'text request', message: why })
}
