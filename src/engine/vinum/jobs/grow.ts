/**
 * Grow: a striped or raid5 plex gets more columns, and its rows are laid out anew while it serves (docs/vinum.md,
 * 9). Rows move upwards window by window; below the cursor the new layout holds, above it the old one
 * (GrowthRecord in model.ts). vinum-set.ts builds the plan, and calls {@link finishWindow} before it serves a plex
 * that a crash has left with a backup.
 *
 *   new row r needs row r of every column, where data of the old rows r lies: plex bytes r * D0 to (r + 1) * D0
 *   (D0, D1: data of a row before and after). In the beginning that data has not moved yet: it is the window's
 *   own. So it first goes to the journal areas of other drives, from where a crash writes it again. As soon as
 *   the old rows lie wholly below the cursor, the window's old place stays intact and no backup is needed.
 *
 *   hold the window -> [backup on two drives, flush, commit it] -> write the rows with parity -> flush all
 *   columns -> commit the cursor, without backup -> let go
 *
 * The cursor is durable before the window is let go: else a write that was acknowledged in the new place would be
 * looked for in the old one after a crash (8.3, 8.4). Rows above the old end are written with zeroes, so that the
 * parity of new rows is right (8.3), and nobody reads what a disk held before.
 *
 * A growth needs all columns. One that fails in a window misses what is written there, like any write: so the
 * window is announced in the volume's intent map. The growth stops behind that window, the column is rebuilt, and the
 * growth goes on. The map does not reach beyond the volume's content: those rows are written again each time.
 */
import { assert, defined } from '../../../base/assert.ts'
import { alignUp } from '../../../base/bytes.ts'
import { operatingError, PlexusError } from '../../../base/errors.ts'
import { GROW_BACKUPS, GROW_RETRY_MS, GROW_WINDOW_BYTES } from '../../../base/limits.ts'
import type { AlignedBuffer } from '../../../hal/block-device.ts'
import type { Job, JobPlan } from '../../jobs/job.ts'
import { transferPlex } from '../io/transfers.ts'
import type { GrowthRecord } from '../model/model.ts'
import { type Columns, fillRows, flushRows, rowBytesOf } from '../raid5/fill-rows.ts'
import type { Plex, VinumHost } from '../runtime.ts'
import { type BackupArea, readBackup, writeBackup } from './grow-backup.ts'
import { type JobSetup, outOfService, planOf } from './setup.ts'
import type { ReadRange } from './sync.ts'

/** A part of plex space: whole rows of the new layout. */
export interface Window {
  readonly offsetBytes: number
  readonly lengthBytes: number
}

/** What it takes to write a plex anew. */
export interface GrowPlace {
  readonly host: VinumHost
  /** Its record has the growth. The plan's total is its size with all columns, whatever the setup says. */
  readonly plex: Plex
  /** Journal areas of drives of the set that are present, the best first. At least one. */
  backupAreas(): readonly BackupArea[]
  /** Makes a new growth record durable, then known to the plex. Resolves when both is done. */
  commitGrowth(growth: GrowthRecord): Promise<void>
}

export interface GrowOptions extends JobSetup, GrowPlace {
  /** The content of the plex ends here, or before: what lies behind is nobody's. */
  readonly contentBytes: number
  /**
   * Makes the old rows of the window right where they are in doubt, and announces it in the intent map of the volume.
   * Resolves when that is durable, to what ends it: called with false, the window may not be whole, and stays marked.
   */
  announce(window: Window): Promise<(whole: boolean) => void>
  /** Tells people that a window is in its backup alone, and why. Once for each time that this happens. */
  tellStuck(text: string): void
}

/** What moves and where to. All in bytes of plex space, or rows. */
interface Shape {
  readonly before: Columns
  readonly rowBefore: number
  readonly rowAfter: number
  readonly rows: number
  /** What lies behind holds nothing that has to move. */
  readonly contentEnd: number
  /** First row that holds no content. */
  readonly tailStart: number
  readonly sizeAfter: number
}

function shapeOf({ plex, contentBytes }: GrowOptions): Shape {
  const { record, subdisks } = plex
  const before = { record, subdisks: subdisks.slice(0, growthOf(plex).columnsBefore) }
  const first = defined(subdisks[0], `a column of ${record.name}`)
  const rows = first.record.sizeBytes / record.stripeBytes
  const rowBefore = rowBytesOf(before)
  const rowAfter = rowBytesOf(plex)
  assert(rowBefore > 0 && rowAfter > rowBefore, `${record.name} grows by whole columns`)
  const contentEnd = Math.min(rows * rowBefore, contentBytes)
  const tailStart = alignUp(contentEnd, rowAfter)
  const sizeAfter = rows * rowAfter
  return { before, rowBefore, rowAfter, rows, contentEnd, tailStart, sizeAfter }
}

/**
 * The plan of a growth. `commits.finish` ends it: the growth is gone from the record, the plex and the volume have
 * their new size, raid5 has valid parity in all of it. A failed or cancelled growth stays in the record where it
 * is, and serves; a new job goes on with it.
 */
export function growPlan(options: GrowOptions): JobPlan {
  const { plex } = options
  const shape = shapeOf(options)
  return planOf(
    { ...options, totalBytes: shape.sizeAfter },
    {
      subdisks: plex.subdisks,
      stepBytes: GROW_WINDOW_BYTES,
      startBytes: Math.min(growthOf(plex).cursorBytes, shape.tailStart),
      async step(offset, maxBytes, job) {
        if (!growthOf(plex).backup) return moveWindow(options, shape, offset, maxBytes, job)
        await finishWindow(options)
        return Math.min(growthOf(plex).cursorBytes, shape.tailStart)
      },
      // One that has failed since may lack the last rows, of which no mark tells.
      beforeFinish: () => checkWhole(plex),
    },
  )
}

/**
 * Writes the window of which a backup was committed, and commits the cursor behind it. Nothing to do without one.
 * Until this has resolved, nothing of the window may be read or written: vinum-set.ts calls it before the volume
 * is offered. Rejects when neither backup can be read, or the rows cannot be written.
 */
export async function finishWindow(options: GrowPlace): Promise<void> {
  const growth = growthOf(options.plex)
  if (!growth.backup) return
  await writeNewRows(options, growth)
  await options.commitGrowth(behind(growth, growth.backup))
}

/** Writes the window in the new layout from its backup, durably. */
async function writeNewRows(options: GrowPlace, growth: GrowthRecord): Promise<void> {
  const { plex, host } = options
  const backup = defined(growth.backup, 'the backup to write from')
  const source = await readBackup(options.backupAreas(), backup, plex.record.name)
  await fillRows(host, plex, backup.offsetBytes, backup.lengthBytes, source)
  await flushRows(host, plex)
}

/** Moves the rows from `offset` on: at the cursor, or in the tail. Resolves to where it ends. */
async function moveWindow(
  options: GrowOptions,
  shape: Shape,
  offset: number,
  maxBytes: number,
  job: Job,
): Promise<number> {
  const { host, plex } = options
  checkWhole(plex)
  const growth = growthOf(plex)
  const { rows, areas } = windowRows(options, shape, offset, maxBytes)
  const window = { offsetBytes: offset, lengthBytes: rows * shape.rowAfter }
  const release = await host.lock(plex, offset, window.lengthBytes, 'all')
  let end: ((whole: boolean) => void) | undefined
  let letGo = true
  try {
    end = await options.announce(window)
    const read = oldContent(options, shape)
    if (areas) {
      const backup = await writeBackup(host.pool, areas, window, read)
      letGo = false
      await options.commitGrowth({ ...growth, backup })
      const failure = await rewrite(options, shape, job)
      letGo = true
      if (failure) throw failure
    } else {
      await fillRows(host, plex, offset, window.lengthBytes, read)
      await flushRows(host, plex)
      letGo = false
      await options.commitGrowth(behind(growth, window))
      letGo = true
    }
    const moved = growthOf(plex).cursorBytes
    assert(moved >= offset + window.lengthBytes, `${plex.record.name} knows its new cursor`)
    return offset + window.lengthBytes
  } finally {
    end?.(letGo)
    // After a commit that failed nobody knows which layout a restart will find, and when the job is parked while
    // neither layout is whole, the window is in the backup alone: whoever wants it waits for that restart.
    if (letGo) release()
  }
}

/** Throws `io` when a column is out of service. */
function checkWhole({ subdisks }: Plex): void {
  const out = subdisks.find(({ record, writable }) => record.state !== 'up' || !writable)
  if (out) throw outOfService(out, 'grow')
}

/** As many rows as the step allows; where a backup is needed, as many as fit the areas for it. */
function windowRows(
  options: GrowOptions,
  shape: Shape,
  offset: number,
  maxBytes: number,
): { readonly rows: number; readonly areas: readonly BackupArea[] | undefined } {
  const { rowBefore, rowAfter, rows, contentEnd } = shape
  const row = offset / rowAfter
  const left = rows - row
  const wanted = Math.min(left, Math.max(1, Math.floor(maxBytes / rowAfter)))
  // Old rows below this one hold nothing that has not moved.
  const free = offset >= contentEnd ? rows : Math.floor(offset / rowBefore)
  if (free > row) return { rows: Math.min(wanted, free - row), areas: undefined }
  const all = options.backupAreas()
  const areas = all.filter(({ bytes }) => bytes >= rowAfter).slice(0, GROW_BACKUPS)
  if (areas.length === 0) throw noRoom(options.plex, rowAfter, all)
  const fits = Math.floor(Math.min(...areas.map(({ bytes }) => bytes)) / rowAfter)
  return { rows: Math.min(wanted, fits), areas }
}

/** What the plex has now: its old layout above the cursor, and zeroes behind its content. */
function oldContent({ plex }: GrowOptions, { contentEnd }: Shape): ReadRange {
  return async (offset, into) => {
    const { bytes, address } = into
    const there = Math.min(Math.max(0, contentEnd - offset), bytes.length)
    bytes.fill(0, there)
    if (there === 0) return
    const wanted: AlignedBuffer = { bytes: bytes.subarray(0, there), address }
    await transferPlex('read', plex, offset, wanted)
  }
}

/**
 * Writes the window from its backup and commits the cursor. Where a write fails that parity cannot make up for, the
 * old rows are written again, so that the old layout holds as before: then resolves to the error. When that fails
 * too, it tries both again and again; rejects when the job is to be parked meanwhile, or when a commit fails: the
 * backup stays then.
 */
async function rewrite(
  options: GrowOptions,
  shape: Shape,
  job: Job,
): Promise<PlexusError | undefined> {
  const { host, plex } = options
  const growth = growthOf(plex)
  const backup = defined(growth.backup, 'the backup that was committed')
  const failureOf = (work: Promise<void>) => work.then(() => undefined, operatingError)
  for (let isTold = false; ; isTold = true) {
    const failure = await failureOf(writeNewRows(options, growth))
    if (!failure) {
      await options.commitGrowth(behind(growth, backup))
      return undefined
    }
    if (!(await failureOf(restoreOldRows(options, shape, growth)))) {
      await options.commitGrowth({ ...growth, backup: undefined })
      return failure
    }
    if (job.parking) throw failure
    if (!isTold) {
      options.tellStuck(
        `${plex.record.name}: ${backup.lengthBytes} bytes at ${backup.offsetBytes} can be written neither in the new rows nor in the old ones; they are safe in their backup, requests for them wait, and it is tried again: ${failure.message}`,
      )
    }
    await new Promise<void>((resolve) => host.clock.after(GROW_RETRY_MS, resolve))
  }
}

/** Writes the rows of the old layout that the window's new rows lie in, durably. */
async function restoreOldRows(
  { host, plex, backupAreas }: GrowPlace,
  { before, rowBefore, rowAfter }: Shape,
  growth: GrowthRecord,
): Promise<void> {
  const backup = defined(growth.backup, 'the backup to restore from')
  const row = backup.offsetBytes / rowAfter
  const rows = backup.lengthBytes / rowAfter
  const source = await readBackup(backupAreas(), backup, plex.record.name)
  await fillRows(host, before, row * rowBefore, rows * rowBefore, async (offset, into) => {
    // Below the window everything has moved: the old rows' part of it is of no use, only parity wants it defined.
    const moved = Math.min(Math.max(0, backup.offsetBytes - offset), into.bytes.length)
    into.bytes.fill(0, 0, moved)
    const rest = into.bytes.subarray(moved)
    if (rest.length > 0) {
      await source(offset + moved, { bytes: rest, address: into.address + moved })
    }
  })
  await flushRows(host, before)
}

/** The growth with its cursor behind a window, which needs no backup any more. */
function behind(growth: GrowthRecord, { offsetBytes, lengthBytes }: Window): GrowthRecord {
  const cursorBytes = Math.max(growth.cursorBytes, offsetBytes + lengthBytes)
  return { ...growth, cursorBytes, backup: undefined }
}

function growthOf({ record }: Plex): GrowthRecord {
  return defined(record.growth, `the growth of ${record.name}`)
}

function noRoom(plex: Plex, rowBytes: number, areas: readonly BackupArea[]): PlexusError {
  const { name } = plex.record
  const why =
    areas.length === 0
      ? 'no drive of the set has a journal area'
      : `a row of ${rowBytes} bytes does not fit the journal area of each drive (${areas.map(({ driveUuid, bytes }) => `${driveUuid}: ${bytes}`).join(', ')})`
  return new PlexusError('no-space', {
    op: 'grow',
    subject: name,
    message: `plex ${name} cannot grow: ${why}; use larger drives or a smaller stripe`,
  })
}
