/**
 * `vinum move DRIVE SUBDISK…`: subdisks go to another drive. The data is copied while it is in use, so that
 * plexes without redundancy keep it, too (docs/vinum.md, 8.9). With -f the old place is not read: what moves is
 * rebuilt from the other copies, for a drive that is failing or gone.
 */
import { formatSize } from '../../../base/bytes.ts'
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import { allocate } from '../model/allocation.ts'
import type { DriveRecord, OriginRecord, PlexRecord, SubdiskRecord } from '../model/model.ts'
import { placeSubdisk } from './build.ts'
import { type Draft, planning } from './draft.ts'
import { resolveDrive } from './drives.ts'
import { checkFits, checkNotCarrying } from './growth.ts'
import { findTyped, lookUp } from './lookup.ts'

export const MOVE = planning(VINUM_SPECS.move, ['drive'], (draft) => {
  const target = draft.text('drive')
  const found = lookUp(draft.model, target)
  if (found && found.type !== 'drive')
    throw draft.invalid`${target} is a ${found.type}, not a drive; name the drive first`
  const subdisks = draft
    .names('subdisks', 'subdisk')
    .map((name) => findTyped(draft.model, 'subdisk', name))
  const drive = resolveDrive(draft, target)
  const move = draft.flag('force') ? rebuildOn : moveTo
  for (const subdisk of subdisks) move(draft, subdisk, drive)
})

/** What every move needs. Returns the plex that the subdisk belongs to. */
export function checkMove(draft: Draft, subdisk: SubdiskRecord, drive: DriveRecord): PlexRecord {
  const plex = draft.plexOf(subdisk)
  if (!plex)
    throw draft.invalid`subdisk ${subdisk.name} is detached, and only attached ones move; attach it first`
  if (subdisk.driveUuid === drive.uuid)
    throw draft.invalid`subdisk ${subdisk.name} is on drive ${drive.name} already; choose another drive`
  const volume = draft.volumeOf(plex)
  if (volume) {
    checkFits(draft, volume, drive)
    checkNotCarrying(draft, volume, drive, subdisk)
  }
  return plex
}

/** Begins the live copy of a subdisk to the drive: to the place that is kept for it there, or to another one. */
export function moveTo(draft: Draft, subdisk: SubdiskRecord, drive: DriveRecord): void {
  const plex = checkMove(draft, subdisk, drive)
  if (subdisk.move)
    throw draft.inUse`subdisk ${subdisk.name} is being moved already; wait for that job, or cancel it`
  // Several subdisks of one plex may move side by side; anything else must have ended.
  if (draft.jobsOn(plex).some((one) => one.kind !== 'move')) draft.checkIdle(plex, 'move')
  if (subdisk.state !== 'up')
    throw draft.invalid`subdisk ${subdisk.name} is ${subdisk.state}, so there is nothing good to copy; -f rebuilds it on ${drive.name} from the other copies`
  const from = draft.drive(subdisk.driveUuid)?.name ?? '???'
  const { origin } = subdisk
  const kept = origin?.driveUuid === drive.uuid ? origin.driveOffsetBytes : undefined
  const driveOffsetBytes = kept ?? allocate(draft.model, drive, subdisk.sizeBytes)
  draft.put('subdisks', { ...subdisk, move: { driveUuid: drive.uuid, driveOffsetBytes } })
  draft.step`move subdisk ${subdisk.name} from ${from} to ${drive.name}: ${formatSize(subdisk.sizeBytes)}, copied while in use`
  draft.derive()
  draft.startJobsOrThrow(subdisk)
}

/**
 * Gives the subdisk a new place with nothing in it, and has the other copies fill it. `origin`: the place that is kept for
 * it, when the new one is on a spare.
 */
export function rebuildOn(
  draft: Draft,
  subdisk: SubdiskRecord,
  drive: DriveRecord,
  origin?: OriginRecord,
): void {
  const plex = checkMove(draft, subdisk, drive)
  draft.checkIdle(plex, 'move')
  // Not even with force: nothing else could fill the new place.
  const lost = draft.lastCopyLost([subdisk])
  if (lost !== undefined)
    throw draft.inUse`subdisk ${subdisk.name} holds the last good copy of ${lost}, which cannot be rebuilt from elsewhere; move it without -f, so that it is copied`
  draft.drop(new Set([subdisk.uuid]))
  const { name, sizeBytes, plexOffsetBytes } = subdisk
  placeSubdisk(draft, plex, { name, drive, sizeBytes, plexOffsetBytes, state: 'stale', origin })
  draft.derive()
  if (draft.startJobsOrThrow(plex) === 0)
    throw draft.invalid`no other copy holds what belongs on ${name}; bring its old drive back, or restore a backup`
}
