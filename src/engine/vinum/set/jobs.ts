/**
 * The jobs of a native set: from the records of the model to running jobs (geom/job.ts), and from their progress
 * and end back to the model. A job that the model names and that does not run is started; a resync after a crash
 * has no record, since the intent maps themselves say what it has to do. vinum-set.ts owns it.
 */
import { PlexusError } from '../../../base/errors.ts'
import { RESYNC_RETRY_MS } from '../../../base/limits.ts'
import type { Random } from '../../../base/random.ts'
import type { DoubtReport } from '../../../control/reports.ts'
import type { Job, JobPlan } from '../../geom/job.ts'
import { RegionValidity } from '../io/validity.ts'
import { finishWindow } from '../jobs/grow.ts'
import { resyncPlan } from '../jobs/mirror-jobs.ts'
import { endJob, jobsNeeded } from '../jobs/plans.ts'
import { type JobCommits, type JobSetup, outOfService } from '../jobs/setup.ts'
import { FINISH, type JobTarget, PLANS, PROGRESS, withoutMove } from '../jobs/table.ts'
import { isRedundant } from '../model/map-slots.ts'
import {
  byUuid,
  type JobRecord,
  plexesOf,
  type SubdiskRecord,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
} from '../model/model.ts'
import { resyncStep } from '../raid5/jobs.ts'
import { Raid5Plex } from '../raid5/plex-raid5.ts'
import type { Plex, Subdisk } from '../runtime.ts'
import { GrowthTurns, growthCommits } from './growth.ts'
import type { VinumSet } from './vinum-set.ts'
import type { RunningVolume } from './volume.ts'

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
  const isTracked = ({ uuid, plexUuid }: Pick<SubdiskRecord, 'uuid' | 'plexUuid'>): boolean => {
    if (unknown.has(uuid)) return false
    const volumeUuid = byUuid(model.plexes, plexUuid)?.volumeUuid
    return volumeUuid !== undefined && isRedundant(model, volumeUuid)
  }
  return jobsNeeded(model, undefined, { random, isTracked }).model
}

export class SetJobs {
  readonly growthTurns: GrowthTurns
  readonly #set: VinumSet
  readonly #running = new Map<string, Job>()
  /** What VinumSet.arrivals was when a failed job was last tried again. */
  #arrivalsTried = 0
  /** Volumes whose resync is due, and when. */
  readonly #resyncs = new Map<RunningVolume, number>()
  /** Plexes that are out of service because of parity in doubt, until the sync that fills them begins. */
  readonly #left = new Set<string>()
  /** Plexes whose sync was given up: a resync does not begin it again. */
  readonly #givenUp = new Set<string>()

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
      if (truthLeaves && map && !map.isSynced) throw inDoubt(record.name)
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
    await finishWindow({ host: this.#set, plex, ...growthCommits(this.#set, plex) })
  }

  #run(plan: JobPlan): void {
    const job = this.#set.topology.jobs.start(plan)
    this.#running.set(plan.id, job)
    void job.ended.then(() => this.#running.delete(plan.id))
  }

  #startRecord(record: JobRecord): void {
    const plan = this.#planOf(record)
    if (plan) {
      if (record.kind === 'sync') {
        this.#left.delete(record.targetUuid)
        this.#givenUp.delete(record.targetUuid)
      }
      this.#run(plan)
    } else {
      // What it was to fill is gone or out of service: as a job that has failed.
      this.#abandon(record, 'failed').catch((error: unknown) => {
        this.#set.log.error({ err: error, job: record.id }, 'a job could not be given up')
      })
    }
  }

  #target(record: JobRecord): JobTarget | undefined {
    const { objects, model } = this.#set
    const volume = objects.volumes.get(record.targetUuid)
    if (volume) {
      return { name: volume.name, volume, totalBytes: volume.record.sizeBytes }
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

  #setup(record: JobRecord, target: JobTarget): JobSetup {
    return {
      record,
      object: target.name,
      volume: target.volume?.name,
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
    if (this.#hasLeftOut(record)) await this.#markUnfilled(record)
    await this.#set.commit((model) => {
      const change = FINISH[record.kind]
      return change ? change(model, record) : endJob(model, record.id, 'done')
    })
    if (record.kind === 'grow') this.#reshapeSoon()
    // A growth has waited for its column, a subdisk that came back meanwhile for its end.
    const subdisks = subdisksOf(this.#set.model, record.targetUuid)
    const isWhole = subdisks.every(({ state }) => state === 'up')
    if (record.kind === 'rebuild' || !isWhole) {
      this.#startNeededSoon(`what follows on ${record.id}`)
    }
  }

  async #abandon(record: JobRecord, outcome: 'failed' | 'cancelled'): Promise<void> {
    if (record.scope === 'all') await this.#markUnfilled(record)
    await this.#set.commit((model) => {
      const next = endJob(model, record.id, outcome)
      return record.kind === 'move' ? withoutMove(next, record.targetUuid) : next
    })
    if (record.kind === 'sync') this.#givenUp.add(record.targetUuid)
    if (outcome === 'failed') this.#retryLater(record)
    this.#fillLeft(record)
  }

  /** Its plex has left meanwhile (leaveInDoubt), and no sync of it could begin before the job had ended. */
  #fillLeft({ targetUuid, id }: JobRecord): void {
    if (this.#left.has(targetUuid)) this.#startNeededSoon(`what follows on ${id}`)
  }

  /** A growth has ended: the new size becomes known as soon as the graph may change. */
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
    return target && PLANS[record.kind](this.#set, this.#setup(record, target), target)
  }

  /** What of a volume is in doubt: see {@link DoubtReport}. */
  doubtOf(volumeUuid: string): DoubtReport | undefined {
    const volume = this.#set.objects.volumes.get(volumeUuid)
    const bytes = volume?.map?.unsyncedBytes ?? 0
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

  /**
   * Makes the parity in a range right from the data. Where a column is missing that cannot be done: then a plex whose
   * content another one has leaves, to get what is in doubt from there. Any other one keeps what parity says.
   */
  async #fixParity(plex: Plex, offset: number, length: number): Promise<void> {
    if (!(plex instanceof Raid5Plex)) return
    const until = Math.min(offset + length, plex.sizeBytes)
    for (let at = offset; at < until; ) {
      const awaited = awaitedColumn(plex)
      if (awaited) throw outOfService(awaited, 'resync')
      const end = Math.min(until, plex.layoutEnd(at))
      const rowEnd = Math.min(end, plex.pieceEnd(at))
      if (isComplete(plex, at)) at = await resyncStep(plex, at, end - at)
      else if (plex.isRowKnown(at)) at = await resyncStep(plex, at, rowEnd - at)
      else if (await this.leaveInDoubt(plex, at)) return
      else if (plex.isSureElsewhere() && plex.hasNothing(at)) {
        // Another one gives it whole rows and their parity, also where it was a write that it has left for.
        if (!this.#isFilling(plex)) this.#fillSoon(plex)
        at = rowEnd
      } else if (plex.isSureElsewhere()) throw doubtError(plex.record.name, at)
      else {
        // The column is computed from it when it is back, and agrees with it then.
        plex.doubt?.markValid(at, rowEnd - at)
        at = rowEnd
      }
    }
  }

  /**
   * Takes a plex out of service that lacks a column and cannot rely on its parity at a byte, where another plex has all,
   * and has it filled from there. False: it stays.
   */
  async leaveInDoubt(plex: Raid5Plex, offset: number): Promise<boolean> {
    if (!mayLeave(plex)) return false
    await this.#set.demote(plex.subdisks, doubtError(plex.record.name, offset))
    this.#fillSoon(plex)
    return true
  }

  #fillSoon({ record: { uuid, name } }: Plex): void {
    this.#left.add(uuid)
    // A job on it needs columns that are out of service: it fails, and has to be gone first (#fillLeft).
    const isBusy = this.#set.model.jobs.some(({ targetUuid }) => targetUuid === uuid)
    if (!isBusy) this.#startNeededSoon(`the sync of ${name}`)
  }

  /** Has somebody seen to the sync of a plex that is out of service? */
  #isFilling({ record: { uuid }, subdisks }: Plex): boolean {
    if (this.#left.has(uuid) || this.#givenUp.has(uuid)) return true
    const { jobs } = this.#set.model
    const isSynced = jobs.some(({ kind, targetUuid }) => kind === 'sync' && targetUuid === uuid)
    return isSynced && subdisks.some(({ record }) => record.state === 'reviving')
  }

  /** After a crash: what may differ among the copies in service is made equal. */
  #startResync(volume: RunningVolume): void {
    const { map, record } = volume
    const id = resyncId(record)
    if (!map || map.isSynced || this.#running.has(id)) return
    if (volume.plexes.some(awaitedColumn)) return
    for (const plex of volume.plexes) {
      // With a column missing, what parity says is the best that there is, unless another plex has all. The prewrite
      // log will close this hole (spec/vinum.md, 8.1).
      if (!(plex instanceof Raid5Plex)) continue
      plex.doubt = new RegionValidity(map.unsynced)
      // By the operator's word, perhaps.
      if (plex.subdisks.every(({ record }) => record.state === 'up')) {
        this.#left.delete(plex.record.uuid)
      }
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
      object: volume.name,
      volume: volume.name,
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
    this.#run(
      resyncPlan({
        ...setup,
        host: this.#set,
        plexes: volume.plexes,
        nextUnsynced: (offset, mostBytes) => map.nextUnsynced(offset, mostBytes),
        fixParity: (plex, offset, length) => this.#fixParity(plex, offset, length),
        onEqual: (offset, length) => map.markSynced(offset, length),
      }),
    )
  }
}

function inDoubt(name: string): PlexusError {
  return new PlexusError('in-use', {
    op: 'remove',
    subject: name,
    message:
      `the copies of volume ${name} may differ in places, and its first copy is the one that counts: ` +
      `wait until they are equal (plexus wait ${name} --for resync), then repeat`,
  })
}

/** With the same columns: a resync must not go on with a layout that is no more (sim seed 300381). */
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

/** Does it serve although a column is missing, and has another plex all? A growth must go on where it is. */
function mayLeave(plex: Raid5Plex): boolean {
  const states = plex.subdisks.map(({ record }) => record.state)
  const serves = states.includes('up') && states.some((state) => state !== 'up')
  return serves && plex.record.growth === undefined && plex.isSureElsewhere()
}

function doubtError(name: string, offset: number): PlexusError {
  return new PlexusError('io', {
    op: 'resync',
    subject: name,
    message: `a crash left the parity of ${name} in doubt at byte ${offset}, and a column is missing: it is copied from another plex`,
  })
}

/**
 * A column of raid5 that comes back as it is, without a rebuild: only with it can the parity be made right that is in
 * doubt. A column that is stale is computed from that parity, right or wrong, and agrees with it then.
 */
function awaitedColumn(plex: Plex): Subdisk | undefined {
  if (!(plex instanceof Raid5Plex)) return undefined
  return plex.subdisks.find(({ record }) => record.state === 'down')
}

/** Are all columns up that hold the row at `offset`? Those that a growth is adding hold none above its cursor. */
function isComplete(plex: Raid5Plex, offset: number): boolean {
  return plex.columnsOf(plex.layoutAt(offset)).every(({ record }) => record.state === 'up')
}
