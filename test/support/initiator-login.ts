/**
 * The login phase of the test initiator (RFC 7143, 6.3 and 12.1): stages, text that runs over several
 * PDUs (C bit), CHAP in one and in both directions, and checks on what the target answers. Used by
 * test/support/initiator.ts, and bare where a test looks at a login itself.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import {
  AT,
  CONTINUE,
  decodeText,
  encodeText,
  FINAL,
  IMMEDIATE,
  newHeader,
  OP,
  opcodeOf,
  type Pdu,
  serialLess,
  serialNext,
} from './initiator-pdu.ts'
import { WIRE_TIMEOUT_MS, type Wire } from './initiator-wire.ts'

export interface ChapCredentials {
  readonly user: string
  readonly secret: string
}

export interface LoginOptions {
  readonly initiatorName?: string
  /** Absent in a discovery session. */
  readonly targetName?: string
  readonly discovery?: boolean
  readonly isid?: Buffer
  readonly tsih?: number
  readonly cid?: number
  readonly cmdSn?: number
  /** AuthMethod offered; without it `CHAP` where credentials are given, else `None`. */
  readonly authMethod?: string
  readonly chap?: ChapCredentials
  /** CHAP_A offered; default SHA-256, then MD5. */
  readonly algorithms?: string
  /** What the target has to prove in turn. */
  readonly mutual?: ChapCredentials
  /** Begin in the operational stage. */
  readonly skipSecurity?: boolean
  /** Operational keys over the defaults; undefined leaves one out. */
  readonly keys?: Readonly<Record<string, string | undefined>>
  /** Cut the text of each request into PDUs of this size, joined by the C bit. */
  readonly pieceBytes?: number
  readonly timeoutMs?: number
}

/** What the login ended with, as seen from the initiator. Lengths in bytes. */
export interface LoginResult {
  readonly tsih: number
  readonly isid: Buffer
  readonly cid: number
  readonly cmdSn: number
  /** The next StatSN that the target has to use. */
  readonly expStatSn: number
  readonly expCmdSn: number
  readonly maxCmdSn: number
  readonly answers: ReadonlyMap<string, string>
  readonly headerDigest: boolean
  readonly dataDigest: boolean
  /** The target's MaxRecvDataSegmentLength. */
  readonly sendSegmentBytes: number
  readonly receiveSegmentBytes: number
  readonly maxBurstBytes: number
  readonly firstBurstBytes: number
  readonly initialR2t: boolean
  readonly immediateData: boolean
  readonly maxOutstandingR2t: number
}

/** The target answered with a status class other than success. */
export class LoginRefused extends Error {
  readonly statusClass: number
  readonly statusDetail: number

  constructor(statusClass: number, statusDetail: number) {
    const hex = (n: number) => n.toString(16).padStart(2, '0')
    super(`login refused with status ${hex(statusClass)}${hex(statusDetail)}h`)
    this.statusClass = statusClass
    this.statusDetail = statusDetail
  }
}

const STAGE = { SECURITY: 0, OPERATIONAL: 1, FULL_FEATURE: 3 } as const
const CHAP_HASHES: Readonly<Record<string, string>> = {
  '5': 'md5',
  '6': 'sha1',
  '7': 'sha256',
  '8': 'sha3-256',
}

/** What open-iscsi proposes by default, with bursts that a test can fill. */
export const DEFAULT_KEYS: Readonly<Record<string, string>> = {
  HeaderDigest: 'None',
  DataDigest: 'None',
  DefaultTime2Wait: '2',
  DefaultTime2Retain: '0',
  IFMarker: 'No',
  OFMarker: 'No',
  ErrorRecoveryLevel: '0',
  InitialR2T: 'No',
  ImmediateData: 'Yes',
  MaxBurstLength: '16776192',
  FirstBurstLength: '262144',
  MaxOutstandingR2T: '1',
  MaxConnections: '1',
  DataPDUInOrder: 'Yes',
  DataSequenceInOrder: 'Yes',
  MaxRecvDataSegmentLength: '262144',
}

export const INITIATOR_NAME = 'iqn.2026-11.test.plexus:initiator'

/** An ISID of the random format (RFC 7143, 11.12.5). */
export function randomIsid(): Buffer {
  const isid = randomBytes(6)
  isid[0] = 0x80
  return isid
}

interface Exchange {
  readonly transit: boolean
  readonly nextStage: number
  readonly pairs: [string, string][]
}

class LoginPhase {
  readonly #wire: Wire
  readonly #options: LoginOptions
  readonly isid: Buffer
  readonly cid: number
  readonly cmdSn: number
  tsih: number
  expStatSn: number | undefined
  expCmdSn = 0
  maxCmdSn = 0
  /** A response has said what MaxCmdSN is. */
  #counted = false
  readonly answers = new Map<string, string>()

  constructor(wire: Wire, options: LoginOptions) {
    this.#wire = wire
    this.#options = options
    this.isid = options.isid ?? randomIsid()
    this.cid = options.cid ?? 0
    this.cmdSn = options.cmdSn ?? 1
    this.tsih = options.tsih ?? 0
  }

  /** Sends text in one stage and gathers the answer, over as many PDUs as either side needs. */
  async exchange(
    stage: number,
    next: number | undefined,
    pairs: [string, string][],
  ): Promise<Exchange> {
    const text = encodeText(pairs)
    const piece = this.#options.pieceBytes ?? text.length
    let at = 0
    while (at + piece < text.length) {
      const reply = await this.#round(stage, undefined, text.subarray(at, at + piece), true)
      check(reply.data.length === 0, 'the target answered text before the C bit was cleared')
      at += piece
    }
    let reply = await this.#round(stage, next, text.subarray(at), false)
    const parts = [reply.data]
    while ((reply.header[AT.FLAGS] ?? 0) & CONTINUE) {
      check(parts.length < 64, 'the target continues its text without end')
      reply = await this.#round(stage, next, Buffer.alloc(0), false)
      parts.push(reply.data)
    }
    const answered = decodeText(Buffer.concat(parts))
    for (const [key, value] of answered) this.answers.set(key, value)
    const flags = reply.header[AT.FLAGS] ?? 0
    const transit = (flags & FINAL) !== 0
    check(((flags >> 2) & 3) === stage, `CSG is ${(flags >> 2) & 3} in stage ${stage}`)
    if (transit) check(next !== undefined, 'the target transits without being asked')
    return { transit, nextStage: flags & 3, pairs: answered }
  }

  async #round(
    stage: number,
    next: number | undefined,
    data: Buffer,
    continued: boolean,
  ): Promise<Pdu> {
    const transit = next === undefined ? 0 : FINAL | next
    const header = newHeader(
      OP.LOGIN | IMMEDIATE,
      (continued ? CONTINUE : transit) | (stage << 2),
      0,
    )
    this.isid.copy(header, 8)
    header.writeUInt16BE(this.tsih, 14)
    header.writeUInt16BE(this.cid, 20)
    header.writeUInt32BE(this.cmdSn, AT.CMD_SN)
    header.writeUInt32BE(this.expStatSn ?? 0, AT.EXP_STAT_SN)
    this.#wire.send(header, data)
    const reply = await this.#wire.next(this.#options.timeoutMs ?? WIRE_TIMEOUT_MS)
    this.#checkReply(reply)
    return reply
  }

  #checkReply(reply: Pdu): void {
    const { header } = reply
    check(opcodeOf(reply) === OP.LOGIN_RESPONSE, `opcode ${opcodeOf(reply)} answers a login`)
    check(header.readUInt32BE(AT.TAG) === 0, 'a login response has the tag of its request')
    check(header[3] === 0, 'the active version is 0')
    const [statusClass = 0, statusDetail = 0] = header.subarray(36, 38)
    const statSn = header.readUInt32BE(AT.STAT_SN)
    if (this.expStatSn !== undefined && statusClass === 0) {
      check(statSn === this.expStatSn, `login StatSN ${statSn}, not ${this.expStatSn}`)
    }
    this.expStatSn = serialNext(statSn)
    if (statusClass !== 0) throw new LoginRefused(statusClass, statusDetail)
    check(header.subarray(8, 14).equals(this.isid), 'a login response repeats the ISID')
    this.expCmdSn = header.readUInt32BE(AT.EXP_CMD_SN)
    const maxCmdSn = header.readUInt32BE(AT.MAX_CMD_SN)
    check(
      !this.#counted || !serialLess(maxCmdSn, this.maxCmdSn),
      `MaxCmdSN went back from ${this.maxCmdSn} to ${maxCmdSn}`,
    )
    this.maxCmdSn = maxCmdSn
    this.#counted = true
    check(this.expCmdSn === this.cmdSn, 'a login is immediate: ExpCmdSN is the CmdSN of the login')
    const flags = header[AT.FLAGS] ?? 0
    if ((flags & FINAL) !== 0 && (flags & 3) === STAGE.FULL_FEATURE) {
      this.tsih = header.readUInt16BE(14)
      check(this.tsih !== 0, 'the last login response has a TSIH')
    }
  }
}

function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`login: ${message}`)
}

/**
 * Logs in on a fresh connection. Rejects with {@link LoginRefused} where the target refuses, with an Error
 * where it breaks the protocol. Afterwards the wire uses the digests that were agreed on.
 */
export async function login(wire: Wire, options: LoginOptions): Promise<LoginResult> {
  const phase = new LoginPhase(wire, options)
  const first: [string, string][] = [
    ['InitiatorName', options.initiatorName ?? INITIATOR_NAME],
    ['SessionType', options.discovery ? 'Discovery' : 'Normal'],
  ]
  if (options.targetName !== undefined) first.push(['TargetName', options.targetName])
  if (!options.skipSecurity) {
    await security(phase, options, first)
    first.length = 0
  }
  const wanted: Record<string, string | undefined> = { ...DEFAULT_KEYS, ...options.keys }
  for (const [key, value] of Object.entries(wanted)) {
    if (value !== undefined) first.push([key, value])
  }
  let step = await phase.exchange(STAGE.OPERATIONAL, STAGE.FULL_FEATURE, first)
  for (let round = 0; !step.transit; round++) {
    check(round < 8, 'the target never transits to the full feature phase')
    step = await phase.exchange(STAGE.OPERATIONAL, STAGE.FULL_FEATURE, [])
  }
  check(step.nextStage === STAGE.FULL_FEATURE, 'the operational stage leads to full feature')
  const result = outcome(phase, wanted)
  wire.cutter.digests = { header: result.headerDigest, data: result.dataDigest }
  wire.cutter.segmentLimitBytes = result.receiveSegmentBytes
  return result
}

async function security(
  phase: LoginPhase,
  options: LoginOptions,
  first: [string, string][],
): Promise<void> {
  const { chap } = options
  const method = options.authMethod ?? (chap ? 'CHAP' : 'None')
  const begin: [string, string][] = [...first, ['AuthMethod', method]]
  const toOperational = method === 'None' ? STAGE.OPERATIONAL : undefined
  let step = await phase.exchange(STAGE.SECURITY, toOperational, begin)
  const chosen = phase.answers.get('AuthMethod')
  if (chosen === 'CHAP') {
    check(chap !== undefined, 'the target wants CHAP without being offered it')
    step = await chapRounds(phase, options, chap)
  } else {
    check(chosen === 'None', `AuthMethod=${chosen} was not offered`)
  }
  for (let round = 0; !step.transit; round++) {
    check(round < 8, 'the target never leaves the security stage')
    step = await phase.exchange(STAGE.SECURITY, STAGE.OPERATIONAL, [])
  }
}

async function chapRounds(
  phase: LoginPhase,
  options: LoginOptions,
  chap: ChapCredentials,
): Promise<Exchange> {
  await phase.exchange(STAGE.SECURITY, undefined, [['CHAP_A', options.algorithms ?? '7,5']])
  const algorithm = phase.answers.get('CHAP_A') ?? ''
  const hash = CHAP_HASHES[algorithm]
  check(hash !== undefined, `CHAP_A=${algorithm} is no algorithm that was offered`)
  const id = Number(phase.answers.get('CHAP_I'))
  const challenge = parseBinary(phase.answers.get('CHAP_C') ?? '')
  check(Number.isInteger(id) && id >= 0 && id < 256, 'CHAP_I is one byte')
  check(challenge.length >= 16, `a challenge of ${challenge.length} bytes is weak`)
  const answer: [string, string][] = [
    ['CHAP_N', chap.user],
    ['CHAP_R', `0x${chapResponse(hash, id, chap.secret, challenge).toString('hex')}`],
  ]
  const ourId = randomBytes(1)[0] ?? 0
  const ourChallenge = randomBytes(32)
  if (options.mutual) {
    answer.push(['CHAP_I', String(ourId)], ['CHAP_C', `0x${ourChallenge.toString('hex')}`])
  }
  const step = await phase.exchange(STAGE.SECURITY, STAGE.OPERATIONAL, answer)
  if (options.mutual) {
    const proof = parseBinary(phase.answers.get('CHAP_R') ?? '')
    const expected = chapResponse(hash, ourId, options.mutual.secret, ourChallenge)
    check(phase.answers.get('CHAP_N') === options.mutual.user, 'the target has another name')
    check(
      proof.length === expected.length && timingSafeEqual(proof, expected),
      'the target does not know the mutual secret',
    )
  }
  return step
}

/** RFC 1994, 4.1: hash over identifier, secret and challenge. */
export function chapResponse(hash: string, id: number, secret: string, challenge: Buffer): Buffer {
  return createHash(hash)
    .update(Buffer.from([id]))
    .update(secret)
    .update(challenge)
    .digest()
}

/** A binary value of a text key (RFC 7143, 6.1): 0x and hex digits, or 0b and base64. */
export function parseBinary(value: string): Buffer {
  if (/^0x([0-9a-f]{2})+$/i.test(value)) return Buffer.from(value.slice(2), 'hex')
  if (/^0b[A-Za-z0-9+/]+=*$/i.test(value)) return Buffer.from(value.slice(2), 'base64')
  throw new Error(`login: "${value}" is no binary value`)
}

function outcome(
  phase: LoginPhase,
  wanted: Readonly<Record<string, string | undefined>>,
): LoginResult {
  /** Smaller of the two sides; RFC default where the key was not exchanged. */
  const least = (key: string, fallback: number): number => {
    const offered = wanted[key]
    const answer = phase.answers.get(key)
    if (offered === undefined || answer === undefined || answer === 'Irrelevant') return fallback
    const value = Number(answer)
    check(Number.isInteger(value) && value >= 1, `${key}=${answer} is no number`)
    check(value <= Number(offered), `${key}=${answer} is above the ${offered} that was offered`)
    return value
  }
  const flag = (key: string, fallback: boolean, either: boolean): boolean => {
    const offered = wanted[key]
    const answer = phase.answers.get(key)
    if (offered === undefined || answer === undefined || answer === 'Irrelevant') return fallback
    check(answer === 'Yes' || answer === 'No', `${key}=${answer} is no boolean`)
    if ((offered === 'Yes') === either) {
      check((answer === 'Yes') === either, `${key}=${answer} against ${offered}`)
    }
    return answer === 'Yes'
  }
  const digest = (key: string): boolean => {
    const offered = (wanted[key] ?? 'None').split(',')
    const answer = phase.answers.get(key) ?? 'None'
    check(offered.includes(answer), `${key}=${answer} was not offered`)
    return answer === 'CRC32C'
  }
  const firstBurstBytes = least('FirstBurstLength', 65536)
  const maxBurstBytes = least('MaxBurstLength', 262144)
  const { tsih, isid, cid, cmdSn, expStatSn, expCmdSn, maxCmdSn, answers } = phase
  check(expStatSn !== undefined, 'no response came')
  return {
    tsih,
    isid,
    cid,
    cmdSn,
    expStatSn,
    expCmdSn,
    maxCmdSn,
    answers,
    headerDigest: digest('HeaderDigest'),
    dataDigest: digest('DataDigest'),
    sendSegmentBytes: Number(answers.get('MaxRecvDataSegmentLength') ?? 8192),
    receiveSegmentBytes: Number(wanted['MaxRecvDataSegmentLength'] ?? 8192),
    maxBurstBytes,
    firstBurstBytes: Math.min(firstBurstBytes, maxBurstBytes),
    initialR2t: flag('InitialR2T', true, true),
    immediateData: flag('ImmediateData', true, false),
    maxOutstandingR2t: least('MaxOutstandingR2T', 1),
  }
}
