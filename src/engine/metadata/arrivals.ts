/**
 * Drives of an assembled set that come back and that go: what becomes durable, which jobs begin, what is said.
 * Inside a topology change; called by device-set.ts.
 */
import { PlexusError } from '../../base/errors.ts'
import type { Anchor } from '../anchor/anchor-layout.ts'
import { type Choice, standingOf } from '../anchor/anchor-quorum.ts'
import { AnchoredDevice } from '../anchor/anchored-device.ts'
import type { EventLog } from '../geom/events.ts'
import type { Provider } from '../geom/provider.ts'
import type { AnySet, DeviceSet } from './device-set.ts'
import { adviceOn, copyOf, describeChoice, isEmpty } from './members.ts'
import { type Member, readMember, releaseAccess, type SetDrive, settleLabel } from './set-drive.ts'
import type { SetModel } from './set-model.ts'
import { fitDrives } from './sizes.ts'

const READ_ONLY_ACTION =
  'Make it writable: readOnly in the configuration, a switch on the disk, or blockdev --setrw'

/**
 * Takes a device with a label of the set and reads what it says; undefined: it cannot be used, and its label says why
 * (topology.labelProblem).
 */
export async function openMember<M extends SetModel>(
  set: DeviceSet<M>,
  provider: Provider,
  anchor: Anchor,
): Promise<Member<M> | undefined> {
  const { topology } = set
  const drive = set.drives.get(anchor.deviceUuid)
  const name = drive?.record.name ?? anchor.deviceUuid
  if (provider.features.readOnly) {
    const text = `carries the label of drive ${name}, and is read-only`
    topology.labelProblem(provider, anchor, { text, action: READ_ONLY_ACTION })
    return undefined
  }
  if (await set.copies.sort(provider, anchor)) return undefined
  const holder = `${set.className} drive ${drive?.record.name ?? provider.name}`
  const access = { read: 1, write: 1, exclusive: 1 }
  const consumer = topology.attach(provider, set, holder, access)
  const member = await readMember(consumer, AnchoredDevice.open(consumer, anchor), set.codec)
  if (member.error) {
    set.log.error(
      { err: member.error, event: 'bad-label', device: provider.name },
      `the configuration on ${provider.name} cannot be used`,
    )
  }
  return member
}

/** Says why a set is not served, unless that is what was told last. */
export function tellIncomplete(set: AnySet, choice: Choice): void {
  const { name, members, topology } = set
  const why = describeChoice(choice, members)
  // Labels without a configuration, from a verb that was cut off: nothing waits for anything, and who clears the
  // labels or uses the devices otherwise is welcome.
  if (isEmpty(choice, members)) for (const one of members.values()) releaseAccess(one)
  if (choice.kind === 'none' || set.told === why) return
  set.told = why
  const text = `${name} is not served: ${why}. ${adviceOn(choice, set)}`
  topology.events.emit('critical', 'set-incomplete', name, text)
}

export function tellAssembled(set: AnySet): void {
  const { name, model, contents, topology } = set
  const text = `${name} is assembled: ${contents} on ${model.drives.length} drives`
  topology.events.emit('info', 'set-assembled', name, text)
}

/** Says that a commit has taken a drive out of service, because it could not be written. (The witness tells of itself.) */
export function tellFailed(set: AnySet, driveUuid: string, error: PlexusError): void {
  const name = set.drives.get(driveUuid)?.record.name
  if (name === undefined) return
  const text = `drive ${name} is out of service: its configuration could not be written: ${error.message}`
  set.topology.events.emit('critical', 'drive-down', name, text)
}

/**
 * A drive of the assembled set has come back, or one that is not its drive any more. With an operator's word (`isWord`)
 * also one that was used apart from the set: it is filled as a whole.
 */
export async function returnMember(
  set: AnySet,
  member: Member<SetModel>,
  { isWord = false } = {},
): Promise<void> {
  const { uuid, label, consumer } = member
  const drive = set.drives.get(uuid)
  const { name } = consumer.provider
  const standing = drive && standingOf(copyOf(member), set.model, drive.record.last)
  if (!drive || (standing === 'apart' && !isWord)) {
    set.members.set(uuid, member)
    releaseAccess(member)
    if (drive) {
      const text = `${name} is not used: ${apartText(set, uuid)}. ${fillAction(set)}`
      events(set).emit('critical', 'drive-apart', drive.record.name, text)
    } else tellFormer(set, name)
    return
  }
  set.skipTo(label.anchor.generation)
  await settleLabel(set.log, member)
  await set.beforeReturn()
  drive.take(consumer, label)
  set.arrivals++
  const isOlder = standing !== 'behind'
  const withDrive = (model: SetModel): SetModel => set.withMember(model, uuid, name, isOlder)
  try {
    if (isOlder) await set.beforeOlder(withDrive(set.model), uuid)
    await set.commit(withDrive)
  } catch (error) {
    // The set has failed, and lets go of this one with the others.
    if (!(error instanceof PlexusError)) throw error
    set.log.error({ err: error, drive: name }, 'the return of a drive could not be written down')
    return
  }
  // A drive that does not take its configuration is down again by the same commit.
  if (drive.record.state === 'up') {
    const how = isOlder ? `: ${set.olderText}` : ''
    const text = `drive ${drive.record.name} is back (${name})${how}`
    events(set).emit('info', 'drive-up', drive.record.name, text)
  }
  await set.reshape()
  set.startJobs()
  await fitDrives(set)
}

/** In words, why the drive `uuid` does not come back by itself. */
export function apartText({ drives }: AnySet, uuid: string): string {
  const name = drives.get(uuid)?.record.name ?? uuid
  return `drive ${name} was used apart from its set, and may have data that the set does not have`
}

/** What there is to do about drives that were used apart from a set in operation. */
export function fillAction(set: AnySet): string {
  const running = [...set.drives.values()].find(({ present }) => present)
  return (
    'If the set is right as it runs, the drive is filled from it, and what only the drive has is lost: ' +
    `plexus ${set.className} assemble --from ${running?.device ?? 'DRIVE'}`
  )
}

function tellFormer(set: AnySet, name: string): void {
  const text =
    `${name} is not used: it was taken out of its set while it was away; to use it again: ` +
    `plexus device clear-label ${name}`
  events(set).emit('warning', 'former-drive', name, text)
}

function events(set: AnySet): EventLog {
  return set.topology.events
}

/** A drive is gone: out of service at once in memory, then durably. */
export async function loseDevice(set: AnySet, drive: SetDrive, reason: PlexusError): Promise<void> {
  const consumer = drive.drop()
  if (consumer) set.closeSoon(consumer)
  set.refresh()
  if (consumer?.features.volatileWriteCache) set.loseCache(drive)
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
