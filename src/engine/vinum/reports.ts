/** The reports of vinum (control/reports.ts): volumes with plexes, subdisks, health and advice; drives with their room. */
import { formatSize } from '../../base/bytes.ts'
import { formatTime } from '../../control/duration.ts'
import type {
  ComponentReport,
  DoubtReport,
  DriveReport,
  ErrorCounts,
  Health,
  JobReport,
  ProblemReport,
  VolumeReport,
} from '../../control/reports.ts'
import type { Provider } from '../geom/provider.ts'
import type { Topology } from '../geom/topology.ts'
import type { ClassReport } from '../geom/types.ts'
import { apartText, fillAction } from '../metadata/arrivals.ts'
import { describeIncomplete } from '../metadata/assembling.ts'
import type { SetDrive } from '../metadata/set-drive.ts'
import { absentProblems } from './absent.ts'
import { adviceOf, type DeviceProblem, importedAdvice } from './advice.ts'
import { FreebsdSet } from './freebsd/set.ts'
import { freeExtents, totalBytes } from './model/allocation.ts'
import {
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

/** What is said of a set that is assembled, whatever its format. */
interface View {
  readonly name: string
  readonly format: DriveReport['format']
  readonly model: VinumModel
  /** As memory knows it. */
  readonly present: VinumModel
  readonly drives: ReadonlyMap<string, SetDrive>
  readonly subdisks: ReadonlyMap<string, { readonly errors: ErrorCounts }>
  readonly topology: Topology
  readonly doubtOf: (volumeUuid: string) => DoubtReport | undefined
  /** Why a volume is not offered, by its UUID. */
  readonly faults: ReadonlyMap<string, string>
}

export function reportSets(registry: SetRegistry): ClassReport {
  const { native, imported, served } = registry
  const shown = shownNames(served)
  const views = served.map((set) =>
    set instanceof FreebsdSet ? viewOfImported(set) : viewOfNative(set, shown),
  )
  return {
    problems: [...absentProblems(registry), ...native.flatMap(apartProblems)],
    volumes: views.flatMap((view) =>
      view.model.volumes.map((volume) => volumeReport(view, view.present, volume)),
    ),
    drives: [
      ...views.flatMap((view) => view.model.drives.map((drive) => driveReport(view, drive))),
      ...native.flatMap(idleDrives),
      ...(imported && !imported.assembled ? waitingImports(imported) : []),
    ],
  }
}

/** Drives that are here and do not come back by themselves, because they were used apart from their set. */
function apartProblems(set: VinumSet): readonly ProblemReport[] {
  if (!set.assembled) return []
  const apart = [...set.members.values()].filter(({ uuid }) => set.drives.has(uuid))
  return apart.map(({ uuid, consumer }) => {
    const { name } = consumer.provider
    const message = `${name} is not used: ${apartText(set, uuid)}.`
    return { object: name, health: 'DEGRADED', volumes: [], message, action: fillAction(set) }
  })
}

function viewOfNative(set: VinumSet, shown: ReadonlyMap<string, string>): View {
  const { name, drives, topology, objects } = set
  const { subdisks, jobs } = objects
  const model = withShownNames(set.model, shown)
  const present = withShownNames(objects.present, shown)
  const doubtOf = (volumeUuid: string) => jobs.doubtOf(volumeUuid)
  const faults = new Map()
  return { name, format: 'native', model, present, drives, subdisks, topology, doubtOf, faults }
}

function viewOfImported(set: FreebsdSet): View {
  const { name, model, drives, subdisks, topology, faults } = set
  const doubtOf = () => undefined
  const format = 'freebsd'
  return { name, format, model, present: model, drives, subdisks, topology, doubtOf, faults }
}

/** Drives with a label of a set that takes no part in it: it waits, was taken out, or was used apart from it. */
function idleDrives(set: VinumSet): readonly DriveReport[] {
  return [...set.members.values()].map(({ uuid, consumer: { provider } }) => {
    const [state, note]: [string, string] = !set.assembled
      ? ['WAITING', `${set.name} is not assembled: ${describeIncomplete(set)}`]
      : set.drives.has(uuid)
        ? ['APART', `${apartText(set, uuid)}; ${fillAction(set)}`]
        : [
            'FORMER',
            `former drive of ${set.name}; plexus device clear-label ${provider.name} frees it`,
          ]
    return idleDrive(provider, uuid, set.name, 'native', state, note)
  })
}

/** A drive that takes no part in anything. */
function idleDrive(
  { name, sizeBytes }: Provider,
  uuid: string,
  set: string,
  format: DriveReport['format'],
  state: string,
  note: string,
): DriveReport {
  const errors = { read: 0, write: 0, parity: 0 }
  return {
    name,
    uuid,
    state,
    device: name,
    sizeBytes,
    freeBytes: 0,
    freeList: [],
    errors,
    format,
    set,
    note,
  }
}

/** Drives of FreeBSD that contradict each other. They have no UUID but that of an assembled set. */
function waitingImports({ known, problem }: FreebsdSet): readonly DriveReport[] {
  return known.flatMap(({ consumer, info }) =>
    consumer
      ? idleDrive(
          consumer.provider,
          '',
          'vinum-freebsd',
          'freebsd',
          'WAITING',
          `FreeBSD's drive ${info.driveName}: ${problem}`,
        )
      : [],
  )
}

/** At work, paused, or ended lately. */
function jobsOf(set: View, volume: VolumeRecord): readonly JobReport[] {
  const reports = set.topology.jobs.list().map((job) => job.report())
  return reports.filter((job) => job.volume === volume.name)
}

function volumeReport(set: View, model: VinumModel, volume: VolumeRecord): VolumeReport {
  const plexes = plexesOf(model, volume.uuid)
  const components = plexes.map((plex) => plexReport(set, model, plex))
  const fault = set.faults.get(volume.uuid)
  const doubt = set.doubtOf(volume.uuid)
  const health = fault === undefined ? healthOf(model, volume.uuid, doubt !== undefined) : 'FAULTED'
  const jobs = jobsOf(set, volume)
  const process = jobs.find(({ state }) => state === 'running' || state === 'paused')
  const failed = jobs.findLast(({ kind, state }) => kind === 'resync' && state === 'failed')
  const bad = plexes
    .flatMap((plex) => subdisksOf(model, plex.uuid))
    .filter((subdisk) => subdisk.state !== 'up')
  const { drives } = set
  const resyncError = failed?.error
  const problemOf = (driveUuid: string): DeviceProblem | undefined => {
    const found = [...set.topology.providers.values()].find(
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
  const isImported = set.format === 'freebsd'
  const { status, action } = isImported ? importedAdvice(situation, fault) : adviceOf(situation)
  return {
    name: volume.name,
    uuid: volume.uuid,
    className: 'vinum',
    set: set.name,
    state: stateText(health, process),
    health,
    sizeBytes: volume.sizeBytes,
    layout: layoutText(set, model, plexes),
    status,
    action,
    errors: sum(components.map(({ errors }) => errors)),
    process,
    doubt,
    components,
    exported: [],
  }
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

function plexReport(set: View, model: VinumModel, plex: PlexRecord): ComponentReport {
  const subdisks = subdisksOf(model, plex.uuid)
  const children = subdisks.map((subdisk) => subdiskReport(set, model, subdisk))
  const stripe = plex.stripeBytes === 0 ? '' : `, ${formatSize(plex.stripeBytes)} stripe`
  return {
    type: 'plex',
    name: plex.name,
    uuid: plex.uuid,
    state: plex.state.toUpperCase(),
    sizeBytes: sizeOfPlex(plex, subdisks),
    errors: sum(children.map(({ errors }) => errors)),
    note: `${plex.organization}${stripe}`,
    organization: plex.organization,
    ...(plex.stripeBytes === 0 ? {} : { stripeBytes: plex.stripeBytes }),
    columns: subdisks.length,
    children,
  }
}

function subdiskReport(set: View, model: VinumModel, subdisk: SubdiskRecord): ComponentReport {
  const drive = set.drives.get(subdisk.driveUuid)
  const running = set.subdisks.get(subdisk.uuid)
  const record = model.drives.find((one) => one.uuid === subdisk.driveUuid)
  return {
    type: 'subdisk',
    name: subdisk.name,
    uuid: subdisk.uuid,
    state: subdisk.state.toUpperCase(),
    sizeBytes: subdisk.sizeBytes,
    errors: { ...(running?.errors ?? { read: 0, write: 0, parity: 0 }) },
    note: drive?.present
      ? ''
      : `gone${drive?.goneSince === undefined ? '' : ` since ${formatTime(drive.goneSince)}`}`,
    drive: record?.name ?? subdisk.driveUuid,
    device: drive?.consumer?.provider.name,
    driveOffsetBytes: subdisk.driveOffsetBytes,
    children: [],
  }
}

function driveReport(set: View, record: DriveRecord): DriveReport {
  const drive = set.drives.get(record.uuid)
  const freeList = freeExtents(set.model, record)
  return {
    name: record.name,
    uuid: record.uuid,
    state: drive?.present ? record.state.toUpperCase() : 'DOWN',
    device: drive?.consumer?.provider.name,
    lastDevice: record.device,
    sizeBytes: record.dataEndBytes - record.dataStartBytes,
    freeBytes: totalBytes(freeList),
    freeList,
    errors: { ...(drive?.errors ?? { read: 0, write: 0, parity: 0 }) },
    format: set.format,
    set: set.name,
    note: drive?.present ? '' : `missing; last seen as ${record.device}`,
  }
}

function sum(counts: readonly ErrorCounts[]): ErrorCounts {
  return counts.reduce(
    (total, one) => ({
      read: total.read + one.read,
      write: total.write + one.write,
      parity: total.parity + one.parity,
    }),
    { read: 0, write: 0, parity: 0 },
  )
}
