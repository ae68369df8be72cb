/** The simulator: an honest engine passes, every cheat is found, and a seed is always the same run. */
import t from 'tap'
import { CHEATS, cheating } from './broken.ts'
import { createSimPool } from './pool.ts'
import { rawDisk } from './raw-disk.ts'
import { simulate } from './simulate.ts'

const CAUGHT_WITHIN = 50
const pool = createSimPool()

t.test('a disk that keeps its promises passes', async (t) => {
  for (let seed = 1; seed <= 5; seed++) {
    const { violation, counts } = await simulate(rawDisk(seed, 1000, pool))
    t.equal(violation?.message, undefined, `seed ${seed}`)
    t.ok(counts.operations >= 1000)
    t.ok(counts.cuts > 0)
  }
})

for (const [name, cheat] of Object.entries(CHEATS)) {
  t.test(`a disk that cheats is found: ${name}`, async (t) => {
    for (let seed = 1; seed <= CAUGHT_WITHIN; seed++) {
      const { violation } = await simulate(rawDisk(seed, 1000, pool, cheating(cheat)))
      if (!violation) continue
      t.match(violation.message, /found .*; allowed/, `at seed ${seed}`)
      return
    }
    t.fail(`not found in ${CAUGHT_WITHIN} seeds`)
  })
}

t.test('a seed is always the same run, and another seed is another one', async (t) => {
  const [first, again, other] = [
    await simulate(rawDisk(7, 500, pool)),
    await simulate(rawDisk(7, 500, pool)),
    await simulate(rawDisk(8, 500, pool)),
  ]
  t.equal(first.hash, again.hash)
  t.not(first.hash, other.hash)
})
