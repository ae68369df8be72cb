/**
 * The verbs of `plexus vinum`, declared: the table of docs/vinum.md, 6 (gvinum(8)), and `convert` and
 * `assemble`, which are ours. Their actions are in src/engine/vinum/verbs; the command line and the
 * documentation are made from these rows.
 */
import type { ArgumentSpec, OptionSpec, VerbSpec } from './verb-spec.ts'

/** Common to every verb that may make a drive out of a device. */
export const WIPE_SIGNATURES: OptionSpec = {
  name: 'wipeSignatures',
  summary: 'take devices that carry a file system or another foreign label, and overwrite it',
}

const name: OptionSpec = {
  name: 'name',
  short: 'n',
  value: 'text',
  summary: 'name of the volume; default: the first free vinumvolumeN',
}
const skipExisting: OptionSpec = {
  name: 'force',
  short: 'f',
  summary: 'leave objects that exist already as they are, instead of refusing',
}
const devices: ArgumentSpec = {
  name: 'devices',
  kind: 'device',
  variadic: true,
  summary: 'devices of the configuration, or drives',
}
const plexes: ArgumentSpec = {
  name: 'plexes',
  kind: 'plex',
  variadic: true,
  summary: 'raid5 plexes',
}
const objects: ArgumentSpec = {
  name: 'objects',
  kind: 'object',
  variadic: true,
  summary: 'volumes, plexes, subdisks or drives',
}
const restart: OptionSpec = {
  name: 'force',
  short: 'f',
  summary: 'begin again from the start where a paused check stands in the way',
}

const set: ArgumentSpec = {
  name: 'set',
  kind: 'set',
  optional: true,
  summary: 'which set, where there are several',
}

const changes = { noun: 'vinum', readOnly: false, dryRun: true } as const
const shows = { noun: 'vinum', readOnly: true } as const

const listing = {
  ...shows,
  arguments: [{ ...objects, optional: true, summary: 'only these; default: all' }],
  options: [
    { name: 'recursive', short: 'r', summary: 'with what is below each object' },
    { name: 'freeList', short: 'V', summary: 'with the free extents of each drive' },
  ],
} as const

export const VINUM_SPECS = {
  create: {
    ...changes,
    name: 'create',
    summary: 'create drives, volumes, plexes and subdisks from a vinum configuration',
    arguments: [
      { name: 'file', kind: 'file', summary: 'configuration in the form of printconfig' },
    ],
    options: [skipExisting, WIPE_SIGNATURES],
  },
  concat: {
    ...changes,
    name: 'concat',
    summary: 'create a volume of whole devices, one behind the other',
    arguments: [devices],
    options: [name, skipExisting, WIPE_SIGNATURES],
  },
  stripe: {
    ...changes,
    name: 'stripe',
    summary: 'create a volume striped over devices',
    arguments: [devices],
    options: [
      name,
      { name: 'stripeSize', value: 'size', summary: 'bytes of one stripe unit; default: 256KiB' },
      skipExisting,
      WIPE_SIGNATURES,
    ],
  },
  mirror: {
    ...changes,
    name: 'mirror',
    summary: 'create a volume with two copies; devices go to the copies in turn',
    arguments: [devices],
    options: [
      name,
      { name: 'striped', short: 's', summary: 'stripe each copy over its devices' },
      skipExisting,
      WIPE_SIGNATURES,
    ],
  },
  raid5: {
    ...changes,
    name: 'raid5',
    summary: 'create a volume with parity over devices',
    arguments: [devices],
    options: [
      name,
      {
        name: 'stripeSize',
        short: 's',
        value: 'size',
        summary: 'bytes of one stripe unit; default: 256KiB',
      },
      {
        name: 'parity',
        value: 'text',
        choices: ['left-symmetric', 'left-asymmetric'],
        summary: 'how parity rotates; default: left-symmetric',
      },
      skipExisting,
      WIPE_SIGNATURES,
    ],
  },
  grow: {
    ...changes,
    name: 'grow',
    summary: 'add devices to a plex; striped and raid5 plexes are restriped while in use',
    arguments: [{ name: 'plex', kind: 'plex', summary: 'plex that grows' }, devices],
    options: [WIPE_SIGNATURES],
  },
  attach: {
    ...changes,
    name: 'attach',
    summary: 'attach a plex to a volume, or a subdisk to a plex; a sync brings it up to date',
    arguments: [
      { name: 'object', kind: 'object', summary: 'detached plex or subdisk' },
      { name: 'parent', kind: 'object', summary: 'volume or plex' },
      {
        name: 'details',
        kind: 'text',
        optional: true,
        variadic: true,
        summary: '"rename": name it after its parent; a size: offset of the subdisk in the plex',
      },
    ],
    options: [],
  },
  detach: {
    ...changes,
    name: 'detach',
    summary: 'take a plex out of its volume, or a subdisk out of its plex; it stays known',
    arguments: [{ name: 'object', kind: 'object', summary: 'plex or subdisk' }],
    options: [
      { name: 'force', short: 'f', summary: 'even where that costs redundancy or the last copy' },
    ],
  },
  move: {
    ...changes,
    name: 'move',
    aliases: ['mv'],
    summary: 'copy subdisks to another drive while they are in use, and free their old place',
    arguments: [
      { name: 'drive', kind: 'drive', summary: 'where to: a drive, or a device that becomes one' },
      { name: 'subdisks', kind: 'subdisk', variadic: true, summary: 'what to move' },
    ],
    options: [
      {
        name: 'force',
        short: 'f',
        summary: 'do not read the old place (failing or gone): rebuild from the other copies',
      },
      WIPE_SIGNATURES,
    ],
  },
  rename: {
    ...changes,
    name: 'rename',
    summary: 'rename an object',
    arguments: [
      { name: 'from', kind: 'object', summary: 'present name' },
      { name: 'to', kind: 'text', summary: 'new name' },
    ],
    options: [{ name: 'recursive', short: 'r', summary: 'with the plexes and subdisks below' }],
  },
  rm: {
    ...changes,
    name: 'rm',
    summary: 'remove objects',
    arguments: [objects],
    options: [
      { name: 'recursive', short: 'r', summary: 'with the plexes and subdisks below' },
      { name: 'force', short: 'f', summary: 'even data that has no other copy' },
    ],
    destructive: true,
  },
  resetconfig: {
    ...changes,
    name: 'resetconfig',
    summary: 'remove every object of a set, and clear the labels of its drives',
    arguments: [set],
    options: [{ name: 'force', short: 'f', summary: 'even while jobs run' }],
    destructive: true,
  },
  saveconfig: {
    ...changes,
    name: 'saveconfig',
    summary: 'write the configuration to all drives again',
    arguments: [set],
    options: [],
  },
  printconfig: {
    ...shows,
    name: 'printconfig',
    aliases: ['getconfig'],
    summary: 'print the configuration in the form that create reads',
    arguments: [set],
    options: [],
  },
  list: {
    ...listing,
    name: 'list',
    aliases: ['l'],
    summary: 'list drives, volumes, plexes and subdisks',
  },
  ld: { ...listing, table: true, name: 'ld', summary: 'list drives' },
  lv: { ...listing, table: true, name: 'lv', summary: 'list volumes' },
  lp: { ...listing, table: true, name: 'lp', summary: 'list plexes' },
  ls: { ...listing, table: true, name: 'ls', summary: 'list subdisks' },
  setstate: {
    ...changes,
    name: 'setstate',
    summary: 'set the state of an object by hand',
    arguments: [
      {
        name: 'state',
        kind: 'text',
        choices: ['up', 'down', 'stale', 'degraded'],
        summary: 'new state',
      },
      { name: 'object', kind: 'object', summary: 'volume, plex, subdisk or drive' },
    ],
    options: [
      { name: 'force', short: 'f', summary: 'even where the data may be old: you vouch for it' },
    ],
    destructive: true,
  },
  start: {
    ...changes,
    name: 'start',
    summary: 'start what brings plexes up to date: sync, rebuild, initialise, grow',
    arguments: [{ ...objects, summary: 'volumes or plexes' }],
    options: [],
  },
  stop: {
    ...changes,
    name: 'stop',
    summary: 'close all drives, when no volume is open; the objects come back at the next start',
    arguments: [],
    options: [],
  },
  checkparity: {
    ...changes,
    name: 'checkparity',
    summary: 'compare the parity of raid5 plexes with their data, and count what differs',
    arguments: [plexes],
    options: [restart],
  },
  rebuildparity: {
    ...changes,
    name: 'rebuildparity',
    summary: 'as checkparity, and write the right parity where it differs',
    arguments: [plexes],
    options: [restart],
  },
  convert: {
    ...changes,
    name: 'convert',
    summary: 'give the drives of a FreeBSD vinum set the native format, in place; no way back',
    arguments: [],
    options: [],
    destructive: true,
  },
  assemble: {
    ...changes,
    name: 'assemble',
    summary: 'assemble a set of which drives are missing',
    arguments: [set],
    options: [
      {
        name: 'force',
        short: 'f',
        summary:
          'without a majority: the missing drives are given up, and their newer data with them',
      },
      {
        name: 'from',
        value: 'text',
        summary:
          'drives were used apart: the set is right as this drive has it; the others are filled from it as a whole',
      },
    ],
    destructive: true,
  },
} as const satisfies Readonly<Record<string, VerbSpec>>

export const VINUM_VERB_SPECS: readonly VerbSpec[] = Object.values(VINUM_SPECS)
