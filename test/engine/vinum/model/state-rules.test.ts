/** The table of state rules, row by row; copies and health. docs/vinum.md, 5.1, 5.2 and 8. */
import { ok } from 'node:assert'
import fc from 'fast-check'
import t from 'tap'
import { PlexusError } from '../../../../src/base/errors.ts'
import { KIB, MIB } from '../../../../src/base/limits.ts'
import { firstUncovered } from '../../../../src/engine/vinum/model/coverage.ts'
import {
  type DriveRecord,
  type PlexRecord,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
} from '../../../../src/engine/vinum/model/model.ts'
import {
  derive,
  healthOf,
  lastCopyLost,
  ruleFor,
  setState,
} from '../../../../src/engine/vinum/model/state-rules.ts'
import {
  DRIVE_RULES,
  PLEX_RULES,
  SET_RULES,
  SUBDISK_RULES,
  VOLUME_RULES,
} from '../../../../src/engine/vinum/model/state-table.ts'
import {
  buildModel,
  edit,
  find,
  modelArbitrary,
  stateOf,
  uuidOf,
  withJob,
} from '../../../support/vinum-model.ts'

const drives = ['d1:64MiB', 'd2:64MiB', 'd3:64MiB', 'd4:64MiB']
const mirror = buildModel({ drives, volumes: { v: ['concat d1 d2', 'concat d3 d4'] } })
const raid5 = buildModel({ drives, volumes: { v: ['raid5 64KiB d1 d2 d3'] } })
const concat = buildModel({ drives, volumes: { v: ['concat d1 d2'] } })
const striped = buildModel({ drives, volumes: { v: ['striped 64KiB d1 d2'] } })
const raid10 = buildModel({
  drives,
  volumes: { v: ['striped 64KiB d1 d2', 'striped 64KiB d3 d4'] },
})
/** The model after losing these drives at once. */
const lose = (model: VinumModel, ...names: string[]) =>
  derive(model, (uuid) => !names.some((name) => uuidOf(name) === uuid))
const grow = (model: VinumModel, columnsBefore: number, cursorBytes = 0) =>
  edit(model, 'v.p0', { growth: { columnsBefore, cursorBytes, backup: undefined } })
const parity = (model: VinumModel, parityValidBytes: number) =>
  derive(edit(model, 'v.p0', { parityValidBytes }))
const states = (model: VinumModel, ...names: string[]) =>
  names.map((name) => stateOf(model, name)).join(' ')

interface DerivedRow {
  readonly facts: object
  readonly model: VinumModel
  readonly object: string
}

const plexFacts = {
  organization: 'concat',
  subdisks: 3,
  up: 3,
  copying: 0,
  out: 0,
  parityValid: true,
  growing: false,
  mirrored: false,
  jobRuns: false,
}

/** A case for each derived rule: the facts that it decides on, and a model in which it decides. */
const DERIVED: Readonly<Record<string, DerivedRow>> = {
  'drive-absent': {
    facts: { state: 'up', present: false },
    model: lose(concat, 'd1'),
    object: 'd1',
  },
  'drive-up': { facts: { state: 'up', present: true }, model: derive(concat), object: 'd1' },
  'drive-down': {
    facts: { state: 'down', present: true },
    model: derive(edit(concat, 'd1', { state: 'down' })),
    object: 'd1',
  },
  'subdisk-stale': {
    facts: { state: 'stale', driveUp: false, otherCopy: true },
    model: lose(edit(mirror, 'v.p0.s0', { state: 'stale' }), 'd1'),
    object: 'v.p0.s0',
  },
  'subdisk-copy-cut-short': {
    facts: { state: 'reviving', driveUp: false, otherCopy: false },
    model: lose(edit(mirror, 'v.p0.s0', { state: 'reviving' }), 'd1'),
    object: 'v.p0.s0',
  },
  'subdisk-reviving': {
    facts: { state: 'reviving', driveUp: true, otherCopy: true },
    model: derive(edit(mirror, 'v.p0.s0', { state: 'reviving' })),
    object: 'v.p0.s0',
  },
  'subdisk-initializing': {
    facts: { state: 'initializing', driveUp: true, otherCopy: true },
    model: derive(edit(mirror, 'v.p0.s0', { state: 'initializing' })),
    object: 'v.p0.s0',
  },
  'subdisk-away-raid5': {
    facts: { state: 'down', driveUp: false, otherCopy: true, raid5: true },
    model: lose(edit(raid5, 'v.p0.s1', { state: 'down' }), 'd2'),
    object: 'v.p0.s1',
  },
  'subdisk-away-redundant': {
    facts: { state: 'up', driveUp: false, otherCopy: true },
    model: lose(mirror, 'd1'),
    object: 'v.p0.s0',
  },
  'subdisk-away-last': {
    facts: { state: 'up', driveUp: false, otherCopy: false },
    model: lose(concat, 'd1'),
    object: 'v.p0.s0',
  },
  'subdisk-up': {
    facts: { state: 'up', driveUp: true, otherCopy: false },
    model: derive(concat),
    object: 'v.p0.s0',
  },
  'plex-narrow': {
    facts: { ...plexFacts, organization: 'raid5', subdisks: 2, up: 2 },
    model: derive({ ...raid5, subdisks: raid5.subdisks.slice(0, 2) }),
    object: 'v.p0',
  },
  'plex-growing': {
    facts: { ...plexFacts, organization: 'striped', growing: true },
    model: derive(grow(striped, 1)),
    object: 'v.p0',
  },
  'plex-raid5-initializing': {
    facts: { ...plexFacts, organization: 'raid5', parityValid: false },
    model: parity(raid5, MIB),
    object: 'v.p0',
  },
  'plex-up': { facts: plexFacts, model: derive(raid5), object: 'v.p0' },
  'plex-raid5-degraded': {
    facts: { ...plexFacts, organization: 'raid5', up: 2, out: 1 },
    model: lose(raid5, 'd2'),
    object: 'v.p0',
  },
  'plex-raid5-no-parity': {
    facts: { ...plexFacts, organization: 'raid5', up: 2, out: 1, parityValid: false },
    model: lose(parity(raid5, MIB), 'd2'),
    object: 'v.p0',
  },
  'plex-raid5-lost': {
    facts: { ...plexFacts, organization: 'raid5', up: 1, out: 2 },
    model: lose(raid5, 'd1', 'd2'),
    object: 'v.p0',
  },
  'plex-linear-partly': {
    facts: { ...plexFacts, up: 2, out: 1, mirrored: true },
    model: lose(mirror, 'd1'),
    object: 'v.p0',
  },
  'plex-linear-copying': {
    facts: { ...plexFacts, up: 0, copying: 3, jobRuns: true },
    model: derive(
      withJob(
        edit(edit(mirror, 'v.p1.s0', { state: 'reviving' }), 'v.p1.s1', { state: 'reviving' }),
        'sync',
        'v.p1',
      ),
    ),
    object: 'v.p1',
  },
  'plex-linear-copy-idle': {
    facts: { ...plexFacts, up: 0, copying: 3 },
    model: derive(
      edit(edit(mirror, 'v.p1.s0', { state: 'reviving' }), 'v.p1.s1', { state: 'reviving' }),
    ),
    object: 'v.p1',
  },
  'plex-linear-lost': {
    facts: { ...plexFacts, up: 2, out: 1 },
    model: lose(concat, 'd1'),
    object: 'v.p0',
  },
  'volume-empty': {
    facts: { plexes: 0, covered: false },
    model: derive({ ...concat, plexes: [], subdisks: [] }),
    object: 'v',
  },
  'volume-covered': { facts: { plexes: 1, covered: true }, model: lose(raid5, 'd2'), object: 'v' },
  'volume-lost': { facts: { plexes: 1, covered: false }, model: lose(concat, 'd1'), object: 'v' },
}

t.test('5.1: every derived rule has a case', async (t) => {
  const groups = [DRIVE_RULES, SUBDISK_RULES, PLEX_RULES, VOLUME_RULES] as const
  let rows = 0
  for (const rules of groups) {
    for (const rule of rules) {
      const row = DERIVED[rule.id]
      if (!row) {
        t.fail(`rule ${rule.id} has no test`)
        continue
      }
      rows++
      const decided = ruleFor<object, string>(rules as never, row.facts)
      t.equal(decided.id, rule.id)
      t.equal(stateOf(row.model, row.object), rule.state, `${rule.id}: in a model`)
      t.equal(derive(row.model), row.model, `${rule.id}: deriving again changes nothing`)
    }
  }
  t.equal(rows, Object.keys(DERIVED).length, 'no case without a rule')
})

interface SetRow {
  readonly model: VinumModel
  readonly object: string
  readonly force?: boolean
  readonly open?: boolean
  readonly absent?: string
  /** States of other objects after. */
  readonly after?: Readonly<Record<string, string>>
  readonly parityValidBytes?: number
  /** Of v.p0 after. */
  readonly lost?: PlexRecord['lost']
  readonly refuse?: RegExp
}

const stale = derive(edit(concat, 'v.p0.s0', { state: 'stale' }))
const staleMirror = derive(edit(mirror, 'v.p0.s0', { state: 'stale' }))
/** The second part of the first plex is valid, and with the first part of the second one all would be. */
const halves = buildModel({
  drives,
  volumes: { v: ['concat d1:8MiB=stale', 'concat d3=stale d4'] },
})
/** Whichever plex is taken, a part of it is valid in the other one. */
const crossed = buildModel({
  drives,
  volumes: { v: ['concat d1:6MiB=stale d2:2MiB', 'concat d3:2MiB d4:6MiB=stale'] },
})
const staleColumn = derive(edit(raid5, 'v.p0.s0', { state: 'stale' }))
const twoStale = derive(edit(staleColumn, 'v.p0.s1', { state: 'stale' }))
const driveDown = lose(concat, 'd1')
const lost = [{ column: 0, offsetBytes: 0, lengthBytes: 65536, keptBy: undefined }]
const lostPart = edit(raid5, 'v.p0', { lost })
const detached = (model: VinumModel) => derive(edit(model, 'v.p0.s0', { plexUuid: undefined }))
const off = (model: VinumModel, name: string, state: string) =>
  setState(model, find(model, name).uuid, state, {
    force: true,
    isOpen: () => false,
    isPresent: () => true,
  })

const SET: Readonly<Record<string, SetRow>> = {
  'set-drive-down-open': {
    model: mirror,
    object: 'd1',
    open: true,
    refuse: /d1 stays up: a volume on it is open/,
  },
  'set-drive-down': {
    model: mirror,
    object: 'd1',
    after: { 'v.p0.s0': 'stale', 'v.p0': 'degraded', v: 'up' },
  },
  'set-drive-up-absent': {
    model: driveDown,
    object: 'd1',
    absent: 'd1',
    refuse: /device is missing/,
  },
  'set-drive-up': {
    model: driveDown,
    object: 'd1',
    after: { 'v.p0.s0': 'up', 'v.p0': 'up', v: 'up' },
  },
  'set-subdisk-down-attached': { model: concat, object: 'v.p0.s0', refuse: /attached to a plex/ },
  'set-subdisk-down': { model: detached(concat), object: 'v.p0.s0' },
  'set-subdisk-copying': { model: stale, object: 'v.p0.s0', refuse: /only a job/ },
  'set-subdisk-copying-forced': { model: stale, object: 'v.p0.s0', force: true },
  'set-subdisk-init': { model: stale, object: 'v.p0.s0', refuse: /only a job/ },
  'set-subdisk-init-forced': { model: stale, object: 'v.p0.s0', force: true },
  'set-subdisk-stale': { model: mirror, object: 'v.p0.s0', refuse: /count no more; use force/ },
  'set-subdisk-stale-forced': {
    model: mirror,
    object: 'v.p0.s0',
    force: true,
    after: { 'v.p0': 'degraded' },
  },
  'set-subdisk-up-no-drive': {
    model: driveDown,
    object: 'v.p0.s0',
    force: true,
    refuse: /drive is down/,
  },
  'set-subdisk-up-down': {
    model: off(concat, 'v.p0.s0', 'down'),
    object: 'v.p0.s0',
    after: { v: 'up' },
  },
  'set-subdisk-up-detached': { model: detached(stale), object: 'v.p0.s0' },
  'set-subdisk-up-busy': {
    model: withJob(staleMirror, 'sync', 'v.p0'),
    object: 'v.p0.s0',
    force: true,
    refuse: /a job works on it/,
  },
  'set-subdisk-up-other-copy': {
    model: staleMirror,
    object: 'v.p0.s0',
    force: true,
    refuse: /valid copy exists.*use start/,
  },
  'set-subdisk-up-clash': {
    model: halves,
    object: 'v.p0.s0',
    force: true,
    refuse: /v\.p0\.s0 stays stale: .*a part of it has a valid copy.*set it stale by force/,
  },
  'set-subdisk-up-forced': {
    model: twoStale,
    object: 'v.p0.s0',
    force: true,
    after: { 'v.p0': 'degraded', v: 'up' },
  },
  'set-subdisk-up-single': { model: stale, object: 'v.p0.s0', after: { v: 'up' } },
  'set-subdisk-up': { model: twoStale, object: 'v.p0.s0', refuse: /may be old; use start/ },
  'set-plex-up': { model: off(concat, 'v.p0', 'down'), object: 'v.p0', after: { v: 'up' } },
  'set-plex-up-busy': {
    model: withJob(staleColumn, 'rebuild', 'v.p0'),
    object: 'v.p0',
    force: true,
    refuse: /a job works/,
  },
  'set-plex-up-unforced': { model: twoStale, object: 'v.p0', refuse: /not all of its subdisks/ },
  'set-plex-up-other-copy': {
    model: off(mirror, 'v.p0', 'down'),
    object: 'v.p0',
    force: true,
    refuse: /valid copy exists/,
  },
  'set-plex-up-clash': {
    model: halves,
    object: 'v.p0',
    force: true,
    refuse: /v\.p0 stays down: .*a part of it has a valid copy/,
  },
  'set-plex-up-forced': {
    model: stale,
    object: 'v.p0',
    force: true,
    after: { 'v.p0.s0': 'up', v: 'up' },
  },
  'set-plex-up-lost': { model: lostPart, object: 'v.p0', force: true, lost: undefined },
  'set-volume-up-lost': { model: lostPart, object: 'v', force: true, lost: undefined },
  'set-plex-down-last': { model: concat, object: 'v.p0', refuse: /no other valid copy/ },
  'set-plex-down': {
    model: mirror,
    object: 'v.p0',
    after: { 'v.p0.s0': 'stale', 'v.p1': 'up', v: 'up' },
  },
  'set-plex-degraded': {
    model: raid5,
    object: 'v.p0',
    force: true,
    refuse: /follows from the objects below/,
  },
  'set-plex-initializing': {
    model: raid5,
    object: 'v.p0',
    force: true,
    refuse: /follows from the objects below/,
  },
  'set-plex-growable': {
    model: raid5,
    object: 'v.p0',
    force: true,
    refuse: /follows from the objects below/,
  },
  'set-volume-up': {
    model: off(mirror, 'v', 'down'),
    object: 'v',
    after: { 'v.p0': 'up', 'v.p1': 'up' },
  },
  'set-volume-up-busy': {
    model: withJob(twoStale, 'sync', 'v.p0'),
    object: 'v',
    force: true,
    refuse: /a job works on it/,
  },
  'set-volume-up-unforced': { model: stale, object: 'v', refuse: /no valid copy/ },
  'set-volume-up-clash': {
    model: crossed,
    object: 'v',
    force: true,
    refuse: /v stays down: .*a part of it has a valid copy/,
  },
  'set-volume-up-forced': {
    model: twoStale,
    object: 'v',
    force: true,
    after: { 'v.p0.s0': 'up', 'v.p0.s1': 'up' },
    parityValidBytes: 0,
  },
  'set-volume-down-open': {
    model: mirror,
    object: 'v',
    open: true,
    refuse: /v stays up: it is open/,
  },
  'set-volume-down': {
    model: mirror,
    object: 'v',
    after: { 'v.p0.s0': 'down', 'v.p1.s1': 'down' },
  },
}

t.test('5.2: every rule of setstate has a case', async (t) => {
  for (const rule of SET_RULES) {
    const row = SET[rule.id]
    if (!row) {
      t.fail(`rule ${rule.id} has no test`)
      continue
    }
    const frozen = JSON.stringify(row.model)
    const set = () =>
      setState(row.model, find(row.model, row.object).uuid, rule.to, {
        force: row.force ?? false,
        isOpen: () => row.open ?? false,
        isPresent: (uuid) => uuid !== uuidOf(row.absent ?? ''),
      })
    t.equal(row.refuse !== undefined, typeof rule.action !== 'string', `${rule.id}: refused or not`)
    if (row.refuse) {
      t.throws(set, { name: 'PlexusError', message: row.refuse }, rule.id)
    } else {
      const after = set()
      // A plex or volume whose last columns are taken as they are begins with its parity.
      const expected = rule.id === 'set-volume-up-forced' ? 'up' : rule.to
      t.equal(stateOf(after, row.object), expected, rule.id)
      for (const [name, state] of Object.entries(row.after ?? {})) {
        t.equal(stateOf(after, name), state, `${rule.id}: ${name}`)
      }
      if (row.parityValidBytes !== undefined) {
        t.equal(find<PlexRecord>(after, 'v.p0').parityValidBytes, row.parityValidBytes)
      }
      if ('lost' in row) t.equal(find<PlexRecord>(after, 'v.p0').lost, row.lost)
      t.equal(derive(after), after, `${rule.id}: the state holds`)
    }
    t.equal(JSON.stringify(row.model), frozen, `${rule.id}: the model was not touched`)
  }
  t.equal(Object.keys(SET).length, SET_RULES.length, 'no case without a rule')
})

t.test('5.2: setting in general', async (t) => {
  const options = { force: false, isOpen: () => true, isPresent: () => true }
  t.equal(setState(mirror, uuidOf('v'), 'up', options), mirror, 'a state that it has: no change')
  t.throws(() => setState(mirror, uuidOf('x'), 'up', options), {
    name: 'PlexusError',
    kind: 'not-found',
  })
  t.throws(() => setState(mirror, uuidOf('v'), 'stale', options), {
    name: 'PlexusError',
    kind: 'invalid',
    message: /no state "stale"; a volume can be down, up/,
  })
  t.throws(() => setState(mirror, uuidOf('v.p0'), 'broken', options), {
    name: 'PlexusError',
    kind: 'invalid',
  })
  t.equal(
    stateOf(setState(mirror, uuidOf('d1'), 'down', { ...options, force: true }), 'd1'),
    'down',
  )
  t.equal(stateOf(off(mirror, 'v.p0.s0', 'down'), 'v.p0.s0'), 'stale', 'writes go on without it')
  t.equal(stateOf(off(concat, 'v.p0.s0', 'down'), 'v.p0.s0'), 'down', 'nothing goes on without it')
})

t.test(
  'of a volume force takes a plex that goes with what is valid, whatever its place',
  async (t) => {
    const taken = setState(halves, uuidOf('v'), 'up', {
      force: true,
      isOpen: () => true,
      isPresent: () => true,
    })
    t.equal(states(taken, 'v.p0.s0', 'v.p1.s0', 'v.p1.s1', 'v'), 'stale up up up')
    const given = off(off(crossed, 'v.p1.s0', 'stale'), 'v.p0', 'up')
    t.equal(states(given, 'v.p0.s0', 'v.p0.s1', 'v.p1.s0', 'v'), 'up up stale up')
  },
)

t.test('force takes two stale columns with their data, and computes parity anew', async (t) => {
  const after = setState(twoStale, uuidOf('v.p0'), 'up', {
    force: true,
    isOpen: () => false,
    isPresent: () => true,
  })
  t.equal(states(after, 'v.p0.s0', 'v.p0.s1', 'v.p0', 'v'), 'up up initializing up')
  t.equal(find<PlexRecord>(after, 'v.p0').parityValidBytes, 0)
  const one = lose(parity(raid5, MIB), 'd3')
  t.equal(stateOf(one, 'v'), 'down')
  const accepted = setState(one, uuidOf('v.p0'), 'up', {
    force: true,
    isOpen: () => false,
    isPresent: (uuid) => uuid !== uuidOf('d3'),
  })
  t.equal(states(accepted, 'v.p0', 'v'), 'degraded up', 'parity is all there is')
})

t.test(
  'a column that was down takes its plex to where its parity was, by force or not',
  async (t) => {
    const making = off(parity(raid5, MIB), 'v.p0.s0', 'down')
    t.equal(states(making, 'v.p0.s0', 'v.p0', 'v'), 'down down down')
    for (const force of [false, true]) {
      const options = { force, isOpen: () => true, isPresent: () => true }
      const after = setState(making, uuidOf('v.p0'), 'up', options)
      t.equal(states(after, 'v.p0.s0', 'v.p0', 'v'), 'up initializing up')
      t.equal(find<PlexRecord>(after, 'v.p0').parityValidBytes, MIB)
    }
  },
)

t.test('drives that go and return', async (t) => {
  const back = (model: VinumModel, name: string) =>
    setState(model, uuidOf(name), 'up', { force: false, isOpen: () => true, isPresent: () => true })

  t.test('alone: complete when it returns', async (t) => {
    for (const model of [concat, striped]) {
      const lost = lose(model, 'd1')
      t.equal(states(lost, 'd1', 'v.p0.s0', 'v.p0', 'v'), 'down down down down')
      t.equal(states(back(lost, 'd1'), 'v.p0.s0', 'v.p0', 'v'), 'up up up')
    }
  })

  t.test('redundant: stale when it returns', async (t) => {
    t.equal(states(back(lose(mirror, 'd1'), 'd1'), 'v.p0.s0', 'v'), 'stale up')
    t.equal(states(back(lose(raid5, 'd1'), 'd1'), 'v.p0.s0', 'v.p0'), 'stale degraded')
  })

  t.test('one after the other: the last one to go has everything', async (t) => {
    const both = lose(lose(raid5, 'd1'), 'd1', 'd2')
    t.equal(states(both, 'v.p0.s0', 'v.p0.s1', 'v'), 'stale down down')
    t.equal(states(back(both, 'd2'), 'v.p0.s0', 'v.p0.s1', 'v'), 'stale up up')
    const other = back(both, 'd1')
    t.equal(
      states(other, 'v.p0.s0', 'v.p0.s1', 'v'),
      'stale down down',
      'the first one does not help',
    )
  })

  t.test(
    'together: complete together; the second copy to return has missed writes, a column may have',
    async (t) => {
      const both = lose(mirror, 'd1', 'd3')
      t.equal(states(both, 'v.p0.s0', 'v.p1.s0', 'v'), 'down down down')
      const first = back({ ...both, drives: edit(both, 'd3', { state: 'down' }).drives }, 'd1')
      t.equal(states(first, 'v.p0.s0', 'v.p1.s0', 'v'), 'up stale up')
      const column = lose(raid5, 'd1', 'd2')
      t.equal(states(column, 'v.p0.s0', 'v.p0.s1'), 'down down')
      t.equal(states(back(column, 'd1'), 'v.p0.s0', 'v.p0.s1', 'v.p0'), 'up down degraded')
    },
  )

  t.test('a detached subdisk misses nothing', async (t) => {
    const lost = lose(detached(mirror), 'd1')
    t.equal(stateOf(lost, 'v.p0.s0'), 'down')
    t.equal(stateOf(back(lost, 'd1'), 'v.p0.s0'), 'up')
  })
})

t.test('copies', async (t) => {
  const covered = (model: VinumModel) => firstUncovered(model, find<VolumeRecord>(model, 'v'))
  t.test('mirrors which lost different parts have everything', async (t) => {
    const lost = lose(mirror, 'd1', 'd4')
    t.equal(states(lost, 'v.p0', 'v.p1', 'v'), 'degraded degraded up')
    t.equal(covered(lose(mirror, 'd2', 'd4')), 4 * MIB, 'the second part is nowhere')
  })

  t.test('striped mirrors which lost different columns, too', async (t) => {
    t.equal(states(lose(raid10, 'd1', 'd4'), 'v'), 'up')
    t.equal(covered(lose(raid10, 'd2', 'd4')), 64 * KIB)
    t.equal(stateOf(lose(raid10, 'd2', 'd4'), 'v'), 'down')
  })

  t.test('geometries that differ are compared unit by unit', async (t) => {
    const model = buildModel({
      drives,
      volumes: { v: ['striped 64KiB d1 d2', 'striped 128KiB d3 d4'] },
    })
    // Column 0 has the even units of 64 KiB; d3 those of 128 KiB: unit 2 is in neither d2 nor d3.
    t.equal(covered(lose(model, 'd1', 'd4')), 128 * KIB)
    t.equal(covered(lose(model, 'd1')), undefined)
  })

  t.test('odd geometries that never repeat count as without a copy', async (t) => {
    const model = buildModel({
      drives: ['d1:2GiB', 'd2:2GiB', 'd3:2GiB', 'd4:2GiB'],
      volumes: {
        v: [
          `striped ${4 * KIB * 509} d1:${4 * KIB * 509 * 400} d2:${4 * KIB * 509 * 400}`,
          `striped 4KiB d3:${4 * KIB * 203_600} d4:${4 * KIB * 203_600}`,
        ],
      },
    })
    t.equal(covered(model), undefined)
    t.type(covered(lose(model, 'd1', 'd4')), 'number')
  })

  t.test('lastCopyLost names what would be lost', async (t) => {
    const lost = (model: VinumModel, ...names: string[]) => lastCopyLost(model, names.map(uuidOf))
    t.equal(lost(mirror, 'v.p0.s0'), undefined)
    t.equal(lost(mirror, 'v.p0.s0', 'v.p1.s1'), undefined)
    t.equal(lost(mirror, 'v.p0.s1', 'v.p1.s1'), `volume v, from offset ${4 * MIB}`)
    t.equal(lost(concat, 'v.p0.s0'), 'volume v, from offset 0')
    t.equal(lost(raid5, 'v.p0.s0'), undefined)
    t.equal(lost(raid5, 'v.p0.s0', 'v.p0.s1'), 'volume v, from offset 0')
    t.equal(
      lost(parity(raid5, MIB), 'v.p0.s0'),
      `volume v, from offset ${MIB}`,
      'parity is not valid there',
    )
    t.equal(lost(staleMirror, 'v.p1.s0'), 'volume v, from offset 0')
    t.equal(lost(staleMirror, 'v.p1.s1'), undefined)
    t.equal(
      lost(edit(staleMirror, 'v.p0.s0', { state: 'reviving' }), 'v.p1.s0'),
      'volume v, from offset 0',
      'reviving is no copy',
    )
    t.equal(lost(stale, 'v.p0.s0'), undefined, 'what is lost already is not lost again')
    t.equal(lost(stale, 'v.p0.s1'), `volume v, from offset ${4 * MIB}`)
    t.equal(lost(detached(concat), 'v.p0.s0'), undefined)
  })

  t.test('columns that a growth adds count below its cursor only', async (t) => {
    const wide = buildModel({
      drives,
      volumes: { v: ['raid5 64KiB d1 d2 d3 d4', 'concat d1:1MiB'] },
    })
    const growing = derive(grow(edit(wide, 'v.p0', { volumeUuid: undefined }), 3))
    t.equal(stateOf(growing, 'v.p0'), 'growable')
    const own = derive(
      edit(edit(grow(wide, 3, 192 * KIB), 'v.p1', { volumeUuid: undefined }), 'v', {
        sizeBytes: 8 * MIB,
      }),
    )
    t.equal(lastCopyLost(own, [uuidOf('v.p0.s3')]), undefined, 'one column below the cursor')
    t.equal(lastCopyLost(own, [uuidOf('v.p0.s3'), uuidOf('v.p0.s0')]), 'volume v, from offset 0')
    const none = derive(
      edit(own, 'v.p0', { growth: { columnsBefore: 3, cursorBytes: 0, backup: undefined } }),
    )
    t.equal(
      lastCopyLost(none, [uuidOf('v.p0.s3'), uuidOf('v.p0.s0')]),
      undefined,
      'the new one has nothing yet',
    )
  })

  t.test('against a naive model, unit by unit', async () => {
    fc.assert(
      fc.property(modelArbitrary, fc.array(fc.nat(), { maxLength: 4 }), (model, picks) => {
        const without = new Set(
          picks.flatMap((one) => model.subdisks[one % model.subdisks.length]?.uuid ?? []),
        )
        let lost = false
        for (const volume of model.volumes) {
          for (let at = 0; at < volume.sizeBytes && !lost; at += 4096) {
            lost = naive(model, volume, at, new Set()) && !naive(model, volume, at, without)
          }
        }
        ok((lastCopyLost(model, [...without]) !== undefined) === lost)
      }),
      { numRuns: 150 },
    )
  })
})

/** Has the volume a valid copy of this byte? Straight from docs/vinum.md, 7. */
function naive(
  model: VinumModel,
  volume: VolumeRecord,
  at: number,
  without: ReadonlySet<string>,
): boolean {
  return model.plexes.some((plex) => {
    if (plex.volumeUuid !== volume.uuid) return false
    const all = subdisksOf(model, plex.uuid)
    const good = all.map((one) => {
      const drive = model.drives.find((other: DriveRecord) => other.uuid === one.driveUuid)
      return one.state === 'up' && drive?.state === 'up' && !without.has(one.uuid)
    })
    if (plex.organization === 'concat') {
      const index = all.findIndex(
        (one) => at >= one.plexOffsetBytes && at < one.plexOffsetBytes + one.sizeBytes,
      )
      return good[index] === true
    }
    const size = all[0]?.sizeBytes ?? 0
    const spare = plex.organization === 'raid5' ? 1 : 0
    const old = plex.growth?.columnsBefore ?? all.length
    if (at >= Math.max(0, old - spare) * size) return false
    const columns = plex.growth && at >= plex.growth.cursorBytes ? old : all.length
    const here = good.slice(0, columns)
    if (spare === 0) return here[Math.floor(at / plex.stripeBytes) % columns] === true
    const missing = here.filter((one) => !one).length
    return missing === 0 || (missing === 1 && at < plex.parityValidBytes)
  })
}

t.test('health', async (t) => {
  const health = (model: VinumModel) => healthOf(model, uuidOf('v'))
  t.equal(health(mirror), 'HEALTHY')
  t.equal(health(lose(mirror, 'd1')), 'DEGRADED')
  t.equal(health(lose(raid5, 'd1')), 'DEGRADED')
  t.equal(health(parity(raid5, 0)), 'DEGRADED', 'no redundancy yet')
  t.equal(health(lostPart), 'DEGRADED', 'a part is lost')
  t.equal(health(lose(raid5, 'd1', 'd2')), 'FAULTED')
  t.equal(health(lose(concat, 'd1')), 'FAULTED')
  t.equal(health(derive(edit(grow(striped, 1), 'v', { sizeBytes: 4 * MIB }))), 'HEALTHY')
  t.equal(healthOf(mirror, uuidOf('x')), 'FAULTED')
  t.equal(
    healthOf(mirror, uuidOf('v'), true),
    'DEGRADED',
    'copies that may differ are not redundant',
  )
})

t.test('deriving', async (t) => {
  t.test('is stable, and never makes an up of anything else', async () => {
    fc.assert(
      fc.property(modelArbitrary, fc.nat({ max: 127 }), (model, mask) => {
        const present = (uuid: string) =>
          ((mask >> model.drives.findIndex((one) => one.uuid === uuid)) & 1) === 0
        const after = derive(model, present)
        ok(derive(after, present) === after)
        for (const [index, one] of model.subdisks.entries()) {
          const now = after.subdisks[index]?.state
          ok(now !== 'up' || one.state === 'up')
          ok(one.state !== 'stale' || now === 'stale')
        }
      }),
      { numRuns: 150 },
    )
  })

  t.test('never takes the last copy out as stale', async () => {
    fc.assert(
      fc.property(modelArbitrary, fc.nat({ max: 127 }), (model, mask) => {
        const gone = new Set(
          model.drives.filter((_, index) => (mask >> index) & 1).map((one) => one.uuid),
        )
        const after = derive(model, (uuid) => !gone.has(uuid))
        // With all drives back, nothing is lost that was there before.
        const back = derive({
          ...after,
          drives: model.drives,
          subdisks: after.subdisks.map((one, index) =>
            one.state === 'down' ? { ...one, state: model.subdisks[index]?.state ?? 'down' } : one,
          ),
        })
        for (const [index, one] of model.volumes.entries()) {
          if (one.state === 'up') ok(back.volumes[index]?.state === 'up')
        }
      }),
      { numRuns: 150 },
    )
  })
})

t.test('vinum.md 8.2: a new raid5 is not up before its parity is computed', async (t) => {
  t.equal(states(parity(raid5, 0), 'v.p0', 'v'), 'initializing up')
  t.equal(states(lose(parity(raid5, 0), 'd1'), 'v.p0', 'v'), 'down down', 'no garbage from parity')
})

t.test('vinum.md 8.8: a copy that was cut short does not come up', async (t) => {
  const copying = derive(withJob(edit(raid5, 'v.p0.s0', { state: 'reviving' }), 'rebuild', 'v.p0'))
  t.equal(stateOf(copying, 'v.p0'), 'degraded')
  const lost = lose(copying, 'd1')
  t.equal(stateOf(lost, 'v.p0.s0'), 'stale')
  const options = { force: false, isOpen: () => false, isPresent: () => true }
  t.equal(stateOf(setState(lost, uuidOf('d1'), 'up', options), 'v.p0.s0'), 'stale')
  t.throws(() => setState({ ...copying, jobs: [] }, uuidOf('v.p0.s0'), 'up', options), PlexusError)
})

t.test('vinum.md 8.9: force is force and nothing else', async (t) => {
  const options = { isOpen: () => true, isPresent: () => true }
  t.throws(() => setState(mirror, uuidOf('v'), 'down', { ...options, force: false }))
  t.equal(stateOf(setState(mirror, uuidOf('v'), 'down', { ...options, force: true }), 'v'), 'down')
})

t.test('vinum.md 8.19: propagation, open volumes and detached plexes', async (t) => {
  // plexdown: the plexes of this volume count, not the next objects of some list.
  const two = buildModel({
    drives,
    volumes: { v: ['concat d1', 'concat d2'], w: ['concat d3', 'concat d4'] },
  })
  const options = { force: false, isOpen: () => false, isPresent: () => true }
  const once = setState(two, uuidOf('v.p0'), 'down', options)
  t.throws(() => setState(once, uuidOf('v.p1'), 'down', options), {
    name: 'PlexusError',
    kind: 'in-use',
  })
  t.equal(stateOf(setState(once, uuidOf('w.p0'), 'down', options), 'w'), 'up')
  // set_vol_state: open refuses, closed does not.
  t.throws(() => setState(two, uuidOf('v'), 'down', { ...options, isOpen: () => true }), {
    name: 'PlexusError',
    kind: 'in-use',
  })
  t.equal(stateOf(setState(two, uuidOf('v'), 'down', options), 'v'), 'down')
  // set_sd_state: a detached plex has no volume.
  const loose = derive(
    edit(edit(two, 'v.p0', { volumeUuid: undefined }), 'v.p0.s0', { state: 'stale' }),
  )
  t.equal(stateOf(setState(loose, uuidOf('v.p0.s0'), 'up', options), 'v.p0'), 'up')
})
