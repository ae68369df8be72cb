/**
 * The vinum configuration as data: an immutable snapshot of all drives, subdisks, plexes, volumes and
 * unfinished jobs of one set of drives. It is what the on-disk slots hold (codec.ts), what verbs compute
 * (verbs/, pure), and what the running objects are built from (vinum-set.ts). Objects refer to each other by
 * UUID; names are labels, unique over all types of a set. docs/vinum.md, 1 and 9.
 */
import { VINUM_JOB_KINDS } from '../../../control/reports.ts'
import {
  flag,
  list,
  maybe,
  oneOf,
  type RecordOf,
  record,
  text,
  whole,
} from '../../metadata/fields.ts'
import { appended, byUuid, having, replaceRecord } from '../../metadata/lists.ts'
import { type DriveRecord, emptySet, SET } from '../../metadata/set-model.ts'
import { dataColumns, isStriped, ORGANIZATIONS } from './plex-kinds.ts'

export { byUuid, replaceRecord } from '../../metadata/lists.ts'
export { DRIVE_STATES, type DriveRecord, type DriveState } from '../../metadata/set-model.ts'

export const SUBDISK_STATES = ['down', 'stale', 'initializing', 'reviving', 'up'] as const
export const PLEX_STATES = ['down', 'initializing', 'degraded', 'growable', 'up'] as const
export const VOLUME_STATES = ['down', 'up'] as const
export type SubdiskState = (typeof SUBDISK_STATES)[number]
export type PlexState = (typeof PLEX_STATES)[number]
export type VolumeState = (typeof VOLUME_STATES)[number]

/** left-asymmetric is vinum's; left-symmetric (md's default) spreads sequential reads over all columns. */
export const PARITY_LAYOUTS = ['left-asymmetric', 'left-symmetric'] as const
export type ParityLayout = (typeof PARITY_LAYOUTS)[number]
export const READ_POLICIES = ['round-robin', 'prefer', 'least-queue'] as const
export type ReadPolicy = (typeof READ_POLICIES)[number]

/** A live copy of a subdisk to another place. The old place stays the subdisk's until the end. */
const MOVE = { driveUuid: text, driveOffsetBytes: whole }

export const COPY_BACKS = ['manual', 'automatic'] as const
export const ORIGIN_COPY_BACKS = ['by-pool', 'wanted', 'held'] as const

/** Of a subdisk on a spare: the place that it comes from, which is kept for it. */
const ORIGIN = {
  driveUuid: text,
  driveOffsetBytes: whole,
  /**
   * When it is copied back. by-pool: as its pool says, once the drive is back. wanted: as soon as it can be, since somebody
   * asked for it or replaced the drive. held: not by itself, since the drive failed while it was here.
   */
  copyBack: oneOf(ORIGIN_COPY_BACKS),
}
export type OriginRecord = RecordOf<typeof ORIGIN>

const SUBDISK = {
  uuid: text,
  name: text,
  driveUuid: text,
  /** undefined: detached. */
  plexUuid: maybe(text),
  sizeBytes: whole,
  /** Absolute on the device. */
  driveOffsetBytes: whole,
  /** concat: where it begins in the plex. striped, raid5: column * stripe; its order is the order of columns. */
  plexOffsetBytes: whole,
  state: oneOf(SUBDISK_STATES),
  move: maybe(record(MOVE)),
  origin: maybe(record(ORIGIN)),
}
export type SubdiskRecord = RecordOf<typeof SUBDISK>

/** A restripe to more columns. Rows below the cursor have the new layout, the others the old one. */
const GROWTH = {
  /** Columns of the old layout: the first ones in column order. */
  columnsBefore: whole,
  /** Bytes of plex space (data) that have moved. A multiple of the new row's data. */
  cursorBytes: whole,
  /**
   * A window whose old place is being overwritten: its data is also in the journal areas of these drives, at
   * the journal's start, and is written from there again after a crash.
   */
  backup: maybe(
    record({ offsetBytes: whole, lengthBytes: whole, driveUuids: list(text), crc32c: whole }),
  ),
}
export type GrowthRecord = RecordOf<typeof GROWTH>

/** A part of a column of raid5 whose content is not known: reads of it fail until it is written again. */
const LOST = {
  column: whole,
  /** In column space. */
  offsetBytes: whole,
  lengthBytes: whole,
  /** The subdisk that still has the content, if there is one: its return makes the range known again. */
  keptBy: maybe(text),
}
export type LostRange = RecordOf<typeof LOST>

const PLEX = {
  uuid: text,
  name: text,
  /** undefined: detached. */
  volumeUuid: maybe(text),
  organization: oneOf(ORGANIZATIONS),
  /** 0 for concat. */
  stripeBytes: whole,
  /** raid5 only. */
  parityLayout: maybe(oneOf(PARITY_LAYOUTS)),
  state: oneOf(PLEX_STATES),
  /** raid5: parity is right in rows wholly below this offset of plex space; at least the size when all is. */
  parityValidBytes: whole,
  growth: maybe(record(GROWTH)),
  /** raid5: by column and offset, disjoint (raid5/lost.ts). Undefined: nothing is lost. */
  lost: maybe(list(record(LOST))),
}
export type PlexRecord = RecordOf<typeof PLEX>

/** Places where copies, or data and parity, do not agree, as a check found them. `time`: when it ended, as events have it. */
const MISMATCH = { count: whole, time: text }
export type MismatchRecord = RecordOf<typeof MISMATCH>

const VOLUME = {
  uuid: text,
  name: text,
  state: oneOf(VOLUME_STATES),
  /** The size that initiators see: fixed by the last transaction that changed it. */
  sizeBytes: whole,
  readPolicy: oneOf(READ_POLICIES),
  /** For `prefer`. */
  preferredPlexUuid: maybe(text),
  /** Its pair of 4 KiB blocks in the map area of each of its drives (map-slots.ts); unique in the set. */
  mapSlot: whole,
  /** Pairs for the further blocks of a large volume. */
  moreMapSlots: maybe(list(whole)),
  /** Since the last check or repair that ended without any left. */
  mismatches: maybe(record(MISMATCH)),
  /** Where it takes spares from. */
  sparePoolUuid: maybe(text),
}
export type VolumeRecord = RecordOf<typeof VOLUME>

/** A drive that stands ready for others. What else there is to know of it follows from what lies on it (spares.ts). */
const SPARE = {
  driveUuid: text,
  /** Why it must not be used, until somebody says otherwise. */
  broken: maybe(text),
}
export type SpareRecord = RecordOf<typeof SPARE>

/** Spares for the volumes that name it. A spare may be in several pools. */
const POOL = {
  uuid: text,
  name: text,
  /** The oldest first. */
  driveUuids: list(text),
  /** How long a column has to be out of service before a spare takes its place. */
  delaySeconds: whole,
  /** Is a column copied back by itself when its own drive returns? */
  copyBack: oneOf(COPY_BACKS),
}
export type PoolRecord = RecordOf<typeof POOL>

const JOB = {
  /** Short, unique in the set; stays the same after a restart. */
  id: text,
  kind: oneOf(VINUM_JOB_KINDS),
  /** Plex, volume or subdisk. */
  targetUuid: text,
  /** Everything below is done, in the address space of the target (plex or volume bytes; subdisk bytes for move). */
  cursorBytes: whole,
  /** dirty: only what the intent map names. */
  scope: oneOf(['all', 'dirty']),
  paused: flag,
  limitBytesPerSecond: maybe(whole),
  /** check, repair: mismatches found so far. */
  mismatches: whole,
}
export type JobRecord = RecordOf<typeof JOB>

export const MODEL = {
  ...SET,
  subdisks: list(record(SUBDISK)),
  plexes: list(record(PLEX)),
  volumes: list(record(VOLUME)),
  jobs: list(record(JOB)),
  spares: maybe(list(record(SPARE))),
  pools: maybe(list(record(POOL))),
}
export interface VinumModel extends RecordOf<typeof MODEL> {}

/** The list of the model that holds each type of object. */
export const LIST_OF = {
  volume: 'volumes',
  plex: 'plexes',
  subdisk: 'subdisks',
  drive: 'drives',
} as const
export type ObjectType = keyof typeof LIST_OF
export const OBJECT_TYPES = Object.keys(LIST_OF) as ObjectType[]

/** What each list of a model holds. */
export interface Records {
  readonly volumes: VolumeRecord
  readonly plexes: PlexRecord
  readonly subdisks: SubdiskRecord
  readonly drives: DriveRecord
}
export type Lists = { readonly [L in keyof Records]: readonly Records[L][] }
export type RecordOfType<T extends ObjectType> = Records[(typeof LIST_OF)[T]]

/** An object of whatever type. */
export type ModelObject = {
  readonly [T in ObjectType]: { readonly type: T; readonly record: RecordOfType<T> }
}[ObjectType]

type Named = { readonly uuid: string; readonly name: string }

/** The records of a type, as far as all types are alike. */
export function recordsOf(model: VinumModel, type: ObjectType): readonly Named[] {
  return model[LIST_OF[type]]
}

/** All volumes, plexes, subdisks and drives. */
export function objectsOf(model: VinumModel): readonly ({ readonly type: ObjectType } & Named)[] {
  return OBJECT_TYPES.flatMap((type) =>
    recordsOf(model, type).map(({ uuid, name }) => ({ type, uuid, name })),
  )
}

/** The object with this name or UUID, whatever its type. */
export function findBy(
  model: VinumModel,
  field: 'name' | 'uuid',
  value: string,
): ModelObject | undefined {
  for (const type of OBJECT_TYPES) {
    const [record] = having(recordsOf(model, type), field, value)
    if (record) return { type, record } as ModelObject
  }
  return undefined
}

/** The model with one record more. */
export function addRecord<L extends keyof Records>(
  model: VinumModel,
  list: L,
  record: Records[L],
): VinumModel {
  const lists: Lists = model
  return { ...model, [list]: appended(lists[list], record) }
}

/** The model with this record in the place of the one with its UUID. */
export function putRecord<L extends keyof Records>(
  model: VinumModel,
  list: L,
  record: Records[L],
): VinumModel {
  const lists: Lists = model
  return { ...model, [list]: replaceRecord(lists[list], record) }
}

/** The model with the records of a list as `change` makes them; the same object when nothing changes. */
export function mapRecords<L extends keyof Records>(
  model: VinumModel,
  list: L,
  change: (record: Records[L]) => Records[L],
): VinumModel {
  const records: readonly Records[L][] = (model as Lists)[list]
  const changed = records.map(change)
  const isSame = changed.every((one, index) => one === records[index])
  return isSame ? model : { ...model, [list]: changed }
}

/** The configuration of a set that has nothing yet. */
export function emptyModel(setUuid: string): VinumModel {
  return {
    ...emptySet(setUuid),
    subdisks: [],
    plexes: [],
    volumes: [],
    jobs: [],
    spares: undefined,
    pools: undefined,
  }
}

/** Subdisks of a plex in order: concat by address, striped and raid5 by column. */
export function subdisksOf(model: VinumModel, plexUuid: string): readonly SubdiskRecord[] {
  const subdisks = having(model.subdisks, 'plexUuid', plexUuid)
  return [...subdisks].sort((a, b) => a.plexOffsetBytes - b.plexOffsetBytes)
}

/** Plexes of a volume in the order of the configuration: p0 first. */
export function plexesOf(model: VinumModel, volumeUuid: string): readonly PlexRecord[] {
  return having(model.plexes, 'volumeUuid', volumeUuid)
}

/** All subdisks of a volume. */
export function subdisksBelow(model: VinumModel, volumeUuid: string): readonly SubdiskRecord[] {
  return plexesOf(model, volumeUuid).flatMap(({ uuid }) => subdisksOf(model, uuid))
}

/** The volume above a subdisk, or undefined for a detached one. */
export function volumeAbove(
  model: VinumModel,
  { plexUuid }: Pick<SubdiskRecord, 'plexUuid'>,
): VolumeRecord | undefined {
  return byUuid(model.volumes, byUuid(model.plexes, plexUuid)?.volumeUuid)
}

/** Columns that count for the size: without those that a growth is still adding. */
export function sizeOfPlex(plex: PlexRecord, subdisks: readonly SubdiskRecord[]): number {
  const first = subdisks[0]
  if (!first) return 0
  if (!isStriped(plex)) {
    return Math.max(...subdisks.map((one) => one.plexOffsetBytes + one.sizeBytes))
  }
  const columns = plex.growth?.columnsBefore ?? subdisks.length
  return Math.max(0, dataColumns(plex, columns)) * first.sizeBytes
}

/** Does a column hold data of a plex that grows? Until the first window is moved, new ones hold nothing. */
export function holdsData(
  { cursorBytes, columnsBefore, backup }: GrowthRecord,
  column: number,
): boolean {
  return cursorBytes > 0 || backup !== undefined || column < columnsBefore
}
