/** A chunk of the map that has changed since the last commit. Used by chunk-map.ts. */
import type { MapRecord } from '../runtime.ts'
import type { Entry } from './page.ts'

export interface ChangedEntry {
  /** The entry from before. */
  before: MapRecord
  /** Granules that have become valid since: what is in them may be in the cache of the component. */
  freshLow: number
  freshHigh: number
}

/** What is valid of an entry without what has become valid since. */
export function without(
  { validLow, validHigh }: Entry,
  { freshLow, freshHigh }: ChangedEntry,
): Pick<Entry, 'validLow' | 'validHigh'> {
  return { validLow: (validLow & ~freshLow) >>> 0, validHigh: (validHigh & ~freshHigh) >>> 0 }
}
