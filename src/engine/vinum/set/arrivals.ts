/**
 * Drives of an assembled set that come back and that go: what becomes durable, which jobs begin, what is said.
 * Inside a topology change; called by vinum-set.ts.
 */
import { defined } from '../../../base/assert.ts'
import { operatingError, PlexusError } from '../../../base/errors.ts'
import type { Anchor } from '../../anchor/anchor-layout.ts'
import { type Choice, standingOf } from '../../anchor/anchor-quorum.ts'
import { AnchoredDevice } from '../../anchor/anchored-device.ts'
import type { EventLog } from '../../geom/events.ts'
import type { Provider } from '../../geom/provider.ts'
import { adviceOn, copyOf, describeChoice, isEmpty } from '../../metadata/members.ts'
import {
  type Member,
  readMember,
  releaseAccess,
  type SetDrive,
  settleLabel,
} from '../../metadata/set-drive.ts'
import { demoteSubdisks, returnDrives } from '../model/membership.ts'
import { byUuid, type VinumModel } from '../model/model.ts'
import { lastCopyLost } from '../model/state-rules.ts'
import { startNeededJobs } from './jobs.ts'
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
): Promise<Member<VinumModel> | undefined> {
  const { topology } = set
  const drive = set.drives.get(anchor.deviceUuid)
  const name = drive?.record.name ?? anchor.deviceUuid
  if (provider.features.readOnly) {
    const text = `carries the label of drive ${name}, and is read-only`
    topology.labelProblem(provider, anchor, { text, action: READ_ONLY_ACTION })
    return undefined
  }
  if (await set.copies.sort(provider, anchor)) return undefined
  const holder = `vinum drive ${drive?.record.name ?? provider.name}`
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
export function tellIncomplete(set: VinumSet, choice: Choice): void {
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

export function tellAssembled({ name, model, topology }: VinumSet): void {
  const text = `${name} is assembled: ${model.volumes.length} volumes on ${model.drives.length} drives`
  topology.events.emit('info', 'set-assembled', name, text)
}

/** Says that a commit has taken a drive out of service, because it could not be written. (The witness tells of itself.) */
export function tellFailed(set: VinumSet, driveUuid: string, error: PlexusError): void {
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
  set: VinumSet,
  member: Member<VinumModel>,
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
  drive.take(consumer, label)
  set.arrivals++
  const withDrive = (model: VinumModel): VinumModel => {
    const old = standing === 'behind' ? [] : oldSubdisks(model, uuid)
    set.lost.distrust(old)
    const back = returnDrives(demoteSubdisks(model, old), new Map([[uuid, name]]))
    return startNeededJobs(back, set.topology.random, new Set(old))
  }
  try {
    if (standing !== 'behind') await markUnfilled(set, withDrive(set.model), uuid)
    await set.commit(withDrive)
  } catch (error) {
    // The set has failed, and lets go of this one with the others.
    if (!(error instanceof PlexusError)) throw error
    set.log.error({ err: error, drive: name }, 'the return of a drive could not be written down')
    return
  }
  // A drive that does not take its configuration is down again by the same commit.
  if (drive.record.state === 'up') {
    const how =
      standing === 'behind'
        ? ''
        : ': an older copy of it, which is filled as a whole from good copies; what has none is out of service'
    const text = `drive ${drive.record.name} is back (${name})${how}`
    events(set).emit('info', 'drive-up', drive.record.name, text)
  }
  await set.objects.reshape()
  set.objects.jobs.start(set.model)
  await fitDrives(set)
}

/**
 * Subdisks of a drive of which nobody knows what they missed. Also those that are the only copy: beside newer content of
 * other drives the old one serves by an operator's word alone.
 */
function oldSubdisks({ subdisks }: VinumModel, driveUuid: string): readonly string[] {
  return subdisks.filter((one) => one.driveUuid === driveUuid).map(({ uuid }) => uuid)
}

/**
 * An older copy that no job fills yet, for want of a source, lacks what no mark tells of: all of it is marked, before the
 * configuration calls its drive up, and nobody knows any more that it is older.
 */
async function markUnfilled(set: VinumSet, next: VinumModel, driveUuid: string): Promise<void> {
  for (const { driveUuid: on, state, plexUuid } of next.subdisks) {
    const map = on === driveUuid && state === 'stale' && set.objects.volumeAbove(plexUuid)?.map
    // Without a drive of the volume that is up: then the next start takes all of it for marked.
    if (map) await map.mark(0, map.sizeBytes).catch(operatingError)
  }
}

/** In words, why the drive `uuid` does not come back by itself. */
export function apartText({ drives }: VinumSet, uuid: string): string {
  const name = drives.get(uuid)?.record.name ?? uuid
  return `drive ${name} was used apart from its set, and may have data that the set does not have`
}

/** What there is to do about drives that were used apart from a set in operation. */
export function fillAction(set: VinumSet): string {
  const running = [...set.drives.values()].find(({ present }) => present)
  return (
    'If the set is right as it runs, the drive is filled from it, and what only the drive has is lost: ' +
    `plexus vinum assemble --from ${running?.device ?? 'DRIVE'}`
  )
}

function tellFormer(set: VinumSet, name: string): void {
  const text =
    `${name} is not used: it was taken out of its set while it was away; to use it again: ` +
    `plexus device clear-label ${name}`
  events(set).emit('warning', 'former-drive', name, text)
}

function events(set: VinumSet): EventLog {
  return set.topology.events
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
  const out: string[] = []
  for (const uuid of outdated) {
    const isOut = lastCopyLost(model, [...out, uuid]) === undefined
    if (isOut) out.push(uuid)
    const subdisk = defined(byUuid(model.subdisks, uuid), `subdisk ${uuid}`)
    const drive = set.drives.get(subdisk.driveUuid)?.record.name ?? subdisk.name
    const what = `drive ${drive} has an older state of subdisk ${subdisk.name} than the other drives, as a copy or a restored image has`
    const next = isOut
      ? 'it is filled anew from them'
      : 'no other copy is good: put back the right disk, or check the data'
    set.topology.events.emit('critical', 'drive-outdated', drive, `${what}: ${next}`)
  }
  if (out.length === 0) return model
  set.lost.distrust(out)
  return startNeededJobs(demoteSubdisks(model, out), set.topology.random, new Set(out))
}

export function witherError(name: string): PlexusError {
  return new PlexusError('gone', {
    op: 'use',
    subject: name,
    message: `${name} is stopped; it is back when its drives are`,
  })
}
