/**
 * A logical unit of fixed properties, and a way to run one command row against it without the device
 * server: what the parameter-data commands answer, byte by byte, for any geometry and features. Tests of how
 * they meet prechecks, masks and task management use scsi-harness.ts instead.
 */
import { defined } from '../../src/base/assert.ts'
import type { PlexusError } from '../../src/base/errors.ts'
import type {
  BlockDevice,
  DeviceFeatures,
  Geometry,
  IoRequest,
} from '../../src/hal/block-device.ts'
import { TASK_ATTRIBUTE, Task } from '../../src/target/scsi/task.ts'
import type {
  AscCode,
  LogicalUnit,
  LunMapping,
  Nexus,
  ScsiCommand,
} from '../../src/target/scsi/types.ts'

export const GEOMETRY: Geometry = {
  sizeBytes: 2 ** 30,
  logicalBlockBytes: 512,
  physicalBlockBytes: 4096,
  alignmentOffsetBytes: 0,
  ioMinBytes: 4096,
  ioOptBytes: 0,
  maxTransferBytes: 0,
}

export const FEATURES: DeviceFeatures = {
  volatileWriteCache: true,
  rotational: false,
  readOnly: false,
  discardGranularityBytes: 4096,
  discardAlignmentBytes: 0,
  discardMaxBytes: 2 ** 30,
  discardZeroes: true,
  writeZeroes: true,
}

export interface FixedUnitOptions {
  readonly blockBytes?: number
  readonly blocks?: number
  readonly thin?: boolean
  /** False: the medium is missing. */
  readonly device?: boolean
  readonly geometry?: Partial<Geometry>
  readonly features?: Partial<DeviceFeatures>
  readonly serial?: string
  readonly readOnly?: boolean
}

export class FixedUnit {
  /** Flushes that wait for `finishFlush`. Others complete by themselves. */
  readonly heldFlushes: IoRequest[] = []
  holdFlushes = false
  flushes = 0
  flushError: PlexusError | undefined = undefined
  /** Unit attentions that commands established, with the nexus that was left out. */
  readonly attentions: { code: AscCode; except: Nexus | undefined }[] = []
  pendingAttention: AscCode | undefined = undefined
  reservedBy: Nexus | undefined = undefined
  readonly unit: LogicalUnit
  readonly nexus: Nexus
  readonly otherNexus: Nexus
  readonly mapping: LunMapping

  constructor(options: FixedUnitOptions = {}) {
    const device = {
      geometry: { ...GEOMETRY, ...options.geometry },
      features: { ...FEATURES, ...options.features },
      submit: (request: IoRequest) => this.#submit(request),
    } as unknown as BlockDevice
    this.unit = {
      name: 'test',
      identity: {
        naa: Buffer.from('6589cfc000000f5e0d2b3c4d5e6f7081', 'hex'),
        serial: options.serial ?? 'PX0001',
        vendor: 'PLEXUS',
        product: 'Volume',
        revision: '0001',
      },
      device: options.device === false ? undefined : device,
      blockBytes: options.blockBytes ?? 512,
      blocks: options.blocks ?? 2097152,
      thin: options.thin ?? false,
      stopped: false,
      mode: {
        writeCacheEnabled: true,
        descriptorSense: false,
        softwareWriteProtect: false,
        thresholdNotification: true,
      },
      reservations: {
        reserve: (nexus: Nexus) => {
          this.reservedBy ??= nexus
          return this.reservedBy === nexus
        },
        release: (nexus: Nexus) => {
          if (this.reservedBy === nexus) this.reservedBy = undefined
        },
      },
      establishUnitAttention: (code: AscCode, except?: Nexus) => {
        this.attentions.push({ code, except })
      },
      takeUnitAttention: () => {
        const code = this.pendingAttention
        this.pendingAttention = undefined
        return code
      },
    } as unknown as LogicalUnit
    Object.defineProperty(this.unit.reservations, 'holder', { get: () => this.reservedBy })
    this.mapping = { lun: 0, unit: this.unit, readOnly: options.readOnly ?? false }
    this.nexus = this.#nexus(1)
    this.otherNexus = this.#nexus(2)
  }

  /** Runs one row. `lun` false: the LUN is not there. */
  run(
    row: ScsiCommand,
    cdb: readonly number[],
    options: { dataOut?: Buffer; nexus?: Nexus; lun?: boolean } = {},
  ): Promise<Task> {
    return new Promise((resolve, reject) => {
      const dataOut = options.dataOut ?? Buffer.alloc(0)
      const task = new Task({
        nexus: options.nexus ?? this.nexus,
        lunField: Buffer.alloc(8),
        cdb: Buffer.concat([Buffer.from(cdb), Buffer.alloc(16)], 16),
        attribute: TASK_ATTRIBUTE.SIMPLE,
        tag: 1,
        expectedBytes: dataOut.length || 0x10000,
        direction: row.data,
        events: { onComplete: resolve, onAborted() {}, onPiece() {} },
      })
      if (options.lun !== false) task.mapping = this.mapping
      if (dataOut.length > 0) {
        task.dataOut = { bytes: dataOut, address: 0, release: () => {} }
        task.transferOutBytes = dataOut.length
      }
      this.lastTask = task
      Promise.resolve(row.execute(task, this.unit)).catch(reject)
    })
  }

  /** The task of the latest `run`. */
  lastTask: Task | undefined = undefined

  finishFlush(): void {
    defined(this.heldFlushes.shift(), 'a flush that waits').complete(undefined)
  }

  #submit(request: IoRequest): void {
    if (request.op !== 'flush') throw new Error(`unexpected ${request.op}`)
    this.flushes++
    if (this.holdFlushes) this.heldFlushes.push(request)
    else setImmediate(() => request.complete(this.flushError))
  }

  #nexus(id: number): Nexus {
    return {
      id,
      initiatorName: `iqn.2026-01.test:i${id}`,
      initiatorPort: `iqn.2026-01.test:i${id},i,0x00023d000001`,
      targetName: 'iqn.2026-01.test:t',
      targetPort: 'iqn.2026-01.test:t,t,0x0001',
      targetPortalGroupTag: 1,
      relativePortId: 1,
      targetPorts: [{ relativePortId: 1, name: 'iqn.2026-01.test:t,t,0x0001' }],
      luns: new Map([[0, this.mapping]]),
    }
  }
}

/** The row with that opcode and service action. */
export function rowOf(
  rows: readonly ScsiCommand[],
  opcode: number,
  serviceAction?: number,
): ScsiCommand {
  return defined(
    rows.find((row) => row.opcode === opcode && row.serviceAction === serviceAction),
    `row ${opcode.toString(16)}`,
  )
}

/** Data-In of a task that ended with GOOD, as lower-case hex. */
export function dataHex(task: Task): string {
  return defined(task.dataInBuffer, 'Data-In').toString('hex')
}

/** Fixed-format sense data as `key/asc/ascq` in hex, and the field pointer as `byte` or `byte.bit`. */
export function senseText(task: Task): string {
  const sense = defined(task.sense, 'sense data')
  const hex = (value: number) => value.toString(16).padStart(2, '0').toUpperCase()
  const code = `${hex(sense.readUInt8(2) & 0x0f)}/${hex(sense.readUInt8(12))}/${hex(sense.readUInt8(13))}`
  const specific = sense.readUInt8(15)
  if ((specific & 0x80) === 0) return code
  const bit = (specific & 0x08) !== 0 ? `.${specific & 0x07}` : ''
  return `${code} ${(specific & 0x40) !== 0 ? 'cdb' : 'list'} ${sense.readUInt16BE(16)}${bit}`
}
