/** Which jobs a configuration needs, and what their ends do. docs/vinum.md, 5.3 and 8. */
import t from 'tap'
import { MIB } from '../../../../src/base/limits.ts'
import { endJob, jobsNeeded, newJob } from '../../../../src/engine/vinum/jobs/plans.ts'
import type {
  PlexRecord,
  SubdiskRecord,
  VinumModel,
} from '../../../../src/engine/vinum/model/model.ts'
import { checkModel } from '../../../../src/engine/vinum/model/model-check.ts'
import { derive } from '../../../../src/engine/vinum/model/state-rules.ts'
import {
  buildModel,
  edit,
  find,
  seededRandom,
  stateOf,
  uuidOf,
  withJob,
} from '../../../support/vinum-model.ts'

const drives = ['d1:64MiB', 'd2:64MiB', 'd3:64MiB', 'd4:64MiB', 'd5:64MiB', 'd6:64MiB']
const start = (model: VinumModel, name?: string, tracked: readonly string[] = []) => {
  const frozen = JSON.stringify(model)
  const result = jobsNeeded(model, name === undefined ? undefined : uuidOf(name), {
    random: seededRandom(),
    isTracked: (subdisk: SubdiskRecord) => tracked.includes(subdisk.name),
  })
  t.equal(JSON.stringify(model), frozen, 'the model was not touched')
  checkModel(result.model)
  return result
}
const shown = (model: VinumModel, name?: string, tracked?: readonly string[]) =>
  start(model, name, tracked).jobs.map((job) => {
    const target = [...model.plexes, ...model.subdisks].find((one) => one.uuid === job.targetUuid)
    return `${job.kind} ${target?.name} ${job.scope} ${job.cursorBytes}`
  })
const set = (model: VinumModel, state: SubdiskRecord['state'], ...names: string[]) =>
  derive(names.reduce((next, name) => edit(next, name, { state }), model))

const raid5 = buildModel({ drives, volumes: { v: ['raid5 64KiB d1 d2 d3'] } })
const mirror = buildModel({ drives, volumes: { v: ['concat d1 d2', 'concat d3 d4'] } })
const concat = buildModel({ drives, volumes: { v: ['concat d1 d2'] } })
const striped = buildModel({ drives, volumes: { v: ['striped 64KiB d1 d2 d3'] } })
const growth = (model: VinumModel, columnsBefore: number, cursorBytes = 0) =>
  derive(edit(model, 'v.p0', { growth: { columnsBefore, cursorBytes, backup: undefined } }))
const refusal = (model: VinumModel, name: string, kind: string, message: RegExp) =>
  t.throws(() => start(model, name), { name: 'PlexusError', kind, message })

t.test('5.3 raid5', async (t) => {
  t.strictSame(shown(raid5, 'v.p0'), [], 'up: nothing')
  t.strictSame(shown(derive(edit(raid5, 'v.p0', { parityValidBytes: MIB })), 'v.p0'), [
    `initialise v.p0 all ${MIB}`,
  ])
  const grown = buildModel({ drives, volumes: { v: ['raid5 64KiB d1 d2 d3 d4'] } })
  t.strictSame(shown(growth(grown, 3, 393216), 'v.p0'), ['grow v.p0 all 393216'])
  for (const cursor of [0, 393216]) {
    const less = set(growth(grown, 3, cursor), 'stale', 'v.p0.s0')
    t.strictSame(shown(less, 'v'), ['rebuild v.p0 all 0'], 'degraded: the column comes first')
    t.strictSame(shown(less, 'v', ['v.p0.s0']), ['rebuild v.p0 dirty 0'])
  }
  // Before the first window a new column holds nothing: it has missed nothing, whatever its state.
  const unmoved = set(growth(grown, 3), 'stale', 'v.p0.s3')
  t.equal(stateOf(unmoved, 'v.p0'), 'growable')
  t.strictSame(shown(unmoved, 'v.p0'), ['grow v.p0 all 0'])
  t.equal(stateOf(start(unmoved, 'v.p0').model, 'v.p0.s3'), 'up')
  const awayNew = derive(unmoved, (uuid) => uuid !== uuidOf('d4'))
  t.equal(stateOf(awayNew, 'v.p0'), 'growable')
  refusal(awayNew, 'v.p0', 'invalid', /drive d4 is down/)
  for (const model of [unmoved, awayNew]) {
    const two = set(model, 'stale', 'v.p0.s1')
    t.equal(stateOf(two, 'v.p0'), 'degraded')
    t.strictSame(shown(two, 'v.p0'), ['rebuild v.p0 all 0'])
    t.equal(stateOf(start(two, 'v.p0').model, 'v.p0.s3'), 'stale')
  }
  const moved = set(growth(grown, 3, 393216), 'stale', 'v.p0.s3')
  t.equal(stateOf(moved, 'v.p0'), 'degraded')
  t.strictSame(shown(moved, 'v.p0', ['v.p0.s3']), ['rebuild v.p0 dirty 0'])
  refusal(
    set(moved, 'stale', 'v.p0.s1'),
    'v.p0',
    'invalid',
    /cannot grow on: subdisk v.p0.s1 is stale, subdisk v.p0.s3 is stale/,
  )
  const backup = { offsetBytes: 0, lengthBytes: 196608, driveUuids: [uuidOf('d1')], crc32c: 0 }
  const cut = edit(unmoved, 'v.p0', { growth: { columnsBefore: 3, cursorBytes: 0, backup } })
  t.strictSame(shown(derive(cut), 'v.p0'), ['rebuild v.p0 all 0'], 'the first window is under way')
  refusal(
    set(growth(grown, 3), 'stale', 'v.p0.s0', 'v.p0.s1'),
    'v.p0',
    'invalid',
    /cannot grow on: subdisk v.p0.s0 is stale/,
  )

  const degraded = set(raid5, 'stale', 'v.p0.s1')
  t.strictSame(shown(degraded, 'v.p0'), ['rebuild v.p0 all 0'])
  t.strictSame(shown(degraded, 'v', ['v.p0.s1']), ['rebuild v.p0 dirty 0'])
  const { model } = start(degraded, 'v')
  t.equal(stateOf(model, 'v.p0.s1'), 'reviving')
  t.equal(stateOf(model, 'v.p0'), 'degraded')
  t.strictSame(
    shown(set(raid5, 'reviving', 'v.p0.s1'), 'v.p0'),
    ['rebuild v.p0 all 0'],
    'a copy without its job',
  )
  const away = derive(degraded, (uuid) => uuid !== uuidOf('d2'))
  refusal(
    away,
    'v.p0',
    'invalid',
    /drive d2 is down: connect it, or take it back: .* setstate up d2; or replace it/,
  )
})

t.test('5.3 concat and striped', async (t) => {
  t.strictSame(shown(mirror, 'v'), [])
  const p1 = set(mirror, 'stale', 'v.p1.s0', 'v.p1.s1')
  t.strictSame(shown(p1, 'v.p1'), ['sync v.p1 all 0'])
  t.strictSame(shown(p1, 'v.p1', ['v.p1.s0', 'v.p1.s1']), ['sync v.p1 dirty 0'])
  t.strictSame(shown(p1, 'v.p1', ['v.p1.s0']), ['sync v.p1 all 0'], 'one that was not followed')
  const { model } = start(p1, 'v')
  t.equal(
    `${stateOf(model, 'v.p1.s0')} ${stateOf(model, 'v.p1.s1')} ${stateOf(model, 'v.p1')}`,
    'reviving reviving degraded',
  )
  t.strictSame(shown(striped, 'v'), [])
  t.strictSame(shown(growth(edit(striped, 'v', { sizeBytes: 8 * MIB }), 2), 'v.p0'), [
    'grow v.p0 all 0',
  ])
  refusal(set(growth(striped, 2), 'stale', 'v.p0.s0'), 'v.p0', 'invalid', /cannot grow on/)
  refusal(
    set(concat, 'stale', 'v.p0.s0'),
    'v.p0',
    'invalid',
    /no good copy of it exists; .*--force up v.p0/,
  )
  refusal(set(concat, 'down', 'v.p0.s0'), 'v.p0', 'invalid', /setstate up v.p0 lets it serve/)
})

t.test('5.3 parts of mirrors help each other', async (t) => {
  const crossed = set(mirror, 'stale', 'v.p0.s0', 'v.p1.s1')
  t.strictSame(shown(crossed, 'v'), ['sync v.p0 all 0', 'sync v.p1 all 0'])
  const same = set(mirror, 'stale', 'v.p0.s0', 'v.p1.s0')
  refusal(same, 'v', 'invalid', /v.p0: subdisk v.p0.s0 is stale, and no good copy/)
  const three = set(mirror, 'stale', 'v.p0.s0', 'v.p1.s0', 'v.p1.s1')
  const { model, jobs } = start(three, 'v')
  t.equal(jobs.length, 1)
  t.equal(
    `${stateOf(model, 'v.p1.s0')} ${stateOf(model, 'v.p1.s1')}`,
    'stale reviving',
    'only what has a source',
  )
  const raid10 = buildModel({
    drives,
    volumes: { v: ['striped 64KiB d1 d2', 'striped 64KiB d3 d4'] },
  })
  t.strictSame(shown(set(raid10, 'stale', 'v.p0.s0', 'v.p1.s1'), 'v').length, 2)
  refusal(set(raid10, 'stale', 'v.p0.s0', 'v.p1.s0'), 'v', 'invalid', /no good copy/)
})

t.test('5.3 volumes and other objects', async (t) => {
  const empty = derive({ ...concat, plexes: [], subdisks: [] })
  refusal(empty, 'v', 'invalid', /has no plexes/)
  refusal(mirror, 'd1', 'invalid', /a drive is not started/)
  refusal(mirror, 'v.p0.s0', 'invalid', /a subdisk is not started; .*start v.p0/)
  t.throws(() => start(mirror, 'x'), { name: 'PlexusError', kind: 'not-found' })
  const moving = edit(mirror, 'v.p0.s0', {
    move: { driveUuid: uuidOf('d5'), driveOffsetBytes: 2 * MIB },
  })
  t.strictSame(shown(moving, 'v.p0.s0'), ['move v.p0.s0 all 0'])
  t.strictSame(shown(moving), ['move v.p0.s0 all 0'])
  refusal(set(moving, 'stale', 'v.p0.s0'), 'v.p0.s0', 'invalid', /nothing to move from/)
})

t.test('5.3 what runs already', async (t) => {
  const degraded = set(raid5, 'stale', 'v.p0.s1')
  const running = start(degraded, 'v').model
  refusal(
    running,
    'v.p0',
    'in-use',
    /job j[0-9a-f]{4} \(rebuild\) works on it; wait for it, or cancel it/,
  )
  refusal(running, 'v', 'in-use', /rebuild/)
  t.strictSame(shown(running), [], 'the whole set: passed over')
  refusal(withJob(degraded, 'check', 'v.p0'), 'v.p0', 'in-use', /check/)
  refusal(withJob(set(mirror, 'stale', 'v.p0.s0'), 'resync', 'v'), 'v', 'in-use', /resync/)
  const moving = edit(mirror, 'v.p0.s0', {
    move: { driveUuid: uuidOf('d5'), driveOffsetBytes: 2 * MIB },
  })
  refusal(withJob(moving, 'move', 'v.p0.s0'), 'v.p0.s0', 'in-use', /move/)
})

t.test('everything that can be helped', async (t) => {
  const model = buildModel({
    drives,
    volumes: {
      v: ['raid5 64KiB d1 d2=stale d3'],
      w: ['concat d4', 'concat d5=stale'],
      x: ['concat d6=stale'],
    },
  })
  t.strictSame(shown(model), ['rebuild v.p0 all 0', 'sync w.p1 all 0'])
  const ids = start(model).jobs.map((one) => one.id)
  t.equal(new Set(ids).size, 2, 'ids differ')
})

t.test('an id that is taken is not given again', async (t) => {
  const first = newJob(raid5, { kind: 'check', targetUuid: uuidOf('v.p0') }, seededRandom('a'))
  const model = { ...raid5, jobs: [first] }
  const second = newJob(model, { kind: 'repair', targetUuid: uuidOf('v') }, seededRandom('a'))
  t.not(second.id, first.id)
  t.match(first, { scope: 'all', cursorBytes: 0, paused: false, mismatches: 0 })
})

t.test('the end of a job', async (t) => {
  const end = (model: VinumModel, outcome: 'done' | 'failed' | 'cancelled') =>
    endJob(model, model.jobs[0]?.id ?? '', outcome)
  const rebuilding = start(set(raid5, 'stale', 'v.p0.s1'), 'v').model
  const rebuilt = end(rebuilding, 'done')
  t.equal(
    `${stateOf(rebuilt, 'v.p0.s1')} ${stateOf(rebuilt, 'v.p0')} ${rebuilt.jobs.length}`,
    'up up 0',
  )
  t.equal(endJob(rebuilt, 'x', 'done'), rebuilt)

  t.test('vinum.md 8.8: an aborted rebuild does not come up as good', async (t) => {
    for (const outcome of ['failed', 'cancelled'] as const) {
      const ended = end(rebuilding, outcome)
      t.equal(`${stateOf(ended, 'v.p0.s1')} ${stateOf(ended, 'v.p0')}`, 'stale degraded', outcome)
    }
  })

  t.test('vinum.md 8.8: with two columns out there is no "the" broken one', async (t) => {
    refusal(
      set(raid5, 'stale', 'v.p0.s0', 'v.p0.s2'),
      'v.p0',
      'invalid',
      /v.p0.s0 is stale, subdisk v.p0.s2 is stale/,
    )
    t.pass('refused')
  })

  const synced = end(start(set(mirror, 'stale', 'v.p1.s0'), 'v').model, 'done')
  t.equal(stateOf(synced, 'v.p1'), 'up')
  const initialising = start(derive(edit(raid5, 'v.p0', { parityValidBytes: 0 })), 'v').model
  t.equal(stateOf(end(initialising, 'done'), 'v.p0'), 'up')
  t.equal(find<PlexRecord>(end(initialising, 'done'), 'v.p0').parityValidBytes, 8 * MIB)
  t.equal(stateOf(end(initialising, 'failed'), 'v.p0'), 'initializing')
})

t.test('vinum.md 8.2: a second plex is copied before it is up', async (t) => {
  const fresh = buildModel({ drives, volumes: { v: ['concat d1', 'concat d2=stale'] } })
  t.equal(stateOf(fresh, 'v.p1'), 'down')
  t.strictSame(shown(fresh, 'v'), ['sync v.p1 all 0'])
})

t.test('vinum.md 8.11: start never writes over two columns whose data may be intact', async (t) => {
  for (const state of ['stale', 'down'] as const) {
    const two = set(raid5, state, 'v.p0.s0', 'v.p0.s1')
    refusal(two, 'v.p0', 'invalid', /no good copy/)
    refusal(two, 'v', 'invalid', /no good copy/)
    t.strictSame(start(two).jobs, [], `${state}: not by itself either`)
  }
  const noParity = set(edit(raid5, 'v.p0', { parityValidBytes: 0 }), 'stale', 'v.p0.s0')
  refusal(noParity, 'v.p0', 'invalid', /no good copy/)
})
