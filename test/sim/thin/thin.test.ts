/** Thin devices in the simulator: the shipped engine passes, and every build that is broken on purpose is found. */
import t from 'tap'
import { createSimPool } from '../pool.ts'
import { simulate } from '../simulate.ts'
import { BROKEN } from './broken-thin.ts'
import { thinPlay } from './thin-play.ts'

const CAUGHT_WITHIN = 50
const FIRST_SEED = 1
/** Runs of the shipped engine: at least so many, and until everything that can happen has happened. */
const RUNS_MIN = 6
const RUNS_MAX = 24
/** Data that is wrong, or gone, or an account of space that is. */
const DATA_LOST = /found .*; allowed|accounts do not add up|entries that are wrong/
const pool = createSimPool()

t.test('virstor passes: users, operators, trouble with disks, power cuts', async (t) => {
  const sums = { operations: 0, cuts: 0, kills: 0, boots: 0, faults: 0, verbs: 0 }
  const hasAll = (): boolean => Object.values(sums).every((count) => count > 0)
  for (let run = 0; run < RUNS_MIN || (run < RUNS_MAX && !hasAll()); run++) {
    const seed = FIRST_SEED + run
    const { violation, counts, notes } = await simulate(thinPlay({ seed, operations: 500, pool }))
    t.equal(violation?.message, undefined, `seed ${seed}`, { details: violation?.details, notes })
    for (const key of Object.keys(sums) as (keyof typeof sums)[]) sums[key] += counts[key]
  }
  for (const [what, count] of Object.entries(sums)) t.ok(count > 0, `${count} ${what}`)
})

for (const [name, { breaks, more = [] }] of Object.entries(BROKEN)) {
  t.test(`a build is found in which ${name}`, async (t) => {
    t.teardown(breaks())
    const mixture = new Set(['cuts', 'full', ...more] as const)
    for (let seed = 1; seed <= CAUGHT_WITHIN; seed++) {
      const { violation } = await simulate(thinPlay({ seed, operations: 500, pool, mixture }))
      if (!violation || !DATA_LOST.test(violation.message)) continue
      t.pass(`at seed ${seed}: ${violation.message}`)
      return
    }
    t.fail(`not found in ${CAUGHT_WITHIN} seeds`)
  })
}

t.test('a seed is always the same run, and another seed is another one', async (t) => {
  const play = (seed: number) => simulate(thinPlay({ seed, operations: 300, pool }))
  const [first, again, other] = [await play(7), await play(7), await play(8)]
  t.equal(first.hash, again.hash)
  t.same(first.counts, again.counts)
  t.not(first.hash, other.hash)
})
