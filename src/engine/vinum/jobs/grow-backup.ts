/**
 * The backup of a growth's window: its content at the start of the journal areas of two drives, where grow.ts puts
 * it before the old place of the window is overwritten, and from where it is written again after a crash. The record
 * of it (GrowthRecord.backup) names the drives and has the CRC32C of the content; it is committed after the backup
 * is durable, so a torn backup is never named.
 */

import { crc32c } from '../../../base/crc32c.ts'
import { PlexusError } from '../../../base/errors.ts'
import { JOB_STEP_BYTES } from '../../../base/limits.ts'
import type { AlignedBuffer, BufferPool } from '../../../hal/block-device.ts'
import { withLease } from '../../jobs/slices.ts'
import type { GrowthRecord } from '../model/model.ts'
import type { ReadRange } from './sync.ts'

type Backup = NonNullable<GrowthRecord['backup']>

/** The journal area of a drive (anchor/anchored-device.ts). Offsets are in the area; all are whole blocks. */
export interface BackupArea {
  readonly driveUuid: string
  readonly bytes: number
  read(offset: number, length: number): Promise<AlignedBuffer>
  /** Durable when it resolves. */
  write(offset: number, from: AlignedBuffer): Promise<void>
}

/**
 * Copies a window of plex space to these areas. Resolves to the record of it when it is durable. An area that fails
 * is left out while another one has it.
 */
export async function writeBackup(
  pool: BufferPool,
  areas: readonly BackupArea[],
  window: { readonly offsetBytes: number; readonly lengthBytes: number },
  read: ReadRange,
): Promise<Backup> {
  const { offsetBytes, lengthBytes } = window
  let good: readonly BackupArea[] = areas
  let crc = 0
  for (let done = 0; done < lengthBytes; done += JOB_STEP_BYTES) {
    const bytes = Math.min(JOB_STEP_BYTES, lengthBytes - done)
    await withLease(pool, bytes, async (lease) => {
      await read(offsetBytes + done, lease)
      crc = crc32c(lease.bytes, crc)
      good = await writeAll(good, done, lease)
    })
  }
  return {
    offsetBytes,
    lengthBytes,
    driveUuids: good.map(({ driveUuid }) => driveUuid),
    crc32c: crc,
  }
}

/** Resolves to those that have it. Rejects when none has. */
async function writeAll(
  areas: readonly BackupArea[],
  offset: number,
  from: AlignedBuffer,
): Promise<readonly BackupArea[]> {
  const ends = await Promise.allSettled(areas.map((area) => area.write(offset, from)))
  const good = areas.filter((_, index) => ends[index]?.status === 'fulfilled')
  const failed = ends.find((end) => end.status === 'rejected')
  if (good.length === 0 && failed) throw failed.reason
  return good
}

/**
 * The content of a backup, by plex offset, from the first of its drives that has it whole. Rejects with `corrupt` or
 * what the drives failed with.
 */
export async function readBackup(
  areas: readonly BackupArea[],
  backup: Backup,
  plexName: string,
): Promise<ReadRange> {
  let failure: unknown
  for (const area of areas) {
    if (!backup.driveUuids.includes(area.driveUuid)) continue
    try {
      if ((await crcOf(area, backup.lengthBytes)) === backup.crc32c) return reader(area, backup)
    } catch (error) {
      if (!(error instanceof PlexusError)) throw error
      failure ??= error
    }
  }
  throw failure ?? lost(backup, plexName)
}

async function crcOf(area: BackupArea, length: number): Promise<number> {
  let crc = 0
  for (let done = 0; done < length; done += JOB_STEP_BYTES) {
    const part = await area.read(done, Math.min(JOB_STEP_BYTES, length - done))
    crc = crc32c(part.bytes, crc)
  }
  return crc
}

function reader(area: BackupArea, { offsetBytes }: Backup): ReadRange {
  return async (offset, into) => {
    const part = await area.read(offset - offsetBytes, into.bytes.length)
    part.bytes.copy(into.bytes)
  }
}

function lost({ driveUuids }: Backup, plexName: string): PlexusError {
  return new PlexusError('corrupt', {
    op: 'grow',
    subject: plexName,
    message: `plex ${plexName}: the backup of the window that was being moved is on none of the drives that are there; connect ${driveUuids.join(' or ')}`,
  })
}
