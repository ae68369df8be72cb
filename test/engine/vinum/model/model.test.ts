/** The configuration as data: codec, soundness, and space on drives. */
import { deepStrictEqual, equal } from 'node:assert'
import fc from 'fast-check'
import t from 'tap'
import { PlexusError } from '../../../../src/base/errors.ts'
import { KIB, MIB } from '../../../../src/base/limits.ts'
import { nameFault } from '../../../../src/engine/metadata/fields.ts'
import {
  alignmentOf,
  allocate,
  freeExtents,
  totalBytes,
  usedExtents,
} from '../../../../src/engine/vinum/model/allocation.ts'
import { decodeModel, encodeModel } from '../../../../src/engine/vinum/model/codec.ts'
import type { DriveRecord, VinumModel } from '../../../../src/engine/vinum/model/model.ts'
import { checkModel } from '../../../../src/engine/vinum/model/model-check.ts'
import {
  buildModel,
  edit,
  find,
  largestExtent,
  modelArbitrary,
  uuidOf,
  withJob,
} from '../../../support/vinum-model.ts'

const base = buildModel({
  drives: ['d1:64MiB', 'd2:64MiB', 'd3:64MiB', 'd4:64MiB:4096'],
  volumes: { db: ['raid5 64KiB d1 d2 d3', 'concat d4:8MiB'], web: ['striped 64KiB d1 d2'] },
})
const drive = (model: VinumModel, name: string) => find<DriveRecord>(model, name)

function kindOf(run: () => unknown): PlexusError {
  try {
    run()
  } catch (error) {
    if (error instanceof PlexusError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

t.test('codec', async (t) => {
  t.test('what is written is read again', async () => {
    fc.assert(
      fc.property(modelArbitrary, (model) => {
        const bytes = encodeModel(model)
        deepStrictEqual(decodeModel(bytes), model)
        equal(encodeModel(decodeModel(bytes)).equals(bytes), true)
      }),
      { numRuns: 60 },
    )
  })

  t.test('bytes do not depend on the order in which a record was made', async (t) => {
    const turned = {
      ...Object.fromEntries(Object.entries(base).reverse()),
      drives: base.drives.map((one) => Object.fromEntries(Object.entries(one).reverse())),
    } as unknown as VinumModel
    t.ok(encodeModel(turned).equals(encodeModel(base)))
  })

  t.test('golden', async (t) => {
    const model = buildModel({ drives: ['d1:64MiB'], volumes: { v: ['concat d1'] } })
    t.equal(
      encodeModel(model).toString(),
      `{"format":2,"setUuid":"${uuidOf('set')}","generation":1,"line":"${uuidOf('set')}","ancestors":[],"votersBefore":[],"drives":[{"uuid":"${uuidOf('d1')}",` +
        `"name":"d1","state":"up","device":"d1","mediaBytes":67108864,"blockBytes":512,"dataStartBytes":${drive(model, 'd1').dataStartBytes},` +
        `"dataEndBytes":${drive(model, 'd1').dataEndBytes}}],"subdisks":[{"uuid":"${uuidOf('v.p0.s0')}","name":"v.p0.s0",` +
        `"driveUuid":"${uuidOf('d1')}","plexUuid":"${uuidOf('v.p0')}","sizeBytes":4194304,` +
        `"driveOffsetBytes":${drive(model, 'd1').dataStartBytes},"plexOffsetBytes":0,"state":"up"}],` +
        `"plexes":[{"uuid":"${uuidOf('v.p0')}","name":"v.p0","volumeUuid":"${uuidOf('v')}","organization":"concat",` +
        `"stripeBytes":0,"state":"up","parityValidBytes":0}],"volumes":[{"uuid":"${uuidOf('v')}","name":"v","state":"up",` +
        `"sizeBytes":4194304,"readPolicy":"round-robin","mapSlot":0}],"jobs":[]}`,
    )
  })

  t.test('a key that this format does not know may be ignored', async (t) => {
    const text = encodeModel(base).toString().replace('{"format":2', '{"colour":"red","format":2')
    t.strictSame(encodeModel(decodeModel(Buffer.from(text))), encodeModel(base))
  })

  t.test('a higher format is refused as one', async (t) => {
    const text = encodeModel(base).toString().replace('"format":2', '"format":3')
    const error = kindOf(() => decodeModel(Buffer.from(text)))
    t.equal(error.kind, 'unsupported')
    t.match(error.message, /format 3.*newer Plexus/)
  })

  t.test('what is not a model', async (t) => {
    const texts = [
      '',
      '{',
      '[]',
      '{}',
      '{"format":0}',
      '{"format":1}',
      'null',
      '{"format":"1"}',
      '"x"',
    ]
    for (const text of texts) {
      t.equal(kindOf(() => decodeModel(Buffer.from(text))).kind, 'corrupt', text)
    }
    t.equal(kindOf(() => decodeModel(Buffer.from([0x7b, 0xff, 0x7d]))).kind, 'corrupt')
  })

  t.test('every field has its type; object and field are named', async (t) => {
    const rows: [string, unknown, RegExp][] = [
      ['drives.0.state', 'upp', /drives\[0\] \(d1\)\.state: "upp" is none of down, up/],
      ['drives.0.mediaBytes', -1, /mediaBytes: -1 is not a whole number/],
      ['drives.0.mediaBytes', 1.5, /mediaBytes: 1.5/],
      ['drives.0.mediaBytes', 2 ** 53, /mediaBytes: 9007199254740992/],
      ['drives.0.name', 7, /drives\[0\]\.name: it is not text/],
      ['subdisks.1', null, /subdisks\[1\]: it is not an object/],
      ['subdisks.1.plexUuid', 4, /subdisks\[1\] \(db.p0.s1\)\.plexUuid: it is not text/],
      ['plexes', {}, /plexes: it is not a list/],
      ['plexes.0.organization', 'raid6', /none of concat, striped, raid5/],
      [
        'plexes.0.lost',
        [{ column: 0, offsetBytes: -1, lengthBytes: 512 }],
        /lost\[0\]\.offsetBytes: -1/,
      ],
      ['volumes.0.sizeBytes', '4', /volumes\[0\] \(db\)\.sizeBytes: "4"/],
      ['volumes.0.readPolicy', undefined, /readPolicy: undefined is none of/],
    ]
    for (const [path, value, message] of rows) {
      const json = JSON.parse(encodeModel(base).toString())
      const keys = path.split('.')
      const last = keys.pop() ?? ''
      const holder = keys.reduce((object, key) => object[key], json)
      holder[last] = value
      const error = kindOf(() => decodeModel(Buffer.from(JSON.stringify(json))))
      t.equal(error.kind, 'corrupt', path)
      t.match(error.message, message, path)
    }
  })
})

t.test('soundness', async (t) => {
  checkModel(base)
  const grown = edit(base, 'web.p0', {
    growth: { columnsBefore: 1, cursorBytes: 0, backup: undefined },
  })
  checkModel(grown)
  const moved = edit(base, 'db.p0.s0', {
    move: {
      driveUuid: uuidOf('d4'),
      driveOffsetBytes: largestExtent(base, drive(base, 'd4')).offset,
    },
  })
  checkModel(moved)
  const backup = { offsetBytes: 0, lengthBytes: 4096, driveUuids: [uuidOf('d1')], crc32c: 0 }
  const start = drive(base, 'd1').dataStartBytes
  const end = drive(base, 'd1').dataEndBytes

  const rows: [string, VinumModel, RegExp][] = [
    ['set', { ...base, setUuid: 'x' }, /setUuid: "x" is not a UUID/],
    ['voters', { ...base, votersBefore: [['d1']] }, /votersBefore: "d1" is not a UUID/],
    ['uuid', edit(base, 'd1', { uuid: 'ABC' }), /drive "d1", uuid: "ABC" is not a UUID/],
    [
      'uuid twice',
      edit(base, 'web', { uuid: uuidOf('db') }),
      /volume web, uuid: .* is that of volume db/,
    ],
    ['name', edit(base, 'd1', { name: 'd 1' }), /drive d 1, name: .*blanks/],
    [
      'name of two types',
      edit(base, 'web', { name: 'd1' }),
      /drive d1, name: volume d1 has the same name/,
    ],
    ['block', edit(base, 'd1', { blockBytes: 1000 }), /drive "d1", blockBytes: 1000/],
    [
      'area',
      edit(base, 'd1', { dataEndBytes: 2 ** 40 }),
      /drive "d1", dataEndBytes: the data area/,
    ],
    [
      'area in blocks',
      edit(base, 'd4', { dataStartBytes: 512 }),
      /drive "d4", dataStartBytes: 512/,
    ],
    ['device', edit(base, 'd1', { device: 'a"b' }), /drive "d1", device/],
    [
      'before the area',
      edit(base, 'db.p0.s0', { driveOffsetBytes: start - 4096 }),
      /subdisk db.p0.s0, driveOffsetBytes: .*outside/,
    ],
    [
      'behind the area',
      edit(base, 'db.p0.s0', { driveOffsetBytes: end - 4096 }),
      /subdisk db.p0.s0, driveOffsetBytes: .*outside/,
    ],
    [
      'overlap',
      edit(base, 'web.p0.s0', { driveOffsetBytes: start + MIB }),
      /driveOffsetBytes: .* overlaps subdisk db.p0.s0/,
    ],
    [
      'offset in blocks',
      edit(base, 'db.p1.s0', { driveOffsetBytes: drive(base, 'd4').dataStartBytes + 512 }),
      /not multiples of the block, 4096/,
    ],
    ['no size', edit(base, 'db.p0.s0', { sizeBytes: 0 }), /sizeBytes: it is 0/],
    [
      'no drive',
      edit(base, 'db.p0.s0', { driveUuid: uuidOf('x') }),
      /driveUuid: there is no drive/,
    ],
    ['no plex', edit(base, 'db.p0.s0', { plexUuid: uuidOf('x') }), /plexUuid: there is no plex/],
    [
      'no volume',
      edit(base, 'db.p0', { volumeUuid: uuidOf('x') }),
      /plex db.p0, volumeUuid: there is no volume/,
    ],
    [
      'move to no drive',
      edit(moved, 'db.p0.s0', { move: { driveUuid: uuidOf('x'), driveOffsetBytes: 0 } }),
      /move.driveUuid/,
    ],
    [
      'move on another',
      edit(moved, 'db.p0.s0', { move: { driveUuid: uuidOf('d2'), driveOffsetBytes: start } }),
      /overlaps subdisk/,
    ],
    [
      'layout of a stripe',
      edit(base, 'web.p0', { parityLayout: 'left-symmetric' }),
      /parityLayout: left-symmetric does not go with striped/,
    ],
    [
      'raid5 without layout',
      edit(base, 'db.p0', { parityLayout: undefined }),
      /parityLayout: no layout/,
    ],
    ['stripe of concat', edit(base, 'db.p1', { stripeBytes: 4096 }), /stripeBytes: a concat plex/],
    ['no stripe', edit(base, 'db.p0', { stripeBytes: 0 }), /plex db.p0, stripeBytes: 0 is not/],
    [
      'stripe in blocks',
      edit(base, 'db.p0', { stripeBytes: 1000 }),
      /stripeBytes: 1000 is not a multiple/,
    ],
    [
      'growth of concat',
      edit(base, 'db.p1', { growth: { columnsBefore: 1, cursorBytes: 0, backup: undefined } }),
      /growth: a concat/,
    ],
    [
      'columns of two sizes',
      edit(base, 'db.p0.s1', { sizeBytes: MIB }),
      /subdisk db.p0.s1, sizeBytes: 1048576, but the columns/,
    ],
    [
      'a hole in the columns',
      edit(base, 'db.p0.s1', { plexUuid: undefined }),
      /subdisk db.p0.s2, plexOffsetBytes: 131072, but column 1 of plex db.p0 is at 65536/,
    ],
    [
      'column in stripes',
      ['s0', 's1', 's2'].reduce((m, s) => edit(m, `db.p0.${s}`, { sizeBytes: MIB + 4096 }), base),
      /sizeBytes: 1052672 is not a multiple of the stripe/,
    ],
    [
      'growth without columns',
      edit(grown, 'web.p0', { growth: { columnsBefore: 2, cursorBytes: 0, backup: undefined } }),
      /growth.columnsBefore: 2/,
    ],
    [
      'growth of raid5',
      edit(base, 'db.p0', { growth: { columnsBefore: 1, cursorBytes: 0, backup: undefined } }),
      /growth.columnsBefore: 1/,
    ],
    [
      'growth cursor',
      edit(grown, 'web.p0', {
        growth: { columnsBefore: 1, cursorBytes: 64 * KIB, backup: undefined },
      }),
      /growth.cursorBytes: 65536/,
    ],
    [
      'growth end',
      edit(grown, 'web.p0', {
        growth: { columnsBefore: 1, cursorBytes: 16 * MIB, backup: undefined },
      }),
      /growth.cursorBytes: 16777216/,
    ],
    [
      'backup behind',
      edit(grown, 'web.p0', {
        growth: { columnsBefore: 1, cursorBytes: 0, backup: { ...backup, offsetBytes: 2 ** 40 } },
      }),
      /growth.backup/,
    ],
    [
      'backup nowhere',
      edit(grown, 'web.p0', {
        growth: { columnsBefore: 1, cursorBytes: 0, backup: { ...backup, driveUuids: [] } },
      }),
      /growth.backup/,
    ],
    [
      'backup on no drive',
      edit(grown, 'web.p0', {
        growth: { columnsBefore: 1, cursorBytes: 0, backup: { ...backup, driveUuids: ['x'] } },
      }),
      /growth.backup.driveUuids/,
    ],
    [
      'volume in blocks',
      edit(base, 'db', { sizeBytes: MIB + 512 }),
      /volume db, sizeBytes: 1049088/,
    ],
    [
      'preferred elsewhere',
      edit(base, 'db', { preferredPlexUuid: uuidOf('web.p0') }),
      /preferredPlexUuid/,
    ],
    [
      'prefer nothing',
      edit(base, 'db', { readPolicy: 'prefer' }),
      /preferredPlexUuid: the read policy/,
    ],
    ['map slot twice', edit(base, 'web', { mapSlot: 0 }), /mapSlot: 0 is that of volume/],
    [
      'job on nothing',
      {
        ...base,
        jobs: withJob(base, 'check', 'db.p0').jobs.map((one) => ({
          ...one,
          targetUuid: uuidOf('x'),
        })),
      },
      /job check-0, targetUuid/,
    ],
    [
      'job on a drive',
      withJob(base, 'check', 'd1'),
      /job check-0, targetUuid: check does not work on a drive/,
    ],
    ['job on the wrong type', withJob(base, 'move', 'db.p0'), /move does not work on a plex/],
    [
      'two jobs of a kind',
      withJob(withJob(base, 'check', 'db.p0'), 'check', 'db.p0'),
      /second job check/,
    ],
    [
      'one id',
      withJob(withJob(base, 'check', 'db.p0', { id: 'j' }), 'check', 'db', { id: 'j' }),
      /job j, id/,
    ],
    [
      'limit',
      withJob(base, 'check', 'db.p0', { limitBytesPerSecond: 0 }),
      /limitBytesPerSecond: it is 0/,
    ],
    ['grow without growth', withJob(base, 'grow', 'db.p0'), /is not growing/],
    ['move without place', withJob(base, 'move', 'db.p0.s0'), /is not moving/],
    ['rebuild of concat', withJob(base, 'rebuild', 'db.p1'), /is not raid5/],
  ]
  for (const [title, model, message] of rows) {
    const error = kindOf(() => checkModel(model))
    t.equal(error.kind, 'corrupt', title)
    t.match(error.message, message, title)
  }

  t.test('generated models are sound', async (t) => {
    let objects = 0
    fc.assert(
      fc.property(modelArbitrary, (model) => {
        checkModel(model)
        objects += model.subdisks.length
      }),
      { numRuns: 100 },
    )
    t.ok(objects > 100)
  })

  t.test('vinum.md 8.10: detached plexes and subdisks stay in the configuration', async (t) => {
    const model = edit(edit(base, 'db.p1', { volumeUuid: undefined }), 'db.p1.s0', {
      plexUuid: undefined,
    })
    const again = decodeModel(encodeModel(model))
    t.equal(find(again, 'db.p1').uuid, uuidOf('db.p1'))
    t.equal(find(again, 'db.p1.s0').uuid, uuidOf('db.p1.s0'))
  })

  t.test('a gap in a concat plex is sound: a piece was detached', async () => {
    const model = buildModel({ drives: ['d1:64MiB'], volumes: { v: ['concat d1 d1 d1'] } })
    checkModel(edit(model, 'v.p0.s1', { plexUuid: undefined }))
  })

  t.test('names', async (t) => {
    for (const name of ['a', 'db.p0.s1', 'volume_1', 'größe', 'x'.repeat(63)]) {
      t.equal(nameFault(name), undefined, name)
    }
    for (const name of [
      '',
      'a b',
      'a\tb',
      'a#',
      "a'",
      'a"',
      'a/b',
      'a\\',
      '-a',
      'x'.repeat(64),
      'a\u0000',
    ]) {
      t.type(nameFault(name), 'string', JSON.stringify(name))
    }
  })
})

t.test('allocation', async (t) => {
  const model = buildModel({
    drives: ['d1:64MiB', 'd2:64MiB:4096'],
    volumes: { v: ['concat d1 d1 d1 d1 d2'] },
  })
  const d1 = drive(model, 'd1')
  const start = d1.dataStartBytes
  /** What is left when these subdisks are gone. */
  const without = (...names: string[]): VinumModel => ({
    ...model,
    subdisks: model.subdisks.filter((one) => !names.includes(one.name)),
  })

  t.test('vinum.md 8.22: freed space merges with both neighbours', async (t) => {
    const free = freeExtents(without('v.p0.s0', 'v.p0.s1', 'v.p0.s2'), d1)
    t.strictSame(free[0], { offset: start, length: 12 * MIB })
    t.equal(free.length, 2)
    const middle = without('v.p0.s1', 'v.p0.s3')
    t.equal(freeExtents(middle, d1).length, 2)
    const all = freeExtents(without('v.p0.s1', 'v.p0.s2', 'v.p0.s3'), d1)
    t.strictSame(all, [{ offset: start + 4 * MIB, length: d1.dataEndBytes - start - 4 * MIB }])
    t.equal(totalBytes(freeExtents(model, d1)), d1.dataEndBytes - start - 16 * MIB)
  })

  t.test('a given size takes the first extent that is large enough', async (t) => {
    const holes = without('v.p0.s0', 'v.p0.s2')
    t.equal(allocate(holes, d1, 4 * MIB), start)
    t.equal(allocate(holes, d1, 4 * MIB + 4096), start + 16 * MIB)
  })

  t.test('autosize takes the largest extent at its start', async (t) => {
    t.strictSame(largestExtent(without('v.p0.s0'), d1), {
      offset: start + 16 * MIB,
      length: d1.dataEndBytes - start - 16 * MIB,
    })
    t.equal(largestExtent({ ...model, drives: [] }, { ...d1, dataEndBytes: start }).length, 0)
  })

  t.test('a given offset must be free to its end', async (t) => {
    const holes = without('v.p0.s1')
    const hole = start + 4 * MIB
    t.equal(allocate(holes, d1, MIB, hole + MIB), hole + MIB)
    const late = kindOf(() => allocate(holes, d1, 4 * MIB, hole + 4096))
    t.equal(late.kind, 'no-space')
    t.match(late.message, /subdisk v\.p0\.s2 lies from/)
    t.match(late.message, /free: .* in 2 extents/)
    const end = kindOf(() => allocate(holes, d1, MIB, d1.dataEndBytes - 4096))
    t.match(end.message, /the data area ends at/)
    for (const offsetBytes of [0, start - 4096, d1.dataEndBytes]) {
      t.equal(kindOf(() => allocate(holes, d1, 4096, offsetBytes)).kind, 'invalid')
    }
    t.match(
      kindOf(() => allocate(holes, d1, 4096, hole + 512)).message,
      /offset \d+ is not a multiple of 4 KiB/,
    )
  })

  t.test('places are multiples of the block, at least 4 KiB', async (t) => {
    t.equal(alignmentOf(d1), 4096)
    t.equal(alignmentOf({ ...d1, blockBytes: 65536 }), 65536)
    for (const size of [0, -4096, 513, 4097, Number.NaN]) {
      t.equal(kindOf(() => allocate(model, d1, size)).kind, 'invalid', String(size))
    }
    const odd = { ...d1, dataStartBytes: 135680 }
    const empty = { ...model, subdisks: [], drives: [odd] }
    t.equal(allocate(empty, odd, 4096), 139264)
    t.equal(allocate(empty, odd, 512), 139264, 'the size is whole blocks')
  })

  t.test('a drive without room says what it has', async (t) => {
    const error = kindOf(() => allocate(model, d1, 256 * MIB))
    t.equal(error.kind, 'no-space')
    t.match(error.message, /^drive d1: no extent of 256 MiB .* is free; free: .* \(\d+ bytes\)$/)
    t.match(
      kindOf(() => allocate(model, { ...d1, dataEndBytes: start }, 4096)).message,
      /it is full/,
    )
  })

  t.test('the place to which a subdisk moves is taken', async (t) => {
    const d2 = drive(model, 'd2')
    const { offset } = largestExtent(model, d2)
    const moving = edit(model, 'v.p0.s0', {
      move: { driveUuid: d2.uuid, driveOffsetBytes: offset },
    })
    t.equal(usedExtents(moving, d2.uuid).length, 2)
    t.equal(largestExtent(moving, d2).offset, offset + 4 * MIB)
  })

  t.test('used and free together are the data area, in order', async () => {
    fc.assert(
      fc.property(modelArbitrary, (any) => {
        for (const one of any.drives) {
          const all = [...usedExtents(any, one.uuid), ...freeExtents(any, one)].sort(
            (a, b) => a.offset - b.offset,
          )
          let at = one.dataStartBytes
          for (const extent of all) {
            equal(extent.offset, at)
            at += extent.length
          }
          equal(at, one.dataEndBytes)
        }
      }),
      { numRuns: 40 },
    )
  })
})
