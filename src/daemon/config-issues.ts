/**
 * Turns what zod finds wrong with plexus.yaml into sentences for people, each at its place in the text:
 * `plexus.yaml:31:9: unknown key "devise" in target "iqn…:db" lun 0; did you mean "device"?`. Called by
 * config.ts.
 */
import type { z } from 'zod'
import { didYouMean } from '../base/suggest.ts'
import { knownKeys } from './config-schema.ts'
import type { ConfigPath, ConfigSource } from './config-source.ts'

type Issue = z.core.$ZodIssue

/** Keys of the design that this version does not have: named honestly instead of as a typing error. */
const NOT_YET: ReadonlyMap<string, string> = new Map(
  Object.entries({
    volumes:
      'volumes are made with plexus volume create NAME --mirror DEVICE DEVICE; the labels on the disks hold the configuration',
    role: 'spares are not available in this version; write the device as NAME: PATH',
    profile: 'profiles are not available in this version; one behaviour suits all initiators',
    metrics: 'metrics are not available in this version',
  }),
)

/** Sections that are lists or mappings of named things, and the noun for one of them. */
const NOUNS: ReadonlyMap<string, string> = new Map(
  Object.entries({
    portals: 'portal',
    auth: 'auth group',
    devices: 'device',
    targets: 'target',
  }),
)

/** The value at `path` in plain data, or undefined. */
export function valueAt(value: unknown, path: ConfigPath): unknown {
  let at = value
  for (const part of path) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, part)) return undefined
    at = (at as Record<PropertyKey, unknown>)[part]
  }
  return at
}

/** What a path lies in, in words: `target "iqn…:db" lun 0`. */
export function describePlace(value: unknown, path: ConfigPath): string {
  const [section, item, part, index] = path
  if (section === undefined) return 'the configuration'
  const noun = NOUNS.get(String(section))
  if (noun === undefined || item === undefined) return `"${String(section)}"`
  const named = typeof item === 'number' ? valueAt(value, [section, item, 'name']) : item
  const head =
    typeof named === 'string' ? `${noun} "${named}"` : `${noun} number ${Number(item) + 1}`
  if (part === 'luns' && index !== undefined) {
    const number = valueAt(value, [section, item, part, index, 'lun'])
    return `${head} lun ${typeof number === 'number' ? number : `number ${Number(index) + 1}`}`
  }
  if (part === 'access' && index !== undefined) return `${head} access of "${String(index)}"`
  return typeof part === 'string' && index !== undefined ? `${head} "${part}"` : head
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return 'nothing'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object') return 'keys and values'
  return typeof value === 'string' ? `"${value}"` : `${typeof value} ${String(value)}`
}

const EXPECTED_WORDS: Readonly<Record<string, string>> = {
  string: 'text (quote it if it looks like a number)',
  int: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  array: 'a list',
  object: 'keys and values',
  record: 'keys and values',
}

/** How one kind of issue reads, given the value that is there. */
const WORDS: Readonly<Partial<Record<string, (issue: Issue, value: unknown) => string>>> = {
  invalid_type: (issue, value) => {
    const expected = issue.code === 'invalid_type' ? issue.expected : ''
    return `expected ${EXPECTED_WORDS[expected] ?? expected}, found ${kindOf(value)}`
  },
  invalid_value: (issue, value) => {
    const values = issue.code === 'invalid_value' ? issue.values.map(String) : []
    const hint = typeof value === 'string' ? didYouMean(value, values) : ''
    return `expected ${values.join(' or ')}, found ${kindOf(value)}${hint}`
  },
  too_small: (issue, value) => {
    if (issue.code !== 'too_small') return issue.message
    if (issue.origin === 'string') return 'must not be empty'
    if (issue.origin === 'array') return `needs at least ${issue.minimum} entry`
    return `must be at least ${issue.minimum}, found ${kindOf(value)}`
  },
  too_big: (issue, value) => {
    if (issue.code !== 'too_big') return issue.message
    if (issue.origin === 'string') return `is longer than ${issue.maximum} characters`
    if (issue.origin === 'array') return `has more than ${issue.maximum} entries`
    return `must be at most ${issue.maximum}, found ${kindOf(value)}`
  },
}

function sentence(issue: Issue, value: unknown): string {
  return WORDS[issue.code]?.(issue, value) ?? issue.message
}

function reportUnknownKeys(source: ConfigSource, path: ConfigPath, keys: readonly string[]): void {
  const known = knownKeys(path)
  for (const key of keys) {
    const hint = didYouMean(key, known)
    const text =
      NOT_YET.get(key) ?? `unknown key "${key}" in ${describePlace(source.value, path)}${hint}`
    source.problemAtKey([...path, key], text)
  }
}

/** Reports `issue`, found at `base` + its own path. Unions are followed into the branch that fits best. */
export function reportIssue(source: ConfigSource, issue: Issue, base: ConfigPath = []): void {
  const path = [...base, ...issue.path]
  if (source.isFull) {
    source.problem(path, issue.message)
    return
  }
  const value = valueAt(source.value, path)
  if (issue.code === 'unrecognized_keys') {
    reportUnknownKeys(source, path, issue.keys)
    return
  }
  if (issue.code === 'invalid_union') {
    const inner = issue.errors.find(
      (branch) => !branch.some((one) => one.code === 'invalid_type' && one.path.length === 0),
    )
    if (inner && inner.length > 0) for (const one of inner) reportIssue(source, one, path)
    else source.problem(path, unionSentence(source, issue, path, value))
    return
  }
  const place = describePlace(source.value, path.slice(0, -1))
  const key = path.at(-1)
  if (issue.code === 'invalid_key') {
    const why = issue.issues.map((one) => one.message).join('; ')
    source.problemAtKey(path, `"${String(key)}" in ${place}: ${why}`)
    return
  }
  if (value === undefined) {
    source.problem(path.slice(0, -1), `"${String(key)}" is missing in ${place}`)
    return
  }
  const subject = typeof key === 'string' ? `"${key}" in ${place}` : place
  source.problem(path, `${subject}: ${sentence(issue, value)}`)
}

function unionSentence(
  source: ConfigSource,
  issue: Issue,
  path: ConfigPath,
  value: unknown,
): string {
  const place = describePlace(source.value, path.slice(0, -1))
  const key = path.at(-1)
  if (value === undefined) return `"${String(key)}" is missing in ${place}`
  const branches = issue.code === 'invalid_union' ? issue.errors.flat() : []
  const words = branches.map((one) =>
    one.code === 'invalid_value' ? one.values.join(' or ') : expectedWord(one),
  )
  return `"${String(key)}" in ${place}: expected ${[...new Set(words)].join(' or ')}, found ${kindOf(value)}`
}

function expectedWord(issue: Issue): string {
  if (issue.code !== 'invalid_type') return issue.message
  return EXPECTED_WORDS[issue.expected] ?? issue.expected
}
