/** `plexus spare`, and what other verbs do with spares: what they plan, and what they refuse. */
import t from 'tap'
import { GIB } from '../../../../src/base/limits.ts'
import type { SpareFacts } from '../../../../src/engine/vinum/model/spares.ts'
import { spareFor, spareOf, withBroken } from '../../../../src/engine/vinum/model/spares.ts'
import { VerbBench } from '../../../support/vinum-verbs.ts'

/** A raid5 volume db on d1 to d3, a pool p with d7 and d8. */
function bench(): VerbBench {
  const bench = new VerbBench('spares')
  bench.run('volume create', { name: 'db', raid5: ['d1', 'd2', 'd3'], size: '8MiB' })
  bench.settle()
  bench.run('spare create', { pool: 'p', devices: ['d7', 'd8'] })
  bench.run('volume set', { name: 'db', sparePool: 'p' })
  return bench
}

function textsOf({ steps }: { readonly steps: readonly { readonly text: string }[] }): string {
  return steps.map(({ text }) => text).join('; ')
}

t.test('create, add, set, replace, delete', async (t) => {
  const one = new VerbBench('pools')
  t.match(one.refusal('spare create', { pool: 'p' }), /invalid: .*needs a drive/)
  const plan = one.run('spare create', { pool: 'p', devices: ['d1'], delay: '2m' })
  t.match(textsOf(plan), /write label on d1/)
  t.match(textsOf(plan), /create pool p: a spare steps in after 2m, copy-back is manual/)
  t.match(one.refusal('spare create', { pool: 'p' }), /exists: p exists: it is a pool/)
  t.match(one.refusal('spare create', { pool: 'all' }), /it stands for every pool/)
  t.match(one.refusal('spare create', { pool: 'none' }), /it stands for no pool/)
  t.match(one.refusal('spare create', { pool: 'q', delay: '9d' }), /at most 7d/)
  one.run('spare create', { pool: 'q', devices: ['d2'], copyBack: 'automatic' })
  t.match(one.refusal('spare add', { pool: 'x', devices: ['d3'] }), /not-found: x is no pool/)
  one.run('spare add', { pool: 'all', devices: ['d3'] })
  t.match(
    one.refusal('spare add', { pool: 'q', devices: ['d3'] }),
    /exists: drive d3 is in pool q already/,
  )
  t.equal(one.model.spares?.length, 3, 'one record for a spare of two pools')
  t.match(one.run('spare set', { pool: 'p', delay: '0s' }), { warnings: [] })
  t.match(one.run('spare set', { pool: 'p', delay: '0s' }).warnings, [/has these settings already/])
  one.run('spare replace', { pool: 'all', oldSpare: 'd3', newDevice: 'd4' })
  const names = (one.model.pools ?? []).map(({ driveUuids }) =>
    driveUuids.map((uuid) => one.model.drives.find((drive) => drive.uuid === uuid)?.name),
  )
  t.strictSame(names, [
    ['d1', 'd4'],
    ['d2', 'd4'],
  ])
  t.strictSame(
    one.lastPlan?.retired.map(({ name }) => name),
    ['d3'],
    'its label is cleared',
  )
  one.run('spare delete', { pool: 'p', drives: ['d4'] })
  t.strictSame(one.lastPlan?.retired, [], 'the other pool has it still')
  t.match(one.refusal('spare delete', { pool: 'p', drives: ['d4'] }), /is not in pool p, but in q/)
  t.match(one.refusal('spare delete', { pool: 'p' }), /in-use: pool p has 1 spares/)
  one.run('spare delete', { pool: 'all', drives: ['d1', 'd2', 'd4'] })
  one.run('spare delete', { pool: 'all' })
  t.match(one.model, { spares: undefined, pools: undefined, drives: [] })
})

t.test('a spare is nobody else’s', async (t) => {
  const one = bench()
  const spare = /in-use: drive d7 is a spare of pool p/
  t.match(one.refusal('volume create', { name: 'x', mirror: ['d7', 'd5'] }), spare)
  t.match(one.refusal('volume grow', { name: 'db', devices: ['d7'] }), spare)
  t.match(one.refusal('volume replace', { name: 'db', oldDrive: 'd1', newDevice: 'd7' }), spare)
  t.match(one.refusal('vinum move', { drive: 'd7', subdisks: ['db.p0.s0'] }), spare)
  t.match(one.refusal('vinum rm', { objects: ['d7'] }), spare)
  t.match(one.refusal('vinum rename', { from: 'd1', to: 'p' }), /exists: p exists: it is a pool/)
  t.match(
    one.refusal('spare add', { pool: 'p', devices: ['d1'] }),
    /in-use: drive d1 carries db.p0.s0, and a spare has nothing on it/,
  )
  t.match(one.refusal('spare enable', { drive: 'd7' }), /invalid: spare d7 is not broken/)
  t.match(one.refusal('spare enable', { drive: 'd1' }), /not-found: d1 is no spare/)
  t.match(one.refusal('spare delete', { pool: 'p' }), /has 2 spares/)
})

t.test('the pool of a volume', async (t) => {
  const one = bench()
  const set = (sparePool: string) => ['volume set', { name: 'db', sparePool }] as const
  t.match(one.refusal(...set('x')), /not-found: x is no pool of spares/)
  t.match(one.run(...set('p')).warnings, [/takes spares from p already/])
  one.run(...set('none'))
  t.equal(one.volume('db').sparePoolUuid, undefined)
  one.run(...set('p'))
  one.run('spare delete', { pool: 'p', drives: ['d7', 'd8'] })
  t.match(one.refusal('spare delete', { pool: 'p' }), /in-use: pool p is that of volume db/)
  one.run('volume create', { name: 'plain', concat: ['d5'] })
  t.match(
    one.refusal('volume set', { name: 'plain', sparePool: 'p' }),
    /invalid: volume plain has one copy and no parity/,
  )
  t.match(one.refusal('volume set', { name: 'db' }), /nothing to set/)
})

t.test('use: a column that failed is rebuilt, a good one is copied', async (t) => {
  const one = bench()
  const use = (drive: string) => ['spare use', { volume: 'db', drive }] as const
  t.match(one.refusal(...use('d5')), /not-found/)
  t.match(textsOf(one.plan(...use('d1'))), /spare d7 steps in for d1; move subdisk db.p0.s0/)
  one.lose('d1')
  t.match(one.refusal(...use('d2')), /in-use: drive d2 is healthy, and d1 is missing/)
  one.run(...use('d1'))
  t.match(textsOf(one.lastPlan ?? { steps: [] }), /start job rebuild on db.p0/)
  t.match(one.subdisk('db.p0.s0'), {
    state: 'reviving',
    driveUuid: one.drive('d7').uuid,
    origin: { driveUuid: one.drive('d1').uuid, copyBack: 'by-pool' },
  })
  t.match(
    one.refusal('volume set', { name: 'db', sparePool: 'none' }),
    /while db.p0.s0 is on the spare d7/,
  )
  t.match(one.refusal('spare delete', { pool: 'p', drives: ['d7'] }), /in-use: spare d7 is in use/)
  t.match(
    one.refusal('spare replace', { pool: 'p', oldSpare: 'd7', newDevice: 'd9' }),
    /in-use: spare d7 is in use: db.p0.s0 is on it/,
  )
  const back = ['spare copy-back', { volume: 'db' }] as const
  t.match(textsOf(one.plan(...back)), /copy subdisk db.p0.s0 back when job rebuild has ended/)
  one.settle()
  t.match(one.refusal('vinum detach', { object: 'db.p0.s0', force: true }), /is on the spare d7/)
  t.match(one.refusal(...back), /gone: drive d1 is down: .*plexus volume replace db d1 NEW-DEVICE/)
  one.away.delete(one.drive('d1').uuid)
  one.run('vinum setstate', { state: 'up', object: 'd1' })
  one.run(...back)
  t.match(one.subdisk('db.p0.s0').move, { driveUuid: one.drive('d1').uuid })
})

t.test('the drive of a column that is on a spare leaves the set', async (t) => {
  const one = bench()
  one.lose('d1')
  one.run('spare use', { volume: 'db', drive: 'd1' })
  one.settle()
  t.match(one.run('vinum rm', { objects: ['d1'] }).warnings, [
    /db.p0.s0 stays on the spare d7/,
    /label/,
  ])
  t.equal(one.subdisk('db.p0.s0').origin, undefined)
  t.match(one.refusal('spare copy-back', { volume: 'db' }), /invalid: .*nothing on a spare/)
  one.run('volume replace', { name: 'db', oldDrive: 'd7', newDevice: 'd9' })
  one.settle()
  t.equal(one.subdisk('db.p0.s0').driveUuid, one.drive('d9').uuid)
  one.run('spare delete', { pool: 'p', drives: ['d7'] })
})

t.test('a volume that was destroyed, and resetconfig', async (t) => {
  const one = bench()
  one.run('vinum resetconfig')
  t.match(one.model, { spares: undefined, pools: undefined, volumes: [], drives: [] })
})

t.test('which spare: kind, then size, then age', async (t) => {
  const one = new VerbBench('fit')
  one.device('small', { sizeBytes: 600 * 2 ** 20 })
  one.device('tiny', { sizeBytes: 100 * 2 ** 20 })
  one.device('large', { sizeBytes: 3 * GIB })
  one.device('turning', { sizeBytes: 2 * GIB })
  one.device('blocks', { sizeBytes: 700 * 2 ** 20, blockBytes: 4096 })
  one.run('volume create', { name: 'db', mirror: ['d1', 'd2'], size: '500MiB' })
  one.settle()
  const spares = ['tiny', 'large', 'd7', 'd8', 'small', 'turning', 'blocks']
  one.run('spare create', { pool: 'p', devices: spares })
  one.run('volume set', { name: 'db', sparePool: 'p' })
  one.turning.add(one.drive('turning').uuid)
  const away = new Set<string>()
  const facts: SpareFacts = {
    isPresent: (uuid) => !away.has(uuid),
    isRotational: (uuid) => (away.has(uuid) ? undefined : one.turning.has(uuid)),
  }
  const choice = (): string => {
    const found = spareFor(one.model, one.subdisk('db.p0.s0'), facts)
    return 'drive' in found ? found.drive.name : found.why
  }
  const breakIt = (name: string): void => {
    one.model = withBroken(one.model, one.drive(name).uuid, 'test')
  }
  t.equal(choice(), 'small', 'the smallest that is large enough, with blocks that suit')
  one.turning.add(one.drive('d1').uuid)
  t.equal(choice(), 'turning', 'of its kind')
  away.add(one.drive('d1').uuid)
  t.equal(choice(), 'small', 'as the drive beside it is, when its own is away')
  breakIt('small')
  t.equal(choice(), 'd7', 'of two alike the one that is in the pool for longer')
  away.add(one.drive('d7').uuid)
  t.equal(choice(), 'd8')
  breakIt('d8')
  t.equal(choice(), 'large')
  breakIt('large')
  t.equal(choice(), 'turning', 'another kind is better than none')
  breakIt('turning')
  t.match(choice(), /no available spare of pool p can take the 500 MiB of db.p0.s0/)
  breakIt('tiny')
  breakIt('blocks')
  t.match(choice(), /pool p has no spare that is available/)
  one.run('spare enable', { drive: 'small' })
  t.equal(spareOf(one.model, one.drive('small').uuid)?.broken, undefined)
  t.equal(choice(), 'small')
})
