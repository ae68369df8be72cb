/**
 * Which parts of a volume have a valid copy, computed from the records alone: the ground of the volume's state
 * (state-table.ts), of the rule that the last good copy is never taken out of service, and of what can be copied
 * from where (jobs/plans.ts). The volume is walked place by place: at a place, each plex has its data in one subdisk,
 * raid5 in all of them. Conservative where a subdisk is only partly valid: reviving counts as nothing.
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
  volumeAbove,
} from './model.ts'
import { hasParity, isStriped, kindOf } from './plex-kinds.ts'

/** What a plex has at a place: subdisks, of which so many as `spare` may be missing. */
interface Holding {
  readonly plex: PlexRecord
  readonly subdisks: readonly SubdiskRecord[]
  readonly spare: number
}

/** A stretch of plex space. `unitBytes`: its subdisks take turns, unit by unit; 0: all of them hold all of it. */
interface Stretch extends Holding {
  readonly start: number
  readonly end: number
  readonly unitBytes: number
}

const NOTHING: ReadonlySet<string> = new Set()

/**
 * First offset of the volume that has no valid copy, or undefined when all of it has one. `without`: UUIDs of
 * subdisks that do not count.
 */
export function firstUncovered(
  model: VinumModel,
  volume: VolumeRecord,
  without: ReadonlySet<string> = NOTHING,
): number | undefined {
  const isGood = judge(model, without)
  return firstPlace(model, volume, (place) => !place.some(isGood))
}

/** First offset of the volume that has a valid copy now, and would have none without these subdisks. */
export function firstLost(
  model: VinumModel,
  volume: VolumeRecord,
  without: ReadonlySet<string>,
): number | undefined {
  const [isGood, staysGood] = [judge(model, NOTHING), judge(model, without)]
  return firstPlace(model, volume, (place) => place.some(isGood) && !place.some(staysGood))
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
  const volume = volumeAbove(model, subdisk)
  if (!volume) return false
  const isGood = judge(model, new Set(options.without).add(subdisk.uuid))
  const mayServe = ({ plex }: Holding): boolean =>
    plex.uuid !== subdisk.plexUuid || (options.ownParity && hasParity(plex))
  const only = firstPlace(
    model,
    volume,
    (place) =>
      place.some(({ subdisks }) => subdisks.some(({ uuid }) => uuid === subdisk.uuid)) &&
      !place.some((one) => mayServe(one) && isGood(one)),
  )
  return only === undefined
}

/** Has a part of what the subdisk holds of its volume a valid copy in another plex? False for one without a volume. */
export function hasPartElsewhere(model: VinumModel, subdisk: SubdiskRecord): boolean {
  const { uuid, plexUuid } = subdisk
  const volume = volumeAbove(model, subdisk)
  if (!volume) return false
  const isGood = judge(model, NOTHING)
  const shared = firstPlace(
    model,
    volume,
    (place) =>
      place.some(({ subdisks }) => subdisks.some((one) => one.uuid === uuid)) &&
      place.some((one) => one.plex.uuid !== plexUuid && isGood(one)),
  )
  return shared !== undefined
}

/** Is enough of a holding up, on drives that are up? */
function judge(model: VinumModel, without: ReadonlySet<string>): (holding: Holding) => boolean {
  const isValid = ({ uuid, state, driveUuid }: SubdiskRecord): boolean =>
    state === 'up' && !without.has(uuid) && byUuid(model.drives, driveUuid)?.state === 'up'
  return ({ subdisks, spare }) => subdisks.filter((one) => !isValid(one)).length <= spare
}

/**
 * The first offset of the volume where `test` holds. Units repeat, so that one period between two ends of stretches
 * decides for all of it; should the periods of odd geometries have no small common multiple, it counts as found: the safe
 * answer for everybody who asks here.
 */
function firstPlace(
  model: VinumModel,
  { uuid, sizeBytes }: VolumeRecord,
  test: (place: readonly Holding[]) => boolean,
): number | undefined {
  const stretches = plexesOf(model, uuid).flatMap((plex) => stretchesOf(model, plex))
  const ends = stretches.flatMap(({ start, end }) => [start, end]).filter((end) => end < sizeBytes)
  const sorted = [...new Set([0, ...ends, sizeBytes])].sort((a, b) => a - b)
  for (const [index, start] of sorted.slice(0, -1).entries()) {
    const end = sorted[index + 1] ?? sizeBytes
    const here = stretches.filter((one) => one.start <= start && one.end >= end)
    const units = here.filter(({ unitBytes }) => unitBytes > 0)
    const until = Math.min(end, start + periodOf(units))
    let steps = 0
    for (let at = start; at < until; ) {
      if (test(here.map((one) => holdingAt(one, at)))) return at
      if (++steps > COVERAGE_STEPS) return start
      at = Math.min(
        end,
        ...units.map((one) => (Math.floor(at / one.unitBytes) + 1) * one.unitBytes),
      )
    }
  }
  return undefined
}

function holdingAt(stretch: Stretch, offset: number): Holding {
  const { plex, subdisks, unitBytes, spare } = stretch
  if (unitBytes === 0) return stretch
  const column = Math.floor(offset / unitBytes) % subdisks.length
  return { plex, subdisks: subdisks.slice(column, column + 1), spare }
}

function stretchesOf(model: VinumModel, plex: PlexRecord): readonly Stretch[] {
  const subdisks = subdisksOf(model, plex.uuid)
  if (!isStriped(plex)) {
    return subdisks.map((one) => {
      const start = one.plexOffsetBytes
      return { plex, start, end: start + one.sizeBytes, subdisks: [one], unitBytes: 0, spare: 0 }
    })
  }
  const end = sizeOfPlex(plex, subdisks)
  const { growth } = plex
  // While it grows it has two layouts. A window that has its backup is in neither, and wants all columns of the new one.
  const { offsetBytes, lengthBytes } = growth?.backup ?? {
    offsetBytes: growth?.cursorBytes ?? end,
    lengthBytes: 0,
  }
  const cursor = Math.min(offsetBytes + lengthBytes, end)
  const layouts = [
    { start: 0, end: cursor, subdisks },
    { start: cursor, end, subdisks: subdisks.slice(0, growth?.columnsBefore) },
  ]
  const known = Math.min(plex.parityValidBytes, end)
  return layouts
    .flatMap((one): Stretch[] => {
      if (!hasParity(plex)) return [{ plex, ...one, unitBytes: plex.stripeBytes, spare: 0 }]
      // With a column missing its data comes from parity, which counts only where it is known to be right.
      const middle = Math.min(Math.max(one.start, known), one.end)
      const column = { plex, ...one, unitBytes: 0 }
      return [
        { ...column, end: middle, spare: kindOf(plex).parityColumns },
        { ...column, start: middle, spare: 0 },
      ]
    })
    .filter((one) => one.end > one.start)
}

/** After so many bytes the pattern of these stretches begins again. */
function periodOf(units: readonly Stretch[]): number {
  let period = 0
  for (const { unitBytes, subdisks } of units) {
    const own = unitBytes * subdisks.length
    let [x, y] = [period, own]
    while (y !== 0) [x, y] = [y, x % y]
    period = period === 0 ? own : (period / x) * own
  }
  return period || Number.POSITIVE_INFINITY
}
