/**
 * `plexus spare`: pools and their spares (docs/vinum.md, 10), after metahs(8) of Solaris Volume Manager. A spare is a drive of
 * the set with nothing on it. What spares do is in spare-plans.ts.
 */
import {
  SPARE_DELAY_S,
  SPARE_DELAY_S_MAX,
  SPARE_POOLS,
  SUBDISKS_PER_PLEX,
} from '../../../base/limits.ts'
import { newUuid } from '../../../base/random.ts'
import { didYouMean } from '../../../base/suggest.ts'
import { formatDuration, parseDuration } from '../../../control/duration.ts'
import { SPARE_SPECS } from '../../../control/spare-verbs.ts'
import { usedExtents } from '../model/allocation.ts'
import { COPY_BACKS, type DriveRecord, type PoolRecord } from '../model/model.ts'
import {
  dropLooseSpares,
  poolOf,
  poolsOf,
  poolsWith,
  putSpare,
  sparedOf,
  spareOf,
  sparesOf,
  usersOf,
  volumesUsing,
} from '../model/spares.ts'
import { bareName } from '../naming.ts'
import type { PlanningVerb } from '../plan.ts'
import { type Draft, planning } from './draft.ts'
import { newDrive, serving } from './drives.ts'
import { checkNewName, findTyped, poolNamed } from './lookup.ts'
import { retireDrive } from './remove.ts'
import { copyBackSoon, isGood, useSpare } from './spare-plans.ts'
import { checkRightDrive } from './volume-change.ts'

/** Instead of a pool: each of them. */
const ALL = 'all'

function poolsNamed(draft: Draft): readonly PoolRecord[] {
  const name = draft.text('pool')
  const pools = poolsOf(draft.model)
  if (bareName(name) !== ALL) return [poolNamed(draft, name)]
  if (pools.length > 0) return pools
  return draft.fail(
    'not-found',
    name,
    'there are no pools; plexus spare create POOL DEVICE makes one',
  )
}

function putPool(draft: Draft, pool: PoolRecord): void {
  const pools = poolsOf(draft.model).map((one) => (one.uuid === pool.uuid ? pool : one))
  draft.model = { ...draft.model, pools }
}

/** The drive of a spare, by its name or that of its device. */
function spareNamed(draft: Draft, name: string): DriveRecord {
  const drives = sparesOf(draft.model).flatMap(({ driveUuid }) => draft.drive(driveUuid) ?? [])
  const found =
    drives.find((one) => one.name === name) ?? drives.find(({ device }) => device === name)
  if (found) return found
  const near = didYouMean(
    name,
    drives.map((one) => one.name),
  )
  throw draft.notFound`${name} is no spare${near}; plexus spare list shows the spares`
}

/** A drive of the set with nothing on it, a spare of another pool, or a device that becomes a drive. */
function emptyDrive(draft: Draft, name: string): DriveRecord {
  const { drives } = draft.model
  const drive =
    drives.find((one) => one.name === name) ??
    drives.find((one) => one.device === name && draft.isPresent(one.uuid))
  if (!drive) return newDrive(draft, name)
  if (spareOf(draft.model, drive.uuid)) return drive
  const [user] = usedExtents(draft.model, drive.uuid)
  if (user)
    throw draft.inUse`drive ${drive.name} carries ${user.subdisk}, and a spare has nothing on it; choose another one, or move it: plexus vinum move DRIVE ${user.subdisk}`
  return serving(draft, drive)
}

/** Adds the drive at the end of the pool, or in the place of another one. */
function enlist(draft: Draft, pool: PoolRecord, drive: DriveRecord, instead?: DriveRecord): void {
  const { driveUuids } = pool
  if (driveUuids.includes(drive.uuid))
    throw draft.exists`drive ${drive.name} is in pool ${pool.name} already`
  if (!instead && driveUuids.length >= SUBDISKS_PER_PLEX)
    throw draft.exhausted`pool ${pool.name} has ${SUBDISKS_PER_PLEX} spares already, which is the most; make another pool`
  if (!spareOf(draft.model, drive.uuid)) {
    const spares = [...sparesOf(draft.model), { driveUuid: drive.uuid, broken: undefined }]
    draft.model = { ...draft.model, spares }
  }
  const next = instead
    ? driveUuids.map((uuid) => (uuid === instead.uuid ? drive.uuid : uuid))
    : [...driveUuids, drive.uuid]
  putPool(draft, { ...pool, driveUuids: next })
}

/** Throws `in-use` for a spare that something lies on, or is on its way to. */
function checkIdleSpare(draft: Draft, drive: DriveRecord): void {
  const [user] = usersOf(draft.model, drive.uuid)
  if (!user) return
  const volume = draft.volumeOf(draft.plexOf(user))?.name
  const how = user.origin && volume !== undefined ? `: plexus spare copy-back ${volume}` : ''
  throw draft.inUse`spare ${drive.name} is in use: ${user.name} is on it; that leaves it first${how}`
}

/** Of a spare that no pool has any more nothing stays in the set. */
function retireLoose(draft: Draft, drive: DriveRecord): void {
  draft.model = dropLooseSpares(draft.model)
  if (!spareOf(draft.model, drive.uuid)) retireDrive(draft, drive)
}

function optionalDelay(draft: Draft): number | undefined {
  const text = draft.optionalText('delay')
  if (text === undefined) return undefined
  const seconds = Math.round(parseDuration(text) / 1000)
  if (seconds <= SPARE_DELAY_S_MAX) return seconds
  throw draft.invalid`--delay ${text}: at most ${formatDuration(SPARE_DELAY_S_MAX)}`
}

export const SPARE_CREATE = planning(SPARE_SPECS.create, ['devices'], (draft) => {
  const name = draft.text('pool')
  checkNewName(draft, 'pool', name)
  if ([ALL, 'none'].includes(bareName(name)))
    throw draft.invalid`"${name}" cannot be the name of a pool: it stands for ${name === ALL ? 'every pool' : 'no pool'}; choose another name`
  if (poolsOf(draft.model).length >= SPARE_POOLS)
    throw draft.exhausted`pool ${name}: the set has ${SPARE_POOLS} pools already, which is the most; delete one first`
  const pool: PoolRecord = {
    uuid: newUuid(draft.context.random),
    name: bareName(name),
    driveUuids: [],
    delaySeconds: optionalDelay(draft) ?? SPARE_DELAY_S,
    copyBack: draft.optionalChoice('copyBack', COPY_BACKS) ?? 'manual',
  }
  const drives = draft.names('devices', 'device').map((one) => emptyDrive(draft, one))
  if (drives.length === 0 && draft.model.drives.length === 0)
    throw draft.invalid`pool ${name} is the first thing of its set, which needs a drive; name a device`
  draft.model = { ...draft.model, pools: [...poolsOf(draft.model), pool] }
  draft.stepOn(name, `create pool ${name}: ${settingsText(pool)}`)
  addDrives(draft, pool, drives)
})

function settingsText({ delaySeconds, copyBack }: PoolRecord): string {
  return `a spare steps in after ${formatDuration(delaySeconds)}, copy-back is ${copyBack}`
}

function addDrives(draft: Draft, pool: PoolRecord, drives: readonly DriveRecord[]): void {
  for (const drive of drives) {
    enlist(draft, poolNamed(draft, pool.name), drive)
    draft.stepOn(drive.name, `add spare ${drive.name} to pool ${pool.name}`)
  }
}

export const SPARE_SET = planning(SPARE_SPECS.set, [], (draft) => {
  const pool = poolNamed(draft, draft.text('pool'))
  const delaySeconds = optionalDelay(draft) ?? pool.delaySeconds
  const copyBack = draft.optionalChoice('copyBack', COPY_BACKS) ?? pool.copyBack
  if (delaySeconds === pool.delaySeconds && copyBack === pool.copyBack) {
    draft.warn`pool ${pool.name} has these settings already: ${settingsText(pool)}`
    return
  }
  const changed = { ...pool, delaySeconds, copyBack }
  putPool(draft, changed)
  draft.stepOn(pool.name, `set pool ${pool.name}: ${settingsText(changed)}`)
})

export const SPARE_ADD = planning(SPARE_SPECS.add, ['devices'], (draft) => {
  const pools = poolsNamed(draft)
  const drives = draft.names('devices', 'device').map((one) => emptyDrive(draft, one))
  for (const pool of pools) addDrives(draft, pool, drives)
})

export const SPARE_DELETE = planning(SPARE_SPECS.delete, [], (draft) => {
  const pools = poolsNamed(draft)
  const names = draft.names('drives', 'spare')
  if (names.length === 0) for (const pool of pools) deletePool(draft, pool)
  for (const drive of names.map((one) => spareNamed(draft, one))) {
    const from = pools.filter(({ driveUuids }) => driveUuids.includes(drive.uuid))
    if (from.length === 0)
      throw draft.notFound`spare ${drive.name} is not in pool ${pools[0]?.name}, but in ${poolsWith(
        draft.model,
        drive.uuid,
      )
        .map(({ name }) => name)
        .join(', ')}`
    checkIdleSpare(draft, drive)
    for (const { name } of from) {
      const pool = poolNamed(draft, name)
      const driveUuids = pool.driveUuids.filter((uuid) => uuid !== drive.uuid)
      putPool(draft, { ...pool, driveUuids })
      draft.stepOn(drive.name, `take spare ${drive.name} out of pool ${name}`)
    }
    retireLoose(draft, drive)
  }
})

function deletePool(draft: Draft, pool: PoolRecord): void {
  const { name, driveUuids, uuid } = pool
  const [first] = driveUuids
  if (first !== undefined)
    throw draft.inUse`pool ${name} has ${driveUuids.length} spares; take them out first: plexus spare delete ${name} ${draft.drive(first)?.name}`
  const [user] = volumesUsing(draft.model, pool)
  if (user)
    throw draft.inUse`pool ${name} is that of volume ${user.name}; take that off it first: plexus volume set ${user.name} --spare-pool none`
  const pools = poolsOf(draft.model).filter((one) => one.uuid !== uuid)
  draft.model = { ...draft.model, pools: pools.length > 0 ? pools : undefined }
  draft.stepOn(name, `delete pool ${name}`)
}

export const SPARE_REPLACE = planning(SPARE_SPECS.replace, ['newDevice'], (draft) => {
  const old = spareNamed(draft, draft.text('oldSpare'))
  const pools = poolsNamed(draft).filter(({ driveUuids }) => driveUuids.includes(old.uuid))
  if (pools.length === 0)
    throw draft.notFound`spare ${old.name} is not in pool ${draft.text('pool')}; plexus spare list shows where it is`
  checkIdleSpare(draft, old)
  const drive = emptyDrive(draft, draft.text('newDevice'))
  for (const { name } of pools) {
    enlist(draft, poolNamed(draft, name), drive, old)
    draft.stepOn(drive.name, `put spare ${drive.name} in the place of ${old.name} in pool ${name}`)
  }
  retireLoose(draft, old)
})

export const SPARE_ENABLE = planning(SPARE_SPECS.enable, [], (draft) => {
  const drive = spareNamed(draft, draft.text('drive'))
  serving(draft, drive)
  if (spareOf(draft.model, drive.uuid)?.broken === undefined)
    throw draft.invalid`spare ${drive.name} is not broken; plexus spare list shows the states`
  draft.model = putSpare(draft.model, { driveUuid: drive.uuid, broken: undefined })
  draft.stepOn(drive.name, `make spare ${drive.name} available`)
})

export const SPARE_USE = planning(SPARE_SPECS.use, [], (draft) => {
  const volume = findTyped(draft.model, 'volume', draft.text('volume'))
  const drive = findTyped(draft.model, 'drive', draft.text('drive'))
  const leaving = draft.subdisksBelow(volume).filter((one) => one.driveUuid === drive.uuid)
  if (leaving.length === 0)
    throw draft.notFound`drive ${drive.name} carries nothing of volume ${volume.name}; plexus volume show ${volume.name} shows what does`
  if (!poolOf(draft.model, volume))
    throw draft.invalid`volume ${volume.name} has no pool of spares; name one: plexus volume set ${volume.name} --spare-pool POOL`
  if (!draft.flag('force')) checkRightDrive(draft, volume, drive, leaving)
  for (const subdisk of leaving) useSpare(draft, subdisk)
  if (leaving.every((one) => isGood(draft, one)))
    draft.warn`the place on ${drive.name} is kept; to copy back: plexus spare copy-back ${volume.name}`
})

export const SPARE_COPY_BACK = planning(SPARE_SPECS['copy-back'], [], (draft) => {
  const volume = findTyped(draft.model, 'volume', draft.text('volume'))
  const spared = sparedOf(draft.model, volume).filter(({ origin }) => origin)
  if (spared.length === 0)
    throw draft.invalid`volume ${volume.name} has nothing on a spare that could be copied back; plexus spare list shows what spares hold`
  for (const subdisk of spared) copyBackSoon(draft, subdisk)
})

export const SPARE_VERBS: readonly PlanningVerb[] = [
  SPARE_CREATE,
  SPARE_SET,
  SPARE_ADD,
  SPARE_DELETE,
  SPARE_REPLACE,
  SPARE_ENABLE,
  SPARE_USE,
  SPARE_COPY_BACK,
]
