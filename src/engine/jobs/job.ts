/**
 * Long work of any class (sync, rebuild, grow, move): several jobs side by side, the rest in line, all of them
 * known by id. A class brings a plan (job-run.ts); the daemon makes one manager for all classes and parks
 * everything at its end.
 */
import { assert } from '../../base/assert.ts'
import type { Clock } from '../../base/clock.ts'
import { PlexusError } from '../../base/errors.ts'
import { JOBS_ENDED_SHOWN, JOBS_RUNNING } from '../../base/limits.ts'
import type { Logger } from '../../base/log.ts'
import type { EventLog } from '../geom/events.ts'
import type { JobPlan } from './job-plan.ts'
import { Job } from './job-run.ts'
import { TokenBucket } from './pace.ts'

export type { JobPlan } from './job-plan.ts'
export { Job } from './job-run.ts'

export class JobManager {
  readonly clock: Clock
  readonly log: Logger
  readonly events: EventLog
  /** The limit of all jobs together. */
  readonly bucket: TokenBucket
  readonly #active = new Map<string, Job>()
  /** Oldest first. */
  #endedJobs: Job[] = []
  /** Those at work, at most {@link JOBS_RUNNING}, and those in line. */
  readonly #slots = new Set<Job>()
  readonly #line = new Set<Job>()
  readonly #listeners = new Set<(job: Job) => void>()
  #stopped = false

  constructor({ clock, log, events }: Pick<JobManager, 'clock' | 'log' | 'events'>) {
    this.clock = clock
    this.log = log
    this.events = events
    this.bucket = new TokenBucket(clock, undefined)
  }

  /** Limit of all jobs together in bytes per second; undefined: none. */
  get limitBytesPerSecond(): number | undefined {
    return this.bucket.bytesPerSecond
  }

  set limitBytesPerSecond(value: number | undefined) {
    assert(value === undefined || value > 0, `a limit of ${value} B/s`)
    this.bucket.bytesPerSecond = value
    for (const job of this.#active.values()) job.wake()
  }

  /**
   * Starts a job, or goes on with one from its checkpoint. Throws `in-use` when one with that id is at work,
   * `aborted` after {@link JobManager.stop}.
   */
  start(plan: JobPlan): Job {
    if (this.#active.has(plan.id)) {
      throw new PlexusError('in-use', {
        op: 'start',
        subject: plan.id,
        message: `job ${plan.id} runs already; plexus status shows its progress`,
      })
    }
    if (this.#stopped) {
      throw new PlexusError('aborted', {
        op: 'start',
        subject: plan.id,
        message: `job ${plan.id} does not start: the daemon is stopping; it goes on after the restart`,
      })
    }
    const job = new Job(plan, this)
    this.#active.set(plan.id, job)
    this.#endedJobs = this.#endedJobs.filter(({ id }) => id !== plan.id)
    void job.run()
    this.changed(job)
    return job
  }

  /** A job that is at work or has ended lately. Throws `not-found` with the ids that there are. */
  get(id: string): Job {
    const job = this.list().find((one) => one.id === id)
    if (job) return job
    const ids = this.list().map((one) => one.id)
    throw new PlexusError('not-found', {
      op: 'find',
      subject: id,
      message: `there is no job "${id}"; ${ids.length === 0 ? 'no job runs' : `there are: ${ids.join(', ')}`}`,
    })
  }

  /** Running and paused ones in order of start, then the last {@link JOBS_ENDED_SHOWN} that ended, newest last. */
  list(): readonly Job[] {
    return [...this.#active.values(), ...this.#endedJobs]
  }

  /** Hears of each start, pause, resume, change of limit and end; returns the way to stop. */
  onChange(listener: (job: Job) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** For the end of the daemon: parks every job at a checkpoint; nothing is finished or abandoned. */
  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.all([...this.#active.values()].map((job) => job.park()))
  }

  // For the jobs.

  /** May it work now? Else it stands in line, is not overtaken, and is woken when it is its turn. */
  takeSlot(job: Job): boolean {
    if (this.#slots.has(job)) return true
    this.#line.add(job)
    const [first] = this.#line
    if (this.#slots.size >= JOBS_RUNNING || first !== job) return false
    this.#line.delete(job)
    this.#slots.add(job)
    this.#callNext()
    return true
  }

  giveSlot(job: Job): void {
    this.#line.delete(job)
    this.#slots.delete(job)
    this.#callNext()
  }

  changed(job: Job): void {
    for (const listener of [...this.#listeners]) listener(job)
  }

  /** It is no longer at work: ended or parked. */
  left(job: Job, parked: boolean): void {
    this.#active.delete(job.id)
    if (!parked) this.#endedJobs = [...this.#endedJobs, job].slice(-JOBS_ENDED_SHOWN)
  }

  #callNext(): void {
    const [first] = this.#line
    if (this.#slots.size < JOBS_RUNNING) first?.wake()
  }
}
