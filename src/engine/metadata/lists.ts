/**
 * Look-ups in the lists of a model: by UUID, by name, by parent. A configuration may have thousands of objects,
 * and a verb asks for them thousands of times, so that each list gets an index when it is first asked. Lists are
 * never changed in place, so an index holds as long as its list; {@link appended} hands it on to the longer one.
 */

type Index<T> = Map<keyof T, Map<unknown, readonly T[]>>

/** A memory of what follows from immutable lists, not state: losing it costs time only. */
const indexes = new WeakMap<readonly object[], Index<never>>()

/** The records whose `field` has that value, in the order of the list. */
export function having<T extends object, K extends keyof T>(
  records: readonly T[],
  field: K,
  value: T[K] | undefined,
): readonly T[] {
  const index: Index<T> = indexOf(records)
  let groups = index.get(field)
  if (!groups) {
    groups = groupBy(records, field)
    index.set(field, groups)
  }
  return groups.get(value) ?? []
}

export function byUuid<T extends { readonly uuid: string }>(
  records: readonly T[],
  uuid: string | undefined,
): T | undefined {
  return having<T, 'uuid'>(records, 'uuid', uuid)[0]
}

export function uuidOf({ uuid }: { readonly uuid: string }): string {
  return uuid
}

/** The list with one record more. */
export function appended<T extends object>(records: readonly T[], record: T): readonly T[] {
  const longer = [...records, record]
  const index: Index<T> = indexOf(records)
  for (const [field, groups] of index) {
    groups.set(record[field], [...(groups.get(record[field]) ?? []), record])
  }
  indexes.delete(records)
  indexes.set(longer, index as unknown as Index<never>)
  return longer
}

/** Replaces the record with the same UUID. */
export function replaceRecord<T extends { readonly uuid: string }>(
  records: readonly T[],
  record: T,
): readonly T[] {
  return records.map((one) => (one.uuid === record.uuid ? record : one))
}

function indexOf<T extends object>(records: readonly T[]): Index<T> {
  const known = indexes.get(records)
  if (known) return known as unknown as Index<T>
  const index: Index<T> = new Map()
  indexes.set(records, index as unknown as Index<never>)
  return index
}

function groupBy<T extends object>(
  records: readonly T[],
  field: keyof T,
): Map<unknown, readonly T[]> {
  const groups = new Map<unknown, T[]>()
  for (const one of records) {
    const group = groups.get(one[field])
    if (group) group.push(one)
    else groups.set(one[field], [one])
  }
  return groups
}
