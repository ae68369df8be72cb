/**
 * The SCSI target device (SAM-5, 4.8): routes tasks to logical units, runs task management (clause 7) and knows which nexus
 * sees which unit. One for all targets; made by the daemon, called by target/iscsi/session.
 */
import type { Clock } from '../../base/clock.ts'
import type { Logger } from '../../base/log.ts'
import type { BufferPool } from '../../hal/block-device.ts'
import { admitTask } from './admission.ts'
import { findCommand } from './command-table.ts'
import { BlockUnit } from './logical-unit.ts'
import { decodeLun } from './lun.ts'
import { ASC } from './sense.ts'
import { STATUS, type Task } from './task.ts'
import {
  type AscCode,
  type DeviceServer,
  type LogicalUnit,
  type LunMapping,
  type Nexus,
  TASK_MANAGEMENT,
  TASK_MANAGEMENT_RESPONSE,
} from './types.ts'

export interface DeviceServerOptions {
  readonly clock: Clock
  readonly log: Logger
  readonly pool: BufferPool
}

export function createDeviceServer(options: DeviceServerOptions): DeviceServer {
  return new TargetDevice(options)
}

type UnitFunction = (unit: LogicalUnit, nexus: Nexus, tag: number) => number

/** Task management functions on one logical unit, by code. */
const UNIT_FUNCTIONS: ReadonlyMap<number, UnitFunction> = new Map<number, UnitFunction>([
  [TASK_MANAGEMENT.ABORT_TASK, abortTask],
  [TASK_MANAGEMENT.ABORT_TASK_SET, abortTaskSet],
  [TASK_MANAGEMENT.CLEAR_TASK_SET, clearTaskSet],
  [TASK_MANAGEMENT.LOGICAL_UNIT_RESET, resetUnit],
])

/** Target resets act on all units of the nexus: warm and cold differ only in what the transport does after. */
const TARGET_RESETS: ReadonlySet<number> = new Set([
  TASK_MANAGEMENT.TARGET_WARM_RESET,
  TASK_MANAGEMENT.TARGET_COLD_RESET,
])

/** Functions that are refused: there is no ACA (NORMACA = 0), and no allegiance moves at ErrorRecoveryLevel 0. */
const REFUSED: ReadonlyMap<number, number> = new Map([
  [TASK_MANAGEMENT.CLEAR_ACA, TASK_MANAGEMENT_RESPONSE.UNSUPPORTED],
  [TASK_MANAGEMENT.TASK_REASSIGN, TASK_MANAGEMENT_RESPONSE.NO_REASSIGN],
])

function abortTask(unit: LogicalUnit, nexus: Nexus, tag: number): number {
  const task = unit.tasks.find(nexus, tag)
  if (!task) return TASK_MANAGEMENT_RESPONSE.NO_TASK
  unit.tasks.abort((other) => other === task)
  return TASK_MANAGEMENT_RESPONSE.COMPLETE
}

function abortTaskSet(unit: LogicalUnit, nexus: Nexus): number {
  unit.tasks.abort((task) => task.nexus === nexus)
  return TASK_MANAGEMENT_RESPONSE.COMPLETE
}

function clearTaskSet(unit: LogicalUnit, nexus: Nexus): number {
  // TAS = 0: tasks of other nexuses vanish without a status, a unit attention tells (SAM-5, 5.14).
  for (const other of unit.tasks.abort(() => true)) {
    if (other === nexus) continue
    unit.establishUnitAttentionFor(ASC.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR, other)
  }
  return TASK_MANAGEMENT_RESPONSE.COMPLETE
}

function resetUnit(unit: LogicalUnit): number {
  unit.reset(ASC.BUS_DEVICE_RESET_FUNCTION)
  return TASK_MANAGEMENT_RESPONSE.COMPLETE
}

class TargetDevice implements DeviceServer {
  readonly #clock: Clock
  readonly #log: Logger
  /** Answers INQUIRY, REPORT LUNS and REQUEST SENSE for LUNs that are not there. */
  readonly #absentUnit: LogicalUnit
  /** Units that keep state for a nexus, by nexus id: also those that its map has lost since. */
  readonly #attached = new Map<number, Set<LogicalUnit>>()

  constructor(options: DeviceServerOptions) {
    this.#clock = options.clock
    this.#log = options.log
    this.#absentUnit = new BlockUnit({
      name: 'absent',
      identity: { naa: Buffer.alloc(0), serial: '', vendor: '', product: '', revision: '' },
      device: undefined,
      ...options,
    })
  }

  admit(task: Task): boolean {
    const lun = decodeLun(task.lunField)
    const mapping = lun === undefined ? undefined : task.nexus.luns.get(lun)
    const unit = mapping?.unit ?? this.#absentUnit
    task.mapping = mapping
    task.unit = unit
    if (mapping !== undefined && !unit.isAttached(task.nexus)) this.#attach(task.nexus, unit)
    const command = findCommand(task.cdb)
    if (!admitTask(task, command, unit)) return false
    task.command = command
    unit.tasks.admit(task)
    return true
  }

  execute(task: Task): void {
    task.dataComplete = true
    task.startedMs = this.#clock.nowMs()
    if (task.aborted) task.finish(STATUS.TASK_ABORTED, undefined)
    else task.unit?.tasks.enter(task)
  }

  manage(fn: number, nexus: Nexus, lunField: Buffer, tag: number): number {
    const refused = REFUSED.get(fn)
    if (refused !== undefined) return refused
    if (TARGET_RESETS.has(fn)) return this.#resetTarget(nexus)
    const act = UNIT_FUNCTIONS.get(fn)
    if (!act) return TASK_MANAGEMENT_RESPONSE.UNSUPPORTED
    const lun = decodeLun(lunField)
    const unit = lun === undefined ? undefined : nexus.luns.get(lun)?.unit
    if (!unit) return TASK_MANAGEMENT_RESPONSE.NO_LUN
    this.#log.info({ fn, unit: unit.name, initiator: nexus.initiatorName }, 'task management')
    return act(unit, nexus, tag)
  }

  nexusEstablished(nexus: Nexus): void {
    for (const unit of unitsOf(nexus.luns)) this.#attach(nexus, unit)
  }

  lunsChanged(nexus: Nexus, previous: ReadonlyMap<number, LunMapping>): void {
    const now = unitsOf(nexus.luns)
    for (const unit of unitsOf(previous)) {
      if (!now.has(unit)) this.#detach(nexus, unit)
    }
    for (const unit of now) {
      this.#attach(nexus, unit)
      unit.establishUnitAttentionFor(ASC.REPORTED_LUNS_DATA_HAS_CHANGED, nexus)
    }
  }

  nexusLost(nexus: Nexus): void {
    this.#absentUnit.tasks.abort((task) => task.nexus === nexus)
    for (const unit of [...(this.#attached.get(nexus.id) ?? [])]) this.#detach(nexus, unit)
    this.#attached.delete(nexus.id)
  }

  #resetTarget(nexus: Nexus): number {
    this.#log.info({ initiator: nexus.initiatorName, target: nexus.targetName }, 'target reset')
    const code: AscCode = ASC.SCSI_BUS_RESET
    for (const unit of unitsOf(nexus.luns)) unit.reset(code)
    return TASK_MANAGEMENT_RESPONSE.COMPLETE
  }

  #attach(nexus: Nexus, unit: LogicalUnit): void {
    const units = this.#attached.get(nexus.id)
    if (units) units.add(unit)
    else this.#attached.set(nexus.id, new Set([unit]))
    unit.attach(nexus)
  }

  #detach(nexus: Nexus, unit: LogicalUnit): void {
    unit.tasks.abort((task) => task.nexus === nexus)
    unit.detach(nexus)
    this.#attached.get(nexus.id)?.delete(unit)
  }
}

function unitsOf(luns: ReadonlyMap<number, LunMapping>): Set<LogicalUnit> {
  return new Set([...luns.values()].map((mapping) => mapping.unit))
}
