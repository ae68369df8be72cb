/** rename, rm, volume rename, volume destroy. */
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

t.test(
  'vinum.md 8.21: a rename is a change of the configuration, and of nothing else',
  async (t) => {
    const bench = settled()
    const before = bench.volume('m')
    const plan = bench.run('vinum rename', { from: 'm', to: 'n' })
    t.strictSame(stepsOf(plan), ['rename volume m to n'])
    t.strictSame(bench.volume('n'), { ...before, name: 'n' })
    t.ok(bench.plex('m.p0'), 'children keep their names')
    bench.run('vinum rename', { from: 'n', to: 'm' })
    const all = bench.run('vinum rename', { from: 'm', to: 'n', recursive: true })
    t.strictSame(stepsOf(all), [
      'rename volume m to n',
      'rename plex m.p0 to n.p0',
      'rename subdisk m.p0.s0 to n.p0.s0',
      'rename plex m.p1 to n.p1',
      'rename subdisk m.p1.s0 to n.p1.s0',
    ])
    bench.run('volume rename', { name: 'n', to: 'x' })
    t.ok(bench.subdisk('x.p1.s0'))
    bench.run('vinum rename', { from: 'x.p1', to: 'x.p7', recursive: true })
    t.ok(bench.subdisk('x.p7.s0'))
    bench.run('vinum rename', { from: 'd1', to: 'left' })
    t.equal(bench.drive('left').device, 'd1')
    bench.run('vinum rename', { from: 'x.p7.s0', to: 'x.p7.other' })
    t.ok(bench.subdisk('x.p7.other'))
  },
)

t.test('renames that cannot be', async (t) => {
  const bench = settled()
  const refusal = (from: string, to: string) => bench.refusal('vinum rename', { from, to })
  t.match(refusal('nope', 'x'), /^not-found: there is no object "nope"/)
  t.match(refusal('m', 'r'), /^exists: r exists: it is a volume/)
  t.match(refusal('m', 'd3'), /^exists: d3 exists/, 'unique over all types')
  t.match(refusal('m', 'd9'), /^exists: d9 exists: it is the device/)
  t.match(refusal('m.p0', 'plain'), /^invalid: "plain" cannot be the name of a plex/)
  t.match(refusal('m.p0.s0', 'm.one'), /^invalid: "m.one" cannot be the name of a subdisk/)
  t.match(refusal('m', 'a/b'), /^invalid: /)
  t.match(refusal('d1', 'd'.repeat(32)), /^invalid: .*too long/)
  t.strictSame(bench.run('vinum rename', { from: 'm', to: 'm' }).warnings, [
    'm has that name already',
  ])
  bench.open.add(bench.volume('m').uuid)
  t.match(refusal('m', 'n'), /^in-use: volume m is in use under its name/)
  t.match(bench.refusal('volume rename', { name: 'm.p0', to: 'n' }), /^not-found: "m.p0" is a plex/)
})

t.test('rm of volumes', async (t) => {
  const bench = settled()
  const refusal = (parameters: object) =>
    bench.refusal('vinum rm', { objects: ['m'], ...parameters })
  t.match(refusal({}), /^in-use: volume m has 2 plexes; -r removes them/)
  t.match(refusal({ recursive: true }), /^in-use: volume m holds 64 MiB of data .* -f removes it/)
  bench.open.add(bench.volume('m').uuid)
  t.match(refusal({ recursive: true, force: true }), /^in-use: volume m is in use/)
  bench.open.clear()
  const plan = bench.run('vinum rm', { objects: ['m', 'm.p0'], recursive: true, force: true })
  t.strictSame(plan.warnings, ['all data of volume m is lost'])
  t.ok(stepsOf(plan).includes('remove subdisk m.p0.s0: frees 64 MiB on d1'))
  t.notOk(bench.model.volumes.some((one) => one.name === 'm'))
  t.ok(bench.drive('d1'), 'drives stay')
  t.match(bench.refusal('vinum rm', { objects: ['m'] }), /^not-found: /)
  t.match(bench.refusal('vinum rm', { objects: ['r', 'r'] }), /^invalid: .*named twice/)
})

t.test('rm of plexes and subdisks', async (t) => {
  const bench = settled()
  const refusal = (objects: string[], flags: object = {}) =>
    bench.refusal('vinum rm', { objects, ...flags })
  t.match(refusal(['c.p0']), /^in-use: plex c.p0 has 1 subdisk; -r/)
  t.match(
    refusal(['c.p0'], { recursive: true }),
    /^in-use: plex c.p0 is the only copy of volume c; -f/,
  )
  bench.open.add(bench.volume('c').uuid).add(bench.volume('m').uuid)
  t.match(
    refusal(['c.p0'], { recursive: true, force: true }),
    /^in-use: plex c.p0 is the only copy of volume c, which is in use/,
  )
  t.match(
    refusal(['c.p0.s0'], { recursive: true, force: true }),
    /^in-use: .*is attached to plex c.p0/,
  )
  const plan = bench.run('vinum rm', { objects: ['m.p1'], recursive: true })
  t.strictSame(plan.warnings, ['volume m has one copy left'], 'even while it is in use')
  t.match(refusal(['m.p0'], { recursive: true, force: true }), /^in-use: /)
  bench.open.clear()
  bench.run('vinum rm', { objects: ['c.p0'], recursive: true, force: true })
  t.equal(bench.volume('c').sizeBytes, 0)
  t.equal(bench.volume('c').state, 'down')
  bench.run('vinum rm', { objects: ['c'] })
  bench.run('vinum detach', { object: 'r.p0.s0', force: true })
  bench.run('vinum rm', { objects: ['r.p0.s0'] })
  t.equal(bench.plex('r.p0').state, 'degraded')
  bench.run('vinum rm', { objects: ['r'], recursive: true, force: true })
  t.notOk(
    bench.model.drives.some((one) => one.device === ''),
    'the place of r.p0.s0 went, too',
  )
})

t.test('rm of a plex that is not the last, but has the last good content', async (t) => {
  const bench = settled()
  bench.lose('d2')
  t.match(
    bench.refusal('vinum rm', { objects: ['m.p0'], recursive: true }),
    /^in-use: plex m.p0 holds the last good copy of volume m/,
  )
  const plan = bench.run('vinum rm', { objects: ['m.p0'], recursive: true, force: true })
  t.match(plan.warnings, [/that data is lost/])
})

t.test('rm of the only plex, which was preferred', async (t) => {
  const bench = settled()
  bench.run('volume set', { name: 'c', readPolicy: 'prefer', plex: 'c.p0' })
  bench.run('vinum rm', { objects: ['c.p0'], recursive: true, force: true })
  t.match(bench.volume('c'), {
    sizeBytes: 0,
    readPolicy: 'round-robin',
    preferredPlexUuid: undefined,
  })
})

t.test('rm of drives', async (t) => {
  const bench = settled()
  const refusal = (objects: string[], flags: object = {}) =>
    bench.refusal('vinum rm', { objects, ...flags })
  t.match(refusal(['d1']), /^in-use: drive d1 carries m.p0.s0; move them first/)
  t.match(refusal(['d6'], { recursive: true }), /^in-use: volume c holds/)
  bench.run('vinum rm', { objects: ['c'], recursive: true, force: true })
  const free = bench.run('vinum rm', { objects: ['d6'] })
  t.strictSame(stepsOf(free), ['clear label on d6 (device d6)'])
  t.strictSame(
    free.retired.map((one) => one.name),
    ['d6'],
  )
  const dead = bench.run('vinum rm', { objects: ['d4'], force: true })
  t.strictSame(dead.warnings, ['volume r loses redundancy'])
  t.equal(bench.plex('r.p0').state, 'degraded', 'its place is kept')
  t.match(refusal(['d5'], { force: false }), /^in-use/)
  bench.open.add(bench.volume('r').uuid)
  t.match(
    refusal(['d5'], { force: true }),
    /^in-use: drive d5 holds the last good copy of volume r/,
  )
  bench.run('vinum create', { file: 'sd name new drive d7 len 32m detached' })
  bench.run('vinum attach', { object: 'new', parent: 'r.p0' })
  t.ok(bench.jobs().includes('rebuild on r.p0'), 'and filled again')
  const all = bench.run('vinum rm', { objects: ['d1'], recursive: true, force: true })
  t.notOk(bench.model.volumes.some((one) => one.name === 'm'))
  t.strictSame(
    all.retired.map((one) => one.name),
    ['d1'],
  )
  bench.lose('d2')
  const lost = bench.run('vinum rm', { objects: ['d2'] })
  t.strictSame(lost.retired, [])
  t.match(lost.warnings, [/^the label on drive d2 stays/])
})

t.test('destroy', async (t) => {
  const bench = settled()
  bench.open.add(bench.volume('r').uuid)
  t.match(
    bench.refusal('volume destroy', { name: 'r' }),
    /^in-use: volume r is in use. Log the sessions out .* or repeat with --force/,
  )
  const plan = bench.run('volume destroy', { name: 'r', force: true })
  t.match(plan.warnings, [/its initiators lose it at once/, /all data of volume r is lost/])
  t.match(bench.refusal('volume destroy', { name: 'm.p0' }), /^not-found: "m.p0" is a plex/)
  bench.run('volume destroy', { name: 'm' })
  t.strictSame(
    bench.model.volumes.map((one) => one.name),
    ['c'],
  )
  t.strictSame(bench.jobs(), [])
})
