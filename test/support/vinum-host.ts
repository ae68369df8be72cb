/**
 * A stand-in for the vinum set around plexes and volumes under test: it keeps what it was told, takes subdisks out of
 * service in memory, and lets a test hold back or refuse that. With it come drives on memory devices and records.
 */
import pino from 'pino'
import type { Clock } from '../../src/base/clock.ts'
import { PlexusError } from '../../src/base/errors.ts'
import { createKernels, type Kernels } from '../../src/base/kernels.ts'
import { MIB } from '../../src/base/limits.ts'
import { Consumer } from '../../src/engine/geom/consumer.ts'
import { DiskGeom } from '../../src/engine/geom/disk-geom.ts'
import { Provider } from '../../src/engine/geom/provider.ts'
import type { TroubleCounts } from '../../src/engine/metadata/set-drive.ts'
import { PlacedSubdisk } from '../../src/engine/vinum/io/subdisk.ts'
import type { DriveRecord, PlexRecord, SubdiskRecord } from '../../src/engine/vinum/model/model.ts'
import type { Drive, Plex, Subdisk, VinumHost } from '../../src/engine/vinum/runtime.ts'
import { type AlignedPool, createAlignedPool } from '../../src/hal/aligned-pool.ts'
import type { IoOp, IoRequest } from '../../src/hal/block-device.ts'
import { ManualClock } from './manual-clock.ts'
import { MemoryDevice, type MemoryDeviceOptions } from './memory-device.ts'

export interface NotedError {
  readonly subdisk: Subdisk
  readonly op: keyof TroubleCounts
  readonly error: PlexusError | undefined
}

export interface NotedRepair {
  readonly subdisk: Subdisk
  readonly offset: number
  readonly length: number
}

/** Locks of a plex: a VolumeIo, or anything with its method. */
export interface LockSource {
  lock(offset: number, length: number, mode: 'writes' | 'all'): Promise<() => void>
}

export class FakeHost implements VinumHost {
  readonly pool: AlignedPool
  readonly kernels: Kernels
  readonly clock: Clock
  readonly log = pino({ level: 'silent' })
  readonly errors: NotedError[] = []
  readonly repairs: NotedRepair[] = []
  /** What each call of demote named. */
  readonly demotions: (readonly Subdisk[])[] = []
  /** Why rows of raid5 were put in doubt. */
  readonly doubts: string[] = []
  /** See isLosing. */
  losing = false
  /** Demotions become durable when it resolves. */
  gate: Promise<void> | undefined
  /** Says why some of the subdisks must stay: demote rejects with it and changes nothing. */
  refuse: (subdisks: readonly Subdisk[]) => PlexusError | undefined = () => undefined
  /** Where the plexes' locks are. */
  volume: LockSource | undefined

  constructor(clock: Clock = new ManualClock(), poolBytes = 32 * MIB) {
    this.clock = clock
    this.pool = createAlignedPool(poolBytes, { poison: true })
    this.kernels = createKernels(this.pool.memory)
  }

  /** The names of {@link demotions}: a difference in a test stays readable. */
  get demoted(): readonly string[][] {
    return this.demotions.map((subdisks) => subdisks.map(({ record }) => record.name))
  }

  async demote(subdisks: readonly Subdisk[]): Promise<void> {
    this.demotions.push(subdisks)
    const refusal = this.refuse(subdisks)
    if (refusal) throw refusal
    for (const one of subdisks) {
      if (one.writable || one.record.state === 'up') setState(one, 'stale')
    }
    await this.gate
  }

  noteError(subdisk: Subdisk, op: keyof TroubleCounts, error: PlexusError | undefined): void {
    subdisk.errors[op]++
    this.errors.push({ subdisk, op, error })
  }

  async changeLost(
    plex: Plex,
    change: (lost: PlexRecord['lost']) => PlexRecord['lost'],
  ): Promise<void> {
    // As the set does: known when it is durable.
    await this.gate
    plex.record = { ...plex.record, lost: change(plex.record.lost) }
  }

  isLosing(): boolean {
    return this.losing
  }

  async putInDoubt(_plex: Plex, _offset: number, _length: number, why: string): Promise<void> {
    this.doubts.push(why)
    await this.gate
  }

  noteRepair(subdisk: Subdisk, offset: number, length: number): void {
    this.repairs.push({ subdisk, offset, length })
  }

  lock(_plex: Plex, offset: number, length: number, mode: 'writes' | 'all'): Promise<() => void> {
    return this.volume?.lock(offset, length, mode) ?? Promise.resolve(() => {})
  }
}

/** Rule 2 for a test: nothing is taken out of service. */
export function lastCopy(): PlexusError {
  return new PlexusError('io', {
    op: 'demote',
    subject: 'test',
    message: 'the last good copy stays',
  })
}

/** Gives the subdisk a record with another state. */
export function setState(subdisk: Subdisk, state: SubdiskRecord['state']): void {
  subdisk.record = { ...subdisk.record, state }
}

export interface TestDrive extends Drive {
  readonly device: MemoryDevice
  /** Its device is pulled: requests fail with `gone`, the consumer is no more. */
  pull(): void
}

export function testUuid(number: number): string {
  return `00000000-0000-4000-8000-${number.toString(16).padStart(12, '0')}`
}

/** A drive on a memory device, opened as the set opens it. `number` makes its UUID. */
export function testDrive(
  host: VinumHost,
  number: number,
  options: MemoryDeviceOptions,
): TestDrive {
  const name = `d${number}`
  const device = new MemoryDevice({ path: `/dev/${name}`, ...options })
  const geom = new DiskGeom(name, device)
  const { geometry, identity, features } = device
  geom.provider = new Provider(geom, { name, geometry, identity, features })
  const consumer = new Consumer(geom.provider, undefined, `vinum drive ${name}`, host)
  consumer.changeAccess({ read: 1, write: 1, exclusive: 1 })
  const record: DriveRecord = {
    uuid: testUuid(0xd000 + number),
    name,
    state: 'up',
    device: device.path,
    mediaBytes: device.media.length,
    blockBytes: geometry.logicalBlockBytes,
    dataStartBytes: 0,
    dataEndBytes: device.media.length,
    last: undefined,
  }
  const drive: TestDrive = {
    record,
    consumer,
    errors: { read: 0, write: 0, parity: 0 },
    device,
    pull() {
      device.remove()
      geom.provider.error = new PlexusError('gone', {
        op: 'use',
        subject: device.path,
        message: `${device.path} is gone; connect it again`,
      })
      drive.consumer = undefined
    },
  }
  return drive
}

/** A subdisk on a drive. What is not said: up, at the start of the drive, at the start of plex space. */
export function testSubdisk(
  drive: Drive,
  name: string,
  sizeBytes: number,
  more: Partial<SubdiskRecord> = {},
): PlacedSubdisk {
  const record: SubdiskRecord = {
    uuid: testUuid(0x5d000 + [...name].reduce((sum, char) => sum * 31 + char.charCodeAt(0), 0)),
    name,
    driveUuid: drive.record.uuid,
    plexUuid: undefined,
    sizeBytes,
    driveOffsetBytes: 0,
    plexOffsetBytes: 0,
    state: 'up',
    move: undefined,
    origin: undefined,
    ...more,
  }
  return new PlacedSubdisk(record, drive)
}

/** A plex record. What is not said: up, attached, not growing; parity valid throughout. */
export function testPlexRecord(
  name: string,
  organization: PlexRecord['organization'],
  stripeBytes: number,
  more: Partial<PlexRecord> = {},
): PlexRecord {
  return {
    uuid: testUuid(0x91000 + [...name].reduce((sum, char) => sum * 31 + char.charCodeAt(0), 0)),
    name,
    volumeUuid: testUuid(0x701),
    organization,
    stripeBytes,
    parityLayout: organization === 'raid5' ? 'left-symmetric' : undefined,
    state: 'up',
    parityValidBytes: Number.MAX_SAFE_INTEGER,
    growth: undefined,
    lost: undefined,
    ...more,
  }
}

/** Anything that takes requests of a volume or, with a callback for what is missed, of a plex. */
export interface Startable {
  start(request: IoRequest, onMissed: (subdisk: Subdisk, error: PlexusError) => void): void
}

export interface SentRequest {
  readonly op: IoOp
  readonly offset?: number
  readonly length?: number
  readonly data?: Buffer
  readonly fua?: boolean
  readonly onMissed?: (subdisk: Subdisk, error: PlexusError) => void
}

/** Sends one request; resolves to its error, if any. Fails the process when it completes twice or from within. */
export function send(target: Startable, request: SentRequest): Promise<PlexusError | undefined> {
  return new Promise((resolve, reject) => {
    let within = true
    let ended = false
    const { data } = request
    target.start(
      {
        op: request.op,
        offset: request.offset ?? 0,
        length: request.length ?? data?.length ?? 0,
        data: data && { bytes: data, address: 0 },
        dataOffset: 0,
        fua: request.fua ?? false,
        cause: 'initiator',
        complete(error) {
          if (within) reject(new Error(`${request.op} completed from within start`))
          if (ended) throw new Error(`${request.op} completed twice`)
          ended = true
          resolve(error)
        },
      },
      request.onMissed ?? (() => {}),
    )
    within = false
  })
}

/** Lets everything that is due now happen: microtasks, and completions of memory devices. */
export async function settle(turns = 8): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve))
}
