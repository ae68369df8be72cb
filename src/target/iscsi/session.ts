/**
 * An iSCSI session (RFC 7143, 4.4) with its one connection: the CmdSN window, the tasks by initiator task
 * tag, and the SCSI nexus. Called by connection.ts and the request handlers; knows nothing of sockets.
 */
import { COMMAND_WINDOW_MIN, FIRST_BURST_BYTES } from '../../base/limits.ts'
import type { BufferPool } from '../../hal/block-device.ts'
import type { SessionParameters } from '../../iscsi/parameters.ts'
import {
  isImmediate,
  cmdSn as readCmdSn,
  type Sequence,
  serialAdd,
  serialBefore,
} from '../../iscsi/pdu.ts'
import type { Nexus } from '../scsi/types.ts'
import type { Proof } from './auth.ts'
import type { CommandTask } from './command-task.ts'
import type { TargetNode } from './target-node.ts'

/** What becomes of a request by its CmdSN (RFC 7143, 4.2.2.1). */
export type Admission = 'accept' | 'ignore' | 'gap'

/** Live figures of one session, for status and metrics. */
export interface SessionInfo {
  readonly id: number
  readonly tsih: number
  readonly initiatorName: string
  readonly targetName: string | undefined
  readonly portalGroup: string
  readonly remoteAddress: string
  readonly authenticatedAs: string | undefined
  readonly commands: number
  readonly outstanding: number
}

/** How a session came to be. */
export interface Origin {
  /** What its initiator proved; undefined: nothing was asked for. */
  readonly proof: Proof | undefined
  readonly sinceMs: number
  /** So many times in a row it was taken over from another address, each soon after the one before. */
  readonly takeovers: number
}

export class Session implements Sequence {
  readonly tsih: number
  readonly isid: Buffer
  readonly initiatorName: string
  readonly parameters: SessionParameters
  /** Undefined in a discovery session. */
  readonly target: TargetNode | undefined
  readonly nexus: Nexus | undefined
  readonly origin: Origin
  /** Tasks that have no response yet, by initiator task tag. */
  readonly tasks = new Map<number, CommandTask>()
  /** Immediate commands among them, which the window does not count. */
  immediateTasks = 0
  /** The initiator's MaxRecvDataSegmentLength; it may change in the full feature phase. */
  sendSegmentBytes: number
  commands = 0
  /** Its nexus is gone; nothing more is to be done for it. */
  ended = false

  /** Next StatSN of the connection; per connection, which is the session's only one. */
  statSn: number
  expCmdSn: number
  maxCmdSn: number
  /** Bytes of the pool that reads hold until they have left, and writes until they are done. */
  #readBytes = 0
  #writeBytes = 0
  /** Reads that wait until earlier ones of this session have left. */
  readonly #deferred: CommandTask[] = []
  /** The most that the configuration allows. */
  readonly #windowMax: number
  readonly #pool: BufferPool
  /** Sessions that share the pool, for the window's share. */
  readonly #sharers: () => number

  constructor(init: {
    tsih: number
    isid: Buffer
    initiatorName: string
    parameters: SessionParameters
    target: TargetNode | undefined
    nexus: Nexus | undefined
    origin: Origin
    statSn: number
    expCmdSn: number
    windowMax: number
    pool: BufferPool
    sharers: () => number
  }) {
    this.tsih = init.tsih
    this.isid = init.isid
    this.initiatorName = init.initiatorName
    this.parameters = init.parameters
    this.sendSegmentBytes = init.parameters.sendSegmentBytes
    this.target = init.target
    this.nexus = init.nexus
    this.origin = init.origin
    this.statSn = init.statSn
    this.expCmdSn = init.expCmdSn
    this.#windowMax = init.windowMax
    this.#pool = init.pool
    this.#sharers = init.sharers
    this.maxCmdSn = serialAdd(this.expCmdSn, -1)
    this.openWindow()
  }

  /** Checks a request's CmdSN, and counts it where it is the expected one. */
  admit(bhs: Buffer): Admission {
    if (isImmediate(bhs)) return 'accept'
    const cmdSn = readCmdSn(bhs)
    if (cmdSn === this.expCmdSn && !serialBefore(this.maxCmdSn, cmdSn)) {
      this.expCmdSn = serialAdd(cmdSn, 1)
      this.openWindow()
      return 'accept'
    }
    return serialBefore(cmdSn, this.expCmdSn) || serialBefore(this.maxCmdSn, cmdSn)
      ? 'ignore'
      : 'gap'
  }

  /**
   * Moves MaxCmdSN as far as commands outstanding and buffers permit; never back. The window counts
   * commands without a response, so that the initiator's unsolicited data always has a home: when the
   * pool runs low, a session keeps the part of it that is its share, in bursts of FirstBurstLength.
   */
  openWindow(): void {
    const outstanding = this.tasks.size - this.immediateTasks
    let window = this.#windowMax
    const free = this.#pool.freeBytes
    if (free < window * FIRST_BURST_BYTES * 2) {
      const share = Math.floor(free / FIRST_BURST_BYTES / (this.#sharers() + 1))
      window = Math.min(window, Math.max(COMMAND_WINDOW_MIN, share + outstanding))
    }
    const room = Math.max(0, window - outstanding)
    const maxCmdSn = serialAdd(this.expCmdSn, room - 1)
    if (serialBefore(this.maxCmdSn, maxCmdSn)) this.maxCmdSn = maxCmdSn
  }

  /**
   * What reads, and what writes, of one session may hold of the pool: its share of half of it. An initiator that takes
   * nothing, or sends nothing, thus holds up nobody else. One command may always go on.
   */
  #mayHold(held: number, bytes: number): boolean {
    const share = this.#pool.totalBytes / 2 / Math.max(1, this.#sharers())
    return held === 0 || held + bytes <= share
  }

  /** Room for a write's data, or not: then it is for the initiator to send the command again. */
  takeWrite(bytes: number): boolean {
    if (!this.#mayHold(this.#writeBytes, bytes)) return false
    this.#writeBytes += bytes
    return true
  }

  returnWrite(bytes: number): void {
    this.#writeBytes -= bytes
  }

  /** A read may start now; otherwise it has been put in line, behind those that came before. */
  takeRead(task: CommandTask, bytes: number): boolean {
    if (this.#deferred.length > 0 || !this.#mayHold(this.#readBytes, bytes)) {
      this.#deferred.push(task)
      return false
    }
    this.#readBytes += bytes
    task.readBytes = bytes
    return true
  }

  /** The bytes of a read have left, or there were none. Returns the next read that may start. */
  returnRead(bytes: number): CommandTask | undefined {
    this.#readBytes -= bytes
    for (;;) {
      const [next] = this.#deferred
      if (next === undefined) return undefined
      const over = next.aborted || next.completed
      if (!over && !this.#mayHold(this.#readBytes, next.wantedReadBytes)) return undefined
      this.#deferred.shift()
      if (over) continue
      this.#readBytes += next.wantedReadBytes
      next.readBytes = next.wantedReadBytes
      return next
    }
  }

  /** StatSN for a PDU that carries status; it is used up. */
  useStatSn(): number {
    const statSn = this.statSn
    this.statSn = serialAdd(statSn, 1)
    return statSn
  }
}
