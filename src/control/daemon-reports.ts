/**
 * The answers of the daemon's own methods, beside those of the engine's classes (reports.ts). Bytes and
 * seconds are plain numbers, times ISO 8601. Made by src/daemon/methods, rendered by the command line.
 */
import type {
  EventReport,
  ExportReport,
  GeomReport,
  Health,
  JobReport,
  ObjectReport,
  OutputVersion,
  PlanReport,
  ProblemReport,
} from './reports.ts'

/** What every answer begins with; the server puts it there. */
export interface Answer {
  readonly outputVersion: OutputVersion
}

export interface StatusReport {
  /** ISO 8601, when this was true. */
  readonly time: string
  readonly version: string
  /** The worst of all that follows. */
  readonly health: Health
  /** Of all classes, or the one that was named with its parts. */
  readonly objects: readonly ObjectReport[]
  readonly problems: readonly ProblemReport[]
  /** Jobs that run or are paused and have no object above them. */
  readonly jobs: readonly JobReport[]
  readonly sessions: number
  /** How the file of the configuration differs from what runs; undefined: it was not asked for. */
  readonly drift: readonly string[] | undefined
}

export interface DeviceReport {
  readonly name: string
  readonly path: string
  readonly state: 'ready' | 'missing'
  /** Why it is missing. */
  readonly reason: string | undefined
  readonly sizeBytes: number | undefined
  readonly blockBytes: number | undefined
  /** Who holds it: `vinum drive d1`, `logical unit db`. */
  readonly holders: readonly string[]
}

/** `device show`: everything that is known of one device. */
export interface DeviceDetails extends DeviceReport {
  readonly wwid: string | undefined
  readonly serial: string | undefined
  readonly vendor: string | undefined
  readonly model: string | undefined
  readonly physicalBlockBytes: number | undefined
  readonly rotational: boolean | undefined
  readonly readOnly: boolean | undefined
  readonly volatileWriteCache: boolean | undefined
  readonly discard: boolean | undefined
  readonly contents: string | undefined
}

/** `device probe`: what is on it, and whether a verb would take it. */
export interface DeviceContents {
  readonly name: string
  readonly path: string
  /** `ext4 "home"`; empty: blank. */
  readonly contents: string
  /** Plexus' own label. */
  readonly label: string
  readonly holders: readonly string[]
  /** A new volume may be made of it without --wipe-signatures. */
  readonly free: boolean
}

export interface TargetReport {
  readonly name: string
  readonly alias: string | undefined
  readonly portals: readonly string[]
  readonly auth: string
  readonly luns: number
  readonly sessions: number
}

export interface LunReport {
  readonly target: string
  readonly lun: number
  /** Name of the provider. */
  readonly volume: string
  readonly state: 'ready' | 'not ready'
  readonly sizeBytes: number | undefined
  readonly blockBytes: number | undefined
  readonly readOnly: boolean
  /** By which initiators know it, whatever it is called: hexadecimal digits, and the unit serial number. */
  readonly naa: string | undefined
  readonly serial: string | undefined
  /** Hosts that are logged in and see it. */
  readonly sessions: readonly string[]
}

export interface SessionReport {
  readonly id: number
  readonly tsih: number
  readonly initiator: string
  /** undefined: discovery. */
  readonly target: string | undefined
  readonly portal: string
  readonly address: string
  readonly user: string | undefined
  readonly commands: number
  readonly outstanding: number
}

/** Counters of one kind of operation since the provider appeared. */
export interface OpCounters {
  readonly operations: number
  readonly bytes: number
  readonly errors: number
  readonly totalMs: number
  /** Operations by latency; upper bounds are {@link StatReport.bucketsUs}, the last one has none. */
  readonly buckets: readonly number[]
}

export interface ProviderCounters {
  readonly name: string
  readonly className: string
  /** 0 for devices, more for what stands on them. */
  readonly rank: number
  readonly inFlight: number
  readonly consumers: readonly { readonly holder: string; readonly inFlight: number }[]
  readonly operations: Readonly<Record<string, OpCounters>>
}

/** What peers hold of the target's memory and places now. At rest nothing is leased or queued. */
export interface TargetLoad {
  readonly pool: {
    readonly totalBytes: number
    readonly freeBytes: number
    /** What disks that do not answer have not returned. */
    readonly keptBytes: number
    /** Leases that are out: data of commands in flight, answers on their way. */
    readonly leased: number
  }
  /** TCP connections, logged in or not. */
  readonly connections: number
  readonly sessions: number
  /** Answers that wait for their initiators, over all connections. */
  readonly sendQueueBytes: number
}

/** A snapshot of all counters. Rates are computed by the reader, between two of them. */
export interface StatReport {
  readonly target: TargetLoad
  /** Monotonic. */
  readonly atMs: number
  readonly bucketsUs: readonly number[]
  readonly providers: readonly ProviderCounters[]
}

export interface TreeProvider {
  readonly name: string
  readonly className: string
  readonly sizeBytes: number
  readonly state: string
  /** An object of a class: the providers that carry its parts. Its geom may stand on more, which carry others. */
  readonly standsOn: readonly string[] | undefined
}

export interface TreeReport {
  readonly providers: readonly TreeProvider[]
  readonly geoms: readonly GeomReport[]
  readonly missing: readonly { readonly name: string; readonly reason: string }[]
  readonly exports: readonly (ExportReport & { readonly provider: string })[]
}

export interface WaitReport {
  /** Nothing of what was asked for runs any more. */
  readonly done: boolean
  readonly jobs: readonly JobReport[]
}

export interface BackupReport {
  readonly path: string
  /** ISO 8601. */
  readonly time: string
  readonly sizeBytes: number
}

/** Answers with a list under one key. */
export type DeviceList = { readonly devices: readonly DeviceReport[] }
export type ProbeList = { readonly devices: readonly DeviceContents[] }
export type JobList = {
  readonly jobs: readonly JobReport[]
  /** Of all jobs together; undefined: none. */
  readonly limitBytesPerSecond?: number | undefined
}
export type EventList = { readonly events: readonly EventReport[] }
export type GeomList = { readonly geoms: readonly GeomReport[] }
export type TargetList = { readonly targets: readonly TargetReport[] }
export type LunList = { readonly luns: readonly LunReport[] }
export type SessionList = { readonly sessions: readonly SessionReport[] }
export type BackupList = { readonly backups: readonly BackupReport[] }
export type DiffReport = { readonly steps: readonly string[]; readonly file: string }
export type NameList = { readonly names: readonly string[] }
export type TextReport = { readonly text: string }
export type { PlanReport, ProblemReport }

/** What the label of a component of a thin device says; what it does not say is absent. */
export interface VirstorLabel {
  readonly device: string
  readonly format: 'native' | 'freebsd'
  /** Why it is not used as it is. */
  readonly problem?: string | undefined
  readonly setUuid?: string
  readonly driveUuid?: string
  readonly drive?: string | undefined
  readonly generation?: number
  readonly mediaBytes: number
  readonly blockBytes?: number
  /** Of the device that it is a component of. */
  readonly name: string | undefined
  readonly uuid?: string | undefined
  /** FreeBSD's. */
  readonly id?: number
  readonly virtualBytes: number | undefined
  readonly chunkBytes: number | undefined
  readonly components: number | undefined
  /** Its own number. */
  readonly component: number | undefined
  readonly startBytes?: number | undefined
  readonly chunks: number | undefined
  /** FreeBSD's: chunks that never hold data. */
  readonly reserved?: number
  /** Of the copy of the map that it carries. */
  readonly mapEpoch?: number | undefined
}

/** The answer of `virstor dump`. */
export interface VirstorDump {
  readonly devices: readonly VirstorLabel[]
}
