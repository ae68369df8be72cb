/** What vinum reports of its objects (control/reports.ts): volumes with health and advice, plexes, subdisks, drives. */
import { formatSize } from '../../base/bytes.ts'
import { formatTime } from '../../control/duration.ts'
import type { ErrorCounts, Facts, Health, JobReport, ObjectReport } from '../../control/reports.ts'
import type { Provider } from '../geom/provider.ts'
import type { Topology } from '../geom/topology.ts'
import { apartText, fillAction } from '../metadata/arrivals.ts'
import { describeIncomplete } from '../metadata/assembling.ts'
import type { SetDrive } from '../metadata/set-drive.ts'
import { absentSets } from './absent.ts'
import { adviceOf, type DeviceProblem, type Doubt, importedAdvice } from './advice.ts'
import { FreebsdSet } from './freebsd/set.ts'
import { freeExtents, totalBytes } from './model/allocation.ts'
import {
  byUuid,
  type DriveRecord,
  type PlexRecord,
  plexesOf,
  type SubdiskRecord,
  sizeOfPlex,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
} from './model/model.ts'
import { healthOf } from './model/state-rules.ts'
import { shownNames, withShownNames } from './naming.ts'
import type { SetRegistry } from './registry.ts'
import type { VinumSet } from './set/vinum-set.ts'
import { poolReports } from './spare-reports.ts'
import { isPlaceholder } from './verbs/draft.ts'

/** What is said of a set that is assembled, whatever its format. */
interface View {
  readonly name: string
  readonly format: 'native' | 'freebsd'
  /** As it is stored, and as memory knows it. */
  readonly stored: VinumModel
  readonly model: VinumModel
  readonly drives: ReadonlyMap<string, SetDrive>
  readonly subdisks: ReadonlyMap<string, { readonly errors: ErrorCounts }>
  readonly topology: Topology
  /** At work, paused, or ended lately. */
  readonly jobs: readonly JobReport[]
  readonly doubtOf: (volumeUuid: string) => Doubt | undefined
  /** Why a volume is not offered, by its UUID. */
  readonly faults: ReadonlyMap<string, string>
}

const NO_ERRORS: ErrorCounts = { read: 0, write: 0, parity: 0 }

/** All objects; `withFree`: the free extents of each drive, too. */
export function reportSets(registry: SetRegistry, withFree = false): readonly ObjectReport[] {
  const { native, imported, served } = registry
  const shown = shownNames(served)
  const views = served.map((set) =>
    set instanceof FreebsdSet ? viewOfImported(set) : viewOfNative(set, shown),
  )
  return [
    ...views.flatMap((view) => [
      ...view.model.volumes.flatMap((volume) => volumeReports(view, volume)),
      ...view.model.plexes
        .filter(({ volumeUuid }) => volumeUuid === undefined)
        .flatMap((plex) => plexReports(view, plex, undefined)),
      ...view.model.subdisks
        .filter(({ plexUuid }) => plexUuid === undefined)
        .map((subdisk) => subdiskReport(view, subdisk, undefined)),
    ]),
    ...views.flatMap((view) =>
      view.stored.drives.flatMap((drive) => driveReports(view, drive, withFree)),
    ),
    ...views.flatMap(poolReports),
    ...native.flatMap(idleDrives),
    ...(imported && !imported.assembled ? waitingImports(imported) : []),
    ...absentSets(registry),
  ]
}

function viewOfNative(set: VinumSet, shown: ReadonlyMap<string, string>): View {
  const { name, drives, topology, objects } = set
  const { subdisks, jobs } = objects
  return {
    name,
    format: 'native',
    stored: withShownNames(set.model, shown),
    model: withShownNames(objects.present, shown),
    drives,
    subdisks,
    topology,
    jobs: jobsOf(topology),
    doubtOf: (volumeUuid) => jobs.doubtOf(volumeUuid),
    faults: new Map(),
  }
}

function viewOfImported(set: FreebsdSet): View {
  const { name, model, drives, subdisks, topology, faults } = set
  const doubtOf = () => undefined
  const jobs = jobsOf(topology)
  const format = 'freebsd'
  return { name, format, stored: model, model, drives, subdisks, topology, jobs, doubtOf, faults }
}

function jobsOf({ jobs }: Topology): readonly JobReport[] {
  return jobs.list().map((job) => job.report())
}

function isAtWork({ state }: JobReport): boolean {
  return state === 'running' || state === 'paused'
}

/**
 * Drives with a label of a set that takes no part in it: it waits, was taken out, or was used apart from it and does not
 * come back by itself.
 */
function idleDrives(set: VinumSet): readonly ObjectReport[] {
  return [...set.members.values()].map(({ uuid, consumer: { provider } }) => {
    const { name } = provider
    const idle = (state: string, note: string): ObjectReport =>
      idleDrive(provider, { uuid, set: set.name, state, note, facts: { format: 'native' } })
    if (!set.assembled) {
      return idle('WAITING', `${set.name} is not assembled: ${describeIncomplete(set)}`)
    }
    if (!set.drives.has(uuid)) {
      const note = `former drive of ${set.name}; plexus device clear-label ${name} frees it`
      return idle('FORMER', note)
    }
    const [why, action] = [apartText(set, uuid), fillAction(set)]
    const status = `${name} is not used: ${why}.`
    return { ...idle('APART', `${why}; ${action}`), health: 'DEGRADED', status, action }
  })
}

/** A drive that takes no part in anything. */
function idleDrive(
  { name, sizeBytes }: Provider,
  drive: Pick<ObjectReport, 'uuid' | 'set' | 'state' | 'note' | 'facts'>,
): ObjectReport {
  const type = 'drive'
  return {
    ...drive,
    type,
    className: 'vinum',
    name,
    sizeBytes,
    device: name,
    lastDevice: name,
    errors: NO_ERRORS,
  }
}

/** Drives of FreeBSD that contradict each other. They have no UUID but that of an assembled set. */
function waitingImports({ name: set, known, problem }: FreebsdSet): readonly ObjectReport[] {
  return known.flatMap(({ consumer, info }) => {
    if (!consumer) return []
    const note = `FreeBSD's drive ${info.driveName}: ${problem}`
    const facts = { format: 'freebsd' }
    return idleDrive(consumer.provider, { uuid: '', set, state: 'WAITING', note, facts })
  })
}

/** The volume, and what it is made of. */
function volumeReports(view: View, volume: VolumeRecord): readonly ObjectReport[] {
  const { model, drives, topology, format } = view
  const { name, uuid, sizeBytes, readPolicy, preferredPlexUuid } = volume
  const plexes = plexesOf(model, uuid)
  const parts = plexes.flatMap((plex) => plexReports(view, plex, name))
  const fault = view.faults.get(uuid)
  const doubt = view.doubtOf(uuid)
  const health = fault === undefined ? healthOf(model, uuid, doubt !== undefined) : 'FAULTED'
  const jobs = view.jobs.filter(({ parent }) => parent === name)
  const process = jobs.find(isAtWork)
  const failed = jobs.findLast(({ kind, state }) => kind === 'resync' && state === 'failed')
  const bad = plexes
    .flatMap((plex) => subdisksOf(model, plex.uuid))
    .filter((subdisk) => subdisk.state !== 'up')
  const resyncError = failed?.error
  const problemOf = (driveUuid: string): DeviceProblem | undefined => {
    const found = [...topology.providers.values()].find(
      ({ label }) => label?.driveUuid === driveUuid && label.problem,
    )
    return found?.label?.problem && { device: found.name, ...found.label.problem }
  }
  const situation = {
    model,
    volume,
    plexes,
    drives,
    health,
    bad,
    process,
    doubt,
    problemOf,
    resyncError,
  }
  const advice = format === 'freebsd' ? importedAdvice(situation, fault) : adviceOf(situation)
  const preferred = byUuid(model.plexes, preferredPlexUuid)?.name
  const report: ObjectReport = {
    ...common(view, 'volume', volume),
    state: stateText(health, process),
    health,
    sizeBytes,
    note: layoutText(view, model, plexes),
    ...advice,
    errors: sum(parts.filter(({ type }) => type === 'plex')),
    process,
    facts: {
      plexes: plexes.length,
      readPolicy: preferred === undefined ? readPolicy : `${readPolicy} ${preferred}`,
      open: (topology.providers.get(name)?.consumers.size ?? 0) > 0,
      doubtBytes: doubt?.bytes,
      doubtRetrySeconds: doubt?.retrySeconds,
    },
  }
  return [report, ...parts]
}

/** What every object of a set has. */
function common(
  view: View,
  type: string,
  { name, uuid, state }: { readonly name: string; readonly uuid: string; readonly state: string },
) {
  const className = 'vinum'
  return { type, className, name, uuid, set: view.name, state: state.toUpperCase(), note: '' }
}

/** The job at work on a plex or a subdisk itself. */
function processOf({ jobs }: View, name: string): JobReport | undefined {
  return jobs.find((job) => job.object === name && isAtWork(job))
}

const PROCESS_STATE: Readonly<Partial<Record<JobReport['kind'], string>>> = {
  sync: 'SYNCING',
  resync: 'RESYNCING',
  initialise: 'INITIALISING',
  grow: 'GROWING',
}

function stateText(health: Health, process: JobReport | undefined): string {
  if (health === 'FAULTED') return 'DOWN'
  const working = process && PROCESS_STATE[process.kind]
  if (working !== undefined) return working
  return health === 'DEGRADED' ? 'DEGRADED' : 'UP'
}

function layoutText(set: View, model: VinumModel, plexes: readonly PlexRecord[]): string {
  const subdisks = plexes.flatMap((plex) => subdisksOf(model, plex.uuid))
  const drives = new Set(subdisks.map(({ driveUuid }) => driveUuid))
  const missing = [...drives].filter((uuid) => !(set.drives.get(uuid)?.present ?? false)).length
  const kinds = plexes.map((plex) => plex.organization)
  const same = kinds.every((kind) => kind === kinds[0])
  const kind =
    plexes.length === 0
      ? 'no plex'
      : plexes.length === 1
        ? (kinds[0] ?? '')
        : `mirror of ${same ? `${plexes.length} ${kinds[0]} plexes` : kinds.join(' and ')}`
  const largest = Math.max(0, ...subdisks.map(({ sizeBytes }) => sizeBytes))
  const over = `${drives.size} drive${drives.size === 1 ? '' : 's'}`
  const lack = missing === 0 ? '' : `, ${missing} missing`
  return subdisks.length === 0 ? kind : `${kind} over ${over} of ${formatSize(largest)}${lack}`
}

/** The plex, and its subdisks. */
function plexReports(
  view: View,
  plex: PlexRecord,
  parent: string | undefined,
): readonly ObjectReport[] {
  const { name, organization, stripeBytes, parityLayout } = plex
  const subdisks = subdisksOf(view.model, plex.uuid)
  const parts = subdisks.map((subdisk) => subdiskReport(view, subdisk, name))
  const stripe = stripeBytes === 0 ? '' : `, ${formatSize(stripeBytes)} stripe`
  const report: ObjectReport = {
    ...common(view, 'plex', plex),
    parent,
    sizeBytes: sizeOfPlex(plex, subdisks),
    errors: sum(parts),
    note: `${organization}${stripe}`,
    process: processOf(view, name),
    facts: {
      organization,
      stripeBytes: stripeBytes || undefined,
      parityLayout,
      subdisks: subdisks.length,
    },
  }
  return [report, ...parts]
}

function subdiskReport(
  view: View,
  subdisk: SubdiskRecord,
  parent: string | undefined,
): ObjectReport {
  const { name, uuid, sizeBytes, driveUuid, driveOffsetBytes, plexOffsetBytes, move } = subdisk
  const { drives } = view.model
  const drive = view.drives.get(driveUuid)
  const since = drive?.goneSince === undefined ? '' : ` since ${formatTime(drive.goneSince)}`
  return {
    ...common(view, 'subdisk', subdisk),
    parent,
    sizeBytes,
    errors: { ...(view.subdisks.get(uuid)?.errors ?? NO_ERRORS) },
    note: drive?.present ? '' : `gone${since}`,
    process: processOf(view, name),
    drive: byUuid(drives, driveUuid)?.name ?? driveUuid,
    device: drive?.consumer?.provider.name,
    facts: {
      plexOffsetBytes,
      driveOffsetBytes,
      movingTo: byUuid(drives, move?.driveUuid)?.name,
    },
  }
}

function driveReports(view: View, record: DriveRecord, withFree: boolean): readonly ObjectReport[] {
  const { name, uuid, mediaBytes, blockBytes } = record
  const drive = view.drives.get(uuid)
  const present = drive?.present ?? false
  const free = freeExtents(view.stored, record)
  const freeBytes = totalBytes(free)
  const sizeBytes = record.dataEndBytes - record.dataStartBytes
  const lastDevice = isPlaceholder(record) ? '???' : record.device
  const facts: Facts = {
    freeBytes,
    freePercent: sizeBytes > 0 ? Math.floor((freeBytes / sizeBytes) * 100) : 0,
    subdisks: view.stored.subdisks.filter(({ driveUuid }) => driveUuid === uuid).length,
    present,
    mediaBytes,
    blockBytes,
    format: view.format,
  }
  const report: ObjectReport = {
    ...common(view, 'drive', record),
    ...(present ? {} : { state: 'DOWN', note: `missing; last seen as ${lastDevice}` }),
    sizeBytes,
    device: drive?.consumer?.provider.name,
    lastDevice,
    errors: { ...(drive?.errors ?? NO_ERRORS) },
    facts,
  }
  const extents = free.map(({ offset, length }): ObjectReport => {
    const extent = { name: `${name}+${offset}`, uuid: '', state: 'FREE' }
    const facts = { offsetBytes: offset }
    return { ...common(view, 'free', extent), parent: name, sizeBytes: length, facts }
  })
  return withFree ? [report, ...extents] : [report]
}

function sum(parts: readonly ObjectReport[]): ErrorCounts {
  return parts.reduce(
    (total, { errors = NO_ERRORS }) => ({
      read: total.read + errors.read,
      write: total.write + errors.write,
      parity: total.parity + errors.parity,
    }),
    NO_ERRORS,
  )
}
