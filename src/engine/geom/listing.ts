/** Lists of objects: the answer of `plexus list`, and of the lists that each class has under its own noun. */
import { PlexusError } from '../../base/errors.ts'
import { didYouMean } from '../../base/suggest.ts'
import { partsIn } from '../../control/objects.ts'
import type { ObjectList, ObjectReport, ObjectType } from '../../control/reports.ts'
import type { VerbSpec } from '../../control/verb-spec.ts'
import type { GeomClass, Verb, VerbParameters } from './types.ts'

/** A verb that lists: objects of one type, or of all. */
export interface ListVerb {
  readonly spec: VerbSpec
  readonly type?: string
  /** With what is below, asked for or not. */
  readonly recursive?: true
}

/** The verbs of the rows; `objects` is asked at each call. */
export function listVerbs(
  rows: readonly ListVerb[],
  { types = [] }: Pick<GeomClass, 'types'>,
  objects: (parameters: VerbParameters) => readonly ObjectReport[],
): readonly Verb[] {
  return rows.map(({ spec, type, ...always }) => ({
    spec,
    run: async (parameters) =>
      listing({ types, objects: objects(parameters) }, type, { ...parameters, ...always }),
  }))
}

/**
 * Of all objects those of a type, or those that `objects` or `name` of the parameters name; with `recursive` what is below,
 * and the drives that it lies on. Throws `not-found` with the nearest name.
 */
export function listing(
  { types, objects }: ObjectList,
  type: string | undefined,
  parameters: VerbParameters,
): ObjectList {
  const { objects: several, name, recursive } = parameters
  const names = Array.isArray(several) ? several : typeof name === 'string' ? [name] : []
  const candidates = objects.filter((one) => type === undefined || one.type === type)
  const found = names.length > 0 ? names.map((one) => named(candidates, one, type)) : candidates
  const shown = new Set(found)
  const partsOf = partsIn(objects)
  // Grows while it is walked.
  for (const one of recursive === true ? shown : []) {
    for (const part of partsOf(one)) shown.add(part)
    for (const other of objects) if (other.name === one.drive) shown.add(other)
  }
  return {
    types: types.filter((one) => one.name === type || [...shown].some((o) => o.type === one.name)),
    objects: objects.filter((one) => shown.has(one)),
  }
}

/** The object of a name; SET/NAME finds it in any case. */
function named(
  objects: readonly ObjectReport[],
  wanted: string,
  type: string | undefined,
): ObjectReport {
  const found = objects.find(({ name, set }) => {
    return name === wanted || `${set}/${name.slice(name.indexOf('/') + 1)}` === wanted
  })
  if (found) return found
  const near = didYouMean(
    wanted,
    objects.map((one) => one.name),
  )
  const message = `there is no ${type ?? 'object'} "${wanted}"${near}; plexus list shows all`
  throw new PlexusError('not-found', { op: 'find', subject: wanted, message })
}

/** What all classes have, each word once. */
export function typesOf(classes: readonly GeomClass[]): readonly ObjectType[] {
  const types = classes.flatMap((one) => one.types ?? [])
  return [...new Map(types.map((one) => [one.name, one])).values()]
}

/** What all classes have now. */
export function objectsOf(classes: readonly GeomClass[]): readonly ObjectReport[] {
  return classes.flatMap((one) => one.report?.() ?? [])
}
