/**
 * What a growth needs of its set: the journal areas of the drives for backups, and durable progress (grow.ts).
 */

import type { GrowOptions } from './grow.ts'
import type { BackupArea } from './grow-backup.ts'
import { byUuid, replaceRecord } from './model.ts'
import type { Plex } from './runtime.ts'
import type { SetDrive } from './set-drive.ts'
import type { VinumSet } from './vinum-set.ts'

type GrowthCommits = Pick<GrowOptions, 'backupAreas' | 'readElsewhere' | 'commitGrowth'>

/** Where the growth of a plex keeps its backups, and how its progress becomes durable. */
export function growthCommits(set: VinumSet, plex: Plex): GrowthCommits {
  const { uuid, volumeUuid } = plex.record
  const volume = volumeUuid === undefined ? undefined : set.objects.volumes.get(volumeUuid)
  const hasOthers = volume !== undefined && volume.plexes.length > 1
  return {
    backupAreas: () => backupAreasOf(set.drives),
    readElsewhere: hasOthers
      ? (offset, into) => volume.io.readExcept(plex, offset, into)
      : undefined,
    async commitGrowth(growth) {
      await set.commit((model) => {
        const now = byUuid(model.plexes, uuid)
        if (!now) return model
        return { ...model, plexes: replaceRecord(model.plexes, { ...now, growth }) }
      })
    },
  }
}

/** Journal areas of the drives that are there, the largest first. */
function backupAreasOf(drives: ReadonlyMap<string, SetDrive>): readonly BackupArea[] {
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
