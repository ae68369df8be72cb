/**
 * From a name that the operator typed to a drive: a drive of the set, or a device that becomes one. Refuses
 * devices that are missing, read-only, held by somebody, or that carry foreign data. Used by every verb that
 * takes devices.
 */
import { newUuid } from '../../../base/random.ts'
import { driveRecord, labelStep, lastName, usable, wipeWarnings } from '../../verbs/new-drive.ts'
import type { DriveRecord } from '../model/model.ts'
import { poolsWith } from '../model/spares.ts'
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

/** The drive, which must be able to take new subdisks. Throws `gone`, and `in-use` for a spare. */
export function usableDrive(draft: Draft, drive: DriveRecord): DriveRecord {
  const [pool] = poolsWith(draft.model, drive.uuid)
  if (pool)
    throw draft.inUse`drive ${drive.name} is a spare of pool ${pool.name}, which is kept for drives that fail; choose another one, or take it out of the pool: plexus spare delete ${pool.name} ${drive.name}`
  return serving(draft, drive)
}

/** The drive, which must be in service. Throws `gone`. */
export function serving(draft: Draft, drive: DriveRecord): DriveRecord {
  if (drive.state === 'up' && draft.isPresent(drive.uuid)) return drive
  throw draft.gone`drive ${drive.name} (device ${drive.device || '???'}) is down: nothing can be put on it; bring the device back, or choose another one`
}

/** Makes a drive of a device; default of `driveName`: the device's. Throws as {@link resolveDrive}, and `exists` when the name is taken. */
export function newDrive(draft: Draft, device: string, driveName?: string): DriveRecord {
  const taken = draft.newDrives.find((one) => one.candidate.name === device)
  if (taken) {
    const why = `${taken.candidate.path}: drive ${taken.record.name} is made of it already; name each device once`
    draft.fail('in-use', device, why)
  }
  const wipes = draft.flag('wipeSignatures')
  const candidate = usable(draft.context.candidate(device), { op: draft.op, name: device, wipes })
  if (candidate.className === 'virstor') {
    const why = `${candidate.path} is a thin device: when its space runs out, vinum would take that for a broken disk. Put the thin device on top of a volume instead`
    draft.fail('unsupported', device, why)
  }
  const name = driveName ?? lastName(candidate)
  checkNewName(draft, 'drive', name)
  const made = { candidate, record: driveRecord(candidate, name, draft.context.random) }
  draft.addDrive(made)
  const { text } = labelStep(made)
  draft.stepOn(name, text)
  for (const warning of wipeWarnings(made)) draft.warn`${warning}`
  return made.record
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
