/**
 * Growth of striped and raid5 plexes: content and parity, requests meanwhile, failures, and a cut of power at
 * every single write (docs/vinum.md, 8.3, 8.4, 8.5, 8.14).
 */

import t, { type Test } from 'tap'
import { assert, defined } from '../../../../src/base/assert.ts'
import { PlexusError } from '../../../../src/base/errors.ts'
import { GROW_RETRY_MS } from '../../../../src/base/limits.ts'
import { RangeSet } from '../../../../src/base/range-set.ts'
import type { Job } from '../../../../src/engine/jobs/job.ts'
import { LinearPlex } from '../../../../src/engine/vinum/io/plex-linear.ts'
import { VolumeIo } from '../../../../src/engine/vinum/io/volume-io.ts'
import {
  finishWindow,
  type GrowOptions,
  growPlan,
  type Window,
} from '../../../../src/engine/vinum/jobs/grow.ts'
import type { BackupArea } from '../../../../src/engine/vinum/jobs/grow-backup.ts'
import type {
  GrowthRecord,
  JobRecord,
  ParityLayout,
  PlexRecord,
} from '../../../../src/engine/vinum/model/model.ts'
import { createLayout, parityColumn } from '../../../../src/engine/vinum/raid5/layout.ts'
import { Raid5Plex } from '../../../../src/engine/vinum/raid5/plex-raid5.ts'
import { rebuildStep } from '../../../../src/engine/vinum/raid5/row-jobs.ts'
import type { Plex } from '../../../../src/engine/vinum/runtime.ts'
import type { IoRequest } from '../../../../src/hal/block-device.ts'
import { readAt, writeAt } from '../../../../src/hal/io.ts'
import type { ManualClock } from '../../../support/manual-clock.ts'
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

const STRIPE = 4096
/** Where the subdisks lie; before and behind them is somebody else's. */
const DATA_AT = 8192
const FOREIGN = 0xee

interface Case {
  readonly organization: 'striped' | 'raid5'
  readonly parityLayout?: ParityLayout
  readonly before: number
  readonly after: number
  readonly rows: number
  /** Rows of the new layout that fit a journal area. */
  readonly journalRows: number
}

function dataColumns({ organization }: Case, columns: number): number {
  return organization === 'raid5' ? columns - 1 : columns
}

function recordOf(one: Case, growth: GrowthRecord | undefined): PlexRecord {
  return testPlexRecord('db.p0', one.organization, STRIPE, {
    ...(one.parityLayout ? { parityLayout: one.parityLayout } : {}),
    growth,
  })
}

const JOB: JobRecord = {
  id: 'j1',
  kind: 'grow',
  targetUuid: 'db.p0',
  cursorBytes: 0,
  scope: 'all',
  paused: false,
  limitBytesPerSecond: undefined,
  mismatches: 0,
}
const NO_JOB = {} as Job

/** A plex on memory devices with the durable growth record beside them; may be built again on what a cut left. */
class World {
  readonly host = new FakeHost()
  readonly drives: readonly TestDrive[]
  readonly plex: Plex & { record: PlexRecord }
  readonly options: GrowOptions
  /** What the set's configuration says durably. */
  durable: GrowthRecord | undefined
  /** Called at each write and each commit; true: the power is cut now. */
  onChange: (request: IoRequest | undefined, drive: TestDrive | undefined) => boolean = () => false
  dead = false
  finished = 0
  /** Windows in the intent map, and whether each was whole in the end. */
  readonly announced: Window[] = []
  readonly ended: boolean[] = []

  readonly one: Case

  constructor(one: Case, media: readonly Buffer[] | undefined, growth: GrowthRecord | undefined) {
    this.one = one
    const size = one.rows * STRIPE
    const journalAt = DATA_AT + size + DATA_AT
    const rowBytes = dataColumns(one, one.after) * STRIPE
    const journalBytes = one.journalRows * rowBytes
    this.drives = Array.from({ length: one.after }, (_, index) => {
      const drive = testDrive(this.host, index, { sizeBytes: journalAt + journalBytes })
      const { device } = drive
      device.media = media?.[index] ?? Buffer.alloc(journalAt + journalBytes, FOREIGN)
      const submit = device.submit.bind(device)
      device.submit = (request) => {
        if (!this.dead && request.op === 'write' && this.onChange(request, drive)) this.dead = true
        if (!this.dead) submit(request)
      }
      return drive
    })
    const subdisks = this.drives.map((drive, index) =>
      testSubdisk(drive, `db.p0.s${index}`, size, {
        driveOffsetBytes: DATA_AT,
        plexOffsetBytes: index * STRIPE,
      }),
    )
    this.durable = growth
    const record = recordOf(one, growth)
    const init = { host: this.host, record, subdisks }
    this.plex = one.organization === 'raid5' ? new Raid5Plex(init) : new LinearPlex(init)
    this.options = {
      record: JOB,
      object: 'db.p0',
      parent: 'db',
      totalBytes: 0,
      commits: {
        checkpoint: async () => {},
        finish: async () => {
          this.finished++
          this.durable = undefined
          this.plex.record = recordOf(one, undefined)
        },
        abandon: async () => {},
      },
      host: this.host,
      plex: this.plex,
      contentBytes: Number.POSITIVE_INFINITY,
      announce: async (window) => {
        this.announced.push(window)
        return (whole) => this.ended.push(whole)
      },
      backupAreas: () => this.drives.filter(({ consumer }) => consumer).map(areaOf),
      commitGrowth: async (next) => {
        await new Promise((resolve) => setImmediate(resolve))
        if (this.dead) return new Promise(() => {})
        if (this.onChange(undefined, undefined)) {
          this.dead = true
          return new Promise(() => {})
        }
        this.durable = next
        this.plex.record = recordOf(one, next)
      },
    }
    function areaOf(drive: TestDrive): BackupArea {
      const device = defined(drive.consumer, 'a drive that is there')
      return {
        driveUuid: drive.record.uuid,
        bytes: journalBytes,
        async read(offset, length) {
          const into = { bytes: Buffer.alloc(length), address: 0 }
          await readAt(device, into, journalAt + offset)
          return into
        },
        write: (offset, from) => writeAt(device, from, journalAt + offset, { fua: true }),
      }
    }
  }

  /** Writes as the old layout holds them before the growth. */
  async fill(content: Buffer): Promise<void> {
    const old = this.drives.slice(0, this.one.before).map((_, index) => this.plex.subdisks[index])
    const init = {
      host: this.host,
      record: recordOf(this.one, undefined),
      subdisks: old.map((subdisk) => defined(subdisk, 'an old column')),
    }
    const plex = this.one.organization === 'raid5' ? new Raid5Plex(init) : new LinearPlex(init)
    const error = await send(plex, { op: 'write', data: content, fua: true })
    if (error) throw error
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const data = Buffer.alloc(length)
    const error = await send(this.plex, { op: 'read', offset, data })
    if (error) throw error
    return data
  }

  async write(offset: number, data: Buffer): Promise<void> {
    const error = await send(this.plex, { op: 'write', offset, data, fua: true })
    if (error) throw error
  }

  /** All steps from where the record is; `between` runs after each. */
  async grow(between: () => Promise<void> = async () => {}): Promise<void> {
    await finishWindow(this.options)
    const plan = growPlan(this.options)
    for (let offset = plan.startBytes; offset < plan.totalBytes; ) {
      offset = await plan.step(offset, 3 * STRIPE, NO_JOB)
      await between()
    }
    await plan.finish(NO_JOB)
  }

  /** The next write of data on a drive fails; its journal area works. */
  failData(index: number): void {
    const { device } = defined(this.drives[index], 'a drive')
    const submit = device.submit
    device.submit = (request) => {
      const isData = request.op === 'write' && request.offset < DATA_AT + this.one.rows * STRIPE
      if (isData) device.submit = submit
      if (isData) device.fail('write', 'io', 1)
      submit(request)
    }
  }

  /** Gives a column what it has missed in the content of a window, as far as the map of the volume reaches. */
  async rebuild(index: number, { offsetBytes, lengthBytes }: Window): Promise<void> {
    const { plex } = this
    assert(plex instanceof Raid5Plex, 'a raid5')
    const column = defined(plex.subdisks[index], 'a column')
    const end = Math.min(offsetBytes + lengthBytes, plex.sizeBytes)
    column.missing = new RangeSet([{ offset: offsetBytes, length: end - offsetBytes }])
    setState(column, 'reviving')
    for (let at = offsetBytes; at < end; ) at = await rebuildStep(plex, column, at, end - at)
    setState(column, 'up')
    column.missing = undefined
  }

  /** Is parity right in every row, and everything outside the subdisks as it was? */
  check(t: Test): void {
    const { one, drives } = this
    for (const { device } of drives) {
      const around = [
        device.media.subarray(0, DATA_AT),
        device.media.subarray(DATA_AT + one.rows * STRIPE, DATA_AT + one.rows * STRIPE + DATA_AT),
      ]
      if (!around.every((part) => part.every((byte) => byte === FOREIGN))) {
        t.fail('vinum.md 8.5: a neighbour was overwritten')
      }
    }
    if (one.organization !== 'raid5') return
    for (let at = DATA_AT; at < DATA_AT + one.rows * STRIPE; at++) {
      let sum = 0
      for (const { device } of drives) sum ^= device.media[at] ?? 0
      if (sum === 0) continue
      t.fail(`parity of the row at ${at - DATA_AT} is wrong`)
      return
    }
  }
}

function growing(one: Case): GrowthRecord {
  return { columnsBefore: one.before, cursorBytes: 0, backup: undefined }
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

async function started(one: Case): Promise<{ world: World; content: Buffer }> {
  const world = new World(one, undefined, growing(one))
  const content = patterned(dataColumns(one, one.before) * one.rows * STRIPE, one.rows)
  await world.fill(content)
  return { world, content }
}

const CASES: readonly Case[] = [
  { organization: 'striped', before: 2, after: 3, rows: 11, journalRows: 2 },
  { organization: 'striped', before: 1, after: 4, rows: 7, journalRows: 1 },
  { organization: 'striped', before: 5, after: 6, rows: 13, journalRows: 3 },
  { organization: 'raid5', before: 3, after: 4, rows: 12, journalRows: 2 },
  { organization: 'raid5', before: 4, after: 6, rows: 9, journalRows: 1 },
  {
    organization: 'raid5',
    parityLayout: 'left-asymmetric',
    before: 4,
    after: 5,
    rows: 14,
    journalRows: 3,
  },
]

function titleOf({ organization, before, after, rows }: Case): string {
  return `${organization} ${before} to ${after} columns, ${rows} rows`
}

t.test(
  'vinum.md 8.3: all data is there after a growth, in new rows with right parity',
  async (t) => {
    for (const one of CASES) {
      const { world, content } = await started(one)
      await world.grow()
      const size = dataColumns(one, one.after) * one.rows * STRIPE
      t.equal(world.plex.sizeBytes, size, titleOf(one))
      const all = await world.read(0, size)
      t.ok(all.subarray(0, content.length).equals(content), `${titleOf(one)}: the content`)
      t.ok(
        all.subarray(content.length).every((byte) => byte === 0),
        'what a disk held before cannot be read',
      )
      world.check(t)
      t.equal(world.finished, 1)
      t.equal(world.host.pool.leased, 0)
    }
  },
)

t.test(
  'vinum.md 8.14: every part is served at every point of the growth, and written',
  async (t) => {
    for (const one of CASES) {
      const { world, content } = await started(one)
      let round = 0
      await world.grow(async () => {
        round++
        t.ok((await world.read(0, content.length)).equals(content), `${titleOf(one)}: ${round}`)
        for (const at of [0, 0.3, 0.5, 0.8]) {
          const offset = Math.floor((content.length * at) / 512) * 512 + 512 * (round % 3)
          const data = patterned(1024, round + at)
          await world.write(offset, data)
          data.copy(content, offset)
        }
      })
      t.ok((await world.read(0, content.length)).equals(content), titleOf(one))
      world.check(t)
    }
  },
)

t.test('requests under way while a volume grows are kept off the window alone', async (t) => {
  for (const one of CASES) {
    const { world, content } = await started(one)
    const io = new VolumeIo({
      name: 'db',
      host: world.host,
      plexes: [world.plex],
      readPolicy: 'round-robin',
      preferredPlexUuid: undefined,
      map: undefined,
    })
    world.host.volume = io
    let over = false
    let wrong = 0
    let done = 0
    // Each has its own blocks, so that it knows what they hold.
    const client = async (lane: number): Promise<void> => {
      for (let turn = 0; !over || turn < 8; turn++) {
        const blocks = Math.floor(content.length / 512 / 4)
        const offset = (((turn * 7 + lane * 13) % blocks) * 4 + lane) * 512
        const data = patterned(512, turn * 31 + lane)
        if (await send(io, { op: 'write', offset, data })) wrong++
        data.copy(content, offset)
        const back = Buffer.alloc(512)
        if (await send(io, { op: 'read', offset, data: back })) wrong++
        if (!back.equals(data)) wrong++
        done++
      }
    }
    const clients = [0, 1, 2, 3].map(client)
    await world.grow()
    over = true
    await Promise.all(clients)
    t.equal(wrong, 0, `${titleOf(one)}: ${done} writes and reads`)
    t.ok((await world.read(0, content.length)).equals(content), 'all of it')
    world.check(t)
    t.equal(world.host.pool.leased, 0)
  }
})

/** What a cut leaves of what was not flushed: nothing, all of it, or all of it and a torn last write. */
const LEFT = ['nothing', 'everything', 'torn'] as const

t.test(
  'vinum.md 8.4: a cut of power at every write and commit of a growth loses nothing',
  async (t) => {
    const cases = [CASES[0], CASES[3]].map((one) => defined(one, 'a case'))
    for (const one of cases) {
      for (const left of LEFT) {
        let cuts = 0
        for (let at = 1; ; at++) {
          const outcome = await cutAt(one, left, at)
          if (outcome === 'not reached') break
          cuts++
          if (outcome !== 'good') {
            t.fail(`${titleOf(one)}: cut at change ${at}, ${left} left: ${outcome}`)
            break
          }
        }
        t.ok(cuts > 40, `${titleOf(one)}: ${cuts} cuts, ${left} left`)
      }
    }
  },
)

t.test(
  'a raid5 that loses a drive with the power in the middle of a growth loses no data',
  async (t) => {
    // Without writes of clients: what a cut does to their rows is the write hole, and its journal's business.
    const one = defined(CASES[3], 'raid5 3 to 4')
    for (const left of LEFT) {
      let cuts = 0
      for (let at = 1; ; at++) {
        const outcome = await cutAt(one, left, at, at % one.after)
        if (outcome === 'not reached') break
        cuts++
        if (outcome === 'good') continue
        t.fail(`cut at change ${at}, ${left} left, d${at % one.after} lost: ${outcome}`)
        break
      }
      t.ok(cuts > 40, `${cuts} cuts, ${left} left`)
    }
  },
)

/** `lost`: this drive does not come back, and no client writes. */
async function cutAt(
  one: Case,
  left: (typeof LEFT)[number],
  at: number,
  lost?: number,
): Promise<string> {
  const { world, content } = await started(one)
  for (const { device } of world.drives) device.powerCut()
  /** The write that was under way: its blocks may be old or new. */
  let doubt: { readonly offset: number; readonly data: Buffer } | undefined
  let media: readonly Buffer[] | undefined
  let changes = 0
  const cut = new Promise<void>((resolve) => {
    world.onChange = (request, drive) => {
      if (++changes !== at) return false
      media = world.drives.map((each) => {
        if (left === 'nothing') each.device.powerCut()
        const bytes = Buffer.from(each.device.media)
        if (left === 'torn' && each === drive && request?.data) {
          // A first part of it, in whole blocks.
          const part = Math.floor(request.length / 1024) * 512
          request.data.bytes.copy(
            bytes,
            request.offset,
            request.dataOffset,
            request.dataOffset + part,
          )
        }
        return bytes
      })
      resolve()
      return true
    }
  })
  let round = 0
  const growth = world.grow(async () => {
    if (lost !== undefined) return
    round++
    const offset = ((round * 5) % (content.length / 512 - 2)) * 512
    doubt = { offset, data: patterned(1024, round) }
    await world.write(offset, doubt.data)
    doubt.data.copy(content, offset)
    doubt = undefined
  })
  const ended = await Promise.race([cut.then(() => false), growth.then(() => true)])
  if (ended) return 'not reached'
  const after = new World(one, media, world.durable)
  if (lost !== undefined) {
    const subdisk = defined(after.plex.subdisks[lost], 'a subdisk')
    subdisk.record = { ...subdisk.record, state: 'down' }
    defined(after.drives[lost], 'a drive').pull()
  }
  // Without one of its columns it serves as it is, once the window that was cut off is whole.
  if (lost !== undefined) await finishWindow(after.options)
  else if (world.durable) await after.grow()
  const found = await after.read(0, content.length)
  if (doubt) {
    // Block by block: each is the old or the new one.
    for (let block = 0; block < doubt.data.length; block += 512) {
      const fresh = doubt.data.subarray(block, block + 512)
      const here = found.subarray(doubt.offset + block, doubt.offset + block + 512)
      if (here.equals(fresh)) fresh.copy(content, doubt.offset + block)
    }
  }
  for (let block = 0; block < content.length; block += 512) {
    const right = content.subarray(block, block + 512)
    if (!found.subarray(block, block + 512).equals(right)) return `block at ${block} is wrong`
  }
  return 'good'
}

t.test(
  'a growth stops behind the window in which a column fails, and goes on with it rebuilt',
  async (t) => {
    const one = defined(CASES[3], 'raid5 3 to 4')
    for (let failing = 0; failing < one.after; failing++) {
      // In a window that goes through its backup, in one that does not, in the last one, which holds no content.
      for (const window of [1, 4, 6]) {
        const { world, content } = await started(one)
        const title = `s${failing} fails in window ${window}`
        let round = 0
        const failed = world.grow(async () => {
          if (++round === window) world.failData(failing)
        })
        await t.rejects(failed, { message: new RegExp(`s${failing} is stale`) }, title)
        const demoted = world.host.demotions.map(([subdisk]) => subdisk?.record.name)
        t.strictSame(demoted, [`db.p0.s${failing}`])
        t.equal(world.announced.length, window + 1)
        t.strictSame(world.ended, Array(window + 1).fill(true))
        t.equal(world.finished, 0)
        t.ok((await world.read(0, content.length)).equals(content), `${title}: it serves`)
        await t.rejects(world.grow(), { message: /is stale/ }, 'nor does it go on')
        await world.rebuild(failing, defined(world.announced[window], 'the window'))
        await world.grow()
        t.ok((await world.read(0, content.length)).equals(content), `${title}: all of it`)
        world.check(t)
      }
    }
  },
)

t.test(
  'a write that nothing makes up for leaves the old layout whole, and it may go on later',
  async (t) => {
    for (const one of CASES.slice(0, 3)) {
      const { world, content } = await started(one)
      world.host.refuse = () => lastCopy()
      const fresh = defined(world.drives.at(-1), 'the new drive').device
      let writes = 0
      // The first window has its backup on old drives: the first write of the new one is data.
      const submit = fresh.submit
      fresh.submit = (request) => {
        if (
          request.op === 'write' &&
          request.offset < DATA_AT + one.rows * STRIPE &&
          ++writes < 3
        ) {
          fresh.fail('write', 'io', 1)
        }
        submit(request)
      }
      await t.rejects(world.grow(), { kind: 'io', message: /injected/ })
      t.match(world.plex.record.growth, { cursorBytes: 0, backup: undefined })
      t.ok((await world.read(0, content.length)).equals(content), 'old layout')
      writes = 10
      await world.grow()
      t.ok((await world.read(0, content.length)).equals(content), 'in the end')
      world.check(t)
      t.equal(world.host.pool.leased, 0)
    }
  },
)

t.test(
  'a backup is read from the drive that has it whole; without one, nothing is served wrong',
  async (t) => {
    const one = defined(CASES[0], 'striped 2 to 3')
    const { world, content } = await started(one)
    world.onChange = () => world.durable?.backup !== undefined
    const gone = world.grow()
    for (let i = 0; i < 200 && !world.dead; i++) await new Promise((next) => setImmediate(next))
    void gone
    const { backup } = defined(world.durable, 'the growth')
    t.equal(backup?.driveUuids.length, 2)
    const journalAt = DATA_AT + one.rows * STRIPE + DATA_AT
    const media = world.drives.map(({ device }) => Buffer.from(device.media))
    media[0]?.fill(0x55, journalAt, journalAt + 512)
    const again = new World(
      one,
      media.map((bytes) => Buffer.from(bytes)),
      world.durable,
    )
    await again.grow()
    t.ok((await again.read(0, content.length)).equals(content), 'from the second drive')
    media[1]?.fill(0x55, journalAt, journalAt + 512)
    const lost = new World(one, media, world.durable)
    await t.rejects(lost.grow(), { kind: 'corrupt', message: /backup/ })
    t.match(lost.durable?.backup, { offsetBytes: 0 }, 'the record of it stays')
  },
)

t.test('a growth without room for its backup is refused before anything is touched', async (t) => {
  const { world, content } = await started(defined(CASES[0], 'striped'))
  const options = { ...world.options, backupAreas: () => [] }
  await t.rejects(growPlan(options).step(0, STRIPE, NO_JOB), {
    kind: 'no-space',
    message: /journal/,
  })
  const small = world.options.backupAreas().map((area) => ({ ...area, bytes: STRIPE }))
  const narrow = growPlan({ ...world.options, backupAreas: () => small })
  await t.rejects(narrow.step(0, STRIPE, NO_JOB), { kind: 'no-space', message: /4096/ })
  t.ok((await world.read(0, content.length)).equals(content))
})

t.test('a commit that fails keeps the window, for nobody knows what a restart finds', async (t) => {
  const one = defined(CASES[3], 'raid5')
  const { world } = await started(one)
  let held = 0
  world.host.volume = {
    lock: async () => {
      held++
      return () => held--
    },
  }
  const refuse = new PlexusError('io', { op: 'commit', subject: 'set', message: 'no quorum' })
  const options = { ...world.options, commitGrowth: () => Promise.reject(refuse) }
  await t.rejects(growPlan(options).step(0, STRIPE, NO_JOB), { message: 'no quorum' })
  t.equal(held, 1)
})

t.test(
  'a window that is in its backup alone is kept, and written when the drives work again',
  async (t) => {
    for (const parked of [false, true]) {
      const one = defined(CASES[0], 'striped 2 to 3')
      const { world, content } = await started(one)
      world.host.refuse = () => lastCopy()
      let held = 0
      world.host.volume = {
        lock: async () => {
          held++
          return () => held--
        },
      }
      const { device } = defined(world.drives[0], 'an old drive')
      const submit = device.submit
      let broken = true
      device.submit = (request) => {
        const isData = request.offset < DATA_AT + one.rows * STRIPE
        if (request.op === 'write' && isData && broken) device.fail('write', 'io', 1)
        submit(request)
      }
      const job = { parking: false }
      const step = growPlan(world.options).step(0, STRIPE, job as Job)
      await settle(60)
      t.match(world.durable?.backup, { offsetBytes: 0 })
      t.equal(held, 1, 'requests wait')
      job.parking = parked
      broken = parked
      // Time passes from here on.
      const passing = setInterval(() => (world.host.clock as ManualClock).advance(GROW_RETRY_MS), 1)
      if (parked) {
        await t.rejects(step, { kind: 'io', message: /injected/ })
        t.equal(held, 1, 'until a restart')
        const media = world.drives.map(({ device: { media } }) => Buffer.from(media))
        const again = new World(one, media, world.durable)
        await again.grow()
        t.ok((await again.read(0, content.length)).equals(content))
      } else {
        t.ok((await step) > 0)
        t.equal(held, 0)
        await world.grow()
        t.ok((await world.read(0, content.length)).equals(content))
      }
      clearInterval(passing)
    }
  },
)

t.test('parity of the new layout lies where raid5/layout.ts says', async (t) => {
  const one = defined(CASES[3], 'raid5')
  const { world } = await started(one)
  await world.grow()
  const layout = createLayout(one.after, STRIPE, 'left-symmetric')
  const drive = defined(world.drives[parityColumn(layout, 0)], 'the parity drive')
  const at = (index: number, byte: number): number =>
    defined(world.drives[index], 'a drive').device.media[DATA_AT + byte] ?? 0
  for (const byte of [0, 1, 4095]) {
    const parity = drive.device.media[DATA_AT + byte]
    t.equal(parity, at(0, byte) ^ at(1, byte) ^ at(2, byte))
  }
})
