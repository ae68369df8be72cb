/**
 * The target's side of the login phase (RFC 7143, 6.3, 11.12 and 11.13) as a state machine without sockets: security
 * stage (0), operational stage (1), full feature phase (3). Called by the connection with each Login request until
 * the outcome stands or a reply carries a failure, after which the connection closes.
 *
 *   request -> header checks -> text put together over the C bit -> identity (first text only)
 *           -> security keys -> operational keys -> answer cut into PDUs -> stage transition
 */
import { assert, defined } from '../../base/assert.ts'
import { PlexusError } from '../../base/errors.ts'
import {
  LOGIN_REQUESTS,
  LOGIN_SEGMENT_BYTES,
  TEXT_BYTES,
  TEXT_KEYS,
  TEXT_VALUE_BYTES,
} from '../../base/limits.ts'
import { ChapTarget } from '../../iscsi/chap.ts'
import { offeredParameters } from '../../iscsi/parameters.ts'
import {
  decodeText,
  encodeText,
  NOT_UNDERSTOOD,
  REJECT,
  RESERVED_VALUES,
  TextAssembler,
  TextOutbox,
  type TextPair,
} from '../../iscsi/text.ts'
import { findKey, OperationalNegotiation } from '../../iscsi/text-keys.ts'
import { admits } from './auth.ts'
import {
  authenticationFailure,
  authOf,
  checkSession,
  type Identity,
  identify,
  initiatorError,
  LOGIN_STATUS,
  type LoginContext,
  Refusal,
} from './login-identity.ts'
import { type LoginOutcome, type LoginReply, type LoginRequest, STAGE } from './login-messages.ts'
import type { TargetNode } from './target-node.ts'

/** Cut of a reason, which may quote text of the peer. */
const REASON_CHARS = 400

/** Who logs in, with the negotiation that goes with the kind of session. */
interface Negotiator extends Identity {
  readonly operational: OperationalNegotiation
}

/** Fields that every request of one login repeats. */
interface Fixed {
  readonly isid: Buffer
  readonly tsih: number
  readonly cid: number
}

export class LoginNegotiation {
  readonly #context: LoginContext
  readonly #assembler = new TextAssembler()
  readonly #outbox = new TextOutbox(LOGIN_SEGMENT_BYTES)
  readonly #seen = new Map<string, string>()
  #requests = 0
  #textBytes = 0
  #pairs = 0
  #stage: number = STAGE.SECURITY
  #fixed: Fixed | undefined
  #identity: Negotiator | undefined
  #chap: ChapTarget | undefined
  #aliasTold = false
  #ended = false
  #lastFailure: string | undefined

  constructor(context: LoginContext) {
    this.#context = context
  }

  /** Why the login was refused, for the log and for events; undefined while it was not. */
  get lastFailure(): string | undefined {
    return this.#lastFailure
  }

  /** Who is logging in, as far as is known: for the log. */
  get initiatorName(): string | undefined {
    return this.#identity?.initiatorName
  }

  /** The target that is logged in to, as far as is known: for the log. */
  get target(): TargetNode | undefined {
    return this.#identity?.target
  }

  /** Answers one request. Never throws for anything a peer can send; after a failure every answer is one. */
  handle(request: LoginRequest): LoginReply {
    try {
      return this.#step(request)
    } catch (error) {
      if (error instanceof Refusal) return this.#refuse(request, error.status, error.message)
      // Malformed or boundless text: text.ts says which.
      if (error instanceof PlexusError) {
        return this.#refuse(request, LOGIN_STATUS.INITIATOR_ERROR, error.message)
      }
      throw error
    }
  }

  #refuse(request: LoginRequest, status: number, reason: string): LoginReply {
    this.#ended = true
    this.#lastFailure ??= reason.slice(0, REASON_CHARS)
    return {
      statusClass: status >> 8,
      statusDetail: status & 0xff,
      transit: false,
      continued: false,
      csg: request.csg,
      nsg: 0,
      text: Buffer.alloc(0),
    }
  }

  #step(request: LoginRequest): LoginReply {
    if (this.#ended) throw new Refusal(LOGIN_STATUS.INVALID_REQUEST, 'login request after the end')
    this.#checkHeader(request)
    if (this.#outbox.pending) {
      // RFC 7143, 6.2: the peer fetches the rest of a continued answer with empty requests.
      if (request.text.length > 0 || request.continued) {
        throw initiatorError('new text while the answer to the last one is being fetched')
      }
      return this.#reply(request)
    }
    this.#textBytes += request.text.length
    if (this.#textBytes > TEXT_BYTES) {
      throw initiatorError(`more than ${TEXT_BYTES} bytes of text in one login`)
    }
    this.#assembler.add(request.text, request.continued)
    if (request.continued) return this.#accept(Buffer.alloc(0), false)
    const pairs = decodeText(this.#assembler.take())
    const answers = this.#answer(pairs)
    this.#trace(pairs, answers)
    this.#outbox.put(encodeText(answers))
    return this.#reply(request)
  }

  #checkHeader(request: LoginRequest): void {
    if (++this.#requests > LOGIN_REQUESTS) {
      throw initiatorError(`more than ${LOGIN_REQUESTS} requests in one login`)
    }
    if (request.versionMin > 0) {
      throw new Refusal(
        LOGIN_STATUS.UNSUPPORTED_VERSION,
        `iSCSI version ${request.versionMin} to ${request.versionMax} asked for, 0 is spoken here`,
      )
    }
    const { transit, continued, csg, nsg } = request
    if (csg !== STAGE.SECURITY && csg !== STAGE.OPERATIONAL) {
      throw initiatorError(`login request in stage ${csg}`)
    }
    if (transit && continued) throw initiatorError('T and C bit in one login request')
    if (transit && (nsg <= csg || (nsg !== STAGE.OPERATIONAL && nsg !== STAGE.FULL_FEATURE))) {
      throw initiatorError(`login transition from stage ${csg} to ${nsg}`)
    }
    const fixed = this.#fixed
    if (!fixed) {
      this.#stage = csg
      this.#fixed = { isid: Buffer.from(request.isid), tsih: request.tsih, cid: request.cid }
      return
    }
    if (csg !== this.#stage) {
      throw initiatorError(`login request in stage ${csg} while in stage ${this.#stage}`)
    }
    if (
      request.tsih !== fixed.tsih ||
      request.cid !== fixed.cid ||
      !request.isid.equals(fixed.isid)
    ) {
      throw initiatorError('ISID, TSIH or CID changed during the login')
    }
  }

  /** Emits the next part of the answer; with its last part the stage may change. */
  #reply(request: LoginRequest): LoginReply {
    const { text, continued } = this.#outbox.next()
    if (continued || !request.transit || !this.#mayLeave()) return this.#accept(text, continued)
    if (this.#stage === STAGE.SECURITY) this.#checkSession()
    const reply = { ...this.#accept(text, false), transit: true, nsg: request.nsg }
    this.#stage = request.nsg
    return request.nsg === STAGE.FULL_FEATURE ? { ...reply, outcome: this.#finish() } : reply
  }

  #accept(text: Buffer, continued: boolean): LoginReply {
    return {
      statusClass: 0,
      statusDetail: 0,
      transit: false,
      continued,
      csg: this.#stage,
      nsg: 0,
      text,
    }
  }

  #answer(pairs: readonly TextPair[]): TextPair[] {
    this.#pairs += pairs.length
    if (this.#pairs > TEXT_KEYS) throw initiatorError(`more than ${TEXT_KEYS} keys in one login`)
    const leading = this.#identity === undefined
    const identity = this.#identity ?? this.#identify(pairs)
    const answers: TextPair[] = []
    answers.push(...this.#declareTarget(identity, leading))
    const security = new Map<string, string>()
    const operational: TextPair[] = []
    for (const [name, value] of pairs) {
      const key = findKey(name)
      if (RESERVED_VALUES.has(value)) {
        // The peer's answer to a declaration of ours changes nothing; as a proposal it is an error (6.2).
        if (key?.use === 'target' || name === 'MaxRecvDataSegmentLength') continue
        throw initiatorError(`${name}=${value} is proposed, which only an answer may be`)
      }
      if (this.#repeats(name, value, leading)) continue
      if (!key) answers.push([name, NOT_UNDERSTOOD])
      else if (key.use === 'operational') operational.push([name, value])
      else if (key.use === 'security' && this.#stage === STAGE.SECURITY) security.set(name, value)
      else if (key.use !== 'identity' || Buffer.byteLength(value) > key.valueBytes) {
        answers.push([name, REJECT])
      }
    }
    if (security.size > 0) answers.push(...this.#authenticate(security, identity))
    answers.push(...identity.operational.answer(operational))
    if (this.#stage === STAGE.OPERATIONAL) answers.push(...identity.operational.declare())
    // What is both declared and refused in one answer is told once, as it was first.
    return answers.filter(([name], i) => answers.findIndex(([other]) => other === name) === i)
  }

  /**
   * What the target says of itself: its portal group tag in the first answer of a normal session (RFC 7143, 13.9), its alias
   * once the initiator has proved what it must.
   */
  #declareTarget({ target, accounts }: Identity, leading: boolean): TextPair[] {
    const pairs: TextPair[] = []
    if (!target) return pairs
    if (target.alias && !this.#aliasTold && (accounts.length === 0 || this.#chap?.proof)) {
      this.#aliasTold = true
      pairs.push(['TargetAlias', target.alias])
    }
    if (leading) pairs.push(['TargetPortalGroupTag', String(this.#context.portalGroup.tag)])
    return pairs
  }

  /**
   * Is this key to be skipped because it was sent before? Only what identifies the initiator may come again, and only
   * unchanged: libiscsi repeats it in every stage. All else is negotiated once in a login (RFC 7143, 6.3).
   */
  #repeats(name: string, value: string, leading: boolean): boolean {
    const previous = this.#seen.get(name)
    const identifies = findKey(name)?.use === 'identity'
    if (previous !== undefined) {
      if (identifies && previous === value) return true
      throw initiatorError(`${name} came twice in one login`)
    }
    if (identifies && !leading && name !== 'InitiatorAlias') {
      throw initiatorError(`${name} came after the first request`)
    }
    this.#seen.set(name, value)
    return false
  }

  #identify(pairs: readonly TextPair[]): Negotiator {
    const securityStage = this.#stage === STAGE.SECURITY
    const identity = identify(pairs, securityStage, this.#context)
    const offered = offeredParameters(this.#context.portalGroup.digests, identity.sessionType)
    const operational = new OperationalNegotiation(offered, identity.sessionType)
    this.#identity = { ...identity, operational }
    if (!securityStage) this.#checkSession()
    return this.#identity
  }

  #checkSession(): void {
    const identity = defined(this.#identity, 'the identity of an answered login')
    checkSession(identity, defined(this.#fixed, 'the header of a checked login'), this.#context)
  }

  #authenticate(keys: ReadonlyMap<string, string>, identity: Identity): readonly TextPair[] {
    const { accounts } = identity
    const methods = keys.get('AuthMethod')
    if (methods !== undefined) {
      const method = accounts.length > 0 ? 'CHAP' : 'None'
      if (keys.size > 1) throw authenticationFailure('CHAP keys beside AuthMethod')
      if (!methods.split(',').includes(method)) {
        throw authenticationFailure(`AuthMethod=${methods} offered, ${method} is what is needed`)
      }
      if (accounts.length > 0) {
        this.#chap = new ChapTarget({ accounts, random: this.#context.random })
      }
      return [['AuthMethod', method]]
    }
    if (!this.#chap) throw authenticationFailure('CHAP keys without AuthMethod=CHAP')
    const step = this.#chap.step(keys)
    if ('failure' in step) throw authenticationFailure(step.failure)
    return step.pairs
  }

  /** May the current stage end? Leaving the security stage takes a proof where one is asked for. */
  #mayLeave(): boolean {
    const identity = defined(this.#identity, 'the identity of an answered login')
    if (identity.accounts.length === 0 || this.#chap?.proof) return true
    if (!this.#seen.has('AuthMethod')) {
      throw authenticationFailure(
        `CHAP is demanded, ${identity.initiatorName} offers no AuthMethod`,
      )
    }
    return false
  }

  #finish(): LoginOutcome {
    const identity = defined(this.#identity, 'the identity of an answered login')
    const { target, operational } = identity
    const proof = this.#chap?.proof
    assert(
      identity.accounts.length === 0 || proof,
      'no session begins without the proof that is asked for',
    )
    // The configuration may have changed since the first request: what was checked must still hold.
    const { registry, portalGroup } = this.#context
    if (target && registry.get(target.name) !== target) {
      throw new Refusal(LOGIN_STATUS.NOT_FOUND, `target ${target.name} was removed meanwhile`)
    }
    const stillAdmitted = admits(authOf(target, this.#context), identity.initiatorName, proof)
    if (!stillAdmitted || (target && !target.offeredOn(portalGroup))) {
      const what = target?.name ?? `portal ${portalGroup.name}`
      throw new Refusal(LOGIN_STATUS.SERVICE_UNAVAILABLE, `${what} was reconfigured`)
    }
    const unmet = operational.unmetDemand()
    if (unmet) throw initiatorError(unmet)
    this.#ended = true
    const alias = this.#seen.get('InitiatorAlias')
    const { isid, tsih } = defined(this.#fixed, 'the header fields of an answered login')
    return {
      sessionType: identity.sessionType,
      initiatorName: identity.initiatorName,
      ...(alias === undefined || Buffer.byteLength(alias) > TEXT_VALUE_BYTES
        ? {}
        : { initiatorAlias: alias }),
      isid,
      requestedTsih: tsih,
      target,
      parameters: operational.result(),
      proof,
    }
  }

  #trace(request: readonly TextPair[], response: readonly TextPair[]): void {
    const { log, remoteAddress } = this.#context
    if (!log.isLevelEnabled('debug')) return
    const text = (pairs: readonly TextPair[]): string =>
      // A response to a known challenge can be guessed at offline.
      pairs.map(([key, value]) => `${key}=${key === 'CHAP_R' ? '…' : value}`).join(' ')
    log.debug(
      { event: 'login-text', remoteAddress, stage: this.#stage },
      `login: ${text(request)} -> ${text(response)}`,
    )
  }
}
