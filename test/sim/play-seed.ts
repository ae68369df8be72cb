/**
 * One seed of the scenario of vinum, or of virstor, and what there is to print about it. Used by run.ts, in its own process or
 * through child.ts.
 */
import { parseMixture } from './mixture.ts'
import { createSimPool } from './pool.ts'
import { type SimResult, simulate } from './simulate.ts'
import { thinPlay } from './thin/thin-play.ts'
import { vinumPlay } from './vinum-play.ts'

export interface SeedOptions {
  readonly operations: number
  /** What happens beside reading and writing, as the command line says it; undefined: the seed chooses. */
  readonly mixture: string | undefined
  /** No trace, no history: one line for a violation. */
  readonly brief: boolean
}

export interface Outcome {
  readonly lines: readonly string[]
  readonly operations: number
  readonly isViolation: boolean
}

const pool = createSimPool()

export async function playSeed(seed: number, options: SeedOptions): Promise<Outcome> {
  const { operations, mixture } = options
  const startMs = performance.now()
  const wish = mixture === undefined ? undefined : parseMixture(mixture)
  const scenario =
    wish?.plays === 'thin'
      ? thinPlay({ seed, operations, pool, mixture: wish.features })
      : vinumPlay({ seed, operations, pool, mixture: wish?.features })
  const result = await simulate(scenario)
  const lines = [summary(result, performance.now() - startMs)]
  if (result.violation && !options.brief) lines.push(...report(result, options))
  return { lines, operations: result.counts.operations, isViolation: !!result.violation }
}

function summary({ seed, counts, virtualMs, hash, violation }: SimResult, ms: number): string {
  const { operations: ops, boots, cuts, kills, faults, verbs, jobs } = counts
  const perSecond = Math.round((ops / Math.max(ms, 1)) * 1000)
  return (
    `seed ${seed}: ${ops} operations, ${boots} boots, ${cuts} cuts, ${kills} kills, ${faults} faults, ` +
    `${verbs} verbs, ${jobs} jobs, ${(virtualMs / 1000).toFixed(1)} s in ${(ms / 1000).toFixed(1)} s ` +
    `(${perSecond}/s), trace ${hash}: ${violation ? `VIOLATION: ${violation.message}` : 'ok'}`
  )
}

function report(
  { seed, violation, notes, trace }: SimResult,
  { operations, mixture }: SeedOptions,
): string[] {
  const indented = (lines: readonly string[] = []): string[] => lines.map((line) => `    ${line}`)
  const again = mixture === undefined ? '' : ` --mixture '${mixture}'`
  return [
    ...indented(violation?.details),
    '  what happened last:',
    ...indented(notes),
    '  the end of the trace:',
    ...indented(trace),
    `  to play it again: npm run sim -- --seed ${seed} --ops ${operations}${again}`,
  ]
}
