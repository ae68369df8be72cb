/**
 * A SCSI task (SAM-5, 4.5): one command from one I_T nexus to one logical unit, with its data buffers and
 * its result. The transport (target/iscsi) makes it, the logical unit executes it, the transport sends
 * the result. The one owner of a task's buffers is the task: `dataOut` is the transport's, `dataIn` the
 * handler's until `complete`, then the transport's, which releases both after the last byte left.
 *
 *   transport: new Task -> SCSI router admit(task)  CDB checks; sets transferOutBytes, or completes early
 *              (collect Data-Out into task.dataOut) -> execute(task) -> handler -> task.complete…()
 *              -> task.onComplete(task)
 *
 * A READ or WRITE whose data is longer than what its session may hold of the buffer pool is carried out in pieces: the
 * transport sets `pieceBytes` and calls `execute` for each; `onPiece` follows each but the last.
 */
import { assert } from '../../base/assert.ts'
import type { Lease } from '../../hal/block-device.ts'
import type { LogicalUnit, LunMapping, Nexus, ScsiCommand } from './types.ts'

/** Task attributes (SAM-5, 8.9) with their codes in the iSCSI command PDU (RFC 7143, 11.3.1). */
export const TASK_ATTRIBUTE = {
  UNTAGGED: 0,
  SIMPLE: 1,
  ORDERED: 2,
  HEAD_OF_QUEUE: 3,
  ACA: 4,
} as const
export type TaskAttribute = (typeof TASK_ATTRIBUTE)[keyof typeof TASK_ATTRIBUTE]

/** Status codes (SAM-5, 5.3.1). */
export const STATUS = {
  GOOD: 0x00,
  CHECK_CONDITION: 0x02,
  CONDITION_MET: 0x04,
  BUSY: 0x08,
  RESERVATION_CONFLICT: 0x18,
  TASK_SET_FULL: 0x28,
  ACA_ACTIVE: 0x30,
  TASK_ABORTED: 0x40,
} as const

export type DataDirection = 'none' | 'in' | 'out'

/** Where a task is on its way through the task set (task-set.ts). */
export const TASK_STATE = {
  /** Not admitted, or ended. */
  OUTSIDE: 0,
  /** Admitted; the transport collects its Data-Out, or waits for room for its Data-In. */
  COLLECTING: 1,
  /** Complete, and behind others of its task set. */
  WAITING: 2,
  /** With its handler. If `aborted` too, it is a fence. */
  RUNNING: 3,
} as const
export type TaskState = (typeof TASK_STATE)[keyof typeof TASK_STATE]

/** The task set hears through this that its tasks have ended, or wait for their initiator again. */
export interface TaskOwner {
  taskEnded(task: Task): void
  taskPaused(task: Task): void
}

/** What becomes of a task, to the transport, which owns its buffers. */
export interface TaskEvents {
  /**
   * The result stands: called once. Also for an aborted task that was with its handler, when nothing of it is in
   * flight any more: then nothing is sent.
   */
  readonly onComplete: (task: Task) => void
  /**
   * The task is aborted; called once, at once. What the initiator is told, if anything, is in `abortAnswer`. Unless the
   * task is RUNNING nothing of it is in flight, and `onComplete` will not be called.
   */
  readonly onAborted: (task: Task) => void
  /** A piece that is not the last one is done. Only for commands that are carried out in pieces. */
  readonly onPiece: (task: Task) => void
}

/** The end of an aborted task as its initiator sees it. */
export interface AbortAnswer {
  readonly status: number
  readonly sense: Buffer | undefined
}

export class Task {
  readonly nexus: Nexus
  /** The LUN as it came: 8 bytes of SAM single or multi level addressing; see lun.ts. */
  readonly lunField: Buffer
  /** Own copy of the CDB, 16 bytes or more. */
  readonly cdb: Buffer
  readonly attribute: TaskAttribute
  /** Initiator task tag. */
  readonly tag: number
  /** What the initiator says it will move: expected data transfer length, bytes. */
  readonly expectedBytes: number
  readonly direction: DataDirection
  readonly events: TaskEvents

  /** The mapping that `lunField` resolved to; set by admit, undefined for an absent LUN. */
  mapping: LunMapping | undefined = undefined
  /** Data-Out bytes that the command takes: min(CDB, expectedBytes). Set by admit. */
  transferOutBytes = 0
  /** Data-Out bytes by the CDB alone; with expectedBytes decides the residual. Set by admit. */
  cdbTransferBytes = 0
  /** Data-Out buffer of transferOutBytes, or of a piece of it; complete before execute. */
  dataOut: Lease | undefined = undefined
  /** Bytes of the medium that earlier pieces have moved, and that the present one moves. 0: all that is left. */
  movedBytes = 0
  pieceBytes = 0

  /** Sense data with which the next piece ends the task: what comes before it is good and has been sent. */
  failsNext: Buffer | undefined = undefined

  status: number = STATUS.GOOD
  sense: Buffer | undefined = undefined
  /** Data-In as a lease (media data) or a small heap buffer (parameter data). */
  dataIn: Lease | undefined = undefined
  dataInBuffer: Buffer | undefined = undefined
  /**
   * Data-In bytes that the command wants to send, before the cut to expectedBytes. May exceed what
   * `dataIn` holds only where expectedBytes is smaller.
   */
  dataInBytes = 0
  /** A task management function ended it: no response, and its I/O in flight is fenced. */
  aborted = false
  /** Set with `aborted` where the initiator is to be told: another nexus' function, or a unit that it lost. */
  abortAnswer: AbortAnswer | undefined = undefined
  completed = false
  /** For latency statistics; milliseconds of the clock. */
  startedMs = 0

  /** The row of the command table, and the unit that executes it (a stand-in for an absent LUN). Set by admit. */
  command: ScsiCommand | undefined = undefined
  unit: LogicalUnit | undefined = undefined

  // Kept by the task set while the task is in it (target/scsi/task-set.ts).
  owner: TaskOwner | undefined = undefined
  state: TaskState = TASK_STATE.OUTSIDE
  /** Order of arrival; HEAD OF QUEUE tasks have negative numbers. */
  sequence = 0
  previous: Task | undefined = undefined
  next: Task | undefined = undefined
  previousWaiting: Task | undefined = undefined
  nextWaiting: Task | undefined = undefined
  /** First byte and bytes of the media that the task touches, for overlap checks; -1: none. */
  rangeOffset = -1
  rangeBytes = 0
  /** Writes to the medium, as seen by overlap checks. */
  rangeWrites = false

  constructor(init: {
    nexus: Nexus
    lunField: Buffer
    cdb: Buffer
    attribute: TaskAttribute
    tag: number
    expectedBytes: number
    direction: DataDirection
    events: TaskEvents
  }) {
    this.nexus = init.nexus
    this.lunField = init.lunField
    this.cdb = init.cdb
    this.attribute = init.attribute
    this.tag = init.tag
    this.expectedBytes = init.expectedBytes
    this.direction = init.direction
    this.events = init.events
  }

  /** GOOD, with whatever `dataIn` or `dataInBuffer` holds. */
  good(): void {
    this.finish(STATUS.GOOD, undefined)
  }

  /** GOOD with parameter data, cut to the CDB's allocation length. */
  goodWithData(data: Buffer, allocationLength: number): void {
    this.dataInBuffer = data.length > allocationLength ? data.subarray(0, allocationLength) : data
    this.dataInBytes = this.dataInBuffer.length
    this.finish(STATUS.GOOD, undefined)
  }

  /** CHECK CONDITION with autosense. Data-In collected so far is dropped. */
  check(sense: Buffer): void {
    this.finish(STATUS.CHECK_CONDITION, sense)
  }

  /**
   * Ends the task with any status. Exactly once. Data-In is dropped unless it can be sent: with a status other
   * than GOOD, for an aborted task, and where the initiator said that the transfer goes the other way.
   */
  finish(status: number, sense: Buffer | undefined): void {
    assert(!this.completed, `task ${this.tag.toString(16)} completed twice`)
    this.completed = true
    this.status = status
    this.sense = sense
    if (status !== STATUS.GOOD || this.aborted || this.direction === 'out') this.#dropDataIn()
    this.events.onComplete(this)
    this.owner?.taskEnded(this)
  }

  /**
   * The handler has moved the present piece, and more follow: until it is executed again, no other task waits for
   * it. An aborted task ends here.
   */
  endPiece(): void {
    if (this.aborted) {
      this.finish(STATUS.TASK_ABORTED, undefined)
      return
    }
    this.movedBytes += this.pieceBytes
    this.owner?.taskPaused(this)
    this.events.onPiece(this)
  }

  #dropDataIn(): void {
    this.dataIn?.release()
    this.dataIn = undefined
    this.dataInBuffer = undefined
    this.dataInBytes = 0
  }
}
