/**
 * What may happen in a run beside reading and writing. The seed chooses for each run, by these weights, so that every
 * pair comes up within some hundred seeds; the command line may say it instead. Used by play-seed.ts,
 * vinum-play.ts and thin/thin-play.ts.
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
  /** Two disks more, which are spares; operators use them, too. */
  spares: 25,
} as const

/** The same for thin devices (thin/thin-play.ts). */
const THIN_FEATURES = {
  verbs: 60,
  faults: 60,
  cuts: 80,
  flapping: 25,
  /** Devices are larger than what is below them, and full soon. */
  full: 50,
  /** Some components are mirrors of vinum. */
  mirrors: 20,
  // Episodes.
  decay: 30,
  hang: 15,
  force: 20,
  witness: 15,
} as const

export type Feature = keyof typeof FEATURES
export type Mixture = ReadonlySet<Feature>
export type ThinFeature = keyof typeof THIN_FEATURES
export type ThinMixture = ReadonlySet<ThinFeature>

/** The word for thin devices instead of volumes; alone, the seed chooses what else. */
const THIN = 'thin'

export const MIXTURE_HELP = `${Object.keys(FEATURES).join()}; or ${THIN}, alone or with ${Object.keys(THIN_FEATURES).join()}`

export function chooseMixture(random: SimRandom): Mixture {
  return choose(FEATURES, random)
}

export function chooseThinMixture(random: SimRandom): ThinMixture {
  return choose(THIN_FEATURES, random)
}

function choose<F extends string>(
  features: Readonly<Record<F, number>>,
  random: SimRandom,
): ReadonlySet<F> {
  const names = Object.keys(features) as F[]
  return new Set(names.filter((name) => random.chance(features[name] / 100)))
}

/** What the command line says of it: undefined features are chosen by the seed. */
export type Wish =
  | { readonly plays: 'vinum'; readonly features: Mixture | undefined }
  | { readonly plays: 'thin'; readonly features: ThinMixture | undefined }

/** Of words with commas between them; undefined: there is no such feature. */
export function parseMixture(text: string): Wish | undefined {
  const words = text.split(',').filter((word) => word !== '')
  if (!words.includes(THIN)) {
    const features = known(FEATURES, words)
    return features && { plays: 'vinum', features }
  }
  const others = words.filter((word) => word !== THIN)
  if (others.length === 0) return { plays: 'thin', features: undefined }
  const features = known(THIN_FEATURES, others)
  return features && { plays: 'thin', features }
}

function known<F extends string>(
  features: Readonly<Record<F, number>>,
  words: readonly string[],
): ReadonlySet<F> | undefined {
  const names = (Object.keys(features) as F[]).filter((name) => words.includes(name))
  return names.length === words.length ? new Set(names) : undefined
}
