/**
 * Which copies of a set's configuration count: one row for each way in which disks come back. Every history of small
 * sets is in test/model.
 */
import t from 'tap'
import {
  baseOf,
  type Commit,
  type CommitId,
  choose,
  counts,
  keptOf,
  placeOf,
  standingOf,
  type VoterCopy,
} from '../../../src/engine/anchor/anchor-quorum.ts'

/**
 * A commit in words: `A5 xy` is number 5 of line A with the voters x and y; `on A4` what it is built on; `after xyz` the
 * voters before it; `relied A3`: default, what it is built on; `ends A4`: the last commit of the line before that it has.
 */
function commit(text: string): Commit {
  const [name = '', voters = ''] = text.split(' ')
  const word = (key: string): string | undefined => text.match(new RegExp(`${key} (\\S+)`))?.[1]
  const follows = word('on')
  const relied = word('relied') ?? follows
  const ends = word('ends')
  return {
    ...id(name),
    voters: [...voters],
    before: (word('after') ?? '').split(',').flatMap((some) => (some ? [[...some]] : [])),
    follows: follows === undefined ? undefined : id(follows),
    relied: relied === undefined ? undefined : id(relied),
    ancestors: ends === undefined ? [] : [{ ...id(ends), tip: undefined }],
  }
}

/** `A5`; `A5'` has the same number and another content. */
function id(name: string): CommitId {
  const generation = Number.parseInt(name.slice(1), 10)
  const payloadCrc = generation * 10 + (name.endsWith("'") ? 1 : 0)
  return { line: name.slice(0, 1), generation, payloadCrc }
}

/** `copy('x', 'A5 xy on A4', 'A4 xy')`; `lost A6`: the slot that had it cannot be read. */
function copy(uuid: string, ...slots: readonly string[]): VoterCopy {
  const lost = slots.find((text) => text.startsWith('lost '))
  return {
    uuid,
    commits: slots.filter((text) => text !== lost).map(commit),
    claimed: lost === undefined ? undefined : id(lost.slice(5)),
    isWitness: uuid === 'w',
  }
}

/** `serve A5 by xy`; `?`: not known to count; `missing A5 by x, without y`. */
function chosen(copies: readonly VoterCopy[]): string {
  const choice = choose(copies)
  if (choice.kind === 'none') return 'none'
  const name = ({ line, generation, payloadCrc }: CommitId) =>
    `${line}${generation}${payloadCrc % 10 === 0 ? '' : "'"}`
  if (choice.kind === 'split') return `split ${choice.heads.map(name).sort().join(' ')}`
  const { kind, isCertain, current, missing } = choice
  const text = `${kind} ${name(choice.commit)}${isCertain ? '' : '?'} by ${[...current].sort().join('')}`
  return missing.length > 0 ? `${text}, without ${[...missing].sort().join('')}` : text
}

const FOUR = 'A4 xy relied A4'

const ROWS: readonly [string, readonly VoterCopy[], string][] = [
  ['nothing', [], 'none'],
  ['new disks only', [copy('x'), copy('y')], 'none'],
  ['one disk alone', [copy('x', 'A5 x')], 'serve A5 by x'],
  [
    'a mirror, both there',
    [copy('x', 'A5 xy on A4 after xy', FOUR), copy('y', 'A5 xy on A4 after xy', FOUR)],
    'serve A5 by xy',
  ],
  [
    'a mirror, one missing that may have gone on alone',
    [copy('x', 'A5 xy relied A5')],
    'missing A5 by x, without y',
  ],
  [
    'a mirror that went on with one, which is here',
    [copy('x', 'A5 x on A4 after xy', FOUR)],
    'serve A5 by x',
  ],
  ['that mirror, the one that died is here', [copy('y', FOUR)], 'missing A4 by y, without x'],
  [
    'that mirror, both are here',
    [copy('x', 'A5 x on A4 after xy', FOUR), copy('y', FOUR)],
    'serve A5 by x',
  ],
  [
    'a mirror, cut off between the two disks: it cannot have counted',
    [copy('x', 'A5 xy on A4 after xy', FOUR), copy('y', FOUR)],
    'serve A4 by xy',
  ],
  [
    'three, two carry the newest, one is missing',
    [copy('x', 'A6 xyz on A5 after xyz'), copy('y', 'A6 xyz on A5 after xyz')],
    'serve A6? by xy, without z',
  ],
  [
    'three, one carries the newest, one the one before, one is missing',
    [copy('x', 'A6 xyz on A5 after xyz', 'A5 xyz'), copy('y', 'A5 xyz relied A5')],
    'serve A5 by xy, without z',
  ],
  [
    'what failed on one disk has a higher number than what the two others went on with',
    [
      copy('x', 'A9 xyz on A5 after xyz', 'A5 xyz'),
      copy('y', 'A7 yz on A5 after xyz', 'A5 xyz'),
      copy('z', 'A7 yz on A5 after xyz', 'A5 xyz'),
    ],
    'serve A7 by yz',
  ],
  [
    'five: two starts in turn, cut off, and whoever could tell is missing',
    [
      copy('v', 'A9 vwx on A5 after vwxyz', 'A5 vwxyz relied A5'),
      copy('x', 'A9 vwx on A5 after vwxyz', 'A5 vwxyz relied A5'),
      copy('z', 'A7 uyz on A5 after vwxyz', 'A5 vwxyz relied A5'),
    ],
    'undecided A9? by vx, without wy',
  ],
  [
    'half of four went on, and one of them is here alone: it may have counted',
    [
      copy('u', 'A6 ux on A5 after uxyz', 'A5 uxyz'),
      copy('y', 'A5 uxyz relied A5'),
      copy('z', 'A5 uxyz'),
    ],
    'missing A6? by u, without x',
  ],
  [
    'most of four and the witness are here, but those that missed nothing are too few for a commit',
    [
      copy('u', 'A6 uvw on A5 after uvxyw', 'A5 uvxyw'),
      copy('x', 'A5 uvxyw relied A5'),
      copy('w', 'A6 uvw on A5 after uvxyw', 'A5 uvxyw'),
    ],
    'missing A6? by uw, without vy',
  ],
  [
    'the same, and one more of them is here',
    [
      copy('u', 'A6 uvw on A5 after uvxyw', 'A5 uvxyw'),
      copy('v', 'A6 uvw on A5 after uvxyw', 'A5 uvxyw'),
      copy('x', 'A5 uvxyw relied A5'),
      copy('w', 'A6 uvw on A5 after uvxyw', 'A5 uvxyw'),
    ],
    'serve A6 by uvw',
  ],
  [
    'two disks join, cut off after the old one alone has it',
    [copy('x', 'A2 xyz on A1 after x', 'A1 x relied A1'), copy('y'), copy('z')],
    'serve A1 by x',
  ],
  [
    'two disks join, both are missing and may have gone on',
    [copy('x', 'A2 xyz on A1 after x', 'A1 x relied A1')],
    'missing A2? by x, without yz',
  ],
  [
    'three commits, each cut off after one disk: what is before them counts',
    [
      copy('x', 'A3 xyz on A1 after xyz', 'A1 xyz relied A1'),
      copy('y', 'A4 xy on A1 after xyz', 'A1 xyz'),
      copy('z', 'A5 xyz on A1 after xyz', 'A1 xyz'),
    ],
    'serve A1 by xyz',
  ],
  [
    'no drive has what counts any more, but what was built on it and failed',
    [
      copy('x', 'A2 xyw on A1 after xyw'),
      copy('y', 'A2 xyw on A1 after xyw'),
      copy('w', 'A1 xyw relied A1'),
    ],
    'serve A2? by wxy',
  ],
  [
    'a commit is known to count by a second copy, and another one was built on it before that was known',
    [
      copy('y', 'A3 xy on A2 relied A1 after xyz', 'A2 xyz on A1 after xyz'),
      copy('z', 'A2 xyz on A1 relied A2 after xyz'),
      copy('x', 'A3 xy on A2 relied A1 after xyz', 'A2 xyz on A1 after xyz'),
    ],
    'serve A3 by xy',
  ],
  [
    'a damaged copy counts for what its anchor says',
    [copy('x', 'A5 xy', 'lost A6'), copy('y', 'A6 xy on A5 after xy', 'A5 xy')],
    'serve A6 by xy',
  ],
  [
    'both slots of a drive are unreadable',
    [copy('x', 'lost A6'), copy('y', 'A6 xy on A5 after xy', 'A5 xy')],
    'serve A6 by xy',
  ],
  [
    'a damaged copy of a set of one disk: what it lost may have named others',
    [copy('x', 'A5 x', 'lost A6')],
    'damaged A5 by x',
  ],
  [
    'a mirror: one was away, and the other one, which went on alone, has lost that',
    [copy('x', 'A6 xy relied A6'), copy('y', 'A6 xy', 'lost A7')],
    'damaged A6 by y',
  ],
  [
    'three: what one of them alone has lost cannot have counted',
    [copy('x', 'A6 xyz relied A6'), copy('y', 'A6 xyz'), copy('z', 'A6 xyz', 'lost A7')],
    'serve A6 by xyz',
  ],
  [
    'three: what was lost has the number of a commit that was cut off, and may have counted',
    [copy('x', 'A6 xyz on A5 after xyz', 'A5 xyz relied A5'), copy('y', 'A5 xyz', "lost A6'")],
    'damaged A5 by y, without z',
  ],
  [
    'a mirror with a witness: one disk is dead at the start',
    [copy('x', 'A5 xyw relied A5'), copy('w', 'A5 xyw relied A5')],
    'serve A5 by wx, without y',
  ],
  [
    'the stale half with the witness, which knows that the other one went on',
    [copy('x', 'A5 xyw relied A5'), copy('w', 'A6 y on A5 after xyw', 'A5 xyw')],
    'missing A6? by , without y',
  ],
  [
    'the stale half with a witness that was left out',
    [copy('x', 'A5 xyw relied A5'), copy('y', 'A6 xy on A5 after xyw'), copy('w', 'A5 xyw')],
    'serve A5 by wxy',
  ],
  ['a witness alone has nothing to serve', [copy('w', 'A5 w relied A5')], 'damaged A5 by w'],
  [
    'forced without one that had gone on alone: both are here',
    [copy('x', 'A6 x relied A6 after xy'), copy('y', 'B7 y on A5 ends A5', 'A5 xy')],
    'split A6 B7',
  ],
  [
    'forced without one that had not',
    [copy('x', 'A5 xy relied A5'), copy('y', 'B7 y on A5 ends A5', 'A5 xy')],
    'serve B7 by y',
  ],
  [
    'both halves were forced',
    [copy('x', 'C6 x on A5 ends A5'), copy('y', 'B7 y on A5 ends A5')],
    'split B7 C6',
  ],
]

t.test('which configuration counts', async (t) => {
  for (const [what, copies, expected] of ROWS) {
    t.equal(chosen(copies), expected, what)
    t.equal(chosen([...copies].reverse()), expected, `${what}, in another order`)
  }
})

t.test('the next generation is above everything that was seen', async (t) => {
  const next = (...copies: readonly VoterCopy[]) => {
    const choice = choose(copies)
    return choice.kind === 'none' || choice.kind === 'split' ? 0 : choice.nextGeneration
  }
  t.equal(next(copy('x', 'A9 xyz on A5'), copy('y', 'A5 xyz'), copy('z', 'A5 xyz')), 10)
  t.equal(next(copy('x', 'A5 x', 'lost A8')), 9)
})

t.test('which slot a commit goes to', async (t) => {
  const rows: readonly [string, string, string, ReturnType<typeof placeOf>][] = [
    ['A5', 'A4', 'A5', 'other'],
    ['A5', 'A4', 'A4', 'retreat'],
    ['A5', 'A5', 'A5', 'other'],
    ['A5', '', 'A5', 'other'],
    ['A5', 'A4', 'A3', 'other'],
    ['', 'A4', 'A5', 'named'],
    ['', '', '', 'other'],
  ]
  for (const [named, other, keep, expected] of rows) {
    const of = (name: string) => (name === '' ? undefined : id(name))
    t.equal(placeOf(of(named), of(other), of(keep)), expected, `${named} ${other} keep ${keep}`)
  }
})

t.test('which commit stays on a drive', async (t) => {
  const rows: readonly [string, string, string, string][] = [
    // named, other, the last that it is known to have had, what stays; A5 is what the next one is built on
    ['A5', 'A4', '', 'A5'],
    ['A3', 'A3', 'A3', 'A3'],
    ['A6 x on A5', 'A3', 'A3', 'A3'],
    ['A6 x on A5', 'A3 x on A2', 'A2', 'A3'],
    ['A6 x on A5', 'A4 x on A5', 'A3', 'A5'],
  ]
  for (const [named, other, last, expected] of rows) {
    const kept = keptOf(
      [commit(named), commit(other)],
      id('A5'),
      last === '' ? undefined : id(last),
    )
    const { line, generation, payloadCrc } = kept ?? {}
    t.strictSame({ line, generation, payloadCrc }, id(expected), `${named}, ${other}: ${last}`)
  }
})

t.test('when a commit counts', async (t) => {
  const rows: readonly [string, string, string, boolean][] = [
    // voters before, reached, voters
    ['x', 'x', 'x', true],
    ['xy', 'x', 'x', true],
    ['xy', 'x', 'xy', false],
    ['xyz', 'x', 'x', false],
    ['xyz', 'xy', 'xy', true],
    ['wxyz', 'wx', 'wx', true],
    ['', 'x', 'x', true],
    ['x', 'yz', 'yz', false],
    ['xyz,x', 'yz', 'yz', false],
  ]
  for (const [before, reached, voters, expected] of rows) {
    const lists = before.split(',').map((some) => [...some])
    const has = (uuid: string) => reached.includes(uuid)
    t.equal(counts({ voters: [...voters], before: lists }, has), expected, `${before}: ${reached}`)
  }
})

t.test('how a drive that comes back stands to the set', async (t) => {
  const now = commit('B9 x on B8 ends A5')
  const rows: readonly [string, VoterCopy, string, string][] = [
    ['it has what it had', copy('y', 'A5 xy'), 'A5', 'behind'],
    ['and something that failed since', copy('y', 'B12 xy on A5', 'A5 xy'), 'A5', 'behind'],
    ['both slots unreadable', copy('y', 'lost A5'), 'A5', 'behind'],
    ['an image from before', copy('y', 'A4 xy'), 'A5', 'older'],
    ['it went on alone, and the set was forced without it', copy('y', 'A6 y on A5'), 'A5', 'apart'],
    ['that cannot be read', copy('y', 'A5 xy', 'lost A6'), 'A5', 'apart'],
    ['forced, too', copy('y', 'C6 y on A5'), 'A5', 'apart'],
  ]
  for (const [what, one, last, expected] of rows) {
    t.equal(standingOf(one, now, id(last)), expected, what)
  }
  const five = commit('A5 xy on A4')
  const chosen = { kind: 'missing', commit: five, members: ['x'], missing: ['y'] } as const
  const base = baseOf(
    { ...chosen, isCertain: false, current: new Set(['x']), nextGeneration: 6 },
    'B',
  )
  const forced: readonly [string, VoterCopy, string][] = [
    ['it has what was forced, too', copy('y', 'A5 xy on A4', 'A4 xy'), 'behind'],
    ['it has the one before', copy('y', 'A4 xy'), 'behind'],
    ['what has the same number', copy('y', "A5' y on A4", 'A4 xy'), 'apart'],
    ['it went on alone', copy('y', 'A6 y on A5', 'A5 xy on A4'), 'apart'],
  ]
  for (const [what, one, expected] of forced) {
    t.equal(standingOf(one, base, id('A4')), expected, `forced where nobody could tell: ${what}`)
  }
})

t.test('lines that were forced, one after the other', async (t) => {
  const forced = (text: string, isCertain: boolean) =>
    baseOf(
      {
        ...{ kind: 'missing', commit: commit(text), isCertain, current: new Set() },
        ...{ members: [], missing: [], nextGeneration: 9 },
      },
      'C',
    ).ancestors
  const tip = { generation: 5, payloadCrc: 50 }
  t.strictSame(forced('A5 xy on A4', true), [{ line: 'A', generation: 5, tip: undefined }])
  t.strictSame(forced('A5 xy on A4', false), [{ line: 'A', generation: 4, tip }])
  t.strictSame(forced('A5 xy', false), [{ line: 'A', generation: 0, tip }])
  const [first, second] = forced('B5 x on A4 ends A4', false)
  t.strictSame(first, { line: 'B', generation: 0, tip })
  t.match(second, { line: 'A', generation: 4 })
})
