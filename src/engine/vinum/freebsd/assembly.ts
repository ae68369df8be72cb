/**
 * A model made of FreeBSD's drives (docs/vinum.md, 3): pure. The text of the drive that was saved last counts,
 * for geometry and for states alike; the original let the drive that it happened to taste first define the
 * geometry, and took states from any drive that was newer than some other one (8.18). Used by vinum-class.ts.
 */
import { createHash } from 'node:crypto'
import { assert, defined } from '../../../base/assert.ts'
import { alignDown } from '../../../base/bytes.ts'
import { PlexusError } from '../../../base/errors.ts'
import { uuidText } from '../../../base/random.ts'
import {
  type DriveRecord,
  emptyModel,
  type PlexRecord,
  type SubdiskRecord,
  sizeOfPlex,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
} from '../model/model.ts'
import { hasParity, isStriped } from '../model/plex-kinds.ts'
import { derive } from '../model/state-rules.ts'
import {
  FREEBSD_DATA_OFFSET_BYTES,
  type TextPlex,
  type TextSubdisk,
  type TextVolume,
} from '../text/config.ts'
import type { FreebsdDrive } from './format.ts'

const FREEBSD_BLOCK_BYTES = 512

/**
 * The configuration of the drives that are present; those that it names and that are not are down. UUIDs follow
 * from host and names, so that they are the same at every start. The drives that were found come first among the
 * records, in the same order. Throws `corrupt` when two devices carry a drive
 * of one name, when no drive has a text that can be parsed, or when the text contradicts itself; `not-found`
 * without a drive.
 */
export function assembleFreebsd(found: readonly FreebsdDrive[]): VinumModel {
  const drives = found.filter((drive) => !drive.removed)
  refuseTwins(drives)
  const newest = newestOf(drives)
  const plexes = newest.objects.filter((one) => one.type === 'plex')
  const volumes = newest.objects.filter((one) => one.type === 'volume')
  const subdisks = newest.objects.filter((one) => one.type === 'subdisk')
  const setUuid = derivedUuid('set', newest.hostName, ...subdisks.map(({ name }) => name).sort())
  const names = new Names(setUuid)
  const volumeUuids = new Map(volumes.map((one) => [one.name, names.uuid('volume', one.name)]))
  const plexUuids = new Map(plexes.map((one) => [one.name, names.uuid('plex', one.name)]))
  const model: VinumModel = {
    ...emptyModel(setUuid),
    volumes: volumes.map((one, index) => volumeRecord(one, names, index)),
    plexes: plexes.map((one) => plexRecord(one, names, volumeUuids)),
    subdisks: subdisks.map((one) => subdiskRecord(one, names, plexUuids, drives)),
    drives: driveRecords(drives, subdisks, names),
  }
  return derive(withSizes(model))
}

function refuseTwins(drives: readonly FreebsdDrive[]): void {
  const known = new Map<string, FreebsdDrive>()
  for (const drive of drives) {
    const other = known.get(drive.driveName)
    if (other) {
      const why =
        `${other.device} and ${drive.device} both carry FreeBSD's drive "${drive.driveName}": ` +
        'disconnect the one that is a copy, or belongs to another machine'
      throw corrupt(drive.driveName, why)
    }
    known.set(drive.driveName, drive)
  }
}

/** The drive that was saved after all others. Each save writes them one by one, each with its own time. */
function newestOf(drives: readonly FreebsdDrive[]): FreebsdDrive {
  const readable = drives.filter((drive) => drive.configText !== undefined)
  const [newest] = [...readable].sort(
    ({ lastUpdate: a, driveName: nameA }, { lastUpdate: b, driveName: nameB }) =>
      b.seconds - a.seconds ||
      b.microseconds - a.microseconds ||
      // Equal times: any will do, but always the same one.
      (nameA < nameB ? -1 : 1),
  )
  if (newest) return newest
  const [first] = drives
  if (first) {
    const why = first.problem?.message ?? 'nothing could be read'
    throw corrupt(first.driveName, `no drive has a configuration that can be read: ${why}`)
  }
  const message = 'there is no drive of FreeBSD vinum; connect the disks of the FreeBSD machine'
  throw new PlexusError('not-found', { op: 'assemble', subject: 'FreeBSD vinum', message })
}

/** FreeBSD lets a drive and a volume have one name; here names are unique over all types. */
class Names {
  readonly #setUuid: string
  readonly #taken = new Map<string, string>()

  constructor(setUuid: string) {
    this.#setUuid = setUuid
  }

  uuid(type: string, name: string): string {
    return derivedUuid(type, this.#setUuid, name)
  }

  /** The name itself, or with its type behind where another type has it. */
  label(type: string, name: string): string {
    const owner = this.#taken.get(name) ?? type
    if (owner !== type) return this.label(type, `${name}.${type}`)
    this.#taken.set(name, type)
    return name
  }
}

function volumeRecord(text: TextVolume, names: Names, index: number): VolumeRecord {
  return {
    uuid: names.uuid('volume', text.name),
    name: names.label('volume', text.name),
    state: text.state ?? 'down',
    sizeBytes: 0,
    readPolicy: 'round-robin',
    preferredPlexUuid: undefined,
    mapSlot: index,
    moreMapSlots: undefined,
    mismatches: undefined,
    sparePoolUuid: undefined,
  }
}

function plexRecord(
  text: TextPlex,
  names: Names,
  volumeUuids: ReadonlyMap<string, string>,
): PlexRecord {
  return {
    uuid: names.uuid('plex', text.name),
    name: names.label('plex', text.name),
    volumeUuid: text.volume === undefined ? undefined : volumeUuids.get(text.volume),
    organization: text.organization,
    stripeBytes: isStriped(text) ? text.stripeBytes : 0,
    parityLayout: hasParity(text) ? 'left-asymmetric' : undefined,
    state: text.state ?? 'down',
    parityValidBytes: 0,
    lost: undefined,
    growth: undefined,
  }
}

function subdiskRecord(
  text: TextSubdisk,
  names: Names,
  plexUuids: ReadonlyMap<string, string>,
  drives: readonly FreebsdDrive[],
): SubdiskRecord {
  const { sizeBytes, driveOffsetBytes } = text
  const drive = drives.find((one) => one.driveName === text.drive)
  if (sizeBytes === undefined || driveOffsetBytes === undefined) {
    throw corrupt(text.name, `subdisk ${text.name} has no length or no place in FreeBSD's text`)
  }
  if (drive && driveOffsetBytes + sizeBytes > drive.sizeBytes) {
    const why =
      `subdisk ${text.name} ends at byte ${driveOffsetBytes + sizeBytes}, behind the end of ` +
      `${drive.device} (${drive.sizeBytes} bytes): is it the whole disk?`
    throw corrupt(text.name, why)
  }
  // What was not up when it was saved has missed writes, or was never complete; it is not read.
  const state = text.state !== 'up' ? 'stale' : drive ? 'up' : 'down'
  return {
    uuid: names.uuid('subdisk', text.name),
    name: names.label('subdisk', text.name),
    driveUuid: names.uuid('drive', text.drive),
    plexUuid: text.plex === undefined ? undefined : plexUuids.get(text.plex),
    sizeBytes,
    driveOffsetBytes,
    plexOffsetBytes: text.plexOffsetBytes ?? 0,
    state,
    move: undefined,
    origin: undefined,
  }
}

/** The drives that are here, and those that the text only names. */
function driveRecords(
  drives: readonly FreebsdDrive[],
  subdisks: readonly TextSubdisk[],
  names: Names,
): readonly DriveRecord[] {
  const wanted = new Set([
    ...drives.map(({ driveName }) => driveName),
    ...subdisks.map(({ drive }) => drive),
  ])
  return [...wanted].map((name): DriveRecord => {
    const drive = drives.find((one) => one.driveName === name)
    const ends = subdisks
      .filter((one) => one.drive === name)
      .map((one) => (one.driveOffsetBytes ?? 0) + (one.sizeBytes ?? 0))
    const mediaBytes = drive?.sizeBytes ?? Math.max(FREEBSD_DATA_OFFSET_BYTES, ...ends)
    return {
      uuid: names.uuid('drive', name),
      name: names.label('drive', name),
      state: drive ? 'up' : 'down',
      device: drive?.device ?? '',
      mediaBytes,
      blockBytes: FREEBSD_BLOCK_BYTES,
      dataStartBytes: FREEBSD_DATA_OFFSET_BYTES,
      dataEndBytes: alignDown(mediaBytes, FREEBSD_BLOCK_BYTES),
      last: undefined,
    }
  })
}

/** Sizes that follow from the subdisks: equal columns of whole stripes, plexes, volumes. */
function withSizes(model: VinumModel): VinumModel {
  const subdisks = model.subdisks.map((one) => {
    const plex = model.plexes.find(({ uuid }) => uuid === one.plexUuid)
    if (!plex || !isStriped(plex)) return one
    const least = Math.min(...subdisksOf(model, plex.uuid).map(({ sizeBytes }) => sizeBytes))
    return { ...one, sizeBytes: alignDown(least, plex.stripeBytes) }
  })
  const sized = { ...model, subdisks }
  const sizeOf = (plex: PlexRecord) => sizeOfPlex(plex, subdisksOf(sized, plex.uuid))
  const plexes = model.plexes.map((plex) =>
    hasParity(plex) ? { ...plex, parityValidBytes: sizeOf(plex) } : plex,
  )
  const volumes = model.volumes.map((volume) => {
    const own = plexes.filter(({ volumeUuid }) => volumeUuid === volume.uuid).map(sizeOf)
    return { ...volume, sizeBytes: own.length > 0 ? Math.min(...own) : 0 }
  })
  return { ...sized, plexes, volumes }
}

/** A version 8 UUID (RFC 9562, 5.8) from a hash of words: the same words, the same UUID. */
function derivedUuid(...words: readonly string[]): string {
  assert(words.length > 1, 'a derived UUID names what it is of')
  const bytes = createHash('sha256')
    .update(['plexus freebsd vinum', ...words].join('\0'))
    .digest()
  bytes[6] = (defined(bytes[6], 'a byte') & 0x0f) | 0x80
  bytes[8] = (defined(bytes[8], 'a byte') & 0x3f) | 0x80
  return uuidText(bytes)
}

function corrupt(subject: string, message: string): PlexusError {
  return new PlexusError('corrupt', { op: 'assemble', subject, message })
}
