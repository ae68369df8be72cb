/**
 * Names in a vinum model: finding an object by its name, and judging new names. Names are unique over all
 * types of a set (docs/vinum.md, 9), so that a bare name means one object. Used by every verb.
 */
import { PlexusError } from '../../../base/errors.ts'
import { didYouMean } from '../../../base/suggest.ts'
import {
  findBy,
  type ModelObject,
  type ObjectType,
  objectsOf,
  type PoolRecord,
  type RecordOfType,
  recordsOf,
  type VinumModel,
} from '../model/model.ts'
import { poolsOf } from '../model/spares.ts'
import { bareName, setName } from '../naming.ts'
import type { Draft } from './draft.ts'

/** Bytes of a name, as in vinum's own structures without their final NUL (docs/vinum.md, 1). */
const NAME_BYTES: Readonly<Record<ObjectType | 'pool', number>> = {
  volume: 63,
  plex: 63,
  subdisk: 63,
  drive: 31,
  pool: 31,
}
/** What the configuration text and a provider name can carry without quotes. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._+:@-]*$/

/** The object of a name, whatever its type, or undefined. */
export function lookUp(model: VinumModel, name: string): ModelObject | undefined {
  return findBy(model, 'name', name)
}

export function allNames(model: VinumModel): readonly string[] {
  return objectsOf(model).map(({ name }) => name)
}

/** As {@link lookUp}; throws `not-found` with the nearest name. */
export function findObject(model: VinumModel, name: string): ModelObject {
  const found = lookUp(model, name)
  if (found) return found
  const message = `there is no object "${name}"${didYouMean(name, allNames(model))}; plexus vinum list shows all`
  throw new PlexusError('not-found', { op: 'find', subject: name, message })
}

/** The object of a name, which must have the type. Throws `not-found` with the nearest name of that type. */
export function findTyped<T extends ObjectType>(
  model: VinumModel,
  type: T,
  name: string,
): RecordOfType<T> {
  const found = lookUp(model, name)
  if (found?.type === type) return found.record as RecordOfType<T>
  const known = recordsOf(model, type).map((one) => one.name)
  const fact = found
    ? `"${name}" is a ${found.type}, not a ${type}`
    : `there is no ${type} "${name}"`
  const message = `${fact}${found ? '' : didYouMean(name, known)}; plexus vinum list shows all`
  throw new PlexusError('not-found', { op: 'find', subject: name, message })
}

/** Throws `invalid` for a name that cannot be one, `exists` for one that is taken by an object of any type. */
export function checkNewName(draft: Draft, type: ObjectType | 'pool', name: string): void {
  // Of another set, where there are several (naming.ts).
  const own = `${setName(draft.model.setUuid)}/`
  const bare = name.startsWith(own) ? name.slice(own.length) : name
  if (!NAME.test(bare)) {
    const form = 'use letters, digits and . _ + : @ -, a letter or digit first'
    throw draft.invalid`"${name}" cannot be the name of a ${type}; ${form}`
  }
  const most = NAME_BYTES[type]
  if (Buffer.byteLength(bare) > most) {
    const fact = `"${name}" is too long for a ${type}`
    draft.fail('invalid', name, `${fact}; a name has ${most} bytes at most`)
  }
  const pool = poolsOf(draft.model).find((one) => one.name === name)
  const holder = pool ? { type: 'pool' } : lookUp(draft.model, name)
  if (!holder) return
  const advice = 'choose another name, or rename that one first'
  throw draft.exists`${name} exists: it is a ${holder.type}; ${advice}`
}

/** The first of `PREFIX0`, `PREFIX1`, … from `first` on that is free over all types. */
export function freeName(model: VinumModel, prefix: string, first = 0): string {
  const taken = new Set(allNames(model))
  let number = first
  while (taken.has(`${prefix}${number}`)) number++
  return `${prefix}${number}`
}

/** The pool of that name, perhaps SET/NAME. Throws `not-found` with the nearest name. */
export function poolNamed(draft: Draft, name: string): PoolRecord {
  const pools = poolsOf(draft.model)
  const found = pools.find((one) => one.name === bareName(name))
  if (found) return found
  const near = didYouMean(
    name,
    pools.map((one) => one.name),
  )
  throw draft.notFound`${name} is no pool of spares${near}; plexus spare list shows them, plexus spare create POOL DEVICE makes one`
}
