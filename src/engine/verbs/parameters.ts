/**
 * What a verb was given, for verbs of every class, with the refusals that name the verb. The control server has checked the
 * parameters against the spec of the verb.
 */
import { parseSize } from '../../base/bytes.ts'
import { type ErrorKind, PlexusError, Refusals } from '../../base/errors.ts'
import type { VerbParameters } from '../geom/types.ts'

export class Parameters extends Refusals {
  readonly parameters: VerbParameters

  /** `op`: `vinum create`, for messages. */
  constructor(op: string, parameters: VerbParameters) {
    super(op)
    this.parameters = parameters
  }

  /** For a sentence that does not begin with its subject. */
  fail(kind: ErrorKind, subject: string, message: string): never {
    throw new PlexusError(kind, { op: this.op, subject, message })
  }

  optionalText(name: string): string | undefined {
    const value = this.parameters[name]
    return typeof value === 'string' ? value : undefined
  }

  /** Throws `invalid` where there is none. */
  text(name: string): string {
    const value = this.optionalText(name)
    if (value) return value
    const { op } = this
    return this.fail('invalid', name, `${op}: ${name} is missing; plexus ${op} --help shows it`)
  }

  list(name: string): readonly string[] {
    return listOf(this.parameters, name)
  }

  flag(name: string): boolean {
    return this.parameters[name] === true
  }

  /** A size in bytes. Throws `invalid` for what is not a size above 0. */
  optionalSize(name: string): number | undefined {
    const value = this.optionalText(name)
    if (value === undefined) return undefined
    const bytes = parseSize(value)
    if (bytes > 0) return bytes
    return this.fail('invalid', name, `${this.op}: ${name} ${value} must be more than 0`)
  }

  /** Throws `invalid` for what is not a number from 0 to `max`. */
  optionalNumber(name: string, max: number): number | undefined {
    const text = this.optionalText(name)
    if (text === undefined) return undefined
    const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN
    if (value >= 0 && value <= max) return value
    throw this.invalid`--${name} ${text}: must be a number from 0 to ${max}`
  }

  /** Throws `invalid` for what is none of `choices`. */
  optionalChoice<T extends string>(name: string, choices: readonly T[]): T | undefined {
    const text = this.optionalText(name)
    const choice = choices.find((one) => one === text)
    if (choice !== undefined || text === undefined) return choice
    throw this.invalid`--${name} ${text}: must be one of ${choices.join(', ')}`
  }

  /** A list of names, each once; `what` they are. Throws `invalid` where one stands twice. */
  names(name: string, what: string): readonly string[] {
    return this.distinct(this.list(name), what)
  }

  distinct(names: readonly string[], what: string): readonly string[] {
    const twice = names.find((one, index) => names.indexOf(one) !== index)
    if (twice === undefined) return names
    const why = `${this.op}: ${what} ${twice} is named twice; name each once`
    return this.fail('invalid', twice, why)
  }
}

/** A parameter with several values; one text counts as a list of one. */
export function listOf(parameters: VerbParameters, name: string): readonly string[] {
  const value = parameters[name]
  if (typeof value === 'string') return [value]
  return Array.isArray(value) ? value : []
}
