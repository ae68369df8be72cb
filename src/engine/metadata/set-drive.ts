/**
 * A drive of a set in operation: the consumer that holds its provider, and its label. There is one for each drive of the
 * model, with or without a device.
 */
import { defined } from '../../base/assert.ts'
import { attempt, operatingError, type PlexusError, toPlexusError } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import { writeZeroes } from '../../hal/io.ts'
import { AnchoredDevice, type CommittedSlot } from '../anchor/anchored-device.ts'
import { type Consumer, EXCLUSIVE_ACCESS } from '../geom/consumer.ts'
import type { Provider } from '../geom/provider.ts'
import type { Topology } from '../geom/topology.ts'
import type { Geom } from '../geom/types.ts'
import type { Codec, DriveRecord, SetModel } from './set-model.ts'

/** Counts of trouble since the start or the last `clear`. */
export interface TroubleCounts {
  read: number
  write: number
  parity: number
}

export class SetDrive {
  record: DriveRecord
  consumer: Consumer | undefined
  label: AnchoredDevice | undefined
  readonly errors: TroubleCounts = { read: 0, write: 0, parity: 0 }
  /** Wall-clock time (ISO 8601) at which its device went, for people. */
  goneSince: string | undefined
  /** A flush of its device has failed, whoever asked for it. */
  flushFailed: ((error: PlexusError) => void) | undefined

  constructor(record: DriveRecord) {
    this.record = record
  }

  /** A device with the label of this drive has come. */
  take(consumer: Consumer, label: AnchoredDevice): void {
    this.consumer = consumer
    this.label = label
    this.goneSince = undefined
    consumer.onFlushFailed = (error) => this.flushFailed?.(error)
  }

  /** Takes the device of `provider` for this drive and writes a label of `set` on it. */
  async format(
    set: Geom & { readonly uuid: string; readonly topology: Topology },
    provider: Provider,
  ): Promise<void> {
    const holder = `${set.className} drive ${this.record.name}`
    const consumer = set.topology.attach(provider, set, holder, EXCLUSIVE_ACCESS)
    try {
      // What was at the head goes: found again, it would speak for the disk (freebsd/convert.ts), or be mounted.
      await writeZeroes(consumer, { offset: 0, length: this.record.dataStartBytes })
      const label = await AnchoredDevice.format(consumer, {
        setUuid: set.uuid,
        className: set.className,
        deviceUuid: this.record.uuid,
      })
      this.take(consumer, label)
    } catch (error) {
      await consumer.close()
      throw error
    }
  }

  /** Takes the label off, and lets the device go. */
  async clear(): Promise<void> {
    const { label } = this
    const consumer = this.drop()
    try {
      if (consumer) await label?.clear()
    } finally {
      await consumer?.close()
    }
  }

  /** The device is gone; what is in flight on it ends by itself. Returns its consumer. */
  drop(): Consumer | undefined {
    const { consumer } = this
    this.consumer = undefined
    this.label = undefined
    return consumer
  }

  /** Name of the device that carries it; only while there is one. */
  get device(): string {
    return defined(this.consumer, 'the consumer of a drive that is present').provider.name
  }

  /** Can its configuration and map be written? */
  get present(): boolean {
    return this.consumer !== undefined && !this.consumer.provider.error
  }
}

/** A labelled device before its set is assembled, with what its label says. */
export interface Member<M extends SetModel> {
  readonly uuid: string
  readonly consumer: Consumer
  readonly label: AnchoredDevice
  readonly slot: CommittedSlot | undefined
  readonly model: M | undefined
  /** Of `slot.older`, where it can be used. */
  readonly olderModel: M | undefined
  /** Why its configuration cannot be used. */
  readonly error: PlexusError | undefined
}

/** The configuration of a member, read and decoded; an error is kept, not thrown. */
export async function readMember<M extends SetModel>(
  consumer: Consumer,
  label: AnchoredDevice,
  codec: Codec<M>,
): Promise<Member<M>> {
  const member = { uuid: label.anchor.deviceUuid, consumer, label }
  const none = { slot: undefined, model: undefined, olderModel: undefined }
  try {
    const slot = await label.read()
    const model = slot && codec.decode(slot.payload)
    // It is only looked at where the newest configurations do not decide: one that cannot be used is none.
    const older = slot?.older
    const olderModel = older && (await attempt(() => codec.decode(older.payload)))
    return { ...member, slot, model, olderModel, error: undefined }
  } catch (error) {
    return { ...member, ...none, error: toPlexusError(error, 'read', label.device.path) }
  }
}

/** Before the first commit to a member: both ends of its label say the same. Where that fails, the anchor counts. */
export async function settleLabel(log: Logger, { label }: Member<SetModel>): Promise<void> {
  const err = await label.settle().catch(operatingError)
  const text = `${label.device.path}: the front copy of its label could not be written`
  if (err) log.warn({ err }, text)
}

/** From now on the device of a member is known, but free for whoever takes it (Geom.spoil). */
export function releaseAccess({ consumer }: Member<SetModel>): void {
  const { read, write, exclusive } = consumer.access
  consumer.changeAccess({ read: -read, write: -write, exclusive: -exclusive })
}

/** Takes a device whose access was released. False: somebody else has it by now. */
export function reacquireAccess({ consumer }: Member<SetModel>): boolean {
  if (consumer.access.exclusive > 0) return true
  try {
    consumer.changeAccess(EXCLUSIVE_ACCESS)
    return true
  } catch (error) {
    return !operatingError(error)
  }
}
