/**
 * Steps of jobs in slices, several at once: the order, the end after a failure, and that drives which have a rate of
 * their own are kept at work (the sync of a mirror, the steps of raid5), with requests meanwhile.
 */

import t from 'tap'
import { defined } from '../../../../src/base/assert.ts'
import { PlexusError } from '../../../../src/base/errors.ts'
import {
  JOB_SLICE_BYTES,
  JOB_STEP_ALONE_BYTES,
  JOB_STEP_BYTES,
  KIB,
  MIB,
} from '../../../../src/base/limits.ts'
import { RangeSet } from '../../../../src/base/range-set.ts'
import { EventLog } from '../../../../src/engine/geom/events.ts'
import { JobManager } from '../../../../src/engine/jobs/job.ts'
import { inSlices, partsOf } from '../../../../src/engine/jobs/slices.ts'
import { LinearPlex } from '../../../../src/engine/vinum/io/plex-linear.ts'
import { VolumeIo } from '../../../../src/engine/vinum/io/volume-io.ts'
import { checkPlan, type Mismatch } from '../../../../src/engine/vinum/jobs/mirror-jobs.ts'
import { syncPlan } from '../../../../src/engine/vinum/jobs/sync.ts'
import {
  checkStep,
  initialiseStep,
  rebuildStep,
} from '../../../../src/engine/vinum/raid5/row-jobs.ts'
import type { AlignedBuffer, IoRequest } from '../../../../src/hal/block-device.ts'
import { ManualClock } from '../../../support/manual-clock.ts'
import { pictureRow, Raid5Rig } from '../../../support/raid5-rig.ts'
import {
  FakeHost,
  send,
  setState,
  type TestDrive,
  testDrive,
  testPlexRecord,
  testSubdisk,
} from '../../../support/vinum-host.ts'

/** 400 MB/s. */
const BYTES_PER_MS = 400_000
const TICK_MS = 0.02

/** Drives that each do one request after the other, on a clock of their own. */
class Pace {
  readonly clock = new ManualClock()
  readonly busyMs = new Map<TestDrive, number>()

  constructor(drives: readonly TestDrive[]) {
    for (const drive of drives) {
      const submit = drive.device.submit.bind(drive.device)
      let freeMs = 0
      drive.device.submit = (request) => {
        const ms = request.length / BYTES_PER_MS
        this.busyMs.set(drive, (this.busyMs.get(drive) ?? 0) + ms)
        freeMs = Math.max(freeMs, this.clock.nowMs()) + ms
        this.clock.after(freeMs - this.clock.nowMs(), () => submit(request))
      }
    }
  }

  /** Lets time pass until `work` ends; resolves to the milliseconds that it took. */
  async run(work: Promise<unknown>): Promise<number> {
    let ended = false
    const end = (): void => {
      ended = true
    }
    work.then(end, end)
    const startMs = this.clock.nowMs()
    while (!ended) {
      this.clock.advance(TICK_MS)
      // A completion comes in the next turn of the event loop.
      await new Promise((resolve) => setImmediate(resolve))
    }
    await work
    return this.clock.nowMs() - startMs
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

t.test('slices begin in order, each with a buffer to itself', async (t) => {
  const buffers = partsOf({ bytes: Buffer.alloc(3 * 4096), address: 0 }, 4096)
  t.equal(buffers.length, 3)
  const begun: number[] = []
  const going = new Map<number, { readonly address: number; readonly end: () => void }>()
  const work = inSlices(10, 65, 10, buffers, (at, length, { address }) => {
    begun.push(at)
    t.equal(length, at === 60 ? 5 : 10)
    t.notOk([...going.values()].some((one) => one.address === address))
    return new Promise((resolve) => going.set(at, { address, end: resolve }))
  })
  const end = async (at: number): Promise<void> => {
    const { end } = defined(going.get(at), `slice ${at}`)
    going.delete(at)
    end()
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.strictSame(begun, [10, 20, 30], 'as many as there are buffers')
  await end(20)
  t.strictSame(begun, [10, 20, 30, 40])
  for (const at of [40, 10, 30, 50, 60]) await end(at)
  t.strictSame(begun, [10, 20, 30, 40, 50, 60])
  await work
  await inSlices(5, 5, 10, buffers, () => Promise.reject(new Error('nothing is to be done')))
})

t.test('after a failure no slice begins, and those under way end first', async (t) => {
  const buffers = partsOf({ bytes: Buffer.alloc(2 * 4096), address: 0 }, 4096)
  const begun: number[] = []
  let endFirst = (): void => {}
  let settled = false
  const work = inSlices(0, 100, 10, buffers, async (at) => {
    begun.push(at)
    if (at === 0) await new Promise<void>((resolve) => (endFirst = resolve))
    else throw new PlexusError('io', { op: 'test', subject: 'test', message: `at ${at}` })
  })
  const seen = work.catch((error: Error) => {
    settled = true
    return error
  })
  await new Promise((resolve) => setImmediate(resolve))
  t.strictSame(begun, [0, 10])
  t.notOk(settled)
  endFirst()
  t.match(await seen, { message: 'at 10' })
  t.strictSame(begun, [0, 10])
})

/** A mirror of two drives; the second copy is to be filled. */
class Mirror {
  readonly host = new FakeHost()
  readonly drives: readonly TestDrive[]
  readonly plexes: readonly LinearPlex[]
  readonly io: VolumeIo
  readonly content: Buffer
  readonly mismatches: Mismatch[] = []

  constructor(sizeBytes: number) {
    this.content = patterned(sizeBytes, 5)
    this.drives = [0, 1].map((index) => testDrive(this.host, index, { sizeBytes }))
    this.plexes = this.drives.map((drive, index) => {
      const record = testPlexRecord(`db.p${index}`, 'concat', 0)
      const subdisks = [testSubdisk(drive, `db.p${index}.s0`, sizeBytes)]
      return new LinearPlex({ host: this.host, record, subdisks })
    })
    const form = {
      readPolicy: 'round-robin',
      preferredPlexUuid: undefined,
      map: undefined,
    } as const
    this.io = new VolumeIo({ name: 'db', host: this.host, plexes: this.plexes, ...form })
    this.host.volume = this.io
    this.content.copy(this.media(0))
  }

  media(index: number): Buffer {
    return this.drive(index).device.media
  }

  drive(index: number): TestDrive {
    return defined(this.drives[index], `drive ${index}`)
  }

  get target() {
    return defined(this.plexes[1]?.subdisks[0], 'the subdisk that is filled')
  }

  setup(kind: 'sync' | 'check') {
    const record = { id: 'j1', kind, targetUuid: 'db.p1', cursorBytes: 0, scope: 'all' } as const
    const commits = {
      checkpoint: async () => {},
      finish: async () => setState(this.target, 'up'),
      abandon: async () => setState(this.target, 'stale'),
    }
    return {
      record: { ...record, paused: false, limitBytesPerSecond: undefined, mismatches: 0 },
      object: 'db',
      parent: 'db',
      totalBytes: this.content.length,
      commits,
      host: this.host,
    }
  }

  startSync(clock: ManualClock) {
    const plex = defined(this.plexes[1], 'the plex that is filled')
    setState(this.target, 'reviving')
    const missing = new RangeSet([{ offset: 0, length: this.content.length }])
    const subdisks = [this.target]
    const read = (offset: number, into: AlignedBuffer) => this.io.readExcept(plex, offset, into)
    return this.manager(clock).start(
      syncPlan({ ...this.setup('sync'), plex, subdisks, missing, read }),
    )
  }

  manager(clock: ManualClock): JobManager {
    return new JobManager({ clock, log: this.host.log, events: new EventLog(() => new Date(0)) })
  }
}

t.test('a sync keeps source and target at work', async (t) => {
  const mirror = new Mirror(24 * MIB)
  const pace = new Pace(mirror.drives)
  const job = mirror.startSync(pace.clock)
  const ms = await pace.run(job.ended)
  t.equal(job.state, 'done')
  t.ok(mirror.media(1).equals(mirror.content))
  for (const drive of mirror.drives) {
    const share = defined(pace.busyMs.get(drive), 'time at work') / ms
    t.ok(share > 0.85, `${drive.record.name} is at work ${share} of the time`)
  }
  t.equal(mirror.io.locks.size, 0)
  t.equal(mirror.host.pool.leased, 0)
})

t.test('a sync under writes: equal copies, and steps no longer than a step', async (t) => {
  const mirror = new Mirror(8 * MIB)
  const pace = new Pace(mirror.drives)
  const lock = mirror.io.lock.bind(mirror.io)
  let longest = 0
  mirror.io.lock = (offset, length, mode) => {
    longest = Math.max(longest, length)
    return lock(offset, length, mode)
  }
  const job = mirror.startSync(pace.clock)
  const writing = (async () => {
    for (let round = 0; job.state === 'running'; round++) {
      const lanes = [0, 1, 2].map(async (lane) => {
        const data = patterned(4 * KIB, 100 + round * 3 + lane)
        const offset = ((round * 7919 + lane * 4099) % 2048) * 4 * KIB
        data.copy(mirror.content, offset)
        const error = await send(mirror.io, { op: 'write', offset, data })
        if (error) throw error
      })
      await Promise.all(lanes)
    }
  })()
  await pace.run(Promise.all([job.ended, writing]))
  t.equal(job.state, 'done')
  t.ok(longest <= JOB_STEP_BYTES, `at most ${longest} bytes are locked while others write`)
  for (const index of [0, 1]) t.ok(mirror.media(index).equals(mirror.content), `copy ${index}`)
})

t.test('8.6: a slice that fails, fails the sync, and none of its window is valid', async (t) => {
  const mirror = new Mirror(8 * MIB)
  const { device } = mirror.drive(1)
  const submit = device.submit.bind(device)
  const bad = 3 * MIB + 2 * JOB_SLICE_BYTES
  device.submit = (request: IoRequest) => {
    if (request.op === 'write' && request.offset === bad) device.fail('write', 'io')
    submit(request)
  }
  const job = mirror.startSync(new ManualClock())
  t.equal(await job.ended, 'failed')
  t.equal(job.doneBytes, JOB_STEP_BYTES, 'the step before it is all that counts')
  t.equal(mirror.target.record.state, 'stale')
  t.equal(mirror.target.missing?.next(0, 512)?.offset, JOB_STEP_BYTES)
  t.equal(mirror.io.locks.size, 0)
  t.equal(mirror.host.pool.leased, 0)
})

t.test('a check finds each unit that differs, wherever it lies in a window', async (t) => {
  const mirror = new Mirror(8 * MIB)
  mirror.content.copy(mirror.media(1))
  const places = [0, JOB_SLICE_BYTES - 4096, MIB, 5 * MIB + 4096, 8 * MIB - 4096]
  for (const at of places) mirror.media(1)[at + 9] = (mirror.media(1)[at + 9] ?? 0) ^ 1
  const { plexes } = mirror
  const onMismatch = (one: Mismatch) => mirror.mismatches.push(one)
  const plan = checkPlan({
    ...mirror.setup('check'),
    io: mirror.io,
    plexes,
    repair: true,
    onMismatch,
  })
  const pace = new Pace(mirror.drives)
  const job = mirror.manager(pace.clock).start(plan)
  const ms = await pace.run(job.ended)
  t.equal(job.state, 'done')
  t.equal(job.mismatches, places.length)
  const found = mirror.mismatches.map(({ offset }) => offset)
  t.strictSame(
    found.sort((a, b) => a - b),
    places,
  )
  t.ok(mirror.media(1).equals(mirror.content), 'and repairs it')
  const share = defined(pace.busyMs.get(mirror.drive(1)), 'time at work') / ms
  t.ok(share > 0.85, `at work ${share} of the time`)
})

function parityColumns({ columns, parityLayout, rows }: Raid5Rig): readonly number[] {
  return Array.from({ length: rows }, (_, row) =>
    pictureRow(columns, parityLayout, row).indexOf(-1),
  )
}

t.test('the steps of raid5 keep all drives at work', async (t) => {
  const rig = new Raid5Rig({ columns: 5, stripeBytes: 256 * KIB, rows: 16 })
  rig.fill()
  const pace = new Pace(rig.drives)
  const most = 4 * JOB_STEP_ALONE_BYTES
  const atWork = async (what: string, work: Promise<unknown>): Promise<void> => {
    pace.busyMs.clear()
    const ms = await pace.run(work)
    for (const drive of rig.drives) {
      const share = defined(pace.busyMs.get(drive), 'time at work') / ms
      t.ok(share > 0.85, `${what}: ${drive.record.name} is at work ${share} of the time`)
    }
    t.strictSame(rig.differences(), [], what)
    rig.assertAtRest()
  }
  const lost = rig.subdisk(2)
  for (let row = 0; row < rig.rows; row++) rig.unit(2, row).fill(0xee)
  setState(lost, 'reviving')
  const missing = new RangeSet([{ offset: 0, length: rig.plex.sizeBytes }])
  lost.missing = missing
  await atWork('rebuild', rebuildStep(rig.plex, lost, 0, most))
  t.ok(missing.isEmpty)
  setState(lost, 'up')
  for (const [row, column] of parityColumns(rig).entries()) rig.unit(column, row).fill(0xee)
  await atWork('initialise', initialiseStep(rig.plex, 0, most))
  const checked = checkStep(rig.plex, 0, most, { repair: false })
  await atWork('check', checked)
  t.strictSame(await checked, { offset: rig.plex.sizeBytes, mismatches: [] })

  // A row that differs in two slices counts once, at its first byte.
  const unit = rig.unit(defined(parityColumns(rig)[6], 'the parity of row 6'), 6)
  for (const at of [70_000, 200_000]) unit[at] = (unit[at] ?? 0) ^ 1
  const repaired = checkStep(rig.plex, 0, most, { repair: true })
  await pace.run(repaired)
  t.strictSame((await repaired).mismatches, [6 * 4 * 256 * KIB + 70_000])
  t.equal(rig.host.errors.filter(({ op }) => op === 'parity').length, 1)
  t.strictSame(rig.differences(), [])
})
