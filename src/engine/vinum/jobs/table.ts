/**
 * One row for each kind of job: how its plan is made from the running objects, what its progress and its end do to
 * the model.
 */
import { JOB_STEP_ALONE_BYTES } from '../../../base/limits.ts'
import type { WriteIntentBitmap } from '../../intent/write-intent-bitmap.ts'
import type { JobPlan } from '../../jobs/job.ts'
import { slice } from '../../jobs/slices.ts'
import type { PlacedSubdisk } from '../io/subdisk.ts'
import { flushDrives } from '../io/transfers.ts'
import { isSamePlace } from '../model/allocation.ts'
import { allotMapSlots } from '../model/map-slots.ts'
import {
  byUuid,
  type JobRecord,
  type MismatchRecord,
  plexesOf,
  replaceRecord,
  sizeOfPlex,
  subdisksOf,
  type VinumModel,
} from '../model/model.ts'
import { originAfterMove } from '../model/spares.ts'
import { derive } from '../model/state-rules.ts'
import { Raid5Plex } from '../raid5/plex-raid5.ts'
import { checkStep, initialiseStep, rebuildStep } from '../raid5/row-jobs.ts'
import type { Plex } from '../runtime.ts'
import type { VinumSet } from '../set/vinum-set.ts'
import type { RunningVolume } from '../set/volume.ts'
import { growPlan } from './grow.ts'
import { growthCommits } from './growth-turns.ts'
import { checkPlan, resyncPlan } from './mirror-jobs.ts'
import { movePlan } from './move.ts'
import { healThroughPlex } from './move-heal.ts'
import { endJob } from './plans.ts'
import { type JobSetup, outOfService, overRanges, planOf } from './setup.ts'
import { missingRanges, syncPlan } from './sync.ts'

/** `volume`: that of the object on which the job works. */
type PlanMaker = (
  set: VinumSet,
  setup: JobSetup,
  volume: RunningVolume | undefined,
) => JobPlan | undefined

function plexOf(set: VinumSet, { record }: JobSetup): Plex | undefined {
  return set.objects.plexes.get(record.targetUuid)
}

function raid5Of(set: VinumSet, setup: JobSetup): Raid5Plex | undefined {
  const plex = plexOf(set, setup)
  return plex instanceof Raid5Plex ? plex : undefined
}

function reviving(plex: Plex): readonly PlacedSubdisk[] {
  const subdisks = plex.subdisks as readonly PlacedSubdisk[]
  return subdisks.filter(({ record }) => record.state === 'reviving')
}

/** What the subdisks that a job fills lack: what the map marks, and for a full copy all that it has not reached. */
function missingOf({ record, totalBytes }: JobSetup, volume: RunningVolume | undefined) {
  return missingRanges(record, totalBytes, volume?.map?.marked ?? [])
}

export const PLANS: Readonly<Record<JobRecord['kind'], PlanMaker>> = {
  sync(set, setup, volume) {
    const plex = plexOf(set, setup)
    if (!plex || !volume) return undefined
    const subdisks = reviving(plex)
    if (subdisks.length === 0) return undefined
    return syncPlan({
      ...setup,
      host: set.host,
      plex,
      subdisks,
      missing: missingOf(setup, volume),
      async read(offset, into) {
        // A plex may be larger than its volume: what lies behind is nobody's.
        const there = Math.max(0, Math.min(volume.record.sizeBytes - offset, into.bytes.length))
        into.bytes.fill(0, there)
        if (there > 0) await volume.io.readExcept(plex, offset, slice(into, 0, there))
      },
    })
  },
  rebuild(set, setup, volume) {
    const plex = raid5Of(set, setup)
    if (!plex) return undefined
    const subdisks = reviving(plex)
    const [column] = subdisks
    if (!column) return undefined
    const missing = missingOf(setup, volume)
    column.missing = missing
    return planOf(setup, {
      subdisks,
      aloneBytes: aloneBytesOf(plex),
      ...overRanges(
        setup.totalBytes,
        (from, mostBytes) => missing.next(from, mostBytes),
        async ({ offset, length }, job) => {
          // Rows are whole: what it reaches may lie behind the range.
          const reached = await rebuildStep(plex, column, offset, length, () => job.mismatches++)
          if (column.record.state !== 'reviving') throw outOfService(column, 'rebuild')
          return reached
        },
      ),
    })
  },
  initialise(set, setup) {
    const plex = raid5Of(set, setup)
    if (!plex) return undefined
    const { subdisks } = plex
    const consumers = subdisks.map(({ drive }) => drive.consumer)
    return planOf(setup, {
      subdisks,
      aloneBytes: aloneBytesOf(plex),
      step: (offset, maxBytes) => initialiseStep(plex, offset, maxBytes),
      // Parity that a column had in its cache when its drive went is not there, also where the drive is back.
      async flush() {
        await flushDrives(subdisks)
        const gone = subdisks.find(
          ({ writable, drive }, index) => !writable || drive.consumer !== consumers[index],
        )
        if (gone) throw outOfService(gone, 'initialise')
      },
    })
  },
  check: (set, setup, volume) => checkOf(set, setup, volume, false),
  repair: (set, setup, volume) => checkOf(set, setup, volume, true),
  grow(set, setup) {
    const plex = plexOf(set, setup)
    if (!plex?.record.growth) return undefined
    const plan = growPlan({ ...setup, host: set.host, plex, ...growthCommits(set, plex) })
    const turns = set.objects.jobs.growthTurns
    return {
      ...plan,
      step: (offset, maxBytes, job) =>
        turns.run(plex.record.uuid, job, () => plan.step(offset, maxBytes, job)),
    }
  },
  move(set, setup, volume) {
    const subdisk = set.objects.subdisks.get(setup.record.targetUuid)
    const move = subdisk?.record.move
    const target = move && set.drives.get(move.driveUuid)
    if (!subdisk || !move || !target) return undefined
    const { plexUuid } = subdisk.record
    const plex = plexUuid === undefined ? undefined : set.objects.plexes.get(plexUuid)
    return movePlan({
      ...setup,
      host: set.host,
      subdisk,
      plex,
      target,
      driveOffsetBytes: move.driveOffsetBytes,
      onTrouble: (drive, error) => set.objects.jobs.noteTrouble(subdisk.record.uuid, drive, error),
      heal: plex && volume ? healThroughPlex(set.host, plex, volume.io, subdisk) : undefined,
    })
  },
  // It has no record: see startResync.
  resync: () => undefined,
}

/** A resync after a crash: of copies, or of the parity of the one raid5 plex. */
export function resyncOf(setup: JobSetup, volume: RunningVolume, map: WriteIntentBitmap): JobPlan {
  return resyncPlan({
    ...setup,
    io: volume.io,
    plexes: volume.plexes,
    nextUnsynced: (from, mostBytes) => map.unsynced.next(from, mostBytes),
    onEqual: (offset, length) => map.markSynced(offset, length),
  })
}

/** In plex space, so that it is the same on each drive however many columns there are. */
function aloneBytesOf({ subdisks }: Raid5Plex): number {
  return (subdisks.length - 1) * JOB_STEP_ALONE_BYTES
}

function checkOf(
  set: VinumSet,
  setup: JobSetup,
  volume: RunningVolume | undefined,
  repair: boolean,
): JobPlan | undefined {
  const plex = raid5Of(set, setup)
  if (plex) {
    return planOf(setup, {
      subdisks: plex.subdisks,
      aloneBytes: aloneBytesOf(plex),
      async step(offset, maxBytes, job) {
        const result = await checkStep(plex, offset, maxBytes, { repair })
        // What may differ since a crash is no mismatch: a resync sees to it.
        const wrong = result.mismatches.filter(
          (at) => !plex.doubt.touches(at, plex.pieceEnd(at) - at),
        )
        for (const at of wrong) noteMismatch(set, plex, at, repair)
        job.mismatches += wrong.length
        return result.offset
      },
    })
  }
  if (!volume) return undefined
  return checkPlan({
    ...setup,
    io: volume.io,
    plexes: volume.plexes,
    repair,
    onMismatch: (mismatch) => noteMismatch(set, mismatch.plex, mismatch.offset, repair),
  })
}

/** A check found parity or copies that differ. */
function noteMismatch(set: VinumSet, plex: Plex, offset: number, repaired: boolean): void {
  const { name } = plex.record
  const what = repaired ? 'was made right' : 'is as it was'
  const text = `${name} does not agree with its data or copies at offset ${offset}; it ${what}`
  set.topology.events.emit('warning', 'mismatch', name, text)
}

/** What progress means beside the cursor in the job's own record. */
export const PROGRESS: Partial<
  Record<JobRecord['kind'], (model: VinumModel, record: JobRecord) => VinumModel>
> = {
  initialise(model, record) {
    const plex = byUuid(model.plexes, record.targetUuid)
    if (!plex) return model
    const parityValidBytes = Math.max(plex.parityValidBytes, record.cursorBytes)
    return { ...model, plexes: replaceRecord(model.plexes, { ...plex, parityValidBytes }) }
  },
}

/** Ends that change places and sizes. The others are `endJob`'s. */
export const FINISH: Partial<
  Record<JobRecord['kind'], (model: VinumModel, record: JobRecord) => VinumModel>
> = {
  grow(model, record) {
    const plex = byUuid(model.plexes, record.targetUuid)
    const next = endJob(model, record.id, 'done')
    if (!plex) return next
    const grown = { ...plex, growth: undefined }
    const size = sizeOfPlex(grown, subdisksOf(next, plex.uuid))
    const plexes = replaceRecord(next.plexes, { ...grown, parityValidBytes: size })
    return allotMapSlots(derive(withVolumeSize({ ...next, plexes }, plex.volumeUuid)))
  },
  move(model, record) {
    const subdisk = byUuid(model.subdisks, record.targetUuid)
    const next = endJob(model, record.id, 'done')
    if (!subdisk?.move) return next
    const origin = originAfterMove(model, subdisk, subdisk.move.driveUuid)
    const moved = { ...subdisk, ...subdisk.move, move: undefined, origin }
    return derive({ ...next, subdisks: replaceRecord(next.subdisks, moved) })
  },
}

/** A volume is as large as its smallest plex, and never becomes smaller by itself. */
function withVolumeSize(model: VinumModel, volumeUuid: string | undefined): VinumModel {
  const volume = byUuid(model.volumes, volumeUuid)
  if (!volume) return model
  const sizes = plexesOf(model, volume.uuid).map((one) =>
    sizeOfPlex(one, subdisksOf(model, one.uuid)),
  )
  const sizeBytes = Math.max(volume.sizeBytes, Math.min(...sizes))
  return { ...model, volumes: replaceRecord(model.volumes, { ...volume, sizeBytes }) }
}

/**
 * What a check or repair leaves in the record of its volume: the mismatches that it found, until one ends that leaves
 * none. `time` as events have it.
 */
export function withMismatches(
  model: VinumModel,
  { kind, targetUuid }: JobRecord,
  outcome: 'done' | 'failed' | 'cancelled',
  { count, time }: MismatchRecord,
): VinumModel {
  const volumeUuid = byUuid(model.plexes, targetUuid)?.volumeUuid ?? targetUuid
  const volume = byUuid(model.volumes, volumeUuid)
  const isDone = outcome === 'done'
  const isScrub = kind === 'check' || kind === 'repair'
  // A repair that has ended early has made right what it found, and tells nothing of the rest.
  if (!volume || !isScrub || (!isDone && (kind === 'repair' || count === 0))) return model
  const most = isDone ? count : Math.max(count, volume.mismatches?.count ?? 0)
  const mismatches = kind === 'repair' || count === 0 ? undefined : { count: most, time }
  return { ...model, volumes: replaceRecord(model.volumes, { ...volume, mismatches }) }
}

/** A move that has ended early: the subdisk stays where it is. One back from a spare is not tried again by itself. */
export function withoutMove(model: VinumModel, subdiskUuid: string): VinumModel {
  const subdisk = byUuid(model.subdisks, subdiskUuid)
  if (!subdisk) return model
  const { move, origin } = subdisk
  const isBack = origin && isSamePlace(origin, move)
  const stayed = {
    ...subdisk,
    move: undefined,
    origin: isBack ? { ...origin, copyBack: 'held' as const } : origin,
  }
  return { ...model, subdisks: replaceRecord(model.subdisks, stayed) }
}
