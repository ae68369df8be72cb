/**
 * Makes plexes larger: a concat plex gets one more subdisk at its end, at once; a striped or raid5 plex gets
 * more columns and a job that restripes it, all new columns in one pass, or longer ones where its drives have room. Used by `vinum grow`, `vinum attach`
 * and `volume grow`. docs/vinum.md, 5.3 "grow", 8.3, 8.4.
 */
import { alignDown, alignUp, formatSize } from '../../../base/bytes.ts'
import { planAnchor } from '../../anchor/anchor-layout.ts'
import { freeExtents } from '../model/allocation.ts'
import { backupBytes } from '../model/log-rings.ts'
import type { DriveRecord, PlexRecord, SubdiskRecord, VolumeRecord } from '../model/model.ts'
import { dataColumns, hasParity, isStriped } from '../model/plex-kinds.ts'
import {
  appendSubdisk,
  checkMapSlot,
  checkSubdiskCount,
  largestFree,
  placeAlignment,
} from './build.ts'
import type { Draft } from './draft.ts'

/**
 * Throws `invalid` when the drive's block is larger than the one that the volume announces: initiators would
 * find a disk with another block size; and `exhausted` when the drive has no map left for the volume.
 */
export function checkFits(draft: Draft, volume: VolumeRecord, drive: DriveRecord): void {
  const subdisks = draft.subdisksBelow(volume)
  const block = Math.max(0, ...subdisks.map((one) => draft.drive(one.driveUuid)?.blockBytes ?? 0))
  if (block > 0 && drive.blockBytes > block)
    throw draft.invalid`drive ${drive.name} has blocks of ${drive.blockBytes} bytes, and volume ${volume.name} announces ${block}; choose a drive with blocks of ${block} bytes at most`
  checkMapSlot(draft, volume, drive)
}

/**
 * Throws `invalid` when a part of the volume lies on the drive already: one failure would take two. `moving` goes
 * to the drive; parts of its own concat or striped plex are no hindrance, since each of them fails as all of it,
 * nor are those that share its drive already.
 */
export function checkNotCarrying(
  draft: Draft,
  volume: VolumeRecord,
  drive: DriveRecord,
  moving?: SubdiskRecord,
): void {
  const own = draft
    .plexesOf(volume)
    .filter((plex) => plex.uuid !== moving?.plexUuid || hasParity(plex))
    .flatMap((plex) => draft.subdisksOf(plex))
  const there = own.find(
    (one) =>
      one.uuid !== moving?.uuid &&
      one.driveUuid !== moving?.driveUuid &&
      (one.driveUuid === drive.uuid || one.move?.driveUuid === drive.uuid),
  )
  if (!there) return
  throw draft.invalid`drive ${drive.name} carries ${there.name} of ${volume.name} already, so that its failure would cost two parts at once; choose another drive`
}

/** Lets a concat plex have `sizeBytes` of the drive more. */
export function growPiece(
  draft: Draft,
  plex: PlexRecord,
  drive: DriveRecord,
  sizeBytes: number,
): void {
  const volume = draft.volumeOf(plex)
  checkSubdiskCount(draft, draft.subdisksOf(plex).length + 1)
  if (volume) checkFits(draft, volume, drive)
  // Stale where another copy of the volume has content there already, else it is the first to have any.
  const end = draft.plexBytes(plex)
  const others = volume ? draft.plexesOf(volume).filter((one) => one.uuid !== plex.uuid) : []
  const state = others.some((one) => draft.plexBytes(one) > end) ? 'stale' : 'up'
  appendSubdisk(draft, plex, { drive, sizeBytes, state })
}

/**
 * Throws `unsupported` for one of several copies: what a copy had beyond its volume would be valid in none of
 * the others when the volume reaches it (8.2), so copies grow together or not at all.
 */
export function checkOnlyCopy(draft: Draft, plex: PlexRecord): void {
  const volume = draft.volumeOf(plex)
  const copies = volume ? draft.plexesOf(volume).length : 0
  if (!volume || copies < 2) return
  throw draft.unsupported`plex ${plex.name} is one of ${copies} copies of ${volume.name}, which grow together, by ${copies} devices: plexus volume grow ${volume.name} DEVICE DEVICE`
}

/**
 * Gives back what a plex has beyond `sizeBytes`, but for the rest of its last row, so that copies are equal.
 * Throws `invalid` when a subdisk would have nothing left.
 */
export function trimPlex(draft: Draft, plex: PlexRecord, sizeBytes: number): void {
  const subdisks = draft.subdisksOf(plex)
  for (const one of subdisks) {
    const wanted = isStriped(plex)
      ? alignUp(Math.ceil(sizeBytes / dataColumns(plex, subdisks.length)), plex.stripeBytes)
      : alignUp(
          Math.max(0, sizeBytes - one.plexOffsetBytes),
          draft.drive(one.driveUuid)?.blockBytes ?? 512,
        )
    if (wanted >= one.sizeBytes) continue
    if (wanted === 0)
      throw draft.invalid`subdisk ${one.name} lies wholly beyond the ${formatSize(sizeBytes)} of the volume; leave it out, or detach it first`
    draft.put('subdisks', { ...one, sizeBytes: wanted })
    draft.step`trim subdisk ${one.name} from ${formatSize(one.sizeBytes)} to ${formatSize(wanted)}`
  }
}

/** Grows a plex over more drives, one subdisk on each. Throws before anything of the plex changes. */
export function growPlex(draft: Draft, plex: PlexRecord, drives: readonly DriveRecord[]): void {
  draft.checkIdle(plex, 'grow')
  if (draft.subdisksOf(plex).length === 0)
    throw draft.invalid`plex ${plex.name} has no subdisks that could grow; attach subdisks first`
  if (isStriped(plex)) growColumns(draft, plex, drives)
  else growConcat(draft, plex, drives)
}

function growConcat(draft: Draft, plex: PlexRecord, drives: readonly DriveRecord[]): void {
  checkOnlyCopy(draft, plex)
  for (const drive of drives) growPiece(draft, plex, drive, roomOn(draft, drive))
  const volume = draft.volumeOf(plex)
  if (volume) growVolume(draft, volume)
}

/** What is free on a drive in one piece. Throws `no-space` when it is nothing. */
export function roomOn(draft: Draft, drive: DriveRecord): number {
  const room = pieceRoom(draft, drive)
  if (room > 0) return room
  throw draft.noSpace`drive ${drive.name} is full; choose another drive, or remove a subdisk from it`
}

/** Lets the volume have what all its plexes have. A volume never shrinks here. */
export function growVolume(draft: Draft, volume: VolumeRecord): void {
  const sizeBytes = Math.min(...draft.plexesOf(volume).map((one) => draft.plexBytes(one)))
  if (sizeBytes <= volume.sizeBytes) return
  draft.put('volumes', { ...volume, sizeBytes })
  draft.step`grow volume ${volume.name}: ${formatSize(volume.sizeBytes)} to ${formatSize(sizeBytes)}`
}

function growColumns(draft: Draft, plex: PlexRecord, drives: readonly DriveRecord[]): void {
  checkGrowable(draft, plex)
  const columns = draft.subdisksOf(plex)
  const sizeBytes = columns[0]?.sizeBytes ?? 0
  const volume = draft.volumeOf(plex)
  checkSubdiskCount(draft, columns.length + drives.length)
  for (const drive of drives) {
    if (volume) {
      checkFits(draft, volume, drive)
      checkNotCarrying(draft, volume, drive)
    }
    appendSubdisk(draft, plex, { drive, sizeBytes, state: 'up' })
  }
  beginGrowth(draft, plex, columns.length)
}

/**
 * Grows a plex over what is free on its own drives, as after they have become larger. Columns become longer where they are:
 * rows are added behind, nothing moves, and the parity of the new rows is computed while they are in use. Throws
 * `no-space` with what stands in the way.
 */
export function growInPlace(draft: Draft, plex: PlexRecord): void {
  draft.checkIdle(plex, 'grow')
  if (isStriped(plex)) lengthenColumns(draft, plex)
  else growConcat(draft, plex, roomyOf(draft, plex))
}

const NO_ROOM =
  'its drives have no room; name devices, or enlarge the drives first (plexus device resize DEVICE)'

/** The drives of a plex with room for a piece. Throws `no-space` when there is none. */
function roomyOf(draft: Draft, plex: PlexRecord): readonly DriveRecord[] {
  const uuids = new Set(draft.subdisksOf(plex).map(({ driveUuid }) => driveUuid))
  const own = [...uuids].flatMap((uuid) => draft.drive(uuid) ?? [])
  const roomy = own.filter((drive) => pieceRoom(draft, drive) > 0)
  if (roomy.length > 0) return roomy
  throw draft.noSpace`plex ${plex.name}: ${NO_ROOM}`
}

/** The drive of a plex that has the most room in one piece. Throws `no-space` when none has any. */
export function roomiestOf(draft: Draft, plex: PlexRecord): DriveRecord {
  return roomyOf(draft, plex).reduce((best, one) =>
    pieceRoom(draft, one) > pieceRoom(draft, best) ? one : best,
  )
}

function pieceRoom(draft: Draft, drive: DriveRecord): number {
  return largestFree(draft.model, drive, placeAlignment([drive]))
}

function lengthenColumns(draft: Draft, plex: PlexRecord): void {
  checkGrowable(draft, plex)
  const columns = draft.subdisksOf(plex)
  const more = columns.map((one) => alignDown(roomBehind(draft, one), plex.stripeBytes))
  const least = Math.min(...more)
  const shortest = columns[more.indexOf(least)]
  if (!shortest || least === 0)
    throw draft.noSpace`plex ${plex.name}: no room for a stripe unit behind ${shortest?.name ?? 'its subdisks'}; enlarge its drive (plexus device resize DEVICE), move the subdisk to one with room (plexus vinum move DRIVE SUBDISK), or name devices`
  const before = draft.plexBytes(plex)
  for (const one of columns) {
    draft.put('subdisks', { ...one, sizeBytes: one.sizeBytes + least })
    draft.step`lengthen subdisk ${one.name} from ${formatSize(one.sizeBytes)} to ${formatSize(one.sizeBytes + least)}`
  }
  if (hasParity(plex)) draft.put('plexes', { ...plex, parityValidBytes: before })
  const volume = draft.volumeOf(plex)
  if (volume) growVolume(draft, volume)
  draft.derive()
  if (hasParity(plex)) draft.startJobsOrThrow(plex)
}

/** What is free on the drive of a subdisk, directly behind it. */
function roomBehind(draft: Draft, subdisk: SubdiskRecord): number {
  const drive = draft.drive(subdisk.driveUuid)
  if (!drive || subdisk.move) return 0
  const end = subdisk.driveOffsetBytes + subdisk.sizeBytes
  return freeExtents(draft.model, drive).find(({ offset }) => offset === end)?.length ?? 0
}

/** Throws when a striped or raid5 plex cannot be restriped now. */
export function checkGrowable(draft: Draft, plex: PlexRecord): void {
  const volume = draft.volumeOf(plex)
  if (volume && draft.plexesOf(volume).length > 1)
    throw draft.unsupported`${plex.name} is one of ${draft.plexesOf(volume).length} copies of ${volume.name}, and copies are not restriped side by side; remove the other copies (plexus volume remove-mirror ${volume.name} PLEX), grow, and add them again (plexus volume add-mirror ${volume.name} DEVICE)`
  if (plex.lost)
    throw draft.invalid`a part of plex ${plex.name} is lost, and only a whole one can grow; plexus status shows what to do`
  const parity = !hasParity(plex) || plex.parityValidBytes >= draft.plexBytes(plex)
  if (plex.state === 'up' && parity && !plex.growth) return
  throw draft.invalid`plex ${plex.name} is ${parity ? plex.state : 'initializing'}, and only a whole one can grow; bring it up first: plexus vinum start ${plex.name}`
}

/** The plex has more columns than `columnsBefore`: records the restripe, and starts its job. */
export function beginGrowth(draft: Draft, plex: PlexRecord, columnsBefore: number): void {
  const subdisks = draft.subdisksOf(plex)
  const column = subdisks[0]?.sizeBytes ?? 0
  const before = dataColumns(plex, columnsBefore) * column
  const after = dataColumns(plex, subdisks.length) * column
  checkBackupRoom(draft, plex, dataColumns(plex, subdisks.length) * plex.stripeBytes)
  draft.put('plexes', { ...plex, growth: { columnsBefore, cursorBytes: 0, backup: undefined } })
  draft.step`restripe plex ${plex.name} from ${columnsBefore} to ${subdisks.length} columns: ${formatSize(before)} to ${formatSize(after)} when it has ended`
  draft.derive()
  draft.startJobsOrThrow(plex)
}

/** Throws `unsupported` when a growth could not even begin: its first row must fit the journal area of a drive. */
function checkBackupRoom(draft: Draft, plex: PlexRecord, rowBytes: number): void {
  const areas = draft.model.drives
    .filter(({ state }) => state === 'up')
    .map(({ uuid, mediaBytes, blockBytes }) =>
      backupBytes(draft.model, uuid, planAnchor(mediaBytes, blockBytes).journal.length, plex),
    )
  const largest = Math.max(0, ...areas)
  if (rowBytes <= largest) return
  throw draft.unsupported`plex ${plex.name} cannot be restriped: a row would have ${formatSize(rowBytes)}, and the journal areas of these drives hold ${formatSize(largest)} at most; grow by fewer drives, or move the data to a new volume with a smaller stripe`
}
