/**
 * Jobs over all plexes of a volume that are in service: resync (after a crash, regions in which writes were under
 * way are made equal again, or the parity of their rows right), check and repair of copies (every byte of them is
 * compared). Writes are kept off one window at a time.
 */
import type { ByteRange } from '../../../base/bytes.ts'
import { PlexusError } from '../../../base/errors.ts'
import { CHECK_UNIT_BYTES, JOB_STEP_ALONE_BYTES, JOB_STEP_MIN_BYTES } from '../../../base/limits.ts'
import type { AlignedBuffer } from '../../../hal/block-device.ts'
import type { JobPlan } from '../../jobs/job.ts'
import { inLeasedSlices, laneBytes, slice, withLease } from '../../jobs/slices.ts'
import { type Copies, callPlex, MENDABLE, readCopies, writeCopy } from '../io/first-copy.ts'
import { rangeOf } from '../io/transfers.ts'
import type { VolumeIo } from '../io/volume-io.ts'
import { Raid5Plex } from '../raid5/plex-raid5.ts'
import { resyncStep } from '../raid5/row-jobs.ts'
import type { Plex } from '../runtime.ts'
import { type JobSetup, overRanges, planOf } from './setup.ts'

export interface ResyncOptions extends JobSetup {
  /** Of the volume. */
  readonly io: VolumeIo
  /** All of the volume, in its order: the first that can be read gives the content. */
  readonly plexes: readonly Plex[]
  /** The first range at or behind the offset that may differ, up to so many bytes of it. */
  nextUnsynced(offset: number, mostBytes: number): ByteRange | undefined
  /** The range is equal everywhere from now on: reads of it may go to any plex. */
  onEqual(offset: number, length: number): void
}

/** The plan of a resync. Regions that a run before had done are done again: the bitmap still names them. */
export function resyncPlan(options: ResyncOptions): JobPlan {
  const { plexes, totalBytes, nextUnsynced } = options
  const [first] = plexes
  const raid5 = first instanceof Raid5Plex ? first : undefined
  /** Why a part stays in doubt; the rest is done all the same, and the job fails in the end. */
  let failure: PlexusError | undefined
  return planOf(options, {
    subdisks: plexes.flatMap(({ subdisks }) => subdisks),
    ...overRanges(totalBytes, nextUnsynced, async ({ offset, length }) => {
      const end = offset + length
      // Copies together when all is well; after a failure in small parts, so that few stay in doubt.
      let inParts = raid5 !== undefined
      for (let at = offset; at < end; ) {
        const partEnd = raid5?.pieceEnd(at) ?? at + JOB_STEP_MIN_BYTES
        const to = inParts ? Math.min(partEnd, end) : end
        try {
          at = raid5
            ? await resyncRow(options, raid5, at, to)
            : await equalise(options, at, to - at)
        } catch (error) {
          if (!(error instanceof PlexusError) || !MENDABLE.has(error.kind)) throw error
          if (inParts) {
            failure ??= error
            at = to
          }
          inParts = true
        }
      }
      return end
    }),
    beforeFinish() {
      if (failure) throw failure
    },
  })
}

/** Resolves to where it ends, at `end` or before it. */
async function resyncRow(
  { io, onEqual }: ResyncOptions,
  plex: Raid5Plex,
  offset: number,
  end: number,
): Promise<number> {
  // A growth must not write the row in the new layout while it is read in the old one.
  const release = plex.record.growth
    ? await io.lock(offset, plex.pieceEnd(offset) - offset, 'writes')
    : undefined
  try {
    const rowEnd = plex.pieceEnd(offset)
    if (plex.doubt.touches(offset, rowEnd - offset)) await resyncStep(plex, offset, rowEnd - offset)
    const reached = Math.min(rowEnd, end)
    onEqual(offset, reached - offset)
    return reached
  } finally {
    release?.()
  }
}

async function equalise(
  { io, plexes, parent: volume = '', onEqual }: ResyncOptions,
  offset: number,
  length: number,
): Promise<number> {
  // Reads as well: when the copy that counts fails, the next one counts, and it must not change under a reader
  // because of what is still being written from the former.
  const release = await io.lock(offset, length, 'all')
  try {
    await withLease(io.host.pool, length, async (lease) => {
      const source = await readCopies(copiesOf(volume, plexes), rangeOf(offset, lease))
      for (const plex of plexes) {
        // Durable: a reader may get it from any copy from now on, and must find it when the power and the source are lost.
        if (plex !== source) await writeCopy(io, plex, { ...rangeOf(offset, lease), fua: true })
      }
    })
    onEqual(offset, length)
    return offset + length
  } finally {
    release()
  }
}

/** As where copies may differ, also for a check: what the first one has is right. Nothing is written. */
function copiesOf(name: string, plexes: readonly Plex[]): Copies {
  return { name, plexes, isUnsynced: () => true }
}

/** A place where the copies of a volume differ, or where one of them could not be read. */
export interface Mismatch {
  readonly plex: Plex
  readonly offset: number
  readonly length: number
}

export interface CheckOptions extends JobSetup {
  /** Of the volume. */
  readonly io: VolumeIo
  /** Those of the volume, in its order: what the first has is right. */
  readonly plexes: readonly Plex[]
  /** Writes the content of the first plex where another one differs. */
  readonly repair: boolean
  /** Not of what may differ since a crash: a resync sees to it. */
  onMismatch(mismatch: Mismatch): void
}

/** The plan of a check or repair: compares {@link CHECK_UNIT_BYTES} by {@link CHECK_UNIT_BYTES}; each counts once per plex. */
export function checkPlan(options: CheckOptions): JobPlan {
  const { io, plexes, totalBytes, repair } = options
  return planOf(options, {
    subdisks: plexes.flatMap(({ subdisks }) => subdisks),
    aloneBytes: JOB_STEP_ALONE_BYTES,
    async step(offset, maxBytes, job) {
      const length = Math.min(maxBytes, totalBytes - offset)
      const release = await io.lock(offset, length, 'writes')
      try {
        await inLeasedSlices(io.host.pool, { offset, length }, 2, async (at, bytes, both) => {
          const right = slice(both, 0, bytes)
          const other = slice(both, laneBytes(length), bytes)
          for (const found of await compare(options, at, right, other)) {
            if (!io.isUnsynced(found.offset, found.length)) {
              job.mismatches++
              options.onMismatch(found)
            }
            const good = slice(right, found.offset - at, found.length)
            if (repair) await writeCopy(io, found.plex, rangeOf(found.offset, good))
          }
        })
      } finally {
        release()
      }
      return offset + length
    },
  })
}

/** Reads the range into `right` from the first plex that can, and compares all others with it. */
async function compare(
  { plexes, parent: volume = '' }: CheckOptions,
  offset: number,
  right: AlignedBuffer,
  other: AlignedBuffer,
): Promise<readonly Mismatch[]> {
  const length = right.bytes.length
  const found: Mismatch[] = []
  const source = await readCopies(copiesOf(volume, plexes), rangeOf(offset, right))
  for (const plex of plexes) {
    // What is out of service is no mismatch: a sync sees to it.
    if (plex === source || !plex.readable(offset, length)) continue
    const whole = await canRead(plex, offset, other)
    if (!plex.readable(offset, length)) continue
    for (let at = 0; at < length; at += CHECK_UNIT_BYTES) {
      const end = Math.min(at + CHECK_UNIT_BYTES, length)
      // After a failure unit by unit, so that only what is bad counts, and is written again.
      const has = whole || (await canRead(plex, offset + at, slice(other, at, end - at)))
      if (has && right.bytes.compare(other.bytes, at, end, at, end) === 0) continue
      found.push({ plex, offset: offset + at, length: end - at })
    }
  }
  return found
}

async function canRead(plex: Plex, offset: number, into: AlignedBuffer): Promise<boolean> {
  const { error } = await callPlex(plex, 'read', rangeOf(offset, into))
  return !error
}
