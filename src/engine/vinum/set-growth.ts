/**
 * What a growth needs of its set: the journal areas of the drives for backups, and durable progress (grow.ts).
 */

import type { GrowOptions } from './grow.ts'
import type { BackupArea } from './grow-backup.ts'
import type { SetDrive } from './set-drive.ts'

export type GrowthCommits = Pick<GrowOptions, 'backupAreas' | 'readElsewhere' | 'commitGrowth'>

/** Journal areas of the drives that are there, the largest first. */
export function backupAreasOf(drives: ReadonlyMap<string, SetDrive>): readonly BackupArea[] {
  const areas: BackupArea[] = []
  for (const drive of drives.values()) {
    const { label, present, record } = drive
    if (!label || !present || record.state !== 'up' || label.journalBytes === 0) continue
    areas.push({
      driveUuid: record.uuid,
      bytes: label.journalBytes,
      read: (offset, length) => label.readJournal(offset, length),
      write: (offset, from) => label.writeJournal(offset, from, { fua: true }),
    })
  }
  return areas.sort((a, b) => b.bytes - a.bytes)
}
