/**
 * What spares do, as plans: step in for a column, give it back to its own place, be copied back. One rule for mirrors and
 * raid5. Used by `plexus spare` and `volume replace` (volume-change.ts), and by spare-keeper.ts, which decides when.
 * docs/vinum.md, 10.
 */
import { formatSize } from '../../../base/bytes.ts'
import { newUuid } from '../../../base/random.ts'
import { allocate } from '../model/allocation.ts'
import type {
  DriveRecord,
  OriginRecord,
  PlexRecord,
  SubdiskRecord,
  VolumeRecord,
} from '../model/model.ts'
import { spareFor, spareOf, withBroken } from '../model/spares.ts'
import type { Draft } from './draft.ts'
import { checkMove, moveTo, rebuildOn } from './move.ts'

/** Is what a subdisk has good, and there? */
export function isGood(draft: Draft, { state, driveUuid }: SubdiskRecord): boolean {
  return state === 'up' && isServing(draft, driveUuid)
}

function isServing(draft: Draft, driveUuid: string): boolean {
  return draft.drive(driveUuid)?.state === 'up' && draft.isPresent(driveUuid)
}

/** A spare takes the place of a subdisk: a good one is copied to it while it serves, another one is rebuilt there. */
export function useSpare(draft: Draft, subdisk: SubdiskRecord): void {
  const drive = chosen(draft, subdisk)
  if (!isGood(draft, subdisk)) stepIn(draft, subdisk, drive)
  else {
    draft.step`spare ${drive.name} steps in for ${draft.drive(subdisk.driveUuid)?.name}`
    moveTo(draft, subdisk, drive)
  }
}

/** Throws `no-space` where no spare suits. */
function chosen(draft: Draft, subdisk: SubdiskRecord): DriveRecord {
  const choice = spareFor(draft.model, subdisk, draft.context)
  if ('drive' in choice) return choice.drive
  throw draft.noSpace`subdisk ${subdisk.name} gets no spare: ${choice.why}; plexus spare list shows the spares`
}

/** A column that has failed is rebuilt on a spare. Throws where nothing can fill it, or where only its drive has something. */
function stepIn(draft: Draft, subdisk: SubdiskRecord, drive: DriveRecord): void {
  const plex = draft.plexOf(subdisk)
  if (plex) {
    checkKept(draft, plex, subdisk)
    stopChecks(draft, plex)
  }
  draft.step`spare ${drive.name} steps in for ${draft.drive(subdisk.driveUuid)?.name}`
  rebuildOn(draft, subdisk, drive, placeOf(draft, subdisk))
}

/**
 * A column that fails on a spare: that spare is broken, and the next one steps in. Where there is none, the column goes
 * back to its own place and waits there.
 */
export function replaceSpare(draft: Draft, subdisk: SubdiskRecord): void {
  const { name = '???' } = draft.drive(subdisk.driveUuid) ?? {}
  const why = isServing(draft, subdisk.driveUuid) ? 'a write to it failed' : 'it went while in use'
  const broken = withBroken(draft.model, subdisk.driveUuid, why)
  if (broken !== draft.model) {
    draft.model = broken
    draft.step`spare ${name} is broken: ${why}`
  }
  const choice = spareFor(draft.model, subdisk, draft.context)
  if ('drive' in choice) stepIn(draft, subdisk, choice.drive)
  else if (subdisk.origin) {
    putBack(draft, subdisk)
    draft.warn`no other spare steps in: ${choice.why}`
  } else if (broken === draft.context.model) chosen(draft, subdisk)
}

/**
 * What a spare was to be filled with cannot be computed any more, or was given up: the column is out of service in its own
 * place again, and the spare is free. What is in that place counts as nothing: before this is durable all of the map of the
 * volume has to be marked, so that whoever fills the column fills all of it.
 */
export function putBack(draft: Draft, subdisk: SubdiskRecord): void {
  const { name, origin, plexUuid } = subdisk
  if (!origin)
    throw draft.invalid`subdisk ${name} has no place of its own to go back to; plexus vinum start ${name} fills it where it is`
  const { driveUuid, driveOffsetBytes } = origin
  const [from, to] = [draft.drive(subdisk.driveUuid)?.name, draft.drive(driveUuid)?.name]
  draft.drop(new Set([subdisk.uuid]))
  const uuid = newUuid(draft.context.random)
  const place = { uuid, driveUuid, driveOffsetBytes, move: undefined, origin: undefined }
  draft.add('subdisks', { ...subdisk, ...place, state: 'stale' })
  draft.step`give subdisk ${name} its place on ${to} back, out of service; spare ${from} holds it no more`
  draft.derive()
  const plex = draft.plexOf({ ...subdisk, plexUuid })
  if (plex && origin.copyBack !== 'held' && isServing(draft, driveUuid)) draft.startJobs(plex)
}

/** The place that is kept for a subdisk while a spare has it. One whose drive was here when it failed is not copied back by itself. */
function placeOf(draft: Draft, subdisk: SubdiskRecord): OriginRecord | undefined {
  const { driveUuid, driveOffsetBytes, origin } = subdisk
  if (spareOf(draft.model, driveUuid)) return origin
  const copyBack = draft.isPresent(driveUuid) ? 'held' : 'by-pool'
  return { driveUuid, driveOffsetBytes, copyBack }
}

/** Throws `in-use` where only the drive that is away has what a part of its plex has lost: its return brings that back. */
function checkKept(draft: Draft, plex: PlexRecord, { uuid, name }: SubdiskRecord): void {
  if (!plex.lost?.some(({ keptBy }) => keptBy === uuid)) return
  throw draft.inUse`a part of plex ${plex.name} is lost, and only the drive of ${name} has it: connect it again; if it is lost, plexus status says what to do`
}

/** Checks end for a rebuild: they are begun again, it must not wait. */
function stopChecks(draft: Draft, plex: PlexRecord): void {
  for (const job of draft.jobsOn(plex)) {
    if (job.kind !== 'check' && job.kind !== 'repair') continue
    draft.model = { ...draft.model, jobs: draft.model.jobs.filter((one) => one !== job) }
    draft.stepOn(plex.name, `stop job ${job.kind} on ${plex.name}`)
  }
}

/** Begins to copy a subdisk from a spare to the place that is kept for it. Throws `gone` while its drive is away. */
export function copyBack(draft: Draft, subdisk: SubdiskRecord): void {
  const { name, origin } = subdisk
  const drive = origin && draft.drive(origin.driveUuid)
  if (!drive) throw draft.invalid`subdisk ${name} has no place of its own to be copied back to`
  if (!isServing(draft, drive.uuid)) {
    const volume = draft.volumeOf(draft.plexOf(subdisk))?.name ?? 'VOLUME'
    throw draft.gone`drive ${drive.name} is down: connect it, or replace it: plexus volume replace ${volume} ${drive.name} NEW-DEVICE`
  }
  moveTo(draft, subdisk, drive)
}

/**
 * As {@link copyBack}, because somebody has asked for it: where a job still fills the spare, the copy begins by itself when
 * that has ended.
 */
export function copyBackSoon(draft: Draft, subdisk: SubdiskRecord): void {
  const { origin, name } = subdisk
  if (!origin) return
  const wanted = { ...subdisk, origin: { ...origin, copyBack: 'wanted' as const } }
  const plex = draft.plexOf(subdisk)
  const [job] = plex ? draft.jobsOn(plex).filter(({ kind }) => kind !== 'move') : []
  if (!job && subdisk.state === 'up') {
    draft.put('subdisks', wanted)
    copyBack(draft, wanted)
    return
  }
  if (origin.copyBack === 'wanted') {
    draft.warn`subdisk ${name} is copied back already as soon as it can be`
    return
  }
  draft.put('subdisks', wanted)
  draft.step`copy subdisk ${name} back when ${job ? `job ${job.kind} has ended` : 'it is up again'}`
}

/** Another drive is in the place of the one that a spared subdisk comes from: it goes there. */
export function giveNewHome(draft: Draft, subdisk: SubdiskRecord, drive: DriveRecord): void {
  checkMove(draft, subdisk, drive)
  const driveOffsetBytes = allocate(draft.model, drive, subdisk.sizeBytes)
  const origin = { driveUuid: drive.uuid, driveOffsetBytes, copyBack: 'by-pool' as const }
  const settled = { ...subdisk, origin }
  draft.put('subdisks', settled)
  draft.step`keep ${formatSize(subdisk.sizeBytes)} on ${drive.name} for subdisk ${subdisk.name}`
  copyBackSoon(draft, settled)
}

/** Throws `in-use` while one of these subdisks of the volume is on a spare of its pool. */
export function checkNoneSpared(
  draft: Draft,
  volume: VolumeRecord,
  spared: readonly SubdiskRecord[],
): void {
  const [first] = spared
  if (!first) return
  const { driveUuid, move } = first
  const spare = draft.drive(spareOf(draft.model, driveUuid) ? driveUuid : (move?.driveUuid ?? ''))
  throw draft.inUse`volume ${volume.name} keeps its pool while ${first.name} is on the spare ${spare?.name}; copy it back first: plexus spare copy-back ${volume.name}`
}
