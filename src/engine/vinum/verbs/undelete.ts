/**
 * `volume undelete`: a volume that was destroyed, as it was in a configuration that is kept beside the drives
 * (set/memory.ts), while nothing else has had its place on them. No data is written but for copies and parity, which are
 * made from the copy that counts: what was in doubt when the volume went is not known any more.
 */
import { formatSize } from '../../../base/bytes.ts'
import { VOLUME_SPECS } from '../../../control/volume-verbs.ts'
import { listOf } from '../../verbs/parameters.ts'
import { usedExtents } from '../model/allocation.ts'
import {
  byUuid,
  type PlexRecord,
  plexesOf,
  type SubdiskRecord,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
  volumeAbove,
} from '../model/model.ts'
import { poolOf } from '../model/spares.ts'
import { bareName } from '../naming.ts'
import type { PlanningVerb } from '../plan.ts'
import type { KeptConfiguration } from '../set/memory.ts'
import { checkMapSlot, freeMapSlot } from './build.ts'
import { type Draft, isPlaceholder, planning } from './draft.ts'
import { serving } from './drives.ts'
import { checkNewName } from './lookup.ts'
import { checkVolumeName } from './short-forms.ts'

/** Volumes that are in a kept configuration and not in the present one, the newest first. */
export function destroyedVolumes(
  kept: readonly KeptConfiguration[],
  present: VinumModel,
): readonly VolumeRecord[] {
  const all = kept.flatMap(({ model }) => model.volumes)
  return all.filter(({ uuid }) => !byUuid(present.volumes, uuid))
}

export const VOLUME_UNDELETE: PlanningVerb = {
  ...planning(VOLUME_SPECS.undelete, ['name'], undelete),
  needsKept: (parameters) => bareName(listOf(parameters, 'name').join()),
}

function undelete(draft: Draft): void {
  const name = draft.text('name')
  const kept = draft.context.kept ?? []
  const destroyed = destroyedVolumes(kept, draft.model)
  const volume = destroyed.find((one) => one.name === bareName(name))
  const at = kept.findIndex(({ model }) => byUuid(model.volumes, volume?.uuid))
  const found = kept[at]
  if (!volume || !found) {
    const names = [...new Set(destroyed.map((one) => one.name))].join(', ') || 'none'
    throw draft.notFound`no configuration that is kept has a destroyed volume "${name}"; those that it has: ${names}`
  }
  checkVolumeName(draft, name)
  draft.step`bring back volume ${name}: ${formatSize(volume.sizeBytes)}, as it was on ${found.time}`
  const mapSlot = freeMapSlot(draft.model, volume.mapSlot)
  const sparePoolUuid = poolOf(draft.model, volume)?.uuid
  draft.add('volumes', { ...volume, mapSlot, moreMapSlots: undefined, sparePoolUuid })
  const later = kept.slice(0, at).map(({ model }) => model)
  const plexes = plexesOf(found.model, volume.uuid)
  const truth = plexes.find(({ uuid }) =>
    subdisksOf(found.model, uuid).every(({ state }) => state === 'up'),
  )
  for (const plex of plexes) restorePlex(draft, found.model, plex, later, truth)
  draft.startJobs(volume)
}

function restorePlex(
  draft: Draft,
  old: VinumModel,
  plex: PlexRecord,
  later: readonly VinumModel[],
  truth: PlexRecord | undefined,
): void {
  checkNewName(draft, 'plex', plex.name)
  if (plex.growth)
    throw draft.unsupported`plex ${plex.name} was being restriped when it went, and where that was is not known any more; it cannot be brought back`
  // Parity that can be made again is: a write may have been under way.
  const parityValidBytes = plex === truth ? 0 : plex.parityValidBytes
  draft.add('plexes', { ...plex, parityValidBytes })
  for (const subdisk of subdisksOf(old, plex.uuid)) {
    const isStale = truth !== undefined && truth !== plex
    restoreSubdisk(draft, old, isStale ? { ...subdisk, state: 'stale' } : subdisk, later)
  }
}

function restoreSubdisk(
  draft: Draft,
  old: VinumModel,
  subdisk: SubdiskRecord,
  later: readonly VinumModel[],
): void {
  const { name, driveUuid, driveOffsetBytes, sizeBytes, state } = subdisk
  checkNewName(draft, 'subdisk', name)
  const before = byUuid(old.drives, driveUuid)
  if (before && isPlaceholder(before) && !draft.drive(driveUuid)) draft.add('drives', before)
  const drive =
    draft.drive(driveUuid) ??
    draft.fail(
      'gone',
      name,
      `drive ${before?.name} has left the set since, and ${name} was on it; it cannot be brought back`,
    )
  if (state === 'up') serving(draft, drive)
  const volume = volumeAbove(draft.model, subdisk)
  if (volume) checkMapSlot(draft, volume, drive)
  const end = driveOffsetBytes + sizeBytes
  for (const model of [...later, draft.model]) {
    const user = usedExtents(model, driveUuid).find(
      ({ offset, length }) => offset < end && driveOffsetBytes < offset + length,
    )
    if (!user) continue
    throw draft.inUse`the place of ${name} on drive ${drive.name} was given to ${user.subdisk} since, which has written there; it cannot be brought back`
  }
  // The place that was kept for it may be somebody else's by now.
  const back = { move: undefined, origin: undefined }
  draft.add('subdisks', { ...subdisk, ...back, state: state === 'up' ? 'up' : 'stale' })
  draft.step`put subdisk ${name} back on ${drive.name}: ${formatSize(sizeBytes)}`
}
