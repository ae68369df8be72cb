/** Reads the parameters of a verb: checked against its spec by the control server, typed here. */
import { parseSize } from '../../../base/bytes.ts'
import { PlexusError } from '../../../base/errors.ts'
import type { VerbParameters } from '../../geom/types.ts'

/** A text parameter, or undefined when it was left out. */
export function optionalText(parameters: VerbParameters, name: string): string | undefined {
  const value = parameters[name]
  return typeof value === 'string' ? value : undefined
}

/** A text parameter that must stand. Throws `invalid` without it. */
export function text(parameters: VerbParameters, name: string, op: string): string {
  const value = optionalText(parameters, name)
  if (value !== undefined && value !== '') return value
  throw new PlexusError('invalid', {
    op,
    subject: name,
    message: `${op}: ${name} is missing; plexus ${op} --help shows the arguments`,
  })
}

/** A list; one text counts as a list of one, and nothing as an empty one. */
export function list(parameters: VerbParameters, name: string): readonly string[] {
  const value = parameters[name]
  if (typeof value === 'string') return [value]
  return Array.isArray(value) ? value : []
}

export function flag(parameters: VerbParameters, name: string): boolean {
  return parameters[name] === true
}

/** A size in bytes, or undefined when it was left out. Throws `invalid` for what is not a size above 0. */
export function optionalSize(
  parameters: VerbParameters,
  name: string,
  op: string,
): number | undefined {
  const value = optionalText(parameters, name)
  if (value === undefined) return undefined
  const bytes = parseSize(value)
  if (bytes > 0) return bytes
  throw new PlexusError('invalid', {
    op,
    subject: name,
    message: `${op}: ${name} ${value} must be more than 0`,
  })
}

/** A list of names that the spec demands, each once. Throws `invalid` where one stands twice. */
export function names(
  parameters: VerbParameters,
  name: string,
  what: string,
  op: string,
): readonly string[] {
  const all = list(parameters, name)
  checkDistinct(all, what, op)
  return all
}

/** Throws `invalid` where a list names something twice. */
export function checkDistinct(names: readonly string[], what: string, op: string): void {
  const twice = names.find((one, index) => names.indexOf(one) !== index)
  if (twice === undefined) return
  throw new PlexusError('invalid', {
    op,
    subject: twice,
    message: `${op}: ${what} ${twice} is named twice; name each once`,
  })
}
