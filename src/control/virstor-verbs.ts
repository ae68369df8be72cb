/**
 * The verbs of `plexus virstor`, declared: thin devices (gvirstor(8)). Their actions are in src/engine/virstor; the command
 * line and the documentation are made from these rows.
 */
import type { ArgumentSpec, VerbSpec } from './verb-spec.ts'
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
      {
        name: 'policy',
        value: 'text',
        choices: VIRSTOR_POLICIES,
        summary: 'which component gives space next: the first with room (default), or all in turn',
      },
      {
        name: 'fullWait',
        value: 'text',
        summary:
          'how long a write waits for space when all is given away; default: 20s, 0: not at all',
      },
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
  assemble: {
    ...changes,
    name: 'assemble',
    summary: 'go on without components that are missing; what only they have cannot be read',
    arguments: [{ name: 'set', kind: 'set', optional: true, summary: 'which, where several wait' }],
    options: [
      { name: 'force', short: 'f', summary: 'although components are missing' },
      {
        name: 'from',
        value: 'device',
        summary: 'as this one has it, where components were used apart from each other',
      },
    ],
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
