/**
 * The verbs of `plexus spare`, declared: pools of spares for volumes of vinum (docs/vinum.md, 10). Their actions are in
 * src/engine/vinum/verbs/spares.ts; the command line and the documentation are made from these rows.
 */
import type { ArgumentSpec, OptionSpec, VerbSpec } from './verb-spec.ts'
import { WIPE_SIGNATURES } from './vinum-verbs.ts'

const pool: ArgumentSpec = { name: 'pool', kind: 'pool', summary: 'the pool' }
const poolOrAll: ArgumentSpec = { name: 'pool', kind: 'pool', summary: 'the pool, or all' }
const devices: ArgumentSpec = {
  name: 'devices',
  kind: 'device',
  variadic: true,
  summary: 'devices of the configuration, or drives with nothing on them',
}
const spares: ArgumentSpec = {
  name: 'drives',
  kind: 'spare',
  variadic: true,
  optional: true,
  summary: 'the spares; default: the pool itself, which must be empty',
}
const volume: ArgumentSpec = { name: 'volume', kind: 'volume', summary: 'the volume' }
const settings: readonly OptionSpec[] = [
  {
    name: 'delay',
    value: 'text',
    summary: 'how long a column is out before a spare takes its place; default: 30s',
  },
  {
    name: 'copyBack',
    value: 'text',
    choices: ['manual', 'automatic'],
    summary: 'what happens when the drive itself is back; default: manual',
  },
]

const changes = { noun: 'spare', readOnly: false, dryRun: true } as const

export const SPARE_SPECS = {
  create: {
    ...changes,
    name: 'create',
    summary: 'create a pool of spares',
    arguments: [
      { name: 'pool', kind: 'text', summary: 'name of the new pool' },
      { ...devices, optional: true },
    ],
    options: [...settings, WIPE_SIGNATURES],
  },
  set: {
    ...changes,
    name: 'set',
    summary: 'change the delay of a pool, or when columns are copied back',
    arguments: [pool],
    options: settings,
  },
  add: {
    ...changes,
    name: 'add',
    summary: 'add spares to a pool, or to all pools',
    arguments: [poolOrAll, devices],
    options: [WIPE_SIGNATURES],
  },
  delete: {
    ...changes,
    name: 'delete',
    summary: 'take spares that are not in use out of a pool, or delete an empty pool',
    arguments: [poolOrAll, spares],
    options: [],
  },
  replace: {
    ...changes,
    name: 'replace',
    summary: 'put another device in the place of a spare that is not in use',
    arguments: [
      poolOrAll,
      { name: 'oldSpare', kind: 'spare', summary: 'spare that leaves' },
      { name: 'newDevice', kind: 'device', summary: 'device or empty drive that takes its place' },
    ],
    options: [WIPE_SIGNATURES],
  },
  enable: {
    ...changes,
    name: 'enable',
    summary: 'make a broken spare available again',
    arguments: [{ name: 'drive', kind: 'spare', summary: 'the spare' }],
    options: [],
  },
  use: {
    ...changes,
    name: 'use',
    summary: 'let a spare take the place of a drive now: a good one is copied, another one rebuilt',
    arguments: [volume, { name: 'drive', kind: 'drive', summary: 'drive that fails' }],
    options: [
      {
        name: 'force',
        short: 'f',
        summary: 'a healthy drive, even while another one of the volume is missing',
      },
    ],
  },
  'copy-back': {
    ...changes,
    name: 'copy-back',
    summary:
      'copy what is on spares back to the drives that it comes from; the spares are free then',
    arguments: [volume],
    options: [],
  },
  list: {
    noun: 'spare',
    readOnly: true,
    name: 'list',
    summary: 'list pools and spares',
    arguments: [],
    options: [],
  },
} as const satisfies Readonly<Record<string, VerbSpec>>

export const SPARE_VERB_SPECS: readonly VerbSpec[] = Object.values(SPARE_SPECS)
