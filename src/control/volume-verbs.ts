/**
 * The verbs of `plexus volume`, declared (docs/cli.md): what an operator does with a
 * volume as a whole, in one step each. Their actions are in src/engine/vinum/verbs/volume-*.ts; the command
 * line and the documentation are made from these rows.
 */
import type { ArgumentSpec, VerbSpec } from './verb-spec.ts'
import { WIPE_SIGNATURES } from './vinum-verbs.ts'

const volume: ArgumentSpec = { name: 'name', kind: 'volume', summary: 'the volume' }
const devices: ArgumentSpec = {
  name: 'devices',
  kind: 'device',
  variadic: true,
  summary: 'devices of the configuration, or drives',
}
const changes = { noun: 'volume', readOnly: false, dryRun: true } as const
const shows = { noun: 'volume', readOnly: true } as const

export const VOLUME_SPECS = {
  create: {
    ...changes,
    name: 'create',
    summary: 'create a volume over devices; say --concat, --stripe, --mirror or --raid5',
    arguments: [{ name: 'name', kind: 'text', summary: 'name of the new volume' }],
    options: [
      {
        name: 'concat',
        value: 'device',
        variadic: true,
        summary: 'one device behind the other; no redundancy',
      },
      {
        name: 'stripe',
        value: 'device',
        variadic: true,
        summary: 'striped over the devices; no redundancy',
      },
      {
        name: 'mirror',
        value: 'device',
        variadic: true,
        summary: 'a full copy on each device',
      },
      {
        name: 'raid5',
        value: 'device',
        variadic: true,
        summary: 'striped with parity: any one device may fail',
      },
      {
        name: 'stripeSize',
        value: 'size',
        summary: 'bytes of one stripe unit; default: 256KiB',
      },
      { name: 'size', value: 'size', summary: 'bytes of the volume; default: all there is' },
      {
        name: 'parity',
        value: 'text',
        choices: ['left-symmetric', 'left-asymmetric'],
        summary: 'how raid5 parity rotates; default: left-symmetric',
      },
      WIPE_SIGNATURES,
    ],
  },
  show: {
    ...shows,
    name: 'show',
    summary: 'show a volume with its plexes, subdisks and drives',
    arguments: [volume],
    options: [],
  },
  list: {
    ...shows,
    table: true,
    name: 'list',
    summary: 'list volumes',
    arguments: [],
    options: [],
  },
  grow: {
    ...changes,
    name: 'grow',
    summary: 'add devices to a volume while it is in use',
    arguments: [volume, devices],
    options: [WIPE_SIGNATURES],
  },
  destroy: {
    ...changes,
    name: 'destroy',
    summary: 'remove a volume and all its data',
    arguments: [volume],
    options: [{ name: 'force', short: 'f', summary: 'even while the volume is in use' }],
    destructive: true,
  },
  undelete: {
    ...changes,
    name: 'undelete',
    summary: 'bring a destroyed volume back, while nothing else has had its place on the drives',
    arguments: [{ name: 'name', kind: 'text', summary: 'name that the volume had' }],
    options: [],
    destructive: true,
  },
  rename: {
    ...changes,
    name: 'rename',
    summary: 'rename a volume with its plexes and subdisks',
    arguments: [volume, { name: 'to', kind: 'text', summary: 'new name' }],
    options: [],
  },
  replace: {
    ...changes,
    name: 'replace',
    summary: 'put a new device in the place of a drive; the data is rebuilt from the other drives',
    arguments: [
      volume,
      { name: 'oldDrive', kind: 'drive', summary: 'drive that leaves' },
      { name: 'newDevice', kind: 'device', summary: 'device or drive that takes its place' },
    ],
    options: [
      {
        name: 'force',
        short: 'f',
        summary: 'a healthy drive, even while another one of the volume is missing',
      },
      WIPE_SIGNATURES,
    ],
  },
  'add-mirror': {
    ...changes,
    name: 'add-mirror',
    summary: 'add one more full copy on the devices; it is synchronised while in use',
    arguments: [volume, devices],
    options: [WIPE_SIGNATURES],
  },
  'remove-mirror': {
    ...changes,
    name: 'remove-mirror',
    summary: 'remove one copy of a volume; the others stay in use',
    arguments: [volume, { name: 'plex', kind: 'plex', summary: 'the copy' }],
    options: [],
    destructive: true,
  },
  set: {
    ...changes,
    name: 'set',
    summary: 'change how a volume is read, or where it takes spares from',
    arguments: [volume],
    options: [
      {
        name: 'readPolicy',
        value: 'text',
        choices: ['round-robin', 'least-queue', 'prefer'],
        summary: 'which copy serves a read',
      },
      { name: 'plex', value: 'plex', summary: 'the preferred copy, for prefer' },
      { name: 'sparePool', value: 'pool', summary: 'pool of its spares, or none' },
    ],
  },
  scrub: {
    ...changes,
    name: 'scrub',
    summary: 'read all copies and parity of a volume, compare them, and count what differs',
    arguments: [volume],
    options: [{ name: 'repair', summary: 'write what differs again' }],
  },
} as const satisfies Readonly<Record<string, VerbSpec>>

export const VOLUME_VERB_SPECS: readonly VerbSpec[] = Object.values(VOLUME_SPECS)
