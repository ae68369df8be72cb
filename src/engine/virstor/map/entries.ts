/** Entries of the chunk map that have changed, and those that cannot be right. Used by chunk-map.ts. */
import type { MapRecord } from '../runtime.ts'
import { keyOf } from './owners.ts'
import type { Entry } from './page.ts'

/** An entry that cannot be right. */
export interface MapFault {
  readonly chunk: number
  /** As it is on disk. */
  readonly entry: MapRecord
  /** For people: what is wrong with it. */
  readonly reason: string
}

/** A chunk that has changed. */
export interface Changed {
  /** The entry from before. */
  before: MapRecord
  /** Granules that have become valid since: what is in them may be in the cache of the component. */
  freshLow: number
  freshHigh: number
}

export const UNALLOCATED: Entry = {
  component: 0,
  number: 0,
  validLow: 0,
  validHigh: 0,
  lost: false,
}

/** What is valid of an entry without what has become valid since. */
export function without(
  { validLow, validHigh }: Entry,
  { freshLow, freshHigh }: Changed,
): Pick<Entry, 'validLow' | 'validHigh'> {
  return { validLow: (validLow & ~freshLow) >>> 0, validHigh: (validHigh & ~freshHigh) >>> 0 }
}

export function isSame(one: Entry, other: Entry): boolean {
  return (
    keyOf(one) === keyOf(other) &&
    one.validLow === other.validLow &&
    one.validHigh === other.validHigh &&
    one.lost === other.lost
  )
}
