/**
 * The login phase of a connection (RFC 7143, 6.3, 11.12 and 11.13): login PDUs in and out. What the text
 * in them means is decided by LoginNegotiation (login.ts). Hostile input ends here: anything but a login
 * request as the first PDU closes the connection without an answer.
 */
import { randomBytes } from 'node:crypto'
import { COMMAND_WINDOW_MIN } from '../../base/limits.ts'
import {
  cmdSn,
  dataSegmentBytes,
  initiatorTaskTag,
  isImmediate,
  OPCODE,
  opcodeOf,
  putHeader,
  putU32,
  serialAdd,
} from '../../iscsi/pdu.ts'
import type { Connection } from './connection.ts'
import { LoginNegotiation } from './login.ts'
import { LOGIN_STATUS } from './login-identity.ts'
import type { LoginReply } from './login-messages.ts'

/** Why a login that passed all checks got no session, by its status. */
const REFUSALS: ReadonlyMap<number, string> = new Map([
  [
    LOGIN_STATUS.OUT_OF_RESOURCES,
    'the places for sessions are taken; see limits in plexus.yaml: sessions, sessionsPerAddress',
  ],
  [LOGIN_STATUS.SERVICE_UNAVAILABLE, 'the target shuts down, or was reconfigured meanwhile'],
  [
    LOGIN_STATUS.AUTHORIZATION_FAILURE,
    'a session with this initiator name and ISID belongs to another CHAP user',
  ],
])

export class LoginExchange {
  readonly #connection: Connection
  #negotiation: LoginNegotiation | undefined
  #statSn = 0
  #cmdSn = 0
  #itt = 0

  constructor(connection: Connection) {
    this.#connection = connection
  }

  header(bhs: Buffer): boolean {
    const connection = this.#connection
    if (opcodeOf(bhs) !== OPCODE.LOGIN || !isImmediate(bhs)) {
      connection.fail('a PDU that is no login request came before the login')
      return false
    }
    connection.keepData(dataSegmentBytes(bhs))
    return true
  }

  complete(): void {
    const connection = this.#connection
    const bhs = connection.bhs
    const flags = bhs[1] as number
    if (this.#negotiation === undefined) {
      this.#itt = initiatorTaskTag(bhs)
      this.#cmdSn = cmdSn(bhs)
      connection.cid = bhs.readUInt16BE(20)
      const { host, stream } = connection
      this.#negotiation = new LoginNegotiation({
        registry: host.registry,
        portalGroup: connection.group,
        localAddress: stream.localAddress,
        remoteAddress: stream.remoteAddress,
        log: connection.log,
        random: randomBytes,
        hasSession: (name, isid, tsih) => host.hasSession(name, isid, tsih),
      })
    } else if (initiatorTaskTag(bhs) !== this.#itt) {
      connection.fail('the initiator task tag changed during the login')
      return
    }
    const reply = this.#negotiation.handle({
      transit: (flags & 0x80) !== 0,
      continued: (flags & 0x40) !== 0,
      csg: (flags >> 2) & 3,
      nsg: flags & 3,
      versionMax: bhs[2] as number,
      versionMin: bhs[3] as number,
      isid: Buffer.from(bhs.subarray(8, 14)),
      tsih: bhs.readUInt16BE(14),
      cid: bhs.readUInt16BE(20),
      text: connection.data ?? Buffer.alloc(0),
    })
    if (reply.outcome === undefined) {
      this.#answer(reply, bhs.readUInt16BE(14))
      if (reply.statusClass >= 2) this.#refused(reply)
      return
    }
    const { outcome } = reply
    const statSn = serialAdd(this.#statSn, 1)
    connection.host.establish(connection, outcome, this.#cmdSn, statSn, (session) => {
      if (typeof session === 'number') {
        const status = { statusClass: session >> 8, statusDetail: session & 0xff }
        const refusal = { ...reply, ...status, transit: false, text: Buffer.alloc(0) }
        this.#answer(refusal, 0)
        this.#refused(refusal)
        return
      }
      this.#answer(reply, session.tsih, session.maxCmdSn)
      connection.enterFullFeaturePhase(session)
    })
  }

  #refused(reply: LoginReply): void {
    const connection = this.#connection
    const status = (reply.statusClass << 8) | reply.statusDetail
    const reason = this.#negotiation?.lastFailure ?? REFUSALS.get(status) ?? 'out of resources'
    const initiator = this.#negotiation?.initiatorName
    const target = this.#negotiation?.target?.name
    const shown = status.toString(16).padStart(4, '0')
    connection.complain(
      { event: 'login-refused', status: shown, initiator, target, reason },
      `a login was refused: ${reason}`,
    )
    connection.host.events.refused({ initiator, target, address: connection.address }, reason)
    connection.host.loginEnded(connection)
    connection.end(`login refused: ${reason}`)
  }

  #answer(reply: LoginReply, tsih: number, maxCmdSn?: number): void {
    const { writer, bhs } = this.#connection
    const to = writer.begin()
    const at = writer.headerAt
    const failed = reply.statusClass !== 0
    const stages = (reply.csg << 2) | (reply.transit ? reply.nsg : 0)
    const flags = failed ? 0 : (reply.transit ? 0x80 : 0) | (reply.continued ? 0x40 : 0) | stages
    const text = failed ? Buffer.alloc(0) : reply.text
    putHeader(to, at, OPCODE.LOGIN_RESPONSE, flags, text.length, this.#itt)
    // Version-max and version-active are both 0, the only version (RFC 7143, 11.13.2).
    bhs.copy(to, at + 8, 8, 14)
    to.writeUInt16BE(tsih, at + 14)
    if (!failed) {
      putU32(to, at + 24, this.#statSn)
      this.#statSn = serialAdd(this.#statSn, 1)
    }
    putU32(to, at + 28, this.#cmdSn)
    // Before the session stands, only the window that it has at least: MaxCmdSN never goes back (RFC 7143, 4.2.2.1).
    putU32(to, at + 32, maxCmdSn ?? serialAdd(this.#cmdSn, COMMAND_WINDOW_MIN - 1))
    to[at + 36] = reply.statusClass
    to[at + 37] = reply.statusDetail
    writer.endWith(text, 0, text.length)
    this.#connection.planFlush()
  }
}
