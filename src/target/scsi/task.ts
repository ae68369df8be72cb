/**
 * A SCSI task (SAM-5, 4.5): one command from one I_T nexus to one logical unit, with its data buffers and
 * its result. The transport (target/iscsi) makes it, the logical unit executes it, the transport sends
 * the result. The one owner of a task's buffers is the task: `dataOut` is the transport's, `dataIn` the
 * handler's until `complete`, then the transport's, which releases both after the last byte left.
 *
 *   transport: new Task -> SCSI router admit(task)  CDB checks; sets transferOutBytes, or completes early
 *              (collect Data-Out into task.dataOut) -> execute(task) -> handler -> task.complete…()
 *              -> task.onComplete(task)
 */
import { assert } from '../../base/assert.ts'
import type { Lease } from '../../hal/block-device.ts'
import type { LunMapping, Nexus } from './types.ts'

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
  /** Called once when the result stands. */
  readonly onComplete: (task: Task) => void

  /** The mapping that `lunField` resolved to; set by admit, undefined for an absent LUN. */
  mapping: LunMapping | undefined = undefined
  /** Data-Out bytes that the command takes: min(CDB, expectedBytes). Set by admit. */
  transferOutBytes = 0
  /** Data-Out bytes by the CDB alone; with expectedBytes decides the residual. Set by admit. */
  cdbTransferBytes = 0
  /** Data-Out buffer of transferOutBytes, complete before execute. */
  dataOut: Lease | undefined = undefined

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
  completed = false
  /** For latency statistics; milliseconds of the clock. */
  startedMs = 0

  // Kept by the task set while the task is in it (target/scsi/task-set.ts).
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
    onComplete: (task: Task) => void
  }) {
    this.nexus = init.nexus
    this.lunField = init.lunField
    this.cdb = init.cdb
    this.attribute = init.attribute
    this.tag = init.tag
    this.expectedBytes = init.expectedBytes
    this.direction = init.direction
    this.onComplete = init.onComplete
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

  /** Ends the task with any status. Exactly once. */
  finish(status: number, sense: Buffer | undefined): void {
    assert(!this.completed, `task ${this.tag.toString(16)} completed twice`)
    this.completed = true
    this.status = status
    this.sense = sense
    this.onComplete(this)
  }
}
