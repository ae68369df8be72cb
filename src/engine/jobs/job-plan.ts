/** What a class brings for a piece of long work. job-run.ts runs it. */
import type { JobKind } from '../../control/reports.ts'
import type { Job } from './job-run.ts'

/** What a class wants done. All offsets are in the address space of the target. */
export interface JobPlan {
  /** Short; the same after a restart. */
  readonly id: string
  readonly kind: JobKind
  /** Name of the object that it works on. */
  readonly object: string
  /** Name of the object above. */
  readonly parent: string | undefined
  readonly totalBytes: number
  /** Where the checkpoint says that it was; 0 for a new one. */
  readonly startBytes: number
  readonly paused?: boolean
  readonly limitBytesPerSecond?: number | undefined
  /** Found so far, by the checkpoint. */
  readonly mismatches?: number
  /** Bytes of a step at full speed: {@link JOB_STEP_BYTES} unless each step has a high price of its own. */
  readonly stepBytes?: number | undefined
  /** The same while the drives serve nobody else: what gains from longer steps has more. */
  readonly aloneBytes?: number | undefined
  /** Do the drives of this job serve anybody else at this moment? Asked between steps. */
  busy?(): boolean
  /**
   * Works on from `offset`, on at most maxBytes (or the smallest unit that it can do); resolves to where it got:
   * beyond `offset`, at most totalBytes. What it jumps over because nothing is to be done there, it tells to
   * {@link Job.skip}. Rejects with PlexusError to fail the job.
   */
  step(offset: number, maxBytes: number, job: Job): Promise<number>
  /** Makes the progress durable: everything below job.doneBytes must be on the drives first. */
  checkpoint(job: Job): Promise<void>
  /** After the last step: the durable end. */
  finish(job: Job): Promise<void>
  /** After a failure or a cancel: durable. */
  abandon(job: Job, outcome: 'failed' | 'cancelled'): Promise<void>
}
