/**
 * One iSCSI connection: from accept through login to the full feature phase and its end (RFC 7143, 5 to
 * 7). It owns the stream, the PDU reader and writer, and the session once there is one; what a PDU means
 * is in opcode-table.ts and the handlers named there. Made by portal.ts.
 */
import type net from 'node:net'
import { assert } from '../../base/assert.ts'
import type { Clock } from '../../base/clock.ts'
import {
  AWAKE_COMMANDS,
  KIB,
  LOGIN_SEGMENT_BYTES,
  SEND_QUEUE_BYTES,
  SEND_QUEUE_BYTES_MIN,
  SEND_QUEUES_BYTES,
} from '../../base/limits.ts'
import type { Logger } from '../../base/log.ts'
import type { LogLimit } from '../../base/log-limit.ts'
import { formatAddress, networkOf, plainAddress } from '../../base/network.ts'
import type { BufferPool } from '../../hal/block-device.ts'
import {
  AHS_BYTES_MAX,
  ASYNC_EVENT,
  BHS_BYTES,
  OPCODE,
  opcodeOf,
  putHeader,
  putSequence,
  putU32,
  RESERVED_TAG,
} from '../../iscsi/pdu.ts'
import { type PduFault, PduReader } from '../../iscsi/pdu-reader.ts'
import { type Batch, PduWriter } from '../../iscsi/pdu-writer.ts'
import { TextAssembler } from '../../iscsi/text.ts'
import type { DeviceServer } from '../scsi/types.ts'
import type { CommandTask } from './command-task.ts'
import { dataOut } from './command-transfer.ts'
import { Liveness } from './liveness.ts'
import { LoginExchange } from './login-exchange.ts'
import type { LoginOutcome } from './login-messages.ts'
import { OPCODE_TABLE, type OpcodeHandler } from './opcode-table.ts'
import type { PeerEvents } from './peer-events.ts'
import type { PendingLogin } from './pending-logins.ts'
import type { Session } from './session.ts'
import type { PlaceHolder } from './session-places.ts'
import { type SendQueues, SocketStream, type StreamOwner } from './socket-stream.ts'
import type { PortalGroup, TargetNode, TargetRegistry } from './target-node.ts'
import { Slice, type Turns, type Worker } from './turns.ts'
import type { Wakefulness } from './wakefulness.ts'

/** Receive and staging buffers of a normal session, and of what anybody may open: logins and discovery sessions. */
const BUFFER_BYTES = 64 * KIB
const LOGIN_BUFFER_BYTES = 4 * KIB

/** What a connection needs of the server it belongs to (portal.ts). */
export interface ConnectionHost {
  readonly registry: TargetRegistry
  readonly deviceServer: DeviceServer
  readonly pool: BufferPool
  readonly clock: Clock
  readonly log: Logger
  readonly wakefulness: Wakefulness
  /** Bounds what peers can put into the log. */
  readonly complaints: LogLimit
  readonly events: PeerEvents
  readonly turns: Turns
  readonly sendQueues: SendQueues
  /**
   * Calls `done` with a session for a login that succeeded, or with a login status (class << 8 | detail) why there is none:
   * at once, later where a place may come free, or never when the connection ends meanwhile.
   */
  establish(
    connection: Connection,
    outcome: LoginOutcome,
    cmdSn: number,
    statSn: number,
    done: (result: Session | number) => void,
  ): void
  /** Does this session exist? For logins that name a TSIH. */
  hasSession(initiatorName: string, isid: Buffer, tsih: number): boolean
  /** The login phase is over, successfully or not. */
  loginEnded(connection: Connection): void
  closed(connection: Connection): void
  /** Ends all sessions of a target, after what is queued for them has been sent. */
  endSessions(target: TargetNode | undefined, reason: string): void
}

export type Phase = 'login' | 'full-feature' | 'closing'

export class Connection implements StreamOwner, Worker, PendingLogin, PlaceHolder {
  readonly host: ConnectionHost
  readonly group: PortalGroup
  readonly reader: PduReader
  readonly writer: PduWriter
  readonly stream: SocketStream
  readonly log: Logger
  /** Where the initiator is: its address, and what of it a stranger has of its own (base/network.ts). */
  readonly address: string
  readonly network: string
  phase: Phase = 'login'
  /** Set at the end of the login. */
  session: Session | undefined
  cid = 0
  /** The PDU that is being received: its header, data of a request that keeps it, and its task. */
  bhs: Buffer = Buffer.alloc(BHS_BYTES)
  data: Buffer | undefined
  task: CommandTask | undefined
  /** Text that came with the C bit, until the rest is there (RFC 7143, 6.2). */
  readonly textIn = new TextAssembler()
  /** Rest of a text answer, and the tag under which the initiator asks for it. */
  textRest: Buffer | undefined
  textTag = 0
  /** Why the connection ends, for the log. */
  endReason = 'closed by the initiator'
  readonly #login: LoginExchange
  readonly #slice: Slice
  #handler: OpcodeHandler | undefined
  /** Tasks before the present PDU. */
  #tasksBefore = 0
  #flushPlanned = false
  /** Nothing is read until the send queue has become shorter. */
  #paused = false
  readonly #liveness: Liveness
  #nextTag = 0
  /** Our last PDU is out: what still comes is read and thrown away, to see the initiator's end. */
  #ending = false

  constructor(host: ConnectionHost, accepted: net.Socket, group: PortalGroup) {
    this.host = host
    this.group = group
    this.#liveness = new Liveness(host.clock.nowMs())
    this.#slice = new Slice(host.turns, this)
    this.reader = new PduReader(
      {
        header: (bhs, ahs) => this.#onHeader(bhs, ahs),
        complete: (dataDigestOk) => this.#onComplete(dataDigestOk),
        mayGoOn: () => !this.#slice.isOver(this.host.clock.nowMs()) && this.#hasRoom(),
        fault: (fault) => this.#onFault(fault),
      },
      LOGIN_BUFFER_BYTES,
      LOGIN_SEGMENT_BYTES,
    )
    this.writer = new PduWriter((batch: Batch) => this.stream.send(batch), LOGIN_BUFFER_BYTES)
    this.stream = new SocketStream(accepted, this, host.sendQueues)
    this.address = plainAddress(this.stream.remoteAddress)
    this.network = networkOf(this.address)
    this.log = host.log.child({ remote: formatAddress(this.address, this.stream.remotePort) })
    this.#login = new LoginExchange(this)
  }

  // ---- the stream's side

  nextBuffer(): Buffer {
    return this.reader.nextBuffer()
  }

  received(count: number): boolean {
    const nowMs = this.#hear()
    this.reader.received(count)
    return this.#process(nowMs)
  }

  push(from: Buffer, start: number, end: number): boolean {
    const nowMs = this.#hear()
    this.reader.push(from, start, end)
    return this.#process(nowMs)
  }

  #hear(): number {
    const nowMs = this.host.clock.nowMs()
    this.#liveness.hear(nowMs)
    this.#slice.begin(nowMs)
    return nowMs
  }

  #process(nowMs: number): boolean {
    // Who has used up its slice waits for its turn, even with the first PDU. At the end all is thrown away as it comes.
    if (this.#isOver() || !this.#slice.isOver(nowMs)) this.reader.work()
    return this.#rest()
  }

  /** The next turn, or room in the send queue: goes on with what has been received. */
  work(): void {
    this.#slice.begin(this.host.clock.nowMs(), true)
    this.reader.work()
    if (this.#rest()) this.stream.resume()
  }

  /** After work: may more be read now? Otherwise the connection is over, or is called again. */
  #rest(): boolean {
    const { turns, wakefulness, clock } = this.host
    // Sending is a part of the work.
    if (this.#flushPlanned) this.flush()
    const nowMs = clock.nowMs()
    const isOver = this.#isOver()
    this.#paused = !isOver && !this.#hasRoom()
    const isSpent = this.#slice.end(nowMs)
    if (!isOver && !this.#paused && (this.reader.hasMore || isSpent)) {
      turns.wait(this)
      return false
    }
    turns.leave(this)
    const commands = this.session?.tasks.size ?? 0
    if (commands > 0 && commands <= AWAKE_COMMANDS) wakefulness.stay(nowMs)
    return this.#ending || !(isOver || this.#paused)
  }

  drained(): void {
    if (!this.#paused || !this.#hasRoom(2)) return
    this.#paused = false
    this.host.turns.wait(this)
  }

  closed(error: Error | undefined): void {
    this.phase = 'closing'
    this.host.turns.forget(this)
    if (error) this.endReason = error.message
    // What was on its way into a buffer, or out of one, comes to nothing.
    this.writer.flush()
    this.task?.releaseTransfer()
    this.task = undefined
    this.host.closed(this)
    this.session?.assertNothingHeld()
  }

  /**
   * An initiator that does not take its answers is not read from: back pressure instead of memory. Before a login and in
   * discovery sessions little may wait, and the less the more waits for all connections together. `part`: of how much.
   */
  #hasRoom(part = 1): boolean {
    const queued = this.stream.queuedBytes + this.writer.pendingBytes
    if (queued * part <= SEND_QUEUE_BYTES_MIN) return true
    const most = this.session?.nexus === undefined ? SEND_QUEUE_BYTES_MIN : SEND_QUEUE_BYTES
    const left = (SEND_QUEUES_BYTES - this.host.sendQueues.copiedBytes) / 2
    return queued * part < Math.max(SEND_QUEUE_BYTES_MIN, Math.min(most, left))
  }

  // ---- the reader's side

  #onHeader(bhs: Buffer, ahs: Buffer): boolean {
    this.bhs = bhs
    this.data = undefined
    this.task = undefined
    if (this.phase === 'closing') return false
    if (this.phase === 'login') {
      this.#handler = undefined
      return this.#login.header(bhs)
    }
    const handler = OPCODE_TABLE[opcodeOf(bhs)] as OpcodeHandler
    this.#handler = handler
    this.#tasksBefore = this.session?.tasks.size ?? 0
    handler.header(this, bhs, ahs)
    return !this.#isOver()
  }

  #onComplete(dataDigestOk: boolean): boolean {
    if (this.phase === 'login') this.#login.complete()
    else if (this.phase === 'full-feature') this.#handler?.complete(this, this.bhs, dataDigestOk)
    // The connection ends, and this was the last of what its task waited for.
    else this.task?.releaseTransfer()
    const hasTask = this.#handler === dataOut || this.#tasksBefore < (this.session?.tasks.size ?? 0)
    this.#slice.count(!hasTask)
    this.data = undefined
    this.task = undefined
    return !this.#isOver()
  }

  #onFault(fault: PduFault): void {
    const reasons: Readonly<Record<PduFault, string>> = {
      'header-digest': 'header digest error',
      'ahs-too-long': `additional header segments are longer than ${this.reader.ahsBytesMax} bytes`,
      'segment-too-long': `a data segment is longer than ${this.reader.segmentBytesMax} bytes`,
    }
    this.fail(reasons[fault])
  }

  #isOver(): boolean {
    return this.phase === 'closing'
  }

  // ---- for the handlers

  get established(): Session {
    assert(this.session !== undefined, 'the connection has a session')
    return this.session
  }

  /** The data segment of the current PDU shall be kept whole, for handlers of small requests. */
  keepData(bytes: number): void {
    if (bytes === 0) return
    this.data = Buffer.allocUnsafe(bytes)
    this.reader.into(this.data, 0, bytes)
  }

  /** A target transfer tag that no PDU under way uses. */
  newTag(): number {
    this.#nextTag = this.#nextTag >= 0x7fffffff ? 1 : this.#nextTag + 1
    return this.#nextTag
  }

  /** Everything that was written in this turn of the event loop leaves in one piece at its end. */
  planFlush(): void {
    if (this.#flushPlanned) return
    this.#flushPlanned = true
    process.nextTick(flushConnection, this)
  }

  flush(): void {
    this.#flushPlanned = false
    this.writer.flush()
  }

  /** Reject (RFC 7143, 11.17) of the PDU whose header is `bhs`. */
  reject(reason: number, bhs: Buffer): void {
    const session = this.established
    const to = this.writer.begin()
    const at = this.writer.headerAt
    putHeader(to, at, OPCODE.REJECT, 0x80, BHS_BYTES, RESERVED_TAG)
    to[at + 2] = reason
    putSequence(to, at, session)
    session.useStatSn()
    this.writer.endWith(bhs, 0, BHS_BYTES)
    this.planFlush()
    const opcode = opcodeOf(bhs)
    this.complain({ event: 'reject', reason, opcode }, 'a request was rejected')
  }

  /** Asynchronous message (RFC 7143, 11.9): asks for logout within `seconds`, or announces an end. */
  asyncMessage(event: number, parameter3: number): void {
    const session = this.session
    if (session === undefined || this.phase !== 'full-feature') return
    const to = this.writer.begin()
    const at = this.writer.headerAt
    putHeader(to, at, OPCODE.ASYNC_MESSAGE, 0x80, 0, RESERVED_TAG)
    putSequence(to, at, session)
    session.useStatSn()
    to[at + 36] = event
    to[at + 42] = parameter3 >> 8
    to[at + 43] = parameter3
    this.writer.end()
    this.planFlush()
  }

  requestLogout(withinSeconds: number): void {
    this.asyncMessage(ASYNC_EVENT.LOGOUT_REQUEST, withinSeconds)
  }

  /** The login succeeded: the full feature phase begins with the next PDU. */
  enterFullFeaturePhase(session: Session): void {
    this.session = session
    this.phase = 'full-feature'
    const { headerDigest, dataDigest, receiveSegmentBytes } = session.parameters
    this.reader.headerDigest = headerDigest
    this.reader.dataDigest = dataDigest
    this.reader.segmentBytesMax = receiveSegmentBytes
    this.reader.ahsBytesMax = AHS_BYTES_MAX
    // The last login response still goes without digests.
    this.writer.flush()
    this.writer.headerDigest = headerDigest
    this.writer.dataDigest = dataDigest
    if (session.nexus !== undefined) {
      this.reader.resize(BUFFER_BYTES)
      this.writer.stagingBytes = BUFFER_BYTES
    }
    this.host.loginEnded(this)
  }

  /** A warning about the peer, unless there have been too many of late. */
  complain(fields: object, message: string): void {
    const allowed = this.host.complaints.take(this.network)
    if (allowed !== undefined) this.log.warn({ ...fields, ...allowed }, message)
  }

  /** Ends the connection now; what cannot be followed or trusted has no other answer at ERL 0. */
  fail(reason: string): void {
    if (this.phase === 'closing') return
    this.endReason = reason
    this.complain({ event: 'drop', reason }, 'the connection is dropped')
    this.phase = 'closing'
    this.stream.destroy()
  }

  /** Sends what is queued, then closes. */
  end(reason: string): void {
    if (this.phase === 'closing') return
    this.endReason = reason
    this.phase = 'closing'
    this.writer.flush()
    this.#ending = true
    this.stream.end()
    // An initiator that does not close its side must not keep ours.
    this.host.clock.after(1000, () => this.stream.destroy())
  }

  /** Called about once a second. */
  keepAlive(nowMs: number): void {
    const { session } = this
    if (session === undefined || this.phase !== 'full-feature') return
    const { acknowledgedBytes, waits } = this.stream.progress()
    const { pool } = this.host
    const verdict = this.#liveness.judge(nowMs, {
      answersWait: waits || this.#paused,
      takenBytes: acknowledgedBytes,
      dataAwaited: [...session.tasks.values()].some((task) => task.collecting),
      dataBytes: session.dataOutBytes + (this.task ? this.reader.segmentBytesThere : 0),
      othersWait: session.holdsBuffers && pool.freeBytes < pool.totalBytes / 8,
    })
    if (verdict === 'ask') this.#sendPing(session, nowMs)
    else if (verdict) this.fail(verdict.reason)
  }

  get isDiscovery(): boolean {
    return this.session !== undefined && this.session.nexus === undefined
  }

  silentMs(nowMs: number): number {
    return this.#liveness.silentMs(nowMs)
  }

  unansweredMs(nowMs: number): number | undefined {
    if (this.phase === 'closing') return 0
    return this.#liveness.unansweredMs(nowMs)
  }

  ping(nowMs: number): void {
    const { session } = this
    if (session === undefined || this.phase !== 'full-feature') return
    // Behind much data neither the question nor the answer is there soon.
    const isBusy = this.#paused || this.stream.queuedBytes > 0
    if (!isBusy && this.unansweredMs(nowMs) === undefined) this.#sendPing(session, nowMs)
  }

  #sendPing(session: Session, nowMs: number): void {
    this.#liveness.ask(nowMs)
    const to = this.writer.begin()
    const at = this.writer.headerAt
    putHeader(to, at, OPCODE.NOP_IN, 0x80, 0, RESERVED_TAG)
    putU32(to, at + 20, this.newTag())
    // Without a status: StatSN is the next one and stays (RFC 7143, 11.19.3).
    putSequence(to, at, session)
    this.writer.end()
    this.planFlush()
  }
}

function flushConnection(connection: Connection): void {
  connection.flush()
}
