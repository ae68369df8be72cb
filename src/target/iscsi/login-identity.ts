/**
 * The first question of a login (RFC 7143, 6.3 and 13.4 to 13.6): who asks, for which session, of which target, and is
 * that name let in at all? Called by login.ts with the first text. The proof of the name is the security stage's part.
 *
 * The order of refusals is target, then access list, then security stage, then session, so that nothing about
 * sessions is told to a peer that is not admitted.
 */
import type { Logger } from '../../base/log.ts'
import type { ChapCredentials } from '../../iscsi/chap.ts'
import { normalizeIscsiName } from '../../iscsi/names.ts'
import type { TextPair } from '../../iscsi/text.ts'
import {
  type Auth,
  admitsName,
  type PortalGroup,
  type TargetNode,
  type TargetRegistry,
} from './target-node.ts'

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
  readonly auth: Exclude<Auth, undefined>
}

const SESSION_TYPES: ReadonlyMap<string, SessionType> = new Map([
  ['Normal', 'normal'],
  ['Discovery', 'discovery'],
])

/**
 * Reads and checks the identity in the first text of a login; `login` is what the header of its request says. Throws
 * {@link Refusal}.
 */
export function identify(
  pairs: readonly TextPair[],
  login: { readonly securityStage: boolean; readonly isid: Buffer; readonly tsih: number },
  context: LoginContext,
): Identity {
  const values = new Map(pairs)
  const given = values.get('InitiatorName')
  if (given === undefined) {
    throw new Refusal(LOGIN_STATUS.MISSING_PARAMETER, 'the first request has no InitiatorName')
  }
  const initiatorName = normalizeIscsiName(given)
  if (initiatorName === undefined) throw initiatorError(`"${given}" is no iSCSI name`)
  const sessionType = SESSION_TYPES.get(values.get('SessionType') ?? 'Normal')
  if (sessionType === undefined) {
    throw new Refusal(LOGIN_STATUS.SESSION_TYPE, `SessionType=${values.get('SessionType')}`)
  }
  const target = sessionType === 'normal' ? findTarget(values, context) : undefined
  const auth = target ? target.auth : context.portalGroup.discoveryAuth
  const place = target ? `target ${target.name}` : `discovery on portal ${context.portalGroup.name}`
  if (auth === undefined || !admitsName(auth, initiatorName)) {
    const why =
      auth === undefined ? 'it has no auth and denies everybody' : 'its auth does not list the name'
    throw new Refusal(
      LOGIN_STATUS.AUTHORIZATION_FAILURE,
      `${place} does not admit ${initiatorName}: ${why}`,
    )
  }
  if (!login.securityStage && chapOf(auth)) {
    throw authenticationFailure(`${place} demands CHAP, ${initiatorName} skips the security stage`)
  }
  if (login.tsih !== 0) {
    throw target && context.hasSession(initiatorName, login.isid, login.tsih)
      ? new Refusal(LOGIN_STATUS.TOO_MANY_CONNECTIONS, 'a session has one connection here')
      : new Refusal(LOGIN_STATUS.NO_SUCH_SESSION, `there is no session with TSIH ${login.tsih}`)
  }
  return { sessionType, initiatorName, target, auth }
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
        : `there is no target "${name}"`,
    )
  }
  return target
}

/** The CHAP settings that an auth demands, or undefined where a name is enough. */
export function chapOf(
  auth: Exclude<Auth, undefined>,
): { credentials: ChapCredentials; mutual: ChapCredentials | undefined } | undefined {
  if (auth === 'none' || !auth.chap) return undefined
  return { credentials: auth.chap, mutual: auth.mutual }
}

export function initiatorError(reason: string): Refusal {
  return new Refusal(LOGIN_STATUS.INITIATOR_ERROR, reason)
}

export function authenticationFailure(reason: string): Refusal {
  return new Refusal(LOGIN_STATUS.AUTHENTICATION_FAILURE, reason)
}
