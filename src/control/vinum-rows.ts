/**
 * The rows that the listing verbs of vinum answer with (docs/vinum.md, 6, "List columns"): made by
 * src/engine/vinum/verbs/list.ts, rendered by the command line. Bytes are plain numbers; every row has all
 * its facts, and the command line chooses columns.
 */
import type { ByteRange } from '../base/bytes.ts'
import type { Health, JobKind } from './reports.ts'

export interface DriveRow {
  readonly type: 'drive'
  readonly name: string
  readonly uuid: string
  /** Name of the set of drives that it belongs to. */
  readonly set: string
  readonly state: string
  /** The configured device that carries it; `???` while no device is known for it. */
  readonly device: string
  readonly present: boolean
  /** Of the data area. */
  readonly sizeBytes: number
  readonly freeBytes: number
  readonly mediaBytes: number
  readonly blockBytes: number
  readonly subdisks: number
  /** Only when it was asked for. */
  readonly freeList?: readonly ByteRange[]
}

export interface VolumeRow {
  readonly type: 'volume'
  readonly name: string
  readonly uuid: string
  /** Name of the set of drives that it belongs to. */
  readonly set: string
  readonly state: string
  readonly health: Health
  readonly plexes: number
  readonly sizeBytes: number
  readonly readPolicy: string
  /** For `prefer`. */
  readonly preferredPlex: string | undefined
  readonly open: boolean
}

/** A job that works on an object. */
export interface ProcessRow {
  readonly id: string
  readonly kind: JobKind
  readonly paused: boolean
  /** At its last checkpoint. */
  readonly doneBytes: number
  readonly totalBytes: number
}

export interface PlexRow {
  readonly type: 'plex'
  readonly name: string
  readonly uuid: string
  /** Name of the set of drives that it belongs to. */
  readonly set: string
  /** undefined: detached. */
  readonly volume: string | undefined
  readonly organization: string
  /** 0 for concat. */
  readonly stripeBytes: number
  /** raid5 only. */
  readonly parityLayout: string | undefined
  readonly state: string
  readonly subdisks: number
  readonly sizeBytes: number
  readonly process: ProcessRow | undefined
}

export interface SubdiskRow {
  readonly type: 'subdisk'
  readonly name: string
  readonly uuid: string
  /** Name of the set of drives that it belongs to. */
  readonly set: string
  /** undefined: detached. */
  readonly plex: string | undefined
  readonly drive: string
  readonly state: string
  readonly sizeBytes: number
  readonly plexOffsetBytes: number
  readonly driveOffsetBytes: number
  /** The drive that a move copies it to. */
  readonly movingTo: string | undefined
  readonly process: ProcessRow | undefined
}

/** The answer of `vinum list` and its kin, and of `volume list` and `volume show`. */
export interface VinumListing {
  readonly drives: readonly DriveRow[]
  readonly volumes: readonly VolumeRow[]
  readonly plexes: readonly PlexRow[]
  readonly subdisks: readonly SubdiskRow[]
}

/** The answer of `vinum printconfig`. */
export interface ConfigText {
  readonly text: string
}
