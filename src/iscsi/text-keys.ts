/**
 * The table of text keys (RFC 7143, 13, and RFC 7144 for iSCSIProtocolLevel) and the negotiation of operational ones
 * from the responder's side: result functions AND, OR, minimum, maximum and list (6.2), declarations, Irrelevant
 * where another key makes a key pointless. Called by the target's login and text requests.
 *
 * A new key is a new row. Rows are evaluated in the order of the table and not of the peer's text,
 * because FirstBurstLength depends on InitialR2T, ImmediateData and MaxBurstLength.
 */
import { CHAP_BINARY_BYTES, TEXT_VALUE_BYTES } from '../base/limits.ts'
import {
  assertSessionParameters,
  DEFAULT_PARAMETERS,
  type DigestChoice,
  LENGTH_MAX_BYTES,
  LENGTH_MIN_BYTES,
  type OfferedParameters,
  type SessionParameters,
} from './parameters.ts'
import { IRRELEVANT, REJECT, type TextPair } from './text.ts'

/** Who may send a key, and when. */
export type KeyUse =
  | 'identity' // who logs in, and to what; declared by the initiator in its first request
  | 'security' // security negotiation stage of the login
  | 'operational' // negotiated or declared during login
  | 'target' // declared by targets only
  | 'full-feature' // text requests of full feature phase only

export interface KeyRow {
  readonly name: string
  readonly use: KeyUse
  /** Longest value in bytes. */
  readonly valueBytes: number
  /** Means nothing in a discovery session and is answered so. */
  readonly irrelevantInDiscovery: boolean
  /** Operational keys: takes the peer's value into account; undefined: a declaration, which has no answer. */
  readonly negotiate?: (value: string, state: NegotiationState) => string | undefined
}

interface NegotiationState {
  readonly offered: OfferedParameters
  readonly agreed: Mutable<SessionParameters>
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }
type KeysOf<V> = {
  [K in keyof SessionParameters & keyof OfferedParameters]: SessionParameters[K] extends V
    ? OfferedParameters[K] extends V
      ? K
      : never
    : never
}[keyof SessionParameters & keyof OfferedParameters]

const row = (name: string, use: KeyUse, valueBytes = TEXT_VALUE_BYTES): KeyRow => ({
  name,
  use,
  valueBytes,
  irrelevantInDiscovery: false,
})

/** CHAP_C and CHAP_R: `0x` and two digits a byte, the longer one of the two encodings. */
const BINARY_VALUE_BYTES = 2 + 2 * CHAP_BINARY_BYTES

const inNormalSessions = (key: KeyRow): KeyRow => ({ ...key, irrelevantInDiscovery: true })

const operational = (name: string, negotiate: NonNullable<KeyRow['negotiate']>): KeyRow => ({
  ...row(name, 'operational'),
  negotiate,
})

/** The first item of the peer's list that is permitted here (RFC 7143, 6.2.1). */
const list = (
  name: string,
  permitted: (offered: OfferedParameters) => readonly string[],
  agree: (choice: string, agreed: Mutable<SessionParameters>) => void,
): KeyRow =>
  operational(name, (value, { offered, agreed }) => {
    const choice = value.split(',').find((item) => permitted(offered).includes(item))
    if (choice === undefined) return REJECT
    agree(choice, agreed)
    return choice
  })

const boolean = (
  name: string,
  parameter: KeysOf<boolean>,
  combine: (a: boolean, b: boolean) => boolean,
): KeyRow =>
  operational(name, (value, { offered, agreed }) => {
    if (value !== 'Yes' && value !== 'No') return REJECT
    agreed[parameter] = combine(value === 'Yes', offered[parameter])
    return agreed[parameter] ? 'Yes' : 'No'
  })

const and = (a: boolean, b: boolean): boolean => a && b
const or = (a: boolean, b: boolean): boolean => a || b

const number = (
  name: string,
  parameter: KeysOf<number>,
  combine: (a: number, b: number) => number,
  min: number,
  max: number,
): KeyRow =>
  operational(name, (value, { offered, agreed }) => {
    const proposed = parseNumber(value)
    if (proposed === undefined || proposed < min || proposed > max) return REJECT
    agreed[parameter] = combine(proposed, offered[parameter])
    return String(agreed[parameter])
  })

const segmentLength = operational('MaxRecvDataSegmentLength', (value, { agreed }) => {
  const declared = parseSegmentLength(value)
  if (declared === undefined) return REJECT
  agreed.sendSegmentBytes = declared
  return undefined
})

/** RFC 7143, 13.14: pointless when nothing unsolicited may be sent, and never above MaxBurstLength. */
const firstBurst = operational('FirstBurstLength', (value, { offered, agreed }) => {
  const proposed = parseNumber(value)
  if (proposed === undefined || proposed < LENGTH_MIN_BYTES || proposed > LENGTH_MAX_BYTES) {
    return REJECT
  }
  if (agreed.initialR2t && !agreed.immediateData) return IRRELEVANT
  agreed.firstBurstBytes = Math.min(proposed, offered.firstBurstBytes, agreed.maxBurstBytes)
  return String(agreed.firstBurstBytes)
})

/** Markers went with RFC 7143 (13.25), which still wants them answered. */
const obsolete = (name: string, answer: string): KeyRow => operational(name, () => answer)

export const KEY_TABLE: readonly KeyRow[] = [
  row('InitiatorName', 'identity'),
  row('InitiatorAlias', 'identity'),
  row('TargetName', 'identity'),
  row('SessionType', 'identity'),

  row('AuthMethod', 'security'),
  row('CHAP_A', 'security'),
  row('CHAP_I', 'security'),
  row('CHAP_C', 'security', BINARY_VALUE_BYTES),
  row('CHAP_N', 'security'),
  row('CHAP_R', 'security', BINARY_VALUE_BYTES),

  list(
    'HeaderDigest',
    (offered) => offered.headerDigests,
    (choice, agreed) => {
      agreed.headerDigest = choice === 'CRC32C'
    },
  ),
  list(
    'DataDigest',
    (offered) => offered.dataDigests,
    (choice, agreed) => {
      agreed.dataDigest = choice === 'CRC32C'
    },
  ),
  segmentLength,
  inNormalSessions(number('MaxConnections', 'maxConnections', Math.min, 1, 65535)),
  inNormalSessions(boolean('InitialR2T', 'initialR2t', or)),
  inNormalSessions(boolean('ImmediateData', 'immediateData', and)),
  inNormalSessions(
    number('MaxBurstLength', 'maxBurstBytes', Math.min, LENGTH_MIN_BYTES, LENGTH_MAX_BYTES),
  ),
  inNormalSessions(firstBurst),
  number('DefaultTime2Wait', 'time2WaitS', Math.max, 0, 3600),
  number('DefaultTime2Retain', 'time2RetainS', Math.min, 0, 3600),
  inNormalSessions(number('MaxOutstandingR2T', 'maxOutstandingR2t', Math.min, 1, 65535)),
  inNormalSessions(boolean('DataPDUInOrder', 'dataPduInOrder', or)),
  inNormalSessions(boolean('DataSequenceInOrder', 'dataSequenceInOrder', or)),
  number('ErrorRecoveryLevel', 'errorRecoveryLevel', Math.min, 0, 2),
  inNormalSessions(
    list(
      'TaskReporting',
      (offered) => offered.taskReporting,
      (choice, agreed) => {
        agreed.taskReporting = choice
      },
    ),
  ),
  inNormalSessions(number('iSCSIProtocolLevel', 'protocolLevel', Math.min, 0, 31)),
  obsolete('IFMarker', 'No'),
  obsolete('OFMarker', 'No'),
  obsolete('IFMarkInt', REJECT),
  obsolete('OFMarkInt', REJECT),

  row('TargetAlias', 'target'),
  row('TargetAddress', 'target'),
  row('TargetPortalGroupTag', 'target'),
  row('SendTargets', 'full-feature'),
]

const KEYS: ReadonlyMap<string, KeyRow> = new Map(KEY_TABLE.map((key) => [key.name, key]))
const ORDER: ReadonlyMap<string, number> = new Map(KEY_TABLE.map((key, i) => [key.name, i]))

/** The row of a key; names are case-sensitive. Undefined: NotUnderstood. */
export function findKey(name: string): KeyRow | undefined {
  return KEYS.get(name)
}

/** A key that the RFC leaves to vendors (`X-`) and to extensions registered elsewhere (`X#`): 6.1. */
export function isExtensionKey(name: string): boolean {
  return name.startsWith('X-') || name.startsWith('X#')
}

/**
 * A numerical value (RFC 7143, 6.1): decimal without leading zeros, or hexadecimal after 0x. Undefined for anything
 * else and for values that a number cannot hold exactly, which no key allows.
 */
export function parseNumber(text: string): number | undefined {
  if (!/^(?:0|[1-9][0-9]{0,15}|0[xX][0-9a-fA-F]{1,14})$/.test(text)) return undefined
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : undefined
}

/** A MaxRecvDataSegmentLength of the peer in bytes, undefined when it is out of range. */
export function parseSegmentLength(text: string): number | undefined {
  const value = parseNumber(text)
  return value !== undefined && value >= LENGTH_MIN_BYTES && value <= LENGTH_MAX_BYTES
    ? value
    : undefined
}

/** The operational negotiation of one login. Keys that the peer does not mention keep their defaults. */
export class OperationalNegotiation {
  readonly #offered: OfferedParameters
  readonly #discovery: boolean
  readonly #agreed: Mutable<SessionParameters> = { ...DEFAULT_PARAMETERS }
  #declared = false

  constructor(offered: OfferedParameters, sessionType: 'normal' | 'discovery') {
    this.#offered = offered
    this.#discovery = sessionType === 'discovery'
  }

  /**
   * Answers the operational keys of one request, in the peer's order. Pairs of other keys have no business here and
   * are ignored; that a key comes once is the caller's check.
   */
  answer(pairs: readonly TextPair[]): TextPair[] {
    const answers = new Map<string, string>()
    const byTable = [...pairs].sort(([a], [b]) => (ORDER.get(a) ?? 0) - (ORDER.get(b) ?? 0))
    for (const [name, value] of byTable) {
      const key = findKey(name)
      if (!key?.negotiate) continue
      const answer =
        this.#discovery && key.irrelevantInDiscovery
          ? IRRELEVANT
          : Buffer.byteLength(value) > key.valueBytes
            ? REJECT
            : key.negotiate(value, { offered: this.#offered, agreed: this.#agreed })
      if (answer !== undefined) answers.set(name, answer)
    }
    return pairs.flatMap(([name]): TextPair[] => {
      const answer = answers.get(name)
      return answer === undefined ? [] : [[name, answer]]
    })
  }

  /** What this side declares of itself in the operational stage: once, then nothing. */
  declare(): TextPair[] {
    if (this.#declared) return []
    this.#declared = true
    this.#agreed.receiveSegmentBytes = this.#offered.receiveSegmentBytes
    return [['MaxRecvDataSegmentLength', String(this.#offered.receiveSegmentBytes)]]
  }

  /**
   * Why the session must not begin on what was agreed, or undefined: a digest that this side insists on was refused or
   * never proposed. Discovery sessions move no data and are let through.
   */
  unmetDemand(): string | undefined {
    if (this.#discovery) return undefined
    const demands = [
      ['HeaderDigest', this.#offered.headerDigests, this.#agreed.headerDigest],
      ['DataDigest', this.#offered.dataDigests, this.#agreed.dataDigest],
    ] as const
    for (const [name, permitted, agreed] of demands) {
      const outcome: DigestChoice = agreed ? 'CRC32C' : 'None'
      if (!permitted.includes(outcome)) {
        return `the portal demands ${name}=${permitted.join(',')}, the initiator did not agree to it`
      }
    }
    return undefined
  }

  /** The agreed parameters, legal whatever the peer sent. */
  result(): SessionParameters {
    const parameters: SessionParameters = Object.freeze({
      ...this.#agreed,
      // MaxBurstLength may have been lowered below a FirstBurstLength that was agreed earlier or not mentioned.
      firstBurstBytes: Math.min(this.#agreed.firstBurstBytes, this.#agreed.maxBurstBytes),
    })
    assertSessionParameters(parameters)
    return parameters
  }
}
