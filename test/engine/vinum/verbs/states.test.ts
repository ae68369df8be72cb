/** setstate, start, checkparity, rebuildparity, scrub, resetconfig, saveconfig, stop. */
import t from 'tap'
import { stepsOf, VerbBench } from '../../../support/vinum-verbs.ts'

/** Volumes whose jobs have ended: mirror m (d1, d2), raid5 r (d3, d4, d5), concat c (d6). */
function settled(): VerbBench {
  const bench = new VerbBench()
  bench.run('volume create', { name: 'm', mirror: ['d1', 'd2'], size: '64MiB' })
  bench.run('volume create', { name: 'r', raid5: ['d3', 'd4', 'd5'], size: '64MiB' })
  bench.run('volume create', { name: 'c', concat: ['d6'], size: '64MiB' })
  bench.settle()
  return bench
}

t.test('setstate: by the rules of the table, with its reasons', async (t) => {
  const bench = settled()
  const refusal = (state: string, object: string) =>
    bench.refusal('vinum setstate', { state, object })
  t.match(refusal('stale', 'm'), /^invalid: volume m: there is no state "stale"/)
  t.match(refusal('up', 'nope'), /^not-found: /)
  t.match(refusal('stale', 'm.p1.s0'), /^(invalid|in-use): subdisk m.p1.s0 stays up/)
  t.strictSame(bench.run('vinum setstate', { state: 'up', object: 'm' }).warnings, [
    'volume m is up already',
  ])
  const plan = bench.run('vinum setstate', { state: 'stale', object: 'm.p1.s0', force: true })
  t.strictSame(stepsOf(plan), ['set subdisk m.p1.s0 from up to stale'])
  t.equal(bench.subdisk('m.p1.s0').state, 'stale')
  t.not(bench.plex('m.p1').state, 'up', 'what is above follows')
  t.match(
    bench.refusal('vinum setstate', { state: 'up', object: 'm.p1.s0', force: true }),
    /^invalid: .*two copies that differ must not both be up/,
    'vinum.md 8.2',
  )
  bench.run('vinum setstate', { state: 'stale', object: 'c.p0.s0', force: true })
  t.equal(bench.volume('c').state, 'down')
  const forced = bench.run('vinum setstate', { state: 'up', object: 'c.p0.s0', force: true })
  t.match(forced.warnings, [/^c.p0.s0 is up by order: what it missed while it was stale stays old/])
  t.equal(bench.volume('c').state, 'up')
})

t.test('start: the jobs that an object needs', async (t) => {
  const bench = settled()
  t.strictSame(bench.run('vinum start', { objects: ['m', 'r.p0'] }).warnings, [
    'volume m is up: nothing to start',
    'plex r.p0 is up: nothing to start',
  ])
  bench.inDoubt.add(bench.volume('m').uuid)
  for (const name of ['m', 'm.p1']) {
    const plan = bench.run('vinum start', { objects: [name] })
    t.strictSame([stepsOf(plan), plan.warnings], [[`resync what is in doubt of ${name}`], []])
  }
  bench.inDoubt.clear()
  bench.run('vinum setstate', { state: 'stale', object: 'm.p1.s0', force: true })
  bench.run('vinum setstate', { state: 'stale', object: 'r.p0.s2', force: true })
  const plan = bench.run('vinum start', { objects: ['m', 'r'] })
  t.strictSame(stepsOf(plan), ['start job sync on m.p1', 'start job rebuild on r.p0'])
  t.match(bench.refusal('vinum start', { objects: ['r.p0'] }), /^in-use: .*rebuild/)
  t.match(bench.refusal('vinum start', { objects: ['d1'] }), /^unsupported: d1 is a drive/)
  t.match(bench.refusal('vinum start', { objects: ['m.p0.s0'] }), /^unsupported: .* is a subdisk/)
  t.match(bench.refusal('vinum start', { objects: ['nope'] }), /^not-found: /)
  bench.run('vinum setstate', { state: 'stale', object: 'c.p0.s0', force: true })
  t.match(bench.refusal('vinum start', { objects: ['c'] }), /^invalid: .*no good copy/)
  bench.run('vinum create', { file: 'volume empty' })
  t.match(bench.refusal('vinum start', { objects: ['empty'] }), /^invalid: .*no plexes/)
})

t.test('checkparity and rebuildparity', async (t) => {
  const bench = settled()
  const refusal = (plex: string, flags: object = {}) =>
    bench.refusal('vinum checkparity', { plexes: [plex], ...flags })
  t.match(refusal('r'), /^not-found: "r" is a volume, not a plex/)
  t.match(refusal('m.p0'), /^unsupported: plex m.p0 is concat, not raid5/)
  t.strictSame(stepsOf(bench.run('vinum checkparity', { plexes: ['r.p0'] })), [
    'start job check on r.p0',
  ])
  t.match(refusal('r.p0'), /^in-use: job .* \(check\) works on r.p0; wait for it/)
  t.match(refusal('r.p0', { force: true }), /^in-use: /, '-f does not stop what runs')
  const [job] = bench.model.jobs
  bench.model = {
    ...bench.model,
    jobs: bench.model.jobs.map((one) => ({ ...one, paused: true, cursorBytes: 262144 })),
  }
  t.match(refusal('r.p0'), /^in-use: job .* \(check, paused\) .* begin again with -f/)
  bench.run('vinum rebuildparity', { plexes: ['r.p0'], force: true })
  t.strictSame(bench.jobs(), ['repair on r.p0'])
  t.equal(bench.model.jobs[0]?.cursorBytes, 0)
  t.not(bench.model.jobs[0]?.id, job?.id)
  bench.settle()
  bench.lose('d3')
  t.match(refusal('r.p0'), /^invalid: plex r.p0 is degraded, not fully up/)
})

t.test('scrub: parity and copies', async (t) => {
  const bench = settled()
  t.strictSame(stepsOf(bench.run('volume scrub', { name: 'r' })), ['start job check on r.p0'])
  t.strictSame(stepsOf(bench.run('volume scrub', { name: 'm', repair: true })), [
    'start job repair on m',
  ])
  t.match(bench.refusal('volume scrub', { name: 'm' }), /^in-use: job .* works on m/)
  t.match(
    bench.refusal('volume scrub', { name: 'c' }),
    /^unsupported: volume c has one copy and no parity/,
  )
  bench.settle()
  bench.run('volume add-mirror', { name: 'c', devices: ['d7'] })
  t.match(bench.refusal('volume scrub', { name: 'c' }), /^invalid: plex c.p1 is /)
  bench.settle()
  bench.run('volume scrub', { name: 'c' })
  t.strictSame(bench.jobs(), ['check on c'])
})

t.test('saveconfig, stop', async (t) => {
  const bench = settled()
  const save = bench.plan('vinum saveconfig')
  t.not(save.model, bench.model, 'another object, so that it is written')
  t.strictSame(save.model, bench.model)
  t.match(stepsOf(save), ['write the configuration to d1, d2, d3, d4, d5, d6'])
  bench.open.add(bench.volume('m').uuid)
  t.match(bench.refusal('vinum stop'), /^in-use: vinum stop: in use: m/)
  bench.open.clear()
  t.equal(bench.plan('vinum stop').model, bench.model)
  for (const words of ['vinum saveconfig', 'vinum stop', 'vinum resetconfig']) {
    t.match(new VerbBench().refusal(words), /^not-found: .*there are no drives/)
  }
})

t.test('resetconfig', async (t) => {
  const bench = settled()
  bench.open.add(bench.volume('m').uuid)
  t.match(
    bench.refusal('vinum resetconfig', { force: true }),
    /^in-use: vinum resetconfig: in use: m/,
  )
  bench.open.clear()
  bench.run('volume scrub', { name: 'r' })
  t.match(
    bench.refusal('vinum resetconfig'),
    /^in-use: .*job .* runs; cancel it, or repeat with -f/,
  )
  bench.lose('d6')
  bench.run('vinum detach', { object: 'm.p1.s0', force: true })
  const plan = bench.run('vinum resetconfig', { force: true })
  t.strictSame(
    plan.retired.map((one) => one.name),
    ['d1', 'd2', 'd3', 'd4', 'd5'],
  )
  t.ok(plan.warnings.includes('all data of volume r is lost'))
  t.ok(plan.warnings.some((one) => one.startsWith('the label on drive d6 stays')))
  const { drives, subdisks, plexes, volumes, jobs } = bench.model
  t.strictSame([drives, subdisks, plexes, volumes, jobs], [[], [], [], [], []])
})
