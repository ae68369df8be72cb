/**
 * Names of objects where several sets are on one machine. A bare name is the object of the first set that has it; in a
 * later set the same name is shown, and typed, as SET/NAME. SET/NAME finds the object in any case, and `volume create
 * SET/NAME` makes one in that set. Names on disk are bare. Used by vinum-class.ts and reports.ts.
 */
import { PlexusError } from '../../base/errors.ts'
import type { ArgumentKind, VerbSpec } from '../../control/verb-spec.ts'
import type { VerbParameters } from '../geom/types.ts'
import { LIST_OF, objectsOf, type VinumModel } from './model/model.ts'

export interface NamedSet {
  readonly name: string
  readonly model: VinumModel
  /** What carries its parts: names of devices, by UUID of the drive. */
  readonly drives: ReadonlyMap<
    string,
    { readonly consumer?: { readonly provider: { readonly name: string } } | undefined }
  >
  /** The name under which a volume is offered; undefined while it is not. */
  offeredAs(volumeUuid: string): string | undefined
}

/** The name of a native set, as people see it. */
export function setName(uuid: string): string {
  return `vinum-${uuid.slice(0, 8)}`
}

/** The name of each object by its UUID; `sets` in the order in which a bare name is looked for. */
export function shownNames(sets: readonly NamedSet[]): ReadonlyMap<string, string> {
  const shown = new Map<string, string>()
  const taken = new Set<string>()
  for (const set of sets) {
    const own = objectsOf(set.model)
    for (const { uuid, name } of own) {
      const bare = taken.has(name) ? `${set.name}/${name}` : name
      shown.set(uuid, set.offeredAs(uuid) ?? bare)
    }
    for (const { name } of own) taken.add(name)
  }
  return shown
}

function rename(model: VinumModel, nameOf: (uuid: string, name: string) => string): VinumModel {
  const lists = Object.values(LIST_OF).map((list) => {
    const named = model[list].map((one) => {
      const name = nameOf(one.uuid, one.name)
      return name === one.name ? one : { ...one, name }
    })
    return [list, named] as const
  })
  const isSame = lists.every(([list, named]) => named.every((one, at) => one === model[list][at]))
  return isSame ? model : { ...model, ...Object.fromEntries(lists) }
}

/** The model with the names that are shown; the same object where they are all bare. */
export function withShownNames(model: VinumModel, shown: ReadonlyMap<string, string>): VinumModel {
  return rename(model, (uuid, name) => shown.get(uuid) ?? name)
}

/** The model as it is stored: without the name of its set before any name. */
export function withBareNames(model: VinumModel): VinumModel {
  return rename(model, (_uuid, name) => name.slice(name.indexOf('/') + 1))
}

const OBJECT_KINDS: ReadonlySet<ArgumentKind | undefined> = new Set([
  'volume',
  'plex',
  'subdisk',
  'drive',
  'spare',
  'device',
  'object',
] as const)

export interface Addressed<T> {
  /** The set that the parameters are about; undefined: they name nothing that exists. */
  readonly set: T | undefined
  /** With every object by the name that is shown. */
  readonly parameters: VerbParameters
}

/** Finds the set that a verb is about. Throws `invalid` where objects of several sets are named together. */
export function address<T extends NamedSet>(
  { arguments: given, options }: VerbSpec,
  parameters: VerbParameters,
  sets: readonly T[],
  shown: ReadonlyMap<string, string>,
): Addressed<T> {
  const owners = new Map<T, string>()
  const find = (typed: string, kind: ArgumentKind | undefined): string => {
    const slash = typed.indexOf('/')
    const named = sets.find(({ name }) => name === (slash < 0 ? typed : typed.slice(0, slash)))
    if (named) {
      owners.set(named, typed)
      const bare = typed.slice(slash + 1)
      const found = objectsOf(named.model).find(({ name }) => name === bare)
      return (found && shown.get(found.uuid)) ?? typed
    }
    if (kind === 'pool') {
      const owner = sets.find(({ model }) => model.pools?.some(({ name }) => name === typed))
      if (owner && !owners.has(owner)) owners.set(owner, typed)
    }
    if (!OBJECT_KINDS.has(kind)) return typed
    const carries = (set: T): boolean =>
      [...set.drives.values()].some((drive) => drive.consumer?.provider.name === typed)
    const has = (set: T): boolean =>
      objectsOf(set.model).some(({ uuid }) => shown.get(uuid) === typed)
    const owner = (kind === 'device' ? sets.find(carries) : undefined) ?? sets.find(has)
    if (owner && !owners.has(owner)) owners.set(owner, typed)
    return typed
  }
  const rows = [
    ...given.filter(({ kind }) => kind !== 'file'),
    ...options.map(({ name, value }) => ({ name, kind: value })),
  ]
  const found = { ...parameters }
  for (const { name, kind } of rows) {
    const value = parameters[name]
    if (typeof value === 'string') found[name] = find(value, kind)
    else if (typeof value === 'object') found[name] = value.map((one) => find(one, kind))
  }
  const [first, second] = owners
  if (first && second) {
    const message =
      `${second[1]} belongs to ${second[0].name}, and ${first[1]} to ${first[0].name}: a verb works on one set; ` +
      `an object of a set is named SET/NAME: ${first[0].name}/${bareName(second[1])}`
    throw new PlexusError('invalid', { op: 'find', subject: second[1], message })
  }
  return { set: first?.[0], parameters: found }
}

/** What is said of a volume that is offered as SET/NAME. */
export function nameTaken(name: string): { readonly status: string; readonly action: string } {
  return {
    status: `It is offered as ${name}: ${bareName(name)} is the name of something else here.`,
    action: `To give it a name of its own: plexus volume rename ${name} NEW-NAME`,
  }
}

/** `db` of `vinum-1f3d0e68/db`. */
export function bareName(name: string): string {
  return name.slice(name.indexOf('/') + 1)
}
