/**
 * `vinum grow`; `volume grow`, `add-mirror`, `remove-mirror`, `replace` and `set`: changes of a volume as a whole while it is
 * in use (docs/cli.md).
 */
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import { VOLUME_SPECS } from '../../../control/volume-verbs.ts'
import { isRedundant } from '../model/map-slots.ts'
import type {
  DriveRecord,
  PlexRecord,
  ReadPolicy,
  SubdiskRecord,
  VolumeRecord,
} from '../model/model.ts'
import { isStriped } from '../model/plex-kinds.ts'
import { sparedOf } from '../model/spares.ts'
import { buildCopy, checkOneMore, childName } from './build.ts'
import { type Draft, isPlaceholder, planning } from './draft.ts'
import { resolveDrive, resolveDrives } from './drives.ts'
import {
  checkFits,
  checkGrowable,
  checkNotCarrying,
  growPiece,
  growPlex,
  growVolume,
  roomOn,
} from './growth.ts'
import { findTyped, lookUp, poolNamed } from './lookup.ts'
import { moveTo, rebuildOn } from './move.ts'
import { checkCopy, dropPlex, retireDrive, warnOfOneCopy } from './remove.ts'
import { concatOf, stripedOf } from './short-forms.ts'
import { checkNoneSpared, giveNewHome, isGood } from './spare-plans.ts'

function volumeNamed(draft: Draft): VolumeRecord {
  return findTyped(draft.model, 'volume', draft.text('name'))
}

/** `vinum grow PLEX DEVICE…`. */
export const GROW = planning(VINUM_SPECS.grow, ['devices'], (draft) => {
  const plex = findTyped(draft.model, 'plex', draft.text('plex'))
  growPlex(draft, plex, resolveDrives(draft, draft.list('devices')))
})

export const VOLUME_GROW = planning(VOLUME_SPECS.grow, ['devices'], (draft) => {
  const volume = volumeNamed(draft)
  const plexes = draft.plexesOf(volume)
  const [first] = plexes
  if (!first)
    throw draft.invalid`volume ${volume.name} has no plex that could grow; attach one first: plexus vinum attach PLEX ${volume.name}`
  const drives = resolveDrives(draft, draft.list('devices'))
  if (plexes.length === 1) growPlex(draft, first, drives)
  else growCopies(draft, volume, plexes, drives)
})

/** Every copy grows by the same: the drives are dealt to the copies in turn. */
function growCopies(
  draft: Draft,
  volume: VolumeRecord,
  plexes: readonly PlexRecord[],
  drives: readonly DriveRecord[],
): void {
  for (const plex of plexes) {
    draft.checkIdle(plex, 'grow')
    // Copies with stripes cannot grow; this says why.
    if (isStriped(plex)) checkGrowable(draft, plex)
    if (draft.plexBytes(plex) !== volume.sizeBytes)
      throw draft.unsupported`plex ${plex.name} and volume ${volume.name} differ in size, so that copies cannot grow together; remove the copy, grow, and add it again`
  }
  if (drives.length % plexes.length !== 0)
    throw draft.invalid`volume ${volume.name} has ${plexes.length} copies, and ${drives.length} devices cannot be dealt to them evenly; name ${plexes.length} devices, or a multiple`
  for (const drive of drives) checkNotCarrying(draft, volume, drive)
  for (let round = 0; round < drives.length; round += plexes.length) {
    const dealt = drives.slice(round, round + plexes.length)
    const sizeBytes = Math.min(...dealt.map((drive) => roomOn(draft, drive)))
    plexes.forEach((plex, index) => {
      const drive = dealt[index]
      if (drive) growPiece(draft, plex, drive, sizeBytes)
    })
  }
  growVolume(draft, volume)
  for (const plex of plexes.slice(1)) draft.startJobs(plex)
}

export const VOLUME_ADD_MIRROR = planning(VOLUME_SPECS['add-mirror'], ['devices'], (draft) => {
  const volume = volumeNamed(draft)
  const [first] = draft.plexesOf(volume)
  if (!first)
    throw draft.invalid`volume ${volume.name} has no copy to mirror; attach a plex first: plexus vinum attach PLEX ${volume.name}`
  checkOneMore(draft, volume, 'concat')
  for (const plex of draft.plexesOf(volume)) if (plex.growth) draft.checkIdle(plex, 'add-mirror')
  const drives = resolveDrives(draft, draft.list('devices'))
  for (const drive of drives) {
    checkFits(draft, volume, drive)
    checkNotCarrying(draft, volume, drive)
  }
  // Striped as the first copy is, where there are drives enough for that; else one behind the other.
  const striped = first.organization === 'striped' && drives.length > 1
  const layout = striped ? stripedOf(drives, first.stripeBytes) : concatOf(drives)
  const plex = buildCopy(draft, volume, layout)
  draft.derive()
  draft.startJobsOrThrow(plex)
})

export const VOLUME_REMOVE_MIRROR = planning(VOLUME_SPECS['remove-mirror'], [], (draft) => {
  const volume = volumeNamed(draft)
  const plex = plexOf(draft, volume, draft.text('plex'))
  if (draft.plexesOf(volume).length === 1)
    throw draft.inUse`plex ${plex.name} is the only copy of volume ${volume.name}; to remove all of it: plexus volume destroy ${volume.name}`
  checkCopy(draft, plex, volume)
  dropPlex(draft, plex)
  warnOfOneCopy(draft, volume)
})

function plexOf(draft: Draft, volume: VolumeRecord, name: string): PlexRecord {
  const plex = findTyped(draft.model, 'plex', name)
  if (plex.volumeUuid === volume.uuid) return plex
  const names = draft.plexesOf(volume).map((one) => one.name)
  throw draft.notFound`plex ${name} does not belong to volume ${volume.name}, which has ${names.join(', ') || 'none'}`
}

export const VOLUME_REPLACE = planning(VOLUME_SPECS.replace, ['newDevice'], (draft) => {
  const volume = volumeNamed(draft)
  const target = draft.text('newDevice')
  const named = findTyped(draft.model, 'drive', draft.text('oldDrive'))
  const old = target === named.name ? leaveName(draft, named) : named
  const below = draft.subdisksBelow(volume)
  const leaving = below.filter((one) => one.driveUuid === old.uuid)
  const spared = below.filter(({ origin }) => origin?.driveUuid === old.uuid)
  if (leaving.length + spared.length === 0)
    throw draft.notFound`drive ${old.name} carries nothing of volume ${volume.name}; plexus volume show ${volume.name} shows what does`
  const found = lookUp(draft.model, target)
  if (found && found.type !== 'drive')
    throw draft.invalid`${target} is a ${found.type}; name a device or a drive`
  const drive = resolveDrive(draft, target)
  if (drive.uuid === old.uuid) {
    draft.fail('invalid', target, `drive ${old.name} cannot take its own place; name another one`)
  }
  checkNotCarrying(draft, volume, drive)
  if (!draft.flag('force')) checkRightDrive(draft, volume, old, leaving)
  // A good subdisk is copied while it serves, so that redundancy never suffers; any other one is rebuilt.
  for (const subdisk of leaving) {
    if (isGood(draft, subdisk)) moveTo(draft, subdisk, drive)
    else rebuildOn(draft, subdisk, drive)
  }
  for (const subdisk of spared) giveNewHome(draft, subdisk, drive)
  releaseDrive(draft, old)
})

/**
 * Throws when the drive is healthy and another one of the volume is not: that one was meant, or the healthy one has the
 * only copy of something, and a read error on it while it is copied would lose that.
 */
export function checkRightDrive(
  draft: Draft,
  volume: VolumeRecord,
  old: DriveRecord,
  leaving: readonly SubdiskRecord[],
): void {
  if (leaving.length === 0 || !leaving.every((one) => isGood(draft, one))) return
  const bad = draft
    .subdisksBelow(volume)
    .map(({ driveUuid }) => draft.drive(driveUuid))
    .find((drive) => drive && (drive.state !== 'up' || !draft.isPresent(drive.uuid)))
  if (!bad) return
  throw draft.inUse`drive ${old.name} is healthy, and ${bad.name} is missing: while ${old.name} is read to be copied, an error on it would lose data. Replace ${bad.name} first (plexus volume replace ${volume.name} ${bad.name} NEW-DEVICE), or repeat with --force`
}

/** A new disk in the bay of a drive that is gone has its name: the drive that leaves gives it up. */
function leaveName(draft: Draft, old: DriveRecord): DriveRecord {
  if (draft.isPresent(old.uuid) || !draft.context.candidate(old.name)) return old
  const renamed = { ...old, name: childName(draft, 'drive', `${old.name}.old`, 1) }
  draft.put('drives', renamed)
  return renamed
}

/** The old drive goes when nothing is on it any more and it is out of service. */
function releaseDrive(draft: Draft, old: DriveRecord): void {
  // A placeholder went with the last subdisk that it kept a place for.
  if (isPlaceholder(old)) return
  const { subdisks } = draft.model
  const used = subdisks.some((one) => one.driveUuid === old.uuid)
  const home = subdisks.find(({ origin }) => origin?.driveUuid === old.uuid)
  if (used) {
    draft.warn`drive ${old.name} stays until the move has ended; then: plexus vinum rm ${old.name}`
  } else if (home) {
    draft.warn`drive ${old.name} stays: ${home.name} comes from it, too`
  } else if (old.state === 'down' || !draft.isPresent(old.uuid)) retireDrive(draft, old)
}

export const VOLUME_SET = planning(VOLUME_SPECS.set, [], (draft) => {
  const volume = volumeNamed(draft)
  const [policy, pool] = [draft.optionalText('readPolicy'), draft.optionalText('sparePool')]
  if (policy === undefined && pool === undefined) {
    const why =
      'volume set: nothing to set; give --read-policy round-robin, least-queue, or prefer with --plex; or --spare-pool'
    draft.fail('invalid', volume.name, why)
  }
  if (policy !== undefined || draft.optionalText('plex') !== undefined) {
    setReadPolicy(draft, volume, policy ?? volume.readPolicy)
  }
  if (pool !== undefined) setPool(draft, volumeNamed(draft), pool)
})

function setReadPolicy(draft: Draft, volume: VolumeRecord, policy: string): void {
  const named = draft.optionalText('plex')
  if ((policy === 'prefer') !== (named !== undefined)) {
    const why =
      named === undefined
        ? 'volume set: prefer needs --plex, the copy that is preferred'
        : `volume set: --plex goes with prefer, not with ${policy}`
    draft.fail('invalid', volume.name, why)
  }
  const plex = named === undefined ? undefined : plexOf(draft, volume, named)
  const readPolicy = policy as ReadPolicy
  if (volume.readPolicy === readPolicy && volume.preferredPlexUuid === plex?.uuid) {
    draft.warn`volume ${volume.name} is read by ${policy} already`
    return
  }
  draft.put('volumes', { ...volume, readPolicy, preferredPlexUuid: plex?.uuid })
  draft.step`read volume ${volume.name} by ${policy}${plex ? ` ${plex.name}` : ''}`
}

/** The pool of the spares of a volume, or `none`. */
function setPool(draft: Draft, volume: VolumeRecord, name: string): void {
  const pool = name === 'none' ? undefined : poolNamed(draft, name)
  if (volume.sparePoolUuid === pool?.uuid) {
    draft.warn`volume ${volume.name} ${pool ? `takes spares from ${pool.name}` : 'takes no spares'} already`
    return
  }
  checkNoneSpared(draft, volume, sparedOf(draft.model, volume))
  if (pool && !isRedundant(draft.model, volume.uuid))
    throw draft.invalid`volume ${volume.name} has one copy and no parity: nothing could fill a spare; add a copy first: plexus volume add-mirror ${volume.name} DEVICE`
  draft.put('volumes', { ...volume, sparePoolUuid: pool?.uuid })
  if (!pool) draft.step`take no spares for volume ${volume.name}`
  else draft.step`take spares for volume ${volume.name} from pool ${pool.name}`
}
