/**
 * Sync, resync, check, repair and move, with requests meanwhile and with failures (docs/vinum.md, 8.6, 8.8, 8.9,
 * 8.14, 8.15).
 */

import fc from 'fast-check'
import t from 'tap'
import { defined } from '../../../../src/base/assert.ts'
import type { ByteRange } from '../../../../src/base/bytes.ts'
import { PlexusError } from '../../../../src/base/errors.ts'
import { RangeSet } from '../../../../src/base/range-set.ts'
import { EventLog } from '../../../../src/engine/geom/events.ts'
import { type Job, JobManager, type JobPlan } from '../../../../src/engine/jobs/job.ts'
import { LinearPlex } from '../../../../src/engine/vinum/io/plex-linear.ts'
import type { PlacedSubdisk } from '../../../../src/engine/vinum/io/subdisk.ts'
import { VolumeIo } from '../../../../src/engine/vinum/io/volume-io.ts'
import {
  checkPlan,
  type Mismatch,
  resyncPlan,
} from '../../../../src/engine/vinum/jobs/mirror-jobs.ts'
import { movePlan } from '../../../../src/engine/vinum/jobs/move.ts'
import { healThroughPlex } from '../../../../src/engine/vinum/jobs/move-heal.ts'
import type { JobSetup } from '../../../../src/engine/vinum/jobs/setup.ts'
import { missingRanges, syncPlan } from '../../../../src/engine/vinum/jobs/sync.ts'
import type { JobRecord, PlexRecord } from '../../../../src/engine/vinum/model/model.ts'
import { fillRows } from '../../../../src/engine/vinum/raid5/fill-rows.ts'
import { Raid5Plex } from '../../../../src/engine/vinum/raid5/plex-raid5.ts'
import type { Plex } from '../../../../src/engine/vinum/runtime.ts'
import type { IoOp } from '../../../../src/hal/block-device.ts'
import { ManualClock } from '../../../support/manual-clock.ts'
import {
  FakeHost,
  lastCopy,
  send,
  setState,
  settle,
  type TestDrive,
  testDrive,
  testPlexRecord,
  testSubdisk,
} from '../../../support/vinum-host.ts'

const SIZE = 96 * 1024
const STRIPE = 4096

interface Shape {
  readonly organization: PlexRecord['organization']
  readonly columns: number
}

/** A volume of some plexes, each column on a drive of its own, with room for a move behind it. */
class World {
  readonly host = new FakeHost()
  readonly drives: TestDrive[] = []
  readonly plexes: readonly Plex[]
  readonly io: VolumeIo
  readonly calls: string[] = []

  constructor(...shapes: readonly Shape[]) {
    this.plexes = shapes.map(({ organization, columns }, index) => {
      const data = organization === 'raid5' ? columns - 1 : columns
      const subdisks = Array.from({ length: columns }, (_, column) => {
        const drive = testDrive(this.host, this.drives.length, { sizeBytes: 4 * SIZE })
        this.drives.push(drive)
        const bytes = SIZE / data
        return testSubdisk(drive, `db.p${index}.s${column}`, bytes, {
          driveOffsetBytes: 4096,
          plexOffsetBytes: organization === 'concat' ? column * bytes : column * STRIPE,
        })
      })
      const stripe = organization === 'concat' ? 0 : STRIPE
      const record = testPlexRecord(`db.p${index}`, organization, stripe)
      const init = { host: this.host, record, subdisks }
      return organization === 'raid5' ? new Raid5Plex(init) : new LinearPlex(init)
    })
    this.io = new VolumeIo({
      name: 'db',
      host: this.host,
      plexes: this.plexes,
      readPolicy: 'round-robin',
      preferredPlexUuid: undefined,
      map: undefined,
    })
    this.host.volume = this.io
  }

  plex(index: number): Plex {
    return defined(this.plexes[index], `plex ${index}`)
  }

  subdisk(plex: number, column: number): PlacedSubdisk {
    return defined(this.plex(plex).subdisks[column], `column ${column}`) as PlacedSubdisk
  }

  drive(plex: number, column: number): TestDrive {
    return this.subdisk(plex, column).drive as TestDrive
  }

  setup(record: Partial<JobRecord> = {}): JobSetup {
    return {
      record: {
        id: 'j1',
        kind: 'sync',
        targetUuid: 'db.p1',
        cursorBytes: 0,
        scope: 'all',
        paused: false,
        limitBytesPerSecond: undefined,
        mismatches: 0,
        ...record,
      },
      object: 'db',
      parent: 'db',
      totalBytes: SIZE,
      commits: {
        checkpoint: async (job) => {
          this.calls.push(`checkpoint ${job.doneBytes}`)
        },
        finish: async () => {
          this.calls.push('finish')
        },
        abandon: async (_job, outcome) => {
          this.calls.push(`abandon ${outcome}`)
        },
      },
    }
  }

  /** Plex `index` lacks `missing`: its subdisks that are stale become reviving. */
  syncOf(index: number, missing = new RangeSet([{ offset: 0, length: SIZE }])): JobPlan {
    const plex = this.plex(index)
    const subdisks = plex.subdisks.filter(({ record }) => record.state === 'stale')
    for (const one of subdisks) setState(one, 'reviving')
    const setup = this.setup()
    return syncPlan({
      ...setup,
      commits: {
        ...setup.commits,
        finish: async () => {
          this.calls.push('finish')
          for (const one of subdisks) setState(one, 'up')
        },
        abandon: async (_job, outcome) => {
          this.calls.push(`abandon ${outcome}`)
          for (const one of subdisks) setState(one, 'stale')
        },
      },
      host: this.host,
      plex,
      subdisks,
      missing,
      read: (offset, into) => this.io.readExcept(plex, offset, into),
    })
  }

  /** Runs a job to its end. */
  async run(plan: JobPlan): Promise<Job> {
    const job = this.manager().start(plan)
    await job.ended
    return job
  }

  manager(): JobManager {
    const clock = new ManualClock()
    // Rests between steps end at once.
    const quick = { nowMs: () => clock.nowMs(), every: clock.every.bind(clock) }
    const after = (_ms: number, callback: () => void) => {
      setImmediate(callback)
      return { cancel: () => {} }
    }
    const events = new EventLog(() => new Date(0))
    return new JobManager({ clock: { ...quick, after }, log: this.host.log, events })
  }

  async write(offset: number, data: Buffer): Promise<void> {
    const error = await send(this.io, { op: 'write', offset, data })
    if (error) throw error
  }

  /** The whole content as one plex has it. */
  async content(index: number): Promise<Buffer> {
    const data = Buffer.alloc(SIZE)
    const error = await send(this.plex(index), { op: 'read', data })
    if (error) throw error
    return data
  }

  counts(op: IoOp, plex: number): number {
    const drives = this.plex(plex).subdisks.map(({ drive }) => drive as TestDrive)
    return drives.reduce((sum, { device }) => sum + device.counts[op], 0)
  }
}

function patterned(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length)
  let word = seed * 2654435761 + 1
  for (let at = 0; at < length; at += 4) {
    word = (Math.imul(word, 1664525) + 1013904223) >>> 0
    bytes.writeUInt32LE(word, at)
  }
  return bytes
}

const CONCAT: Shape = { organization: 'concat', columns: 2 }
const STRIPED: Shape = { organization: 'striped', columns: 3 }
const RAID5: Shape = { organization: 'raid5', columns: 4 }

t.test('a sync gives stale plexes of any organisation the content of the others', async (t) => {
  for (const target of [CONCAT, STRIPED]) {
    const world = new World(CONCAT, target)
    const content = patterned(SIZE, 1)
    const plex = world.plex(1)
    for (const one of plex.subdisks) setState(one, 'stale')
    await world.write(0, content)
    t.notOk(plex.readable(0, 512), 'nothing is valid before')
    const job = await world.run(world.syncOf(1))
    t.equal(job.state, 'done', target.organization)
    t.strictSame(world.calls, ['finish'])
    t.ok((await world.content(1)).equals(content), target.organization)
    t.ok(world.counts('flush', 1) >= target.columns, 'flushed before it counts')
    t.equal(world.host.pool.leased, 0)
  }
})

t.test('rows whose units are larger than a buffer are written in slices', async (t) => {
  const host = new FakeHost()
  const stripe = 512 * 1024
  const drives = [0, 1, 2, 3].map((index) => testDrive(host, index, { sizeBytes: 2 * stripe }))
  const subdisks = drives.map((drive, index) => testSubdisk(drive, `db.p0.s${index}`, 2 * stripe))
  const record = testPlexRecord('db.p0', 'raid5', stripe)
  const plex = new Raid5Plex({ host, record, subdisks })
  const content = patterned(6 * stripe, 17)
  await fillRows(host, plex, 0, 6 * stripe, async (offset, into) => {
    content.copy(into.bytes, 0, offset, offset + into.bytes.length)
  })
  for (const missing of [undefined, 0, 3]) {
    if (missing !== undefined) setState(defined(subdisks[missing], 'a column'), 'stale')
    const found = Buffer.alloc(content.length)
    t.equal(await send(plex, { op: 'read', data: found }), undefined)
    t.ok(found.equals(content), `without s${missing}`)
    if (missing !== undefined) setState(defined(subdisks[missing], 'a column'), 'up')
  }
  for (const index of [1, 2]) setState(defined(subdisks[index], 'a column'), 'stale')
  await t.rejects(
    fillRows(host, plex, 0, 3 * stripe, async () => {}),
    { kind: 'io', message: /without db\.p0\.s1 and db\.p0\.s2/ },
  )
  t.equal(host.pool.leased, 0)
})

t.test('only what a subdisk lacks is copied', async (t) => {
  const world = new World(CONCAT, STRIPED)
  const content = patterned(SIZE, 3)
  await world.write(0, content)
  setState(world.subdisk(1, 1), 'stale')
  const before = [0, 1, 2].map((column) => world.drive(1, column).device.counts.write)
  await world.run(world.syncOf(1))
  t.ok((await world.content(1)).equals(content))
  const after = [0, 1, 2].map((column) => world.drive(1, column).device.counts.write)
  t.equal(after[0], before[0], 'a good column is not written')
  t.equal(after[2], before[2])
  t.equal(defined(after[1], 'a') - defined(before[1], 'b'), SIZE / 3 / STRIPE)
  // Dirty regions only.
  setState(world.subdisk(1, 1), 'stale')
  const missing = missingRanges(world.setup({ scope: 'dirty' }).record, SIZE, [
    { offset: 3 * STRIPE, length: 3 * STRIPE },
    { offset: SIZE - 3 * STRIPE, length: 1024 * 1024 },
  ])
  t.strictSame(missing.ranges, [
    { offset: 3 * STRIPE, length: 3 * STRIPE },
    { offset: SIZE - 3 * STRIPE, length: 3 * STRIPE },
  ])
  const plan = world.syncOf(1, missing)
  t.equal(plan.startBytes, 3 * STRIPE)
  t.ok(world.plex(1).readable(0, 3 * STRIPE), 'the rest is valid at once')
  const job = await world.run(plan)
  t.equal(job.state, 'done')
  t.equal(world.drive(1, 1).device.counts.write - defined(after[1], 'a'), 2)
})

t.test(
  'vinum.md 8.4: a full copy goes on at its cursor, and at what a crash left in doubt',
  (t) => {
    const { record } = new World(CONCAT).setup({ cursorBytes: 64 * 1024 })
    t.strictSame(missingRanges(record, SIZE, []).ranges, [{ offset: 65536, length: SIZE - 65536 }])
    t.strictSame(missingRanges(record, SIZE, [{ offset: 4096, length: 4096 }]).ranges, [
      { offset: 4096, length: 4096 },
      { offset: 65536, length: SIZE - 65536 },
    ])
    t.end()
  },
)

t.test('vinum.md 8.14: writes and reads go on during a sync, in any order', async (t) => {
  const write = fc.record({
    offset: fc.integer({ min: 0, max: SIZE / 512 - 8 }),
    blocks: fc.integer({ min: 1, max: 8 }),
    steps: fc.integer({ min: 0, max: 3 }),
    seed: fc.nat(),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(write, { minLength: 4, maxLength: 24 }),
      fc.constantFrom(CONCAT, STRIPED),
      async (writes, target) => {
        const world = new World(STRIPED, target)
        for (const one of world.plex(1).subdisks) setState(one, 'stale')
        const content = patterned(SIZE, 5)
        await world.write(0, content)
        const plan = world.syncOf(1)
        const copied = (async () => {
          for (let at = plan.startBytes; at < SIZE; ) at = await plan.step(at, 12288, job)
        })()
        const pending: Promise<void>[] = []
        for (const { offset, blocks, steps, seed } of writes) {
          const data = patterned(blocks * 512, seed)
          for (let i = 0; i < steps; i++) await new Promise((next) => setImmediate(next))
          // One at a time at each place: the order of overlapping ones is not ours to know.
          await Promise.all(pending.splice(0))
          pending.push(world.write(offset * 512, data))
          data.copy(content, offset * 512)
        }
        await Promise.all([...pending, copied])
        await plan.finish(job)
        const legs = [await world.content(0), await world.content(1)]
        return legs.every((leg) => leg.equals(content)) && world.host.pool.leased === 0
      },
    ),
    { numRuns: 25 },
  )
  t.pass('both plexes have every write')
})

/** For steps that are called without a manager. */
const job = { skip: () => {}, mismatches: 0 } as unknown as Job

t.test('vinum.md 8.6: a failed copy never counts as synced', async (t) => {
  const content = patterned(SIZE, 6)
  const fresh = async (): Promise<World> => {
    const world = new World(CONCAT, STRIPED)
    for (const one of world.plex(1).subdisks) setState(one, 'stale')
    await world.write(0, content)
    return world
  }
  const unread = await fresh()
  // At once, and then the piece that lies there.
  unread.drive(0, 1).device.fail('read', 'io', 2)
  const failed = await unread.run(unread.syncOf(1))
  t.equal(failed.state, 'failed')
  t.strictSame(unread.calls, ['abandon failed'])
  t.match(failed.report().error, /injected/)
  t.notOk(unread.plex(1).readable(0, SIZE), 'and is not read')
  t.equal((await unread.run(unread.syncOf(1))).state, 'done', 'it may be tried again')
  t.ok((await unread.content(1)).equals(content))
  const unwritten = await fresh()
  unwritten.drive(1, 2).device.fail('write', 'io', 1)
  t.equal((await unwritten.run(unwritten.syncOf(1))).state, 'failed')
  t.equal(unwritten.subdisk(1, 2).errors.write, 1)
  const unflushed = await fresh()
  unflushed.drive(1, 0).device.fail('flush', 'io', 1)
  t.equal((await unflushed.run(unflushed.syncOf(1))).state, 'failed', 'nor one that is not durable')
  const lost = await fresh()
  const plan = lost.syncOf(1)
  await plan.step(0, 4096, job)
  setState(lost.subdisk(1, 0), 'stale')
  await t.rejects(plan.step(4096, 4096, job), { message: /s0 is stale/ })
  await t.rejects(plan.finish(job), { message: /s0 is stale/ }, 'vinum.md 8.8')
  const pulled = await fresh()
  const other = pulled.syncOf(1)
  pulled.drive(1, 0).pull()
  await t.rejects(other.step(0, 4096, job), { message: /lost its drive/ })
  for (const world of [unread, unwritten, unflushed, lost, pulled]) {
    t.equal(world.host.pool.leased, 0)
    // docs/vinum.md, 8.15: whatever failed, no lock is left.
    await world.io.lock(0, SIZE, 'all').then((release) => release())
  }
})

t.test('a sync reads what one plex cannot give from the next one', async (t) => {
  const world = new World(CONCAT, STRIPED, CONCAT)
  for (const one of world.plex(1).subdisks) setState(one, 'stale')
  const content = patterned(SIZE, 7)
  await world.write(0, content)
  world.drive(0, 0).device.fail('read', 'io', 1)
  world.drive(2, 1).device.fail('read', 'io', 1)
  t.equal((await world.run(world.syncOf(1))).state, 'done')
  t.ok((await world.content(1)).equals(content))
})

/** Lets reads of a block fail until it is written. */
function spoil(plex: Plex, at: number): void {
  const start = plex.start.bind(plex)
  let isBad = true
  plex.start = (request, onMissed) => {
    const covers = request.offset <= at && at < request.offset + request.length
    if (covers && request.op !== 'read') isBad = false
    if (!covers || !isBad) start(request, onMissed)
    else {
      const error = new PlexusError('io', { op: 'read', subject: 'db', message: 'bad sector' })
      queueMicrotask(() => request.complete(error))
    }
  }
}

/** As a map in which one range may differ. */
function firstIn(range: ByteRange) {
  return (from: number, most: number): ByteRange | undefined => {
    const offset = Math.max(from, range.offset)
    const length = Math.min(most, range.offset + range.length - offset)
    return length > 0 ? { offset, length } : undefined
  }
}

t.test('a resync makes what a crash left different equal, and nothing else is read', async (t) => {
  const world = new World(CONCAT, STRIPED, CONCAT)
  const content = patterned(SIZE, 8)
  await world.write(0, content)
  const torn = patterned(8192, 9)
  for (const index of [1, 2])
    await send(world.plex(index), { op: 'write', offset: 16384, data: torn })
  const reads = world.counts('read', 0)
  const equal: ByteRange[] = []
  const plan = resyncPlan({
    ...world.setup({ kind: 'resync' }),
    io: world.io,
    plexes: world.plexes,
    nextUnsynced: firstIn({ offset: 16384, length: 16384 }),
    onEqual: (offset, length) => equal.push({ offset, length }),
  })
  t.equal(plan.startBytes, 16384)
  t.equal((await world.run(plan)).state, 'done')
  t.equal(world.counts('read', 0) - reads, 1, 'one region of the source')
  for (const index of [0, 1, 2]) t.ok((await world.content(index)).equals(content), `p${index}`)
  t.strictSame(equal, [{ offset: 16384, length: 16384 }])
  t.equal(world.host.pool.leased, 0)
})

t.test(
  'nobody reads what a resync is writing: the copy that counts may fail meanwhile',
  async (t) => {
    const world = new World(CONCAT, CONCAT)
    const [one, two] = [patterned(SIZE, 10), patterned(SIZE, 11)]
    await send(world.plex(0), { op: 'write', offset: 0, data: one })
    await send(world.plex(1), { op: 'write', offset: 0, data: two })
    const copy = world.plex(1)
    const start = copy.start.bind(copy)
    const held: (() => void)[] = []
    copy.start = (request, missed) => {
      if (request.op === 'write') held.push(() => start(request, missed))
      else start(request, missed)
    }
    const running = world.run(
      resyncPlan({
        ...world.setup({ kind: 'resync' }),
        io: world.io,
        plexes: world.plexes,
        nextUnsynced: firstIn({ offset: 0, length: 8192 }),
        onEqual: () => {},
      }),
    )
    while (held.length === 0) await settle()
    for (const { record } of world.plex(0).subdisks) t.equal(record.state, 'up')
    for (const subdisk of world.plex(0).subdisks) setState(subdisk as PlacedSubdisk, 'down')
    const data = Buffer.alloc(4096)
    let ended = false
    const reading = send(world.io, { op: 'read', offset: 4096, data }).then((error) => {
      ended = true
      return error
    })
    await settle()
    t.notOk(ended, 'the read waits for the window')
    for (const go of held.splice(0)) go()
    await running
    t.equal(await reading, undefined)
    t.ok(data.equals(one.subarray(4096, 8192)), 'and finds what the copy that counted had')
  },
)

t.test('what a resync makes equal is durable before other copies answer for it', async (t) => {
  const world = new World(CONCAT, CONCAT)
  await send(world.plex(0), { op: 'write', offset: 0, data: patterned(SIZE, 10) })
  const copy = world.plex(1)
  const start = copy.start.bind(copy)
  const writes: boolean[] = []
  copy.start = (request, missed) => {
    if (request.op === 'write') writes.push(request.fua)
    start(request, missed)
  }
  const plan = resyncPlan({
    ...world.setup({ kind: 'resync' }),
    io: world.io,
    plexes: world.plexes,
    nextUnsynced: firstIn({ offset: 0, length: 8192 }),
    // The flush at the end of the job is too late: the power may go before, and the source with it.
    onEqual: () => t.strictSame(writes, [true]),
  })
  t.equal((await world.run(plan)).state, 'done')
})

t.test('a resync takes a copy out of service that it cannot write, and goes on', async (t) => {
  const world = new World(CONCAT, CONCAT)
  world.drive(1, 0).device.fail('write', 'io', 1)
  const plan = (): JobPlan =>
    resyncPlan({
      ...world.setup({ kind: 'resync' }),
      io: world.io,
      plexes: world.plexes,
      nextUnsynced: firstIn({ offset: 0, length: 4096 }),
      onEqual: () => {},
    })
  t.equal((await world.run(plan())).state, 'done')
  t.strictSame(
    world.host.demotions.map(([one]) => one?.record.name),
    ['db.p1.s0'],
  )
  setState(world.subdisk(1, 0), 'up')
  world.host.refuse = () => lastCopy()
  world.drive(1, 0).device.fail('write', 'io', 2)
  t.equal((await world.run(plan())).state, 'failed')
})

t.test('nor are copies equal before one that is away is out of service durably', async (t) => {
  const world = new World(CONCAT, CONCAT)
  const equal: ByteRange[] = []
  const plan = (): JobPlan =>
    resyncPlan({
      ...world.setup({ kind: 'resync' }),
      io: world.io,
      plexes: world.plexes,
      nextUnsynced: firstIn({ offset: 0, length: 4096 }),
      onEqual: (offset, length) => equal.push({ offset, length }),
    })
  setState(world.subdisk(0, 0), 'down')
  world.host.refuse = () => lastCopy()
  t.equal((await world.run(plan())).state, 'failed', 'it would come back as it is')
  t.strictSame(equal, [])
  setState(world.subdisk(0, 0), 'stale')
  world.host.refuse = () => undefined
  let isDurable = () => {}
  world.host.gate = new Promise((resolve) => {
    isDurable = resolve
  })
  const running = world.run(plan())
  await settle()
  t.strictSame(equal, [])
  isDurable()
  t.equal((await running).state, 'done')
  t.strictSame(equal, [{ offset: 0, length: 4096 }])
})

t.test('a resync takes each block from the first plex that has it', async (t) => {
  const world = new World(CONCAT, CONCAT)
  const [one, two] = [patterned(SIZE, 21), patterned(SIZE, 22)]
  await send(world.plex(0), { op: 'write', offset: 0, data: one })
  await send(world.plex(1), { op: 'write', offset: 0, data: two })
  spoil(world.plex(0), 4096)
  const plan = resyncPlan({
    ...world.setup({ kind: 'resync' }),
    io: world.io,
    plexes: world.plexes,
    nextUnsynced: firstIn({ offset: 0, length: SIZE }),
    onEqual: () => {},
  })
  t.equal((await world.run(plan)).state, 'done')
  const expected = Buffer.from(one)
  two.copy(expected, 4096, 4096, 4608)
  for (const index of [0, 1]) t.ok((await world.content(index)).equals(expected), `p${index}`)
})

t.test('a resync leaves in doubt only what cannot be read, and fails for it', async (t) => {
  const world = new World(CONCAT, CONCAT)
  const content = patterned(SIZE, 23)
  await send(world.plex(0), { op: 'write', offset: 0, data: content })
  for (const plex of world.plexes) spoil(plex, 4096)
  let equalBytes = 0
  const plan = (): JobPlan =>
    resyncPlan({
      ...world.setup({ kind: 'resync' }),
      io: world.io,
      plexes: world.plexes,
      nextUnsynced: firstIn({ offset: 0, length: SIZE }),
      onEqual: (_offset, length) => {
        equalBytes += length
      },
    })
  const job = await world.run(plan())
  t.equal(job.state, 'failed')
  t.match(job.report().error, /bad sector/)
  t.equal(equalBytes, SIZE - 65536, 'what comes after it is done')
  await send(world.plex(0), { op: 'write', offset: 4096, data: content.subarray(4096, 4608) })
  t.equal((await world.run(plan())).state, 'done', 'it was written: it may be tried again')
  t.ok((await world.content(1)).equals(content))
})

t.test('a check counts each difference once and changes nothing; a repair writes', async (t) => {
  const world = new World(CONCAT, STRIPED)
  const content = patterned(SIZE, 10)
  await world.write(0, content)
  for (const offset of [4096, 40960, SIZE - 512]) {
    await send(world.plex(1), { op: 'write', offset, data: patterned(512, offset) })
  }
  const found: Mismatch[] = []
  const checkOf = (repair: boolean): JobPlan =>
    checkPlan({
      ...world.setup({ kind: repair ? 'repair' : 'check' }),
      io: world.io,
      plexes: world.plexes,
      repair,
      onMismatch: (one) => found.push(one),
    })
  const writes = world.counts('write', 1)
  const check = await world.run(checkOf(false))
  t.match(check.report(), { state: 'done', mismatches: 3 })
  t.strictSame(
    found.map(({ plex, offset, length }) => [plex.record.name, offset, length]),
    [4096, 40960, SIZE - 4096].map((offset) => ['db.p1', offset, 4096]),
  )
  t.equal(world.counts('write', 1), writes)
  // The whole window, and then one unit of it.
  world.drive(1, 2).device.fail('read', 'io', SIZE / STRIPE / 3 + 1)
  const repair = await world.run(checkOf(true))
  t.equal(repair.state, 'done')
  t.ok(repair.mismatches > 3, 'and what cannot be read')
  t.ok((await world.content(1)).equals(content))
  t.equal((await world.run(checkOf(false))).mismatches, 0)
  t.equal(world.host.pool.leased, 0)
})

/** Moves a column to the space behind it on another drive of the world. */
function moveOf(world: World, subdisk: PlacedSubdisk, heal = true): JobPlan {
  const target = testDrive(world.host, 90, { sizeBytes: 2 * SIZE })
  const { sizeBytes } = subdisk.record
  const plex = world.plex(0)
  const setup = world.setup({ kind: 'move' })
  return movePlan({
    ...setup,
    totalBytes: sizeBytes,
    onTrouble: () => {},
    commits: {
      ...setup.commits,
      finish: async () => {
        world.calls.push('finish')
        // As the set does it: a commit takes a while.
        await new Promise((resolve) => setImmediate(resolve))
        subdisk.record = {
          ...subdisk.record,
          driveUuid: target.record.uuid,
          driveOffsetBytes: 8192,
        }
        subdisk.drive = target
      },
    },
    host: world.host,
    subdisk,
    plex,
    target,
    driveOffsetBytes: 8192,
    heal: heal ? healThroughPlex(world.host, plex, world.io, subdisk) : undefined,
  })
}

t.test('vinum.md 8.9: a move keeps all data, with writes meanwhile', async (t) => {
  const write = fc.record({
    offset: fc.integer({ min: 0, max: SIZE / 512 - 8 }),
    blocks: fc.integer({ min: 1, max: 8 }),
    steps: fc.integer({ min: 0, max: 3 }),
    op: fc.constantFrom('write', 'write', 'write', 'discard', 'write-zeroes'),
    seed: fc.nat(),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(write, { minLength: 4, maxLength: 24 }),
      fc.constantFrom(CONCAT, STRIPED, RAID5),
      async (writes, shape) => {
        const world = new World(shape)
        const content = patterned(SIZE, 11)
        await world.write(0, content)
        const subdisk = world.subdisk(0, 1)
        const plan = moveOf(world, subdisk)
        const moved = (async () => {
          for (let at = 0; at < plan.totalBytes; ) at = await plan.step(at, 4096, job)
          await plan.finish(job)
        })()
        for (const { offset, blocks, steps, op, seed } of writes) {
          const data = op === 'write' ? patterned(blocks * 512, seed) : Buffer.alloc(blocks * 512)
          for (let i = 0; i < steps; i++) await new Promise((next) => setImmediate(next))
          const at = { offset: offset * 512, length: data.length }
          const error = await send(world.io, {
            op: op as IoOp,
            ...at,
            ...(op === 'write' ? { data } : {}),
          })
          if (error) return false
          data.copy(content, at.offset)
          const back = Buffer.alloc(data.length)
          if (await send(world.io, { op: 'read', offset: at.offset, data: back })) return false
          if (!back.equals(data)) return false
        }
        await moved
        const isThere = subdisk.drive.record.name === 'd90' && subdisk.move === undefined
        return isThere && (await world.content(0)).equals(content) && world.host.pool.leased === 0
      },
    ),
    { numRuns: 25 },
  )
  t.pass('nothing is lost')
})

t.test('a write that was under way when the move began is in the copy', async (t) => {
  const world = new World(CONCAT)
  const content = patterned(SIZE, 15)
  await world.write(0, content)
  const { device } = world.drive(0, 0)
  const submit = device.submit.bind(device)
  let later: (() => void) | undefined
  device.submit = (request) => {
    if (request.op === 'write' && !later) later = () => submit(request)
    else submit(request)
  }
  const data = patterned(512, 16)
  data.copy(content, 1024)
  const slow = world.write(1024, data)
  const plan = moveOf(world, world.subdisk(0, 0))
  const step = plan.step(0, plan.totalBytes, job)
  await settle(20)
  later?.()
  await Promise.all([slow, step])
  await plan.finish(job)
  t.ok((await world.content(0)).equals(content))
})

t.test('the old place serves until the end, and a failed move leaves it as it was', async (t) => {
  const content = patterned(SIZE, 12)
  const fresh = async (): Promise<{ world: World; subdisk: PlacedSubdisk }> => {
    const world = new World(CONCAT)
    await world.write(0, content)
    return { world, subdisk: world.subdisk(0, 0) }
  }
  const { world, subdisk } = await fresh()
  const plan = moveOf(world, subdisk)
  await plan.step(0, 8192, job)
  const move = defined(subdisk.move, 'the move')
  t.equal(move.copiedBytes, 8192)
  const target = move.drive as TestDrive
  target.device.fail('write', 'io', 1)
  const data = patterned(512, 13)
  await world.write(4096, data)
  data.copy(content, 4096)
  t.equal(subdisk.errors.write, 0, 'a write that only the new place missed is no error')
  await t.rejects(plan.step(8192, 4096, job), { message: /injected/ })
  await plan.abandon(job, 'failed')
  t.equal(subdisk.move, undefined)
  t.strictSame(world.calls, ['abandon failed'])
  t.ok((await world.content(0)).equals(content))
  const cancelled = await fresh()
  const other = moveOf(cancelled.world, cancelled.subdisk)
  await other.step(0, 8192, job)
  setState(cancelled.subdisk, 'stale')
  await t.rejects(other.step(8192, 4096, job), { message: /is stale/ })
  const unflushed = await fresh()
  const last = moveOf(unflushed.world, unflushed.subdisk)
  await last.step(0, SIZE, job)
  const place = defined(unflushed.subdisk.move, 'the move').drive as TestDrive
  place.device.fail('flush', 'io', 1)
  await t.rejects(last.finish(job), { message: /injected/ })
  t.strictSame(unflushed.world.calls, [])
  t.notOk(moveOf((await fresh()).world, subdisk).startBytes, 'each run begins anew')
  const gone = await fresh()
  const lost = moveOf(gone.world, gone.subdisk)
  await lost.step(0, 4096, job)
  ;(defined(gone.subdisk.move, 'the move').drive as TestDrive).pull()
  await t.rejects(lost.step(4096, 4096, job), { kind: 'gone', message: /d90/ })
})

t.test('a bad sector of the old place is healed from redundancy, or fails the move', async (t) => {
  for (const shapes of [[CONCAT, CONCAT], [STRIPED, CONCAT], [RAID5]]) {
    const world = new World(...shapes)
    const content = patterned(SIZE, 14)
    await world.write(0, content)
    const subdisk = world.subdisk(0, 1)
    const { device } = world.drive(0, 1)
    const [at, end] = [4096 + 2048, 4096 + 2048 + 512]
    let bad = true
    const submit = device.submit.bind(device)
    device.submit = (request) => {
      const touches = request.offset < end && request.offset + request.length > at
      if (request.op === 'write' && touches) bad = false
      if (request.op === 'read' && touches && bad) device.fail('read', 'io', 1)
      submit(request)
    }
    t.equal((await world.run(moveOf(world, subdisk))).state, 'done', `${shapes[0]?.organization}`)
    t.notOk(bad, 'it was written again')
    t.ok((await world.content(0)).equals(content))
    t.equal(subdisk.errors.read > 0, true)
    t.equal(world.host.pool.leased, 0)
  }
  const plain = new World(CONCAT)
  plain.drive(0, 1).device.fail('read', 'io', 1)
  const failed = await plain.run(moveOf(plain, plain.subdisk(0, 1), false))
  t.equal(failed.state, 'failed')
  plain.drive(0, 1).device.fail('read', 'io', 1)
  t.equal((await plain.run(moveOf(plain, plain.subdisk(0, 1)))).state, 'failed', 'no other copy')
})

t.test('a subdisk without its drive says so, never from within', async (t) => {
  const world = new World(CONCAT)
  const subdisk = world.subdisk(0, 0)
  t.ok(subdisk.writable)
  world.drive(0, 0).pull()
  t.notOk(subdisk.writable)
  const error = await send(
    { start: (request) => subdisk.forward(request, 0, 512, 0) },
    { op: 'read', data: Buffer.alloc(512) },
  )
  t.match(error, { kind: 'gone', message: /db\.p0\.s0.*d0/ })
})
