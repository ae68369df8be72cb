/** The raid5 log: bytes, rings, what a replay does, and the promise, over histories that end with a power cut. */
import t from 'tap'
import { type HistoryOptions, playHistory } from './history.ts'

const HISTORIES = 50

async function violations(options: Omit<HistoryOptions, 'seed'>, count = HISTORIES) {
  const found: string[] = []
  let replayed = 0
  let updates = 0
  let doubtful = 0
  for (let seed = 1; seed <= count; seed++) {
    const outcome = await playHistory({ ...options, seed })
    replayed += outcome.replayed
    updates += outcome.updates
    doubtful += outcome.doubtful
    if (outcome.violation) found.push(`seed ${seed}: ${outcome.violation}`)
  }
  return { found, replayed, updates, doubtful }
}

for (const lost of ['never', 'before', 'with', 'after'] as const) {
  t.test(`a column lost: ${lost}`, async (t) => {
    const { found, replayed, updates } = await violations({ lost, rots: false })
    t.strictSame(found, [])
    t.ok(replayed > updates / 10, `${replayed} parts written again, ${updates} updates`)
  })
}

t.test('a rotten block', async (t) => {
  const { found, doubtful } = await violations({ lost: 'never', rots: true })
  t.strictSame(found, [])
  t.ok(doubtful > 0, `${doubtful} rows in doubt`)
})

/** What a broken log does must show: otherwise the histories above prove nothing. */
for (const [wrong, lost] of [
  ['order', 'never'],
  ['single', 'before'],
  ['in-place-first', 'with'],
  ['not-durable', 'with'],
] as const) {
  t.test(`a broken log is found: ${wrong}`, async (t) => {
    const { found } = await violations({ lost, rots: false, wrong })
    t.ok(found.length > 0, `${found.length} of ${HISTORIES}`)
  })
}
