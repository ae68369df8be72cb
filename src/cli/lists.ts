/** The columns of the daemon's own lists, by method: what -o can name, and what is shown when it says nothing. */
import { formatSize } from '../base/bytes.ts'
import type {
  BackupReport,
  DeviceContents,
  DeviceReport,
  JobList,
  LunReport,
  SessionReport,
  TargetReport,
} from '../control/daemon-reports.ts'
import { methodName, STAT } from '../control/daemon-verbs.ts'
import { formatDuration } from '../control/duration.ts'
import type { EventReport, GeomReport, JobReport } from '../control/reports.ts'
import type { VerbSpec } from '../control/verb-spec.ts'
import type { Column } from './render.ts'

export interface ListView {
  /** Key of the list in the answer. */
  readonly key: string
  readonly columns: readonly Column<never>[]
  /** Said instead of a table without lines. */
  readonly empty: string
  /** A line below the table. */
  readonly footer?: (answer: never) => string
}

function view<T>(key: string, empty: string, columns: readonly Column<T>[]): ListView {
  return { key, empty, columns: columns as readonly Column<never>[] }
}

const JOB_TABLE = view<JobReport>('jobs', 'no job runs', [
  { name: 'id', value: (job) => job.id },
  { name: 'kind', value: (job) => job.kind },
  { name: 'object', value: (job) => job.object },
  { name: 'parent', value: (job) => job.parent, extra: true },
  { name: 'state', value: (job) => job.state, kind: 'state' },
  { name: 'done', value: (job) => job.doneBytes, kind: 'size' },
  { name: 'total', value: (job) => job.totalBytes, kind: 'size' },
  { name: 'rate', value: (job) => job.bytesPerSecond, kind: 'size' },
  {
    name: 'to-go',
    value: (job) => (job.etaSeconds === undefined ? undefined : formatDuration(job.etaSeconds)),
  },
  { name: 'limit', value: (job) => job.limitBytesPerSecond, kind: 'size', extra: true },
  { name: 'mismatches', value: (job) => job.mismatches, kind: 'number', extra: true },
  { name: 'error', value: (job) => job.error, extra: true },
])

const JOBS: ListView = {
  ...JOB_TABLE,
  footer: ({ limitBytesPerSecond: limit }: JobList) =>
    limit === undefined ? '' : `  all jobs together: at most ${formatSize(limit)}/s\n`,
}

export const EVENT_COLUMNS: readonly Column<EventReport>[] = [
  { name: 'time', value: (event) => event.time },
  { name: 'severity', value: (event) => event.severity, kind: 'state' },
  { name: 'event', value: (event) => event.event },
  { name: 'object', value: (event) => event.object },
  { name: 'message', value: (event) => event.message },
  { name: 'sequence', value: (event) => event.sequence, kind: 'number', extra: true },
]

export const LIST_VIEWS: Readonly<Record<string, ListView>> = {
  'device.list': view<DeviceReport>('devices', 'the configuration has no devices', [
    { name: 'name', value: (one) => one.name },
    { name: 'state', value: (one) => one.state, kind: 'state' },
    { name: 'size', value: (one) => one.sizeBytes, kind: 'size' },
    { name: 'block', value: (one) => one.blockBytes, kind: 'number' },
    { name: 'path', value: (one) => one.path },
    { name: 'used-by', value: (one) => one.holders.join(', ') },
    { name: 'reason', value: (one) => one.reason },
  ]),
  'device.probe': view<DeviceContents>('devices', 'no device is ready', [
    { name: 'name', value: (one) => one.name },
    { name: 'free', value: (one) => one.free },
    { name: 'path', value: (one) => one.path },
    { name: 'contents', value: (one) => one.contents },
    { name: 'label', value: (one) => one.label },
    { name: 'used-by', value: (one) => one.holders.join(', ') },
  ]),
  'job.list': JOBS,
  'job.pause': JOBS,
  'job.resume': JOBS,
  'job.cancel': JOBS,
  'job.limit': JOBS,
  'events.list': view('events', 'nothing has happened', EVENT_COLUMNS),
  'geom.list': view<GeomReport>('geoms', 'there are no geoms', [
    { name: 'class', value: (geom) => geom.className },
    { name: 'name', value: (geom) => geom.name },
    { name: 'state', value: (geom) => geom.state, kind: 'state' },
    { name: 'stands-on', value: (geom) => geom.consumers.join(', ') },
    { name: 'offers', value: (geom) => geom.providers.join(', ') },
  ]),
  'target.list': view<TargetReport>('targets', 'the configuration has no targets', [
    { name: 'name', value: (one) => one.name },
    { name: 'alias', value: (one) => one.alias },
    { name: 'portals', value: (one) => one.portals.join(', ') },
    { name: 'auth', value: (one) => one.auth },
    { name: 'luns', value: (one) => one.luns, kind: 'number' },
    { name: 'sessions', value: (one) => one.sessions, kind: 'number' },
  ]),
  'lun.list': view<LunReport>('luns', 'the configuration has no LUNs', [
    { name: 'target', value: (one) => one.target },
    { name: 'lun', value: (one) => one.lun, kind: 'number' },
    { name: 'volume', value: (one) => one.volume },
    { name: 'state', value: (one) => one.state, kind: 'state' },
    { name: 'size', value: (one) => one.sizeBytes, kind: 'size' },
    { name: 'block', value: (one) => one.blockBytes, kind: 'number' },
    { name: 'read-only', value: (one) => one.readOnly },
    { name: 'naa', value: (one) => one.naa, extra: true },
    { name: 'serial', value: (one) => one.serial, extra: true },
    { name: 'sessions', value: (one) => one.sessions.join(', ') },
  ]),
  'session.list': view<SessionReport>('sessions', 'nobody is logged in', [
    { name: 'id', value: (one) => one.id, kind: 'number' },
    { name: 'initiator', value: (one) => one.initiator },
    { name: 'target', value: (one) => one.target ?? '(discovery)' },
    { name: 'address', value: (one) => one.address },
    { name: 'portal', value: (one) => one.portal },
    { name: 'user', value: (one) => one.user },
    { name: 'commands', value: (one) => one.commands, kind: 'number' },
    { name: 'outstanding', value: (one) => one.outstanding, kind: 'number' },
    { name: 'tsih', value: (one) => one.tsih, kind: 'number', extra: true },
  ]),
  'config.backups': view<BackupReport>('backups', 'there are no backups', [
    { name: 'time', value: (one) => one.time },
    { name: 'size', value: (one) => one.sizeBytes, kind: 'size' },
    { name: 'path', value: (one) => one.path },
  ]),
}

/** Is the answer of a verb one table, with columns to choose and to sort by? */
export function isTable(spec: VerbSpec): boolean {
  return spec === STAT || spec.table === true || methodName(spec) in LIST_VIEWS
}
