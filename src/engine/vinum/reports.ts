/**
 * What vinum says of itself (control/reports.ts): volumes with their plexes and subdisks, health, what is the
 * matter and what to type next; drives with their room. Made from the model and the running objects; called by
 * the control methods through vinum-class.ts.
 */
import { formatSize } from '../../base/bytes.ts'
import type {
  ComponentReport,
  DriveReport,
  ErrorCounts,
  Health,
  JobReport,
  VolumeReport,
} from '../../control/reports.ts'
import type { Provider } from '../geom/provider.ts'
import type { Topology } from '../geom/topology.ts'
import type { FreebsdSet } from './freebsd/set.ts'
import { freeExtents } from './model/allocation.ts'
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
import type { SetDrive } from './set/drive.ts'
import type { VinumSet } from './set/vinum-set.ts'

const ORGANIZATION_TEXT = { concat: 'concat', striped: 'striped', raid5: 'raid5' } as const

export interface SetsReport {
  readonly volumes: readonly VolumeReport[]
  readonly drives: readonly DriveReport[]
}

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
  /** Why a volume is not offered, by its UUID. */
  readonly faults: ReadonlyMap<string, string>
}

export function reportSets(
  native: readonly VinumSet[],
  imported: FreebsdSet | undefined,
): SetsReport {
  const views = [
    ...native.filter(({ assembled }) => assembled).map(viewOfNative),
    ...(imported?.assembled ? [viewOfImported(imported)] : []),
  ]
  return {
    volumes: views.flatMap((view) =>
      view.model.volumes.map((volume) => volumeReport(view, view.present, volume)),
    ),
    drives: [
      ...views.flatMap((view) => view.model.drives.map((drive) => driveReport(view, drive))),
      ...native.flatMap((set) =>
        [...set.members.values()].map(({ uuid, consumer }) =>
          idleDrive(
            consumer.provider,
            uuid,
            'native',
            set.assembled ? 'FORMER' : 'WAITING',
            set.assembled
              ? `former drive of ${set.name}; plexus device clear-label ${consumer.provider.name} frees it`
              : `${set.name} is not assembled: ${set.describeIncomplete()}`,
          ),
        ),
      ),
      ...(imported && !imported.assembled ? waitingImports(imported) : []),
    ],
  }
}

function viewOfNative(set: VinumSet): View {
  const { name, model, drives, topology, objects } = set
  const { present, subdisks } = objects
  return { name, format: 'native', model, present, drives, subdisks, topology, faults: new Map() }
}

function viewOfImported(set: FreebsdSet): View {
  const { name, model, drives, subdisks, topology, faults } = set
  return { name, format: 'freebsd', model, present: model, drives, subdisks, topology, faults }
}

/** A drive that takes no part in anything. */
function idleDrive(
  { name, sizeBytes }: Provider,
  uuid: string,
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
          'freebsd',
          'WAITING',
          `FreeBSD's drive ${info.driveName}: ${problem}`,
        )
      : [],
  )
}

function jobsOf(set: View, volume: VolumeRecord): readonly JobReport[] {
  return set.topology.jobs
    .list()
    .map((job) => job.report())
    .filter((job) => job.volume === volume.name)
    .filter((job) => job.state === 'running' || job.state === 'paused')
}

function volumeReport(set: View, model: VinumModel, volume: VolumeRecord): VolumeReport {
  const plexes = plexesOf(model, volume.uuid)
  const components = plexes.map((plex) => plexReport(set, model, plex))
  const fault = set.faults.get(volume.uuid)
  const health = fault === undefined ? healthOf(model, volume.uuid) : 'FAULTED'
  const process = jobsOf(set, volume)[0]
  const bad = plexes
    .flatMap((plex) => subdisksOf(model, plex.uuid))
    .filter((subdisk) => subdisk.state !== 'up')
  const isImported = set.format === 'freebsd'
  const stopped = process ? undefined : plexes.map((plex) => unfinished(model, plex)).find(Boolean)
  const status = statusText(set, model, health, bad, process) || (stopped ?? '')
  return {
    name: volume.name,
    uuid: volume.uuid,
    className: 'vinum',
    state: stateText(health, process),
    health,
    sizeBytes: volume.sizeBytes,
    layout: layoutText(set, model, plexes),
    status: isImported ? importedStatus(status, fault) : status,
    action: isImported
      ? importedAction(set, bad, fault)
      : actionText(volume, health, bad, set, process) ||
        (stopped === undefined ? '' : `To go on: plexus vinum start ${volume.name}`),
    errors: sum(components.map(({ errors }) => errors)),
    process,
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
  const kinds = plexes.map(({ organization }) => ORGANIZATION_TEXT[organization])
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

/** Work that no job does any more, because it failed or was cancelled. */
function unfinished(model: VinumModel, plex: PlexRecord): string | undefined {
  const { name, organization, growth, parityValidBytes } = plex
  const size = sizeOfPlex(plex, subdisksOf(model, plex.uuid))
  if (growth) {
    return `The growth of ${name} has stopped at ${formatSize(growth.cursorBytes)}. It serves as it is.`
  }
  if (organization !== 'raid5' || parityValidBytes >= size) return undefined
  return `The parity of ${name} was made up to ${formatSize(parityValidBytes)} only.`
}

function statusText(
  set: View,
  model: VinumModel,
  health: Health,
  bad: readonly SubdiskRecord[],
  process: JobReport | undefined,
): string {
  if (bad.length === 0) {
    return process?.kind === 'initialise'
      ? 'Parity is being made; until then one failure may lose what was never written.'
      : ''
  }
  const parts = new Set(bad.map((subdisk) => trouble(set, model, subdisk)))
  const rest =
    health === 'FAULTED'
      ? 'Part of the data cannot be reached.'
      : 'Data is intact; one more failure may lose it.'
  return `${[...parts].join(' ')} ${rest}`
}

function trouble(set: View, model: VinumModel, subdisk: SubdiskRecord): string {
  const drive = set.drives.get(subdisk.driveUuid)
  const record = model.drives.find((one) => one.uuid === subdisk.driveUuid)
  const name = record?.name ?? subdisk.driveUuid
  if (!drive?.present) {
    const since = drive?.goneSince === undefined ? '' : ` since ${clockTime(drive.goneSince)}`
    const device = record?.device === name ? '' : ` (${record?.device ?? '?'})`
    return `Drive ${name}${device} is missing${since}.`
  }
  return subdisk.state === 'reviving'
    ? `Subdisk ${subdisk.name} on drive ${name} is being filled.`
    : `Subdisk ${subdisk.name} on drive ${name} is ${subdisk.state}.`
}

function actionText(
  volume: VolumeRecord,
  health: Health,
  bad: readonly SubdiskRecord[],
  set: View,
  process: JobReport | undefined,
): string {
  if (process?.state === 'paused') return `To go on: plexus job resume ${process.id}`
  const missing = bad.find(({ driveUuid }) => !(set.drives.get(driveUuid)?.present ?? false))
  if (process && !missing) {
    return `Nothing to do. To follow it: plexus wait ${volume.name} --for ${process.kind}`
  }
  if (missing) {
    const name = set.drives.get(missing.driveUuid)?.record.name ?? missing.driveUuid
    return health === 'FAULTED'
      ? `Connect drive ${name} again: it is taken back by itself.`
      : `Connect drive ${name} again, or replace it: plexus volume replace ${volume.name} ${name} NEW-DEVICE`
  }
  return bad.length === 0
    ? ''
    : `Look at its drive, then fill it again: plexus vinum start ${volume.name}`
}

function importedStatus(status: string, fault: string | undefined): string {
  if (fault !== undefined) return `Not served: ${fault}.`
  return `Read-only, since its drives have FreeBSD's format. ${status}`.trim()
}

function importedAction(
  set: View,
  bad: readonly SubdiskRecord[],
  fault: string | undefined,
): string {
  const missing = bad.find(({ driveUuid }) => !(set.drives.get(driveUuid)?.present ?? false))
  const name = missing && set.drives.get(missing.driveUuid)?.record.name
  if (name !== undefined) return `Connect drive ${name} again: it is taken back by itself.`
  if (fault !== undefined || bad.length > 0) {
    return 'Copy it to a new volume, or let FreeBSD bring it up to date.'
  }
  return 'To make it writable: plexus vinum convert'
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
    note: `${ORGANIZATION_TEXT[plex.organization]}${stripe}`,
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
      : `gone${drive?.goneSince === undefined ? '' : ` since ${clockTime(drive.goneSince)}`}`,
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
    sizeBytes: record.dataEndBytes - record.dataStartBytes,
    freeBytes: freeList.reduce((total, { length }) => total + length, 0),
    freeList,
    errors: { ...(drive?.errors ?? { read: 0, write: 0, parity: 0 }) },
    format: set.format,
    note: drive?.present ? '' : `missing; last seen as ${record.device}`,
  }
}

/** Time of day of an ISO text, as the logs show it. */
function clockTime(iso: string): string {
  return iso.slice(11, 19)
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
