/** Verbs that make volumes of devices: concat, stripe, mirror, raid5, volume create. */
import t from 'tap'
import { alignDown } from '../../../../src/base/bytes.ts'
import { GIB, KIB, MIB } from '../../../../src/base/limits.ts'
import { VINUM_VERB_SPECS } from '../../../../src/control/vinum-verbs.ts'
import { VOLUME_VERB_SPECS } from '../../../../src/control/volume-verbs.ts'
import { planAnchor } from '../../../../src/engine/anchor/anchor-layout.ts'
import { VINUM_VERBS } from '../../../../src/engine/vinum/verbs/index.ts'
import { createVinumClass } from '../../../../src/engine/vinum/vinum-class.ts'
import { seededRandom, stepsOf, VerbBench } from '../../../support/vinum-verbs.ts'

/** What a device of the bench has room for, and what of it is whole stripes. */
const { dataStartBytes, dataEndBytes } = planAnchor(1 * GIB, 512)
const ROOM = dataEndBytes - dataStartBytes
const COLUMN = alignDown(ROOM, 256 * KIB)

t.test('every declared verb has its action, and every action its declaration', async (t) => {
  const acted = createVinumClass({
    memory: undefined,
    witness: undefined,
    intentRegionBytes: MIB,
  }).verbs
  for (const spec of [...VINUM_VERB_SPECS, ...VOLUME_VERB_SPECS]) {
    t.equal(acted.filter((one) => one.spec === spec).length, 1, `${spec.noun} ${spec.name}`)
  }
  for (const verb of VINUM_VERBS) {
    const { spec } = verb
    t.equal(spec.readOnly, 'show' in verb, `${spec.noun} ${spec.name}: readOnly when it shows`)
    t.equal(spec.dryRun === true, 'plan' in verb, `${spec.noun} ${spec.name}: dryRun when it plans`)
  }
  const names = [...VINUM_VERB_SPECS, ...VOLUME_VERB_SPECS].flatMap((one) =>
    [one.name, ...(one.aliases ?? [])].map((name) => `${one.noun} ${name}`),
  )
  t.equal(new Set(names).size, names.length, 'names and aliases are unique')
})

t.test('raid5: labels, objects and the initialise job, step by step', async (t) => {
  const bench = new VerbBench()
  bench.device('d7', { path: '/dev/sdg', contents: 'ext4 "home"' })
  const plan = bench.run('volume create', {
    name: 'db',
    raid5: ['d1', 'd2', 'd3', 'd7'],
    wipeSignatures: true,
  })
  t.strictSame(stepsOf(plan), [
    'write label on d1 (/dev/d1, 1 GiB, blank)',
    'write label on d2 (/dev/d2, 1 GiB, blank)',
    'write label on d3 (/dev/d3, 1 GiB, blank)',
    'write label on d7 (/dev/sdg, 1 GiB, overwrites ext4 "home")',
    'create volume db: 2.97 GiB',
    'create plex db.p0: raid5, 4 columns, 256 KiB stripe, left-symmetric',
    'create subdisk db.p0.s0 on d1: 1015 MiB',
    'create subdisk db.p0.s1 on d2: 1015 MiB',
    'create subdisk db.p0.s2 on d3: 1015 MiB',
    'create subdisk db.p0.s3 on d7: 1015 MiB',
    'start job initialise on db.p0',
  ])
  t.match(plan.warnings, ['/dev/sdg: ext4 "home" is overwritten and cannot be brought back'])
  t.equal(plan.newDrives.length, 4)
  t.equal(bench.volume('db').sizeBytes, 3 * COLUMN)
  t.equal(bench.volume('db').state, 'up', 'it serves while it is initialised')
  t.equal(bench.plex('db.p0').parityValidBytes, 0)
  t.match(bench.states(), ['db.p0.s0 up', 'db.p0.s1 up', 'db.p0.s2 up', 'db.p0.s3 up'])
})

t.test('vinum.md 8.2: two copies that may differ are never both up', async (t) => {
  const forms = [
    ['vinum mirror', { devices: ['d1', 'd2'], name: 'm' }],
    ['vinum mirror', { devices: ['d1', 'd2', 'd3', 'd4'], name: 'm', striped: true }],
    ['volume create', { name: 'm', mirror: ['d1', 'd2', 'd3'] }],
  ] as const
  for (const [words, parameters] of forms) {
    const bench = new VerbBench()
    bench.run(words, parameters)
    const [first, ...others] = bench.model.plexes
    t.equal(first?.state, 'up')
    for (const plex of others) {
      t.not(plex.state, 'up', `${plex.name} waits for its content`)
      t.ok(
        bench.states(plex.name).every((one) => one.endsWith('reviving')),
        'and is being filled',
      )
      t.ok(bench.jobs().includes(`sync on ${plex.name}`))
    }
    t.ok(bench.model.jobs.every((one) => one.scope === 'all'))
  }
})

t.test('vinum.md 8.2: new raid5 is not called valid before its parity is', async (t) => {
  const bench = new VerbBench()
  bench.run('vinum raid5', { devices: ['d1', 'd2', 'd3'], stripeSize: '64KiB' })
  t.equal(bench.plex('vinumvolume0.p0').state, 'initializing')
  t.strictSame(bench.jobs(), ['initialise on vinumvolume0.p0'])
  t.equal(bench.plex('vinumvolume0.p0').stripeBytes, 64 * KIB)
})

t.test('sizes, stripes and the dealing of devices', async (t) => {
  const bench = new VerbBench()
  bench.device('big', { sizeBytes: 4 * GIB })
  bench.run('vinum concat', { devices: ['d1', 'd2'] })
  t.equal(bench.volume('vinumvolume0').sizeBytes, 2 * ROOM)
  t.equal(bench.subdisk('vinumvolume0.p0.s1').plexOffsetBytes, ROOM)
  bench.run('vinum stripe', { devices: ['d3', 'big'], name: 's' })
  t.equal(bench.volume('s').sizeBytes, 2 * COLUMN, 'columns are trimmed to the smallest')
  t.equal(bench.subdisk('s.p0.s1').plexOffsetBytes, 256 * KIB)
  bench.run('vinum mirror', { devices: ['d4', 'd5', 'd6', 'd7'], name: 'm' })
  const drivesOf = (plex: string) =>
    bench.model.subdisks
      .filter((one) => one.plexUuid === bench.plex(plex).uuid)
      .map((one) => bench.model.drives.find((two) => two.uuid === one.driveUuid)?.name)
  t.strictSame(drivesOf('m.p0'), ['d4', 'd6'])
  t.strictSame(drivesOf('m.p1'), ['d5', 'd7'])
  t.strictSame(
    bench.model.volumes.map((one) => one.mapSlot),
    [0, 1, 2],
  )

  const sized = new VerbBench()
  sized.run('volume create', {
    name: 'a',
    stripe: ['d1', 'd2'],
    size: '100000kB',
    stripeSize: '1MiB',
  })
  t.equal(sized.volume('a').sizeBytes, 96 * MIB, 'rounded up to whole rows')
  sized.run('volume create', { name: 'b', concat: ['d3', 'd4'], size: '1500MiB' })
  t.equal(sized.subdisk('b.p0.s1').sizeBytes, 1500 * MIB - ROOM)
  t.match(
    sized.refusal('volume create', {
      name: 'd',
      concat: ['d5', 'd6'],
      size: '1GiB',
      parity: 'left-symmetric',
    }),
    /invalid: .*--parity does not go with --concat/,
  )
})

t.test('drives of the set are used by drive name and by device name', async (t) => {
  const bench = new VerbBench()
  bench.run('volume create', { name: 'a', concat: ['d1'], size: '10MiB' })
  bench.run('vinum rename', { from: 'd1', to: 'left' })
  const plan = bench.run('volume create', { name: 'b', mirror: ['left', 'd2'], size: '10MiB' })
  t.strictSame(
    plan.newDrives.map((one) => one.record.name),
    ['d2'],
  )
  t.equal(
    bench.run('volume create', { name: 'c', concat: ['d1'], size: '10MiB' }).newDrives.length,
    0,
  )
  t.match(
    bench.refusal('volume create', { name: 'e', mirror: ['left', 'd1'] }),
    /^invalid: .*drive left is named twice/,
  )
})

t.test('devices that cannot become drives', async (t) => {
  const bench = new VerbBench()
  bench.device('ext', { path: '/dev/sdh', contents: 'ext4 "home"' })
  bench.device('lun', { inUse: 'lun' })
  bench.device('cd', { readOnly: true })
  bench.device('tiny', { sizeBytes: 64 * KIB })
  bench.device('odd name')
  const refusal = (device: string) => bench.refusal('vinum concat', { devices: [device] })
  t.equal(refusal('ext'), 'foreign: /dev/sdh: ext4 "home" found; --wipe-signatures overwrites it')
  t.match(refusal('lun'), /^in-use: \/dev\/lun: in use by lun; free it/)
  t.match(refusal('cd'), /^permission: \/dev\/cd: read-only/)
  t.match(refusal('tiny'), /^no-space: /)
  t.match(refusal('nowhere'), /^not-found: there is no drive and no device "nowhere"/)
  t.match(refusal('odd name'), /^invalid: "odd name" cannot be the name of a drive/)
  bench.run('vinum concat', { devices: ['d1'] })
  t.match(bench.refusal('vinum concat', { devices: ['d1'] }), /^no-space: drive d1 has no room/)
  bench.lose('d1')
  t.match(bench.refusal('vinum concat', { devices: ['d1'] }), /^(gone|in-use): /)
  bench.device('volume/x')
  bench.run('vinum concat', { devices: ['volume/x'] })
  t.equal(bench.drive('x').device, 'volume/x')
})

t.test('numbers of devices, names, sizes that cannot be', async (t) => {
  const bench = new VerbBench()
  const cases = [
    ['vinum concat', { devices: [] }, /^invalid: concat needs at least 1 drive/],
    ['vinum stripe', { devices: ['d1'] }, /^invalid: striped needs at least 2 drives, and 1 was/],
    ['vinum raid5', { devices: ['d1', 'd2'] }, /^invalid: raid5 needs at least 3 drives/],
    ['vinum mirror', { devices: ['d1', 'd2', 'd3'] }, /^invalid: mirror needs an even number/],
    ['vinum mirror', { devices: ['d1', 'd2'], striped: true }, /^invalid: .*at least 4/],
    ['vinum concat', { devices: ['d1', 'd1'] }, /^invalid: .*d1 is named twice/],
    [
      'vinum concat',
      { devices: ['d1'], name: 'd2' },
      /^exists: d2 exists: it is the device \/dev\/d2/,
    ],
    ['vinum concat', { devices: ['d1'], name: 'a b' }, /^invalid: "a b" cannot be the name/],
    ['vinum concat', { devices: ['d1'], name: 'v'.repeat(64) }, /^invalid: .*too long/],
    [
      'vinum stripe',
      { devices: ['d1', 'd2'], stripeSize: '1000' },
      /^invalid: invalid stripe size 1000 B/,
    ],
    [
      'vinum raid5',
      { devices: ['d1', 'd2', 'd3'], stripeSize: '8MiB' },
      /^invalid: invalid stripe size 8 MiB/,
    ],
    [
      'vinum raid5',
      { devices: ['d1', 'd2', 'd3'], stripeSize: 'x' },
      /^invalid: "x" is not a size/,
    ],
    ['vinum raid5', { devices: ['d1', 'd2', 'd3'], stripeSize: '0' }, /^invalid: .*more than 0/],
    ['volume create', { name: 'a' }, /^invalid: .*exactly one of --concat/],
    ['volume create', { name: 'a', concat: ['d1'], stripe: ['d2'] }, /^invalid: .*exactly one/],
    ['volume create', { name: 'a', mirror: ['d1'] }, /^invalid: a mirror needs at least 2/],
    [
      'volume create',
      { name: 'a', concat: ['d1'], size: '2GiB' },
      /^no-space: a: 2 GiB were asked for/,
    ],
    [
      'volume create',
      { name: 'a', concat: ['d1', 'd2'], size: '1MiB' },
      /^invalid: drive d2 would hold/,
    ],
    ['volume create', { concat: ['d1'] }, /^invalid: .*name is missing/],
  ] as const
  for (const [words, parameters, error] of cases) {
    t.match(bench.refusal(words, parameters), error, JSON.stringify(parameters))
  }
  bench.run('vinum concat', { devices: ['d1'], name: 'a' })
  t.match(
    bench.refusal('vinum concat', { devices: ['d2'], name: 'a' }),
    /^exists: a exists: it is a volume/,
  )
  t.match(
    bench.refusal('vinum concat', { devices: ['d2'], name: 'a.p0' }),
    /^exists: .*it is a plex/,
  )
  const kept = bench.run('vinum concat', { devices: ['d2'], name: 'a', force: true })
  t.strictSame([kept.steps, kept.warnings], [[], ['a exists and is left as it is']])
})

t.test('blocks: drives of different blocks go together, up to 4 KiB', async (t) => {
  const bench = new VerbBench()
  bench.device('k4', { blockBytes: 4096 })
  bench.device('k16', { blockBytes: 16384 })
  bench.run('vinum stripe', { devices: ['d1', 'k4'], name: 'mixed' })
  t.equal(bench.drive('k4').blockBytes, 4096)
  t.match(
    bench.refusal('vinum stripe', { devices: ['d2', 'k16'], stripeSize: '8KiB' }),
    /^unsupported: logical blocks of 16384 bytes/,
  )
})

t.test('vinum.md 8.24: a verb that fails has done nothing', async (t) => {
  const bench = new VerbBench()
  bench.device('ext', { contents: 'ext4' })
  // `plan` in the bench asserts that the model it was given is the same afterwards.
  t.match(bench.refusal('vinum raid5', { devices: ['d1', 'd2', 'ext'] }), /^foreign: /)
  t.strictSame(bench.model.drives, [])
})

t.test('vinum.md 8.23: planned again on another model, a verb judges that model', async (t) => {
  const bench = new VerbBench()
  const wish = { name: 'a', concat: ['d1'] }
  const early = bench.plan('volume create', wish)
  t.equal(early.model.volumes.length, 1)
  bench.run('volume create', { name: 'a', concat: ['d2'] })
  t.match(bench.refusal('volume create', wish), /^exists: a exists/)
})

t.test('the same random bytes give the same plan', async (t) => {
  const bench = new VerbBench()
  const wish = { name: 'a', raid5: ['d1', 'd2', 'd3'] }
  const plans = [1, 2].map(() => bench.plan('volume create', wish, seededRandom('same')))
  t.strictSame(plans[0], plans[1])
})

t.test('a small drive has room for the maps of few volumes', async (t) => {
  const bench = new VerbBench()
  bench.device('small', { sizeBytes: 32 * MIB })
  for (let number = 0; number < 16; number++) {
    bench.run('volume create', { name: `v${number}`, concat: ['small'], size: '64KiB' })
  }
  t.match(
    bench.refusal('volume create', { name: 'v16', concat: ['small'], size: '64KiB' }),
    /^exhausted: drive small has room for the maps of 16 volumes only/,
  )
})
