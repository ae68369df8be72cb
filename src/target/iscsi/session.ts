/**
 * An iSCSI session (RFC 7143, 4.4) with its one connection: the CmdSN window, the tasks by initiator task
 * tag, and the SCSI nexus. Called by connection.ts and the request handlers; knows nothing of sockets.
 */
import { assert } from '../../base/assert.ts'
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
import { PoolShare } from './pool-share.ts'
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
  /** What reads hold of the pool until they have left, and writes until they are done. */
  readonly reads: PoolShare
  readonly writes: PoolShare
  /** Aborted tasks whose I/O is still with the device, which has their buffers. */
  readonly fences = new Set<CommandTask>()
  /** Data-Out that was expected and has come, bytes: progress, for the connection's time limits. */
  dataOutBytes = 0
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
    this.reads = new PoolShare(init.pool, init.sharers)
    this.writes = new PoolShare(init.pool, init.sharers)
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

  /** A read's next piece may start now; otherwise it has been put in line, behind those that came before. */
  takeRead(task: CommandTask): boolean {
    if (task.movedBytes > 0) {
      if (this.#grant(task)) return true
      this.#deferred.unshift(task)
      return false
    }
    if (this.#deferred.length === 0 && this.#grant(task)) return true
    this.#deferred.push(task)
    return false
  }

  #grant(task: CommandTask): boolean {
    const bytes = this.reads.take(task.leftToRead, true)
    task.pieceBytes = bytes
    task.readBytes = bytes
    return bytes > 0
  }

  /** The bytes of a read have left, or there were none: `start` gets the reads that there is room for now. */
  returnRead(bytes: number, start: (task: CommandTask) => void): void {
    this.reads.giveBack(bytes)
    for (let next = this.#deferred[0]; next; next = this.#deferred[0]) {
      // Of several tasks that are aborted together, one may give back before the next is forgotten.
      if (!next.aborted && !this.#grant(next)) return
      this.#deferred.shift()
      if (!next.aborted) start(next)
    }
  }

  /** An aborted read waits no more. */
  forgetRead(task: CommandTask): void {
    const at = this.#deferred.indexOf(task)
    if (at >= 0) this.#deferred.splice(at, 1)
  }

  get holdsBuffers(): boolean {
    return this.reads.heldBytes + this.writes.heldBytes > 0
  }

  /** The connection is closed: what the session still holds of the pool is with the device, and nothing else is. */
  assertNothingHeld(): void {
    let withDevice = 0
    for (const { transfer, readBytes } of this.fences) {
      withDevice += readBytes + (transfer?.lease.bytes.length ?? 0)
    }
    const held = this.reads.heldBytes + this.writes.heldBytes
    assert(held === withDevice, `a session that has ended holds ${held} bytes, not ${withDevice}`)
  }

  /** StatSN for a PDU that carries status; it is used up. */
  useStatSn(): number {
    const statSn = this.statSn
    this.statSn = serialAdd(statSn, 1)
    return statSn
  }
}
