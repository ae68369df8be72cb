/**
 * Drives of an assembled set that come back and that go: what becomes durable, which jobs begin, what is said.
 * Inside a topology change; called by vinum-set.ts.
 */
import { PlexusError } from '../../../base/errors.ts'
import type { Anchor } from '../../geom/anchor.ts'
import type { Choice } from '../../geom/anchor-quorum.ts'
import { AnchoredDevice } from '../../geom/anchored-device.ts'
import type { Provider } from '../../geom/provider.ts'
import { returnDrives } from '../model/membership.ts'
import { type Member, readMember, relinquish, type SetDrive, settleLabel } from './drive.ts'
import { startNeededJobs } from './jobs.ts'
import { adviceOn, isEmpty } from './members.ts'
import { fitDrives } from './sizes.ts'
import type { VinumSet } from './vinum-set.ts'

const READ_ONLY_ACTION =
  'Make it writable: readOnly in the configuration, a switch on the disk, or blockdev --setrw'

/**
 * Takes a device with a label of the set and reads what it says; undefined: it cannot be used, and its label says why
 * (topology.labelProblem).
 */
export async function openMember(
  set: VinumSet,
  provider: Provider,
  anchor: Anchor,
): Promise<Member | undefined> {
  const { topology } = set
  const drive = set.drives.get(anchor.deviceUuid)
  const name = drive?.record.name ?? anchor.deviceUuid
  if (provider.features.readOnly) {
    const text = `carries the label of drive ${name}, and is read-only`
    topology.labelProblem(provider, anchor, { text, action: READ_ONLY_ACTION })
    return undefined
  }
  if (await set.copies.sort(provider, anchor, name)) return undefined
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

/** Says why a set is not served, unless that is what was `said` last. Returns what was. */
export function tellIncomplete(
  set: VinumSet,
  choice: Choice,
  said: string | undefined,
): string | undefined {
  const { name, members, topology } = set
  const why = set.describeIncomplete()
  // Labels without a configuration, from a verb that was cut off: nothing waits for anything, and who clears the
  // labels or uses the devices otherwise is welcome.
  if (isEmpty(choice, members)) for (const one of members.values()) relinquish(one)
  if (choice.kind === 'none' || said === why) return said
  const text = `${name} is not served: ${why}. ${adviceOn(choice)}: plexus vinum assemble --force`
  topology.events.emit('critical', 'set-incomplete', name, text)
  return why
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
  await settleLabel(set.log, member)
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
  await fitDrives(set)
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
