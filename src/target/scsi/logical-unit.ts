/**
 * A logical unit over one block device (SAM-5, 4.8.3; SBC-4): its medium and how it comes and goes, mode state, reservation, unit
 * attentions, task set and counters. It executes tasks that the device server has admitted. Made by the daemon,
 * one per LUN backing; device-server.ts and the handlers use it as LogicalUnit (types.ts).
 */
import { assert } from '../../base/assert.ts'
import type { Clock } from '../../base/clock.ts'
import { PlexusError } from '../../base/errors.ts'
import { BLOCK_BYTES_DEFAULT } from '../../base/limits.ts'
import type { Logger } from '../../base/log.ts'
import type { BlockDevice, BufferPool, DeviceEvent, IoOp } from '../../hal/block-device.ts'
import { checkUnitState } from './admission.ts'
import { defaultModeState } from './commands/mode-pages.ts'
import { UnitReservations } from './reservations.ts'
import { ASC, failTask, SENSE_KEY, senseKeyOf } from './sense.ts'
import { STATUS, type Task } from './task.ts'
import { TaskSet, tellOthers } from './task-set.ts'
import { thresholdsOf } from './thresholds.ts'
import type {
  AscCode,
  CommandStatistics,
  DeferredError,
  LogicalUnit,
  ModeState,
  Nexus,
  ScsiCommand,
  UnitIdentity,
} from './types.ts'
import { UnitAttentions } from './unit-attention.ts'

export interface BlockUnitInit {
  readonly name: string
  readonly identity: UnitIdentity
  readonly device: BlockDevice | undefined
  /** Logical block length; default: the device's, 512 while there has never been one. */
  readonly blockBytes?: number
  readonly pool: BufferPool
  readonly clock: Clock
  readonly log: Logger
  /** Offer UNMAP; default: wherever the device can discard. */
  readonly thin?: boolean
}

export class BlockUnit implements LogicalUnit {
  readonly name: string
  readonly identity: UnitIdentity
  readonly pool: BufferPool
  readonly clock: Clock
  readonly log: Logger
  readonly mode: ModeState
  readonly reservations = new UnitReservations()
  readonly tasks: TaskSet
  readonly statistics: (CommandStatistics | undefined)[] = new Array(256).fill(undefined)
  stopped = false

  readonly #attentions = new UnitAttentions()
  readonly #wantsThin: boolean | undefined
  #device: BlockDevice | undefined
  #stopEvents: (() => void) | undefined
  #blockBytes: number
  #blockBytesFixed: boolean
  #blocks = 0
  /** Capacity that initiators saw last; unlike `blocks` it outlives the medium. */
  #knownBlocks = 0

  /** Throws PlexusError `invalid` when `blockBytes` does not fit the device. */
  constructor(init: BlockUnitInit) {
    this.name = init.name
    this.identity = init.identity
    this.pool = init.pool
    this.clock = init.clock
    this.log = init.log
    this.#wantsThin = init.thin
    this.#blockBytes = init.blockBytes ?? BLOCK_BYTES_DEFAULT
    this.#blockBytesFixed = init.blockBytes !== undefined
    this.tasks = new TaskSet(
      (task) => this.#start(task),
      (task) => this.#count(task),
    )
    if (init.device) this.#takeDevice(init.device)
    this.mode = defaultModeState(this)
  }

  get device(): BlockDevice | undefined {
    return this.#device
  }

  get blockBytes(): number {
    return this.#blockBytes
  }

  get blocks(): number {
    return this.#blocks
  }

  get thin(): boolean {
    const features = this.#device?.features
    return (
      features !== undefined &&
      features.discardGranularityBytes > 0 &&
      !features.readOnly &&
      (this.#wantsThin ?? true)
    )
  }

  /** The medium is taken away on purpose: the daemon ends, or its configuration has changed. */
  takeAway(): void {
    this.#dropDevice('taken away')
  }

  /**
   * The medium comes (28/00, and 2A/09 if its size is another than before) or goes. The old device stays the caller's, who
   * closes it; what is in flight on it completes. Throws PlexusError `invalid` when the block lengths do not fit.
   */
  setDevice(device: BlockDevice | undefined): void {
    if (device === this.#device) return
    if (!device) {
      this.#dropDevice()
      return
    }
    const knownBefore = this.#knownBlocks
    this.#checkBlockLength(device)
    this.#dropDevice()
    this.#takeDevice(device)
    if (!device.features.volatileWriteCache) this.mode.writeCacheEnabled = false
    else if (knownBefore === 0) this.#resetMode()
    this.establishUnitAttention(ASC.NOT_READY_TO_READY_CHANGE)
    if (knownBefore !== 0 && knownBefore !== this.#blocks) {
      this.establishUnitAttention(ASC.CAPACITY_DATA_HAS_CHANGED)
    }
    this.log.info({ unit: this.name, device: device.path, event: 'ready' }, 'logical unit is ready')
  }

  attach(nexus: Nexus): void {
    if (this.#attentions.attach(nexus)) this.#attentions.establish(ASC.POWER_ON_OR_RESET, nexus)
  }

  isAttached(nexus: Nexus): boolean {
    return this.#attentions.isAttached(nexus)
  }

  detach(nexus: Nexus): void {
    this.reservations.clear(nexus)
    this.#attentions.detach(nexus)
  }

  establishUnitAttention(code: AscCode, except?: Nexus): void {
    this.#attentions.establishForAll(code, except)
  }

  establishUnitAttentionFor(code: AscCode, nexus: Nexus): void {
    this.#attentions.establish(code, nexus)
  }

  takeUnitAttention(nexus: Nexus): AscCode | undefined {
    return this.#attentions.take(nexus)
  }

  takeResetAttention(nexus: Nexus): AscCode | undefined {
    return this.#attentions.takeReset(nexus)
  }

  clearUnitAttention(code: AscCode, nexus: Nexus): void {
    this.#attentions.clear(code, nexus)
  }

  hasUnitAttention(nexus: Nexus): boolean {
    return this.#attentions.has(nexus)
  }

  deferError(nexus: Nexus, error: PlexusError, op: IoOp): void {
    this.#attentions.defer(nexus, { error, op })
  }

  takeDeferredError(nexus: Nexus): DeferredError | undefined {
    return this.#attentions.takeDeferred(nexus)
  }

  reset(code: AscCode, by?: Nexus): void {
    this.tasks.abort(() => true, by && tellOthers(by))
    this.reservations.clear()
    this.stopped = false
    this.#resetMode()
    this.establishUnitAttention(code)
  }

  #resetMode(): void {
    Object.assign(this.mode, defaultModeState(this))
  }

  #checkBlockLength(device: BlockDevice): void {
    const deviceBytes = device.geometry.logicalBlockBytes
    if (!this.#blockBytesFixed || this.#blockBytes % deviceBytes === 0) return
    throw new PlexusError('invalid', {
      op: 'attach',
      subject: this.name,
      message:
        `${this.name}: a logical block of ${this.#blockBytes} bytes does not fit ${device.path}, whose blocks have ` +
        `${deviceBytes} bytes; choose a multiple of that or another device`,
    })
  }

  #takeDevice(device: BlockDevice): void {
    this.#checkBlockLength(device)
    // Once initiators may have seen a block length it never changes: their data would be at other addresses.
    if (!this.#blockBytesFixed) this.#blockBytes = device.geometry.logicalBlockBytes
    this.#blockBytesFixed = true
    this.#device = device
    this.#measure(device)
    const onEvent: Readonly<Record<DeviceEvent, () => void>> = {
      gone: () => this.#dropDevice(),
      resized: () => this.#resized(device),
      low: () => this.#spaceIsLow(),
      watermark: () =>
        thresholdsOf(this) && this.establishUnitAttention(ASC.MODE_PARAMETERS_CHANGED),
    }
    this.#stopEvents = device.onEvent((event) => onEvent[event]())
  }

  #dropDevice(why?: 'taken away'): void {
    if (!this.#device) return
    const fields = { unit: this.name, device: this.#device.path, event: 'not-ready' }
    if (why) this.log.info(fields, 'logical unit has given its device back')
    else this.log.warn(fields, 'logical unit has lost its device and is not ready')
    this.#stopEvents?.()
    this.#stopEvents = undefined
    this.#device = undefined
    this.#blocks = 0
  }

  #resized(device: BlockDevice): void {
    const before = this.#blocks
    this.#measure(device)
    if (this.#blocks === before) return
    this.log.info(
      { unit: this.name, blocks: this.#blocks, before, event: 'resized' },
      'logical unit has another capacity',
    )
    this.establishUnitAttention(ASC.CAPACITY_DATA_HAS_CHANGED)
  }

  /** On every I_T nexus: SITUA of mode page 1Ch/02h is 0 (SBC-4, 4.7.3.7.6). */
  #spaceIsLow(): void {
    if (!thresholdsOf(this) || !this.mode.thresholdNotification) return
    this.establishUnitAttention(ASC.THIN_PROVISIONING_SOFT_THRESHOLD_REACHED)
  }

  #measure(device: BlockDevice): void {
    this.#blocks = Math.floor(device.geometry.sizeBytes / this.#blockBytes)
    this.#knownBlocks = this.#blocks
  }

  /** Runs the handler of a task whose turn it is. What admit checked may have changed while it waited. */
  #start(task: Task): void {
    const command = task.command
    assert(command !== undefined, 'only admitted tasks start')
    if (!checkUnitState(task, command, this)) return
    try {
      const result = command.execute(task, this)
      if (result) void result.catch((error: unknown) => this.#failed(task, command, error))
    } catch (error) {
      this.#failed(task, command, error)
    }
  }

  /** A handler's PlexusError becomes sense data; anything else is a programmer's error and ends the process. */
  #failed(task: Task, command: ScsiCommand, error: unknown): void {
    if (!(error instanceof PlexusError) || task.completed) {
      process.nextTick(() => {
        throw error
      })
      return
    }
    this.log.debug({ unit: this.name, err: error }, `${command.name} failed`)
    failTask(task, error, command.writes ? 'write' : 'read')
  }

  #count(task: Task): void {
    const command = task.command
    assert(command !== undefined, 'only admitted tasks end')
    let counters = this.statistics[command.opcode]
    if (!counters) {
      const { name } = command
      counters = { name, operations: 0, bytes: 0, errors: 0, mediumErrors: 0, latencyMs: 0 }
      this.statistics[command.opcode] = counters
    }
    counters.operations++
    counters.bytes += task.dataInBytes + task.transferOutBytes
    if (task.status !== STATUS.GOOD && task.status !== STATUS.CONDITION_MET) counters.errors++
    if (senseKeyOf(task.sense) === SENSE_KEY.MEDIUM_ERROR) counters.mediumErrors++
    counters.latencyMs += this.clock.nowMs() - task.startedMs
  }
}
