/** move, volume replace, add-mirror, remove-mirror, set: changes of volumes in use. */
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

t.test('vinum.md 8.9: a move copies, also where nothing else holds the data', async (t) => {
  const bench = settled()
  bench.open.add(bench.volume('c').uuid)
  const plan = bench.run('vinum move', { drive: 'd7', subdisks: ['c.p0.s0', 'm.p0.s0'] })
  t.strictSame(stepsOf(plan), [
    'write label on d7 (/dev/d7, 1 GiB, blank)',
    'move subdisk c.p0.s0 from d6 to d7: 64 MiB, copied while in use',
    'start job move on c.p0.s0',
    'move subdisk m.p0.s0 from d1 to d7: 64 MiB, copied while in use',
    'start job move on m.p0.s0',
  ])
  const [c, m] = ['c.p0.s0', 'm.p0.s0'].map((name) => bench.subdisk(name))
  t.equal(c?.state, 'up', 'the old place serves until the copy is whole')
  t.equal(c?.driveUuid, bench.drive('d6').uuid)
  t.equal(c?.move?.driveUuid, bench.drive('d7').uuid)
  t.not(c?.move?.driveOffsetBytes, m?.move?.driveOffsetBytes, 'two places')
  t.match(bench.refusal('vinum move', { drive: 'd8', subdisks: ['c.p0.s0'] }), /^in-use: .*already/)
  t.match(bench.refusal('vinum rm', { objects: ['d7'] }), /^in-use: .*being moved/)
  bench.settle()
  t.equal(bench.subdisk('c.p0.s0').driveUuid, bench.drive('d7').uuid)
})

t.test('moves that cannot be', async (t) => {
  const bench = settled()
  bench.device('small', { sizeBytes: 32 * 1024 * 1024 })
  bench.device('k4', { blockBytes: 4096 })
  const refusal = (drive: string, ...subdisks: string[]) =>
    bench.refusal('vinum move', { drive, subdisks })
  t.match(refusal('m', 'c.p0.s0'), /^invalid: m is a volume, not a drive/)
  t.match(refusal('d7', 'm.p0'), /^not-found: "m.p0" is a plex, not a subdisk/)
  t.match(refusal('d7', 'nope'), /^not-found: there is no subdisk "nope"/)
  t.match(refusal('d7', 'm.p0.s0', 'm.p0.s0'), /^invalid: .*named twice/)
  t.match(refusal('d1', 'm.p0.s0'), /^invalid: subdisk m.p0.s0 is on drive d1 already/)
  t.match(refusal('small', 'm.p0.s0'), /^no-space: /)
  t.match(refusal('k4', 'm.p0.s0'), /^invalid: drive k4 has blocks of 4096/)
  bench.run('vinum detach', { object: 'm.p1.s0', force: true })
  t.match(refusal('d7', 'm.p1.s0'), /^invalid: subdisk m.p1.s0 is detached/)
  bench.lose('d3')
  t.match(refusal('d7', 'r.p0.s0'), /^invalid: subdisk r.p0.s0 is stale, .* -f rebuilds it on d7/)
})

t.test('no move lets one failure take two parts of a volume', async (t) => {
  const both = settled()
  const refusal = (drive: string, subdisk: string) =>
    both.refusal('vinum move', { drive, subdisks: [subdisk] })
  t.match(refusal('d2', 'm.p0.s0'), /^invalid: drive d2 carries m.p1.s0 of m already/, 'two copies')
  t.match(
    refusal('d4', 'r.p0.s0'),
    /^invalid: drive d4 carries r.p0.s1 of r already/,
    'two columns',
  )
  both.run('vinum move', { drive: 'd7', subdisks: ['r.p0.s0'] })
  t.match(refusal('d7', 'r.p0.s1'), /^invalid: drive d7 carries r.p0.s0 of r already/, 'on its way')
  const free = settled()
  free.device('big', { sizeBytes: 2 * 1024 * 1024 * 1024 })
  free.run('volume create', { name: 'e', concat: ['d7', 'big'], size: '1200MiB' })
  const plan = free.run('vinum move', { drive: 'big', subdisks: ['e.p0.s0'] })
  t.same(plan.warnings, [], 'a concat plex fails as a whole, on however many drives it is')
})

t.test('move -f: what a failing drive held is rebuilt from the others', async (t) => {
  const bench = settled()
  t.match(
    bench.refusal('vinum move', { drive: 'd7', subdisks: ['c.p0.s0'], force: true }),
    /^in-use: subdisk c.p0.s0 holds the last good copy/,
    'never where nothing else holds it',
  )
  const plan = bench.run('vinum move', { drive: 'd7', subdisks: ['r.p0.s1'], force: true })
  t.strictSame(stepsOf(plan).slice(1), [
    'create subdisk r.p0.s1 on d7: 32 MiB',
    'start job rebuild on r.p0',
  ])
  t.strictSame(bench.states('r.p0').toSorted(), ['r.p0.s0 up', 'r.p0.s1 reviving', 'r.p0.s2 up'])
  t.equal(bench.model.jobs[0]?.scope, 'all')
  t.match(
    bench.refusal('vinum move', { drive: 'd8', subdisks: ['r.p0.s2'], force: true }),
    /^in-use: .*rebuild/,
  )
})

t.test('replace: a good drive is copied, a missing one is rebuilt', async (t) => {
  const bench = settled()
  const good = bench.plan('volume replace', { name: 'r', oldDrive: 'd4', newDevice: 'd7' })
  t.ok(stepsOf(good).includes('start job move on r.p0.s1'))
  t.match(good.warnings, [/^drive d4 stays until the move has ended/])

  const old = bench.drive('d4').uuid
  bench.lose('d4')
  t.equal(bench.plex('r.p0').state, 'degraded')
  const plan = bench.run('volume replace', { name: 'r', oldDrive: 'd4', newDevice: 'd7' })
  t.strictSame(stepsOf(plan), [
    'write label on d7 (/dev/d7, 1 GiB, blank)',
    'create subdisk r.p0.s1 on d7: 32 MiB',
    'start job rebuild on r.p0',
    'forget drive d4, which is not here',
  ])
  t.notOk(bench.model.drives.some((one) => one.uuid === old))
  t.strictSame(plan.retired, [], 'its label cannot be cleared now')
  t.strictSame(bench.states('r.p0').toSorted(), ['r.p0.s0 up', 'r.p0.s1 reviving', 'r.p0.s2 up'])

  bench.lose('d2')
  bench.run('volume replace', { name: 'm', oldDrive: 'd2', newDevice: 'd8' })
  t.ok(bench.jobs().includes('sync on m.p1'))
  bench.lose('d6')
  t.match(
    bench.refusal('volume replace', { name: 'c', oldDrive: 'd6', newDevice: 'd9' }),
    /^invalid: .*no good copy/,
    'a new drive for lost data would only hide the loss',
  )
})

t.test('a healthy drive is not replaced while another one of the volume is missing', async (t) => {
  const bench = settled()
  const healthy = { name: 'r', oldDrive: 'd4', newDevice: 'd7' }
  bench.lose('d3')
  t.match(
    bench.refusal('volume replace', healthy),
    /^in-use: drive d4 is healthy, and d3 is missing: .*volume replace r d3 NEW-DEVICE.*--force/,
  )
  const plan = bench.plan('volume replace', { ...healthy, force: true })
  t.ok(stepsOf(plan).includes('start job move on r.p0.s1'))
  bench.run('volume replace', { name: 'r', oldDrive: 'd3', newDevice: 'd7' })
  t.ok(bench.jobs().includes('rebuild on r.p0'))
})

t.test('replacements that cannot be', async (t) => {
  const bench = settled()
  const refusal = (name: string, oldDrive: string, newDevice: string) =>
    bench.refusal('volume replace', { name, oldDrive, newDevice })
  t.match(refusal('r', 'd1', 'd7'), /^not-found: drive d1 carries nothing of volume r/)
  t.match(refusal('r', 'nope', 'd7'), /^not-found: there is no drive "nope"/)
  t.match(refusal('nope', 'd3', 'd7'), /^not-found: there is no volume "nope"/)
  t.match(refusal('r', 'd3', 'd3'), /^invalid: drive d3 cannot take its own place/)
  t.match(refusal('r', 'd3', 'd4'), /^invalid: drive d4 carries r.p0.s1 of r already/)
  t.match(refusal('r', 'd3', 'm'), /^invalid: m is a volume/)
})

t.test('add-mirror and remove-mirror', async (t) => {
  const bench = settled()
  bench.open.add(bench.volume('c').uuid)
  const plan = bench.run('volume add-mirror', { name: 'c', devices: ['d7'] })
  t.strictSame(stepsOf(plan).slice(1), [
    'create plex c.p1: concat, 1 subdisk',
    'create subdisk c.p1.s0 on d7: 64 MiB',
    'start job sync on c.p1',
  ])
  t.match(
    bench.refusal('volume remove-mirror', { name: 'c', plex: 'c.p0' }),
    /^in-use: plex c.p0 holds the last good copy of volume c/,
    'the new one is not whole yet',
  )
  t.match(
    bench.refusal('volume add-mirror', { name: 'c', devices: ['d6'] }),
    /^invalid: drive d6 carries/,
  )
  bench.settle()
  const away = bench.run('volume remove-mirror', { name: 'c', plex: 'c.p0' })
  t.strictSame(away.warnings, ['volume c has one copy left'])
  t.match(
    bench.refusal('volume remove-mirror', { name: 'c', plex: 'c.p1' }),
    /^in-use: .*only copy/,
  )
  t.match(
    bench.refusal('volume remove-mirror', { name: 'c', plex: 'm.p1' }),
    /^not-found: .*which has c.p1/,
  )

  bench.run('volume create', { name: 's', stripe: ['d1', 'd2'], size: '16MiB' })
  bench.run('volume add-mirror', { name: 's', devices: ['d3', 'd4'] })
  t.equal(bench.plex('s.p1').organization, 'striped')
  bench.device('k4', { blockBytes: 4096 })
  t.match(
    bench.refusal('volume add-mirror', { name: 's', devices: ['k4'] }),
    /^invalid: .*blocks of 4096/,
  )
})

t.test('set: how a volume is read', async (t) => {
  const bench = settled()
  const refusal = (parameters: object) => bench.refusal('volume set', { name: 'm', ...parameters })
  t.match(refusal({}), /^invalid: .*nothing to set/)
  t.match(refusal({ readPolicy: 'prefer' }), /^invalid: .*prefer needs --plex/)
  t.match(refusal({ readPolicy: 'round-robin', plex: 'm.p0' }), /^invalid: .*goes with prefer/)
  t.match(
    refusal({ readPolicy: 'prefer', plex: 'r.p0' }),
    /^not-found: .*does not belong to volume m/,
  )
  bench.run('volume set', { name: 'm', readPolicy: 'prefer', plex: 'm.p1' })
  t.equal(bench.volume('m').preferredPlexUuid, bench.plex('m.p1').uuid)
  t.strictSame(bench.run('volume set', { name: 'm', readPolicy: 'prefer', plex: 'm.p1' }).steps, [])
  bench.run('volume remove-mirror', { name: 'm', plex: 'm.p1' })
  t.equal(bench.volume('m').readPolicy, 'round-robin', 'the preferred copy is gone')
  bench.run('volume set', { name: 'm', readPolicy: 'least-queue' })
  t.equal(bench.volume('m').readPolicy, 'least-queue')
})
