/**
 * Reads a range from several copies: each block from the first plex in service that has it, halved down to a block
 * where only the part that is really bad may come from another plex (docs/vinum.md).
 */
import { PlexusError } from '../../../base/errors.ts'
import type { AlignedBuffer, IoCause, IoOp } from '../../../hal/block-device.ts'
import type { Plex, Subdisk } from '../runtime.ts'
import type { VolumeIo } from './volume-io.ts'

/** Errors of the medium, that writing may mend. A drive that is gone or refuses is not mended so. */
export const MENDABLE: ReadonlySet<string> = new Set(['io', 'corrupt', 'timeout'])
/** Parts of one request that are done at the same time where no plex can do all of it. */
const PIECES_AT_ONCE = 32

/** A range of plex space with the buffer for it. */
export interface CopyRange {
  readonly offset: number
  readonly length: number
  readonly data: AlignedBuffer | undefined
  readonly dataOffset: number
  readonly fua?: boolean
  readonly cause: IoCause
}

export interface PlexAnswer {
  readonly error: PlexusError | undefined
  /** The subdisks that it named. */
  readonly missed: readonly Subdisk[]
}

/** Sends one request to one plex and waits for its end. Never rejects. */
export function callPlex(plex: Plex, op: IoOp, range: CopyRange): Promise<PlexAnswer> {
  return new Promise((resolve) => {
    const missed: Subdisk[] = []
    const { offset, length, data, dataOffset, fua = false, cause } = range
    const complete = (error: PlexusError | undefined): void => resolve({ error, missed })
    plex.start({ op, offset, length, data, dataOffset, fua, cause, complete }, (subdisk) =>
      missed.push(subdisk),
    )
  })
}

/** A plex that could not read, and why. */
export interface Failure {
  readonly plex: Plex
  readonly error: PlexusError
}

/** What is read from. */
export interface Copies {
  /** For messages. */
  readonly name: string
  /** In the order in which they are asked. */
  readonly plexes: readonly Plex[]
  /** May the copies differ there? Then a plex gives what an earlier one cannot read, and no more. */
  isUnsynced(offset: number, length: number): boolean
  /** A plex could not read what another one has given: `range` has it. */
  mend?(failure: Failure, range: CopyRange): Promise<void>
}

/**
 * The plex that has all of a range, if all plexes before it have nothing at all in service: one behind must not answer
 * for a range because it has all of it.
 */
export function firstInService(
  plexes: readonly Plex[],
  offset: number,
  length: number,
): Plex | undefined {
  for (const plex of plexes) {
    if (plex.readable(offset, length)) return plex
    if (plex.subdisks.some(({ writable }) => writable)) return undefined
  }
  return undefined
}

/**
 * Reads the range; who calls keeps writes off it. `known`: a plex that has just failed for some of it. Resolves to the
 * plex that has given all of it, undefined when there was more than one. Rejects with the first error when a block cannot
 * be read anywhere.
 */
export async function readCopies(
  copies: Copies,
  range: CopyRange,
  known?: Failure,
): Promise<Plex | undefined> {
  const { offset, length } = range
  let failed = known
  const first = known ? undefined : firstInService(copies.plexes, offset, length)
  if (first) {
    const { error } = await callPlex(first, 'read', range)
    if (!error && first.readable(offset, length)) return first
    if (error) failed = { plex: first, error }
  }
  const givers = new Set<Plex>()
  await eachPiece(copies.plexes, range, async (piece) => {
    // Of one piece it is known that it cannot be read there; of several, reading tells which.
    const isWhole = piece.offset === offset && piece.length === length
    await readPiece(copies, piece, failed && isWhole ? [failed] : [], givers)
  })
  return givers.size === 1 ? [...givers][0] : undefined
}

async function readPiece(
  copies: Copies,
  piece: CopyRange,
  known: readonly Failure[],
  givers: Set<Plex>,
): Promise<void> {
  const { offset, length } = piece
  const { failures, found } = await readFirst(copies.plexes, piece, known)
  const isBad = failures.some(({ error }) => MENDABLE.has(error.kind))
  // Without halving, a plex would give what another one has, too; or two with bad blocks of their own would give nothing.
  const isHalved = found ? copies.isUnsynced(offset, length) : failures.length > 1
  const blockBytes = blockBytesOf(copies.plexes)
  const blocks = Math.floor(length / blockBytes)
  if (isBad && isHalved && blocks > 1) {
    const half = Math.floor(blocks / 2) * blockBytes
    await readPiece(copies, partOf(piece, offset, half), [], givers)
    await readPiece(copies, partOf(piece, offset + half, length - half), [], givers)
    return
  }
  if (!found) throw failures[0]?.error ?? noCopyError(copies.name, 'read', offset, length)
  givers.add(found)
  for (const failure of failures) await copies.mend?.(failure, piece)
}

/** The first plex that can, if any (`found`), and what failed before it, beginning with `known`. */
async function readFirst(
  plexes: readonly Plex[],
  piece: CopyRange,
  known: readonly Failure[],
): Promise<{ readonly failures: readonly Failure[]; readonly found: Plex | undefined }> {
  const failures = [...known]
  for (const plex of plexes) {
    if (failures.some((one) => one.plex === plex)) continue
    if (!plex.readable(piece.offset, piece.length)) continue
    const { error } = await callPlex(plex, 'read', piece)
    if (error) failures.push({ plex, error })
    // Else it went out of service meanwhile, and what it gave may be old.
    else if (plex.readable(piece.offset, piece.length)) return { failures, found: plex }
  }
  return { failures, found: undefined }
}

/**
 * Calls `work` for each part of the range that lies in one piece of every plex, several at a time. Rejects with the first
 * error when those that have begun have ended.
 */
export async function eachPiece(
  plexes: readonly Plex[],
  range: CopyRange,
  work: (piece: CopyRange) => Promise<void>,
): Promise<void> {
  const end = range.offset + range.length
  for (let at = range.offset; at < end; ) {
    const batch: Promise<void>[] = []
    while (at < end && batch.length < PIECES_AT_ONCE) {
      const to = Math.min(end, ...plexes.map((plex) => plex.pieceEnd(at)))
      batch.push(work(partOf(range, at, to - at)))
      at = to
    }
    const results = await Promise.allSettled(batch)
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }
}

export function partOf(range: CopyRange, at: number, length: number): CopyRange {
  const { data, dataOffset, fua = false, cause } = range
  return { offset: at, length, data, dataOffset: dataOffset + at - range.offset, fua, cause }
}

/**
 * Writes what one copy has to another one, by the rules for a write of a user (runtime.ts, 1 and 2): who misses it, or is
 * away, is out of service durably when it resolves. Rejects when that may not be, since it is the last copy of something
 * else, or when the plex names nobody. The caller keeps writes and syncs off the range.
 */
export async function writeCopy(volume: VolumeIo, plex: Plex, range: CopyRange): Promise<void> {
  const isNowhere = plex.storable(range.offset, range.length) === 'none'
  const stale = plex.subdisks.filter(({ record }) => record.state === 'stale')
  const { error, missed } = await callPlex(plex, 'write', range)
  if (!error) return
  // In a hole of the plex nothing can be missed.
  if (missed.length === 0 && !isNowhere) throw error
  // One that is being filled by now gets it from its sync, which waits for the range.
  const isFilled = (one: Subdisk): boolean => one.writable && stale.includes(one)
  const lacking = missed.filter((one) => !volume.isOut(one) && !isFilled(one))
  if (lacking.length > 0) await volume.demote(lacking, error)
}

/** Bytes of the largest block among the drives: what can be read or lost alone. */
function blockBytesOf(plexes: readonly Plex[]): number {
  const drives = plexes.flatMap(({ subdisks }) => subdisks.map(({ drive }) => drive))
  return Math.max(512, ...drives.map(({ record }) => record.blockBytes))
}

export function noCopyError(name: string, op: IoOp, offset: number, length: number): PlexusError {
  return new PlexusError('gone', {
    op,
    subject: name,
    message: `volume ${name}: no plex can ${op} ${length} bytes at offset ${offset}; plexus status ${name} shows what is missing`,
  })
}
