/** attach, detach and what grows: vinum grow, volume grow. */
import t from 'tap'
import { alignDown } from '../../../../src/base/bytes.ts'
import { GIB, KIB, MIB } from '../../../../src/base/limits.ts'
import { planAnchor } from '../../../../src/engine/anchor/anchor-layout.ts'
import { sizeOfPlex, subdisksOf } from '../../../../src/engine/vinum/model/model.ts'
import { stepsOf, VerbBench } from '../../../support/vinum-verbs.ts'

const { dataStartBytes, dataEndBytes } = planAnchor(1 * GIB, 512)
const ROOM = dataEndBytes - dataStartBytes
const COLUMN = alignDown(ROOM, 256 * KIB)

/** Volumes whose jobs have ended: mirror m (d1, d2), raid5 r (d3, d4, d5). */
function settled(): VerbBench {
  const bench = new VerbBench()
  bench.run('volume create', { name: 'm', mirror: ['d1', 'd2'] })
  bench.run('volume create', { name: 'r', raid5: ['d3', 'd4', 'd5'] })
  bench.settle()
  return bench
}

t.test('detach: a plex stays known, and attach brings it back by a sync', async (t) => {
  const bench = settled()
  t.match(
    bench.refusal('vinum detach', { object: 'm.p1' }),
    /^in-use: plex m.p1 is up and serves m/,
  )
  bench.open.add(bench.volume('m').uuid)
  t.match(bench.refusal('vinum detach', { object: 'm.p1' }), /^in-use: volume m is in use; -f/)
  const plan = bench.run('vinum detach', { object: 'm.p1', force: true })
  t.strictSame(stepsOf(plan), ['detach plex m.p1 from volume m'])
  t.strictSame(plan.warnings, ['volume m has one copy left'])
  t.equal(bench.plex('m.p1').volumeUuid, undefined, 'vinum.md 8.10: it survives')
  t.equal(bench.volume('m').state, 'up')
  t.match(
    bench.refusal('vinum detach', { object: 'm.p0', force: true }),
    /^in-use: plex m.p0 holds the last good copy of volume m, .*which is in use; take/,
  )
  t.strictSame(bench.run('vinum detach', { object: 'm.p1' }).warnings, [
    'plex m.p1 is detached already',
  ])

  const back = bench.run('vinum attach', { object: 'm.p1', parent: 'm' })
  t.strictSame(stepsOf(back), ['attach plex m.p1 to volume m', 'start job sync on m.p1'])
  t.strictSame(bench.states('m.p1'), ['m.p1.s0 reviving'], 'what it missed is not read')
  t.strictSame(bench.jobs(), ['sync on m.p1'])
  t.match(
    bench.refusal('vinum attach', { object: 'm.p1', parent: 'm' }),
    /^in-use: .*is attached to m/,
  )
  t.match(
    bench.refusal('vinum detach', { object: 'm.p1', force: true }),
    /^in-use: .*job .* works on/,
  )
})

t.test('detach of the last copy, by force and not in use; attach keeps its content', async (t) => {
  const bench = new VerbBench()
  bench.run('volume create', { name: 'c', concat: ['d1'] })
  t.match(bench.refusal('vinum detach', { object: 'c.p0' }), /^in-use/)
  bench.run('vinum detach', { object: 'c.p0', force: true })
  t.equal(bench.volume('c').state, 'down')
  t.equal(bench.volume('c').sizeBytes, 0)
  bench.run('vinum attach', { object: 'c.p0', parent: 'c' })
  t.strictSame(bench.states(), ['c.p0.s0 up'], 'there is no other copy that could be newer')
  t.equal(bench.volume('c').sizeBytes, ROOM)
  t.equal(bench.volume('c').state, 'up')
})

t.test('vinum.md 8.20: attach checks all before anything is stale', async (t) => {
  const bench = settled()
  bench.run('volume create', { name: 'small', concat: ['d6'], size: '16MiB' })
  bench.run('vinum detach', { object: 'small.p0', force: true })
  t.match(
    bench.refusal('vinum attach', { object: 'small.p0', parent: 'm' }),
    /^invalid: plex small.p0 has 16 MiB, and volume m/,
  )
  t.strictSame(bench.states('small.p0'), ['small.p0.s0 up'])
  t.match(bench.refusal('vinum attach', { object: 'd1', parent: 'm' }), /^invalid: d1 is a drive/)
  t.match(
    bench.refusal('vinum attach', { object: 'm.p0', parent: 'nope' }),
    /^not-found: there is no volume/,
  )
  t.match(
    bench.refusal('vinum attach', { object: 'small.p0', parent: 'r.p0' }),
    /^not-found: "r.p0" is a plex/,
  )
  t.match(
    bench.refusal('vinum attach', { object: 'small.p0', parent: 'small', details: ['1MiB'] }),
    /^invalid: attach: an offset is for subdisks/,
  )
  t.match(
    bench.refusal('vinum attach', { object: 'small.p0', parent: 'small', details: ['1', '2'] }),
    /^invalid: attach: "2" is too much/,
  )
})

t.test('attach with rename', async (t) => {
  const bench = settled()
  bench.run('volume create', { name: 'x', concat: ['d6'] })
  bench.run('vinum detach', { object: 'x.p0', force: true })
  const plan = bench.run('vinum attach', { object: 'x.p0', parent: 'm', details: ['rename'] })
  t.strictSame(stepsOf(plan), [
    'attach plex x.p0 to volume m as m.p2',
    'rename subdisk x.p0.s0 to m.p2.s0',
    'start job sync on m.p2',
  ])
  t.equal(bench.model.plexes.at(-1)?.name, 'm.p2')
})

t.test('a column leaves a raid5 plex, its place stays, and another one takes it', async (t) => {
  const bench = settled()
  t.match(
    bench.refusal('vinum detach', { object: 'r.p0.s1' }),
    /^in-use: subdisk r.p0.s1 serves plex r.p0/,
  )
  bench.run('vinum detach', { object: 'r.p0.s1', force: true })
  t.equal(bench.subdisk('r.p0.s1').plexUuid, undefined)
  t.equal(bench.plex('r.p0').state, 'degraded')
  t.equal(bench.volume('r').sizeBytes, 2 * COLUMN, 'the size is kept')
  t.equal(bench.volume('r').state, 'up')
  t.strictSame(
    bench.states('r.p0').filter((one) => one.endsWith('up')),
    ['r.p0.s0 up', 'r.p0.s2 up'],
  )
  t.match(
    bench.refusal('vinum detach', { object: 'r.p0.s2', force: false }),
    /^in-use: /,
    'and never two',
  )
  const [gap] = bench.model.drives.filter((one) => one.device === '')
  t.match(
    bench.refusal('vinum rm', { objects: [gap?.name ?? ''] }),
    /^invalid: .*only keeps the place/,
  )
  t.match(
    bench.refusal('vinum detach', { object: `${gap?.name}.s0` }),
    /^invalid: .*only keeps a place/,
  )

  const plan = bench.run('vinum attach', { object: 'r.p0.s1', parent: 'r.p0' })
  t.match(stepsOf(plan), [
    /^attach subdisk r.p0.s1 to plex r.p0 at 256 KiB/,
    'start job rebuild on r.p0',
  ])
  t.strictSame(bench.states('r.p0').toSorted(), ['r.p0.s0 up', 'r.p0.s1 reviving', 'r.p0.s2 up'])
  t.equal(bench.model.drives.filter((one) => one.device === '').length, 0, 'the gap is gone')
  t.match(
    bench.refusal('vinum attach', { object: 'r.p0.s1', parent: 'r.p0' }),
    /^in-use: .*is attached/,
  )
})

t.test('attach of subdisks: sizes and offsets', async (t) => {
  const bench = settled()
  bench.run('vinum create', {
    file: [
      'sd name small drive d6 len 1m detached',
      'sd name big drive d7 detached',
      'plex name pc org concat detached',
      'plex name ps org striped 256k detached',
    ].join('\n'),
  })
  const refusal = (object: string, parent: string, ...details: string[]) =>
    bench.refusal('vinum attach', { object, parent, details })
  t.match(refusal('small', 'r.p0'), /^invalid: subdisk small has 1 MiB, and .* needed/)
  t.match(refusal('big', 'r.p0', '100k'), /^invalid: .*not a multiple of the stripe, 262144/)
  t.match(refusal('big', 'r.p0', '256KiB'), /^invalid: .*column 1 is taken/)
  t.match(refusal('big', 'pc', '1MiB'), /^invalid: offset 1048576 of pc is behind a gap/)
  t.match(refusal('big', 'm'), /^not-found: "m" is a volume, not a plex/)
  bench.run('vinum attach', { object: 'small', parent: 'pc', details: ['rename'] })
  t.equal(bench.subdisk('pc.s0').state, 'up')
  t.match(
    refusal('big', 'pc', '0'),
    /^invalid: offset 0 of pc is taken; the next free one is 1048576/,
  )
  bench.run('vinum attach', { object: 'big', parent: 'ps' })
  t.equal(bench.subdisk('big').sizeBytes % (256 * KIB), 0, 'trimmed to whole stripes')
})

t.test('attach of one more column restripes the plex', async (t) => {
  const bench = settled()
  bench.run('vinum create', { file: 'sd name extra drive d6 detached' })
  const plan = bench.run('vinum attach', { object: 'extra', parent: 'r.p0' })
  t.match(stepsOf(plan).slice(1), [
    /^restripe plex r.p0 from 3 to 4 columns/,
    'start job grow on r.p0',
  ])
  t.equal(bench.plex('r.p0').growth?.columnsBefore, 3)
  t.equal(bench.volume('r').sizeBytes, 2 * COLUMN, 'until the job has ended')
})

t.test('grow of a concat plex: at once', async (t) => {
  const bench = new VerbBench()
  bench.run('volume create', { name: 'c', concat: ['d1'] })
  const plan = bench.run('vinum grow', { plex: 'c.p0', devices: ['d2', 'd3'] })
  t.equal(bench.volume('c').sizeBytes, 3 * ROOM)
  t.ok(stepsOf(plan).some((one) => one.startsWith('grow volume c: ')))
  t.strictSame(bench.states(), ['c.p0.s0 up', 'c.p0.s1 up', 'c.p0.s2 up'])
  t.strictSame(bench.jobs(), [])
})

t.test('grow of a mirror: each copy gets a part, and the new parts are synchronised', async (t) => {
  const bench = settled()
  t.match(
    bench.refusal('volume grow', { name: 'm', devices: ['d6'] }),
    /^invalid: volume m has 2 copies, and 1 devices/,
  )
  bench.device('half', { sizeBytes: 512 * MIB })
  bench.run('volume grow', { name: 'm', devices: ['d6', 'half'] })
  t.equal(bench.subdisk('m.p0.s1').sizeBytes, bench.subdisk('m.p1.s1').sizeBytes)
  t.equal(bench.volume('m').sizeBytes, ROOM + bench.subdisk('m.p1.s1').sizeBytes)
  t.strictSame(bench.states('m.p0'), ['m.p0.s0 up', 'm.p0.s1 up'])
  t.strictSame(bench.states('m.p1'), ['m.p1.s0 up', 'm.p1.s1 reviving'])
  t.strictSame(bench.jobs(), ['sync on m.p1'])
})

t.test('vinum.md 8.2: copies grow together, and have nothing beyond their volume', async (t) => {
  const bench = settled()
  t.match(
    bench.refusal('vinum grow', { plex: 'm.p0', devices: ['d6'] }),
    /^unsupported: plex m.p0 is one of 2 copies of m, which grow together/,
  )
  bench.run('volume create', { name: 'x', concat: ['d6', 'd7'] })
  bench.run('vinum detach', { object: 'x.p0', force: true })
  t.match(
    bench.refusal('vinum attach', { object: 'x.p0', parent: 'm' }),
    /^invalid: subdisk x.p0.s1 lies wholly beyond/,
  )
  bench.device('big', { sizeBytes: 4 * GIB })
  bench.run('volume create', { name: 'y', concat: ['big'] })
  bench.run('vinum detach', { object: 'y.p0', force: true })
  bench.run('vinum attach', { object: 'y.p0', parent: 'm' })
  t.equal(bench.subdisk('y.p0.s0').sizeBytes, ROOM, 'trimmed')
  bench.run('vinum create', { file: 'sd name more drive d8 detached' })
  bench.settle()
  t.match(
    bench.refusal('vinum attach', { object: 'more', parent: 'm.p0' }),
    /^unsupported: plex m.p0 is one of 3 copies/,
  )
})

t.test('a subdisk whose drive is down is not attached', async (t) => {
  const bench = settled()
  bench.run('volume create', { name: 'c', concat: ['d7'], size: '16MiB' })
  bench.run('vinum create', { file: 'sd name more drive d6 detached' })
  bench.lose('d6')
  t.match(bench.refusal('vinum attach', { object: 'more', parent: 'c.p0' }), /^gone: drive d6/)
})

t.test('grow of raid5 and stripes: all new columns in one restripe', async (t) => {
  const bench = settled()
  const plan = bench.run('volume grow', { name: 'r', devices: ['d6', 'd7'] })
  t.match(stepsOf(plan).slice(-2), [
    /^restripe plex r.p0 from 3 to 5 columns: 1.98 GiB to 3.96 GiB/,
    'start job grow on r.p0',
  ])
  const plex = bench.plex('r.p0')
  t.strictSame(plex.growth, { columnsBefore: 3, cursorBytes: 0, backup: undefined })
  t.equal(sizeOfPlex(plex, subdisksOf(bench.model, plex.uuid)), 2 * COLUMN)
  t.match(bench.refusal('vinum grow', { plex: 'r.p0', devices: ['d8'] }), /^in-use: .*grow/)
  bench.run('volume create', { name: 's', stripe: ['d8', 'd9'] })
  bench.device('k4', { blockBytes: 4096 })
  bench.device('small', { sizeBytes: 512 * MIB })
  t.match(
    bench.refusal('volume grow', { name: 's', devices: ['k4'] }),
    /^invalid: .*blocks of 4096/,
  )
  t.match(bench.refusal('volume grow', { name: 's', devices: ['small'] }), /^no-space: drive small/)
  t.match(
    bench.refusal('volume grow', { name: 's', devices: ['d8'] }),
    /^invalid: drive d8 carries s.p0.s0/,
  )
  bench.device('d10')
  bench.run('volume grow', { name: 's', devices: ['d10'] })
  t.ok(bench.jobs().includes('grow on s.p0'))
})

t.test('what cannot grow now', async (t) => {
  const bench = new VerbBench()
  bench.run('volume create', { name: 'r', raid5: ['d1', 'd2', 'd3'] })
  t.match(bench.refusal('volume grow', { name: 'r', devices: ['d4'] }), /^in-use: .*initialise/)
  bench.model = { ...bench.model, jobs: [] }
  t.match(
    bench.refusal('volume grow', { name: 'r', devices: ['d4'] }),
    /^invalid: plex r.p0 is initializing/,
  )
  bench.run('vinum mirror', { name: 'ms', devices: ['d4', 'd5', 'd6', 'd7'], striped: true })
  bench.settle()
  t.match(
    bench.refusal('vinum grow', { plex: 'ms.p0', devices: ['d8'] }),
    /^unsupported: ms.p0 is one of 2/,
  )
  t.match(bench.refusal('volume grow', { name: 'ms', devices: ['d8', 'd9'] }), /^unsupported: /)
  t.match(
    bench.refusal('vinum grow', { plex: 'ms', devices: ['d8'] }),
    /^not-found: "ms" is a volume/,
  )
  bench.lose('d1')
  t.match(
    bench.refusal('volume grow', { name: 'r', devices: ['d8'] }),
    /^invalid: plex r.p0 is degraded/,
  )
  bench.run('vinum create', { file: 'volume empty' })
  t.match(
    bench.refusal('volume grow', { name: 'empty', devices: ['d8'] }),
    /^invalid: volume empty has no plex/,
  )
})

t.test('a volume whose plex grows gets no other one', async (t) => {
  const bench = new VerbBench()
  bench.run('volume create', { name: 's', stripe: ['d1', 'd2'] })
  bench.run('volume create', { name: 'c', stripe: ['d5', 'd6', 'd7'] })
  bench.settle()
  bench.run('vinum detach', { object: 'c.p0', force: true })
  bench.run('volume grow', { name: 's', devices: ['d3'] })
  const growing = /^in-use: volume s gets no other plex while its plex s.p0 grows; wait for job j/
  t.match(bench.refusal('vinum attach', { object: 'c.p0', parent: 's' }), growing)
  t.match(bench.refusal('volume add-mirror', { name: 's', devices: ['d8', 'd9', 'd10'] }), growing)
  bench.settle()
})
