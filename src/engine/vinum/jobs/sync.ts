/**
 * Sync: subdisks that came back or are new get their content from the other plexes of the volume (docs/vinum.md,
 * 5.3 and 9). It works window by window: writes are kept off the window alone, reads go on, and nothing waits for
 * the whole job (8.14). Of concat and striped plexes: raid5 has no other copy.
 *
 * A window is valid only when it was read and written without error: a failed copy never counts (8.6).
 */
import type { ByteRange } from '../../../base/bytes.ts'
import { JOB_SLICE_BYTES, JOB_SLICES, JOB_STEP_ALONE_BYTES } from '../../../base/limits.ts'
import { RangeSet } from '../../../base/range-set.ts'
import type { AlignedBuffer } from '../../../hal/block-device.ts'
import type { JobPlan } from '../../jobs/job.ts'
import { inSlices, partsOf, slice, withLease } from '../../jobs/slices.ts'
import { transferPlex } from '../io/transfers.ts'
import { RegionValidity } from '../io/validity.ts'
import type { JobRecord } from '../model/model.ts'
import type { Plex, Subdisk, VinumHost } from '../runtime.ts'
import { type JobSetup, outOfService, overRanges, planOf } from './setup.ts'

/**
 * Fills `into` with the volume's content at `offset`. Who makes it leaves out the plexes that must not be read, and
 * tries the others one after the other; it rejects when none can be read.
 */
export type ReadRange = (offset: number, into: AlignedBuffer) => Promise<void>

export interface SyncOptions extends JobSetup {
  readonly host: VinumHost
  /** The plex that gets content. */
  readonly plex: Plex
  /** Those of its subdisks that are reviving. */
  readonly subdisks: readonly Subdisk[]
  /** What they lack, in plex space, in order: {@link missingRanges}. */
  readonly missing: readonly ByteRange[]
  /** From the other plexes. */
  readonly read: ReadRange
}

/**
 * What a sync has to copy. `dirty`: the regions that the volume's intent map names now. A full copy goes on at its
 * cursor, but writes that were under way when the last run ended may have reached one plex alone: the map names
 * them. Order: ascending, disjoint, cut to the plex.
 */
export function missingRanges(
  record: JobRecord,
  sizeBytes: number,
  dirty: Iterable<ByteRange>,
): readonly ByteRange[] {
  const { scope, cursorBytes } = record
  const whole = { offset: cursorBytes, length: sizeBytes - cursorBytes }
  const cut = [...dirty, ...(scope === 'all' ? [whole] : [])].map(({ offset, length }) => ({
    offset,
    length: Math.min(length, sizeBytes - offset),
  }))
  return new RangeSet(cut).ranges
}

/**
 * The plan of a sync. From this call on the subdisks are valid outside `missing`, and writes go to them as to all
 * others; what they lack becomes valid window by window.
 */
export function syncPlan(options: SyncOptions): JobPlan {
  const { host, plex, subdisks, read, totalBytes } = options
  const validity = new RegionValidity(options.missing)
  for (const subdisk of subdisks) subdisk.validity = validity

  /** Copies [offset, offset + length), with writes kept off it. */
  const copy = async (offset: number, length: number): Promise<void> => {
    const release = await host.lock(plex, offset, length, 'writes')
    try {
      await copySlices(offset, length)
      checkInService(subdisks)
      validity.markValid(offset, length)
    } finally {
      release()
    }
  }

  const copySlices = (offset: number, length: number): Promise<void> => {
    const bytes = Math.min(JOB_SLICE_BYTES, length)
    const slices = Math.min(JOB_SLICES, Math.ceil(length / bytes))
    return withLease(host.pool, slices * bytes, (lease) =>
      inSlices(offset, offset + length, bytes, partsOf(lease, bytes), async (at, some, buffer) => {
        const data = slice(buffer, 0, some)
        await read(at, data)
        await transferPlex('write', plex, at, data)
      }),
    )
  }

  return planOf(options, {
    subdisks,
    aloneBytes: JOB_STEP_ALONE_BYTES,
    ...overRanges(
      totalBytes,
      (from, mostBytes) => validity.nextMissing(from, mostBytes),
      async ({ offset, length }, job) => {
        checkInService(subdisks)
        const end = offset + length
        let copied = 0
        for (const run of runsWithout(plex, offset, end)) {
          await copy(run.offset, run.end - run.offset)
          copied += run.end - run.offset
        }
        checkInService(subdisks)
        // What belongs to a good subdisk of the plex was jumped over: it needs no copy.
        validity.markValid(offset, length)
        job.skip(length - copied)
        return end
      },
    ),
    beforeFinish: () => checkInService(subdisks),
  })
}

/** Pieces of [start, end) that a linear plex does not hold, joined where they touch. */
function runsWithout(
  plex: Plex,
  start: number,
  end: number,
): readonly { readonly offset: number; readonly end: number }[] {
  const runs: { offset: number; end: number }[] = []
  for (let at = start; at < end; ) {
    const to = Math.min(plex.pieceEnd(at), end)
    const last = runs.at(-1)
    const lacking = !plex.readable(at, to - at) && plex.storable(at, to - at) === 'full'
    if (lacking && last?.end === at) last.end = to
    else if (lacking) runs.push({ offset: at, end: to })
    at = to
  }
  return runs
}

/** A subdisk that was taken out of service has missed writes: what was copied to it counts no more. */
function checkInService(subdisks: readonly Subdisk[]): void {
  for (const subdisk of subdisks) {
    if (subdisk.record.state !== 'reviving' || !subdisk.writable)
      throw outOfService(subdisk, 'sync')
  }
}
