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
/** Of thin devices: empties components that leave; fills all evenly. Both are in the configuration. */
export const VIRSTOR_JOB_KINDS = ['evacuate', 'rebalance'] as const
export const JOB_KINDS = [...VINUM_JOB_KINDS, ...VIRSTOR_JOB_KINDS, 'trim'] as const
export type JobKind = (typeof JOB_KINDS)[number]
export type JobState = 'running' | 'paused' | 'done' | 'failed' | 'cancelled'

export interface JobReport {
  readonly id: string
  readonly kind: JobKind
  /** Name of what it works on. */
  readonly object: string
  /** The object above it, if there is one: what `plexus wait` looks for. */
  readonly parent: string | undefined
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

export const WATERMARKS = ['chunks', 'components'] as const
export type Watermark = (typeof WATERMARKS)[number]

/** What a class says of an object beside what all have; keys in camelCase with the unit last. */
export type Fact = string | number | boolean | undefined
export type Facts = Readonly<Record<string, Fact>>

/**
 * One object of a class: a volume, a plex, a drive, a thin device. Whoever shows it need not know the class: health and advice
 * stand in the object, what only its class knows in `facts`, and how these are printed in the columns of its type.
 */
export interface ObjectReport {
  /** Name of its {@link ObjectType}. */
  readonly type: string
  readonly className: string
  readonly name: string
  /** Empty: it has none. */
  readonly uuid: string
  /** Name of the set of drives that it is on. */
  readonly set?: string | undefined
  /** Name of the object of its class that it is a part of; undefined: it stands by itself. */
  readonly parent?: string | undefined
  /** In capitals: UP, DEGRADED, SYNCING, DOWN … */
  readonly state: string
  /** The sum of its parts, of an object that `plexus status` tells of by itself; undefined: its parent has it. */
  readonly health?: Health
  readonly sizeBytes: number
  /** For people: `raid5 over 4 drives of 1.82 TiB, 1 missing`, `gone since 14:02:11`. */
  readonly note: string
  /** What is the matter, in sentences; empty or undefined when it is healthy. */
  readonly status?: string
  /** What to type next; empty or undefined when there is nothing to do. */
  readonly action?: string
  readonly errors?: ErrorCounts
  /** The job that works on it, running or paused. */
  readonly process?: JobReport | undefined
  /** The drive that it lies on. */
  readonly drive?: string
  /** The provider that carries it now, and the one that carried it last. */
  readonly device?: string | undefined
  readonly lastDevice?: string
  readonly facts: Facts
  /** LUNs that lead here: filled by the daemon. */
  readonly exported?: readonly ExportReport[]
}

/** A column of the table of a type. */
export interface ObjectColumn {
  /** As typed after -o; the heading is the same in capitals. */
  readonly label: string
  /** A key of {@link ObjectReport}, else one of its facts. */
  readonly key: string
  /** How it is written: bytes with their unit unless -p; sizes and numbers stand on the right; a state has its colour. */
  readonly kind?: 'text' | 'size' | 'number' | 'state'
  /** Only shown with -v or when -o names it. */
  readonly extra?: boolean
}

export interface ObjectType {
  /** One word, one meaning over all classes: `volume`, `drive`. */
  readonly name: string
  readonly plural: string
  /** For `plexus list TYPE`. */
  readonly columns: readonly ObjectColumn[]
}

/** The answer of `plexus list` and of the lists of each class. */
export interface ObjectList {
  /** Of the objects, and the one that was asked for. */
  readonly types: readonly ObjectType[]
  readonly objects: readonly ObjectReport[]
}

/** Columns that many types have. */
export const STATE: ObjectColumn = { label: 'state', key: 'state', kind: 'state' }
export const SIZE: ObjectColumn = { label: 'size', key: 'sizeBytes', kind: 'size' }
export const SET_AND_UUID: readonly ObjectColumn[] = [
  { label: 'set', key: 'set', extra: true },
  { label: 'uuid', key: 'uuid', extra: true },
]

/** Something beside the objects of the classes that wants attention. */
export interface ProblemReport {
  readonly object: string
  readonly health: Health
  readonly message: string
  /** What to type next. */
  readonly action: string
}

export interface ExportReport {
  readonly target: string
  readonly lun: number
  readonly sessions: readonly string[]
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
