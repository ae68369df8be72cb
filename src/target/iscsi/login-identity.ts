/**
 * The first question of a login (RFC 7143, 6.3 and 13.4 to 13.6): who asks, for which session, of which target, and is
 * that name let in at all? Called by login.ts with the first text. The proof of the name is the security stage's part.
 *
 * The order of refusals is target, then access list, then security stage. What the login says of sessions is judged
 * after that stage (checkSession), so that nothing about them is told to a peer that has not proved who it is.
 */
import type { Logger } from '../../base/log.ts'
import type { ChapAccount } from '../../iscsi/chap.ts'
import { normalizeIscsiName } from '../../iscsi/names.ts'
import type { TextPair } from '../../iscsi/text.ts'
import { type Auth, accountsFor, admitsName } from './auth.ts'
import type { PortalGroup, TargetNode, TargetRegistry } from './target-node.ts'

/** Status class << 8 | detail (RFC 7143, 11.13.5): what this target answers. */
export const LOGIN_STATUS = {
  SUCCESS: 0x0000,
  INITIATOR_ERROR: 0x0200,
  AUTHENTICATION_FAILURE: 0x0201,
  AUTHORIZATION_FAILURE: 0x0202,
  NOT_FOUND: 0x0203,
  UNSUPPORTED_VERSION: 0x0205,
  TOO_MANY_CONNECTIONS: 0x0206,
  MISSING_PARAMETER: 0x0207,
  SESSION_TYPE: 0x0209,
  NO_SUCH_SESSION: 0x020a,
  INVALID_REQUEST: 0x020b,
  SERVICE_UNAVAILABLE: 0x0301,
  OUT_OF_RESOURCES: 0x0302,
} as const

export type SessionType = 'normal' | 'discovery'

export interface LoginContext {
  readonly registry: TargetRegistry
  /** The group whose portal accepted the connection. */
  readonly portalGroup: PortalGroup
  readonly localAddress: string
  readonly remoteAddress: string
  readonly log: Logger
  /** Unpredictable bytes: node:crypto's randomBytes. */
  readonly random: (bytes: number) => Buffer
  /** Is there a session of this initiator port with this TSIH? */
  readonly hasSession: (initiatorName: string, isid: Buffer, tsih: number) => boolean
}

/** Leaves the negotiation with a status; caught by handle. The reason never goes to the peer. */
export class Refusal extends Error {
  readonly status: number

  constructor(status: number, reason: string) {
    super(reason)
    this.status = status
  }
}

/** Who logs in to what: fixed by the first text. */
export interface Identity {
  readonly sessionType: SessionType
  readonly initiatorName: string
  readonly target: TargetNode | undefined
  /** What it has to prove: one of these; nothing where there are none. */
  readonly accounts: readonly ChapAccount[]
}

const SESSION_TYPES: ReadonlyMap<string, SessionType> = new Map([
  ['Normal', 'normal'],
  ['Discovery', 'discovery'],
])

/** Of a name in a message: a peer could make it as long as its text. */
const SHOWN_CHARS = 80

/** Reads and checks the identity in the first text of a login. Throws {@link Refusal}. */
export function identify(
  pairs: readonly TextPair[],
  securityStage: boolean,
  context: LoginContext,
): Identity {
  const values = new Map(pairs)
  const given = values.get('InitiatorName')
  if (given === undefined) {
    throw new Refusal(LOGIN_STATUS.MISSING_PARAMETER, 'the first request has no InitiatorName')
  }
  const initiatorName = normalizeIscsiName(given)
  if (initiatorName === undefined) {
    throw initiatorError(
      `InitiatorName "${given.slice(0, SHOWN_CHARS)}" does not have the form that RFC 7143, 4.2.7 asks for; ` +
        'change it on that host to iqn.YYYY-MM.reversed.domain:anything, or eui. or naa. with hexadecimal digits',
    )
  }
  const sessionType = SESSION_TYPES.get(values.get('SessionType') ?? 'Normal')
  if (sessionType === undefined) {
    throw new Refusal(LOGIN_STATUS.SESSION_TYPE, `SessionType=${values.get('SessionType')}`)
  }
  const target = sessionType === 'normal' ? findTarget(values, context) : undefined
  const auth = authOf(target, context)
  const place = target ? `target ${target.name}` : `discovery on portal ${context.portalGroup.name}`
  if (!admitsName(auth, initiatorName)) {
    const why =
      auth.length === 0 ? 'it has no auth and denies everybody' : 'its auth does not list the name'
    throw new Refusal(
      LOGIN_STATUS.AUTHORIZATION_FAILURE,
      `${place} does not admit ${initiatorName}: ${why}`,
    )
  }
  const accounts = accountsFor(auth, initiatorName)
  if (!securityStage && accounts.length > 0) {
    throw authenticationFailure(`${place} demands CHAP, ${initiatorName} skips the security stage`)
  }
  return { sessionType, initiatorName, target, accounts }
}

/** The auth that a login to `target`, or for discovery, is judged by. */
export function authOf(target: TargetNode | undefined, context: LoginContext): Auth {
  return target ? target.auth : context.portalGroup.discoveryAuth
}

/** A TSIH in the header asks to join a session, which has one connection here. Throws {@link Refusal}. */
export function checkSession(
  { target, initiatorName }: Identity,
  { isid, tsih }: { readonly isid: Buffer; readonly tsih: number },
  context: LoginContext,
): void {
  if (tsih === 0) return
  throw target && context.hasSession(initiatorName, isid, tsih)
    ? new Refusal(LOGIN_STATUS.TOO_MANY_CONNECTIONS, 'a session has one connection here')
    : new Refusal(LOGIN_STATUS.NO_SUCH_SESSION, `there is no session with TSIH ${tsih}`)
}

function findTarget(values: ReadonlyMap<string, string>, context: LoginContext): TargetNode {
  const name = values.get('TargetName')
  if (name === undefined) {
    throw new Refusal(LOGIN_STATUS.MISSING_PARAMETER, 'a normal session needs a TargetName')
  }
  const target = context.registry.get(name)
  if (!target?.offeredOn(context.portalGroup)) {
    throw new Refusal(
      LOGIN_STATUS.NOT_FOUND,
      target
        ? `target ${target.name} is not offered on portal ${context.portalGroup.name}`
        : `there is no target "${name.slice(0, SHOWN_CHARS)}"`,
    )
  }
  return target
}

export function initiatorError(reason: string): Refusal {
  return new Refusal(LOGIN_STATUS.INITIATOR_ERROR, reason)
}

export function authenticationFailure(reason: string): Refusal {
  return new Refusal(LOGIN_STATUS.AUTHENTICATION_FAILURE, reason)
}
