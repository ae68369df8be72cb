/**
 * `vinum rm` and `volume destroy`: objects leave the configuration (docs/vinum.md, 6). Volumes in use are never
 * removed by rm; data without another copy only with -f; drives only when nothing needs them.
 */
import { formatSize } from '../../../base/bytes.ts'
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import { VOLUME_SPECS } from '../../../control/volume-verbs.ts'
import {
  byUuid,
  type DriveRecord,
  type ModelObject,
  type PlexRecord,
  type SubdiskRecord,
  type VolumeRecord,
} from '../model/model.ts'
import { poolsWith } from '../model/spares.ts'
import { type Draft, isPlaceholder, planning } from './draft.ts'
import { addPlaceholder } from './drives.ts'
import { findObject, findTyped, lookUp } from './lookup.ts'

export const RM = planning(VINUM_SPECS.rm, [], (draft) => {
  const objects = draft.names('objects', 'object')
  for (const name of objects) findObject(draft.model, name)
  for (const name of objects) {
    const found = lookUp(draft.model, name)
    // An object that went with one named before it.
    if (found) remove(draft, found)
  }
})

function remove(draft: Draft, { type, record }: ModelObject): void {
  if (type === 'volume') removeVolume(draft, record)
  else if (type === 'plex') removePlex(draft, record)
  else if (type === 'subdisk') removeSubdisk(draft, record)
  else removeDrive(draft, record)
}

function needsRecursive(draft: Draft, type: string, name: string, below: string): never {
  return draft.fail('in-use', name, `${type} ${name} has ${below}; -r removes them with it`)
}

function removeVolume(draft: Draft, volume: VolumeRecord): void {
  if (draft.context.isOpen(volume.uuid))
    throw draft.inUse`volume ${volume.name} is in use; take its LUN away first, then remove it`
  const plexes = draft.plexesOf(volume)
  if (plexes.length > 0 && !draft.flag('recursive')) {
    needsRecursive(draft, 'volume', volume.name, count(plexes.length, 'plex', 'plexes'))
  }
  if (plexes.length > 0 && !draft.flag('force'))
    throw draft.inUse`volume ${volume.name} holds ${formatSize(volume.sizeBytes)} of data that would be lost; -f removes it all the same`
  dropVolume(draft, volume)
}

/** Takes a volume out, with all that is below it. */
export function dropVolume(draft: Draft, volume: VolumeRecord): void {
  for (const plex of draft.plexesOf(volume)) dropPlex(draft, plex)
  draft.drop(new Set([volume.uuid]))
  draft.step`remove volume ${volume.name}: ${formatSize(volume.sizeBytes)}`
  const undo = `unless it is brought back before its place is used again: plexus volume undelete ${volume.name}`
  const suffix = draft.context.kept ? `, ${undo}` : ''
  if (volume.sizeBytes > 0) draft.warn`all data of volume ${volume.name} is lost${suffix}`
}

/** Takes a plex out, with its subdisks. */
export function dropPlex(draft: Draft, plex: PlexRecord): void {
  for (const one of draft.subdisksOf(plex)) dropSubdisk(draft, one)
  draft.drop(new Set([plex.uuid]))
  draft.step`remove plex ${plex.name}`
}

function dropSubdisk(draft: Draft, subdisk: SubdiskRecord): void {
  const drive = draft.drive(subdisk.driveUuid)
  draft.drop(new Set([subdisk.uuid]))
  if (drive && isPlaceholder(drive)) return
  draft.step`remove subdisk ${subdisk.name}: frees ${formatSize(subdisk.sizeBytes)} on ${drive?.name}`
}

function removePlex(draft: Draft, plex: PlexRecord): void {
  const real = draft.subdisksOf(plex).filter((one) => !draft.isHole(one))
  if (real.length > 0 && !draft.flag('recursive')) {
    needsRecursive(draft, 'plex', plex.name, count(real.length, 'subdisk', 'subdisks'))
  }
  const volume = draft.volumeOf(plex)
  if (volume) checkCopy(draft, plex, volume)
  const last = volume !== undefined && draft.plexesOf(volume).length === 1
  dropPlex(draft, plex)
  // The record as it is now: with the plex, it may have lost its preference.
  const left = byUuid(draft.model.volumes, volume?.uuid)
  if (left && last) draft.put('volumes', { ...left, sizeBytes: 0 })
  if (volume) warnOfOneCopy(draft, volume)
}

/**
 * Throws when a copy must not go: the only plex, or the last good content of a part of the volume. With `force`
 * it may, but not from a volume that is open.
 */
export function checkCopy(draft: Draft, plex: PlexRecord, volume: VolumeRecord): void {
  const only = draft.plexesOf(volume).length === 1
  const lost = only ? volume.name : draft.lastCopyLost(draft.subdisksOf(plex))
  if (lost === undefined) return
  const fact = only
    ? `plex ${plex.name} is the only copy of volume ${volume.name}`
    : `plex ${plex.name} holds the last good copy of ${lost}`
  checkLoss(draft, volume, plex, fact, 'is lost')
}

/**
 * A plex goes, or a part of it, with the last good content of a part of its volume, as `fact` says. Throws `in-use`
 * while the volume is open, and without `force`; else it is a warning.
 */
export function checkLoss(
  draft: Draft,
  volume: VolumeRecord,
  plex: PlexRecord,
  fact: string,
  fate: 'is lost' | 'goes out of service',
): void {
  if (draft.context.isOpen(volume.uuid)) {
    const why = `${fact}, which is in use; take its LUN away first, or add another copy: plexus volume add-mirror ${volume.name} DEVICE`
    draft.fail('in-use', plex.name, why)
  }
  if (!draft.flag('force')) draft.fail('in-use', plex.name, `${fact}; -f does it all the same`)
  draft.warn`${fact}: that data ${fate}`
}

export function warnOfOneCopy(draft: Draft, volume: VolumeRecord): void {
  if (draft.plexesOf(volume).length === 1) draft.warn`volume ${volume.name} has one copy left`
}

function removeSubdisk(draft: Draft, subdisk: SubdiskRecord): void {
  const plex = draft.plexOf(subdisk)
  if (plex)
    throw draft.inUse`subdisk ${subdisk.name} is attached to plex ${plex.name}; detach it first: plexus vinum detach ${subdisk.name}`
  dropSubdisk(draft, subdisk)
}

function removeDrive(draft: Draft, drive: DriveRecord): void {
  const [pool] = poolsWith(draft.model, drive.uuid)
  if (pool)
    throw draft.inUse`drive ${drive.name} is a spare of pool ${pool.name}; take it out of the pool: plexus spare delete ${pool.name} ${drive.name}`
  const users = draft.model.subdisks.filter(
    (one) => one.driveUuid === drive.uuid || one.move?.driveUuid === drive.uuid,
  )
  const incoming = users.find((one) => one.move)
  if (incoming) {
    const why = `subdisk ${incoming.name} is being moved from or to drive ${drive.name}; wait for that job, or cancel it`
    draft.fail('in-use', drive.name, why)
  }
  if (isPlaceholder(drive))
    throw draft.invalid`${drive.name} only keeps the place of ${users[0]?.name}; it goes when a subdisk is attached there`
  if (users.length > 0 && draft.flag('recursive')) removeUsers(draft, users)
  else if (users.length > 0) abandonDrive(draft, drive, users)
  for (const { name, origin, driveUuid } of draft.model.subdisks) {
    if (origin?.driveUuid !== drive.uuid) continue
    draft.warn`subdisk ${name} stays on the spare ${draft.drive(driveUuid)?.name}: the place that was kept for it goes with ${drive.name}`
  }
  retireDrive(draft, drive)
}

/** -r: all that has a part on the drive goes with it: whole volumes, detached plexes and subdisks. */
function removeUsers(draft: Draft, users: readonly SubdiskRecord[]): void {
  for (const { uuid } of users) {
    const subdisk = byUuid(draft.model.subdisks, uuid)
    const plex = draft.plexOf(subdisk)
    const volume = draft.volumeOf(plex)
    if (volume) removeVolume(draft, volume)
    else if (plex) dropPlex(draft, plex)
    else if (subdisk) dropSubdisk(draft, subdisk)
  }
}

/** -f: the drive goes although subdisks are on it; their places stay, without a device. */
function abandonDrive(draft: Draft, drive: DriveRecord, users: readonly SubdiskRecord[]): void {
  const names = users.map((one) => one.name).join(', ')
  if (!draft.flag('force'))
    throw draft.inUse`drive ${drive.name} carries ${names}; move them first (plexus vinum move DRIVE ${users[0]?.name}), or give them up with -f`
  for (const plex of draft.model.plexes) {
    const grows = plex.growth && users.some((one) => one.plexUuid === plex.uuid)
    if (grows) draft.checkIdle(plex, 'rm')
  }
  const lost = draft.lastCopyLost(users)
  const volumes = users.flatMap((one) => draft.volumeOf(draft.plexOf(one)) ?? [])
  const open = volumes.find((one) => draft.context.isOpen(one.uuid))
  if (lost !== undefined && open)
    throw draft.inUse`drive ${drive.name} holds the last good copy of ${lost}, and ${open.name} is in use; move it first, or take the LUN away`
  if (lost !== undefined) draft.warn`the last good copy of ${lost} is lost`
  for (const one of users.filter((two) => two.plexUuid === undefined)) dropSubdisk(draft, one)
  const placeholder = addPlaceholder(draft, drive)
  for (const one of draft.model.subdisks.filter((two) => two.driveUuid === drive.uuid)) {
    draft.put('subdisks', { ...one, driveUuid: placeholder.uuid, state: 'stale' })
    draft.step`take subdisk ${one.name} out of service`
  }
  draft.dropEmptyPlaceholders()
  for (const one of new Set(volumes)) draft.warn`volume ${one.name} loses redundancy`
}

/** A drive without subdisks leaves the set; its label is cleared when its device is there. */
export function retireDrive(draft: Draft, drive: DriveRecord): void {
  draft.drop(new Set([drive.uuid]))
  if (draft.isPresent(drive.uuid)) {
    draft.retired.push(drive)
    draft.step`clear label on ${drive.name} (device ${drive.device})`
    return
  }
  draft.step`forget drive ${drive.name}, which is not here`
  draft.warn`the label on drive ${drive.name} stays: its device is not here; if it comes back: plexus device clear-label ${drive.device}`
}

export const VOLUME_DESTROY = planning(VOLUME_SPECS.destroy, [], (draft) => {
  const volume = findTyped(draft.model, 'volume', draft.text('name'))
  if (draft.context.isOpen(volume.uuid)) {
    if (!draft.flag('force'))
      throw draft.inUse`volume ${volume.name} is in use. Log the sessions out and take its LUN away first, or repeat with --force`
    draft.warn`volume ${volume.name} is in use: its initiators lose it at once`
  }
  dropVolume(draft, volume)
})

function count(number: number, one: string, many: string): string {
  return `${number} ${number === 1 ? one : many}`
}
