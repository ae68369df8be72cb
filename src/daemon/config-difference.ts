/**
 * What differs between two forms of a part of the configuration, in words: `alias: "a" -> "b"`. Used by reconcile.ts for
 * `config diff` and `config apply`. Never shows a secret.
 */
import { isDeepStrictEqual } from 'node:util'

/** By which the entries of a list are told apart. */
const KEYS = ['lun', 'name'] as const

type Fields = ReadonlyMap<string, unknown>

/** One line for each value that differs, with its path: `luns 1 unit: "db" -> "db2"`. */
export function differences(before: unknown, after: unknown, path = ''): string[] {
  if (isDeepStrictEqual(before, after)) return []
  const [old, now] = [fieldsOf(before), fieldsOf(after)]
  if (!old || !now) return [`${path}: ${words(before)} -> ${words(after)}`]
  return [...new Set([...old.keys(), ...now.keys()])].flatMap((key) =>
    differences(old.get(key), now.get(key), path === '' ? key : `${path} ${key}`),
  )
}

/** What a value consists of, by name; undefined: it is one value. */
function fieldsOf(value: unknown): Fields | undefined {
  if (value instanceof Map) return value as Fields
  if (Array.isArray(value)) return rowsOf(value)
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return undefined
  return new Map(Object.entries(value))
}

/** The rows of a list that have names or numbers. */
function rowsOf(rows: readonly unknown[]): Fields | undefined {
  const key = KEYS.find((one) =>
    rows.every((row) => typeof row === 'object' && row !== null && one in row),
  )
  if (key === undefined) return undefined
  return new Map(rows.map((row) => [String((row as Record<string, unknown>)[key]), row]))
}

function words(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value instanceof Uint8Array) return '(secret)'
  if (Array.isArray(value)) return `[${value.map(words).join(', ')}]`
  const fields = fieldsOf(value)
  if (!fields) return JSON.stringify(value)
  const known = [...fields].filter(([, inner]) => inner !== undefined)
  return `{${known.map(([name, inner]) => `${name}: ${words(inner)}`).join(', ')}}`
}
