/**
 * The verbs of `plexus nop`, declared: a provider that hands everything through and can be told to be slow or to
 * fail, for trying out how what stands on it behaves. Actions: src/engine/nop/nop-class.ts.
 */
import type { ArgumentSpec, VerbSpec } from './verb-spec.ts'

const name: ArgumentSpec = { name: 'name', kind: 'provider', summary: 'the nop provider' }
const changes = { noun: 'nop', readOnly: false } as const

export const NOP_FAIL_OPS = ['read', 'write', 'flush'] as const
export type NopFailOp = (typeof NOP_FAIL_OPS)[number]
export const NOP_FAIL_KINDS = ['io', 'gone'] as const
export type NopFailKind = (typeof NOP_FAIL_KINDS)[number]

export const NOP_SPECS = {
  create: {
    ...changes,
    name: 'create',
    summary: 'put a provider of the same size over another one',
    arguments: [{ name: 'provider', kind: 'provider', summary: 'the provider below' }],
    options: [{ name: 'name', value: 'text', summary: 'its name; default: PROVIDER.nop' }],
  },
  delay: {
    ...changes,
    name: 'delay',
    summary: 'hold requests back by some milliseconds; 0 ends it',
    arguments: [name],
    options: [
      { name: 'read', value: 'text', summary: 'milliseconds for each read' },
      { name: 'write', value: 'text', summary: 'milliseconds for each write' },
    ],
  },
  fail: {
    ...changes,
    name: 'fail',
    summary: 'fail requests; all of them until clear, unless --count or --probability says less',
    arguments: [name],
    options: [
      { name: 'op', value: 'text', choices: NOP_FAIL_OPS, summary: 'which requests' },
      { name: 'probability', value: 'text', summary: 'each one with this probability, 0 to 1' },
      { name: 'count', value: 'text', summary: 'so many from now on' },
      {
        name: 'kind',
        value: 'text',
        choices: NOP_FAIL_KINDS,
        summary: 'io: a bad medium (default); gone: the device is not there',
      },
    ],
  },
  hang: {
    ...changes,
    name: 'hang',
    summary: 'answer no request until clear, as a disk whose cable is cut',
    arguments: [name],
    options: [
      {
        name: 'op',
        value: 'text',
        choices: NOP_FAIL_OPS,
        summary: 'such requests only; default: all',
      },
    ],
  },
  tear: {
    ...changes,
    name: 'tear',
    summary: 'store only a first part of writes, in whole blocks, and fail them',
    arguments: [name],
    options: [
      { name: 'count', value: 'text', summary: 'so many writes from now on; default: 1' },
      { name: 'succeed', summary: 'report them as done: silent corruption' },
    ],
    destructive: true,
  },
  clear: {
    ...changes,
    name: 'clear',
    summary: 'end all delays and faults, and let go on what was held back',
    arguments: [name],
    options: [],
  },
  destroy: {
    ...changes,
    name: 'destroy',
    summary: 'take the provider away; the one below stays',
    arguments: [name],
    options: [{ name: 'force', summary: 'even while it is in use, as if it were pulled out' }],
  },
  list: {
    noun: 'nop',
    readOnly: true,
    table: true,
    name: 'list',
    summary: 'list nop providers with their faults and counts',
    arguments: [],
    options: [],
  },
} as const satisfies Readonly<Record<string, VerbSpec>>

export const NOP_VERB_SPECS: readonly VerbSpec[] = Object.values(NOP_SPECS)
