/**
 * One piece of long work: what a class wants done ({@link JobPlan}) and the job that does it step by step, with
 * progress, rate limit, pause, cancel and checkpoints. Made by job.ts; time comes from the clock only.
 *
 * Foreground I/O goes first: a step is short and holds only its own window locked; a job with a limit makes its
 * steps smaller than {@link JOB_BURST_MS} of it; and while the drives serve others (`busy`), it rests after each
 * step as long as the step took, so that it takes at most half of the time. Only while they serve nobody else a
 * step may be longer (`aloneBytes`).
 */
import { assert } from '../../base/assert.ts'
import { operatingError, PlexusError } from '../../base/errors.ts'
import {
  JOB_BURST_MS,
  JOB_CHECKPOINT_MS,
  JOB_REST_MAX_MS,
  JOB_REST_MIN_MS,
  JOB_STEP_BYTES,
  JOB_STEP_MIN_BYTES,
} from '../../base/limits.ts'
import type { JobKind, JobReport, JobState } from '../../control/reports.ts'
import type { Severity } from '../geom/events.ts'
import type { JobManager } from './job.ts'
import type { JobPlan } from './job-plan.ts'
import { RateMeter, TokenBucket } from './pace.ts'

type Order = 'work' | 'cancel' | 'park'

interface Waiter {
  readonly resolve: () => void
  readonly reject: (error: PlexusError) => void
}

/** Per cent that are told, as mdadm's monitor does. */
const MILESTONES = [20, 40, 60, 80] as const

/** Kinds without which data has less protection than it should have: their failure is critical. */
const PROTECTING: ReadonlySet<JobKind> = new Set([
  'sync',
  'resync',
  'rebuild',
  'initialise',
  'grow',
])

export class Job {
  readonly id: string
  readonly plan: JobPlan
  /**
   * Resolves when it is at work no more: `done`, `failed`, `cancelled`; a job that was parked for a shutdown
   * resolves with the state that it will have when it goes on, `running` or `paused`.
   */
  readonly ended: Promise<JobState>
  /** What a check has found so far; its steps add to it. */
  mismatches: number
  #names: { readonly object: string; readonly parent: string | undefined }
  readonly #manager: JobManager
  readonly #bucket: TokenBucket
  readonly #meter: RateMeter
  #resolveEnded: (state: JobState) => void = () => {}
  #state: JobState
  #done: number
  #error: PlexusError | undefined
  #order: Order = 'work'
  #wantPaused: boolean
  /** Since when nothing was made durable. */
  #checkpointMs: number
  #told = 0
  #skipped = 0
  /** The drives served nobody else after the last step. */
  #alone = false
  #wake: (() => void) | undefined
  #pausing: Waiter[] = []

  /** Only {@link JobManager.start} makes one. */
  constructor(plan: JobPlan, manager: JobManager) {
    assert(
      plan.startBytes >= 0 && plan.startBytes <= plan.totalBytes,
      `job ${plan.id} starts at ${plan.startBytes}, within its ${plan.totalBytes} bytes`,
    )
    this.id = plan.id
    this.plan = plan
    this.#names = { object: plan.object, parent: plan.parent }
    this.mismatches = plan.mismatches ?? 0
    this.#manager = manager
    this.#bucket = new TokenBucket(manager.clock, plan.limitBytesPerSecond)
    this.#meter = new RateMeter(manager.clock, plan.startBytes)
    this.#done = plan.startBytes
    this.#wantPaused = plan.paused ?? false
    this.#state = this.#wantPaused ? 'paused' : 'running'
    this.#checkpointMs = manager.clock.nowMs()
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve
    })
  }

  get state(): JobState {
    return this.#state
  }

  /** What it works on has another name now. */
  setNames(object: string, parent: string | undefined): void {
    this.#names = { object, parent }
  }

  /** Everything below is done. */
  get doneBytes(): number {
    return this.#done
  }

  get limitBytesPerSecond(): number | undefined {
    return this.#bucket.bytesPerSecond
  }

  report(): JobReport {
    const { id, kind, totalBytes } = this.plan
    const { object, parent } = this.#names
    const rate = this.#state === 'running' ? this.#meter.bytesPerSecond(this.#done) : 0
    return {
      id,
      kind,
      object,
      parent,
      state: this.#state,
      doneBytes: this.#done,
      totalBytes,
      bytesPerSecond: Math.round(rate),
      etaSeconds: rate > 0 ? Math.ceil((totalBytes - this.#done) / rate) : undefined,
      limitBytesPerSecond: this.limitBytesPerSecond,
      error: this.#error?.message,
      mismatches: this.mismatches,
    }
  }

  /**
   * Rests after the step in hand. Resolves when that is durable: it is still paused after a restart. Rejects with
   * `invalid` when it has ended before, `aborted` when it was resumed meanwhile, and with what the checkpoint failed
   * with when it rests but not durably.
   */
  pause(): Promise<void> {
    if (this.#ended) return Promise.reject(this.#endedError('pause'))
    this.#wantPaused = true
    this.#wake?.()
    return new Promise((resolve, reject) => this.#pausing.push({ resolve, reject }))
  }

  /** Goes on. Durable with the next checkpoint, which follows the next step. Throws `invalid` when it has ended. */
  resume(): void {
    if (this.#ended) throw this.#endedError('resume')
    this.#wantPaused = false
    const message = `the ${this.#title} was resumed before it paused`
    const error = new PlexusError('aborted', { op: 'pause', subject: this.id, message })
    for (const { reject } of this.#pausing.splice(0)) reject(error)
    this.#wake?.()
  }

  /**
   * Gives up after the step in hand. Resolves when that is durable. Rejects with `invalid` when it has ended
   * before, with the reason when giving up failed.
   */
  async cancel(): Promise<void> {
    if (this.#ended) throw this.#endedError('cancel')
    if (this.#order === 'work') this.#order = 'cancel'
    this.#wake?.()
    const state = await this.ended
    if (state !== 'cancelled') throw this.#error ?? this.#endedError('cancel')
  }

  /**
   * For the end of the daemon, or of the geom below: stops after the step in hand at a checkpoint, neither
   * finished nor abandoned, and leaves the manager. A checkpoint that fails is logged: the job then goes on from an
   * older one.
   */
  async park(): Promise<void> {
    if (this.#ended) return
    if (this.#order === 'work') this.#order = 'park'
    this.#wake?.()
    await this.ended
  }

  /** Changes its own limit; undefined: none. At once; durable with the checkpoint after the next step. */
  setLimit(bytesPerSecond: number | undefined): void {
    assert(bytesPerSecond === undefined || bytesPerSecond > 0, `a limit of ${bytesPerSecond} B/s`)
    this.#bucket.bytesPerSecond = bytesPerSecond
    this.#checkpointMs = Number.NEGATIVE_INFINITY
    this.#wake?.()
    this.#manager.changed(this)
  }

  /** For the step: so many bytes of its way cost nothing, and count for no limit. */
  skip(bytes: number): void {
    this.#skipped += bytes
  }

  /** For the manager: it may be its turn, or the limit has changed. */
  wake = (): void => this.#wake?.()

  /**
   * The life of the job; the manager calls it once. Rejects only for an error of the program, which nobody
   * catches on purpose: the process ends and is started again.
   */
  async run(): Promise<void> {
    for (;;) {
      if (this.parking) return this.#leaveParked()
      if (this.#order === 'cancel') return this.#abandon('cancelled', undefined)
      if (this.#wantPaused) await this.#rest()
      else if (!this.#manager.takeSlot(this)) await this.#sleep(undefined)
      else if (this.#waitMs > 0) await this.#sleep(this.#waitMs)
      else if (this.#done < this.plan.totalBytes) {
        const failure = await this.#step()
        // What fails while everything shuts down says nothing: after the restart it is tried again.
        if (failure && this.parking) return this.#leaveParked()
        if (failure) return this.#abandon('failed', failure)
      } else return this.#finish()
    }
  }

  /** It is to stop at a checkpoint: a step that waits for better times ends with an error. */
  get parking(): boolean {
    return this.#order === 'park'
  }

  get #ended(): boolean {
    return this.#state !== 'running' && this.#state !== 'paused'
  }

  get #waitMs(): number {
    return Math.max(this.#bucket.waitMs, this.#manager.bucket.waitMs)
  }

  /** Does one step, a checkpoint when one is due, and rests when others want the drives. */
  async #step(): Promise<PlexusError | undefined> {
    const { plan } = this
    const { clock } = this.#manager
    const startedMs = clock.nowMs()
    const from = this.#done
    const maxBytes = this.#stepBytes()
    this.#tellProgress()
    try {
      const reached = await plan.step(from, maxBytes, this)
      assert(
        reached > from && reached <= plan.totalBytes,
        `a step of job ${this.id} from ${from} gets on, within ${plan.totalBytes} bytes: ${reached}`,
      )
      this.#done = reached
    } catch (error) {
      return operatingError(error)
    }
    const worked = Math.max(0, this.#done - from - this.#skipped)
    this.#skipped = 0
    this.#bucket.take(worked)
    this.#manager.bucket.take(worked)
    this.#meter.note(this.#done)
    const nowMs = clock.nowMs()
    if (nowMs - this.#checkpointMs >= JOB_CHECKPOINT_MS) await this.#checkpoint()
    this.#alone = !(plan.busy?.() ?? false)
    if (this.#order === 'work' && !this.#wantPaused && !this.#alone) {
      const restMs = Math.min(Math.max(nowMs - startedMs, JOB_REST_MIN_MS), JOB_REST_MAX_MS)
      await this.#sleep(restMs)
    }
    return undefined
  }

  #stepBytes(): number {
    const limits = [this.#bucket.bytesPerSecond, this.#manager.bucket.bytesPerSecond]
    const slowest = Math.min(...limits.map((limit) => limit ?? Number.POSITIVE_INFINITY))
    const fair = (slowest * JOB_BURST_MS) / 1000
    const { stepBytes, aloneBytes } = this.plan
    const most = (this.#alone ? aloneBytes : undefined) ?? stepBytes ?? JOB_STEP_BYTES
    return Math.max(1, Math.floor(Math.min(fair, most) / JOB_STEP_MIN_BYTES)) * JOB_STEP_MIN_BYTES
  }

  /** A failed one is no failure of the job: it is tried again later, and a restart begins from the last good one. */
  async #checkpoint(): Promise<PlexusError | undefined> {
    this.#checkpointMs = this.#manager.clock.nowMs()
    try {
      await this.plan.checkpoint(this)
      return undefined
    } catch (error) {
      const failure = operatingError(error)
      this.#manager.log.warn(
        { err: failure, job: this.id, event: 'job-checkpoint-failed' },
        `${this.#title} could not save its progress; after a restart it goes on from an older checkpoint`,
      )
      return failure
    }
  }

  /** Paused: makes that durable where somebody has asked for it, and sleeps until something else is wanted. */
  async #rest(): Promise<void> {
    this.#manager.giveSlot(this)
    const before = this.#state
    this.#state = 'paused'
    const waiters = this.#pausing.splice(0)
    if (waiters.length > 0) {
      const failure = await this.#checkpoint()
      for (const { resolve, reject } of waiters) {
        if (failure) reject(failure)
        else resolve()
      }
    }
    if (before !== 'paused') this.#manager.changed(this)
    while (this.#wantPaused && this.#pausing.length === 0 && this.#order === 'work') {
      await this.#sleep(undefined)
    }
    if (this.#wantPaused) return
    this.#state = 'running'
    this.#meter.restart(this.#done)
    this.#checkpointMs = Number.NEGATIVE_INFINITY
    this.#manager.changed(this)
  }

  /** Until the time is over or somebody wakes it. */
  async #sleep(ms: number | undefined): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = ms === undefined ? undefined : this.#manager.clock.after(ms, resolve)
      this.#wake = () => {
        timer?.cancel()
        resolve()
      }
    })
    this.#wake = undefined
  }

  async #finish(): Promise<void> {
    try {
      await this.plan.finish(this)
    } catch (error) {
      return this.#abandon('failed', operatingError(error))
    }
    const found = this.mismatches > 0
    const text = found ? `finished; it found ${this.mismatches} mismatches` : 'finished'
    this.#emit(found ? 'warning' : 'info', 'finished', text)
    this.#leave('done')
  }

  async #abandon(outcome: 'failed' | 'cancelled', reason: PlexusError | undefined): Promise<void> {
    this.#error = reason
    let state: 'failed' | 'cancelled' = outcome
    try {
      await this.plan.abandon(this, outcome)
    } catch (error) {
      const failure = operatingError(error)
      state = 'failed'
      this.#error ??= failure
      this.#manager.log.error(
        { err: failure, job: this.id, event: 'job-abandon-failed' },
        `${this.#title} could not be given up durably; after a restart it goes on`,
      )
    }
    if (state === 'cancelled') this.#emit('warning', 'cancelled', 'was cancelled')
    else {
      const severity = PROTECTING.has(this.plan.kind) ? 'critical' : 'warning'
      this.#emit(severity, 'failed', `failed: ${this.#error?.message}`)
    }
    this.#leave(state)
  }

  async #leaveParked(): Promise<void> {
    await this.#checkpoint()
    this.#leave(this.#wantPaused ? 'paused' : 'running')
  }

  #leave(state: JobState): void {
    this.#state = state
    this.#manager.giveSlot(this)
    this.#manager.left(this, !this.#ended)
    this.#resolveEnded(state)
    for (const { reject } of this.#pausing.splice(0)) reject(this.#endedError('pause'))
    this.#manager.changed(this)
  }

  #tellProgress(): void {
    const percent = Math.floor((this.#done / this.plan.totalBytes) * 100)
    const reached = MILESTONES.findLast((one) => one <= percent) ?? 0
    if (this.#told === 0) {
      this.#told = Math.max(1, reached)
      const text = this.plan.startBytes > 0 ? `goes on at ${percent} %` : 'started'
      this.#emit('info', 'started', text)
    } else if (reached > this.#told) {
      this.#told = reached
      this.#emit('info', String(reached), `is at ${percent} %`)
    }
  }

  get #title(): string {
    return `${this.plan.kind} of ${this.#names.object} (${this.id})`
  }

  #emit(severity: Severity, what: string, text: string): void {
    const { kind, object } = this.plan
    this.#manager.events.emit(severity, `${kind}-${what}`, object, `${this.#title} ${text}`)
  }

  #endedError(op: string): PlexusError {
    const message = `cannot ${op} the ${this.#title}: it is at work no more (${this.#state})`
    return new PlexusError('invalid', { op, subject: this.id, message })
  }
}
