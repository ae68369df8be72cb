/**
 * The rules of the quorum against every history of a small set: nothing that was relied upon is lost or forked by a start
 * that nobody has forced, no drive is taken for current that is not, and with all drives there and none damaged no start
 * waits. `BOOTS=1` in the environment adds one start to each history, and takes an hour.
 */
import t from 'tap'
import type { VoterCopy } from '../../src/engine/anchor/anchor-quorum.ts'
import * as quorum from '../../src/engine/anchor/anchor-quorum.ts'
import { explore, type ModelOptions, type Rules } from './quorum-model.ts'

const MORE_BOOTS = Number(process.env['BOOTS'] ?? 0)

const PLAIN: ModelOptions = {
  drives: 2,
  witness: false,
  boots: 3,
  rot: false,
  failures: false,
  force: 0,
  rules: quorum,
}

const WORLDS: readonly [string, Partial<ModelOptions>][] = [
  ['two drives', { boots: 5 }],
  ['two drives, one slot rots', { boots: 4, rot: true }],
  ['two drives that fail, an operator forces twice', { failures: true, force: 2 }],
  ['two drives and a witness', { witness: true }],
  ['two drives and a witness, one slot rots', { witness: true, rot: true }],
  ['two drives and a witness, which fail', { witness: true, failures: true, boots: 2 }],
  ['three drives, an operator forces', { drives: 3, force: 1 }],
  ['three drives that fail, one slot rots', { drives: 3, failures: true, rot: true, boots: 2 }],
]

for (const [what, world] of WORLDS) {
  t.test(what, async (t) => {
    const options = { ...PLAIN, ...world }
    const found = explore({ ...options, boots: options.boots + MORE_BOOTS })
    t.strictSame(found.violation, undefined)
    t.comment(`${found.states} states, ${found.transitions} transitions, ${found.starts} starts`)
    t.ok(found.transitions > 100 && found.starts > 10 && found.waits > 10)
  })
}

/** Each copy as `change` makes it. */
function changed(change: (copy: VoterCopy) => VoterCopy): Pick<Rules, 'choose'> {
  return { choose: (copies) => quorum.choose(copies.map(change)) }
}

/** Rules that are broken, and a world in which the model finds it. */
const BROKEN: readonly [string, Partial<Rules>, Partial<ModelOptions>][] = [
  [
    'W without half of the voters before',
    { counts: ({ voters }, has) => voters.every(has) },
    { drives: 3, failures: true, boots: 2 },
  ],
  [
    'N and R without the voters before',
    changed((copy) => ({ ...copy, commits: copy.commits.map((one) => ({ ...one, before: [] })) })),
    { witness: true, failures: true, boots: 2 },
  ],
  [
    'a slot that cannot be read had nothing',
    changed((copy) => ({ ...copy, claimed: undefined })),
    { rot: true },
  ],
  [
    'a set that waits is served',
    {
      choose: (copies) => {
        const choice = quorum.choose(copies)
        return choice.kind === 'missing' ? { ...choice, kind: 'serve' } : choice
      },
    },
    {},
  ],
  [
    'every drive that is here is current',
    {
      choose: (copies) => {
        const choice = quorum.choose(copies)
        const current = new Set(copies.map(({ uuid }) => uuid))
        return choice.kind === 'serve' ? { ...choice, current } : choice
      },
    },
    { failures: true },
  ],
  [
    'a line that is forced claims all up to the number of what it is built on',
    {
      baseOf: (choice, line) => {
        const base = quorum.baseOf(choice, line)
        const { generation } = choice.commit
        const ancestors = base.ancestors.map((one) => ({ ...one, generation }))
        return line === undefined ? base : { ...base, ancestors }
      },
    },
    { witness: true, force: 1 },
  ],
]

for (const [what, rules, world] of BROKEN) {
  t.test(`the model finds it: ${what}`, async (t) => {
    const found = explore({ ...PLAIN, ...world, rules: { ...quorum, ...rules } })
    t.ok(found.violation, `${found.states} states`)
    for (const line of found.violation ?? []) t.comment(line)
  })
}
