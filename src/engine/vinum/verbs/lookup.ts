/**
 * Names in a vinum model: finding an object by its name, and judging new names. Names are unique over all
 * types of a set (spec/vinum.md, 9), so that a bare name means one object. Used by every verb.
 */
import { PlexusError } from '../../../base/errors.ts'
import { didYouMean } from '../../../base/suggest.ts'
import { byName } from '../model/lists.ts'
import type {
  DriveRecord,
  PlexRecord,
  SubdiskRecord,
  VinumModel,
  VolumeRecord,
} from '../model/model.ts'
import { setName } from '../naming.ts'

export type ObjectType = 'volume' | 'plex' | 'subdisk' | 'drive'

export type FoundObject =
  | { readonly type: 'volume'; readonly record: VolumeRecord }
  | { readonly type: 'plex'; readonly record: PlexRecord }
  | { readonly type: 'subdisk'; readonly record: SubdiskRecord }
  | { readonly type: 'drive'; readonly record: DriveRecord }

/** Bytes of a name, as in vinum's own structures without their final NUL (spec/vinum.md, 1). */
const NAME_BYTES: Readonly<Record<ObjectType, number>> = {
  volume: 63,
  plex: 63,
  subdisk: 63,
  drive: 31,
}
/** What the configuration text and a provider name can carry without quotes. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._+:@-]*$/

export function allNames(model: VinumModel): readonly string[] {
  const { volumes, plexes, subdisks, drives } = model
  return [...volumes, ...plexes, ...subdisks, ...drives].map((one) => one.name)
}

/** The object of a name, whatever its type, or undefined. */
export function lookUp(model: VinumModel, name: string): FoundObject | undefined {
  const volume = byName(model.volumes, name)
  if (volume) return { type: 'volume', record: volume }
  const plex = byName(model.plexes, name)
  if (plex) return { type: 'plex', record: plex }
  const subdisk = byName(model.subdisks, name)
  if (subdisk) return { type: 'subdisk', record: subdisk }
  const drive = byName(model.drives, name)
  return drive && { type: 'drive', record: drive }
}

/** As {@link lookUp}; throws `not-found` with the nearest name. */
export function findObject(model: VinumModel, name: string, op: string): FoundObject {
  const found = lookUp(model, name)
  if (found) return found
  throw new PlexusError('not-found', {
    op,
    subject: name,
    message: `there is no object "${name}"${didYouMean(name, allNames(model))}; plexus vinum list shows all`,
  })
}

type RecordOf<T extends ObjectType> = Extract<FoundObject, { readonly type: T }>['record']

/** The object of a name, which must have the type. Throws `not-found` with the nearest name of that type. */
export function findTyped<T extends ObjectType>(
  model: VinumModel,
  type: T,
  name: string,
  op: string,
): RecordOf<T> {
  const found = lookUp(model, name)
  if (found?.type === type) return found.record as RecordOf<T>
  const lists = {
    volume: model.volumes,
    plex: model.plexes,
    subdisk: model.subdisks,
    drive: model.drives,
  }
  const names = lists[type].map((one) => one.name)
  const fact = found
    ? `"${name}" is a ${found.type}, not a ${type}`
    : `there is no ${type} "${name}"`
  throw new PlexusError('not-found', {
    op,
    subject: name,
    message: `${fact}${found ? '' : didYouMean(name, names)}; plexus vinum list shows all`,
  })
}

/** Throws `invalid` for a name that cannot be one, `exists` for one that is taken by an object of any type. */
export function checkNewName(model: VinumModel, type: ObjectType, name: string, op: string): void {
  const refuse = (kind: 'invalid' | 'exists', message: string): never => {
    throw new PlexusError(kind, { op, subject: name, message })
  }
  // Of another set, where there are several (naming.ts).
  const own = `${setName(model.setUuid)}/`
  if (!NAME.test(name.startsWith(own) ? name.slice(own.length) : name)) {
    refuse(
      'invalid',
      `"${name}" cannot be the name of a ${type}; use letters, digits and . _ + : @ -, a letter or digit first`,
    )
  }
  if (Buffer.byteLength(name) > NAME_BYTES[type]) {
    refuse(
      'invalid',
      `"${name}" is too long for a ${type}; a name has ${NAME_BYTES[type]} bytes at most`,
    )
  }
  const holder = lookUp(model, name)
  if (holder) {
    refuse(
      'exists',
      `${name} exists: it is a ${holder.type}; choose another name, or rename that one first`,
    )
  }
}

/** `PREFIX0`, `PREFIX1`, … the first that is free over all types. */
export function freeName(model: VinumModel, prefix: string): string {
  const taken = new Set(allNames(model))
  for (let number = 0; ; number++) {
    const name = `${prefix}${number}`
    if (!taken.has(name)) return name
  }
}
