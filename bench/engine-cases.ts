/**
 * What the engine benchmark compares, and the goals. Pure: called by engine.ts and the tests.
 *
 *   raw      a device of the HAL, without the engine        raw2, raw4   that many of them at once
 *   disk     the same as a provider: one check, one count   concat, stripe, mirror, raid5: volumes of vinum;
 *                                                            raid5log: raid5 with policy `log`
 *   thin     a thin device of virstor that is written to    first        the same when nothing has space yet: writes only
 */
import { PlexusError } from '../src/base/errors.ts'
import { KIB } from '../src/base/limits.ts'
import type { Case } from './cases.ts'
import { isEngineCase } from './engine-load.ts'

export const ENGINE_CASES = 'rr4k1,rw4k1,rr4k32,rw4k32,sr4k32,sw4k32,sr1m1,sw1m1,sr1m32,sw1m32'
export const ENGINE_QUICK_CASES = 'rr4k32,sw1m32'

export const MEDIA = ['loop', 'paced', 'null'] as const
export type Medium = (typeof MEDIA)[number]

/** Data columns of the stripe and of raid5, which has one more for parity. A row of raid5 is 1 MiB of data. */
export const DATA_COLUMNS = 4
export const STRIPE_BYTES = 256 * KIB
/** Below this a request is not cut up for several devices, as no stripe unit is. */
const SMALLEST_PART_BYTES = 64 * KIB

export const CONTESTANTS = [
  'raw',
  'disk',
  'concat',
  'stripe',
  'mirror',
  'raid5',
  'raid5log',
  'thin',
  'first',
  'raw2',
  'raw4',
] as const
export type ContestantName = (typeof CONTESTANTS)[number]

/** The sums: how many bare devices work at once. */
const SUMS: Readonly<Partial<Record<ContestantName, number>>> = { raw2: 2, raw4: DATA_COLUMNS }

export interface Share {
  readonly bytes: number
  readonly depth: number
}

/**
 * What each of `disks` devices gets, so that all together have as many bytes in flight as one volume has: parts of
 * each request where a stripe would cut it, whole requests where there are enough of them (a mirror sends each read
 * to one copy), undefined where neither is possible.
 */
export function shareOf({ bytes, depth }: Case, disks: number): Share | undefined {
  const part = bytes / disks
  if (disks === DATA_COLUMNS && part >= SMALLEST_PART_BYTES) return { bytes: part, depth }
  if (depth % disks === 0) return { bytes, depth: depth / disks }
  return undefined
}

/** Devices at once and what each gets; for a volume or one device that is the case itself. */
export function sharesOf(
  test: Case,
  name: ContestantName,
): { readonly disks: number; readonly share: Share } | undefined {
  if (name === 'first' && reads(test)) return undefined
  const disks = SUMS[name] ?? 1
  const share = disks === 1 ? test : shareOf(test, disks)
  return share && { disks, share: { bytes: share.bytes, depth: share.depth } }
}

export interface Goal {
  readonly contestant: ContestantName
  readonly base: ContestantName
  readonly wanted: number
  /** `more`: to reach it is not enough. */
  readonly sense: 'least' | 'more'
  readonly applies: (test: Case) => boolean
}

const reads = (test: Case): boolean => test.kind === 'rr' || test.kind === 'sr'
const always = (): boolean => true

/**
 * concat and stripe within 10 % of raw, mirror reads above one disk, full stripes at 80 % of the data disks; rewrites of a thin
 * device within 5 % of raw, first writes in order at 60 %.
 */
export const GOALS: readonly Goal[] = [
  { contestant: 'concat', base: 'raw', wanted: 0.9, sense: 'least', applies: always },
  { contestant: 'stripe', base: 'raw', wanted: 0.9, sense: 'least', applies: always },
  {
    contestant: 'mirror',
    base: 'raw',
    wanted: 1,
    sense: 'more',
    // One request at a time is on one disk at a time.
    applies: (test) => reads(test) && test.depth > 1,
  },
  {
    contestant: 'raid5',
    base: 'raw4',
    wanted: 0.8,
    sense: 'least',
    applies: (test) => test.kind === 'sw' && test.bytes % (DATA_COLUMNS * STRIPE_BYTES) === 0,
  },
  {
    contestant: 'thin',
    base: 'raw',
    wanted: 0.95,
    sense: 'least',
    applies: (test) => !reads(test),
  },
  {
    contestant: 'first',
    base: 'raw',
    wanted: 0.6,
    sense: 'least',
    applies: (test) => test.kind === 'sw',
  },
]

export function goalOf(test: Case, contestant: ContestantName): Goal | undefined {
  return GOALS.find((goal) => goal.contestant === contestant && goal.applies(test))
}

export function isReached({ wanted, sense }: Goal, got: number): boolean {
  return sense === 'more' ? got > wanted : got >= wanted
}

/** Throws `invalid` for a case with sessions or a mix: there is no initiator here. */
export function checkEngineCases(tests: readonly Case[]): readonly Case[] {
  const wrong = tests.find((test) => !isEngineCase(test))
  if (!wrong) return tests
  throw new PlexusError('invalid', {
    op: 'parse',
    subject: wrong.name,
    message: `"${wrong.name}" is not a case of the engine; write kind (rr, rw, sr, sw), size and queue depth as in rr4k32`,
  })
}

/** The names of a list, each of which must be in `known`. Throws `invalid`. */
export function parseNames<T extends string>(list: string, known: readonly T[]): readonly T[] {
  const names = list.split(/[\s,;]+/).filter((name) => name !== '')
  const chosen = known.filter((name) => names.includes(name))
  const unknown = names.find((name) => !known.some((one) => one === name))
  if (unknown === undefined && chosen.length > 0) return chosen
  throw new PlexusError('invalid', {
    op: 'parse',
    subject: list,
    message: `"${unknown ?? list}" is not known here; there are ${known.join(', ')}`,
  })
}
