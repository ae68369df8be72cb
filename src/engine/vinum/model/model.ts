/**
 * The vinum configuration as data: an immutable snapshot of all drives, subdisks, plexes, volumes and
 * unfinished jobs of one set of drives. It is what the on-disk slots hold (codec.ts), what verbs compute
 * (verbs/, pure), and what the running objects are built from (vinum-set.ts). Objects refer to each other by
 * UUID; names are labels, unique over all types of a set. docs/vinum.md, 1 and 9.
 */
import type { JobKind } from '../../../control/reports.ts'
import type { Commit, CommitId, LineEnd } from '../../geom/anchor-quorum.ts'
import { having } from './lists.ts'

export { byUuid, replaceRecord } from './lists.ts'

export const DRIVE_STATES = ['down', 'up'] as const
export const SUBDISK_STATES = ['down', 'stale', 'initializing', 'reviving', 'up'] as const
export const PLEX_STATES = ['down', 'initializing', 'degraded', 'growable', 'up'] as const
export const VOLUME_STATES = ['down', 'up'] as const
export type DriveState = (typeof DRIVE_STATES)[number]
export type SubdiskState = (typeof SUBDISK_STATES)[number]
export type PlexState = (typeof PLEX_STATES)[number]
export type VolumeState = (typeof VOLUME_STATES)[number]

export const ORGANIZATIONS = ['concat', 'striped', 'raid5'] as const
export type Organization = (typeof ORGANIZATIONS)[number]
/** left-asymmetric is vinum's; left-symmetric (md's default) spreads sequential reads over all columns. */
export const PARITY_LAYOUTS = ['left-asymmetric', 'left-symmetric'] as const
export type ParityLayout = (typeof PARITY_LAYOUTS)[number]
export const READ_POLICIES = ['round-robin', 'prefer', 'least-queue'] as const
export type ReadPolicy = (typeof READ_POLICIES)[number]

export interface DriveRecord {
  readonly uuid: string
  readonly name: string
  /** up: a member whose configuration is current; it votes. down: missing, failed, or taken out. */
  readonly state: DriveState
  /** Name of the configured device that carried it last: a hint for messages, never an identity. */
  readonly device: string
  readonly mediaBytes: number
  readonly blockBytes: number
  /** Where subdisks may lie, absolute on the device. */
  readonly dataStartBytes: number
  readonly dataEndBytes: number
  /** Of a drive that is down: the last commit that counted for certain when it went. What it missed since is known. */
  readonly last: CommitId | undefined
}

/** A live copy of a subdisk to another place. The old place stays the subdisk's until the end. */
export interface MoveRecord {
  readonly driveUuid: string
  readonly driveOffsetBytes: number
}

export interface SubdiskRecord {
  readonly uuid: string
  readonly name: string
  readonly driveUuid: string
  /** undefined: detached. */
  readonly plexUuid: string | undefined
  readonly sizeBytes: number
  /** Absolute on the device. */
  readonly driveOffsetBytes: number
  /** concat: where it begins in the plex. striped, raid5: column * stripe; its order is the order of columns. */
  readonly plexOffsetBytes: number
  readonly state: SubdiskState
  readonly move: MoveRecord | undefined
}

/** A restripe to more columns. Rows below the cursor have the new layout, the others the old one. */
export interface GrowthRecord {
  /** Columns of the old layout: the first ones in column order. */
  readonly columnsBefore: number
  /** Bytes of plex space (data) that have moved. A multiple of the new row's data. */
  readonly cursorBytes: number
  /**
   * A window whose old place is being overwritten: its data is also in the journal areas of these drives, at
   * the journal's start, and is written from there again after a crash.
   */
  readonly backup:
    | {
        readonly offsetBytes: number
        readonly lengthBytes: number
        readonly driveUuids: readonly string[]
        readonly crc32c: number
      }
    | undefined
}

/** A part of a column of raid5 whose content is not known: reads of it fail until it is written again. */
export interface LostRange {
  readonly column: number
  /** In column space. */
  readonly offsetBytes: number
  readonly lengthBytes: number
  /** The subdisk that still has the content, if there is one: its return makes the range known again. */
  readonly keptBy: string | undefined
}

export interface PlexRecord {
  readonly uuid: string
  readonly name: string
  /** undefined: detached. */
  readonly volumeUuid: string | undefined
  readonly organization: Organization
  /** 0 for concat. */
  readonly stripeBytes: number
  /** raid5 only. */
  readonly parityLayout: ParityLayout | undefined
  readonly state: PlexState
  /** raid5: parity is right in rows wholly below this offset of plex space; at least the size when all is. */
  readonly parityValidBytes: number
  readonly growth: GrowthRecord | undefined
  /** raid5: by column and offset, disjoint (raid5/lost.ts). Undefined: nothing is lost. */
  readonly lost: readonly LostRange[] | undefined
}

/** Places where copies, or data and parity, do not agree, as a check found them. */
export interface MismatchRecord {
  readonly count: number
  /** When the check ended, as events have it. */
  readonly time: string
}

export interface VolumeRecord {
  readonly uuid: string
  readonly name: string
  readonly state: VolumeState
  /** The size that initiators see: fixed by the last transaction that changed it. */
  readonly sizeBytes: number
  readonly readPolicy: ReadPolicy
  /** For `prefer`. */
  readonly preferredPlexUuid: string | undefined
  /** Its pair of 4 KiB blocks in the map area of each of its drives (map-slots.ts); unique in the set. */
  readonly mapSlot: number
  /** Pairs for the further blocks of a large volume. */
  readonly moreMapSlots: readonly number[] | undefined
  /** Since the last check or repair that ended without any left. */
  readonly mismatches: MismatchRecord | undefined
}

export interface JobRecord {
  /** Short, unique in the set; stays the same after a restart. */
  readonly id: string
  readonly kind: JobKind
  /** Plex, volume or subdisk. */
  readonly targetUuid: string
  /** Everything below is done, in the address space of the target (plex or volume bytes; subdisk bytes for move). */
  readonly cursorBytes: number
  /** dirty: only what the intent map names. */
  readonly scope: 'all' | 'dirty'
  readonly paused: boolean
  readonly limitBytesPerSecond: number | undefined
  /** check, repair: mismatches found so far. */
  readonly mismatches: number
}

export interface VinumModel {
  readonly setUuid: string
  /** Of the last commit; 0 before the first one. */
  readonly generation: number
  /** What the vote asks of a commit beside its drives (geom/anchor-quorum.ts, {@link Commit}). */
  readonly line: string
  readonly ancestors: readonly LineEnd[]
  readonly votersBefore: Commit['before']
  /** The witness of the machine, while it votes. */
  readonly witness: string | undefined
  readonly drives: readonly DriveRecord[]
  readonly subdisks: readonly SubdiskRecord[]
  readonly plexes: readonly PlexRecord[]
  readonly volumes: readonly VolumeRecord[]
  readonly jobs: readonly JobRecord[]
}

/** The configuration of a set that has nothing yet. */
export function emptyModel(setUuid: string): VinumModel {
  return {
    setUuid,
    generation: 0,
    line: setUuid,
    ancestors: [],
    votersBefore: [],
    witness: undefined,
    drives: [],
    subdisks: [],
    plexes: [],
    volumes: [],
    jobs: [],
  }
}

/** Who votes: the drives that the model calls up, and the witness. */
export function votersOf({ drives, witness }: VinumModel): readonly string[] {
  const up = drives.filter(({ state }) => state === 'up').map(({ uuid }) => uuid)
  return witness === undefined ? up : [...up, witness]
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

/** Columns that count for the size: without those that a growth is still adding. */
export function sizeOfPlex(plex: PlexRecord, subdisks: readonly SubdiskRecord[]): number {
  const first = subdisks[0]
  if (!first) return 0
  if (plex.organization === 'concat') {
    return Math.max(...subdisks.map((one) => one.plexOffsetBytes + one.sizeBytes))
  }
  const columns = plex.growth?.columnsBefore ?? subdisks.length
  return Math.max(0, plex.organization === 'raid5' ? columns - 1 : columns) * first.sizeBytes
}

/** Does a column hold data of a plex that grows? Until the first window is moved, new ones hold nothing. */
export function holdsData(
  { cursorBytes, columnsBefore, backup }: GrowthRecord,
  column: number,
): boolean {
  return cursorBytes > 0 || backup !== undefined || column < columnsBefore
}
