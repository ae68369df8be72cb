/**
 * The answers that the daemon gives: what `--json` prints and what the command line renders. Bytes and seconds
 * are plain numbers, times ISO 8601; keys are only ever added (minor), never changed (major). Made by the
 * engine and the daemon, read by the command line.
 */

/** First in every answer. */
export interface OutputVersion {
  readonly command: string
  readonly major: number
  readonly minor: number
}

export type Health = 'HEALTHY' | 'DEGRADED' | 'FAULTED'

export const VINUM_JOB_KINDS = [
  'sync',
  'resync',
  'rebuild',
  'initialise',
  'check',
  'repair',
  'grow',
  'move',
] as const
export type VinumJobKind = (typeof VINUM_JOB_KINDS)[number]
export const JOB_KINDS = [...VINUM_JOB_KINDS, 'trim'] as const
export type JobKind = (typeof JOB_KINDS)[number]
export type JobState = 'running' | 'paused' | 'done' | 'failed' | 'cancelled'

export interface JobReport {
  readonly id: string
  readonly kind: JobKind
  /** Name of the volume, plex or subdisk that it works on. */
  readonly object: string
  /** The volume above, if there is one: what `plexus wait` looks for. */
  readonly volume: string | undefined
  readonly state: JobState
  readonly doneBytes: number
  readonly totalBytes: number
  readonly bytesPerSecond: number
  readonly etaSeconds: number | undefined
  /** undefined: none of its own. */
  readonly limitBytesPerSecond: number | undefined
  /** Why it failed. */
  readonly error: string | undefined
  /** What a check found: number of mismatches. */
  readonly mismatches: number
}

export interface ErrorCounts {
  readonly read: number
  readonly write: number
  readonly parity: number
}

/** A line of the tree under a volume: plex, subdisk; component of a thin device. */
export interface ComponentReport {
  readonly type: 'plex' | 'subdisk' | 'component'
  readonly name: string
  readonly uuid: string
  readonly state: string
  readonly sizeBytes: number
  readonly errors: ErrorCounts
  /** For people: `raid5, 256 KiB stripe`, `gone since 14:02:11`. */
  readonly note: string
  /** Plex: organisation and geometry. */
  readonly organization?: string
  readonly stripeBytes?: number
  readonly columns?: number
  /** Subdisk: where it lies. */
  readonly drive?: string
  readonly device?: string | undefined
  readonly driveOffsetBytes?: number
  readonly children: readonly ComponentReport[]
}

/** Where copies, or data and parity, may not agree since a crash or a write that failed. */
export interface DoubtReport {
  readonly bytes: number
  /** Until the next resync begins; undefined: it runs, or nothing is planned. */
  readonly retrySeconds: number | undefined
}

export const WATERMARKS = ['chunks', 'components'] as const
export type Watermark = (typeof WATERMARKS)[number]

/** Of a device that offers more than it has. */
export interface SpaceReport {
  readonly totalBytes: number
  readonly usedBytes: number
  /** What can be given now: nothing of a component that is missing. */
  readonly freeBytes: number
  /** It warns with so much free, or less. */
  readonly warnBytes: number
  /** What has run low. `chunks`: free space. `components`: those that are still empty. */
  readonly low: readonly Watermark[]
}

export interface VolumeReport {
  readonly name: string
  readonly uuid: string
  readonly className: string
  /** Name of the set of drives that it is on. */
  readonly set: string
  /** UP, DEGRADED, SYNCING, DOWN …; health is the sum of it. */
  readonly state: string
  readonly health: Health
  readonly sizeBytes: number
  /** `raid5 over 4 drives of 1.82 TiB, 1 missing`. */
  readonly layout: string
  /** What is the matter, in sentences; empty when healthy. */
  readonly status: string
  /** What to type next; empty when there is nothing to do. */
  readonly action: string
  readonly errors: ErrorCounts
  readonly process: JobReport | undefined
  /** undefined: nothing is. */
  readonly doubt: DoubtReport | undefined
  /** Thin devices that are served. */
  readonly space?: SpaceReport | undefined
  readonly components: readonly ComponentReport[]
  /** LUNs that lead here: filled by the daemon. */
  readonly exported: readonly ExportReport[]
}

/** Something beside the volumes that wants attention. */
export interface ProblemReport {
  readonly object: string
  readonly health: Health
  readonly message: string
  /** What to type next. */
  readonly action: string
  /** Volumes that are not there because of it. */
  readonly volumes?: readonly string[]
}

export interface ExportReport {
  readonly target: string
  readonly lun: number
  readonly sessions: readonly string[]
}

export interface DriveReport {
  readonly name: string
  readonly uuid: string
  readonly state: string
  /** Device of the configuration that carries it now. */
  readonly device: string | undefined
  /** The one that carried it last. */
  readonly lastDevice?: string
  readonly sizeBytes: number
  readonly freeBytes: number
  readonly freeList: readonly { readonly offset: number; readonly length: number }[]
  readonly errors: ErrorCounts
  readonly format: 'native' | 'freebsd'
  readonly set: string
  readonly note: string
}

/** What a geom says of itself, for `plexus tree` and `geom list`. */
export interface GeomReport {
  readonly className: string
  readonly name: string
  /** Names of the providers below and above. */
  readonly consumers: readonly string[]
  readonly providers: readonly string[]
  readonly state: string
}

export interface EventReport {
  /** ISO 8601. */
  readonly time: string
  readonly sequence: number
  /** `drive-down`, `rebuild-started`, … in kebab-case. */
  readonly event: string
  readonly severity: 'info' | 'warning' | 'critical'
  readonly object: string
  readonly message: string
}

/** One thing that a verb does or would do. */
export interface PlanStep {
  /** Imperative: `create volume db`, `write label on d1 (/dev/sdb)`. */
  readonly text: string
  readonly object: string
}

/** The answer of every verb that changes something. */
export interface PlanReport {
  readonly dryRun: boolean
  readonly steps: readonly PlanStep[]
  readonly warnings: readonly string[]
  /** Foreign data that is overwritten: `ext4 "home" on d6 (/dev/sdg)`. */
  readonly wipes?: readonly PlanStep[]
  /** Jobs that were started. */
  readonly jobs: readonly JobReport[]
}
