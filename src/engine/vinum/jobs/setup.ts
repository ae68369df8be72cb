/**
 * What all jobs of vinum have in common: the plan around a step (jobs/job.ts), the order flush, then commit at each
 * checkpoint and at the end, and requests as promises: a job is no hot path.
 */
import type { ByteRange } from '../../../base/bytes.ts'
import { PlexusError } from '../../../base/errors.ts'
import type {
  AlignedBuffer,
  BufferPool,
  IoOp,
  IoRequest,
  Lease,
} from '../../../hal/block-device.ts'
import { requested } from '../../../hal/io.ts'
import type { Job, JobPlan } from '../../jobs/job.ts'
import { type CopyRange, callPlex } from '../io/first-copy.ts'
import type { JobRecord } from '../model/model.ts'
import type { Plex, Subdisk } from '../runtime.ts'

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
  readonly volume: string | undefined
  /** Size of the address space of the target. */
  readonly totalBytes: number
  readonly commits: JobCommits
}

export interface JobWork {
  /** Those whose drives the job writes: flushed before each commit, and asked whether they serve others. */
  readonly subdisks: readonly Subdisk[]
  /** Instead of flushing these drives, where the job writes elsewhere. */
  flush?(): Promise<void>
  step(offset: number, maxBytes: number, job: Job): Promise<number>
  /** Runs after the last flush, before the commit of the end. */
  beforeFinish?(): void
  /** Runs when the job has failed or was cancelled, before that is committed. */
  beforeAbandon?(): Promise<void> | void
  /** Bytes of a step where the usual ones would be too small (jobs/job-run.ts). */
  readonly stepBytes?: number
  /** The same while the drives serve nobody else. */
  readonly aloneBytes?: number
  /** Where it begins when not at the record's cursor. */
  readonly startBytes?: number
}

/** The plan of a job: `work` does the steps, `setup.commits` makes their progress durable. */
export function planOf(setup: JobSetup, work: JobWork): JobPlan {
  const { record, commits } = setup
  const limit = record.limitBytesPerSecond
  const flush = (): Promise<void> => (work.flush ? work.flush() : flushDrives(work.subdisks))
  return {
    id: record.id,
    kind: record.kind,
    object: setup.object,
    volume: setup.volume,
    totalBytes: setup.totalBytes,
    startBytes: Math.min(work.startBytes ?? record.cursorBytes, setup.totalBytes),
    paused: record.paused,
    ...(limit === undefined ? {} : { limitBytesPerSecond: limit }),
    mismatches: record.mismatches,
    ...(work.stepBytes === undefined ? {} : { stepBytes: work.stepBytes }),
    ...(work.aloneBytes === undefined ? {} : { aloneBytes: work.aloneBytes }),
    busy: () => work.subdisks.some(({ drive }) => (drive.consumer?.inFlight ?? 0) > 0),
    step: (offset, maxBytes, job) => work.step(offset, maxBytes, job),
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

/** A request of a job as a promise: `send` gets it once and sees to its completion. */
export function asPromise(
  op: IoOp,
  offset: number,
  data: AlignedBuffer | undefined,
  send: (request: IoRequest) => void,
): Promise<void> {
  return requested(op, { offset, length: data?.bytes.length ?? 0 }, data, { cause: 'sync' }, send)
}

/** Reads or writes all of `data` at `offset` of a subdisk. */
export function transfer(
  op: 'read' | 'write',
  subdisk: Subdisk,
  offset: number,
  data: AlignedBuffer,
): Promise<void> {
  return asPromise(op, offset, data, (request) =>
    subdisk.forward(request, offset, data.bytes.length, 0),
  )
}

/** All of `data` as a range of plex space, for a job. */
export function rangeOf(offset: number, data: AlignedBuffer): CopyRange {
  return { offset, length: data.bytes.length, data, dataOffset: 0, cause: 'sync' }
}

/** Reads or writes all of `data` at `offset` of a plex. */
export async function transferPlex(
  op: 'read' | 'write',
  plex: Plex,
  offset: number,
  data: AlignedBuffer,
): Promise<void> {
  const { error } = await callPlex(plex, op, rangeOf(offset, data))
  if (error) throw error
}

/**
 * Everything acknowledged on the drives of those subdisks that are in service is durable when it resolves. Each
 * drive once.
 */
export async function flushDrives(subdisks: readonly Subdisk[]): Promise<void> {
  const drives = new Set<unknown>()
  const flushed: Promise<void>[] = []
  for (const subdisk of subdisks) {
    if (drives.has(subdisk.drive) || !subdisk.writable) continue
    drives.add(subdisk.drive)
    flushed.push(asPromise('flush', 0, undefined, (request) => subdisk.forward(request, 0, 0, 0)))
  }
  await settled(flushed)
}

/** Waits for all of them, so that nothing is in flight in a buffer that is given back; then throws the first error. */
export async function settled(work: readonly Promise<void>[]): Promise<void> {
  for (const one of await Promise.allSettled(work)) if (one.status === 'rejected') throw one.reason
}

/**
 * Runs `use` with a buffer of `length` bytes from the pool, which waits in line for it, and gives it back. Once more,
 * with another buffer, when a disk that does not answer may have changed what was in it.
 */
export async function withLease<T>(
  pool: BufferPool,
  length: number,
  use: (lease: Lease) => Promise<T>,
): Promise<T> {
  for (;;) {
    const lease = await new Promise<Lease>((resolve) => {
      pool.leaseSoon(length, resolve)
    })
    try {
      const result = await use(lease)
      if (!pool.isKept(lease)) return result
    } catch (error) {
      if (!pool.isKept(lease)) throw error
    } finally {
      lease.release()
    }
  }
}

/**
 * Does [start, end) in slices, in order and as many at once as there are buffers: so one is written while the next
 * ones are read, and no drive waits for the other. A slice has a buffer to itself. After a failure none begins;
 * rejects with a failure when all have ended.
 */
export function inSlices(
  start: number,
  end: number,
  sliceBytes: number,
  buffers: readonly AlignedBuffer[],
  work: (at: number, length: number, buffer: AlignedBuffer) => Promise<void>,
): Promise<void> {
  let next = start
  const lane = async (buffer: AlignedBuffer): Promise<void> => {
    while (next < end) {
      const at = next
      next = Math.min(at + sliceBytes, end)
      try {
        await work(at, next - at, buffer)
      } catch (error) {
        next = end
        throw error
      }
    }
  }
  return settled(buffers.map(lane))
}

/** As many parts of `bytes` as the buffer has. */
export function partsOf(buffer: AlignedBuffer, bytes: number): readonly AlignedBuffer[] {
  const count = Math.floor(buffer.bytes.length / bytes)
  return Array.from({ length: count }, (_, index) => slice(buffer, index * bytes, bytes))
}

/** A part of a buffer. */
export function slice(buffer: AlignedBuffer, offset: number, length: number): AlignedBuffer {
  return {
    bytes: buffer.bytes.subarray(offset, offset + length),
    address: buffer.address + offset,
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
