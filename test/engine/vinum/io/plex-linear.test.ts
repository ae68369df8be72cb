/** Concat and striped plexes on memory devices: addresses against a naive model, splitting, faults, flush, discard. */

import fc from 'fast-check'
import t from 'tap'
import type { PlexusError } from '../../../../src/base/errors.ts'
import { MIB } from '../../../../src/base/limits.ts'
import { RangeSet } from '../../../../src/base/range-set.ts'
import { LinearPlex } from '../../../../src/engine/vinum/io/plex-linear.ts'
import type { GrowthRecord, SubdiskRecord } from '../../../../src/engine/vinum/model/model.ts'
import type { Subdisk } from '../../../../src/engine/vinum/runtime.ts'
import {
  FakeHost,
  send,
  setState,
  settle,
  type TestDrive,
  testDrive,
  testPlexRecord,
  testSubdisk,
} from '../../../support/vinum-host.ts'

const BLOCK = 512
const START = 8 * BLOCK

interface Built {
  readonly host: FakeHost
  readonly drives: readonly TestDrive[]
  readonly plex: LinearPlex
}

/** One drive for each size; striped when a stripe is given. Data begins at START on each drive. */
function build(
  sizes: readonly number[],
  stripe = 0,
  growth?: GrowthRecord,
  more: readonly Partial<SubdiskRecord>[] = [],
): Built {
  const host = new FakeHost()
  let offset = 0
  const drives: TestDrive[] = []
  const subdisks = sizes.map((size, index) => {
    const drive = testDrive(host, index, { sizeBytes: START + size + 4 * BLOCK })
    drives.push(drive)
    const subdisk = testSubdisk(drive, `v.p0.s${index}`, size, {
      driveOffsetBytes: START,
      plexOffsetBytes: stripe ? index * stripe : offset,
      ...more[index],
    })
    offset += size
    return subdisk
  })
  const record = testPlexRecord('v.p0', stripe ? 'striped' : 'concat', stripe, { growth })
  return { host, drives, plex: new LinearPlex({ host, record, subdisks }) }
}

/** Where a byte of plex space lies, the naive way: by counting. */
function place(built: Built, sizes: readonly number[], stripe: number, offset: number) {
  if (stripe === 0) {
    let left = offset
    for (let index = 0; ; index++) {
      if (left < (sizes[index] ?? 0)) return { index, at: START + left }
      left -= sizes[index] ?? 0
    }
  }
  const { growth } = built.plex.record
  const columns =
    growth && offset >= growth.cursorBytes ? growth.columnsBefore : built.plex.subdisks.length
  const used = new Array(columns).fill(0)
  let column = 0
  for (let at = 0; at + stripe <= offset; at += stripe) {
    used[column] += stripe
    column = (column + 1) % columns
  }
  return { index: column, at: START + used[column] + (offset % stripe) }
}

const geometry = fc.oneof(
  fc.record({
    stripe: fc.constant(0),
    sizes: fc.array(
      fc.integer({ min: 1, max: 9 }).map((n) => n * BLOCK),
      { minLength: 1, maxLength: 4 },
    ),
    growth: fc.constant(undefined),
  }),
  fc.integer({ min: 2, max: 5 }).chain((columns) =>
    fc.record({
      stripe: fc.integer({ min: 1, max: 3 }).map((n) => n * BLOCK),
      sizes: fc.constant(new Array<number>(columns).fill(12 * BLOCK)),
      growth: fc.option(
        fc.record({
          columnsBefore: fc.integer({ min: 1, max: columns - 1 }),
          rows: fc.integer({ min: 0, max: 2 }),
        }),
        { nil: undefined },
      ),
    }),
  ),
)

t.test('every byte lies where the rules say, for each request', async () => {
  await fc.assert(
    fc.asyncProperty(
      geometry,
      fc.array(fc.tuple(fc.nat(59), fc.integer({ min: 1, max: 24 }), fc.nat(3)), {
        minLength: 1,
        maxLength: 10,
      }),
      async ({ stripe, sizes, growth }, requests) => {
        const row = stripe * sizes.length
        const built = build(
          sizes,
          stripe,
          growth && {
            columnsBefore: growth.columnsBefore,
            cursorBytes: growth.rows * row,
            backup: undefined,
          },
        )
        const { plex, drives } = built
        const model = Buffer.alloc(plex.sizeBytes)
        const images = drives.map(({ device }) => Buffer.alloc(device.media.length))
        let fill = 1
        for (const [first, blocks, kind] of requests) {
          const offset = (first * BLOCK) % plex.sizeBytes
          const length = Math.min(blocks * BLOCK, plex.sizeBytes - offset)
          const op = (['write', 'write-zeroes', 'discard', 'write'] as const)[kind] ?? 'write'
          const data = Buffer.alloc(length)
          if (op === 'write') for (let i = 0; i < length; i++) data[i] = fill++ % 251
          const error = await send(
            plex,
            op === 'write' ? { op, offset, data } : { op, offset, length },
          )
          if (error) throw error
          data.copy(model, offset)
          for (let i = 0; i < length; i += BLOCK) {
            const { index, at } = place(built, sizes, stripe, offset + i)
            data.copy(images[index] as Buffer, at, i, i + BLOCK)
          }
        }
        drives.forEach(({ device }, index) => {
          if (!device.media.equals(images[index] as Buffer))
            throw new Error(`drive ${index} differs`)
        })
        const all = Buffer.alloc(plex.sizeBytes)
        const error = await send(plex, { op: 'read', data: all })
        if (error) throw error
        // A layout in the middle of a growth is read as it was written only where no place is used twice.
        if (!growth && !all.equals(model)) throw new Error('what was written is not read')
      },
    ),
    { numRuns: 60 },
  )
})

t.test('vinum.md 8.3: striped plexes of any size count all columns', async (t) => {
  t.equal(build([4096, 4096, 4096], 1024).plex.sizeBytes, 3 * 4096)
  const growth = { columnsBefore: 2, cursorBytes: 0, backup: undefined }
  t.equal(build([4096, 4096, 4096], 1024, growth).plex.sizeBytes, 2 * 4096)
})

t.test('vinum.md 8.13: a request is split once, and each piece is sent once', async (t) => {
  const { plex, drives } = build([4096, 4096, 4096], 1024)
  for (const { device } of drives) device.hold()
  let completed = 0
  const done = send(plex, { op: 'write', offset: 512, data: Buffer.alloc(6 * 1024, 7) }).then(
    (error) => {
      completed++
      return error
    },
  )
  await settle(2)
  t.strictSame(
    drives.map(({ device }) => device.inFlight),
    [3, 2, 2],
    'units 0 to 6, the first and the last in part',
  )
  drives[0]?.device.release()
  drives[1]?.device.release()
  await settle(2)
  t.equal(completed, 0, 'the last piece ends it')
  drives[2]?.device.release()
  t.equal(await done, undefined)
  t.strictSame(
    drives.map(({ device }) => device.counts.write),
    [3, 2, 2],
  )
})

t.test('a discard of many rows is one request for each column', async (t) => {
  const { plex, drives } = build([64 * 1024, 64 * 1024], 1024)
  for (const { device } of drives) device.media.fill(9)
  t.equal(await send(plex, { op: 'discard', offset: 512, length: 99 * 1024 }), undefined)
  t.strictSame(
    drives.map(({ device }) => device.counts.discard),
    [1, 1],
  )
  const all = Buffer.alloc(plex.sizeBytes)
  await send(plex, { op: 'read', data: all })
  t.ok(all.subarray(512, 512 + 99 * 1024).every((byte) => byte === 0))
  t.ok(all.subarray(0, 512).every((byte) => byte === 9))
  t.ok(all.subarray(512 + 99 * 1024).every((byte) => byte === 9))
})

t.test('a drive that knows no discard keeps what it has', async (t) => {
  const host = new FakeHost()
  const drive = testDrive(host, 1, {
    sizeBytes: 8192,
    features: { discardGranularityBytes: 0, discardZeroes: false },
  })
  const subdisks = [testSubdisk(drive, 'v.p0.s0', 8192)]
  const plex = new LinearPlex({ host, record: testPlexRecord('v.p0', 'concat', 0), subdisks })
  t.equal(await send(plex, { op: 'discard', length: 8192 }), undefined)
  t.equal(drive.device.counts.discard, 0)
  t.strictSame(host.errors, [])
})

t.test('vinum.md 8.26: flush reaches each drive once, FUA each piece', async (t) => {
  const host = new FakeHost()
  const drives = [1, 2].map((number) => testDrive(host, number, { sizeBytes: 16384 }))
  const [a, b] = drives as [TestDrive, TestDrive]
  const subdisks = [
    testSubdisk(a, 'v.p0.s0', 4096),
    testSubdisk(b, 'v.p0.s1', 4096, { plexOffsetBytes: 4096 }),
    testSubdisk(a, 'v.p0.s2', 4096, { plexOffsetBytes: 8192, driveOffsetBytes: 4096 }),
  ]
  const plex = new LinearPlex({ host, record: testPlexRecord('v.p0', 'concat', 0), subdisks })
  await send(plex, { op: 'write', data: Buffer.alloc(12288, 1) })
  t.strictSame([a.device.unflushed, b.device.unflushed], [2, 1])
  t.equal(await send(plex, { op: 'flush' }), undefined)
  t.strictSame([a.device.unflushed, b.device.unflushed], [0, 0])
  t.strictSame([a.device.counts.flush, b.device.counts.flush], [1, 1])
  await send(plex, { op: 'write', data: Buffer.alloc(12288, 2), fua: true })
  t.strictSame([a.device.unflushed, b.device.unflushed], [0, 0])

  a.device.fail('flush', 'io')
  const missed = new Set<string>()
  const error = await send(plex, { op: 'flush', onMissed: ({ record }) => missed.add(record.name) })
  t.match(error, { kind: 'io' })
  t.strictSame([...missed].sort(), ['v.p0.s0', 'v.p0.s2'], 'all that lies on the drive')

  setState(subdisks[0] as Subdisk, 'stale')
  missed.clear()
  await send(plex, { op: 'flush', onMissed: ({ record }) => missed.add(record.name) })
  t.strictSame([...missed], ['v.p0.s0'])
  t.equal(a.device.counts.flush, 3, 'the other subdisk there still needs it')
})

t.test('what fails is named and counted; the rest is done', async (t) => {
  const { host, plex, drives } = build([4096, 4096], 1024)
  drives[1]?.device.fail('write', 'io')
  const missed: string[] = []
  const onMissed = (subdisk: Subdisk, error: PlexusError) =>
    missed.push(`${subdisk.record.name} ${error.kind}`)
  const error = await send(plex, { op: 'write', data: Buffer.alloc(2048, 1), onMissed })
  t.match(error, { kind: 'io' })
  t.strictSame(missed, ['v.p0.s1 io'])
  t.equal(drives[0]?.device.media[START], 1)
  t.match(host.errors, [{ op: 'write' }])

  drives[0]?.device.fail('read', 'io')
  missed.length = 0
  t.match(await send(plex, { op: 'read', data: Buffer.alloc(512), onMissed }), { kind: 'io' })
  t.strictSame(missed, [], 'a read misses nothing')
  t.equal(host.errors.at(-1)?.op, 'read')

  drives[1]?.pull()
  missed.length = 0
  t.match(await send(plex, { op: 'write', data: Buffer.alloc(2048, 2), onMissed }), {
    kind: 'gone',
    message: /drive d1 is missing; connect it again/,
  })
  t.strictSame(missed, ['v.p0.s1 gone'])
  t.equal(drives[0]?.device.media[START], 2)
})

t.test('what is not valid is not read, and not written where it is out of service', async (t) => {
  const { plex, drives } = build([4096, 4096])
  const second = plex.subdisks[1] as Subdisk
  t.ok(plex.readable(0, 8192))
  t.equal(plex.storable(0, 8192), 'full')
  setState(second, 'stale')
  t.ok(plex.readable(0, 4096))
  t.notOk(plex.readable(4095, 2))
  t.equal(plex.storable(0, 4096), 'full')
  t.equal(plex.storable(0, 8192), 'partial')
  t.equal(plex.storable(4096, 512), 'none')
  t.equal(plex.pieceEnd(100), 4096)
  t.match(await send(plex, { op: 'read', offset: 4096, data: Buffer.alloc(512) }), { kind: 'io' })
  t.match(await send(plex, { op: 'write', offset: 4096, data: Buffer.alloc(512) }), { kind: 'io' })
  t.equal(drives[1]?.device.counts.write, 0)

  setState(second, 'reviving')
  t.notOk(plex.readable(4096, 512), 'nothing is valid yet')
  t.equal(plex.storable(0, 8192), 'full')
  second.missing = new RangeSet([{ offset: 6144, length: MIB }])
  t.ok(plex.readable(0, 6144), 'what is missing is in plex space')
  t.notOk(plex.readable(6144, 512))
  t.equal(await send(plex, { op: 'read', offset: 4096, data: Buffer.alloc(2048) }), undefined)
  t.match(await send(plex, { op: 'read', offset: 4096, data: Buffer.alloc(2560) }), { kind: 'io' })
})

t.test('a hole in a concat plex is no place', async (t) => {
  const { plex } = build([4096, 4096], 0, undefined, [{}, { plexOffsetBytes: 8192 }])
  t.equal(plex.sizeBytes, 12288)
  t.notOk(plex.readable(4096, 512))
  t.ok(plex.readable(8192, 4096))
  t.equal(plex.storable(0, 12288), 'partial')
  t.equal(plex.pieceEnd(4096), 8192)
  t.match(await send(plex, { op: 'write', offset: 4096, data: Buffer.alloc(512) }), {
    kind: 'io',
    message: /no subdisk at offset 4096/,
  })
})
