/**
 * CHAP (RFC 1994, RFC 7143, 12.1.3 and 9.2.1): the binary encodings, the response, and the target's side of the
 * exchange as a state machine without I/O. Called by the target's login and by the initiator's.
 *
 *   initiator                             target
 *   CHAP_A=8,7,6,5                  ->
 *                                   <-    CHAP_A=8 CHAP_I=… CHAP_C=…
 *   CHAP_N=… CHAP_R=…               ->                          checked here
 *     [CHAP_I=… CHAP_C=…]
 *                                   <-    [CHAP_N=… CHAP_R=…]   mutual, only after the check
 *
 * Everything that is not exactly this fails, and a failed exchange never recovers.
 */
import { createHash, getHashes, timingSafeEqual } from 'node:crypto'
import {
  CHAP_BINARY_BYTES,
  CHAP_SECRET_MAX_BYTES,
  CHAP_SECRET_MIN_BYTES,
  TEXT_VALUE_BYTES,
} from '../base/limits.ts'
import { hasControlCharacter, type TextPair } from './text.ts'
import { parseNumber } from './text-keys.ts'

/** A name and its secret. Never logged. */
export interface ChapCredentials {
  readonly user: string
  readonly secret: Buffer
  /** Numbers of the algorithms by which it may be proved; absent: all. */
  readonly algorithms?: readonly number[]
}

/** What an initiator may prove, and what the target proves to it in turn if it asks. */
export interface ChapAccount {
  readonly chap: ChapCredentials
  readonly mutual: ChapCredentials | undefined
}

export interface ChapAlgorithm {
  /** Number in CHAP_A (IANA, PPP authentication algorithms). */
  readonly id: number
  /** Name that node:crypto knows. */
  readonly hash: string
  readonly digestBytes: number
}

/** Strongest first. Which one is used is the initiator's choice (docs/adr/0009-auth-groups-and-names.md). */
export const CHAP_ALGORITHMS: readonly ChapAlgorithm[] = [
  { id: 8, hash: 'sha3-256', digestBytes: 32 },
  { id: 7, hash: 'sha256', digestBytes: 32 },
  { id: 6, hash: 'sha1', digestBytes: 20 },
  { id: 5, hash: 'md5', digestBytes: 16 },
]

/** The algorithms that this host's OpenSSL has; a FIPS one lacks MD5. */
export function availableAlgorithms(): ChapAlgorithm[] {
  const hashes = new Set(getHashes().map((name) => name.toLowerCase()))
  return CHAP_ALGORITHMS.filter((algorithm) => hashes.has(algorithm.hash))
}

/** The response to a challenge (RFC 1994, 4.1): hash over identifier, secret, challenge. */
export function chapResponse(
  algorithm: ChapAlgorithm,
  identifier: number,
  secret: Buffer,
  challenge: Buffer,
): Buffer {
  return createHash(algorithm.hash)
    .update(Buffer.of(identifier))
    .update(secret)
    .update(challenge)
    .digest()
}

/** A binary value as text: `0x` and hexadecimal digits. libiscsi reads no other form. */
export function encodeBinary(bytes: Buffer): string {
  return `0x${bytes.toString('hex')}`
}

/**
 * A binary value (RFC 7143, 6.1): `0x` and an even number of hexadecimal digits, or `0b` and canonical, padded base64.
 * Undefined for other forms, for no bytes, and for more than `maxBytes`.
 */
export function decodeBinary(text: string, maxBytes: number): Buffer | undefined {
  const prefix = text.slice(0, 2).toLowerCase()
  const digits = text.slice(2)
  if (prefix === '0x') {
    if (digits.length === 0 || digits.length > 2 * maxBytes) return undefined
    if (digits.length % 2 !== 0 || !/^[0-9a-fA-F]+$/.test(digits)) return undefined
    return Buffer.from(digits, 'hex')
  }
  if (prefix === '0b') {
    if (digits.length === 0 || digits.length > 4 * Math.ceil(maxBytes / 3)) return undefined
    const bytes = Buffer.from(digits, 'base64')
    // Node skips what is no base64; only canonical text survives the way back.
    if (bytes.length > maxBytes || bytes.toString('base64') !== digits) return undefined
    return bytes
  }
  return undefined
}

/** What is wrong with credentials from the configuration, or undefined. Names no part of the secret. */
export function chapCredentialsProblem(credentials: ChapCredentials): string | undefined {
  const { user, secret } = credentials
  if (user.length === 0 || Buffer.byteLength(user) > TEXT_VALUE_BYTES) {
    return `a CHAP user name has 1 to ${TEXT_VALUE_BYTES} bytes`
  }
  if (hasControlCharacter(user)) return 'a CHAP user name has no control characters'
  if (secret.length < CHAP_SECRET_MIN_BYTES || secret.length > CHAP_SECRET_MAX_BYTES) {
    return (
      `the CHAP secret of "${user}" has ${secret.length} bytes; use ${CHAP_SECRET_MIN_BYTES} to ` +
      `${CHAP_SECRET_MAX_BYTES} (Windows takes 12 to 16)`
    )
  }
  return undefined
}

/** Result of one step: the pairs to answer, or why the login must end. The reason is for the log only. */
export type ChapStep =
  | { readonly pairs: readonly TextPair[]; readonly authenticated: boolean }
  | { readonly failure: string }

type ChapState =
  | { readonly name: 'algorithm' }
  | {
      readonly name: 'response'
      readonly algorithm: ChapAlgorithm
      readonly identifier: number
      readonly challenge: Buffer
    }
  | { readonly name: 'done'; readonly account: ChapAccount; readonly algorithm: ChapAlgorithm }
  | { readonly name: 'failed' }

/** The target's side of one CHAP exchange. */
export class ChapTarget {
  readonly #accounts: readonly ChapAccount[]
  readonly #random: (bytes: number) => Buffer
  #state: ChapState = { name: 'algorithm' }

  /** The initiator must prove one of `accounts`: its CHAP_N says which. */
  constructor(init: {
    readonly accounts: readonly ChapAccount[]
    readonly random: (bytes: number) => Buffer
  }) {
    this.#accounts = init.accounts
    this.#random = init.random
  }

  /** What the initiator has proved: that it knows the secret of a user. */
  get proof():
    | { readonly user: string; readonly secret: Buffer; readonly algorithm: number }
    | undefined {
    const state = this.#state
    if (state.name !== 'done') return undefined
    const { user, secret } = state.account.chap
    return { user, secret, algorithm: state.algorithm.id }
  }

  /** Takes all CHAP keys of one request, at least one. */
  step(keys: ReadonlyMap<string, string>): ChapStep {
    const state = this.#state
    // Whatever goes wrong below leaves the exchange failed.
    this.#state = { name: 'failed' }
    if (state.name === 'algorithm') return this.#chooseAlgorithm(keys)
    if (state.name === 'response') return this.#checkResponse(keys, state)
    return {
      failure: `CHAP keys after the exchange has ${state.name === 'done' ? 'ended' : state.name}`,
    }
  }

  #chooseAlgorithm(keys: ReadonlyMap<string, string>): ChapStep {
    const offer = keys.get('CHAP_A')
    if (offer === undefined || keys.size !== 1) {
      return { failure: `CHAP begins with CHAP_A alone, not with ${[...keys.keys()].join(', ')}` }
    }
    const algorithm = this.#firstPermitted(offer.split(',').map(parseNumber))
    if (!algorithm) return { failure: `CHAP_A=${offer} has ${this.#wanted()}` }
    const identifier = this.#random(1).readUInt8(0)
    const challenge = this.#random(algorithm.digestBytes)
    this.#state = { name: 'response', algorithm, identifier, challenge }
    return {
      pairs: [
        ['CHAP_A', String(algorithm.id)],
        ['CHAP_I', String(identifier)],
        ['CHAP_C', encodeBinary(challenge)],
      ],
      authenticated: false,
    }
  }

  /**
   * The first that the initiator lists and that is permitted (RFC 7143, 6.2.1 and 12.1.3). Who it is comes later: what all
   * accounts permit goes before what only some do.
   */
  #firstPermitted(offered: readonly (number | undefined)[]): ChapAlgorithm | undefined {
    const available = availableAlgorithms()
    const listed = offered.flatMap((id) => available.find((one) => one.id === id) ?? [])
    const accounts = this.#accounts
    return (
      listed.find((one) => accounts.every(({ chap }) => permits(chap, one))) ??
      listed.find((one) => accounts.some(({ chap }) => permits(chap, one)))
    )
  }

  #wanted(): string {
    const permitted = availableAlgorithms().filter((one) =>
      this.#accounts.some(({ chap }) => permits(chap, one)),
    )
    return `no algorithm that is permitted: ${permitted.map(({ id, hash }) => `${id} (${hash})`).join(', ')}`
  }

  #checkResponse(
    keys: ReadonlyMap<string, string>,
    state: Extract<ChapState, { name: 'response' }>,
  ): ChapStep {
    const name = keys.get('CHAP_N')
    const response = keys.get('CHAP_R')
    if (name === undefined || response === undefined || keys.has('CHAP_A')) {
      return { failure: 'the CHAP response lacks CHAP_N or CHAP_R, or has CHAP_A' }
    }
    const { algorithm, identifier, challenge } = state
    const bytes = decodeBinary(response, algorithm.digestBytes)
    if (bytes?.length !== algorithm.digestBytes) {
      return { failure: `CHAP_R is not ${algorithm.digestBytes} bytes in 0x or 0b form` }
    }
    // All comparisons always run, so that timing tells nothing about which one failed.
    const judged = this.#accounts.map((account) => ({
      account,
      isNamed: equalText(name, account.chap.user),
      isProved: timingSafeEqual(
        bytes,
        chapResponse(algorithm, identifier, account.chap.secret, challenge),
      ),
    }))
    const named = judged.filter(({ isNamed }) => isNamed)
    const proved = named.find(({ isProved }) => isProved)
    if (named.length === 0)
      return { failure: `CHAP user "${name}" is not admitted under this name` }
    if (!proved) return { failure: `wrong CHAP response from user "${name}"` }
    const { account } = proved
    if (!permits(account.chap, algorithm)) {
      return { failure: `CHAP with ${algorithm.hash} is not permitted to user "${name}"` }
    }
    const answer = answerMutual(keys, state, account)
    if (!('failure' in answer)) this.#state = { name: 'done', account, algorithm }
    return answer
  }
}

function permits({ algorithms }: ChapCredentials, { id }: ChapAlgorithm): boolean {
  return algorithms?.includes(id) ?? true
}

/** The target's proof in return, where the initiator asks for one. */
function answerMutual(
  keys: ReadonlyMap<string, string>,
  state: Extract<ChapState, { name: 'response' }>,
  { chap, mutual }: ChapAccount,
): ChapStep {
  const identifierText = keys.get('CHAP_I')
  const challengeText = keys.get('CHAP_C')
  if (identifierText === undefined && challengeText === undefined) {
    return { pairs: [], authenticated: true }
  }
  if (identifierText === undefined || challengeText === undefined) {
    return { failure: 'mutual CHAP needs both CHAP_I and CHAP_C' }
  }
  if (!mutual) {
    return { failure: 'the initiator asks for mutual CHAP, which is not configured here' }
  }
  const identifier = parseNumber(identifierText)
  const challenge = decodeBinary(challengeText, CHAP_BINARY_BYTES)
  if (identifier === undefined || identifier > 255 || challenge === undefined) {
    return { failure: 'CHAP_I or CHAP_C of the initiator is malformed' }
  }
  if (challenge.equals(state.challenge)) {
    return { failure: "the initiator reflects the target's own CHAP challenge" }
  }
  // RFC 7143, 9.2.1: one secret for both directions lets either side replay the other's answers.
  if (equalBytes(mutual.secret, chap.secret)) {
    return { failure: 'the CHAP secrets of initiator and target are the same' }
  }
  const response = chapResponse(state.algorithm, identifier, mutual.secret, challenge)
  return {
    pairs: [
      ['CHAP_N', mutual.user],
      ['CHAP_R', encodeBinary(response)],
    ],
    authenticated: true,
  }
}

/** Compares in a time that does not depend on the contents: digests have one length. */
function equalBytes(a: Buffer, b: Buffer): boolean {
  return timingSafeEqual(
    createHash('sha256').update(a).digest(),
    createHash('sha256').update(b).digest(),
  )
}

function equalText(a: string, b: string): boolean {
  return equalBytes(Buffer.from(a, 'utf8'), Buffer.from(b, 'utf8'))
}

/** Do two credentials share their secret? The configuration refuses that for a target and its initiators. */
export function sameSecret(
  a: { readonly secret: Buffer },
  b: { readonly secret: Buffer },
): boolean {
  return equalBytes(a.secret, b.secret)
}
