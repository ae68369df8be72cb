/**
 * The jobs of a native set: from the records of the model to running jobs (jobs/job.ts), and from their progress
 * and end back to the model. A job that the model names and that does not run is started; a resync after a crash
 * has no record, since the intent maps themselves say what it has to do. vinum-set.ts owns it.
 */
import { PlexusError, Refusals } from '../../../base/errors.ts'
import { RESYNC_RETRY_MS } from '../../../base/limits.ts'
import type { Random } from '../../../base/random.ts'
import type { Job, JobPlan } from '../../jobs/job.ts'
import type { Doubt } from '../advice.ts'
import { isPresent } from '../io/subdisk.ts'
import { finishWindow } from '../jobs/grow.ts'
import { GrowthTurns, growthCommits } from '../jobs/growth-turns.ts'
import { endJob, jobsNeeded } from '../jobs/plans.ts'
import type { JobCommits, JobSetup } from '../jobs/setup.ts'
import { FINISH, PLANS, PROGRESS, resyncOf, withMismatches, withoutMove } from '../jobs/table.ts'
import { isRedundant } from '../model/map-slots.ts'
import {
  type JobRecord,
  plexesOf,
  type SubdiskRecord,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
  volumeAbove,
} from '../model/model.ts'
import { withBroken } from '../model/spares.ts'
import type { Drive, Plex } from '../runtime.ts'
import type { VinumSet } from './vinum-set.ts'
import type { RunningVolume } from './volume.ts'

const refuse = new Refusals('remove')

/**
 * Adds the jobs that bring every volume up to date. What a subdisk missed is in the volume's intent map: whoever
 * makes a copy that the map knows nothing of has marked all of it. `unknown`: subdisks, by UUID, that are filled as a
 * whole.
 */
export function startNeededJobs(
  model: VinumModel,
  random: Random,
  unknown: ReadonlySet<string> = new Set(),
): VinumModel {
  const isTracked = (subdisk: Pick<SubdiskRecord, 'uuid' | 'plexUuid'>): boolean => {
    const volume = volumeAbove(model, subdisk)
    return !unknown.has(subdisk.uuid) && volume !== undefined && isRedundant(model, volume.uuid)
  }
  return jobsNeeded(model, undefined, { random, isTracked }).model
}

/** What a job works on, found among the running objects. */
interface JobTarget {
  readonly name: string
  readonly volume: RunningVolume | undefined
  readonly totalBytes: number
}

export class SetJobs {
  readonly growthTurns: GrowthTurns
  readonly #set: VinumSet
  readonly #running = new Map<string, Job>()
  /** What VinumSet.arrivals was when a failed job was last tried again. */
  #arrivalsTried = 0
  /** Volumes whose resync is due, and when. */
  readonly #resyncs = new Map<RunningVolume, number>()
  /** Drives with which jobs had trouble, until they end: by what they work on, then by drive. */
  readonly #troubles = new Map<string, Map<string, PlexusError>>()

  constructor(set: VinumSet) {
    this.#set = set
    this.growthTurns = new GrowthTurns(set)
  }

  /** Starts every job of the model that does not run, and the resyncs that the maps ask for. */
  start(model: VinumModel): void {
    for (const record of model.jobs) {
      const job = this.#running.get(record.id)
      const target = job && this.#target(record)
      if (!job) this.#startRecord(record)
      else if (target) job.setNames(target.name, target.volume?.name)
    }
    for (const volume of this.#set.objects.volumes.values()) this.#startResync(volume)
  }

  /**
   * Before a commit that takes objects away or changes plexes: jobs that the new model does not know, and resyncs
   * of volumes whose plexes change, end where they are. Nothing of theirs is in flight when it resolves: the
   * space that they work on may become somebody else's. `start` goes on with what is still to be done.
   */
  async endBefore(next: VinumModel): Promise<void> {
    const known = new Set(next.jobs.map(({ id }) => id))
    for (const { plexes, record, map } of this.#set.objects.volumes.values()) {
      const after = plexesOf(next, record.uuid)
      // Where copies may differ the first one is the truth: another one must not take its place unseen.
      const truthLeaves = after.length > 0 && after[0]?.uuid !== plexes[0]?.record.uuid
      if (truthLeaves && map && !map.unsynced.isEmpty)
        throw refuse.inUse`the copies of volume ${record.name} may differ in places, and its first copy is the one that counts: wait until they are equal (plexus wait ${record.name} --for resync), then repeat`
      const isSame =
        after.length === plexes.length &&
        after.every(({ uuid }, index) => isSamePlex(next, uuid, plexes[index]))
      if (isSame) known.add(resyncId(record))
      // A check of copies must not go on with one that is a copy no more: it would repair from old content.
      else
        for (const { id, targetUuid } of next.jobs) if (targetUuid === record.uuid) known.delete(id)
    }
    const ending = [...this.#running].filter(([id]) => !known.has(id))
    await Promise.all(ending.map(([, job]) => job.park()))
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
    await finishWindow({ host: this.#set.host, plex, ...growthCommits(this.#set, plex) })
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
      this.#abandon(record, 'failed', record.mismatches).catch((error: unknown) => {
        this.#set.log.error({ err: error, job: record.id }, 'a job could not be given up')
      })
    }
  }

  #target(record: JobRecord): JobTarget | undefined {
    const { objects } = this.#set
    const volume = objects.volumes.get(record.targetUuid)
    if (volume) {
      return { name: volume.name, volume, totalBytes: volume.record.sizeBytes }
    }
    const plex = objects.plexes.get(record.targetUuid)
    const subdisk = objects.subdisks.get(record.targetUuid)
    const above = objects.volumeAbove(plex?.record.uuid ?? subdisk?.record.plexUuid)
    if (plex) return { name: plex.record.name, volume: above, totalBytes: plex.sizeBytes }
    if (!subdisk) return undefined
    const { name, sizeBytes } = subdisk.record
    return { name, volume: above, totalBytes: sizeBytes }
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

  async #finish(record: JobRecord, count: number): Promise<void> {
    if (this.#hasLeftOut(record)) await this.#markUnfilled(record)
    const time = this.#set.topology.events.time
    await this.#set.commit((model) => {
      const change = FINISH[record.kind]
      const next = change ? change(model, record) : endJob(model, record.id, 'done')
      return withMismatches(this.#breakSpares(next, record), record, 'done', { count, time })
    })
    this.#troubles.delete(record.targetUuid)
    if (record.kind === 'grow') this.#reshapeSoon()
    // A growth has waited for its column, a subdisk that came back meanwhile for its end.
    const subdisks = subdisksOf(this.#set.model, record.targetUuid)
    const isWhole = subdisks.every(({ state }) => state === 'up')
    if (record.kind === 'rebuild' || !isWhole) {
      this.#startNeededSoon(`what follows on ${record.id}`)
    }
  }

  async #abandon(record: JobRecord, outcome: 'failed' | 'cancelled', count: number): Promise<void> {
    const time = this.#set.topology.events.time
    this.#blameFilled(record)
    if (record.scope === 'all') await this.#markUnfilled(record)
    await this.#set.commit((model) => {
      const ended = this.#breakSpares(endJob(model, record.id, outcome), record)
      const next = withMismatches(ended, record, outcome, { count, time })
      return record.kind === 'move' ? withoutMove(next, record.targetUuid) : next
    })
    this.#troubles.delete(record.targetUuid)
    if (outcome === 'failed') this.#retryLater(record)
  }

  /** A job could not read a drive at first, or not write it. That a disk is gone tells nothing of the disk. */
  noteTrouble(targetUuid: string, { record }: Drive, error: PlexusError): void {
    if (error.kind === 'gone' || error.kind === 'aborted') return
    const known = this.#troubles.get(targetUuid) ?? new Map<string, PlexusError>()
    this.#troubles.set(targetUuid, known.set(record.uuid, error))
  }

  /** A job that fills has ended early: was it because what it fills could not be written? */
  #blameFilled({ kind, targetUuid }: JobRecord): void {
    if (kind !== 'sync' && kind !== 'rebuild') return
    const message = 'it could not be written while it was filled'
    for (const { uuid } of subdisksOf(this.#set.model, targetUuid)) {
      const { drive, errors } = this.#set.objects.subdisks.get(uuid) ?? {}
      if (!drive || !errors || errors.write === 0 || !isPresent(drive)) continue
      const error = new PlexusError('io', { op: 'write', subject: drive.record.name, message })
      this.noteTrouble(targetUuid, drive, error)
    }
  }

  /** The spares that a job had trouble with are broken from its end on. */
  #breakSpares(model: VinumModel, { targetUuid }: JobRecord): VinumModel {
    let next = model
    for (const [driveUuid, { message }] of this.#troubles.get(targetUuid) ?? []) {
      next = withBroken(next, driveUuid, message)
    }
    return next
  }

  #reshapeSoon(): void {
    const set = this.#set
    set.soon('the end of a growth', async () => {
      await set.objects.reshape()
      await set.topology.tastePending()
    })
  }

  /** A job may have failed because a drive left: when one has come back meanwhile, it is tried again. */
  #retryLater(record: JobRecord): void {
    const set = this.#set
    if (set.arrivals === this.#arrivalsTried) return
    this.#arrivalsTried = set.arrivals
    this.#startNeededSoon(`the second attempt of ${record.id}`)
  }

  #startNeededSoon(why: string): void {
    const set = this.#set
    set.soon(why, async () => {
      await set.commit((model) => startNeededJobs(model, set.topology.random))
      this.start(set.model)
    })
  }

  /** Has a full copy gone on, after a restart, without a subdisk that it was to fill, and that no mark tells of? */
  #hasLeftOut({ kind, scope, targetUuid }: JobRecord): boolean {
    if (kind !== 'sync' || scope !== 'all') return false
    const states = subdisksOf(this.#set.model, targetUuid).map(({ state }) => state)
    return states.some((state) => state === 'stale' || state === 'down')
  }

  /** A full copy that ends early has left content that no mark tells of: all of it is marked. */
  async #markUnfilled(record: JobRecord): Promise<void> {
    if (record.kind !== 'sync' && record.kind !== 'rebuild') return
    const map = this.#target(record)?.volume?.map
    await map?.mark(0, map.sizeBytes)
  }

  #planOf(record: JobRecord): JobPlan | undefined {
    const target = this.#target(record)
    if (!target) return undefined
    const { name: object, volume, totalBytes } = target
    const commits: JobCommits = {
      checkpoint: (job) => this.#checkpoint(record, job),
      finish: (job) => this.#finish(record, job.mismatches),
      abandon: (job, outcome) => this.#abandon(record, outcome, job.mismatches),
    }
    const setup = { record, object, parent: volume?.name, totalBytes, commits }
    return PLANS[record.kind](this.#set, setup, volume)
  }

  /** What of a volume is in doubt: see {@link Doubt}. */
  doubtOf(volumeUuid: string): Doubt | undefined {
    const volume = this.#set.objects.volumes.get(volumeUuid)
    const bytes = volume?.map?.unsynced.bytes ?? 0
    if (!volume || bytes === 0) return undefined
    const dueMs = this.#resyncs.get(volume)
    const leftMs = dueMs === undefined ? undefined : Math.max(0, dueMs - this.#set.clock.nowMs())
    return { bytes, retrySeconds: leftMs === undefined ? undefined : Math.ceil(leftMs / 1000) }
  }

  /** Copies came to differ while they serve, or could not be made equal: that is tried again after a while. */
  resyncLater(volume: RunningVolume): void {
    if (this.#resyncs.has(volume)) return
    this.#resyncs.set(volume, this.#set.clock.nowMs() + RESYNC_RETRY_MS)
    this.#set.clock.after(RESYNC_RETRY_MS, () => {
      this.#resyncs.delete(volume)
      this.#set.soon(`the resync of ${volume.name}`, async () => {
        if (this.#set.objects.volumes.get(volume.record.uuid) === volume) this.#startResync(volume)
      })
    })
  }

  /** After a crash: what may differ among the copies in service is made equal. */
  #startResync(volume: RunningVolume): void {
    const { map, record } = volume
    const id = resyncId(record)
    if (!map || map.unsynced.isEmpty || this.#running.has(id)) return
    // A copy or column that comes back as it is: only with it copies can be made equal, and parity right.
    if (volume.subdisks.some(({ record }) => record.state === 'down')) return
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
      object: volume.name,
      parent: volume.name,
      totalBytes: map.sizeBytes,
      // The map is its record.
      commits: {
        checkpoint: async () => {},
        finish: async () => {},
        abandon: async (_job, outcome) => {
          if (outcome === 'failed') this.resyncLater(volume)
        },
      },
    }
    this.#run(resyncOf(setup, volume, map))
  }
}

/** With the same columns: a resync must not go on with a layout that is no more. */
function isSamePlex(next: VinumModel, uuid: string, plex: Plex | undefined): boolean {
  const columns = subdisksOf(next, uuid)
  return (
    plex?.record.uuid === uuid &&
    columns.length === plex.subdisks.length &&
    columns.every((one, index) => one.uuid === plex.subdisks[index]?.record.uuid)
  )
}

/** Resyncs have no record whose id is unique in the set. */
function resyncId({ uuid }: VolumeRecord): string {
  return `resync-${uuid.slice(0, 8)}`
}
