/**
 * Where the rings of the raid5 log lie (docs/adr/0016-raid5-log.md): one for each subdisk of a plex with policy `log`, in the
 * upper half of the journal area of its drive; the lower half is for the backup of growths (docs/on-disk-format.md). Pure; used
 * where map-slots.ts is.
 */
import { alignDown } from '../../../base/bytes.ts'
import { KIB, LOG_RING_BYTES_MAX, LOG_RING_BYTES_MIN } from '../../../base/limits.ts'
import { ANCHOR_MEDIA_BYTES_MIN, planAnchor } from '../../anchor/anchor-layout.ts'
import {
  byUuid,
  type DriveRecord,
  type PlexRecord,
  type RingPlace,
  type SubdiskRecord,
  subdisksOf,
  type VinumModel,
} from './model.ts'

/** Has the plex a log? Else its parity is resynchronised after a crash, by the intent map. */
export function hasLog({ logRun }: PlexRecord): boolean {
  return logRun !== undefined
}

/** The plex without its log. Its runs are remembered: rings may still have blocks of them. */
export function withoutLog(plex: PlexRecord): PlexRecord {
  const { logRun = 0, endedRun = 0 } = plex
  const last = Math.max(logRun, endedRun)
  return { ...plex, logRun: undefined, mapDoubts: undefined, endedRun: last || undefined }
}

/** The run that begins next. */
export function nextRun({ logRun = 0, endedRun = 0 }: PlexRecord): number {
  return Math.max(logRun, endedRun) + 1
}

/** Does the ring lie on another drive than the subdisk? So after a move, until a new run of the log begins. */
export function isMisplaced({ ring, driveUuid }: SubdiskRecord): boolean {
  return ring !== undefined && ring.driveUuid !== driveUuid
}

/**
 * Gives each subdisk of a plex with a log a ring, and takes back what is not used any more. Where a drive has no room for one,
 * the plex has no log from then on ({@link lacksRing} says so before). `newRun`: of this plex a run begins, so that its rings
 * may go where its subdisks are now. The same object when nothing changes.
 */
export function allotRings(model: VinumModel, newRun?: string): VinumModel {
  let next = model
  for (const subdisk of model.subdisks) {
    const { ring, plexUuid } = subdisk
    if (!ring) continue
    const plex = byUuid(model.plexes, plexUuid)
    const isUsed = plex !== undefined && hasLog(plex)
    const isLost = byUuid(model.drives, ring.driveUuid) === undefined
    const moves = plexUuid === newRun && isMisplaced(subdisk)
    if (!isUsed || isLost || moves) next = withRing(next, subdisk, undefined)
  }
  for (const plex of model.plexes) {
    if (!hasLog(plex)) continue
    for (const subdisk of subdisksOf(next, plex.uuid)) {
      if (subdisk.ring) continue
      const ring = placeFor(next, subdisk.driveUuid, plex.uuid)
      next = ring ? withRing(next, subdisk, ring) : endLog(next, plex)
      if (!ring) break
    }
  }
  return next
}

/** The first of these drives that has no room for a ring; undefined: all have. */
export function lacksRing(
  model: VinumModel,
  driveUuids: readonly string[],
): DriveRecord | undefined {
  const uuid = driveUuids.find((one) => !placeFor(model, one, undefined))
  return byUuid(model.drives, uuid)
}

/** Bytes at the begin of a drive's journal area that hold no rings, and will hold none when this plex grows. */
export function backupBytes(
  model: VinumModel,
  driveUuid: string,
  journalBytes: number,
  growing?: PlexRecord,
): number {
  const hasRings = ringsOn(model, driveUuid).length > 0 || (growing && hasLog(growing))
  return hasRings ? ringsFrom(journalBytes) : journalBytes
}

function ringsFrom(journalBytes: number): number {
  return alignDown(journalBytes / 2, 4 * KIB)
}

function ringsOn(model: VinumModel, driveUuid: string): readonly RingPlace[] {
  return model.subdisks.flatMap(({ ring }) => (ring?.driveUuid === driveUuid ? ring : []))
}

/** A free place for a ring on a drive. */
function placeFor(
  model: VinumModel,
  driveUuid: string,
  plexUuid: string | undefined,
): RingPlace | undefined {
  const drive = byUuid(model.drives, driveUuid)
  if (!drive) return undefined
  const area = journalOf(drive)
  const there = ringsOn(model, driveUuid)
  // Windows of another plex's growth may lie in all of the area.
  const isGrowing = model.plexes.some(({ growth, uuid }) => growth && uuid !== plexUuid)
  if (there.length === 0 && isGrowing) return undefined
  const lengthBytes = Math.min(
    LOG_RING_BYTES_MAX,
    Math.max(LOG_RING_BYTES_MIN, alignDown(area / 8, 4 * KIB)),
  )
  const least = ringsFrom(area)
  for (let offset = area - lengthBytes; offset >= least; offset -= lengthBytes) {
    const isTaken = there.some(
      (one) => one.offsetBytes < offset + lengthBytes && offset < one.offsetBytes + one.lengthBytes,
    )
    if (!isTaken) return { driveUuid, offsetBytes: offset, lengthBytes }
  }
  return undefined
}

/** Bytes of the journal area; 0 where the drive has another layout than the usual one. */
function journalOf({ mediaBytes, blockBytes, dataEndBytes }: DriveRecord): number {
  if (mediaBytes < ANCHOR_MEDIA_BYTES_MIN) return 0
  const { journal } = planAnchor(mediaBytes, blockBytes)
  return journal.offset === dataEndBytes ? journal.length : 0
}

function withRing(
  model: VinumModel,
  { uuid }: SubdiskRecord,
  ring: RingPlace | undefined,
): VinumModel {
  const subdisks = model.subdisks.map((one) => (one.uuid === uuid ? { ...one, ring } : one))
  return { ...model, subdisks }
}

function endLog(model: VinumModel, { uuid }: PlexRecord): VinumModel {
  const plexes = model.plexes.map((one) => (one.uuid === uuid ? withoutLog(one) : one))
  const subdisks = model.subdisks.map((one) =>
    one.plexUuid === uuid ? { ...one, ring: undefined } : one,
  )
  return { ...model, plexes, subdisks }
}
