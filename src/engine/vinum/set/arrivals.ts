/**
 * Drives of an assembled set that come back and that go: what becomes durable, which jobs begin, what is said.
 * Inside a topology change; called by vinum-set.ts.
 */
import { defined } from '../../../base/assert.ts'
import { PlexusError } from '../../../base/errors.ts'
import type { Anchor } from '../../geom/anchor.ts'
import { AnchoredDevice } from '../../geom/anchored-device.ts'
import type { Provider } from '../../geom/provider.ts'
import { demoteSubdisks, returnDrives } from '../model/membership.ts'
import { byUuid, type VinumModel } from '../model/model.ts'
import { lastCopyLost } from '../model/state-rules.ts'
import { type Member, readMember, relinquish, type SetDrive } from './drive.ts'
import { startNeededJobs } from './jobs.ts'
import type { VinumSet } from './vinum-set.ts'

/** Takes a device with a label of the set and reads what it says; undefined: it is a copy of a drive that is here. */
export async function openMember(
  set: VinumSet,
  provider: Provider,
  anchor: Anchor,
): Promise<Member | undefined> {
  const { topology } = set
  const uuid = anchor.deviceUuid
  const drive = set.drives.get(uuid)
  if (set.members.has(uuid) || drive?.present) {
    topology.events.emit(
      'critical',
      'duplicate-drive',
      provider.name,
      `${provider.name} carries the label of a drive that is present already: it is a copy, and is left alone`,
    )
    return undefined
  }
  const holder = `vinum drive ${drive?.record.name ?? provider.name}`
  const access = { read: 1, write: 1, exclusive: 1 }
  const consumer = topology.attach(provider, set, holder, access)
  const member = await readMember(consumer, AnchoredDevice.open(consumer, anchor))
  if (member.error) {
    set.log.error(
      { err: member.error, event: 'bad-label', device: provider.name },
      `the configuration on ${provider.name} cannot be used`,
    )
  }
  return member
}

/** Says that a commit has taken a drive out of service, because it could not be written. */
export function tellFailed(set: VinumSet, driveUuid: string, error: PlexusError): void {
  const name = set.drives.get(driveUuid)?.record.name
  if (name === undefined) return
  const text = `drive ${name} is out of service: its configuration could not be written: ${error.message}`
  set.topology.events.emit('critical', 'drive-down', name, text)
}

/** A drive of the assembled set has come back, or one that is not its drive any more. */
export async function returnMember(set: VinumSet, member: Member): Promise<void> {
  const drive = set.drives.get(member.uuid)
  const name = member.consumer.provider.name
  const { events } = set.topology
  const generation = member.slot?.generation ?? 0
  if (!drive || generation > set.model.generation) {
    set.members.set(member.uuid, member)
    relinquish(member)
    const why = drive
      ? 'it carries a newer configuration than the one that runs'
      : 'it was taken out of its set while it was away'
    events.emit(
      'warning',
      'former-drive',
      name,
      `${name} is not used: ${why}; to use it again: plexus device clear-label ${name}`,
    )
    return
  }
  drive.take(member.consumer, member.label)
  set.arrivals++
  const devices = new Map([[member.uuid, name]])
  try {
    await set.commit((model) => startNeededJobs(returnDrives(model, devices), set.topology.random))
  } catch (error) {
    // The set has failed, and lets go of this one with the others.
    if (!(error instanceof PlexusError)) throw error
    set.log.error({ err: error, drive: name }, 'the return of a drive could not be written down')
    return
  }
  // A drive that does not take its configuration is down again by the same commit.
  if (drive.record.state === 'up') {
    const text = `drive ${drive.record.name} is back (${name})`
    events.emit('info', 'drive-up', drive.record.name, text)
  }
  await set.objects.reshape()
  set.objects.startJobs(set.model)
}

/** A drive is gone: out of service at once in memory, then durably. */
export async function loseDevice(
  set: VinumSet,
  drive: SetDrive,
  reason: PlexusError,
): Promise<void> {
  const consumer = drive.drop()
  if (consumer) set.closeSoon(consumer)
  set.refresh()
  if (consumer?.features.volatileWriteCache) set.objects.loseCache(drive)
  const { name } = drive.record
  const text = `drive ${name} is gone: ${reason.message}`
  drive.goneSince = set.topology.events.emit('critical', 'drive-down', name, text).time
  try {
    // With all that are gone by now: what went together is complete together.
    await set.commit((model) => set.withLosses(model))
  } catch (error) {
    set.log.error({ err: error, drive: name }, 'the loss of a drive could not be written down')
  }
}

/**
 * The model with these subdisks out of service, and filled anew in full: their drives were copied, or put back from a
 * copy, and have missed writes. Where another good copy is lacking they stay, and the event says so.
 */
export function fillOutdated(
  set: VinumSet,
  model: VinumModel,
  outdated: readonly string[],
): VinumModel {
  const out = outdated.filter((uuid, index) => {
    const isOut = lastCopyLost(model, outdated.slice(0, index + 1)) === undefined
    const subdisk = defined(byUuid(model.subdisks, uuid), `subdisk ${uuid}`)
    const drive = set.drives.get(subdisk.driveUuid)?.record.name ?? subdisk.name
    const what = `drive ${drive} has an older state of subdisk ${subdisk.name} than the other drives, as a copy or a restored image has`
    const next = isOut
      ? 'it is filled anew from them'
      : 'no other copy is good: put back the right disk, or check the data'
    set.topology.events.emit('critical', 'drive-outdated', drive, `${what}: ${next}`)
    return isOut
  })
  if (out.length === 0) return model
  return startNeededJobs(demoteSubdisks(model, out), set.topology.random, out)
}
