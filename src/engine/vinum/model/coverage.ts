/**
 * Which parts of a volume have a valid copy, computed from the records alone: the ground of the volume's state
 * (state-table.ts), of the rule that the last good copy is never taken out of service, and of what can be copied
 * from where (jobs/plans.ts). Exact for concat, for striped plexes of any geometry (two mirrors which lost
 * different columns still have everything) and for raid5 by columns; conservative where a subdisk is only
 * partly valid: reviving counts as nothing. spec/vinum.md, 5.1 and 9.
 */
import { COVERAGE_STEPS } from '../../../base/limits.ts'
import {
  byUuid,
  type PlexRecord,
  plexesOf,
  type SubdiskRecord,
  sizeOfPlex,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
} from './model.ts'

/**
 * A stretch [start, end) of plex space whose units of `unitBytes`, counted from 0 of plex space, take turns:
 * unit k is good when `good[k mod good.length]` is. One entry: all the same.
 */
interface Stretch {
  readonly start: number
  readonly end: number
  readonly unitBytes: number
  readonly good: readonly boolean[]
}

/** Judges a subdisk: does it count? */
type Judge = (subdisk: SubdiskRecord) => boolean

/** A map of good stretches for each plex that takes part. */
type Copies = readonly (readonly Stretch[])[]

const NOTHING: ReadonlySet<string> = new Set()

/** Is the content of the subdisk all valid and there: up on a drive that is up? */
export function isValid(model: VinumModel, subdisk: SubdiskRecord): boolean {
  return subdisk.state === 'up' && byUuid(model.drives, subdisk.driveUuid)?.state === 'up'
}

/**
 * First offset of the volume that has no valid copy, or undefined when all of it has one. `without`: UUIDs of
 * subdisks that do not count.
 */
export function firstUncovered(
  model: VinumModel,
  volume: VolumeRecord,
  without: ReadonlySet<string> = NOTHING,
): number | undefined {
  const copies = copiesOf(model, volume, without)
  return firstOffset(volume.sizeBytes, [copies], ([good]) => !good)
}

/** First offset of the volume that has a valid copy now, and would have none without these subdisks. */
export function firstLost(
  model: VinumModel,
  volume: VolumeRecord,
  without: ReadonlySet<string>,
): number | undefined {
  const before = copiesOf(model, volume, NOTHING)
  const after = copiesOf(model, volume, without)
  return firstOffset(volume.sizeBytes, [before, after], ([was, is]) => was === true && !is)
}

/**
 * Has every byte that the subdisk holds of its volume a valid copy elsewhere: in another plex, or through the
 * parity of its own (`ownParity`)? False for one without a volume.
 */
export function hasOtherCopy(
  model: VinumModel,
  subdisk: SubdiskRecord,
  options: { readonly without: ReadonlySet<string>; readonly ownParity: boolean },
): boolean {
  const plex = byUuid(model.plexes, subdisk.plexUuid)
  const volume = byUuid(model.volumes, plex?.volumeUuid)
  if (!plex || !volume) return false
  const without = new Set(options.without).add(subdisk.uuid)
  const own = [holdings(model, plex, subdisk)]
  const others = plexesOf(model, volume.uuid)
    .filter((one) => one.uuid !== plex.uuid || (options.ownParity && plex.organization === 'raid5'))
    .map((one) => stretchesOf(model, one, counting(model, without)))
  const end = Math.min(volume.sizeBytes, sizeOfPlex(plex, subdisksOf(model, plex.uuid)))
  return firstOffset(end, [own, others], ([holds, good]) => holds === true && !good) === undefined
}

function counting(model: VinumModel, without: ReadonlySet<string>): Judge {
  return (subdisk) => !without.has(subdisk.uuid) && isValid(model, subdisk)
}

function copiesOf(model: VinumModel, volume: VolumeRecord, without: ReadonlySet<string>): Copies {
  return plexesOf(model, volume.uuid).map((one) =>
    stretchesOf(model, one, counting(model, without)),
  )
}

/** Where a plex has valid data, when these subdisks count. */
function stretchesOf(model: VinumModel, plex: PlexRecord, counts: Judge): readonly Stretch[] {
  const subdisks = subdisksOf(model, plex.uuid)
  if (plex.organization === 'concat') return subdisks.map((one) => extentOf(one, counts(one)))
  return layoutsOf(plex, subdisks).flatMap(({ start, end, columns }) => {
    const good = columns.map(counts)
    if (plex.organization === 'striped') return [{ start, end, unitBytes: plex.stripeBytes, good }]
    const missing = good.filter((one) => !one).length
    if (missing > 1) return []
    // With a column missing its data comes from parity, which counts only where it is known to be right.
    const to = missing === 0 ? end : Math.min(end, plex.parityValidBytes)
    return to > start ? [{ start, end: to, unitBytes: end, good: [true] }] : []
  })
}

/** Where a subdisk holds data of its plex. A column of raid5 holds a part of every row. */
function holdings(model: VinumModel, plex: PlexRecord, subdisk: SubdiskRecord): readonly Stretch[] {
  if (plex.organization === 'concat') return [extentOf(subdisk, true)]
  const layouts = layoutsOf(plex, subdisksOf(model, plex.uuid))
  return layouts.flatMap(({ start, end, columns }) => {
    const held = columns.map((one) => one.uuid === subdisk.uuid)
    if (!held.includes(true)) return []
    return plex.organization === 'striped'
      ? [{ start, end, unitBytes: plex.stripeBytes, good: held }]
      : [{ start, end, unitBytes: end, good: [true] }]
  })
}

function extentOf(subdisk: SubdiskRecord, good: boolean): Stretch {
  const start = subdisk.plexOffsetBytes
  const end = start + subdisk.sizeBytes
  return { start, end, unitBytes: end, good: [good] }
}

/** The one or, while it grows, the two layouts of a striped or raid5 plex, by plex space. */
function layoutsOf(plex: PlexRecord, subdisks: readonly SubdiskRecord[]) {
  const end = sizeOfPlex(plex, subdisks)
  if (!plex.growth) return [{ start: 0, end, columns: subdisks }]
  const { cursorBytes, backup } = plex.growth
  // A window that has its backup is in neither layout, and wants all columns of the new one.
  const moved = backup ? backup.offsetBytes + backup.lengthBytes : cursorBytes
  const cursor = Math.min(moved, end)
  return [
    { start: 0, end: cursor, columns: subdisks },
    { start: cursor, end, columns: subdisks.slice(0, plex.growth.columnsBefore) },
  ].filter((one) => one.end > one.start)
}

/**
 * The first offset in [0, size) where `test` holds. It gets for each set of copies whether any of its plexes
 * is good there. Units repeat, so that one period of a piece between two ends decides for all of it; should the
 * periods of odd geometries have no small common multiple, the piece counts as found: the safe answer for
 * everybody who asks here.
 */
function firstOffset(
  size: number,
  sets: readonly Copies[],
  test: (good: readonly boolean[]) => boolean,
): number | undefined {
  const ends = new Set([0, size])
  for (const stretch of sets.flat(2)) {
    if (stretch.start < size) ends.add(stretch.start)
    if (stretch.end < size) ends.add(stretch.end)
  }
  const sorted = [...ends].sort((a, b) => a - b)
  for (const [index, start] of sorted.entries()) {
    const end = sorted[index + 1]
    if (end === undefined || end <= start) continue
    const here = sets.map((set) =>
      set.flat().filter((one) => one.start <= start && one.end >= end && one.good.includes(true)),
    )
    let steps = 0
    const until = Math.min(end, start + periodOf(here.flat()))
    for (let at = start; at < until; at = nextUnit(here.flat(), at, end)) {
      if (test(here.map((set) => set.some((one) => goodAt(one, at))))) return at
      if (++steps > COVERAGE_STEPS) return start
    }
  }
  return undefined
}

function goodAt(stretch: Stretch, offset: number): boolean {
  const unit = Math.floor(offset / stretch.unitBytes) % stretch.good.length
  return stretch.good[unit] === true
}

function nextUnit(stretches: readonly Stretch[], offset: number, end: number): number {
  let next = end
  for (const one of stretches) {
    if (one.good.length === 1) continue
    next = Math.min(next, (Math.floor(offset / one.unitBytes) + 1) * one.unitBytes)
  }
  return next
}

/** After so many bytes the pattern of these stretches begins again. */
function periodOf(stretches: readonly Stretch[]): number {
  let period = 1
  for (const one of stretches) {
    if (one.good.length === 1) continue
    const own = one.unitBytes * one.good.length
    period = (period / greatestCommonDivisor(period, own)) * own
  }
  return period === 1 ? Number.POSITIVE_INFINITY : period
}

function greatestCommonDivisor(a: number, b: number): number {
  let [x, y] = [a, b]
  while (y !== 0) [x, y] = [y, x % y]
  return x
}
