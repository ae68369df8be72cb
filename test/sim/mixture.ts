/**
 * What may happen in a run beside reading and writing. The seed chooses for each run, by these weights, so that every
 * pair comes up within some hundred seeds; the command line may say it instead. Used by vinum-play.ts.
 */
import type { SimRandom } from './random.ts'

/** In percent of the runs; 0: only by the command line. */
const FEATURES = {
  /** Operators change volumes while users work. */
  verbs: 60,
  /** Disks report trouble, or have it quietly: one at a time. */
  faults: 60,
  /** Power cuts and kills. */
  cuts: 80,
  /** Up to 18 disks: RAID5 of up to 16 columns, stripes of up to 2 MiB. */
  wide: 25,
  /** Disks that leave and come back before the engine has taken notice. */
  flapping: 25,
  // From here on: episodes, each with a file of its name.
  hole: 20,
  apart: 20,
  hang: 20,
  caches: 20,
  resize: 20,
  copies: 20,
  selections: 20,
  witness: 20,
  restripe: 20,
} as const

export type Feature = keyof typeof FEATURES
export type Mixture = ReadonlySet<Feature>

const NAMES = Object.keys(FEATURES) as Feature[]
export const FEATURE_NAMES: readonly string[] = NAMES

export function chooseMixture(random: SimRandom): Mixture {
  return new Set(NAMES.filter((name) => random.chance(FEATURES[name] / 100)))
}

/** Of words with commas between them; undefined: there is no such feature. */
export function parseMixture(text: string): Mixture | undefined {
  const words = text.split(',').filter((word) => word !== '')
  const known = NAMES.filter((name) => words.includes(name))
  return known.length === words.length ? new Set(known) : undefined
}
