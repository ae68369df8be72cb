/** What the log of a raid5 plex (log/plex-log.ts) asks of its set: rings on the drives, runs, flushes. */
import { operatingError, Refusals, toPlexusError } from '../../../base/errors.ts'
import { uuidBytes } from '../../../base/random.ts'
import { flush } from '../../../hal/io.ts'
import type { AnchoredDevice } from '../../anchor/anchored-device.ts'
import type { SetDrive } from '../../metadata/set-drive.ts'
import type { LogHost } from '../log/plex-log.ts'
import type { RingRegion } from '../log/ring.ts'
import { allotRings, hasLog, nextRun } from '../model/log-rings.ts'
import { byUuid, type PlexRecord, putRecord, type RingPlace } from '../model/model.ts'
import type { Plex } from '../runtime.ts'
import type { VinumSet } from './vinum-set.ts'

/** A ring in the journal area of a drive. undefined: the label has no such place. */
export function regionOf(
  label: AnchoredDevice,
  { offsetBytes, lengthBytes }: RingPlace,
): RingRegion | undefined {
  if (offsetBytes + lengthBytes > label.journalBytes) return undefined
  return {
    bytes: lengthBytes,
    read: (offset, length) => label.readJournal(offsetBytes + offset, length),
    write: (offset, from) => label.writeJournal(offsetBytes + offset, from, { fua: true }),
  }
}

interface Ring {
  readonly label: AnchoredDevice
  readonly place: RingPlace
  readonly departures: number
  readonly region: RingRegion
}

export function logHostOf(set: VinumSet, plex: Plex): LogHost {
  const { uuid } = plex.record
  /** By column: the ring in the place and on the device that it has now. */
  const known: (Ring | undefined)[] = []
  return {
    regionOf(column) {
      const subdisk = plex.subdisks[column]
      const before = known[column]
      // Entries under way keep the ring of a plex whose log is given up.
      const place = subdisk?.record.ring ?? before?.place
      const label = subdisk?.writable ? set.drives.get(place?.driveUuid ?? '')?.label : undefined
      if (!label || !place) return undefined
      const departures = subdisk?.departures ?? 0
      const isSame = before?.label === label && before.place.offsetBytes === place.offsetBytes
      // What it has from before it was out of service must never be written again.
      if (isSame && before.departures === departures) return before.region
      const region = regionOf(label, place)
      known[column] = region && { label, place, departures, region }
      return region
    },
    uuidOf: (column) => uuidBytes(plex.subdisks[column]?.record.uuid ?? ''),
    async beginRun() {
      // What its rings have would not count any more.
      if (plex.awaitsReplay)
        throw new Refusals('write').gone`plex ${plex.record.name} is not replayed yet`
      await set.commit((model) => {
        const record = byUuid(model.plexes, uuid)
        if (record?.logRun === undefined) return model
        const mapDoubts = plex.doubt?.isEmpty ? undefined : true
        const next = { ...record, mapDoubts, logRun: nextRun(record) }
        return allotRings(putRecord(model, 'plexes', next), uuid)
      })
      return byUuid(set.model.plexes, uuid)?.logRun ?? 0
    },
    keepDoubt: () => keepDoubt(set, uuid),
    flush: () => flushColumns(set, plex),
  }
}

async function flushColumns(set: VinumSet, plex: Plex): Promise<void> {
  const drives = new Map<SetDrive, PlexColumns>()
  for (const subdisk of plex.subdisks) {
    const drive = set.drives.get(subdisk.record.driveUuid)
    if (drive && subdisk.writable) drives.set(drive, [...(drives.get(drive) ?? []), subdisk])
  }
  await Promise.all(
    [...drives].map(async ([{ consumer }, columns]) => {
      const error = consumer && (await flush(consumer).catch(operatingError))
      // A drive that fails it has its subdisks out of service by now, where others have the data.
      const stays = columns.some(({ writable, inService }) => writable && inService)
      if (error && stays) throw toPlexusError(error, 'flush', plex.record.name)
    }),
  )
}

/** A start takes what the intent map marks to be in doubt, though the plex has a log. */
export async function keepDoubt(set: VinumSet, plexUuid: string): Promise<void> {
  await set.commit((model) => {
    const record = byUuid(model.plexes, plexUuid)
    if (!record || !hasLog(record) || record.mapDoubts) return model
    return putRecord(model, 'plexes', { ...record, mapDoubts: true })
  })
}

/** Nothing of the plex is in doubt any more: from now on a start takes the word of its log again. */
export async function forgetDoubt(set: VinumSet, plex: Plex): Promise<void> {
  const isOver = (record: PlexRecord | undefined): record is PlexRecord =>
    record?.mapDoubts === true && plex.doubt?.isEmpty === true
  if (!isOver(plex.record)) return
  // The parity that has settled it.
  await flushColumns(set, plex)
  await set.commit((model) => {
    const record = byUuid(model.plexes, plex.record.uuid)
    return isOver(record) ? putRecord(model, 'plexes', { ...record, mapDoubts: undefined }) : model
  })
}

type PlexColumns = Plex['subdisks']
