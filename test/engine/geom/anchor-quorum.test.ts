/** Which copies of a set's configuration count: one row for each way in which disks come back. */
import fc from 'fast-check'
import t from 'tap'
import type { CommitId } from '../../../src/engine/geom/anchor-codec.ts'
import {
  type AnchorCopy,
  chooseMajority,
  commitAllowed,
  followedBy,
  goesOverNewest,
  votersAfter,
} from '../../../src/engine/geom/anchor-quorum.ts'

interface CopyOptions {
  /** Generation that the device carried before; its content is the usual one of that number. */
  readonly after?: number
  /** Content that differs from the usual one of this generation. */
  readonly content?: number
  readonly oldVoters?: string
  readonly claims?: number
  readonly older?: AnchorCopy
}

/** `copy('x', 5, 'xy')`: device x carries generation 5, whose voters are x and y. */
function copy(
  deviceUuid: string,
  generation: number,
  voters: string,
  { after, content = 0, oldVoters, claims, older }: CopyOptions = {},
): AnchorCopy {
  return {
    deviceUuid,
    generation,
    payloadCrc: generation * 100 + content,
    payloadVoters: [...voters],
    oldVoters: [...(oldVoters ?? '')],
    previous: after === undefined ? undefined : { generation: after, payloadCrc: after * 100 },
    claimed: claims === undefined ? undefined : { generation: claims, payloadCrc: claims * 100 },
    older,
  }
}

/** The choice in few words: `5 from xy, stale z`. */
function chosen(copies: readonly AnchorCopy[]): string {
  const choice = chooseMajority(copies)
  if (choice.kind === 'none') return 'none'
  if (choice.kind === 'split') {
    return `split ${choice.sides.map((one) => one.members.join('')).join('|')}`
  }
  const from = `${choice.generation} from ${choice.members.join('')}`
  if (choice.kind === 'incomplete') return `incomplete ${from}, missing ${choice.missing.join('')}`
  return choice.stale.length > 0 ? `${from}, stale ${choice.stale.join('')}` : from
}

const ROWS: readonly [string, readonly AnchorCopy[], string][] = [
  ['nothing', [], 'none'],
  ['one disk alone', [copy('x', 5, 'x')], '5 from x'],
  ['a mirror, both there', [copy('x', 5, 'xy'), copy('y', 5, 'xy')], '5 from xy'],
  [
    'a mirror, one missing that may have gone on alone',
    [copy('x', 5, 'xy')],
    'incomplete 5 from x, missing y',
  ],
  ['a mirror that went on with one, which is here', [copy('x', 6, 'x', { after: 5 })], '6 from x'],
  [
    'that mirror, the one that died is here',
    [copy('y', 5, 'xy')],
    'incomplete 5 from y, missing x',
  ],
  [
    'that mirror, both are here',
    [copy('x', 6, 'x', { after: 5 }), copy('y', 5, 'xy')],
    '6 from x, stale y',
  ],
  [
    'a mirror, cut off between the two disks: it may have been relied upon',
    [copy('x', 6, 'xy', { after: 5 }), copy('y', 5, 'xy', { after: 4 })],
    '6 from x, stale y',
  ],
  [
    'three, cut off after the first',
    [copy('x', 6, 'xyz', { after: 5 }), copy('y', 5, 'xyz'), copy('z', 5, 'xyz')],
    '5 from yz, stale x',
  ],
  [
    'three, cut off after the second',
    [copy('x', 6, 'xyz', { after: 5 }), copy('y', 6, 'xyz', { after: 5 }), copy('z', 5, 'xyz')],
    '6 from xy, stale z',
  ],
  [
    'three, two carry the newest, one is missing',
    [copy('x', 6, 'xyz', { after: 5 }), copy('y', 6, 'xyz', { after: 5 })],
    '6 from xy',
  ],
  [
    'three, one carries the newest, one the one before, one is missing and may have it',
    [copy('x', 6, 'xyz', { after: 5 }), copy('y', 5, 'xyz')],
    '6 from x, stale y',
  ],
  [
    'the same, but the other one has gone a way of its own',
    [copy('x', 6, 'xyz', { after: 5 }), copy('y', 5, 'xyz', { content: 1 })],
    'incomplete 6 from x, missing z',
  ],
  [
    'three, only one is here',
    [copy('x', 6, 'xyz', { after: 5 })],
    'incomplete 6 from x, missing yz',
  ],
  [
    'a commit that failed on one disk; the two others went on without it',
    [copy('x', 6, 'xyz', { after: 5 }), copy('y', 7, 'yz', { after: 5 }), copy('z', 7, 'yz')],
    '7 from yz, stale x',
  ],
  [
    'the failed one tried more often than the others went on',
    [
      copy('x', 9, 'xyz', { after: 8 }),
      copy('y', 7, 'yz', { after: 5 }),
      copy('z', 7, 'yz', { after: 5 }),
    ],
    '7 from yz, stale x',
  ],
  [
    'the same number twice: the one that most carry was relied upon, the other one cut off',
    [
      copy('x', 6, 'xyz', { after: 5, content: 1 }),
      copy('y', 6, 'yz', { after: 5 }),
      copy('z', 6, 'yz', { after: 5 }),
    ],
    '6 from yz, stale x',
  ],
  [
    'a mirror used in two halves: same number, different content',
    [copy('x', 6, 'x', { after: 5, content: 1 }), copy('y', 6, 'y', { after: 5 })],
    'split x|y',
  ],
  [
    'a mirror used in two halves: different numbers',
    [copy('x', 9, 'x', { after: 8 }), copy('y', 6, 'y', { after: 5 })],
    'split x|y',
  ],
  [
    'one lost all others and called them down, which failed: the rest goes on',
    [
      copy('x', 7, 'x', { after: 6, oldVoters: 'xyz' }),
      copy('y', 5, 'xyz', { oldVoters: 'xyz' }),
      copy('z', 5, 'xyz', { oldVoters: 'xyz' }),
    ],
    '5 from yz, stale x',
  ],
  [
    'that one alone is not enough',
    [copy('x', 7, 'x', { after: 6, oldVoters: 'xyz' })],
    'incomplete 7 from x, missing yz',
  ],
  [
    'half of the old voters and all of the new ones',
    [copy('w', 7, 'wx', { oldVoters: 'wxyz' }), copy('x', 7, 'wx', { oldVoters: 'wxyz' })],
    '7 from wx',
  ],
  [
    'two disks join, cut off before the old one has it',
    [copy('x', 1, 'x'), copy('y', 2, 'xyz'), copy('z', 2, 'xyz')],
    '1 from x, stale yz',
  ],
  [
    'two disks join, cut off after the old one has it',
    [copy('x', 2, 'xyz', { after: 1 }), copy('y', 2, 'xyz')],
    '2 from xy',
  ],
  [
    'two disks join, cut off after the old one alone has it',
    [copy('x', 2, 'xyz', { after: 1, oldVoters: 'x' }), copy('y', 0, ''), copy('z', 0, '')],
    '2 from x, stale yz',
  ],
  [
    'two disks join, one of them is missing',
    [copy('x', 2, 'xyz', { after: 1, oldVoters: 'x' }), copy('y', 0, '')],
    '2 from x, stale y',
  ],
  [
    'two disks join, both are missing and may have gone on',
    [copy('x', 2, 'xyz', { after: 1, oldVoters: 'x' })],
    'incomplete 2 from x, missing yz',
  ],
  [
    'old disks join again, cut off after the one that had gone on: theirs is history',
    [
      copy('w', 1, 'wxy'),
      copy('x', 5, 'xy', { after: 4 }),
      copy('y', 11, 'wxy', { after: 10, oldVoters: 'y', older: copy('y', 10, 'y', { after: 5 }) }),
    ],
    '10 from y, stale wx',
  ],
  [
    'a commit that failed hides what its disk had before: an operator must decide',
    [
      copy('w', 3, 'wy', { after: 2 }),
      copy('x', 1, 'wxy'),
      copy('y', 7, 'xy', { after: 6, oldVoters: 'wxy' }),
    ],
    'incomplete 3 from w, missing ',
  ],
  [
    'it does not, where its other slot can be read: what was relied upon would be there',
    [
      copy('w', 3, 'wy', { after: 2 }),
      copy('x', 1, 'wxy'),
      copy('y', 7, 'xy', { after: 6, oldVoters: 'wxy', older: copy('y', 1, 'wxy') }),
    ],
    '3 from w, stale xy',
  ],
  [
    'commits that failed on too many disks to have counted hide nothing, whatever their disk had (sim seed 9531)',
    [
      copy('w', 34, 'wxy', { after: 33, oldVoters: 'wxyz' }),
      copy('x', 32, 'wxyz', { after: 31 }),
      copy('y', 32, 'wxyz', { after: 31 }),
      copy('z', 31, 'wxyz', { after: 30 }),
    ],
    '32 from xy, stale wz',
  ],
  [
    'the same while one is missing that may have gone on with it',
    [
      copy('w', 34, 'wxy', { after: 33, oldVoters: 'wxyz' }),
      copy('x', 32, 'wxyz', { after: 31 }),
      copy('y', 32, 'wxyz', { after: 31 }),
    ],
    'incomplete 32 from xy, missing z',
  ],
  [
    'two commits cut off in turn, and the last one relied upon is in the older slots (sim seed 62)',
    [
      copy('u', 26, 'uvwx', { after: 24, oldVoters: 'uvwxy', older: copy('u', 24, 'uvwx') }),
      copy('v', 26, 'uvwx', { after: 24, oldVoters: 'uvwxy', older: copy('v', 24, 'uvwx') }),
      copy('w', 24, 'uvwx', { after: 23, oldVoters: 'uvwxyz' }),
      copy('x', 24, 'uvwx', { after: 23, oldVoters: 'uvwxyz' }),
      copy('y', 22, 'uvwxyz', { after: 21 }),
      copy('z', 22, 'uvwxyz', { after: 21 }),
    ],
    '24 from wx, stale uvyz',
  ],
  [
    'three commits, each cut off after one disk: no disk carries the one before them any more',
    [
      copy('w', 3, 'wxy', { after: 1, older: copy('w', 1, 'wxy') }),
      copy('x', 4, 'wx', { after: 1, oldVoters: 'wxy', older: copy('x', 1, 'wxy') }),
      copy('y', 5, 'wxy', { after: 1, older: copy('y', 1, 'wxy') }),
    ],
    '1 from wxy',
  ],
  ['new disks only', [copy('x', 0, ''), copy('y', 0, '')], 'none'],
  [
    'a damaged copy counts for what its anchor says',
    [copy('x', 5, 'xy', { claims: 6 }), copy('y', 6, 'xy', { after: 5 })],
    '6 from y, stale x',
  ],
  [
    'a damaged copy of a set of one disk: what it lost may have named others',
    [copy('x', 5, 'x', { claims: 6 })],
    'incomplete 5 from x, missing ',
  ],
  [
    'a mirror: one was away, and the other one, which went on alone, has lost that',
    [copy('x', 6, 'xy', { after: 5 }), copy('y', 6, 'xy', { after: 5, claims: 7 })],
    'incomplete 6 from xy, missing ',
  ],
  [
    'three: what one of them alone has lost cannot have counted',
    [copy('x', 6, 'xyz'), copy('y', 6, 'xyz'), copy('z', 6, 'xyz', { claims: 7 })],
    '6 from xyz',
  ],
  [
    'a damaged copy from before others joined is no second half',
    [
      copy('x', 5, 'x', { claims: 6 }),
      copy('y', 6, 'xyz', { after: 4 }),
      copy('z', 6, 'xyz', { after: 4 }),
    ],
    '6 from yz, stale x',
  ],
]

t.test('which configuration counts', async (t) => {
  for (const [what, copies, expected] of ROWS) {
    t.equal(chosen(copies), expected, what)
    t.equal(
      chosen([...copies].reverse())
        .split('')
        .sort()
        .join(''),
      expected.split('').sort().join(''),
      `${what}, in another order`,
    )
  }
})

t.test('the next generation is above everything that was seen', async (t) => {
  const next = (copies: readonly AnchorCopy[]) => {
    const choice = chooseMajority(copies)
    return choice.kind === 'complete' || choice.kind === 'incomplete' ? choice.nextGeneration : 0
  }
  t.equal(next([copy('x', 9, 'xyz'), copy('y', 5, 'xyz'), copy('z', 5, 'xyz')]), 10)
  t.equal(next([copy('x', 5, 'x', { claims: 8 })]), 9)
  t.equal(next([copy('x', 5, 'xy')]), 6)
})

t.test('which slot the first commit after a choice goes over', async (t) => {
  const rows: readonly [string, AnchorCopy, boolean, boolean][] = [
    ['what was relied upon stays', copy('x', 5, 'xyz', { after: 4 }), false, false],
    ['the choice, which was not', copy('x', 5, 'xyz', { after: 4 }), true, true],
    ['what was given up', copy('x', 6, 'xyz', { older: copy('x', 5, 'xyz') }), false, true],
    ['not where that is gone', copy('x', 7, 'xyz', { older: copy('x', 6, 'xyz') }), false, false],
    ['what is older than the choice is no better', copy('x', 4, 'xyz', { after: 3 }), false, false],
  ]
  for (const [what, slot, refuted, expected] of rows) {
    const choice = { generation: 5, payloadCrc: 500, refuted }
    t.equal(goesOverNewest(slot, choice), expected, what)
  }
  const refuted = (copies: readonly AnchorCopy[]) => {
    const choice = chooseMajority(copies)
    return choice.kind === 'complete' && choice.refuted
  }
  const x = copy('x', 6, 'xy', { after: 5 })
  t.equal(refuted([x, copy('y', 5, 'xy')]), true, 'y is one of its voters and never had it')
  t.equal(refuted([x, copy('y', 6, 'xy')]), false)
  t.equal(refuted([x, copy('y', 5, 'xy', { claims: 6 })]), false, 'it had it')
})

t.test('when a commit may be relied upon', async (t) => {
  const rows: readonly [string, string, string, boolean][] = [
    // old voters, reached, new voters
    ['x', 'x', 'x', true],
    ['xy', 'xy', 'xy', true],
    ['xy', 'x', 'x', true],
    ['xy', 'x', 'xy', false],
    ['xyz', 'x', 'x', false],
    ['xyz', 'xy', 'xy', true],
    ['wxyz', 'wx', 'wx', true],
    ['', 'x', 'x', true],
    ['x', 'xyz', 'xyz', true],
    ['x', 'yz', 'yz', false],
  ]
  for (const [old, reached, voters, expected] of rows) {
    t.equal(commitAllowed([...old], [...reached], [...voters]), expected, `${old}: ${reached}`)
  }
  t.equal(commitAllowed(['x', 'y'], ['x']), true, 'no more is named than is reached')
})

/**
 * A set of disks lives: commits that reach some of its disks, in the order that rule W asks for; then it is cut
 * off, and some of the disks are found, one of which may have lost its newest slot. Whatever is assembled has everything that was relied upon.
 */
t.test('nothing that was relied upon is ever lost', async (t) => {
  const steps = fc.array(
    fc.record({
      /** Disks that fail for good during this commit, by bit. */
      failing: fc.integer({ min: 0, max: 15 }).map((bits) => bits & (bits >> 1)),
      /** Power goes after so many writes of it. */
      cutAfter: fc.oneof(
        { weight: 4, arbitrary: fc.constant(99) },
        { weight: 1, arbitrary: fc.integer({ min: 0, max: 6 }) },
      ),
      /** This disk, counted from 1, cannot read its newest slot any more; the first one of a history does so. */
      rotten: fc.oneof(
        { weight: 6, arbitrary: fc.constant(0) },
        { weight: 1, arbitrary: fc.integer({ min: 1, max: 4 }) },
      ),
      /** In which order the disks get it. */
      isReversed: fc.boolean(),
      /** Disks that are there at the next start, by bit. */
      present: fc.oneof(
        { weight: 2, arbitrary: fc.constant(15) },
        { weight: 2, arbitrary: fc.integer({ min: 1, max: 15 }) },
      ),
    }),
    { minLength: 1, maxLength: 12 },
  )
  let assembled = 0
  let refused = 0
  let rots = 0
  let leftByRot = 0
  /** All disks are there, and yet an operator must decide. */
  let left = 0
  const property = fc.property(fc.integer({ min: 1, max: 4 }), steps, (disks, history) => {
    const all = ['w', 'x', 'y', 'z'].slice(0, disks)
    const media = new Map<string, AnchorCopy>()
    /** What the other slot of a disk has. */
    const others = new Map<string, AnchorCopy>()
    /** Disks whose newest slot the next commit goes over. */
    const inPlace = new Set<string>()
    let serial = 0
    let hasRotted = false
    let isLeft = false
    /** What the newest configuration of a disk followed, where the disk still has it. */
    const olderOf = (uuid: string): AnchorCopy | undefined => {
      const other = others.get(uuid)
      return other?.payloadCrc === media.get(uuid)?.payloadCrc ? undefined : other
    }
    /** As AnchoredDevice.commit. */
    const store = (
      uuid: string,
      generation: number,
      voters: readonly string[],
      old: readonly string[],
      follows?: CommitId,
    ) => {
      const newest = media.get(uuid)
      const isDamaged = newest?.claimed !== undefined
      const before = inPlace.has(uuid) && !isDamaged ? (olderOf(uuid) ?? newest) : newest
      if (before) others.set(uuid, { ...before, claimed: undefined })
      inPlace.add(uuid)
      media.set(uuid, {
        deviceUuid: uuid,
        generation,
        payloadCrc: serial,
        payloadVoters: voters,
        oldVoters: old,
        previous: follows,
      })
    }
    /** The write is cut off: the slot that it goes over is lost. */
    const tear = (uuid: string) => {
      const newest = media.get(uuid)
      const older = olderOf(uuid)
      if (!newest || newest.claimed !== undefined) return
      others.delete(uuid)
      if (inPlace.has(uuid) && older) media.set(uuid, older)
    }
    /** The newest slot cannot be read any more. */
    const rot = (uuid: string) => {
      const newest = media.get(uuid)
      const other = others.get(uuid)
      others.delete(uuid)
      if (!newest || !other || newest.claimed !== undefined) media.delete(uuid)
      else if (other.payloadCrc !== newest.payloadCrc) {
        media.set(uuid, { ...other, claimed: newest })
      }
    }
    serial++
    for (const uuid of all) {
      store(uuid, 1, all, all)
      const first = media.get(uuid)
      if (first) others.set(uuid, first)
    }
    /** Contents that were relied upon, in order. */
    let relied = [1]
    for (const { failing, cutAfter, present, isReversed, rotten } of history) {
      const here = all.filter((_, index) => (present >> index) & 1)
      const victim = all[rotten - 1]
      if (victim && !hasRotted) {
        hasRotted = true
        rots++
        rot(victim)
      }
      const choice = chooseMajority(
        here.flatMap((uuid) => {
          const one = media.get(uuid)
          const isDamaged = one?.claimed !== undefined
          return one ? [{ ...one, older: isDamaged ? undefined : olderOf(uuid) }] : []
        }),
      )
      if (choice.kind !== 'complete') {
        if (here.length === all.length) {
          if (hasRotted) leftByRot++
          else isLeft = true
        }
        refused++
        continue
      }
      assembled++
      const newest = relied.at(-1) ?? 0
      if (choice.payloadCrc < newest) return false
      if (choice.settled) relied = [...relied, choice.payloadCrc]
      const base = [...media.values(), ...others.values()].find(
        (one) => one.payloadCrc === choice.payloadCrc,
      )
      const old = base?.payloadVoters ?? []
      let voters = old.filter((uuid) => here.includes(uuid))
      inPlace.clear()
      for (const uuid of here) {
        const one = media.get(uuid)
        if (one && goesOverNewest({ ...one, older: olderOf(uuid) }, choice)) inPlace.add(uuid)
      }
      let generation = choice.nextGeneration
      let follows = followedBy(choice)
      let writes = 0
      const good = (uuid: string) => !((failing >> all.indexOf(uuid)) & 1)
      // Commit until every voter that is named has it; then let all that are present vote again.
      let from = old
      let before = choice.settled ? old : choice.oldVoters
      let recorded: readonly string[] = choice.settled ? old : votersAfter(old, choice.oldVoters)
      const allowed = (reached: readonly string[], named: readonly string[]) =>
        commitAllowed(from, reached, named) &&
        commitAllowed(before, reached) &&
        commitAllowed(recorded, reached)
      for (const wanted of [voters, here]) {
        voters = [...wanted]
        for (;;) {
          serial++
          const reached: string[] = []
          const order = [...voters]
            .sort(() => (isReversed ? -1 : 0))
            .sort((a, b) => Number(from.includes(b)) - Number(from.includes(a)))
          for (const uuid of order) {
            if (!good(uuid)) continue
            if (writes++ >= cutAfter) {
              tear(uuid)
              break
            }
            store(uuid, generation, voters, recorded, follows)
            reached.push(uuid)
          }
          generation++
          if (writes > cutAfter) break
          if (allowed(reached, voters)) {
            relied = [...relied, serial]
            follows = { generation: generation - 1, payloadCrc: serial }
            inPlace.clear()
            // AnchoredDevice.repeat.
            for (const uuid of reached) {
              const newest = media.get(uuid)
              if (!newest) continue
              if (writes++ < cutAfter) others.set(uuid, newest)
              else {
                others.delete(uuid)
                break
              }
            }
            break
          }
          if (!allowed(reached, reached)) break
          voters = reached
        }
        if (writes > cutAfter || relied.at(-1) !== serial) break
        from = voters
        before = voters
        recorded = voters
      }
    }
    if (isLeft) left++
    return true
  })
  const numRuns = Number(process.env['RUNS'] ?? 4000)
  fc.assert(property, { numRuns })
  // One history in some 70,000 is (adr 0005): a run of chance may meet one, which fails its start several times.
  t.ok(left <= 2 + numRuns / 20_000, `${left} histories of ${numRuns} left to an operator`)
  t.ok(leftByRot * 4 < rots, `${leftByRot} left, of ${rots} histories in which a slot rots`)
  t.ok(assembled > 1000 && refused > 100, `${assembled} assembled, ${refused} refused`)
})
