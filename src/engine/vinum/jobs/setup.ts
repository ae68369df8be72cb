/**
 * What all jobs of vinum have in common: the plan around a step (jobs/job.ts), and the order flush, then commit at each
 * checkpoint and at the end.
 */
import type { ByteRange } from '../../../base/bytes.ts'
import { PlexusError } from '../../../base/errors.ts'
import type { Job, JobPlan } from '../../jobs/job.ts'
import { flushDrives } from '../io/transfers.ts'
import type { JobRecord } from '../model/model.ts'
import type { Subdisk } from '../runtime.ts'

/** What the set does for a job: transactions on the configuration, each durable when it resolves. */
export interface JobCommits {
  /** Saves job.doneBytes, job.state, job.limitBytesPerSecond and job.mismatches in the job's record. */
  checkpoint(job: Job): Promise<void>
  /** Removes the job's record and lets the result count: subdisks up, the new place, the new size. */
  finish(job: Job): Promise<void>
  /** Removes the job's record; subdisks that it was filling are stale again. */
  abandon(job: Job, outcome: 'failed' | 'cancelled'): Promise<void>
}

export interface JobSetup {
  readonly record: JobRecord
  /** Names, for people. */
  readonly object: string
  readonly parent: string | undefined
  /** Size of the address space of the target. */
  readonly totalBytes: number
  readonly commits: JobCommits
}

interface JobWork extends Pick<JobPlan, 'step' | 'stepBytes' | 'aloneBytes'> {
  /** Those whose drives the job writes: flushed before each commit, and asked whether they serve others. */
  readonly subdisks: readonly Subdisk[]
  /** Instead of flushing these drives, where the job writes elsewhere. */
  flush?(): Promise<void>
  /** Runs after the last flush, before the commit of the end. */
  beforeFinish?(): void
  /** Runs when the job has failed or was cancelled, before that is committed. */
  beforeAbandon?(): Promise<void>
  /** Where it begins when not at the record's cursor. */
  readonly startBytes?: number
}

/** The plan of a job: `work` does the steps, `setup.commits` makes their progress durable. */
export function planOf(setup: JobSetup, work: JobWork): JobPlan {
  const { record, commits, object, parent, totalBytes } = setup
  const { id, kind, paused, limitBytesPerSecond, mismatches } = record
  const { subdisks, startBytes = record.cursorBytes, stepBytes, aloneBytes, step } = work
  const flush = (): Promise<void> => (work.flush ? work.flush() : flushDrives(subdisks))
  return {
    id,
    kind,
    object,
    parent,
    totalBytes,
    startBytes: Math.min(startBytes, totalBytes),
    paused,
    limitBytesPerSecond,
    mismatches,
    stepBytes,
    aloneBytes,
    step,
    busy: () => subdisks.some(({ drive }) => (drive.consumer?.inFlight ?? 0) > 0),
    async checkpoint(job) {
      await flush()
      await commits.checkpoint(job)
    },
    async finish(job) {
      await flush()
      work.beforeFinish?.()
      await commits.finish(job)
    },
    async abandon(job, outcome) {
      await work.beforeAbandon?.()
      await commits.abandon(job, outcome)
    },
  }
}

/**
 * The steps of a job over ranges that are left. `next` finds the first one at or behind an offset, up to so many bytes
 * of it; `work` does it, and resolves to where it has come. What lies between counts as skipped.
 */
export function overRanges(
  totalBytes: number,
  next: (from: number, mostBytes: number) => ByteRange | undefined,
  work: (range: ByteRange, job: Job) => Promise<number>,
): Pick<JobWork, 'startBytes' | 'step'> {
  const firstFrom = (from: number): number => next(from, 1)?.offset ?? totalBytes
  return {
    startBytes: firstFrom(0),
    async step(from, maxBytes, job) {
      const range = next(from, maxBytes)
      if (!range) return totalBytes
      const reached = await work(range, job)
      const following = firstFrom(reached)
      job.skip(following - from - (reached - range.offset))
      return following
    },
  }
}

/** What a job fails with when a subdisk that it works on is out of service meanwhile. */
export function outOfService(subdisk: Subdisk, doing: string): PlexusError {
  const { name, state } = subdisk.record
  const isBack = subdisk.writable && state === 'up'
  const what = isBack
    ? 'was away for a while'
    : subdisk.drive.consumer
      ? `is ${state} now`
      : 'has lost its drive'
  return new PlexusError('io', {
    op: doing,
    subject: name,
    message: `${doing}: subdisk ${name} ${what}; see plexus events, then start it again`,
  })
}
