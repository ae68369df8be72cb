/**
 * The seams of the SCSI device server: what the transport gives it (nexus, mappings, tasks), what a command
 * row looks like, and what a command handler sees of its logical unit.
 */
import type { Clock } from '../../base/clock.ts'
import type { PlexusError } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { BlockDevice, BufferPool, IoOp } from '../../hal/block-device.ts'
import type { FieldPointer } from './sense.ts'
import type { Task } from './task.ts'
import type { TaskSet } from './task-set.ts'

/** An I_T nexus (SAM-5, 4.7): an initiator port and a target port, for the life of one session. */
export interface Nexus {
  /** Unique for the life of the process. */
  readonly id: number
  readonly initiatorName: string
  /** SCSI initiator port name (RFC 7143, 4.4.1): `NAME,i,0xISID`. */
  readonly initiatorPort: string
  readonly targetName: string
  /** SCSI target port name: `NAME,t,0xTPGT`. */
  readonly targetPort: string
  readonly targetPortalGroupTag: number
  /** Relative target port identifier (SPC-5, VPD 83h), unique among the ports of all targets. */
  readonly relativePortId: number
  /** All ports of the target, as the configuration has them now (VPD 88h; MULTIP of INQUIRY where there are several). */
  readonly targetPorts: readonly TargetPort[]
  /** The LUNs this nexus sees. Replaced whole when the configuration changes. */
  luns: ReadonlyMap<number, LunMapping>
}

export interface TargetPort {
  readonly relativePortId: number
  /** SCSI target port name. */
  readonly name: string
}

/** One row of a LUN map: which logical unit answers to a number, and how. */
export interface LunMapping {
  readonly lun: number
  readonly unit: LogicalUnit
  readonly readOnly: boolean
}

/** What identifies a logical unit to initiators; stored, so that it survives rename and restart. */
export interface UnitIdentity {
  /** NAA IEEE registered extended or locally assigned designator: 16 bytes (type 6h or 3h in 8). */
  readonly naa: Buffer
  /** Unit serial number, VPD 80h: printable ASCII. */
  readonly serial: string
  /** T10 vendor (8), product (16) and revision (4) of INQUIRY; padded by the code that prints them. */
  readonly vendor: string
  readonly product: string
  readonly revision: string
}

/** Mode parameters that initiators can change (not saved). */
export interface ModeState {
  /** Caching page WCE: false makes every write durable before GOOD. */
  writeCacheEnabled: boolean
  /** Control page D_SENSE: descriptor-format sense data. */
  descriptorSense: boolean
  /** Control page SWP: software write protect. */
  softwareWriteProtect: boolean
  /** Read-write error recovery page LBPERE: tell when space runs low. */
  thresholdNotification: boolean
}

/** What handlers see of the logical unit that executes them. Implemented by logical-unit.ts. */
export interface LogicalUnit {
  /** Name in logs and metrics: `target/lun` of its first mapping, or the volume's name. */
  readonly name: string
  readonly identity: UnitIdentity
  /** The medium, or undefined while it is missing: commands that need it get 02/04/03 (sense.ts says why). */
  readonly device: BlockDevice | undefined
  /** Logical block length that initiators see: a multiple of the device's. */
  readonly blockBytes: number
  /** Capacity in logical blocks; 0 while the medium is missing. */
  readonly blocks: number
  readonly mode: ModeState
  readonly pool: BufferPool
  readonly clock: Clock
  readonly log: Logger
  /** Blocks that the device zeroes when unmapped, at this granularity; UNMAP is offered. */
  readonly thin: boolean
  /** Stopped by START STOP UNIT: media commands get 02/04/02. */
  stopped: boolean
  /** Everything that a RESERVE(6) holds. */
  readonly reservations: Reservations
  /** Establishes a unit attention for every known nexus but `except`. */
  establishUnitAttention(code: AscCode, except?: Nexus): void
  /** Establishes a unit attention for one nexus. */
  establishUnitAttentionFor(code: AscCode, nexus: Nexus): void
  /** The oldest unit attention of the nexus, removed; for REQUEST SENSE and prechecks. */
  takeUnitAttention(nexus: Nexus): AscCode | undefined
  /** As {@link takeUnitAttention}, but only 29/xx, which come before all others. */
  takeResetAttention(nexus: Nexus): AscCode | undefined
  /** Clears a unit attention of one nexus that it need not be told any more. */
  clearUnitAttention(code: AscCode, nexus: Nexus): void
  /** A unit attention is pending for the nexus. */
  hasUnitAttention(nexus: Nexus): boolean
  /** Tasks of this unit: order, fences, aborts. */
  readonly tasks: TaskSet
  /** What each operation code cost, at the index of the code; for metrics. */
  readonly statistics: readonly (CommandStatistics | undefined)[]
  /** Begins to keep unit attentions for a nexus, with 29/00. No effect if it is known. */
  attach(nexus: Nexus): void
  isAttached(nexus: Nexus): boolean
  /** Forgets the nexus: its reservation, unit attentions and deferred error. */
  detach(nexus: Nexus): void
  /**
   * Logical unit reset (SAM-5, 6.3.3): tasks aborted, reservation and mode state cleared, `code` for every nexus. Tasks of
   * other nexuses than `by` end with TASK ABORTED.
   */
  reset(code: AscCode, by?: Nexus): void
  /** An operation failed after its command had ended with GOOD (IMMED): the nexus' next command reports it. */
  deferError(nexus: Nexus, error: PlexusError, op: IoOp): void
  /** The deferred error of the nexus, removed. */
  takeDeferredError(nexus: Nexus): DeferredError | undefined
}

/** Why an operation failed whose command had ended with GOOD before. */
export interface DeferredError {
  readonly error: PlexusError
  readonly op: IoOp
}

/** Counters of one operation code on one unit, since start. */
export interface CommandStatistics {
  readonly name: string
  operations: number
  /** Data-In and Data-Out bytes. */
  bytes: number
  /** Ended with anything but GOOD or CONDITION MET. */
  errors: number
  /** Ended with MEDIUM ERROR. */
  mediumErrors: number
  /** Sum of times from execute to the result, milliseconds. */
  latencyMs: number
}

/** RESERVE(6)/RELEASE(6) (SPC-2, 7.21 and 7.22): the whole unit, one holder. */
export interface Reservations {
  readonly holder: Nexus | undefined
  /** False: another nexus holds it. */
  reserve(nexus: Nexus): boolean
  /** Only the holder's release has an effect; everybody's succeeds. */
  release(nexus: Nexus): void
  /** Reset, or a nexus that is lost. */
  clear(nexus?: Nexus): void
}

/** Additional sense code and qualifier: ASC << 8 | ASCQ. */
export type AscCode = number

/**
 * How a command relates to others in the task set (docs/ARCHITECTURE.md, task set):
 * `none` touches no medium; `read` and `write` touch their range and wait only behind an exclusive one that
 * overlaps; `exclusive` waits for all overlapping ones, and they wait for it (COMPARE AND WRITE);
 * `unit` waits for the whole unit to be idle.
 */
export type SerializationClass = 'none' | 'read' | 'write' | 'exclusive' | 'unit'

export interface AllowFlags {
  /** Executes although a unit attention is pending (INQUIRY, REPORT LUNS, REQUEST SENSE; SAM-5, 5.14). */
  readonly unitAttention?: boolean
  /** Executes without a medium and on a unit that is stopped. */
  readonly notReady?: boolean
  /** Executes on a unit that is stopped, but not without a medium. */
  readonly stopped?: boolean
  /** Executes although another nexus holds a RESERVE(6) reservation (SPC-2, table 5.5.1). */
  readonly reserved?: boolean
  /** Executes for a LUN that is not there (INQUIRY, REPORT LUNS, REQUEST SENSE; SPC-5, 6.6). */
  readonly noUnit?: boolean
}

/** The medium that a command touches, in logical blocks; admit checks it against the capacity. */
export interface BlockRange {
  readonly lba: bigint | number
  readonly blocks: number
}

/** One row of the command table (command-table.ts). */
export interface ScsiCommand {
  readonly name: string
  readonly opcode: number
  readonly serviceAction?: number
  /**
   * The CDB usage mask of REPORT SUPPORTED OPERATION CODES (SPC-5, 6.35.3): byte 0 is the opcode, byte 1 holds
   * the service action in its place, every other byte has a bit set where the command looks at it.
   * A CDB with a bit outside the mask is refused with 05/24/00 and a field pointer.
   */
  readonly cdbUsage: readonly number[]
  readonly data: DataUse
  readonly serialize: SerializationClass
  readonly allow: AllowFlags
  /**
   * Data-Out bytes that the CDB asks for; 0 or absent unless `data` is 'out'. `expectedBytes` is what the initiator
   * offers, for the one command (WRITE SAME) that reads a meaning into its absence.
   */
  dataOutBytes?(cdb: Buffer, lu: LogicalUnit, expectedBytes: number): number
  /**
   * What happens when the initiator offers another amount of Data-Out than the CDB asks for; see admission.ts.
   * Default `at-least`: more is left out (residual), less is refused.
   */
  readonly dataOutFit?: DataOutFit
  /** May be carried out in pieces (task.ts), and so move up to {@link LARGE_TRANSFER_BYTES}. */
  readonly inPieces?: boolean
  /** False: this unit has no such command (05/20/00), for example UNMAP of a unit that is not thin. */
  available?(lu: LogicalUnit): boolean
  /** The first CDB field whose value this unit refuses (05/24/00), for what the usage mask cannot say. */
  invalidField?(cdb: Buffer, lu: LogicalUnit): FieldPointer | undefined
  /** The blocks that the command touches; absent where it touches none. */
  range?(cdb: Buffer, lu: LogicalUnit): BlockRange
  /** Changes the medium: refused on read-only mappings and under SWP with 07/27/00. */
  readonly writes?: boolean
  /**
   * With this CDB it changes what others see of the unit (mode parameters, power condition, reservation): refused on
   * read-only mappings with 07/27/00, so that who may only read cannot stop the writers.
   */
  changesUnit?(cdb: Buffer, lu: LogicalUnit): boolean
  /**
   * Does the work and ends the task exactly once with one of its methods, at once or later. A thrown or
   * rejected PlexusError becomes sense data by its kind.
   */
  execute(task: Task, lu: LogicalUnit): void | Promise<void>
}

export type DataUse = 'none' | 'in' | 'out'

/**
 * `exact`: refused unless equal, where the CDB asks for data at all; `always-exact`: also where it asks for none.
 * `at-least`: less is refused. `whole-blocks`: less is taken where it is a whole number of blocks.
 */
export type DataOutFit = 'exact' | 'always-exact' | 'at-least' | 'whole-blocks'

/** Task management functions (SAM-5, 7) by their RFC 7143 codes, and the responses. */
export const TASK_MANAGEMENT = {
  ABORT_TASK: 1,
  ABORT_TASK_SET: 2,
  CLEAR_ACA: 3,
  CLEAR_TASK_SET: 4,
  LOGICAL_UNIT_RESET: 5,
  TARGET_WARM_RESET: 6,
  TARGET_COLD_RESET: 7,
  TASK_REASSIGN: 8,
} as const
export const TASK_MANAGEMENT_RESPONSE = {
  COMPLETE: 0,
  NO_TASK: 1,
  NO_LUN: 2,
  STILL_ALLEGIANT: 3,
  NO_REASSIGN: 4,
  UNSUPPORTED: 5,
  NOT_AUTHORIZED: 6,
  REJECTED: 255,
} as const

/**
 * The SCSI target device as the transport sees it (SAM-5, 4.8): routes tasks and task management to logical
 * units. Implemented by device-server.ts, one for all targets.
 */
export interface DeviceServer {
  /**
   * First look at a task: LUN, CDB length, command, usage mask, data direction. Sets `mapping`, `transferOutBytes` and
   * `cdbTransferBytes`. False: the task has been completed already (bad CDB, absent LUN, not enough of something)
   * and its Data-Out, if any arrives, is to be thrown away.
   */
  admit(task: Task): boolean
  /** Enters the task set with all Data-Out of the piece in `task.dataOut`. The task completes later or at once. */
  execute(task: Task): void
  /**
   * Aborts at once, and what is in flight is fenced, so that later overlapping commands wait behind it. Tasks of other nexuses
   * end with TASK ABORTED (TAS = 1), those of the caller without an answer. A nexus that may only read a unit cannot touch
   * other nexuses' tasks. Returns the RFC 7143 response code. `tag` is for ABORT TASK. TARGET WARM and COLD RESET act on all
   * units of the nexus; dropping sessions after a cold reset is the transport's part.
   */
  manage(fn: number, nexus: Nexus, lunField: Buffer, tag: number): number
  /** A session began: unit attention 29/00 (power on or nexus) on all units that it sees. */
  nexusEstablished(nexus: Nexus): void
  /**
   * `nexus.luns` was replaced; `previous` is what it was. Tasks on units that it does not see any more end with 05/25/00,
   * new units get 29/00, and all that it sees get 3F/0E.
   */
  lunsChanged(nexus: Nexus, previous: ReadonlyMap<number, LunMapping>): void
  /** A session ended: its tasks are aborted, its reservations and unit attentions go. */
  nexusLost(nexus: Nexus): void
}
