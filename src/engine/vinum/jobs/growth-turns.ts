/**
 * What a growth needs of its set: the journal areas of the drives for backups, and durable progress (grow.ts).
 */
import { PlexusError } from '../../../base/errors.ts'
import { GROWTH_TURN_MS } from '../../../base/limits.ts'
import type { WriteIntentBitmap } from '../../intent/write-intent-bitmap.ts'
import type { Job } from '../../jobs/job.ts'
import type { SetDrive } from '../../metadata/set-drive.ts'
import { backupBytes } from '../model/log-rings.ts'
import { byUuid, putRecord, type VinumModel } from '../model/model.ts'
import { Raid5Plex } from '../raid5/plex-raid5.ts'
import { resyncStep } from '../raid5/row-jobs.ts'
import type { Plex } from '../runtime.ts'
import type { VinumSet } from '../set/vinum-set.ts'
import type { GrowOptions, Window } from './grow.ts'
import type { BackupArea } from './grow-backup.ts'

/**
 * One window of one growth at a time in a set: all of them put their backups into the same journal areas. They take
 * turns; a plex whose window is in its backup, after a crash or because its drives are gone, keeps the areas until
 * that window is written.
 */
export class GrowthTurns {
  readonly #set: VinumSet
  /** Who works or waits, in order of arrival. */
  readonly #tickets = new Set<object>()
  #busy = false

  constructor(set: VinumSet) {
    this.#set = set
  }

  /** Runs a step of the growth of a plex when it is its turn. Rejects with `aborted` when the job is to park before. */
  async run<T>(plexUuid: string, job: Job, step: () => Promise<T>): Promise<T> {
    const ticket = {}
    this.#tickets.add(ticket)
    try {
      while (!this.#mayGo(plexUuid, ticket)) {
        if (job.parking) throw parkedError(job.id)
        await new Promise<void>((resolve) => this.#set.clock.after(GROWTH_TURN_MS, resolve))
      }
      this.#busy = true
      try {
        return await step()
      } finally {
        this.#busy = false
      }
    } finally {
      this.#tickets.delete(ticket)
    }
  }

  #mayGo(plexUuid: string, ticket: object): boolean {
    if (this.#busy) return false
    const { plexes } = this.#set.model
    const backedUp = plexes.filter(({ growth }) => growth?.backup).map(({ uuid }) => uuid)
    if (backedUp.includes(plexUuid)) return true
    const [first] = this.#tickets
    return first === ticket && backedUp.length === 0
  }
}

function parkedError(job: string): PlexusError {
  const message = `job ${job} was parked while another growth had its turn`
  return new PlexusError('aborted', { op: 'grow', subject: job, message })
}

type GrowthCommits = Pick<
  GrowOptions,
  'contentBytes' | 'announce' | 'backupAreas' | 'commitGrowth' | 'tellStuck'
>

/** Where the growth of a plex keeps its backups, and how its windows and its progress become known durably. */
export function growthCommits(set: VinumSet, plex: Plex): GrowthCommits {
  const { uuid, volumeUuid } = plex.record
  const volume = set.volumeOf(volumeUuid)
  return {
    contentBytes: volume?.record.sizeBytes ?? Number.POSITIVE_INFINITY,
    async announce(window) {
      if (plex instanceof Raid5Plex) await settleRows(plex, window)
      return announce(volume?.map, plex, window)
    },
    tellStuck(text) {
      set.topology.events.emit('critical', 'growth-stuck', plex.record.name, text)
    },
    backupAreas: () => backupAreasOf(set.model, set.drives),
    async commitGrowth(growth) {
      await set.commit((model) => {
        const now = byUuid(model.plexes, uuid)
        return now ? putRecord(model, 'plexes', { ...now, growth }) : model
      })
    },
  }
}

/**
 * Makes the parity of the old rows of a window right where it is in doubt. Nothing is known to be in doubt of a window that
 * has moved: the rest of a row whose beginning has moved must not be computed from a parity that was wrong.
 */
async function settleRows(plex: Raid5Plex, { offsetBytes, lengthBytes }: Window): Promise<void> {
  const end = Math.min(offsetBytes + lengthBytes, plex.sizeBytes)
  for (let at = offsetBytes; at < end; ) {
    const rowEnd = plex.pieceEnd(at)
    if (plex.doubt.touches(at, rowEnd - at)) await resyncStep(plex, at, rowEnd - at)
    at = rowEnd
  }
}

/** A window is a write as far as the map goes, which ends with the content of the volume. */
async function announce(
  map: WriteIntentBitmap | undefined,
  plex: Plex,
  { offsetBytes, lengthBytes }: Window,
): Promise<(whole: boolean) => void> {
  const bytes = Math.min(lengthBytes, (map?.sizeBytes ?? 0) - offsetBytes)
  if (!map || bytes <= 0) return () => {}
  const error = await new Promise<PlexusError | undefined>((intended) => {
    map.enter(offsetBytes, bytes, { intended })
  })
  if (error) map.leave(offsetBytes, bytes)
  if (error) throw error
  return (whole) => {
    if (whole) map.leave(offsetBytes, bytes)
    else {
      plex.doubt?.add(offsetBytes, lengthBytes)
      map.leaveUnsynced(offsetBytes, bytes)
    }
  }
}

/** Journal areas of the drives that are there, the largest first. */
function backupAreasOf(
  model: VinumModel,
  drives: ReadonlyMap<string, SetDrive>,
): readonly BackupArea[] {
  const areas: BackupArea[] = []
  for (const drive of drives.values()) {
    const { label, present, record } = drive
    if (!label || !present || record.state !== 'up' || label.journalBytes === 0) continue
    areas.push({
      driveUuid: record.uuid,
      bytes: backupBytes(model, record.uuid, label.journalBytes),
      read: (offset, length) => label.readJournal(offset, length),
      write: (offset, from) => label.writeJournal(offset, from, { fua: true }),
    })
  }
  return areas.sort((a, b) => b.bytes - a.bytes)
}
