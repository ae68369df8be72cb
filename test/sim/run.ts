/**
 * `npm run sim -- [--seed N | --seeds A..B] [--ops K] [--minutes M] [--mixture …]`: plays the scenario of vinum
 * under one seed, under a range of seeds, or under fresh seeds for some minutes; one line for each. At the first
 * violation it prints what was read, what was allowed, what happened to that block, and how to play it again;
 * exit status 1.
 */
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { createSimPool } from './pool.ts'
import { type SimResult, simulate } from './simulate.ts'
import { type Mixture, vinumPlay } from './vinum-play.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string' },
    ops: { type: 'string', default: '2000' },
    minutes: { type: 'string' },
    /** Go on after a violation. */
    all: { type: 'boolean', default: false },
    /** Instead of one that the seed chooses: some of verbs,faults,cuts. */
    mixture: { type: 'string' },
    /** No trace, no history: one line for a violation. */
    brief: { type: 'boolean', default: false },
  },
})

function usage(): never {
  console.error(
    'usage: npm run sim -- [--seed N | --seeds A..B] [--ops K] [--minutes M] [--mixture verbs,faults,cuts] ' +
      '[--all] [--brief]',
  )
  process.exit(2)
}

function* seedsOf(): Generator<number> {
  const range = /^(\d+)\.\.(\d+)$/.exec(values.seeds ?? '')
  if (values.seeds !== undefined) {
    if (!range) usage()
    for (let seed = Number(range[1]); seed <= Number(range[2]); seed++) yield seed
  } else if (values.seed !== undefined) yield Number(values.seed)
  else if (values.minutes === undefined) yield randomInt(2 ** 31)
  else for (;;) yield randomInt(2 ** 31)
}

/** What happens beside reading and writing; undefined: the seed chooses. */
function mixtureOf(text: string | undefined): Mixture | undefined {
  if (text === undefined) return undefined
  const words = text.split(',')
  if (!words.every((word) => ['', 'verbs', 'faults', 'cuts'].includes(word))) usage()
  const has = (word: string): boolean => words.includes(word)
  return { verbs: has('verbs'), faults: has('faults'), cuts: has('cuts') }
}

const operations = Number(values.ops)
const mixture = mixtureOf(values.mixture)
const minutes = Number(values.minutes ?? '0')
if (![operations, minutes, Number(values.seed ?? 0)].every((n) => n >= 0)) usage()

function show(
  { seed, counts, virtualMs, hash, violation, trace, notes }: SimResult,
  ms: number,
): void {
  const { operations: ops, boots, cuts, kills, faults, verbs, jobs } = counts
  const perSecond = Math.round((ops / Math.max(ms, 1)) * 1000)
  console.log(
    `seed ${seed}: ${ops} operations, ${boots} boots, ${cuts} cuts, ${kills} kills, ${faults} faults, ` +
      `${verbs} verbs, ${jobs} jobs, ${(virtualMs / 1000).toFixed(1)} s in ${(ms / 1000).toFixed(1)} s ` +
      `(${perSecond}/s), trace ${hash}: ${violation ? `VIOLATION: ${violation.message}` : 'ok'}`,
  )
  if (!violation || values.brief) return
  for (const line of violation.details) console.log(`    ${line}`)
  console.log('  what happened last:')
  for (const line of notes) console.log(`    ${line}`)
  console.log('  the end of the trace:')
  for (const line of trace) console.log(`    ${line}`)
  const again = values.mixture === undefined ? '' : ` --mixture '${values.mixture}'`
  console.log(`  to play it again: npm run sim -- --seed ${seed} --ops ${operations}${again}`)
}

const pool = createSimPool()
const endMs = performance.now() + minutes * 60_000
let [runs, violations, total] = [0, 0, 0]
for (const seed of seedsOf()) {
  if (minutes > 0 && runs > 0 && performance.now() > endMs) break
  const startMs = performance.now()
  const result = await simulate(
    vinumPlay({ seed, operations, pool, ...(mixture ? { mixture } : {}) }),
  )
  show(result, performance.now() - startMs)
  runs++
  total += result.counts.operations
  if (result.violation) violations++
  if (result.violation && !values.all) break
}
console.log(`sim: ${runs} seeds, ${total} operations, ${violations} violations`)
process.exit(violations > 0 ? 1 : 0)
