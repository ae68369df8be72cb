/**
 * The SCSI target device (SAM-5, 4.8): routes tasks to logical units, runs task management (clause 7) and knows which nexus
 * sees which unit. One for all targets; made by the daemon, called by target/iscsi/session.
 */
import { assert } from '../../base/assert.ts'
import type { Clock } from '../../base/clock.ts'
import {
  STRANGER_LOG_LINES,
  STRANGER_LOG_PEERS,
  STRANGER_LOG_PERIOD_MS,
} from '../../base/limits.ts'
import type { Logger } from '../../base/log.ts'
import { LogLimit } from '../../base/log-limit.ts'
import type { BufferPool } from '../../hal/block-device.ts'
import { admitTask } from './admission.ts'
import { findCommand } from './command-table.ts'
import { BlockUnit } from './logical-unit.ts'
import { decodeLun } from './lun.ts'
import { ASC, SENSE_KEY, sense, usesDescriptorSense } from './sense.ts'
import { type AbortAnswer, STATUS, type Task } from './task.ts'
import { tellOthers } from './task-set.ts'
import {
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

/** A task management function on one logical unit. */
interface UnitFunction {
  /** It touches the tasks of other nexuses: not for a nexus that may only read. */
  readonly disturbs: boolean
  act(unit: LogicalUnit, nexus: Nexus, tag: number): number
}

const { COMPLETE, NO_TASK, NO_LUN, NOT_AUTHORIZED, UNSUPPORTED, NO_REASSIGN } =
  TASK_MANAGEMENT_RESPONSE

/** By code (SAM-5, clause 7). */
const UNIT_FUNCTIONS: ReadonlyMap<number, UnitFunction> = new Map([
  [TASK_MANAGEMENT.ABORT_TASK, { disturbs: false, act: abortTask }],
  [TASK_MANAGEMENT.ABORT_TASK_SET, { disturbs: false, act: abortTaskSet }],
  [TASK_MANAGEMENT.CLEAR_TASK_SET, { disturbs: true, act: clearTaskSet }],
  [TASK_MANAGEMENT.LOGICAL_UNIT_RESET, { disturbs: true, act: resetUnit }],
])

/** Target resets act on all units of the nexus: warm and cold differ only in what the transport does after. */
const TARGET_RESETS: ReadonlySet<number> = new Set([
  TASK_MANAGEMENT.TARGET_WARM_RESET,
  TASK_MANAGEMENT.TARGET_COLD_RESET,
])

/** Functions that are refused: there is no ACA (NORMACA = 0), and no allegiance moves at ErrorRecoveryLevel 0. */
const REFUSED: ReadonlyMap<number, number> = new Map([
  [TASK_MANAGEMENT.CLEAR_ACA, UNSUPPORTED],
  [TASK_MANAGEMENT.TASK_REASSIGN, NO_REASSIGN],
])

function abortTask(unit: LogicalUnit, nexus: Nexus, tag: number): number {
  const task = unit.tasks.find(nexus, tag)
  if (!task) return NO_TASK
  unit.tasks.abort((other) => other === task)
  return COMPLETE
}

function abortTaskSet(unit: LogicalUnit, nexus: Nexus): number {
  unit.tasks.abort((task) => task.nexus === nexus)
  return COMPLETE
}

function clearTaskSet(unit: LogicalUnit, nexus: Nexus): number {
  unit.tasks.abort(() => true, tellOthers(nexus))
  return COMPLETE
}

function resetUnit(unit: LogicalUnit, nexus: Nexus): number {
  unit.reset(ASC.BUS_DEVICE_RESET_FUNCTION, nexus)
  return COMPLETE
}

class TargetDevice implements DeviceServer {
  readonly #clock: Clock
  readonly #log: Logger
  readonly #logLimit: LogLimit
  /** Answers INQUIRY, REPORT LUNS and REQUEST SENSE for LUNs that are not there. */
  readonly #absentUnit: LogicalUnit
  /** Units that keep state for a nexus, by nexus id: also those that its map has lost since. */
  readonly #attached = new Map<number, Set<LogicalUnit>>()

  constructor(options: DeviceServerOptions) {
    this.#clock = options.clock
    this.#log = options.log
    this.#logLimit = new LogLimit(
      options.clock,
      STRANGER_LOG_LINES,
      STRANGER_LOG_PERIOD_MS,
      STRANGER_LOG_PEERS,
    )
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
    assert(!task.aborted, `task ${task.tag} is not executed after its end`)
    if (task.movedBytes === 0) task.startedMs = this.#clock.nowMs()
    task.unit?.tasks.enter(task)
  }

  manage(fn: number, nexus: Nexus, lunField: Buffer, tag: number): number {
    const refused = REFUSED.get(fn)
    if (refused !== undefined) return refused
    if (TARGET_RESETS.has(fn)) return this.#resetTarget(nexus)
    const row = UNIT_FUNCTIONS.get(fn)
    if (!row) return UNSUPPORTED
    const lun = decodeLun(lunField)
    const mapping = lun === undefined ? undefined : nexus.luns.get(lun)
    if (!mapping) return NO_LUN
    if (row.disturbs && mapping.readOnly) return NOT_AUTHORIZED
    this.#say(nexus, { fn, unit: mapping.unit.name }, 'task management')
    return row.act(mapping.unit, nexus, tag)
  }

  /** Initiators may send as many functions as they like: the log has only so many lines for each. */
  #say({ initiatorName: initiator }: Nexus, fields: object, message: string): void {
    const allowed = this.#logLimit.take(initiator)
    if (allowed) this.#log.info({ ...fields, initiator, ...allowed }, message)
  }

  nexusEstablished(nexus: Nexus): void {
    for (const unit of unitsOf(nexus.luns)) this.#attach(nexus, unit)
  }

  lunsChanged(nexus: Nexus, previous: ReadonlyMap<number, LunMapping>): void {
    const now = unitsOf(nexus.luns)
    for (const unit of unitsOf(previous)) {
      if (!now.has(unit)) this.#detach(nexus, unit, tellOfLoss)
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
    const writable = new Map([...nexus.luns].filter(([, { readOnly }]) => !readOnly))
    // After a cold reset the sessions of all initiators end: not for a nexus that no unit would be reset for.
    if (writable.size === 0) return NOT_AUTHORIZED
    this.#say(nexus, { target: nexus.targetName }, 'target reset')
    for (const unit of unitsOf(writable)) unit.reset(ASC.SCSI_BUS_RESET, nexus)
    return COMPLETE
  }

  #attach(nexus: Nexus, unit: LogicalUnit): void {
    const units = this.#attached.get(nexus.id)
    if (units) units.add(unit)
    else this.#attached.set(nexus.id, new Set([unit]))
    unit.attach(nexus)
  }

  #detach(nexus: Nexus, unit: LogicalUnit, answer?: (task: Task) => AbortAnswer): void {
    unit.tasks.abort((task) => task.nexus === nexus, answer)
    unit.detach(nexus)
    this.#attached.get(nexus.id)?.delete(unit)
  }
}

/** The unit is not there any more for the task's nexus (SPC-5, 6.6). */
function tellOfLoss(task: Task): AbortAnswer {
  const descriptor = usesDescriptorSense(task)
  return {
    status: STATUS.CHECK_CONDITION,
    sense: sense(SENSE_KEY.ILLEGAL_REQUEST, ASC.LOGICAL_UNIT_NOT_SUPPORTED, { descriptor }),
  }
}

function unitsOf(luns: ReadonlyMap<number, LunMapping>): Set<LogicalUnit> {
  return new Set([...luns.values()].map((mapping) => mapping.unit))
}
