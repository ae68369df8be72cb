/**
 * The verbs of `plexus virstor`, declared: thin devices (gvirstor(8)). Their actions are in src/engine/virstor; the command
 * line and the documentation are made from these rows.
 */
import type { ArgumentSpec, OptionSpec, VerbSpec } from './verb-spec.ts'
import { WIPE_SIGNATURES } from './vinum-verbs.ts'

const changes = { noun: 'virstor', readOnly: false, dryRun: true } as const
const name: ArgumentSpec = { name: 'name', kind: 'virstor', summary: 'the thin device' }
const devices: ArgumentSpec = {
  name: 'devices',
  kind: 'device',
  variadic: true,
  summary: 'devices of the configuration, or volumes',
}

export const VIRSTOR_POLICIES = ['sequential', 'round-robin'] as const
/** What a component that is missing takes with it. */
export const VIRSTOR_ON_MISSING = ['chunks', 'device'] as const

export const ON_OFF = ['on', 'off'] as const

/** What `create` and `set` have in common: may be changed at any time. */
const SETTINGS: readonly OptionSpec[] = [
  {
    name: 'fullWait',
    value: 'text',
    summary: 'how long a device that is full lets writes wait; default: 20s, 0: not at all',
  },
  {
    name: 'warnChunks',
    value: 'text',
    summary:
      'warn, initiators too, when so many chunks are free; default: 100, a tenth of all at most',
  },
  {
    name: 'warnPercent',
    value: 'text',
    summary: 'warn, initiators too, when so many percent of the space are free; default: 10',
  },
  {
    name: 'warnComponents',
    value: 'text',
    summary: 'warn when so many components are still empty; default: 1',
  },
  {
    name: 'discard',
    value: 'text',
    choices: ON_OFF,
    summary: 'discard on the components what is free again, where they can; default: on',
  },
  {
    name: 'on-missing',
    value: 'text',
    choices: VIRSTOR_ON_MISSING,
    summary:
      'what is out of service with a component: what lies there (default), or all of the device',
  },
]

const POLICY = {
  name: 'policy',
  value: 'text',
  choices: VIRSTOR_POLICIES,
  summary: 'which component gives space next: the first with room (default), or all in turn',
} as const

export const VIRSTOR_SPECS = {
  create: {
    ...changes,
    name: 'create',
    aliases: ['label'],
    summary:
      'create a thin device: larger than its components, which give it space as it is written',
    arguments: [{ name: 'name', kind: 'text', summary: 'name of the new device' }, devices],
    options: [
      { name: 'size', short: 's', value: 'size', summary: 'what initiators see; default: 2TiB' },
      {
        name: 'chunk',
        short: 'm',
        value: 'size',
        summary: 'space is given in pieces of so much, 128KiB to 64MiB; default: 4MiB',
      },
      POLICY,
      ...SETTINGS,
      WIPE_SIGNATURES,
    ],
  },
  add: {
    ...changes,
    name: 'add',
    summary: 'add components; writes that wait for space go on',
    arguments: [name, devices],
    options: [WIPE_SIGNATURES],
  },
  remove: {
    ...changes,
    name: 'remove',
    summary: 'take components out: a job moves what they hold to the others first',
    arguments: [
      name,
      {
        name: 'devices',
        kind: 'device',
        variadic: true,
        summary: 'components, or the devices that carry them',
      },
    ],
    options: [
      {
        name: 'force',
        short: 'f',
        summary: 'give up components that are missing for good; what only they hold is lost',
      },
    ],
  },
  rebalance: {
    ...changes,
    name: 'rebalance',
    summary: 'fill all components evenly: a job moves chunks while the device is in use',
    arguments: [name],
    options: [],
  },
  set: {
    ...changes,
    name: 'set',
    summary:
      'change where a thin device takes space, when it warns, how long writes wait, and what else create has set',
    arguments: [name],
    options: [
      POLICY,
      ...SETTINGS,
      { name: 'force', short: 'f', summary: 'even where that takes the device out of service' },
    ],
  },
  grow: {
    ...changes,
    name: 'grow',
    summary: 'make a thin device larger while it is in use; initiators see it at once',
    arguments: [name, { name: 'size', kind: 'size', summary: 'the new size, all of it' }],
    options: [],
  },
  destroy: {
    ...changes,
    name: 'destroy',
    summary: 'end a thin device and free its components; its data is lost',
    arguments: [name],
    options: [],
    destructive: true,
  },
  stop: {
    ...changes,
    name: 'stop',
    summary:
      'take a thin device out of service, until `assemble` or the next start; nothing is erased',
    arguments: [name],
    options: [{ name: 'force', short: 'f', summary: 'even while it is in use' }],
  },
  assemble: {
    ...changes,
    name: 'assemble',
    summary:
      'serve again what was stopped or has lost its map, or go on without missing components',
    arguments: [
      { name: 'set', kind: 'set', optional: true, summary: 'which set, or device that was served' },
    ],
    options: [
      { name: 'force', short: 'f', summary: 'although components are missing' },
      {
        name: 'from',
        value: 'device',
        summary: 'as this one has it, where components were used apart from each other',
      },
    ],
  },
  trim: {
    ...changes,
    name: 'trim',
    summary: 'read all chunks that have space, and give back those that are zero',
    arguments: [name],
    options: [],
  },
  fsck: {
    noun: 'virstor',
    readOnly: false,
    name: 'fsck',
    summary: 'check a thin device while it serves: its map on all copies, its places, its labels',
    arguments: [name],
    options: [
      {
        name: 'repair',
        summary: 'write again what is damaged, where memory and another copy have it',
      },
    ],
  },
  convert: {
    ...changes,
    name: 'convert',
    summary: "give a device of FreeBSD's virstor our format, in place; no way back",
    arguments: [name],
    options: [],
    destructive: true,
  },
  list: {
    noun: 'virstor',
    readOnly: true,
    table: true,
    name: 'list',
    summary: 'list thin devices with their space',
    arguments: [],
    options: [],
  },
} as const satisfies Readonly<Record<string, VerbSpec>>

export const VIRSTOR_VERB_SPECS: readonly VerbSpec[] = Object.values(VIRSTOR_SPECS)

/** What a check of a thin device has found. */
export interface FsckFinding {
  /** critical: data may be lost. */
  readonly severity: 'warning' | 'critical'
  /** A component. */
  readonly object: string
  readonly message: string
  readonly repaired: boolean
  /** What to do; empty where it is repaired. */
  readonly action: string
}

/** The answer of `virstor fsck`. */
export interface FsckReport {
  readonly name: string
  readonly checked: {
    readonly pages: number
    readonly journalBlocks: number
    readonly chunks: number
    readonly components: number
  }
  /** How many there are; of very many only the first are described. */
  readonly found: number
  readonly findings: readonly FsckFinding[]
}
