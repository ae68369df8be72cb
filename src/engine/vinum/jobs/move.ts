/**
 * Move: a live copy of a subdisk to another place (docs/vinum.md, 9: the original dropped the data, 8.9). The
 * subdisk stays where it is until the end; what has been copied is written in both places (subdisk.ts), and the
 * last commit swaps them while its requests are held.
 *
 * A move begins anew after a restart of the daemon: a crash may have left a write in the old place alone, and
 * nothing tells which one; until the end the old place is complete, so nothing is lost by that.
 */
import { defined } from '../../../base/assert.ts'
import { operatingError, type PlexusError } from '../../../base/errors.ts'
import type { LockMode } from '../../geom/range-lock.ts'
import type { Job, JobPlan } from '../../jobs/job.ts'
import { withLease } from '../../jobs/slices.ts'
import { isPresent, type PlacedSubdisk, type SubdiskMove } from '../io/subdisk.ts'
import { transfer } from '../io/transfers.ts'
import type { Drive, Plex, VinumHost } from '../runtime.ts'
import { type JobSetup, outOfService, planOf } from './setup.ts'

export interface MoveOptions extends JobSetup {
  readonly host: VinumHost
  readonly subdisk: PlacedSubdisk
  /** Undefined: detached, nobody uses it. */
  readonly plex: Plex | undefined
  /** Where it goes. */
  readonly target: Drive
  /** Absolute on the device. */
  readonly driveOffsetBytes: number
  /**
   * Makes a range of the subdisk readable again from redundancy: move-heal.ts. Undefined: there is none. Called
   * without any lock held.
   */
  readonly heal: ((offset: number, length: number) => Promise<void>) | undefined
  /** The old place could not be read at first, or the new one not be written. */
  onTrouble(drive: Drive, error: PlexusError): void
}

/**
 * The plan of a move. `commits.finish` swaps the place: durably in the record, then in the running subdisk (record
 * and drive). All requests of the subdisk are held meanwhile, so it must not wait for any of them.
 */
export function movePlan(options: MoveOptions): JobPlan {
  const { subdisk, commits, totalBytes } = options
  let move: SubdiskMove | undefined
  const base = planOf(options, {
    subdisks: [subdisk],
    startBytes: 0,
    async step(offset, maxBytes) {
      move ??= await begin(options)
      checkMove(subdisk, move)
      const length = Math.min(maxBytes, totalBytes - offset)
      await copyHealing(options, move, offset, length)
      checkMove(subdisk, move)
      return offset + length
    },
    async beforeAbandon() {
      if (!move) return
      if (move.error) options.onTrouble(move.drive, move.error)
      // What is under way to the new place ends before its space is somebody else's.
      await holding(move, 0, totalBytes, 'all', async () => subdisk.endMove())
    },
  })
  return {
    ...base,
    checkpoint: (job) => commits.checkpoint(job),
    async finish(job: Job) {
      const done = defined(move, 'the move that ends')
      await holding(done, 0, totalBytes, 'all', async () => {
        checkMove(subdisk, done)
        await written(done, transfer('flush', done))
        await commits.finish(job)
        subdisk.endMove()
      })
    },
  }
}

/** Requests are followed from now on; resolves when those that were under way before have ended. */
async function begin({
  host,
  plex,
  subdisk,
  target,
  driveOffsetBytes,
}: MoveOptions): Promise<SubdiskMove> {
  const move = subdisk.beginMove(target, driveOffsetBytes)
  if (plex) {
    const release = await host.lock(plex, 0, plex.sizeBytes, 'all')
    release()
  }
  return move
}

/** Copies a window. A range that cannot be read is healed once where there is redundancy. */
async function copyHealing(
  options: MoveOptions,
  move: SubdiskMove,
  offset: number,
  length: number,
): Promise<void> {
  const failure = await copy(options, move, offset, length)
  if (!failure) return
  options.host.noteError(options.subdisk, 'read', failure)
  options.onTrouble(options.subdisk.drive, failure)
  if (!options.heal) throw failure
  await options.heal(offset, length)
  const again = await copy(options, move, offset, length)
  if (again) throw again
}

/** Resolves to the error when the old place cannot be read; rejects when the new one cannot be written. */
function copy(
  { host, subdisk }: MoveOptions,
  move: SubdiskMove,
  offset: number,
  length: number,
): Promise<PlexusError | undefined> {
  return holding(move, offset, length, 'writes', () =>
    withLease(host.pool, length, async (lease) => {
      const place = { forward: subdisk.forwardHere.bind(subdisk) }
      const reading = transfer('read', place, offset, lease)
      const failure = await reading.then(() => undefined, operatingError)
      if (failure) return failure
      await written(move, transfer('write', move, offset, lease))
      // While writes are still kept off: from here on they go to both places.
      move.copiedBytes = offset + length
      return undefined
    }),
  )
}

/** A request to the new place: when it fails, that is no copy any more. */
async function written(move: SubdiskMove, request: Promise<void>): Promise<void> {
  try {
    await request
  } catch (error) {
    move.error ??= operatingError(error)
    throw error
  }
}

/** Runs `work` with a range of the moving subdisk to itself. */
async function holding<T>(
  { lock }: SubdiskMove,
  offset: number,
  length: number,
  mode: LockMode,
  work: () => Promise<T>,
): Promise<T> {
  const entry = await lock.hold(offset, length, mode)
  try {
    return await work()
  } finally {
    lock.leave(entry)
  }
}

/** A write that failed in the new place makes it no copy; one that failed in the old one put the subdisk out of service. */
function checkMove(subdisk: PlacedSubdisk, move: SubdiskMove): void {
  if (move.error) throw move.error
  if (subdisk.record.state !== 'up' || !isPresent(subdisk.drive))
    throw outOfService(subdisk, 'move')
}
