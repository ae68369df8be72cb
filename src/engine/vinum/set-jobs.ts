/**
 * The jobs of a native set: from the records of the model to running jobs (geom/job.ts), and from their progress
 * and end back to the model. A job that the model names and that does not run is started; a resync after a crash
 * has no record, since the intent maps themselves say what it has to do. vinum-set.ts owns it.
 */
import type { Random } from '../../base/random.ts'
import type { Job, JobPlan } from '../geom/job.ts'
import { finishWindow, growPlan } from './grow.ts'
import { endJob, jobsNeeded } from './job-plans.ts'
import type { JobCommits, JobSetup } from './job-setup.ts'
import { outOfService, planOf } from './job-setup.ts'
import { checkPlan, resyncPlan } from './mirror-jobs.ts'
import {
  byUuid,
  type JobRecord,
  plexesOf,
  replaceRecord,
  sizeOfPlex,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
} from './model.ts'
import { movePlan } from './move.ts'
import { healThroughPlex } from './move-heal.ts'
import { Raid5Plex } from './plex-raid5.ts'
import { checkStep, initialiseStep, rebuildStep, resyncStep } from './raid5-jobs.ts'
import type { Plex } from './runtime.ts'
import type { RunningVolume } from './set-volume.ts'
import { isRedundant } from './set-volume.ts'
import { derive } from './state-rules.ts'
import type { PlacedSubdisk } from './subdisk.ts'
import { missingRanges, syncPlan } from './sync.ts'
import { RegionValidity } from './validity.ts'
import type { VinumSet } from './vinum-set.ts'

/**
 * Adds the jobs that bring every volume up to date. What a subdisk missed is in the volume's intent map: whoever
 * makes a copy that the map knows nothing of has marked all of it.
 */
export function startNeededJobs(model: VinumModel, random: Random): VinumModel {
  const isTracked = ({ plexUuid }: { readonly plexUuid: string | undefined }): boolean => {
    const volumeUuid = byUuid(model.plexes, plexUuid)?.volumeUuid
    return volumeUuid !== undefined && isRedundant(model, volumeUuid)
  }
  return jobsNeeded(model, undefined, { random, isTracked }).model
}

/** What a job works on, found among the running objects. */
interface Target {
  readonly name: string
  readonly volume: RunningVolume | undefined
  readonly totalBytes: number
}

export class SetJobs {
  readonly #set: VinumSet
  readonly #running = new Map<string, Job>()

  constructor(set: VinumSet) {
    this.#set = set
  }

  /** Starts every job of the model that does not run, and the resyncs that the maps ask for; ends what has no record. */
  start(model: VinumModel): void {
    for (const record of model.jobs) {
      if (!this.#running.has(record.id)) this.#startRecord(record)
    }
    for (const volume of this.#set.objects.volumes.values()) this.#startResync(volume)
    const known = new Set(model.jobs.map(({ id }) => id))
    for (const [id, job] of this.#running) {
      if (known.has(id) || id.startsWith('resync-')) continue
      // It may be about to end by itself, which does as well.
      job.cancel().catch(() => {})
    }
  }

  /** Ends all where they are; nothing is written down. */
  async park(): Promise<void> {
    await Promise.all([...this.#running.values()].map((job) => job.park()))
  }

  /** Does a job of the model work on this object? */
  isRunning(targetUuid: string): boolean {
    return this.#set.model.jobs.some(
      (record) => record.targetUuid === targetUuid && this.#running.has(record.id),
    )
  }

  /** Writes the window that a growth had backed up when it was cut off (grow.ts). */
  async finishWindow(plex: Plex): Promise<void> {
    const { uuid } = plex.record
    const record = this.#set.model.jobs.find((one) => one.targetUuid === uuid)
    const target = record && this.#target(record)
    if (!record || !target) return
    const options = { ...this.#setup(record, target), host: this.#set, plex }
    await finishWindow({ ...options, ...this.#set.growthCommits(plex) })
  }

  #run(plan: JobPlan): void {
    const job = this.#set.topology.jobs.start(plan)
    this.#running.set(plan.id, job)
    void job.ended.then(() => this.#running.delete(plan.id))
  }

  #startRecord(record: JobRecord): void {
    const plan = this.#planOf(record)
    if (plan) this.#run(plan)
    else {
      // What it was to fill is gone or out of service: as a job that has failed.
      this.#abandon(record, 'failed').catch((error: unknown) => {
        this.#set.log.error({ err: error, job: record.id }, 'a job could not be given up')
      })
    }
  }

  #target(record: JobRecord): Target | undefined {
    const { objects, model } = this.#set
    const volume = objects.volumes.get(record.targetUuid)
    if (volume) {
      return { name: volume.record.name, volume, totalBytes: volume.record.sizeBytes }
    }
    const plex = objects.plexes.get(record.targetUuid)
    const subdisk = objects.subdisks.get(record.targetUuid)
    const plexUuid = plex?.record.uuid ?? subdisk?.record.plexUuid
    const volumeUuid = byUuid(model.plexes, plexUuid)?.volumeUuid
    const above = volumeUuid === undefined ? undefined : objects.volumes.get(volumeUuid)
    if (plex) return { name: plex.record.name, volume: above, totalBytes: plex.sizeBytes }
    if (!subdisk) return undefined
    const { name, sizeBytes } = subdisk.record
    return { name, volume: above, totalBytes: sizeBytes }
  }

  #setup(record: JobRecord, target: Target): JobSetup {
    return {
      record,
      object: target.name,
      volume: target.volume?.record.name,
      totalBytes: target.totalBytes,
      commits: this.#commits(record),
    }
  }

  #commits(record: JobRecord): JobCommits {
    return {
      checkpoint: (job) => this.#checkpoint(record, job),
      finish: () => this.#finish(record),
      abandon: (_job, outcome) => this.#abandon(record, outcome),
    }
  }

  async #checkpoint({ id }: JobRecord, job: Job): Promise<void> {
    const { state, limitBytesPerSecond } = job.report()
    await this.#set.commit((model) => {
      const record = model.jobs.find((one) => one.id === id)
      if (!record) return model
      const next = {
        ...record,
        cursorBytes: job.doneBytes,
        paused: state === 'paused',
        limitBytesPerSecond,
        mismatches: job.mismatches,
      }
      const jobs = model.jobs.map((one) => (one === record ? next : one))
      return PROGRESS[record.kind]?.({ ...model, jobs }, next) ?? { ...model, jobs }
    })
  }

  async #finish(record: JobRecord): Promise<void> {
    await this.#set.commit((model) => {
      const change = FINISH[record.kind]
      return change ? change(model, record) : endJob(model, record.id, 'done')
    })
    if (record.kind === 'grow') this.#set.reshapeSoon()
    if (record.kind === 'move') await this.#set.moved(record.targetUuid)
  }

  async #abandon(record: JobRecord, outcome: 'failed' | 'cancelled'): Promise<void> {
    if (record.scope === 'all') await this.#markUnfilled(record)
    await this.#set.commit((model) => {
      const next = endJob(model, record.id, outcome)
      return record.kind === 'move' ? withoutMove(next, record.targetUuid) : next
    })
    this.#set.retryLater(record, outcome)
  }

  /** A full copy that ends early has left content that no mark tells of: all of it is marked. */
  async #markUnfilled(record: JobRecord): Promise<void> {
    if (record.kind !== 'sync' && record.kind !== 'rebuild') return
    const map = this.#target(record)?.volume?.map
    await map?.mark(0, map.sizeBytes)
  }

  #planOf(record: JobRecord): JobPlan | undefined {
    const target = this.#target(record)
    return target && PLANS[record.kind](this.#set, this.#setup(record, target), target)
  }

  /** After a crash: what may differ among the copies in service is made equal. */
  #startResync(volume: RunningVolume): void {
    const { map, record } = volume
    const id = resyncId(record)
    if (!map || map.held.length === 0 || this.#running.has(id)) return
    for (const plex of volume.plexes) {
      // With a column missing, doubt would make it unreadable: what parity says is the best that there is. The
      // prewrite log will close this hole (spec/vinum.md, 8.1).
      if (plex instanceof Raid5Plex && isComplete(plex)) plex.doubt = new RegionValidity(map.held)
    }
    const setup: JobSetup = {
      record: {
        id,
        kind: 'resync',
        targetUuid: record.uuid,
        cursorBytes: 0,
        scope: 'dirty',
        paused: false,
        limitBytesPerSecond: undefined,
        mismatches: 0,
      },
      object: record.name,
      volume: record.name,
      totalBytes: map.sizeBytes,
      // The map is its record.
      commits: { checkpoint: async () => {}, finish: async () => {}, abandon: async () => {} },
    }
    this.#run(
      resyncPlan({
        ...setup,
        host: this.#set,
        plexes: volume.plexes,
        regions: map.held,
        fixParity: (plex, offset, length) => fixParity(plex, offset, length),
        onEqual: (offset, length) => map.agree(offset, length),
      }),
    )
  }
}

function resyncId({ uuid }: VolumeRecord): string {
  return `resync-${uuid.slice(0, 4)}`
}

function isComplete({ subdisks }: Plex): boolean {
  return subdisks.every(({ record }) => record.state === 'up')
}

async function fixParity(plex: Plex, offset: number, length: number): Promise<void> {
  if (!(plex instanceof Raid5Plex) || !isComplete(plex)) return
  for (let at = offset; at < offset + length; ) {
    at = await resyncStep(plex, at, offset + length - at)
  }
}

type PlanMaker = (set: VinumSet, setup: JobSetup, target: Target) => JobPlan | undefined

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
function missingOf(setup: JobSetup, { volume, totalBytes }: Target) {
  return missingRanges(setup.record, totalBytes, volume?.map?.snapshot().ranges() ?? [])
}

const PLANS: Readonly<Record<JobRecord['kind'], PlanMaker>> = {
  sync(set, setup, target) {
    const plex = plexOf(set, setup)
    const { volume } = target
    if (!plex || !volume) return undefined
    const subdisks = reviving(plex)
    if (subdisks.length === 0) return undefined
    return syncPlan({
      ...setup,
      host: set,
      plex,
      subdisks,
      missing: missingOf(setup, target),
      read: (offset, into) => volume.io.readExcept(plex, offset, into),
    })
  },
  rebuild(set, setup, target) {
    const plex = raid5Of(set, setup)
    if (!plex) return undefined
    const subdisks = reviving(plex)
    const [column] = subdisks
    if (!column) return undefined
    const validity = new RegionValidity(missingOf(setup, target))
    column.validity = validity
    const firstMissing = (): number => validity.missing[0]?.offset ?? setup.totalBytes
    return planOf(setup, {
      subdisks,
      startBytes: firstMissing(),
      async step(from, maxBytes, job) {
        const range = validity.missing[0]
        if (!range) return setup.totalBytes
        // Rows are whole: what it reaches may lie behind the range.
        const reached = await rebuildStep(
          plex,
          column,
          range.offset,
          Math.min(maxBytes, range.length),
        )
        if (column.record.state !== 'reviving') throw outOfService(column, 'rebuild')
        validity.markValid(range.offset, reached - range.offset)
        const next = firstMissing()
        job.skip(Math.max(0, next - from - (reached - range.offset)))
        return next
      },
    })
  },
  initialise(set, setup) {
    const plex = raid5Of(set, setup)
    return (
      plex &&
      planOf(setup, {
        subdisks: plex.subdisks,
        step: (offset, maxBytes) => initialiseStep(plex, offset, maxBytes),
      })
    )
  },
  check: (set, setup, target) => checkOf(set, setup, target, false),
  repair: (set, setup, target) => checkOf(set, setup, target, true),
  grow(set, setup) {
    const plex = plexOf(set, setup)
    if (!plex?.record.growth) return undefined
    return growPlan({ ...setup, host: set, plex, ...set.growthCommits(plex) })
  },
  move(set, setup, { volume }) {
    const subdisk = set.objects.subdisks.get(setup.record.targetUuid)
    const move = subdisk?.record.move
    const target = move && set.drives.get(move.driveUuid)
    if (!subdisk || !move || !target) return undefined
    const { plexUuid } = subdisk.record
    const plex = plexUuid === undefined ? undefined : set.objects.plexes.get(plexUuid)
    return movePlan({
      ...setup,
      host: set,
      subdisk,
      plex,
      target,
      driveOffsetBytes: move.driveOffsetBytes,
      heal: plex && volume ? healThroughPlex(set, plex, volume.io, subdisk) : undefined,
    })
  },
  // It has no record: see startResync.
  resync: () => undefined,
}

function checkOf(
  set: VinumSet,
  setup: JobSetup,
  target: Target,
  repair: boolean,
): JobPlan | undefined {
  const plex = raid5Of(set, setup)
  if (plex) {
    return planOf(setup, {
      subdisks: plex.subdisks,
      async step(offset, maxBytes, job) {
        const result = await checkStep(plex, offset, maxBytes, { repair })
        for (const at of result.mismatches) set.noteMismatch(plex, at, repair)
        job.mismatches += result.mismatches.length
        return result.offset
      },
    })
  }
  if (!target.volume) return undefined
  return checkPlan({
    ...setup,
    host: set,
    plexes: target.volume.plexes,
    repair,
    onMismatch: (mismatch) => set.noteMismatch(mismatch.plex, mismatch.offset, repair),
  })
}

/** What progress means beside the cursor in the job's own record. */
const PROGRESS: Partial<
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
const FINISH: Partial<
  Record<JobRecord['kind'], (model: VinumModel, record: JobRecord) => VinumModel>
> = {
  grow(model, record) {
    const plex = byUuid(model.plexes, record.targetUuid)
    const next = endJob(model, record.id, 'done')
    if (!plex) return next
    const grown = { ...plex, growth: undefined }
    const size = sizeOfPlex(grown, subdisksOf(next, plex.uuid))
    const plexes = replaceRecord(next.plexes, { ...grown, parityValidBytes: size })
    return derive(withVolumeSize({ ...next, plexes }, plex.volumeUuid))
  },
  move(model, record) {
    const subdisk = byUuid(model.subdisks, record.targetUuid)
    const next = endJob(model, record.id, 'done')
    if (!subdisk?.move) return next
    const moved = { ...subdisk, ...subdisk.move, move: undefined }
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

function withoutMove(model: VinumModel, subdiskUuid: string): VinumModel {
  const subdisk = byUuid(model.subdisks, subdiskUuid)
  if (!subdisk) return model
  return { ...model, subdisks: replaceRecord(model.subdisks, { ...subdisk, move: undefined }) }
}
