/**
 * The fields of records as tables: what each may hold. The types of the records follow from these tables (model.ts), and
 * codec.ts reads and writes with them.
 */
import { PlexusError } from '../../base/errors.ts'
import { NAME_BYTES } from '../../base/limits.ts'

/** Reads one value at a path such as `subdisks[3].sizeBytes`; throws `corrupt`. */
export type Reader<T> = (value: unknown, path: string) => T
/** A reader for each field, in the order in which they are written. */
type Fields = Readonly<Record<string, Reader<unknown>>>
/** The record that has these fields. */
export type RecordOf<F> = {
  readonly [K in keyof F]: F[K] extends Reader<infer T> ? T : never
}

export function corrupt(path: string, problem: string): PlexusError {
  const message = `configuration of a set: ${path}: ${problem}`
  return new PlexusError('corrupt', { op: 'decode', subject: path, message })
}

/** Throws `corrupt` that names the object and its field where something does not hold. */
export type Check = (field: string, holds: unknown, problem: string) => void

export function checksOf(object: string): Check {
  return (field, holds, problem) => {
    if (!holds) throw corrupt(`${object}, ${field}`, problem)
  }
}

/** Why a text cannot be the name of an object, or undefined when it can. */
export function nameFault(name: string): string | undefined {
  if (name === '') return 'a name must not be empty'
  if (Buffer.byteLength(name) > NAME_BYTES) return `a name has at most ${NAME_BYTES} bytes`
  if (!/^[^\s\p{C}#'"/\\]+$/u.test(name)) {
    return 'a name has no blanks, control characters, quotes, slashes or #'
  }
  return name.startsWith('-') ? 'a name does not begin with -' : undefined
}

/** A value in a message. Lists are not spelled out: they may be nested deeper than the stack. */
export function shown(value: unknown): string {
  if (typeof value === 'object' && value !== null) return 'what is there'
  return `${JSON.stringify(value)}`.slice(0, 100)
}

export const text: Reader<string> = (value, path) => {
  if (typeof value !== 'string') throw corrupt(path, 'it is not text')
  return value
}

export const whole: Reader<number> = (value, path) => {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw corrupt(path, `${shown(value)} is not a whole number from 0 to 2^53 - 1`)
}

export const flag: Reader<boolean> = (value, path) => {
  if (typeof value !== 'boolean') throw corrupt(path, 'it is neither true nor false')
  return value
}

export function oneOf<T extends string>(choices: readonly T[]): Reader<T> {
  return (value, path) => {
    const found = choices.find((one) => one === value)
    if (found === undefined) {
      throw corrupt(path, `${shown(value)} is none of ${choices.join(', ')}`)
    }
    return found
  }
}

export function maybe<T>(reader: Reader<T>): Reader<T | undefined> {
  return (value, path) => (value === undefined ? undefined : reader(value, path))
}

export function list<T>(reader: Reader<T>): Reader<readonly T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) throw corrupt(path, 'it is not a list')
    return value.map((one, index) => reader(one, `${path}[${index}]`))
  }
}

export function record<const F extends Fields>(fields: F): Reader<RecordOf<F>> {
  return (value, path) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw corrupt(path, 'it is not an object')
    }
    const given = value as Readonly<Record<string, unknown>>
    const label = typeof given['name'] === 'string' ? `${path} (${given['name']})` : path
    const entries = Object.entries(fields).map(([key, reader]) => [
      key,
      reader(Object.hasOwn(given, key) ? given[key] : undefined, `${label}.${key}`),
    ])
    return Object.fromEntries(entries) as RecordOf<F>
  }
}
