/** The queue of commits: what shares one, who is written in which order, what a failure means. metadata/config-store.ts. */
import t from 'tap'
import { PlexusError } from '../../../src/base/errors.ts'
import type { Base } from '../../../src/engine/anchor/anchor-quorum.ts'
import {
  ConfigStore,
  type ConfigStoreOptions,
  type Voter,
} from '../../../src/engine/metadata/config-store.ts'
import { votersOf } from '../../../src/engine/metadata/set-model.ts'
import { decodeModel, encodeModel, VINUM_CODEC } from '../../../src/engine/vinum/model/codec.ts'
import { keepOldPlaces, loseDrives } from '../../../src/engine/vinum/model/membership.ts'
import type { DriveRecord, VinumModel } from '../../../src/engine/vinum/model/model.ts'
import { failureOf } from '../../support/failure.ts'
import { buildModel, uuidOf } from '../../support/vinum-model.ts'

const NAMES = ['d1', 'd2', 'd3', 'd4'] as const

/** A store over labels that only write down what they are given. */
function bench(
  drives: readonly string[] = ['d1', 'd2', 'd3'],
  more: Partial<ConfigStoreOptions<VinumModel>> = {},
) {
  const model = buildModel({ drives: drives.map((name) => `${name}:64MiB`), volumes: {} })
  const writes: { name: string; generation: number; model: VinumModel }[] = []
  const faults = new Map<string, PlexusError>()
  const commits: { model: VinumModel; failed: string[] }[] = []
  let gate: Promise<void> | undefined
  const voter = (uuid: string): Voter | undefined => {
    const name = NAMES.find((one) => uuidOf(one) === uuid)
    if (!name) return undefined
    const repeat = async (): Promise<void> => {}
    const commit = async (generation: number, payload: Buffer): Promise<void> => {
      await gate
      const fault = faults.get(name)
      if (fault) throw fault
      writes.push({ name, generation, model: decodeModel(payload) })
    }
    const payloadRoom = rooms.get(name) ?? Number.POSITIVE_INFINITY
    const device = { path: `/dev/${name}` }
    return { commit, repeat, payloadRoom, device }
  }
  const rooms = new Map<string, number>()
  const store = new ConfigStore<VinumModel>({
    name: 'vinum-1',
    codec: VINUM_CODEC,
    model,
    nextGeneration: 2,
    base: baseOf(drives),
    voter,
    witness: () => undefined,
    loseDrives,
    amend: keepOldPlaces,
    onCommit: (next, failed) =>
      commits.push({
        model: next,
        failed: NAMES.filter((name) => failed.has(uuidOf(name))),
      }),
    ...more,
  })
  return {
    store,
    writes,
    faults,
    rooms,
    commits,
    fail(name: string, kind: 'io' | 'gone' = 'io') {
      faults.set(
        name,
        new PlexusError(kind, { op: 'commit', subject: name, message: `no ${name}` }),
      )
    },
    hold(): () => void {
      let open = (): void => {}
      gate = new Promise((resolve) => {
        open = resolve
      })
      return () => {
        gate = undefined
        open()
      }
    },
  }
}

function baseOf(drives: readonly string[]): Base {
  const id = { line: uuidOf('set'), generation: 1, payloadCrc: 1 }
  const before = drives.length > 0 ? [drives.map(uuidOf)] : []
  return { line: id.line, ancestors: [], before, follows: id, relied: id }
}

const anyVoter = {
  generation: 0,
  device: { path: '/dev/any' },
  payloadRoom: Number.POSITIVE_INFINITY,
  commit: async () => {},
  repeat: async () => {},
}

/** A change that can be seen: the device name of a drive. */
function mark(name: string, device: string) {
  return (model: VinumModel): VinumModel => ({
    ...model,
    drives: model.drives.map((one) => (one.name === name ? { ...one, device } : one)),
  })
}

function deviceOf(model: VinumModel, name: string): string | undefined {
  return model.drives.find((one) => one.name === name)?.device
}

function drop(name: string) {
  return (model: VinumModel): VinumModel => ({
    ...model,
    drives: model.drives.filter((one) => one.name !== name),
  })
}

function add(name: string) {
  return (model: VinumModel): VinumModel => {
    const [first] = model.drives
    const record = { ...first, uuid: uuidOf(name), name } as DriveRecord
    return { ...model, drives: [...model.drives, record] }
  }
}

t.test(
  'changes of one turn share a commit; those that come meanwhile share the next',
  async (t) => {
    const { store, writes, commits, hold } = bench()
    const release = hold()
    const first = [store.commit(mark('d1', 'a')), store.commit(mark('d2', 'b'))]
    await new Promise((resolve) => setImmediate(resolve))
    const later = [store.commit(mark('d1', 'c')), store.commit(mark('d3', 'd'))]
    t.equal(deviceOf(store.model, 'd1'), 'd1', 'nothing counts before it is durable')
    release()
    const [one, two] = await Promise.all(first)
    t.equal(one, two)
    t.strictSame([deviceOf(one as VinumModel, 'd1'), deviceOf(one as VinumModel, 'd2')], ['a', 'b'])
    await Promise.all(later)
    await store.idle()
    t.equal(commits.length, 2)
    t.strictSame(
      writes.map(({ name, generation }) => `${name} ${generation}`),
      ['d1 2', 'd2 2', 'd3 2', 'd1 3', 'd2 3', 'd3 3'],
    )
    t.strictSame([deviceOf(store.model, 'd1'), deviceOf(store.model, 'd3')], ['c', 'd'])
    t.strictSame(store.model.votersBefore, [votersOf(store.model)])
  },
)

t.test('a change that throws takes only itself away', async (t) => {
  const { store, writes } = bench()
  const good = store.commit(mark('d1', 'a'))
  const bad = store.commit(() => {
    throw new PlexusError('invalid', { op: 'plan', subject: 'x', message: 'refused' })
  })
  const next = store.commit(mark('d2', 'b'))
  t.match(await failureOf(bad), { kind: 'invalid', message: 'refused' })
  await Promise.all([good, next])
  t.equal(writes.length, 3)
  t.equal(deviceOf(store.model, 'd2'), 'b')
})

t.test('a change that changes nothing is no commit', async (t) => {
  const { store, writes, commits } = bench()
  t.equal(await store.commit((model) => model), store.model)
  t.strictSame([writes.length, commits.length], [0, 0])
})

t.test('a drive that fails is down in the same commit, under another generation', async (t) => {
  const { store, writes, commits, fail } = bench()
  fail('d2')
  await store.commit(mark('d1', 'a'))
  t.strictSame(commits[0]?.failed, ['d2'])
  t.strictSame(votersOf(store.model), [uuidOf('d1'), uuidOf('d3')])
  t.equal(store.model.generation, 3)
  t.equal(deviceOf(store.model, 'd1'), 'a')
  t.strictSame(
    writes.map(({ name, generation }) => `${name} ${generation}`),
    ['d1 2', 'd3 2', 'd1 3', 'd3 3'],
  )
  t.equal(store.model.votersBefore[0]?.length, 3, 'those that voted before all tries')
  t.equal(store.model.drives[1]?.last?.generation, 1, 'what it had when it went')
})

t.test('a drive that fails the commit of its return is known to have what it had', async (t) => {
  const { store, faults, fail } = bench()
  fail('d2')
  await store.commit(mark('d1', 'a'))
  const { last } = store.model.drives[1] ?? {}
  const back = (model: VinumModel): VinumModel => ({
    ...model,
    drives: model.drives.map((one) => ({ ...one, state: 'up' as const })),
  })
  await store.commit(back)
  t.strictSame(votersOf(store.model), [uuidOf('d1'), uuidOf('d3')])
  t.strictSame(store.model.drives[1]?.last, last)
  faults.clear()
  await store.commit(back)
  t.equal(store.model.drives[1]?.last, undefined, 'one that is up needs none')
})

t.test('half is enough, less is not; a generation is never used again', async (t) => {
  const four = bench(['d1', 'd2', 'd3', 'd4'])
  four.fail('d1')
  four.fail('d2')
  await four.store.commit(mark('d3', 'a'))
  t.strictSame(votersOf(four.store.model), [uuidOf('d3'), uuidOf('d4')])

  const { store, writes, commits, faults, fail } = bench()
  fail('d1')
  fail('d2')
  const error = await failureOf(store.commit(mark('d3', 'a')))
  t.match(error, { kind: 'io', op: 'commit', message: /1 of 3 drives only, less than half/ })
  t.equal(commits.length, 0)
  t.equal(store.model.generation, 1)
  t.equal(deviceOf(store.model, 'd3'), 'd3')
  t.strictSame(
    writes.map(({ generation }) => generation),
    [2],
  )
  faults.clear()
  await store.commit(mark('d3', 'b'))
  t.equal(store.model.generation, 3, 'generation 2 is on a drive')
})

t.test('generations begin above all that was seen', async (t) => {
  const { store } = bench(undefined, { nextGeneration: 70 })
  await store.commit(mark('d1', 'a'))
  t.equal(store.model.generation, 70)
})

t.test('a drive that leaves is written, too, with a model that has it no more', async (t) => {
  const { store, writes, fail } = bench(['d1', 'd2'])
  await store.commit(drop('d1'))
  t.strictSame(writes.map(({ name }) => name).sort(), ['d1', 'd2'])
  t.strictSame(
    writes[0]?.model.drives.map(({ name }) => name),
    ['d2'],
  )
  t.strictSame(store.model.votersBefore, [[uuidOf('d1'), uuidOf('d2')]])

  const away = bench(['d1', 'd2', 'd3'])
  away.fail('d1')
  await away.store.commit(drop('d1'))
  t.strictSame(votersOf(away.store.model), [uuidOf('d2'), uuidOf('d3')], 'it may be gone')
  t.equal(away.commits[0]?.failed.length, 0)
  fail('d2')
})

t.test('drives that join carry the commit that names them', async (t) => {
  const { store, writes, fail } = bench(['d1', 'd2'])
  await store.commit(add('d3'))
  t.strictSame(
    writes.map(({ name }) => name),
    ['d1', 'd2', 'd3'],
  )

  fail('d4')
  await store.commit(add('d4'))
  const d4 = store.model.drives.find(({ name }) => name === 'd4')
  t.equal(d4?.state, 'down', 'one that cannot be written is none')
})

t.test('what cannot count is not written at all', async (t) => {
  const there = new Set(['d3'].map(uuidOf))
  const voter = (uuid: string) => (there.has(uuid) ? anyVoter : undefined)
  const { store, commits } = bench(undefined, { voter })
  t.match(await failureOf(store.commit(mark('d3', 'a'))), { kind: 'io', message: /1 of 3 drives/ })
  t.strictSame([commits.length, anyVoter.generation], [0, 0])
})

t.test('what does not fit on every drive is written on none, and the set lives on', async (t) => {
  const { store, writes, rooms } = bench()
  rooms.set('d2', 100)
  t.match(await failureOf(store.commit(mark('d1', 'a'))), {
    kind: 'no-space',
    message: /^\/dev\/d2: .* does not fit its place of 100 bytes/,
  })
  t.strictSame(writes, [], 'a crash now would find nothing of it')
  t.equal(deviceOf(store.model, 'd1'), 'd1')
  rooms.clear()
  await store.commit(mark('d1', 'b'))
  t.equal(votersOf(store.model).length, 3)
})

t.test('verbs leave room for the changes of state that may follow', async (t) => {
  const { store, rooms } = bench()
  const { model } = store
  for (const name of NAMES)
    rooms.set(name, encodeModel(model).length + VINUM_CODEC.stateRoomOf(model))
  t.match(await failureOf(store.commit(mark('d1', 'a longer name'), { keepsRoom: true })), {
    kind: 'no-space',
  })
  await store.commit(mark('d1', 'a longer name'))
  const two = bench(['d1', 'd2'])
  for (const name of NAMES) two.rooms.set(name, encodeModel(two.store.model).length + 300)
  two.fail('d2')
  await two.store.commit(mark('d1', 'b'))
  t.strictSame(votersOf(two.store.model), [uuidOf('d1')], 'the loss of a drive fits')
})

t.test(
  'until a commit counts, half of all that voted since the last one that did must have it',
  async (t) => {
    const base = (before: readonly (readonly string[])[]) => ({
      base: { ...baseOf([]), before: before.map((names) => names.map(uuidOf)) },
    })
    const refused = bench(
      undefined,
      base([
        ['d4', 'x', 'y'],
        ['d1', 'd2', 'd3'],
      ]),
    )
    t.match(await failureOf(refused.store.commit((one) => ({ ...one }))), { kind: 'io' })
    const { store } = bench(
      undefined,
      base([
        ['d1', 'x'],
        ['d1', 'd2', 'd3'],
      ]),
    )
    const next = await store.commit((one) => ({ ...one }))
    t.equal(next.votersBefore.length, 2, 'and it says so')
    await store.commit((one) => ({ ...one }))
    t.strictSame(store.model.votersBefore, [votersOf(next)], 'this one is relied upon')
  },
)

t.test('a set of an even number of drives has a witness while it can be written', async (t) => {
  const uuid = uuidOf('witness')
  let isGood = true
  let isLost = false
  const witness: Voter = {
    ...anyVoter,
    commit: async () => {
      isLost = !isGood
      if (isLost) throw new PlexusError('io', { op: 'write', subject: 'w', message: 'read-only' })
    },
  }
  const options = {
    witness: () => (isLost ? undefined : uuid),
    voter: (one: string) => (one === uuid ? witness : anyVoter),
  }
  const { store, commits } = bench(['d1', 'd2'], options)
  await store.commit(mark('d1', 'a'))
  t.equal(store.model.witness, uuid)
  await store.commit(add('d3'))
  t.equal(store.model.witness, undefined, 'three drives have a majority among themselves')
  await store.commit(drop('d3'))
  isGood = false
  await store.commit(mark('d1', 'b'))
  t.equal(store.model.witness, undefined, 'it leaves by the same commit')
  t.ok(isLost)
  t.strictSame(commits.at(-1)?.failed, [], 'no drive has failed')
  t.equal(deviceOf(store.model, 'd1'), 'b')
})
