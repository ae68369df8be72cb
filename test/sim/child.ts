/** A process that plays the seeds it is sent, one after the other, and answers with their outcomes. Forked by run.ts. */
import { playSeed, type SeedOptions } from './play-seed.ts'

/** What run.ts sends. */
export interface SeedOrder {
  readonly seed: number
  readonly options: SeedOptions
}

process.on('message', async ({ seed, options }: SeedOrder) => {
  process.send?.(await playSeed(seed, options))
})

// Nobody is left to answer.
process.on('disconnect', () => process.exit(1))
