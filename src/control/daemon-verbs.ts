/**
 * The daemon's own methods, declared: those beside the verbs of the engine's classes. Their actions are in
 * src/daemon/methods; the command line and the documentation are made from these rows. An empty noun is a
 * command of one word: `plexus status`.
 */
import { JOB_KINDS, type JobKind } from './reports.ts'
import type { ArgumentSpec, VerbSpec } from './verb-spec.ts'

export const STATUS: VerbSpec = {
  noun: '',
  name: 'status',
  summary: 'health of all volumes: what is the matter, and what to do',
  arguments: [{ name: 'name', kind: 'object', optional: true, summary: 'only this object' }],
  options: [],
  readOnly: true,
}

export const LIST: VerbSpec = {
  noun: '',
  name: 'list',
  summary: 'list objects: of one type, of whatever class, or of all types',
  arguments: [
    { name: 'type', kind: 'type', optional: true, summary: 'volume, drive, …; default: all' },
    {
      name: 'objects',
      kind: 'object',
      optional: true,
      variadic: true,
      summary: 'only these; default: all',
    },
  ],
  options: [{ name: 'recursive', short: 'r', summary: 'with what is below each object' }],
  readOnly: true,
  table: true,
}

export const TREE: VerbSpec = {
  noun: '',
  name: 'tree',
  summary: 'devices, what stands on them, and the LUNs above',
  arguments: [],
  options: [],
  readOnly: true,
}

export const STAT: VerbSpec = {
  noun: '',
  name: 'stat',
  summary: 'operations, bytes, latency and queue of every provider',
  arguments: [{ name: 'name', kind: 'provider', optional: true, summary: 'only this provider' }],
  options: [],
  readOnly: true,
}

/** What `wait --for` takes: every kind of job as `job list` shows it, or what a verb of the command line starts. */
export type WaitFor = JobKind | 'any' | 'scrub'
export const WAIT_FOR: readonly WaitFor[] = ['any', 'scrub', ...JOB_KINDS]

export const WAIT: VerbSpec = {
  noun: '',
  name: 'wait',
  summary: 'wait until the jobs of an object have ended',
  arguments: [{ name: 'name', kind: 'object', summary: 'object or job' }],
  options: [
    {
      name: 'for',
      value: 'text',
      choices: WAIT_FOR,
      summary: 'only jobs of this kind; default: any',
    },
    { name: 'now', summary: 'do not wait: end with 7 when such a job is at work' },
  ],
  readOnly: true,
}

/** What this machine remembers of its sets is the daemon's (daemon/kept-sets.ts). */
export const VINUM_FORGET: VerbSpec = {
  noun: 'vinum',
  name: 'forget',
  summary: 'give up a set of which no drive is here: its names are free then',
  arguments: [{ name: 'name', kind: 'set', summary: 'the set, or a volume that LUNs have led to' }],
  options: [],
  readOnly: false,
  destructive: true,
  dryRun: true,
}

const components: ArgumentSpec = {
  name: 'devices',
  kind: 'device',
  variadic: true,
  summary: 'devices of the configuration',
}

/** Labels on devices are the daemon's, of whatever class (daemon/methods/labels.ts). */
export const VIRSTOR_CLEAR: VerbSpec = {
  noun: 'virstor',
  name: 'clear',
  summary: 'remove the label of a thin device from devices that nothing uses',
  arguments: [components],
  options: [],
  readOnly: false,
  destructive: true,
  dryRun: true,
}

// Reads the disk.
export const VIRSTOR_DUMP: VerbSpec = {
  noun: 'virstor',
  name: 'dump',
  summary: 'print what the label of a thin device on each device says',
  arguments: [components],
  options: [],
  readOnly: true,
  confidential: true,
}

/** For completion: asked by `plexus __complete`, shown nowhere. */
export const NAMES: VerbSpec = {
  noun: '',
  name: 'names',
  summary: 'names of objects of a kind',
  arguments: [{ name: 'kind', kind: 'text', summary: 'kind of argument' }],
  options: [],
  readOnly: true,
}

const device: ArgumentSpec = {
  name: 'name',
  kind: 'device',
  summary: 'device of the configuration',
}

export const DEVICE_SPECS = {
  list: {
    noun: 'device',
    name: 'list',
    summary: 'list the devices of the configuration',
    arguments: [],
    options: [],
    readOnly: true,
  },
  // Reads the disk, and tells what initiators keep there.
  show: {
    noun: 'device',
    name: 'show',
    summary: 'everything that is known of a device',
    arguments: [device],
    options: [],
    readOnly: true,
    confidential: true,
  },
  probe: {
    noun: 'device',
    name: 'probe',
    summary: 'read what is on devices, and say whether a volume may be made of them',
    arguments: [
      {
        name: 'names',
        kind: 'device',
        optional: true,
        variadic: true,
        summary: 'devices of the configuration; default: all',
      },
    ],
    options: [],
    readOnly: false,
  },
  'clear-label': {
    noun: 'device',
    name: 'clear-label',
    summary: "remove Plexus' label from a device that nothing uses",
    arguments: [device],
    options: [],
    readOnly: false,
    destructive: true,
    dryRun: true,
  },
  'restore-label': {
    noun: 'device',
    name: 'restore-label',
    summary: "write Plexus' label again, where a partition table or file system was put over it",
    arguments: [device],
    options: [],
    readOnly: false,
    destructive: true,
    dryRun: true,
  },
  resize: {
    noun: 'device',
    name: 'resize',
    summary: 'use the room that the disk of a drive has gained',
    arguments: [device],
    options: [],
    readOnly: false,
    dryRun: true,
  },
} as const satisfies Readonly<Record<string, VerbSpec>>

const job: ArgumentSpec = { name: 'job', kind: 'job', summary: 'id of the job' }

export const JOB_SPECS = {
  list: {
    noun: 'job',
    name: 'list',
    summary: 'list the jobs that run, are paused, or have ended lately',
    arguments: [],
    options: [],
    readOnly: true,
  },
  pause: {
    noun: 'job',
    name: 'pause',
    summary: 'pause a job at a checkpoint; it stays paused over a restart',
    arguments: [job],
    options: [],
    readOnly: false,
  },
  resume: {
    noun: 'job',
    name: 'resume',
    summary: 'go on with a paused job',
    arguments: [job],
    options: [],
    readOnly: false,
  },
  cancel: {
    noun: 'job',
    name: 'cancel',
    summary: 'give a job up; what it brought up to date is not in use',
    arguments: [job],
    options: [],
    readOnly: false,
  },
  limit: {
    noun: 'job',
    name: 'limit',
    summary: 'bound the rate of a job, or of all jobs together',
    arguments: [
      { name: 'job', kind: 'job', summary: 'id of the job, or "all"' },
      { name: 'rate', kind: 'size', summary: 'bytes per second, such as 200MiB, or "none"' },
    ],
    options: [],
    readOnly: false,
  },
} as const satisfies Readonly<Record<string, VerbSpec>>

export const EVENT_SPECS = {
  list: {
    noun: 'events',
    name: 'list',
    summary: 'what has happened, oldest first',
    arguments: [],
    options: [
      { name: 'since', value: 'text', summary: 'only since then: 1h, 30m, or an ISO 8601 time' },
    ],
    readOnly: true,
  },
  follow: {
    noun: 'events',
    name: 'follow',
    summary: 'what happens from now on',
    arguments: [],
    options: [],
    readOnly: true,
  },
} as const satisfies Readonly<Record<string, VerbSpec>>

export const CONFIG_SPECS = {
  diff: {
    noun: 'config',
    name: 'diff',
    summary: 'what `apply` would change: the file against what runs',
    arguments: [],
    options: [],
    readOnly: false,
  },
  apply: {
    noun: 'config',
    name: 'apply',
    summary: 'apply the configuration; with a file, put it in place first and keep a backup',
    arguments: [
      {
        name: 'file',
        kind: 'file',
        optional: true,
        summary: 'a new configuration; default: the file that the daemon was started with',
      },
    ],
    options: [
      {
        name: 'force',
        short: 'f',
        summary: 'even where it takes LUNs from initiators that are logged in',
      },
    ],
    readOnly: false,
    dryRun: true,
  },
  // The configuration names users and initiators.
  dump: {
    noun: 'config',
    name: 'dump',
    summary: 'print the configuration that runs',
    arguments: [],
    options: [],
    readOnly: true,
    confidential: true,
  },
  backups: {
    noun: 'config',
    name: 'backups',
    summary: 'list the backups that `apply` has made',
    arguments: [],
    options: [],
    readOnly: true,
    confidential: true,
  },
} as const satisfies Readonly<Record<string, VerbSpec>>

function listSpec(noun: string, summary: string): VerbSpec {
  return { noun, name: 'list', summary, arguments: [], options: [], readOnly: true }
}

export const TARGET_LIST = listSpec('target', 'list the targets')
export const LUN_LIST = listSpec('lun', 'list the LUNs of all targets')
export const SESSION_LIST: VerbSpec = {
  ...listSpec('session', 'list the sessions that are logged in'),
  confidential: true,
}
export const GEOM_LIST = listSpec('geom', 'list the geoms of all classes')

export const DAEMON_VERB_SPECS: readonly VerbSpec[] = [
  STATUS,
  TREE,
  STAT,
  LIST,
  WAIT,
  NAMES,
  ...Object.values(DEVICE_SPECS),
  ...Object.values(JOB_SPECS),
  ...Object.values(EVENT_SPECS),
  ...Object.values(CONFIG_SPECS),
  TARGET_LIST,
  LUN_LIST,
  SESSION_LIST,
  GEOM_LIST,
  VINUM_FORGET,
  VIRSTOR_CLEAR,
  VIRSTOR_DUMP,
]

/** The name of a method on the wire. */
export function methodName(spec: VerbSpec): string {
  return spec.noun === '' ? spec.name : `${spec.noun}.${spec.name}`
}

/** As typed, and as `outputVersion.command` says it. */
export function commandName(spec: VerbSpec): string {
  return spec.noun === '' ? spec.name : `${spec.noun} ${spec.name}`
}
