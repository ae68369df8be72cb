/**
 * A device server with one logical unit over a memory device, and a way to run CDBs on it as a transport would: admit,
 * fetch Data-Out, execute, wait for the result. Used by the tests of src/target/scsi.
 */

import { MIB } from '../../src/base/limits.ts'
import { silentLogger } from '../../src/base/log.ts'
import { createAlignedPool } from '../../src/hal/aligned-pool.ts'
import type { BlockDevice, BufferPool } from '../../src/hal/block-device.ts'
import { createDeviceServer } from '../../src/target/scsi/device-server.ts'
import { BlockUnit } from '../../src/target/scsi/logical-unit.ts'
import { encodeLun } from '../../src/target/scsi/lun.ts'
import {
  type DataDirection,
  TASK_ATTRIBUTE,
  TASK_STATE,
  Task,
  type TaskAttribute,
} from '../../src/target/scsi/task.ts'
import type { DeviceServer, LunMapping, Nexus } from '../../src/target/scsi/types.ts'
import { ManualClock } from './manual-clock.ts'
import { ScriptedDevice, type ScriptedDeviceInit } from './scsi-device.ts'

export interface RunOptions {
  readonly dataOut?: Buffer
  /** Expected data transfer length; default: that of `dataOut`, or 256 KiB inwards. */
  readonly expectedBytes?: number
  /** Default: `out` with `dataOut`, else `in`. */
  readonly direction?: DataDirection
  readonly nexus?: Nexus
  readonly lun?: number
  readonly attribute?: TaskAttribute
}

export interface RunResult {
  readonly status: number
  readonly sense?: Buffer
  readonly dataIn: Buffer
  readonly task: Task
}

/** `key/ASC/ASCQ` of fixed or descriptor sense data, `06/29/00`; empty without sense data. */
export function senseText(sense: Buffer | undefined): string {
  if (!sense) return ''
  const descriptor = ((sense[0] ?? 0) & 0x7f) >= 0x72
  const bytes = descriptor ? [sense[1], sense[2], sense[3]] : [sense[2], sense[12], sense[13]]
  const hex = bytes.map((byte) => (byte ?? 0).toString(16).padStart(2, '0').toUpperCase())
  return hex.join('/')
}

export interface HarnessInit extends ScriptedDeviceInit {
  readonly blockBytes?: number
  readonly thin?: boolean
  readonly readOnly?: boolean
  readonly poolBytes?: number
  /** The medium; null for none. Default: a ScriptedDevice of 1 MiB. */
  readonly medium?: BlockDevice | null
  /** Leave 29/00 pending for the first nexus; default: taken. */
  readonly keepAttention?: boolean
}

export class ScsiHarness {
  readonly clock = new ManualClock()
  readonly pool: BufferPool
  readonly device: ScriptedDevice
  readonly unit: BlockUnit
  readonly server: DeviceServer
  readonly nexus: Nexus
  /** Tasks whose abort the transport has heard of. */
  readonly aborted: Task[] = []
  /** Data-In of the pieces of a READ that have been sent. */
  readonly #sent = new WeakMap<Task, Buffer>()
  #nextNexus = 1
  #nextTag = 1
  readonly #readOnly: boolean

  constructor(init: HarnessInit = {}) {
    const log = silentLogger()
    this.#readOnly = init.readOnly ?? false
    this.pool = createAlignedPool(init.poolBytes ?? 32 * MIB, { poison: true })
    this.device = new ScriptedDevice(init)
    this.server = createDeviceServer({ clock: this.clock, log, pool: this.pool })
    const { blockBytes, thin } = init
    this.unit = new BlockUnit({
      name: 'test/0',
      identity: {
        naa: Buffer.from('602504c1111111112222222222222222', 'hex'),
        serial: '1111111112222222222222222',
        vendor: 'PLEXUS',
        product: 'iSCSI Disk',
        revision: '0.1',
      },
      device: init.medium === null ? undefined : (init.medium ?? this.device),
      ...(blockBytes === undefined ? {} : { blockBytes }),
      ...(thin === undefined ? {} : { thin }),
      pool: this.pool,
      clock: this.clock,
      log,
    })
    this.nexus = this.newNexus(init.keepAttention)
  }

  /** A further I_T nexus that sees the unit as LUN 0. Its 29/00 is taken unless `keepAttention`. */
  newNexus(keepAttention = false): Nexus {
    const id = this.#nextNexus++
    const name = `iqn.2026-01.org.example:initiator${id}`
    const mapping: LunMapping = { lun: 0, unit: this.unit, readOnly: this.#readOnly }
    const nexus: Nexus = {
      id,
      initiatorName: name,
      initiatorPort: `${name},i,0x80000000000${id}`,
      targetName: 'iqn.2026-01.org.example:disks',
      targetPort: 'iqn.2026-01.org.example:disks,t,0x0001',
      targetPortalGroupTag: 1,
      relativePortId: 1,
      targetPorts: [{ relativePortId: 1, name: 'iqn.2026-01.org.example:disks,t,0x0001' }],
      luns: new Map([[0, mapping]]),
    }
    this.server.nexusEstablished(nexus)
    if (!keepAttention) this.unit.takeUnitAttention(nexus)
    return nexus
  }

  /** A task that has not been admitted. `done` resolves with it when it completes, or is aborted without being under way. */
  task(cdb: readonly number[], options: RunOptions = {}): { task: Task; done: Promise<Task> } {
    const direction = options.direction ?? (options.dataOut ? 'out' : 'in')
    const { promise, resolve } = deferred<Task>()
    const bytes = Buffer.alloc(16)
    Buffer.from(cdb).copy(bytes)
    const task = new Task({
      nexus: options.nexus ?? this.nexus,
      lunField: encodeLun(options.lun ?? 0),
      cdb: bytes,
      attribute: options.attribute ?? TASK_ATTRIBUTE.SIMPLE,
      tag: this.#nextTag++,
      expectedBytes: options.expectedBytes ?? options.dataOut?.length ?? 256 * 1024,
      direction,
      events: {
        onComplete: resolve,
        onAborted: (aborted) => {
          this.aborted.push(aborted)
          if (aborted.state === TASK_STATE.RUNNING) return
          aborted.dataOut?.release()
          aborted.dataOut = undefined
          resolve(aborted)
        },
        // A READ goes on at once; what a WRITE gets next is the test's part.
        onPiece: (paused) => {
          if (!paused.dataIn) return
          const before = this.#sent.get(paused) ?? Buffer.alloc(0)
          const piece = paused.dataIn.bytes.subarray(0, paused.pieceBytes)
          this.#sent.set(paused, Buffer.concat([before, piece]))
          paused.dataIn.release()
          paused.dataIn = undefined
          paused.pieceBytes = 0
          this.server.execute(paused)
        },
      },
    })
    return { task, done: promise }
  }

  /** Admits a task and, if it passes, hands its Data-Out over and executes it. */
  start(cdb: readonly number[], options: RunOptions = {}): { task: Task; done: Promise<Task> } {
    const started = this.task(cdb, options)
    if (this.server.admit(started.task)) this.execute(started.task, options.dataOut)
    return started
  }

  execute(task: Task, dataOut?: Buffer): void {
    if (task.transferOutBytes > 0) {
      const lease = this.pool.lease(task.transferOutBytes)
      if (!lease) throw new Error('the pool of the harness is empty')
      dataOut?.copy(lease.bytes)
      task.dataOut = lease
    }
    this.server.execute(task)
  }

  async run(cdb: readonly number[], options: RunOptions = {}): Promise<RunResult> {
    const { task, done } = this.start(cdb, options)
    await done
    return this.collect(task)
  }

  /** What the initiator would get, cut to what it expects; releases the task's buffers. */
  collect(task: Task): RunResult {
    const source = task.dataIn?.bytes ?? task.dataInBuffer ?? Buffer.alloc(0)
    const before = this.#sent.get(task) ?? Buffer.alloc(0)
    const left = Math.min(task.dataInBytes, task.expectedBytes) - before.length
    const dataIn = Buffer.concat([before, source.subarray(0, Math.max(0, left))])
    task.dataIn?.release()
    task.dataOut?.release()
    task.dataIn = undefined
    task.dataOut = undefined
    const result = { status: task.status, dataIn, task }
    return task.sense ? { ...result, sense: task.sense } : result
  }
}

export function createHarness(init: HarnessInit = {}): ScsiHarness {
  return new ScsiHarness(init)
}

function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {}
  const promise = new Promise<T>((settle) => {
    resolve = settle
  })
  return { promise, resolve }
}
