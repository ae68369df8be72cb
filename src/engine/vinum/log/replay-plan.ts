/**
 * What is to be done with the entries that the rings of a plex show after a start (docs/adr/0016-raid5-log.md). Pure.
 *
 * In place nothing of an entry was begun before its parts were durable in the rings of all its columns; and until all of it
 * was in place, durably, no ring dropped its part. So an entry that lacks a part on a column that is here was either never
 * begun, or the part has rotten. An entry that is complete is written again: after it, in their order, all newer ones are.
 */
import type { ByteRange } from '../../../base/bytes.ts'
import { type FoundRecord, membersOf } from './block.ts'
import type { RingView } from './read-ring.ts'

/**
 * `here`: in service, and its drive is there. `filling`: the same, but what it has is valid in places only. `away`: in service,
 * and the drive is missing. `out`: it is out of service, durably, and has missed what it has missed.
 */
export type ColumnView =
  | { readonly state: 'here' | 'filling'; readonly ring: RingView }
  | { readonly state: 'away' | 'out' }

export interface ReplayWrite {
  readonly column: number
  readonly record: FoundRecord
}

export interface ReplayPlan {
  /** Oldest entry first. */
  readonly writes: readonly ReplayWrite[]
  /** Columns that are away and have missed one of these entries, with where. */
  readonly missed: ReadonlyMap<number, readonly ByteRange[]>
  /** Rows of which nobody knows whether parity and data are of one time. */
  readonly doubtfulRows: ReadonlySet<number>
  readonly entries: number
}

export function planReplay(columns: readonly ColumnView[], stripeBytes: number): ReplayPlan {
  const entries = new Map<number, Map<number, readonly FoundRecord[]>>()
  const incomplete = new Set<number>()
  for (const [column, view] of columns.entries()) {
    if (!isThere(view)) continue
    for (const [entry, { records, isWhole }] of view.ring.parts) {
      const parts = entries.get(entry) ?? new Map<number, readonly FoundRecord[]>()
      parts.set(column, records)
      entries.set(entry, parts)
      if (!isWhole) incomplete.add(entry)
    }
  }
  const allHere = columns.every(({ state }) => state === 'here')
  const doubtfulRows = new Set<number>()
  const complete: number[] = []
  for (const [entry, parts] of entries) {
    const lacking = lackingOf(columns, parts)
    if (lacking.length === 0 && !incomplete.has(entry)) {
      complete.push(entry)
      continue
    }
    const bad = [...lacking, ...badColumns(columns, entry, parts)]
    if (allHere || bad.some((column) => isRotten(columns[column]))) {
      for (const row of rowsOf(parts, stripeBytes)) doubtfulRows.add(row)
    }
  }
  complete.sort((a, b) => a - b)
  const writes: ReplayWrite[] = []
  const missed = new Map<number, ByteRange[]>()
  for (const entry of complete) {
    const parts = entries.get(entry) ?? new Map<number, readonly FoundRecord[]>()
    if (rowsOf(parts, stripeBytes).some((row) => doubtfulRows.has(row))) continue
    for (const [column, records] of parts) {
      for (const record of records) writes.push({ column, record })
    }
    for (const column of membersIn(parts)) {
      if (columns[column]?.state !== 'away') continue
      const ranges = missed.get(column) ?? []
      // Where it was written there nobody knows; the row is.
      for (const row of rowsOf(parts, stripeBytes)) {
        ranges.push({ offset: row * stripeBytes, length: stripeBytes })
      }
      missed.set(column, ranges)
    }
  }
  return { writes, missed, doubtfulRows, entries: complete.length }
}

function membersIn(parts: ReadonlyMap<number, readonly FoundRecord[]>): readonly number[] {
  const [records] = parts.values()
  return records?.[0] ? membersOf(records[0].members) : []
}

/** Columns of the entry that are here, and have no part of it. */
function lackingOf(
  columns: readonly ColumnView[],
  parts: ReadonlyMap<number, readonly FoundRecord[]>,
): number[] {
  return membersIn(parts).filter((column) => isThere(columns[column]) && !parts.has(column))
}

function badColumns(
  columns: readonly ColumnView[],
  entry: number,
  parts: ReadonlyMap<number, readonly FoundRecord[]>,
): number[] {
  return [...parts.keys()].filter((column) => {
    const view = columns[column]
    return isThere(view) && view.ring.parts.get(entry)?.isWhole === false
  })
}

function isRotten(view: ColumnView | undefined): boolean {
  return isThere(view) && view.ring.isRotten
}

/** Can it be written, and has it a ring to read? */
export function isThere(
  view: ColumnView | undefined,
): view is Extract<ColumnView, { readonly ring: RingView }> {
  return view?.state === 'here' || view?.state === 'filling'
}

/** The rows that an entry touches: one, unless its parts say otherwise. */
function rowsOf(
  parts: ReadonlyMap<number, readonly FoundRecord[]>,
  stripeBytes: number,
): readonly number[] {
  const rows = new Set<number>()
  for (const records of parts.values()) {
    for (const { offset, length } of records) {
      const end = offset + length
      for (let at = offset; at < end; at += stripeBytes) rows.add(Math.floor(at / stripeBytes))
    }
  }
  return [...rows]
}
