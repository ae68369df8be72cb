/**
 * Sync: subdisks that came back or are new get their content from the other plexes of the volume (docs/vinum.md,
 * 5.3 and 9). It works window by window: writes are kept off the window alone, reads go on, and nothing waits for
 * the whole job (8.14). Of concat and striped plexes: raid5 has no other copy.
 *
 * A window is valid only when it was read and written without error: a failed copy never counts (8.6).
 */
import type { ByteRange } from '../../../base/bytes.ts'
import { JOB_STEP_ALONE_BYTES } from '../../../base/limits.ts'
import { RangeSet } from '../../../base/range-set.ts'
import type { AlignedBuffer } from '../../../hal/block-device.ts'
import type { JobPlan } from '../../jobs/job.ts'
import { inLeasedSlices, slice } from '../../jobs/slices.ts'
import { transferPlex } from '../io/transfers.ts'
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
  /** What they lack, in plex space: {@link missingRanges}. */
  readonly missing: RangeSet
  /** From the other plexes. */
  readonly read: ReadRange
}

/**
 * What a sync has to copy. `dirty`: the regions that the volume's intent map names now. A full copy goes on at its
 * cursor, but writes that were under way when the last run ended may have reached one plex alone: the map names
 * them. Cut to the plex.
 */
export function missingRanges(
  record: JobRecord,
  sizeBytes: number,
  dirty: Iterable<ByteRange>,
): RangeSet {
  const { scope, cursorBytes } = record
  const whole = { offset: cursorBytes, length: sizeBytes - cursorBytes }
  const cut = [...dirty, ...(scope === 'all' ? [whole] : [])].map(({ offset, length }) => ({
    offset,
    length: Math.min(length, sizeBytes - offset),
  }))
  return new RangeSet(cut)
}

/**
 * The plan of a sync. From this call on the subdisks are valid outside `missing`, which becomes less window by window.
 */
export function syncPlan(options: SyncOptions): JobPlan {
  const { host, plex, subdisks, missing, read, totalBytes } = options
  for (const subdisk of subdisks) subdisk.missing = missing

  /** Copies a range, with writes kept off it. */
  const copy = async (range: ByteRange): Promise<void> => {
    const { offset, length } = range
    const release = await host.lock(plex, offset, length, 'writes')
    try {
      await inLeasedSlices(host.pool, range, 1, async (at, bytes, buffer) => {
        const data = slice(buffer, 0, bytes)
        await read(at, data)
        await transferPlex('write', plex, at, data)
      })
      checkInService(subdisks)
      missing.remove(offset, length)
    } finally {
      release()
    }
  }

  return planOf(options, {
    subdisks,
    aloneBytes: JOB_STEP_ALONE_BYTES,
    ...overRanges(
      totalBytes,
      (from, mostBytes) => missing.next(from, mostBytes),
      async ({ offset, length }, job) => {
        checkInService(subdisks)
        const end = offset + length
        let copied = 0
        for (const range of lackingIn(plex, offset, end)) {
          await copy(range)
          copied += range.length
        }
        checkInService(subdisks)
        // What belongs to a good subdisk of the plex was jumped over: it needs no copy.
        missing.remove(offset, length)
        job.skip(length - copied)
        return end
      },
    ),
    beforeFinish: () => checkInService(subdisks),
  })
}

/** What a linear plex lacks of [start, end), and may get. */
function lackingIn(plex: Plex, start: number, end: number): readonly ByteRange[] {
  const lacking = new RangeSet()
  for (let at = start; at < end; ) {
    const length = Math.min(plex.pieceEnd(at), end) - at
    if (!plex.readable(at, length) && plex.storable(at, length) === 'full') lacking.add(at, length)
    at += length
  }
  return lacking.ranges
}

/** A subdisk that was taken out of service has missed writes: what was copied to it counts no more. */
function checkInService(subdisks: readonly Subdisk[]): void {
  for (const subdisk of subdisks) {
    if (subdisk.record.state !== 'reviving' || !subdisk.writable)
      throw outOfService(subdisk, 'sync')
  }
}
