/** vinum's own text, read and printed. docs/vinum.md, 2.1. */
import { deepStrictEqual } from 'node:assert'
import fc from 'fast-check'
import t from 'tap'
import { KIB, MIB } from '../../../../src/base/limits.ts'
import type { VinumModel } from '../../../../src/engine/vinum/model/model.ts'
import { type ParseOptions, parseConfigText } from '../../../../src/engine/vinum/text/config.ts'
import { printConfigText } from '../../../../src/engine/vinum/text/print.ts'
import { buildModel, edit, find, modelArbitrary, uuidOf } from '../../../support/vinum-model.ts'

const parse = (text: string, options: Partial<ParseOptions> = {}) =>
  parseConfigText(text, { origin: 'f', ...options })
const disk = { form: 'disk' } as const

t.test('a file of a user', async (t) => {
  const text = `
    # two mirrored volumes
    drive d1 device /dev/da1
    drive name d2 device da2 state up
    volume data readpol prefer data.p1
      plex org concat
        sd length 1g drive d1
        subdisk len 0 drive d2 driveoffset 0
      plex name fast org striped 64k volume data
        sd drive d1 length 2m plexoffset 64k driveoffset 2097152
    volume name other state down readpol least
      plex org raid5 256k left-symmetric state initializing
      plex org raid5 512S
`
  t.strictSame(parse(text), [
    { type: 'drive', line: 3, name: 'd1', device: 'da1', state: undefined },
    { type: 'drive', line: 4, name: 'd2', device: 'da2', state: 'up' },
    {
      type: 'volume',
      line: 5,
      name: 'data',
      state: undefined,
      readPolicy: 'prefer',
      preferredPlex: 'data.p1',
    },
    {
      type: 'plex',
      line: 6,
      name: 'data.p0',
      volume: 'data',
      organization: 'concat',
      stripeBytes: 0,
      parityLayout: undefined,
      state: undefined,
    },
    {
      type: 'subdisk',
      line: 7,
      name: 'data.p0.s0',
      drive: 'd1',
      plex: 'data.p0',
      sizeBytes: 1024 * MIB,
      driveOffsetBytes: undefined,
      plexOffsetBytes: undefined,
      state: undefined,
    },
    {
      type: 'subdisk',
      line: 8,
      name: 'data.p0.s1',
      drive: 'd2',
      plex: 'data.p0',
      sizeBytes: undefined,
      driveOffsetBytes: undefined,
      plexOffsetBytes: undefined,
      state: undefined,
    },
    {
      type: 'plex',
      line: 9,
      name: 'fast',
      volume: 'data',
      organization: 'striped',
      stripeBytes: 64 * KIB,
      parityLayout: undefined,
      state: undefined,
    },
    {
      type: 'subdisk',
      line: 10,
      name: 'fast.s0',
      drive: 'd1',
      plex: 'fast',
      sizeBytes: 2 * MIB,
      driveOffsetBytes: 2 * MIB,
      plexOffsetBytes: 64 * KIB,
      state: undefined,
    },
    {
      type: 'volume',
      line: 11,
      name: 'other',
      state: 'down',
      readPolicy: 'least-queue',
      preferredPlex: undefined,
    },
    {
      type: 'plex',
      line: 12,
      name: 'other.p0',
      volume: 'other',
      organization: 'raid5',
      stripeBytes: 256 * KIB,
      parityLayout: 'left-symmetric',
      state: 'initializing',
    },
    {
      type: 'plex',
      line: 13,
      name: 'other.p1',
      volume: 'other',
      organization: 'raid5',
      stripeBytes: 256 * KIB,
      parityLayout: undefined,
      state: undefined,
    },
  ])
})

t.test('names by default', async (t) => {
  const names = (text: string, options: Partial<ParseOptions> = {}) =>
    parse(text, options).map((one) => one.name)
  t.strictSame(names('sd drive d1\nsd drive d2'), ['gvinumsubdisk.p0.s0', 'gvinumsubdisk.p0.s1'])
  t.strictSame(
    names('volume v\nplex org concat\nplex name v.p0 org concat'),
    ['v', 'v.p1', 'v.p0'],
    'names in the text come first',
  )
  const isTaken = (name: string) => name === 'v.p0'
  t.strictSame(names('plex org concat vol v', { isTaken }), ['v.p1'])
  t.strictSame(
    parse('plex name p org concat').map((one) => one.type === 'plex' && one.volume),
    [undefined],
  )
  const loose = parse('volume v\nplex name x org concat detached\nsd name y drive d detached')
  t.match(loose[1], { name: 'x', volume: undefined })
  t.match(loose[2], { name: 'y', plex: undefined })
})

t.test('quotes, comments and ends of lines', async (t) => {
  t.match(parse(`drive 'd1' device "/dev/disk/by id/a#b"`)[0], {
    name: 'd1',
    device: 'disk/by id/a#b',
  })
  t.match(parse('volume v # no state down')[0], { name: 'v', state: undefined })
  t.match(parse('\tvolume\tv\r\n\r\n')[0], { name: 'v' })
  t.strictSame(parse('# nothing\n\n   \n'), [])
  t.strictSame(parse(''), [])
})

t.test('sizes', async (t) => {
  const size = (text: string) => {
    const [one] = parse(`sd drive d length ${text}`)
    return one?.type === 'subdisk' ? one.sizeBytes : 'no subdisk'
  }
  for (const [text, bytes] of [
    ['512', 512],
    ['3s', 1536],
    ['3S', 1536],
    ['3b', 1536],
    ['2k', 2 * KIB],
    ['2K', 2 * KIB],
    ['2m', 2 * MIB],
    ['2G', 2048 * MIB],
    ['1t', 2 ** 40],
    ['4KiB', 4 * KIB],
    ['4MiB', 4 * MIB],
    ['0', undefined],
    ['-1', undefined],
  ] as const) {
    t.equal(size(text), bytes, text)
  }
})

t.test('errors have a place and say what would be right', async (t) => {
  const rows: [string, string, RegExp][] = [
    ['what', '1:1', /unknown object "what".*drive or volume or plex or sd or subdisk/],
    ['\nvolum v', '2:1', /did you mean "volume"/],
    ['volume', '1:1', /the volume is not complete; write a name/],
    ['volume v state', '1:15', /the line ends after "state"; write down or up/],
    ['volume v state stale', '1:16', /unknown state "stale"/],
    ['volume v w', '1:10', /unknown word of a volume "w"/],
    ['volume v readpol newest', '1:18', /unknown read policy "newest".*round or least or prefer/],
    ['volume v readpol prefer', '1:24', /write a name/],
    ['volume a/b', '1:8', /"a\/b" cannot be a name/],
    ['volume v state up state down', '1:19', /"state" stands twice/],
    ['drive d1', '1:1', /not complete; write device DEVICE/],
    ['drive device d', '1:1', /not complete; write a name/],
    ['drive d1 device /dev/', '1:17', /the device is empty/],
    ['plex name p', '1:1', /org concat, org striped SIZE or org raid5 SIZE/],
    ['plex org concat', '1:1', /not complete; write name NAME/],
    ['plex name p org raid6 64k', '1:17', /unknown organisation "raid6"; did you mean "raid5"/],
    ['plex name p org striped', '1:24', /such as 256k/],
    ['plex name p org striped 0', '1:25', /a stripe of 0 cannot be/],
    ['plex name p org striped 1000', '1:25', /a multiple of 512/],
    ['plex name p org raid5 64k right', '1:27', /unknown word of a plex "right"/],
    ['plex name p org concat left-symmetric', '1:24', /unknown word/],
    ['plex name p org concat vol v detached', '1:30', /contradicts "v"/],
    ['sd name s', '1:1', /drive NAME/],
    ['sd drive d length 5x', '1:19', /"5x" is not a size; write whole bytes/],
    ['sd drive d length x', '1:19', /"x" is not a size/],
    ['sd drive d length 1.5g', '1:19', /"1.5g" is not a size/],
    ['sd drive d length 9999999999t', '1:19', /is not a size/],
    ['sd drive d plexoffset -1', '1:23', /"-1" is not a size/],
    ['sd drive d constructor 1', '1:12', /unknown word/],
    ['constructor', '1:1', /unknown object/],
    ["volume 'v", '1:8', /the quote ' does not end/],
    ["drive d device 'a'b", '1:16', /does not end/],
    ['volume v\nplex name v org concat', '2:11', /the name "v" is that of line 1/],
  ]
  for (const [text, place, message] of rows) {
    t.throws(
      () => parse(text),
      { name: 'PlexusError', kind: 'invalid', subject: `f:${place}`, message },
      text,
    )
  }
})

t.test("a copy on FreeBSD's drive", async (t) => {
  const text = `volume data state up
plex name data.p0 org raid5 512s vol data state up
plex name x org concat state down
sd name data.p0.s0 drive d1 len 2097152s driveoffset 265s plex data.p0 plexoffset 512s state reviving
sd name spare.s0 drive d4 len 4096s driveoffset 265s state stale
volume d1 state up
`
  const objects = parse(`${text}\0\0\0garbage`, disk)
  t.equal(objects.length, 6)
  t.match(objects[1], { stripeBytes: 262144, parityLayout: undefined, state: 'up' })
  t.match(objects[2], { volume: undefined })
  t.match(objects[3], {
    sizeBytes: 1024 * MIB,
    driveOffsetBytes: 135680,
    plexOffsetBytes: 262144,
    state: 'reviving',
  })
  t.match(objects[4], { plex: undefined, state: 'stale' })
  t.equal(parse('volume d\nsd name d drive d len 1s', disk).length, 2, 'types may share names')
  t.throws(() => parse('sd name s drive d len 1s driveoffset 264s', disk), {
    subject: 'f:1:38',
    message: /before the data area/,
  })
  t.equal(parse('sd name s drive d len 1s driveoffset 0', disk).length, 1)
  t.throws(() => parse('sd drive d len 1s', disk), { message: /name NAME/ })
  t.throws(() => parse('plex org concat vol v', disk), { message: /name NAME/ })
  t.throws(() => parse('volume v\nvolume v', disk), { message: /line 1/ })

  t.test('vinum.md 8.18: the last line needs no newline', async (t) => {
    t.strictSame(parse(text.trimEnd(), disk), parse(text, disk))
    t.strictSame(
      parse('volume a\nvolume b', disk).map((one) => one.name),
      ['a', 'b'],
    )
  })
})

/** What a text says of a model, by name. */
function expected(model: VinumModel, states: boolean) {
  const nameOf = (list: readonly { uuid: string; name: string }[], uuid: string | undefined) =>
    list.find((one) => one.uuid === uuid)?.name
  return [
    ...(states
      ? []
      : model.drives.map(({ name, device }) => ({
          type: 'drive',
          name,
          device,
          state: undefined,
        }))),
    ...model.volumes.map((one) => ({
      type: 'volume',
      name: one.name,
      state: states ? one.state : undefined,
      readPolicy: one.readPolicy === 'round-robin' ? undefined : one.readPolicy,
      preferredPlex:
        one.readPolicy === 'prefer' ? nameOf(model.plexes, one.preferredPlexUuid) : undefined,
    })),
    ...model.plexes.map((one) => ({
      type: 'plex',
      name: one.name,
      volume: nameOf(model.volumes, one.volumeUuid),
      organization: one.organization,
      stripeBytes: one.stripeBytes,
      parityLayout: states && one.parityLayout === 'left-asymmetric' ? undefined : one.parityLayout,
      state: states ? one.state : undefined,
    })),
    ...model.subdisks.map((one) => ({
      type: 'subdisk',
      name: one.name,
      drive: nameOf(model.drives, one.driveUuid),
      plex: nameOf(model.plexes, one.plexUuid),
      sizeBytes: one.sizeBytes,
      driveOffsetBytes: one.driveOffsetBytes,
      plexOffsetBytes: one.plexUuid === undefined ? undefined : one.plexOffsetBytes,
      state: states ? one.state : undefined,
    })),
  ]
}

/** As FreeBSD keeps it on its drives: without those, with states. */
function diskText(model: VinumModel): string {
  const records = [...model.volumes, ...model.plexes, ...model.subdisks]
  const lines = printConfigText(model).split('\n').slice(model.drives.length, -1)
  const plain = lines.map((line) => line.replace(/ detached$| left-asymmetric(?= |$)/g, ''))
  return plain.map((line, index) => `${line} state ${records[index]?.state}\n`).join('')
}

t.test('what is printed is read again', async (t) => {
  fc.assert(
    fc.property(modelArbitrary, fc.boolean(), (model, drives) => {
      const first = model.subdisks[0]
      const any = first ? edit(model, first.name, { plexUuid: undefined, move: undefined }) : model
      const options = drives ? {} : ({ form: 'disk' } as const)
      // The disk form has data areas as FreeBSD's.
      const low = !drives && any.subdisks.some((one) => one.driveOffsetBytes < 135_680)
      const shifted: VinumModel = low
        ? {
            ...any,
            subdisks: any.subdisks.map((one) => ({
              ...one,
              driveOffsetBytes: one.driveOffsetBytes + 135_680,
            })),
          }
        : any
      const text = drives ? printConfigText(shifted) : diskText(shifted)
      const read = parse(text, options)
      deepStrictEqual(
        read.map(({ line: _, ...rest }) => rest),
        expected(shifted, !drives),
      )
    }),
    { numRuns: 60 },
  )

  const model = buildModel({
    drives: ['d1:64MiB', 'd2:64MiB', 'd3:64MiB'],
    volumes: { db: ['raid5 256KiB d1 d2 d3', 'concat d1'] },
  })
  const renamed = edit(edit(model, 'd1', { device: 'disk/by id' }), 'db', {
    readPolicy: 'prefer',
    preferredPlexUuid: uuidOf('db.p1'),
  })
  const at = (name: string) =>
    Number((find(model, name) as { driveOffsetBytes?: number }).driveOffsetBytes) / 512
  t.equal(
    printConfigText(edit(renamed, 'db.p1', { volumeUuid: undefined })),
    `drive d1 device "/dev/disk/by id"
drive d2 device /dev/d2
drive d3 device /dev/d3
volume db readpol prefer db.p1
plex name db.p0 org raid5 512s left-symmetric vol db
plex name db.p1 org concat detached
sd name db.p0.s0 drive d1 len 8192s driveoffset ${at('db.p0.s0')}s plex db.p0 plexoffset 0s
sd name db.p0.s1 drive d2 len 8192s driveoffset ${at('db.p0.s1')}s plex db.p0 plexoffset 512s
sd name db.p0.s2 drive d3 len 8192s driveoffset ${at('db.p0.s2')}s plex db.p0 plexoffset 1024s
sd name db.p1.s0 drive d1 len 8192s driveoffset ${at('db.p1.s0')}s plex db.p1 plexoffset 0s
`,
  )

  t.test('vinum.md 8.10: detached objects are printed and read', async (t) => {
    const loose = edit(edit(model, 'db.p1', { volumeUuid: undefined }), 'db.p1.s0', {
      plexUuid: undefined,
    })
    for (const drives of [true, false]) {
      const text = drives ? printConfigText(loose) : diskText(loose)
      const read = parse(text, drives ? {} : disk)
      t.match(
        read.find((one) => one.name === 'db.p1'),
        { volume: undefined },
      )
      t.match(
        read.find((one) => one.name === 'db.p1.s0'),
        { plex: undefined },
      )
    }
  })
})
