/** create from a configuration text, and printconfig. */
import t from 'tap'
import { KIB, MIB } from '../../../../src/base/limits.ts'
import type { TextReport } from '../../../../src/control/daemon-reports.ts'
import { checkModel } from '../../../../src/engine/vinum/model/model-check.ts'
import { stepsOf, VerbBench } from '../../../support/vinum-verbs.ts'

const FILE = `
# a mirror of two organisations
drive a device /dev/d1
drive b device d2
drive c device d3
volume db readpol prefer db.p1
  plex org striped 256k
    sd len 32m drive a
    sd len 40m drive b
  plex org concat
    sd len 64m drive c
volume solo
  plex org raid5 128k left-asymmetric
    sd len 16m drive d4
    sd len 16m drive d5
    sd len 16m drive d6
sd name spare.s0 drive d7 len 8m detached
`

t.test('create: drives, volumes, plexes, subdisks, jobs', async (t) => {
  const bench = new VerbBench()
  const plan = bench.run('vinum create', { file: FILE })
  t.strictSame(stepsOf(plan), [
    'write label on a (/dev/d1, 1 GiB, blank)',
    'write label on b (/dev/d2, 1 GiB, blank)',
    'write label on c (/dev/d3, 1 GiB, blank)',
    'write label on d4 (/dev/d4, 1 GiB, blank)',
    'write label on d5 (/dev/d5, 1 GiB, blank)',
    'write label on d6 (/dev/d6, 1 GiB, blank)',
    'write label on d7 (/dev/d7, 1 GiB, blank)',
    'create volume db',
    'create volume solo',
    'create plex db.p0: striped, 2 columns, 256 KiB stripe',
    'create subdisk db.p0.s0 on a: 32 MiB',
    'create subdisk db.p0.s1 on b: 32 MiB',
    'create plex db.p1: concat, 1 subdisk',
    'create subdisk db.p1.s0 on c: 64 MiB',
    'create plex solo.p0: raid5, 3 columns, 128 KiB stripe, left-asymmetric',
    'create subdisk solo.p0.s0 on d4: 16 MiB',
    'create subdisk solo.p0.s1 on d5: 16 MiB',
    'create subdisk solo.p0.s2 on d6: 16 MiB',
    'create subdisk spare.s0 on d7: 8 MiB',
    'start job sync on db.p1',
    'start job initialise on solo.p0',
  ])
  t.strictSame(plan.warnings, ['subdisk db.p0.s1 is trimmed to 32 MiB, as all columns'])
  t.equal(bench.volume('db').sizeBytes, 64 * MIB)
  t.equal(bench.volume('db').preferredPlexUuid, bench.plex('db.p1').uuid)
  t.equal(bench.subdisk('spare.s0').plexUuid, undefined, 'vinum.md 8.10: a detached one is kept')
})

t.test('printconfig prints what create reads', async (t) => {
  const bench = new VerbBench()
  bench.run('vinum create', { file: FILE })
  const { text } = bench.show<TextReport>('vinum printconfig')
  const again = new VerbBench('again')
  again.run('vinum create', { file: text })
  t.equal(again.show<TextReport>('vinum printconfig').text, text)
})

t.test('create into a configuration that exists', async (t) => {
  const bench = new VerbBench()
  bench.run('volume create', { name: 'db', concat: ['d1'], size: '64MiB' })
  const refusal = (file: string, flags: object = {}) =>
    bench.refusal('vinum create', { file, ...flags })
  const file = 'volume db\nplex org concat\nsd len 64m drive d2'
  t.match(refusal(file), /^exists: configuration:1: db exists: it is a volume/)
  const plan = bench.run('vinum create', { file: `${file}\n`, force: true })
  t.match(plan.warnings, ['db exists and is left as it is'])
  t.equal(bench.plex('db.p1').volumeUuid, bench.volume('db').uuid)
  t.strictSame(bench.jobs(), ['sync on db.p1'], 'a plex more is a copy that must be filled')
  t.match(
    refusal('plex name db.p2 org concat vol db\nsd len 1m drive d3'),
    /^invalid: .*as large as its/,
  )
  t.match(
    refusal('sd name x drive d3 plex db.p0 len 1m'),
    /^invalid: .*:1: plex db.p0 exists already/,
  )
  t.match(
    refusal('plex name q org concat vol nope\nsd drive d3'),
    /^not-found: configuration:\d: there is no volume "nope"/,
  )
  t.match(
    refusal('sd name x drive d3 plex nope len 1m'),
    /^not-found: configuration:\d: there is no plex "nope"/,
  )
  t.match(refusal('volume d9'), /^exists: configuration:1: d9 exists: it is the device/)
  t.match(refusal('drive d1 device d3'), /^exists: configuration:1: d1 exists: it is a drive/)
  t.match(refusal('drive x device d1'), /^in-use: .*in use by vinum drive d1/)
})

t.test('a raid5 plex is the only plex of its volume', async (t) => {
  const bench = new VerbBench()
  const only = /a raid5 plex is the only plex of its volume/
  const raid5 = 'plex org raid5 256k\nsd len 4m drive d1\nsd len 4m drive d2\nsd len 4m drive d3'
  for (const second of ['plex org concat\nsd len 8m drive d4', raid5]) {
    const message = bench.refusal('vinum create', { file: `volume v\n${raid5}\n${second}` })
    t.match(message, /^unsupported: configuration:6: volume v cannot have v\.p0 and a/)
    t.match(message, only)
  }
  bench.run('vinum create', {
    file: `volume v\n${raid5}\nvolume m\nplex org concat\nsd len 8m drive d4`,
  })
  bench.settle()
  t.match(bench.refusal('volume add-mirror', { name: 'v', devices: ['d5'] }), only)
  bench.run('vinum detach', { object: 'v.p0', force: true })
  t.match(bench.refusal('vinum attach', { object: 'v.p0', parent: 'm' }), only)
  bench.run('vinum attach', { object: 'v.p0', parent: 'v' })
  t.strictSame(bench.volume('v').state, 'up')
})

t.test('configurations that cannot be', async (t) => {
  const bench = new VerbBench()
  bench.device('ext', { contents: 'xfs' })
  const refusal = (file: string, flags: object = {}) =>
    bench.refusal('vinum create', { file, ...flags })
  const cases = [
    ['# nothing', /^invalid: .*no objects/],
    ['nonsense', /^invalid: configuration:1:1/],
    [
      'volume v\nplex org striped 256k\nsd drive d1',
      /^invalid: .*:2: plex v.p0 is striped and needs at least 2/,
    ],
    ['volume v\nplex org raid5 256k\nsd drive d1\nsd drive d2', /^invalid: .*needs at least 3/],
    ['volume v\nplex org concat', /^invalid: .*needs at least 1/],
    ['volume v\nplex org striped 1000\nsd drive d1\nsd drive d2', /^invalid: .*stripe/],
    [
      'volume v\nplex org concat\nsd drive nowhere',
      /^not-found: configuration:\d: there is no drive and no device "nowhere"/,
    ],
    ['volume v\nplex org concat\nsd drive ext', /^foreign: /],
    ['volume v\nplex org concat\nsd drive d1 len 2g', /^no-space: /],
    [
      'volume v\nplex org concat\nsd drive d1 len 1k',
      /^no-space: .*:3: no room for subdisk v.p0.s0/,
    ],
    [
      'volume v\nplex org concat\nsd drive d1 len 1m plexoffset 1m',
      /^invalid: .*neither overlap nor leave gaps/,
    ],
    [
      'volume v\nplex org striped 256k\nsd drive d1 len 100k\nsd drive d2 len 1m',
      /^invalid: .*less than one stripe/,
    ],
    ['volume v\nplex org concat\nsd drive d1 len 1m driveoffset 265s', /^(invalid|no-space): /],
    [
      'volume v readpol prefer w.p0\nplex org concat\nsd drive d1',
      /^not-found: configuration:\d: there is no plex "w.p0"/,
    ],
  ] as const
  for (const [file, error] of cases) t.match(refusal(file), error, file)
  t.match(
    refusal('volume v\nplex org concat\nsd drive ext', { wipeSignatures: true }),
    'not refused',
  )
})

t.test('places that the text names, and columns in the order of their offsets', async (t) => {
  const bench = new VerbBench()
  bench.run('vinum create', {
    file: `volume v
plex org striped 64k
sd drive d1 len 1m plexoffset 64k
sd drive d2 len 1m plexoffset 0 driveoffset 16m`,
  })
  t.equal(bench.subdisk('v.p0.s1').plexOffsetBytes, 0)
  t.equal(bench.subdisk('v.p0.s1').driveOffsetBytes, 16 * MIB)
  t.equal(bench.subdisk('v.p0.s0').plexOffsetBytes, 64 * KIB)
  const twice = bench.run('vinum create', {
    file: 'volume w\nplex org striped 64k\nsd drive d1 len 1m\nsd drive d1 len 1m',
  })
  t.strictSame(twice.warnings, ['drive d1 carries two columns of w.p0: its failure costs both'])
})

t.test('files from the wild: odd stripes, size, and words without effect', async (t) => {
  const bench = new VerbBench()
  const plan = bench.run('vinum create', {
    file: `
drive a device /dev/d1 hotspare
drive b device /dev/d2
volume tinyvol setupstate
  plex org striped 279k
    sd size 64m drive a retryerrors
    sd size 64m drive b
`,
  })
  t.strictSame(plan.warnings.slice(0, 3), [
    'configuration:2:24: hotspare has no effect: this is an ordinary drive without subdisks',
    'configuration:4:16: setupstate has no effect: new copies are always synchronised',
    'configuration:6:25: retryerrors has no effect: a failed request goes to the other copy',
  ])
  const column = Math.floor((64 * MIB) / (279 * KIB)) * 279 * KIB
  t.equal(bench.plex('tinyvol.p0').stripeBytes, 279 * KIB)
  t.equal(bench.volume('tinyvol').sizeBytes, 2 * column, 'columns are whole stripes')
  t.equal(column % 512, 0)
})

t.test('an odd stripe needs a drive with blocks that divide it', async (t) => {
  const bench = new VerbBench()
  bench.device('big', { blockBytes: 4096 })
  const file = 'volume v\nplex org striped 279k\nsd len 64m drive d1\nsd len 64m drive big'
  t.match(
    bench.refusal('vinum create', { file }),
    /^invalid: configuration:2: invalid stripe size 279 KiB: it must be a multiple of 4 KiB/,
  )
})

t.test('every refusal of a file names its line', async (t) => {
  const bench = new VerbBench()
  const cases = [
    [
      'volume v\nplex org concat\nsd len 1m drive d1 driveoffset 265s',
      /^invalid: configuration:3: drive d1: offset 135680/,
    ],
    ['volume v\nplex org concat\nsd len 8g drive d1', /^no-space: configuration:3: /],
    ['volume v\nplex org concat\nsd len 8m drive nope', /^not-found: configuration:3: /],
    ['drive d1 device d1\ndrive x device d1', /^\S+: configuration:2: /],
    ['volume v\nplex org raid5 3000000k\nsd drive d1\nsd drive d2\nsd drive d3', /configuration:2/],
  ] as const
  for (const [file, error] of cases) t.match(bench.refusal('vinum create', { file }), error, file)
})

t.test('a file with many volumes is planned in one go', async (t) => {
  const bench = new VerbBench('many', 0)
  for (let n = 0; n < 8; n++) bench.device(`d${n}`, { sizeBytes: 2 ** 46 })
  const volumes = Array.from({ length: 500 }, (_, n) =>
    [
      `volume v${n}`,
      `plex org concat\nsd len 1g drive d${n % 4}`,
      `plex org concat\nsd len 1g drive d${4 + (n % 4)}`,
    ].join('\n'),
  )
  // Without the index of each list this took minutes.
  const plan = bench.plan('vinum create', { file: volumes.join('\n') })
  t.equal(plan.model.volumes.length, 500)
  t.equal(plan.model.jobs.length, 500, 'one sync for each second copy')
  checkModel(plan.model)
  t.ok(plan.model.volumes.every((one) => one.sizeBytes === 1024 * MIB && one.state === 'up'))
})
