/**
 * Jobs over all plexes of a volume that are in service: resync (after a crash, regions in which writes were under
 * way are made equal again), check and repair (every byte of them is compared). Writes are kept off one window at a
 * time. vinum-set.ts builds the plans. spec/vinum.md, 9.
 */

import type { ByteRange } from '../../../base/bytes.ts'
import { PlexusError } from '../../../base/errors.ts'
import {
  CHECK_UNIT_BYTES,
  JOB_SLICE_BYTES,
  JOB_SLICES,
  JOB_STEP_ALONE_BYTES,
  JOB_STEP_MIN_BYTES,
} from '../../../base/limits.ts'
import type { AlignedBuffer } from '../../../hal/block-device.ts'
import type { JobPlan } from '../../geom/job.ts'
import { MENDABLE } from '../io/volume-read.ts'
import type { Plex, VinumHost } from '../runtime.ts'
import {
  inSlices,
  type JobSetup,
  type Missed,
  partsOf,
  planOf,
  slice,
  transferPlex,
  withLease,
} from './setup.ts'

export interface ResyncOptions extends JobSetup {
  readonly host: VinumHost
  /** All of the volume, in its order: the first that can be read gives the content. */
  readonly plexes: readonly Plex[]
  /** The first range at or behind the offset that may differ, up to so many bytes of it. */
  nextUnsynced(offset: number, mostBytes: number): ByteRange | undefined
  /** The range is equal everywhere from now on: reads of it may go to any plex. */
  onEqual(offset: number, length: number): void
}

/** The plan of a resync. Regions that a run before had done are done again: the intent map still names them. */
export function resyncPlan(options: ResyncOptions): JobPlan {
  const { host, totalBytes, onEqual, nextUnsynced } = options
  /** Why a part stays in doubt; the rest is done all the same, and the job fails in the end. */
  let failure: PlexusError | undefined
  return planOf(options, {
    subdisks: options.plexes.flatMap(({ subdisks }) => subdisks),
    startBytes: nextUnsynced(0, 1)?.offset ?? totalBytes,
    beforeFinish() {
      if (failure) throw failure
    },
    async step(from, maxBytes, job) {
      const range = nextUnsynced(from, maxBytes)
      if (!range) return totalBytes
      const { offset, length } = range
      const [first] = options.plexes
      // Reads as well: when the copy that counts fails, the next one counts, and it must not change under a reader
      // because of what is still being written from the former.
      const release = first && (await host.lock(first, offset, length, 'all'))
      try {
        let inParts = false
        for (let at = offset; at < offset + length; ) {
          // Together when all is well; after a failure in small parts, so that few stay in doubt.
          const part = inParts ? Math.min(JOB_STEP_MIN_BYTES, offset + length - at) : length
          try {
            await equalise(options, at, part)
            onEqual(at, part)
            at += part
          } catch (error) {
            if (!(error instanceof PlexusError) || !MENDABLE.has(error.kind)) throw error
            if (inParts) {
              failure ??= error
              at += part
            }
            inParts = true
          }
        }
      } finally {
        release?.()
      }
      const next = nextUnsynced(offset + length, 1)?.offset ?? totalBytes
      job.skip(next - from - length)
      return next
    },
  })
}

async function equalise(
  { host, plexes }: ResyncOptions,
  offset: number,
  length: number,
): Promise<void> {
  await withLease(host.pool, length, async (lease) => {
    const source = await readFirst(plexes, offset, lease)
    for (const plex of plexes) {
      // Durable: a reader may get it from any copy from now on, and must find it when the power and the source are lost.
      if (plex !== source) await writeOrDemote(host, plex, offset, lease, true)
    }
  })
}

/**
 * Reads the content that counts: each block from the first plex that has it, as the volume reads where copies may
 * differ (volume-io.ts). Resolves to the plex that has given all of it, undefined when there was more than one. Rejects
 * with the first error when a block cannot be read anywhere.
 */
async function readFirst(
  plexes: readonly Plex[],
  offset: number,
  into: AlignedBuffer,
): Promise<Plex | undefined> {
  const length = into.bytes.length
  for (const plex of plexes) {
    if (plex.readable(offset, length)) {
      if ((await canRead(plex, offset, into)) && plex.readable(offset, length)) return plex
      break
    }
    if (plex.subdisks.some(({ writable }) => writable)) break
  }
  const givers = new Set<Plex>()
  for (let at = offset; at < offset + length; ) {
    const to = Math.min(offset + length, ...plexes.map((plex) => plex.pieceEnd(at)))
    await readPiece(plexes, at, slice(into, at - offset, to - at), givers)
    at = to
  }
  return givers.size === 1 ? [...givers][0] : undefined
}

/** A part that lies in one piece of every plex. Adds to `givers` the plexes that gave a part of it. */
async function readPiece(
  plexes: readonly Plex[],
  offset: number,
  into: AlignedBuffer,
  givers: Set<Plex>,
): Promise<void> {
  const { length } = into.bytes
  let failure: PlexusError | undefined
  for (const [index, plex] of plexes.entries()) {
    if (!plex.readable(offset, length)) continue
    try {
      await transferPlex('read', plex, offset, into)
      // Out of service meanwhile: what it gave may be old.
      if (!plex.readable(offset, length)) continue
      givers.add(plex)
      return
    } catch (error) {
      if (!(error instanceof PlexusError)) throw error
      failure ??= error
      const blocks = Math.floor(length / blockBytesOf(plexes))
      const others = plexes.slice(index + 1).some((other) => other.readable(offset, length))
      if (!others || blocks < 2 || !MENDABLE.has(error.kind)) continue
      // Only what is really bad may come from another plex.
      const half = Math.floor(blocks / 2) * blockBytesOf(plexes)
      await readPiece(plexes, offset, slice(into, 0, half), givers)
      await readPiece(plexes, offset + half, slice(into, half, length - half), givers)
      return
    }
  }
  throw failure ?? unreadable(offset)
}

function blockBytesOf(plexes: readonly Plex[]): number {
  const drives = plexes.flatMap(({ subdisks }) => subdisks.map(({ drive }) => drive))
  return Math.max(512, ...drives.map(({ record }) => record.blockBytes))
}

/** Writes what the plex can store. Who misses it is taken out of service durably; rejects when that may not be. */
async function writeOrDemote(
  host: VinumHost,
  plex: Plex,
  offset: number,
  from: AlignedBuffer,
  fua = false,
): Promise<void> {
  if (plex.storable(offset, from.bytes.length) === 'none') return
  const missed: Missed[] = []
  try {
    await transferPlex('write', plex, offset, from, missed, fua)
  } catch (error) {
    if (!(error instanceof PlexusError) || missed.length === 0) throw error
    const serving = missed.map(({ subdisk }) => subdisk).filter(({ writable }) => writable)
    if (serving.length > 0) await host.demote(serving, error)
  }
}

/** A place where the copies of a volume differ, or where one of them could not be read. */
export interface Mismatch {
  readonly plex: Plex
  readonly offset: number
  readonly length: number
}

export interface CheckOptions extends JobSetup {
  readonly host: VinumHost
  /** Those of the volume, in its order: what the first has is right. */
  readonly plexes: readonly Plex[]
  /** Writes the content of the first plex where another one differs. */
  readonly repair: boolean
  onMismatch(mismatch: Mismatch): void
}

/** The plan of a check or repair: compares {@link CHECK_UNIT_BYTES} by {@link CHECK_UNIT_BYTES}; each counts once per plex. */
export function checkPlan(options: CheckOptions): JobPlan {
  const { host, plexes, totalBytes, repair } = options
  return planOf(options, {
    subdisks: plexes.flatMap(({ subdisks }) => subdisks),
    aloneBytes: JOB_STEP_ALONE_BYTES,
    async step(offset, maxBytes, job) {
      const length = Math.min(maxBytes, totalBytes - offset)
      const [first] = plexes
      const release = first && (await host.lock(first, offset, length, 'writes'))
      try {
        const most = Math.min(JOB_SLICE_BYTES, length)
        const slices = Math.min(JOB_SLICES, Math.ceil(length / most))
        // One buffer for both sides: who holds one must not wait for another.
        await withLease(host.pool, slices * 2 * most, (lease) =>
          inSlices(
            offset,
            offset + length,
            most,
            partsOf(lease, 2 * most),
            async (at, bytes, both) => {
              const right = slice(both, 0, bytes)
              const other = slice(both, most, bytes)
              for (const found of await compare(plexes, at, right, other)) {
                job.mismatches++
                options.onMismatch(found)
                const good = slice(right, found.offset - at, found.length)
                if (repair) await writeOrDemote(host, found.plex, found.offset, good)
              }
            },
          ),
        )
      } finally {
        release?.()
      }
      return offset + length
    },
  })
}

/** Reads the range into `right` from the first plex that can, and compares all others with it. */
async function compare(
  plexes: readonly Plex[],
  offset: number,
  right: AlignedBuffer,
  other: AlignedBuffer,
): Promise<readonly Mismatch[]> {
  const length = right.bytes.length
  const found: Mismatch[] = []
  const source = await readFirst(plexes, offset, right)
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
  try {
    await transferPlex('read', plex, offset, into)
    return true
  } catch (error) {
    if (error instanceof PlexusError) return false
    throw error
  }
}

function unreadable(offset: number): PlexusError {
  return new PlexusError('io', {
    op: 'read',
    subject: 'volume',
    message: `no plex can be read at offset ${offset}; bring back its drives, then start it again`,
  })
}
