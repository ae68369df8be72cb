/**
 * From a name that the operator typed to a drive: a drive of the set, or a device that becomes one. Refuses
 * devices that are missing, read-only, held by somebody, or that carry foreign data. Used by every verb that
 * takes devices.
 */
import { formatSize } from '../../../base/bytes.ts'
import { newUuid } from '../../../base/random.ts'
import { planAnchor } from '../../anchor/anchor-layout.ts'
import type { Candidate } from '../../verbs/plan.ts'
import type { DriveRecord } from '../model/model.ts'
import { type Draft, isPlaceholder } from './draft.ts'
import { checkNewName, freeName } from './lookup.ts'

/**
 * The drive that a name means: first a drive of that name, then the drive that the device of that name
 * carries, then the device itself, which becomes a drive.
 * Throws `not-found`, `gone` (a drive that is down), `in-use`, `permission`, `foreign` or `no-space`.
 */
export function resolveDrive(draft: Draft, name: string): DriveRecord {
  const { drives } = draft.model
  const drive =
    drives.find((one) => one.name === name && !isPlaceholder(one)) ??
    drives.find((one) => one.device === name && draft.isPresent(one.uuid))
  return drive ? usableDrive(draft, drive) : newDrive(draft, name)
}

/** The drives that these names mean, each once. Throws `invalid` where one is named twice. */
export function resolveDrives(draft: Draft, names: readonly string[]): readonly DriveRecord[] {
  const drives = draft.distinct(names, 'device').map((name) => resolveDrive(draft, name))
  draft.distinct(
    drives.map((one) => one.name),
    'drive',
  )
  return drives
}

/** The drive, which must be able to take new subdisks. Throws `gone`. */
export function usableDrive(draft: Draft, drive: DriveRecord): DriveRecord {
  if (drive.state === 'up' && draft.isPresent(drive.uuid)) return drive
  const why = `drive ${drive.name} (device ${drive.device || '???'}) is down: nothing can be put on it; bring the device back, or choose another one`
  return draft.fail('gone', drive.name, why)
}

/** Makes a drive of a device; default of `driveName`: the device's. Throws as {@link resolveDrive}, and `exists` when the name is taken. */
export function newDrive(draft: Draft, device: string, driveName?: string): DriveRecord {
  const candidate = draft.context.candidate(device)
  if (!candidate) {
    const why = `there is no drive and no device "${device}"; plexus device list shows the devices of the configuration`
    return draft.fail('not-found', device, why)
  }
  checkCandidate(draft, candidate)
  // A provider of another class is named CLASS/NAME; the last part is its name.
  const name = driveName ?? candidate.name.split('/').at(-1) ?? candidate.name
  checkNewName(draft, 'drive', name)
  const layout = planAnchor(candidate.sizeBytes, candidate.blockBytes)
  const record: DriveRecord = {
    uuid: newUuid(draft.context.random),
    name,
    state: 'up',
    device: candidate.name,
    mediaBytes: candidate.sizeBytes,
    blockBytes: candidate.blockBytes,
    dataStartBytes: layout.dataStartBytes,
    dataEndBytes: layout.dataEndBytes,
    last: undefined,
  }
  draft.addDrive({ candidate, record })
  const found = candidate.contents === '' ? 'blank' : `overwrites ${candidate.contents}`
  draft.step(
    `write label on ${name} (${candidate.path}, ${formatSize(candidate.sizeBytes)}, ${found})`,
    name,
  )
  if (candidate.contents !== '') {
    draft.warn(`${candidate.path}: ${candidate.contents} is overwritten and cannot be brought back`)
  }
  return record
}

/** Adds a drive without a device, to keep the places of subdisks. */
export function addPlaceholder(
  draft: Draft,
  size: Omit<DriveRecord, 'uuid' | 'name' | 'state' | 'device'>,
): DriveRecord {
  const uuid = newUuid(draft.context.random)
  const name = freeName(draft.model, 'missing')
  const drive: DriveRecord = { ...size, uuid, name, state: 'down', device: '' }
  draft.add('drives', drive)
  return drive
}

function checkCandidate(draft: Draft, candidate: Candidate): void {
  const { name, path } = candidate
  const taken = draft.newDrives.find((one) => one.candidate.name === name)
  if (taken) {
    const why = `${path}: drive ${taken.record.name} is made of it already; name each device once`
    draft.fail('in-use', name, why)
  }
  if (candidate.inUse !== undefined) {
    const why = `${path}: in use by ${candidate.inUse}; free it there first, or choose another device`
    draft.fail('in-use', name, why)
  }
  if (candidate.twin !== undefined) {
    const why =
      `${path}: the same disk as ${candidate.twin}, by another path, or a copy of it; several paths cannot be used together yet: take one of ` +
      'them out of the configuration'
    draft.fail('in-use', name, why)
  }
  if (candidate.readOnly) {
    const why = `${path}: read-only; a drive must take writes. Choose another device`
    draft.fail('permission', name, why)
  }
  if (candidate.contents !== '' && !draft.flag('wipeSignatures')) {
    const why = `${path}: ${candidate.contents} found; --wipe-signatures overwrites it`
    draft.fail('foreign', name, why)
  }
}
