/**
 * A drive of a native set in operation: the consumer that holds its provider, and its label. vinum-set.ts makes
 * one for each drive of the model, with or without a device.
 */
import { defined } from '../../base/assert.ts'
import type { PlexusError } from '../../base/errors.ts'
import type { AnchoredDevice, CommittedSlot } from '../geom/anchored-device.ts'
import type { Consumer } from '../geom/consumer.ts'
import { decodeModel } from './codec.ts'
import { type DriveRecord, type VinumModel, votersOf } from './model.ts'
import type { Drive, TroubleCounts } from './runtime.ts'

export class SetDrive implements Drive {
  record: DriveRecord
  consumer: Consumer | undefined
  label: AnchoredDevice | undefined
  readonly errors: TroubleCounts = { read: 0, write: 0, parity: 0 }

  constructor(record: DriveRecord) {
    this.record = record
  }

  /** A device with the label of this drive has come. */
  take(consumer: Consumer, label: AnchoredDevice): void {
    this.consumer = consumer
    this.label = label
  }

  /** The device is gone; what is in flight on it ends by itself. Returns its consumer. */
  drop(): Consumer | undefined {
    const { consumer } = this
    this.consumer = undefined
    this.label = undefined
    return consumer
  }

  /** Can its configuration and map be written? */
  get present(): boolean {
    return this.consumer !== undefined && !this.consumer.provider.error
  }
}

/** A labelled device before its set is assembled, with what its label says. */
export interface Member {
  readonly uuid: string
  readonly consumer: Consumer
  readonly label: AnchoredDevice
  readonly slot: CommittedSlot | undefined
  readonly model: VinumModel | undefined
  /** Why its configuration cannot be used. */
  readonly error: PlexusError | undefined
}

/** The configuration of a member, read and decoded; an error is kept, not thrown. */
export async function readMember(consumer: Consumer, label: AnchoredDevice): Promise<Member> {
  const uuid = label.anchor.deviceUuid
  try {
    const slot = await label.read()
    const model = slot && decodeModel(slot.payload)
    return { uuid, consumer, label, slot, model, error: undefined }
  } catch (error) {
    return {
      uuid,
      consumer,
      label,
      slot: undefined,
      model: undefined,
      error: error as PlexusError,
    }
  }
}

/** What a member says for the vote of anchor-quorum.ts; undefined: nothing. */
export function copyOf(member: Member) {
  const { uuid, slot, model, label } = member
  if (!slot || !model) return undefined
  return {
    deviceUuid: uuid,
    generation: slot.generation,
    payloadCrc: slot.payloadCrc,
    payloadVoters: votersOf(model),
    payloadOldVoters: model.votersBefore,
    previous: slot.previous,
    claimedGeneration: slot.damaged ? label.anchor.generation : undefined,
  }
}

/** The member whose model was chosen. */
export function modelOf(members: readonly Member[], uuid: string | undefined): VinumModel {
  const member = members.find((one) => one.uuid === uuid)
  return defined(member?.model, 'the model of a chosen member')
}
