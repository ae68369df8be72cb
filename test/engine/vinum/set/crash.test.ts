/**
 * Sets in trouble: failing drives, power cuts in the middle of writes and jobs, verbs while jobs run. Whatever was
 * acknowledged is there afterwards, on every copy; work goes on where it was.
 */
import t from 'tap'
import { GROWTH_TURN_MS, KIB, MIB } from '../../../../src/base/limits.ts'
import type { Job } from '../../../../src/engine/jobs/job.ts'
import { GrowthTurns } from '../../../../src/engine/vinum/jobs/growth-turns.ts'
import type { VinumSet } from '../../../../src/engine/vinum/set/vinum-set.ts'
import { flush, get, Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'
import { ManualClock } from '../../../support/manual-clock.ts'

type Layout = Readonly<Record<string, readonly string[] | string>>

async function machineWith(devices: number, layout: Layout, blockBytes = 512): Promise<Machine> {
  const machine = await new Machine({ devices, blockBytes }).start()
  await machine.run('volume.create', { name: 'v', ...layout })
  return machine
}

/** What each subdisk of the volume has on its medium. */
function legs(machine: Machine, name: string): Buffer[] {
  return machine
    .volume(name)
    .components.flatMap(({ children }) =>
      children.map(({ drive = '', driveOffsetBytes = 0, sizeBytes }) =>
        machine.device(drive).media.subarray(driveOffsetBytes, driveOffsetBytes + sizeBytes),
      ),
    )
}

function copiesAgree(machine: Machine): boolean {
  const [first, ...others] = legs(machine, 'v')
  return first !== undefined && others.every((other) => other.equals(first))
}

function states(machine: Machine): string[] {
  return machine
    .volume('v')
    .components.flatMap(({ children }) => children.map(({ state }) => state))
}

function jobOf(machine: Machine, kind: string): Job {
  const jobs = machine.topology.jobs.list().filter((job) => job.report().kind === kind)
  const job = jobs.find((one) => one.state === 'running' || one.state === 'paused') ?? jobs.at(-1)
  if (!job) throw new Error(`there is no job ${kind}`)
  return job
}

/** Waits until the job has done something, and pauses it. */
async function pauseMidway(machine: Machine, kind: string): Promise<Job> {
  const job = jobOf(machine, kind)
  const from = job.doneBytes
  while (job.doneBytes === from && job.state === 'running') {
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  await job.pause()
  return job
}

// The clock's timers do not keep a process alive.
const alive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(alive))

const tick = (ms = 5) => new Promise((resolve) => setTimeout(resolve, ms))

for (const blockBytes of [512, 4096]) {
  t.test(
    `a copy that missed a write is out durably before the answer (${blockBytes})`,
    async (t) => {
      const machine = await machineWith(2, { mirror: ['d1', 'd2'] }, blockBytes)
      await machine.jobsDone()
      const volume = machine.open('v')
      await put(volume, 0, pattern(1, MIB))
      machine.device('d2').fail('write', 'io', 1)
      const d1 = machine.device('d1')
      const written = d1.counts.write
      let answered = false
      // The region is marked already: the next write of d1 is the data, the one after it the configuration.
      const write = put(volume, 0, pattern(2, MIB)).then(() => {
        answered = true
      })
      while (d1.counts.write === written) await tick(1)
      d1.hold()
      await tick(30)
      t.notOk(answered, 'not before d1 has it in writing that d2 is out')
      t.match(states(machine), ['UP', 'STALE'], 'in memory at once')
      d1.release()
      await write
      await flush(volume)
      machine.cut()
      await machine.start()
      t.match(states(machine), ['UP', 'STALE'])
      const again = machine.open('v')
      t.ok((await get(again, 0, MIB)).equals(pattern(2, MIB)))
      await machine.run('vinum.start', { objects: ['v'] })
      await machine.jobsDone()
      t.ok(copiesAgree(machine))
    },
  )
}

t.test('a write that both copies fail is an error, and no reason to lose a copy', async (t) => {
  const machine = await machineWith(2, { mirror: ['d1', 'd2'] })
  await machine.jobsDone()
  const volume = machine.open('v')
  await put(volume, 0, pattern(1, MIB))
  // It is tried once more, piece by piece.
  for (const name of ['d1', 'd2']) machine.device(name).fail('write', 'io', 2)
  t.match(await failureOf(put(volume, 0, pattern(2, MIB))), { kind: 'io' })
  t.match(states(machine), ['UP', 'UP'])
  const first = await get(volume, 0, MIB)
  t.ok((await get(volume, 0, MIB)).equals(first), 'always the same one answers')
  await put(volume, 0, pattern(3, MIB))
  t.ok(copiesAgree(machine))
})

t.test('who is out of service in memory is not read again by a verb that ends', async (t) => {
  const machine = await new Machine({ devices: 3 }).start()
  await machine.run('volume.create', { name: 'm', mirror: ['d1', 'd2'] })
  await machine.run('volume.create', { name: 'c', concat: ['d3'] })
  await machine.jobsDone()
  const m = machine.open('m')
  await put(m, 0, pattern(1, MIB), true)
  const d1 = machine.device('d1')
  const before = Buffer.from(d1.media)
  await put(m, 0, pattern(2, MIB))
  const d3 = machine.device('d3')
  const submit = d3.submit.bind(d3)
  const held: Parameters<typeof submit>[0][] = []
  d3.submit = (request) => {
    if (request.op === 'write') held.push(request)
    else submit(request)
  }
  let hasEnded = false
  const verb = machine.run('volume.set', { name: 'c', readPolicy: 'least-queue' }).then(() => {
    hasEnded = true
  })
  while (held.length === 0) await new Promise(setImmediate)
  // d1 loses what it had acknowledged, and says so.
  before.copy(d1.media, 0, 0, MIB * 2)
  d1.fail('flush', 'io', 1)
  const flushed = flush(m)
  while (!hasEnded) {
    const next = held.shift()
    if (next) submit(next)
    for (let turn = 0; turn < 20 && !hasEnded; turn++) await new Promise(setImmediate)
  }
  t.ok(held.length > 0, 'the commit that takes d1 out of service is still to come')
  for (let count = 0; count < 4; count++) {
    t.ok((await get(m, 0, MIB)).equals(pattern(2, MIB)), `read ${count} comes from d2`)
  }
  d3.submit = submit
  for (const request of held) submit(request)
  await flushed
  await verb
  t.match(machine.volume('m'), { health: 'DEGRADED' })
})

t.test('a bad sector is read from the other copy, and written again', async (t) => {
  const machine = await machineWith(2, { mirror: ['d1', 'd2'] })
  await machine.jobsDone()
  const volume = machine.open('v')
  await put(volume, 0, pattern(1, MIB))
  machine.device('d1').fail('read', 'io', 1)
  const { history } = machine.topology.events
  const repaired = () => history.some(({ event }) => event === 'sector-repaired')
  for (let round = 0; round < 4 && !repaired(); round++) {
    t.ok((await get(volume, 0, MIB)).equals(pattern(1, MIB)))
    await tick()
  }
  t.ok(repaired())
  t.match(states(machine), ['UP', 'UP'])
  t.ok(copiesAgree(machine))
})

t.test('an orderly end leaves nothing to do; a cut leaves what was being written', async (t) => {
  const machine = await machineWith(2, { mirror: ['d1', 'd2'] })
  await machine.jobsDone()
  const volume = machine.open('v')
  await put(volume, MIB, pattern(1, MIB))
  await volume.close()
  await machine.shutDown()
  await machine.start()
  t.strictSame(await machine.jobsDone(), [], 'no resync')
  const again = machine.open('v')
  await put(again, MIB, pattern(2, MIB))
  await flush(again)
  // Only one copy gets it before the power goes.
  machine.device('d2').hold()
  void failureOf(put(again, 4 * MIB, pattern(3, MIB))).catch(() => {})
  await tick(20)
  machine.cut()
  const reads = machine.device('d1').counts.read
  await machine.start()
  const jobs = await machine.jobsDone()
  t.match(
    jobs.map(({ kind, state }) => [kind, state]),
    [['resync', 'done']],
  )
  t.ok(copiesAgree(machine), 'whichever it was, both have the same')
  t.ok(machine.device('d1').counts.read - reads < 40, 'and the rest was not copied')
  const last = machine.open('v')
  t.ok((await get(last, MIB, MIB)).equals(pattern(2, MIB)))
})

t.test('reads while a resync is due: one copy is the truth', async (t) => {
  const machine = await machineWith(2, { mirror: ['d1', 'd2'] })
  await machine.jobsDone()
  const volume = machine.open('v')
  await put(volume, 0, pattern(1, MIB))
  await flush(volume)
  await put(volume, 0, pattern(2, MIB))
  // The cache of d2 goes with the power, that of d1 holds: they differ.
  await flush(machine.device('d1'))
  machine.cut()
  machine.topology.jobs.limitBytesPerSecond = 1
  await machine.start()
  const again = machine.open('v')
  const first = await get(again, 0, MIB)
  t.ok(first.equals(pattern(1, MIB)) || first.equals(pattern(2, MIB)))
  for (let round = 0; round < 3; round++) t.ok((await get(again, 0, MIB)).equals(first))
  machine.topology.jobs.limitBytesPerSecond = undefined
  await machine.jobsDone()
  t.ok(copiesAgree(machine))
  t.ok((await get(again, 0, MIB)).equals(first), 'and stays it')
})

t.test(
  'what was read while a resync is due stays, also when the copy that gave it fails',
  async (t) => {
    const machine = await machineWith(3, { mirror: ['d1', 'd2', 'd3'] })
    await machine.jobsDone()
    const volume = machine.open('v')
    await put(volume, 0, pattern(1, MIB))
    await flush(volume)
    await put(volume, 0, pattern(2, MIB))
    // The caches of the others go with the power.
    await flush(machine.device('d1'))
    machine.cut()
    machine.topology.jobs.limitBytesPerSecond = 1
    await machine.start()
    const again = machine.open('v')
    const told = await get(again, 64 * KIB, 64 * KIB)
    t.ok(told.equals(pattern(2, MIB).subarray(64 * KIB, 128 * KIB)), 'of the first copy')
    const writes = machine.device('d2').counts.write
    await get(again, 64 * KIB, 64 * KIB)
    t.equal(machine.device('d2').counts.write, writes, 'the others get it once')
    await machine.pull('d1')
    for (let round = 0; round < 3; round++) {
      t.ok((await get(again, 64 * KIB, 64 * KIB)).equals(told), 'it is not taken back')
    }
    machine.topology.jobs.limitBytesPerSecond = undefined
    await machine.jobsDone()
    t.ok((await get(again, 64 * KIB, 64 * KIB)).equals(told))
    const [, second, third] = legs(machine, 'v')
    t.ok(second && third?.equals(second))
  },
)

const JOBS: Readonly<
  Record<
    string,
    { devices: number; layout: Layout; kind: string; begin(machine: Machine): Promise<unknown> }
  >
> = {
  'the first sync': {
    devices: 2,
    layout: { mirror: ['d1', 'd2'] },
    kind: 'sync',
    async begin() {},
  },
  initialise: {
    devices: 3,
    layout: { raid5: ['d1', 'd2', 'd3'] },
    kind: 'initialise',
    async begin() {},
  },
  'rebuild on another drive': {
    devices: 4,
    layout: { raid5: ['d1', 'd2', 'd3'] },
    kind: 'rebuild',
    async begin(machine) {
      await machine.jobsDone()
      await machine.pull('d2')
      return machine.run('volume.replace', { name: 'v', oldDrive: 'd2', newDevice: 'd4' })
    },
  },
  grow: {
    devices: 3,
    layout: { stripe: ['d1', 'd2'], stripeSize: '64KiB' },
    kind: 'grow',
    begin: (machine) => machine.run('volume.grow', { name: 'v', devices: ['d3'] }),
  },
  move: {
    devices: 3,
    layout: { concat: ['d1', 'd2'] },
    kind: 'move',
    begin: (machine) => machine.run('vinum.move', { drive: 'd3', subdisks: ['v.p0.s0'] }),
  },
  scrub: {
    devices: 2,
    layout: { mirror: ['d1', 'd2'] },
    kind: 'check',
    async begin(machine) {
      machine.topology.jobs.limitBytesPerSecond = undefined
      await machine.jobsDone()
      machine.topology.jobs.limitBytesPerSecond = SLOW
      return machine.run('volume.scrub', { name: 'v' })
    },
  },
}
const SLOW = 20 * MIB
const FROM_CURSOR = new Set(['initialise', 'grow', 'check'])

for (const [name, { devices, layout, kind, begin }] of Object.entries(JOBS)) {
  t.test(`${name}: paused, cut off, found again where it was`, async (t) => {
    const machine = await new Machine({ devices }).start()
    if (!name.startsWith('rebuild')) machine.topology.jobs.limitBytesPerSecond = SLOW
    await machine.run('volume.create', { name: 'v', ...layout })
    const volume = machine.open('v')
    await put(volume, 0, pattern(1, 2 * MIB))
    await put(volume, 8 * MIB, pattern(2, 2 * MIB))
    await flush(volume)
    const [found] = machine.topology.jobs.list().slice(-1)
    if (name.startsWith('rebuild')) await found?.ended
    const begun = begin(machine)
    await begun
    machine.topology.jobs.limitBytesPerSecond = SLOW
    const { id, doneBytes } = await pauseMidway(machine, kind)
    t.ok(doneBytes > 0)
    await put(volume, 4 * MIB, pattern(3, MIB), true)
    await flush(volume)
    machine.cut()
    await machine.start()
    const job = jobOf(machine, kind)
    t.equal(job.id, id)
    t.equal(job.state, 'paused')
    // A copy begins with what was being written when it was cut off; the others go on where they were.
    if (FROM_CURSOR.has(kind)) t.ok(job.doneBytes >= doneBytes, `at ${job.doneBytes}`)
    job.resume()
    t.equal(await job.ended, 'done')
    const reports = await machine.jobsDone()
    t.equal(reports.find((one) => one.id === id)?.mismatches, 0)
    t.equal(machine.volume('v').health, 'HEALTHY')
    const again = machine.open('v')
    t.ok((await get(again, 0, 2 * MIB)).equals(pattern(1, 2 * MIB)))
    t.ok((await get(again, 4 * MIB, MIB)).equals(pattern(3, MIB)))
    t.ok((await get(again, 8 * MIB, 2 * MIB)).equals(pattern(2, 2 * MIB)))
    if ('mirror' in layout) t.ok(copiesAgree(machine))
    if ('raid5' in layout) {
      await machine.run('volume.scrub', { name: 'v' })
      const scrub = (await machine.jobsDone()).find((one) => one.kind === 'check')
      t.match(scrub, { state: 'done', mismatches: 0 })
    }
    t.equal(machine.pool.leased, 0)
  })
}

t.test('a full copy that was given up is made up for, all of it', async (t) => {
  const machine = await new Machine({ devices: 2 }).start()
  // What the second drive has from before must not be taken for content.
  machine.device('d2').media.fill(0xee)
  machine.topology.jobs.limitBytesPerSecond = SLOW
  await machine.run('volume.create', { name: 'v', mirror: ['d1', 'd2'], wipeSignatures: true })
  const volume = machine.open('v')
  await put(volume, 0, pattern(1, 4 * MIB))
  const job = await pauseMidway(machine, 'sync')
  await job.cancel()
  t.match(states(machine), ['UP', 'STALE'])
  await put(volume, 12 * MIB, pattern(2, MIB))
  await volume.close()
  await machine.shutDown()
  await machine.start()
  await machine.run('vinum.start', { objects: ['v'] })
  await machine.jobsDone()
  t.match(states(machine), ['UP', 'UP'])
  t.ok(copiesAgree(machine))
})

t.test(
  'a full copy that goes on without one of its drives leaves that one to be filled',
  async (t) => {
    const machine = await new Machine({ devices: 4 }).start()
    // What it has from before must not be taken for content.
    machine.device('d4').media.fill(0xee)
    machine.topology.jobs.limitBytesPerSecond = SLOW
    await machine.run('vinum.mirror', {
      devices: ['d1', 'd2', 'd3', 'd4'],
      striped: true,
      name: 'v',
      wipeSignatures: true,
    })
    const volume = machine.open('v')
    await put(volume, 0, pattern(1, 8 * MIB))
    await put(volume, 8 * MIB, pattern(2, 8 * MIB))
    await flush(volume)
    await pauseMidway(machine, 'sync')
    machine.cut()
    await machine.start(['d1', 'd2', 'd3'])
    const job = jobOf(machine, 'sync')
    job.resume()
    t.equal(await job.ended, 'done')
    t.match(states(machine), ['UP', 'UP', 'UP', 'STALE'])
    machine.cut()
    await machine.start()
    await machine.jobsDone()
    t.equal(machine.volume('v').health, 'HEALTHY')
    const [first, second, third, fourth] = legs(machine, 'v')
    t.ok(first && third?.equals(first))
    t.ok(second && fourth?.equals(second))
  },
)

t.test('a drive goes and comes back while it is being filled', async (t) => {
  const machine = await machineWith(2, { mirror: ['d1', 'd2'] })
  await machine.jobsDone()
  const volume = machine.open('v')
  await machine.pull('d2')
  await put(volume, 0, pattern(1, 8 * MIB))
  for (let round = 0; round < 3; round++) {
    machine.topology.jobs.limitBytesPerSecond = SLOW
    await machine.replug('d2')
    await tick(30)
    await machine.pull('d2')
    await put(volume, round * MIB, pattern(round + 2, MIB))
  }
  machine.topology.jobs.limitBytesPerSecond = undefined
  await machine.replug('d2')
  await machine.jobsDone()
  t.equal(machine.volume('v').health, 'HEALTHY')
  t.ok(copiesAgree(machine))
  await machine.pull('d1')
  for (let round = 0; round < 3; round++) {
    t.ok((await get(volume, round * MIB, MIB)).equals(pattern(round + 2, MIB)))
  }
})

t.test('a drive that comes back while another one of its striped plex is filled', async (t) => {
  const columns = { stripe: ['d1', 'd2', 'd3'], stripeSize: '64KiB', size: '8MiB' }
  const machine = await machineWith(4, columns)
  await machine.run('volume.add-mirror', { name: 'v', devices: ['d4'] })
  await machine.jobsDone()
  await machine.pull('d2')
  await machine.pull('d3')
  await put(machine.open('v'), 0, pattern(1, 4 * MIB))
  machine.topology.jobs.limitBytesPerSecond = 1
  await machine.replug('d2')
  await machine.replug('d3')
  t.equal(jobOf(machine, 'sync').state, 'running')
  t.equal(states(machine)[2], 'STALE')
  machine.topology.jobs.limitBytesPerSecond = undefined
  for (let round = 0; round < 3; round++) {
    await machine.jobsDone()
    await machine.topology.quiet()
  }
  t.equal(machine.volume('v').health, 'HEALTHY', 'without a word')
  await machine.pull('d4')
  t.ok((await get(machine.open('v'), 0, 4 * MIB)).equals(pattern(1, 4 * MIB)))
})

t.test('destroyed while a job works and writes wait for each other: all of them end', async (t) => {
  const machine = await machineWith(2, { mirror: ['d1', 'd2'] })
  machine.topology.jobs.limitBytesPerSecond = SLOW
  const volume = machine.open('v')
  await put(volume, 0, pattern(1, MIB))
  t.match(await failureOf(machine.run('volume.destroy', { name: 'v' })), { kind: 'in-use' })
  const answers: string[] = []
  let going = true
  const writers = Array.from({ length: 6 }, async (_, index) => {
    while (going) {
      const answer = await put(volume, 0, pattern(index, 64 * 1024)).then(
        () => 'ok',
        (error: { kind: string }) => error.kind,
      )
      answers.push(answer)
      if (answer !== 'ok') return
    }
  })
  await tick(20)
  await machine.run('volume.destroy', { name: 'v', force: true })
  await Promise.race([Promise.all(writers), tick(2000)])
  going = false
  const ends = answers.filter((answer) => answer !== 'ok')
  t.strictSame(ends, Array(6).fill('gone'), 'every writer has its answer')
  await volume.close()
  await machine.jobsDone()
  machine.topology.jobs.limitBytesPerSecond = undefined
  await machine.run('volume.create', { name: 'w', mirror: ['d1', 'd2'] })
  const next = machine.open('w')
  await put(next, 0, pattern(9, 4 * MIB))
  await machine.jobsDone()
  t.ok((await get(next, 0, 4 * MIB)).equals(pattern(9, 4 * MIB)), 'nobody writes there any more')
  t.equal(machine.volume('w').health, 'HEALTHY')
  t.equal(machine.pool.leased, 0)
})

t.test('verbs on a volume that is open: no other name, another size is told', async (t) => {
  const machine = await machineWith(3, { concat: ['d1'] })
  const volume = machine.open('v')
  const events: string[] = []
  volume.onEvent((event) => events.push(`${event} ${volume.geometry.sizeBytes}`))
  t.match(await failureOf(machine.run('volume.rename', { name: 'v', to: 'w' })), { kind: 'in-use' })
  const before = volume.geometry.sizeBytes
  await machine.run('volume.grow', { name: 'v', devices: ['d2'] })
  await machine.jobsDone()
  t.ok(volume.geometry.sizeBytes > before)
  t.strictSame(events, [`resized ${volume.geometry.sizeBytes}`])
  await put(volume, before, pattern(1, MIB))
  await volume.close()
  await machine.run('volume.rename', { name: 'v', to: 'w' })
  const renamed = machine.open('w')
  t.ok((await get(renamed, before, MIB)).equals(pattern(1, MIB)))
})

t.test('parity in doubt waits for columns that come back as they are', async (t) => {
  const machine = await machineWith(5, {
    raid5: ['d1', 'd2', 'd3', 'd4', 'd5'],
    stripeSize: '64KiB',
    size: '4MiB',
  })
  await machine.jobsDone()
  await put(machine.open('v'), 0, pattern(1, MIB), true)
  const { driveOffsetBytes = 0 } = machine.volume('v').components[0]?.children[4] ?? {}
  machine.cut()
  // As when the power goes between the data of the first row and its parity.
  machine.device('d5').media.fill(0x55, driveOffsetBytes, driveOffsetBytes + 65_536)
  // Two columns are away together, and complete together.
  await machine.start(['d1', 'd2', 'd3'])
  await machine.jobsDone()
  t.match(states(machine), ['UP', 'UP', 'UP', 'DOWN', 'DOWN'])
  await machine.plug('d4')
  await machine.plug('d5')
  await machine.jobsDone()
  t.match(states(machine), ['UP', 'UP', 'UP', 'UP', 'UP'])
  await machine.pull('d2')
  t.ok((await get(machine.open('v'), 0, MIB)).equals(pattern(1, MIB)))
})

/** Where row 6 begins in the volume, and its units in the columns. */
const ROW = 6 * 128 * KIB
const UNIT = 6 * 64 * KIB

/** A raid5 of d1, d2, d3 with the power cut in a write of row 6: its parity tells nothing of the unit on d2. */
async function cutInRow(): Promise<Machine> {
  const layout = { raid5: ['d1', 'd2', 'd3'], stripeSize: '64KiB', size: '8MiB' }
  const machine = await machineWith(4, layout)
  await machine.jobsDone()
  const volume = machine.open('v')
  await put(volume, 0, pattern(1, MIB), true)
  const { driveOffsetBytes = 0 } = machine.volume('v').components[0]?.children[2] ?? {}
  machine.cut()
  const at = driveOffsetBytes + UNIT
  machine.device('d3').media.fill(0x55, at, at + 64 * KIB)
  return machine
}

const criticals = (machine: Machine) =>
  machine.topology.events.history.filter(
    ({ severity, event }) => severity === 'critical' && event === 'data-lost',
  )

t.test('a disk lost before the resync: what is in doubt is an error, never a guess', async (t) => {
  for (const when of ['at the start', 'after the start'] as const) {
    const machine = await cutInRow()
    machine.topology.jobs.limitBytesPerSecond = 1
    if (when === 'at the start') await machine.start(['d1', 'd3', 'd4'])
    else {
      await machine.start()
      await machine.pull('d2')
    }
    /** Every read of the unit that was on d2 says the same; the rest is there. */
    const isLost = async (what: string): Promise<void> => {
      const volume = machine.open('v')
      for (let again = 0; again < 2; again++) {
        const failure = await failureOf(get(volume, ROW + 96 * KIB, 512))
        t.match(failure, { kind: 'io', message: /are lost/ }, `${when}, ${what}`)
      }
      t.ok((await get(volume, ROW, 64 * KIB)).equals(pattern(1, MIB).subarray(ROW, ROW + 64 * KIB)))
      t.match(criticals(machine).at(-1)?.message, /of volume v cannot be read .*v\.p0\.s1/)
      const { health, status, action } = machine.volume('v')
      t.equal(health, 'DEGRADED')
      t.match(status, /of v\.p0\.s1 are lost/)
      t.match(action, /--force up v\.p0/)
      t.notMatch(status, /Data is intact/)
    }
    await isLost('before')
    // What was acknowledged before the crash may be in the cache of d2.
    if (when === 'at the start') await failureOf(flush(machine.open('v')))
    await put(machine.open('v'), ROW + 64 * KIB, pattern(7, 4096), true)
    machine.cut()
    await machine.start(['d1', 'd3', 'd4'])
    await isLost('after a restart')
    t.ok(
      (await get(machine.open('v'), ROW + 64 * KIB, 4096)).equals(pattern(7, 4096)),
      'written since',
    )
    if (when === 'at the start') {
      await machine.run('volume.replace', { name: 'v', oldDrive: 'd2', newDevice: 'd4' })
      await machine.jobsDone()
      await isLost('after a rebuild')
      await machine.run('vinum.setstate', { state: 'up', object: 'v.p0', force: true })
      await get(machine.open('v'), 0, MIB)
    } else {
      await machine.plug('d2')
      await machine.jobsDone()
      const found = await get(machine.open('v'), ROW + 64 * KIB, 64 * KIB)
      t.ok(
        found.equals(
          Buffer.concat([
            pattern(7, 4096),
            pattern(1, MIB).subarray(ROW + 68 * KIB, ROW + 128 * KIB),
          ]),
        ),
      )
    }
    t.match(machine.volume('v'), { health: 'HEALTHY', status: '' })
    await machine.run('volume.scrub', { name: 'v' })
    for (const { mismatches } of await machine.jobsDone()) t.equal(mismatches, 0)
  }
})

t.test('a column that is rebuilt elsewhere while rows are in doubt: no guess either', async (t) => {
  const machine = await cutInRow()
  machine.topology.jobs.limitBytesPerSecond = 1
  await machine.start()
  await machine.run('vinum.move', { drive: 'd4', subdisks: ['v.p0.s1'], force: true })
  machine.topology.jobs.limitBytesPerSecond = undefined
  await machine.jobsDone()
  t.match(await failureOf(get(machine.open('v'), ROW + 96 * KIB, 512)), { message: /are lost/ })
  t.match(machine.volume('v'), { health: 'DEGRADED', status: /of v\.p0\.s1 are lost/ })
})

t.test('a read that waits for a disk when it is lost gets no guess either', async (t) => {
  const machine = await cutInRow()
  machine.topology.jobs.limitBytesPerSecond = 1
  await machine.start()
  const volume = machine.open('v')
  const d2 = machine.device('d2')
  d2.hold()
  const reads = [failureOf(get(volume, ROW + 96 * KIB, 512))]
  while (d2.inFlight === 0) await new Promise(setImmediate)
  d2.remove()
  reads.push(failureOf(get(volume, ROW + 96 * KIB, 512)))
  await machine.topology.quiet()
  d2.release()
  for (const failure of await Promise.all(reads)) t.match(failure, { kind: /^(io|gone)$/ })
  t.match(await failureOf(get(volume, ROW + 96 * KIB, 512)), { message: /are lost/ })
})

t.test('an older image of the disk is not what was lost with it', async (t) => {
  const machine = await cutInRow()
  await machine.start()
  await machine.jobsDone()
  await machine.shutDown()
  const image = Buffer.from(machine.device('d2').media)
  await machine.start()
  const volume = machine.open('v')
  await put(volume, ROW + 64 * KIB, pattern(5, 64 * KIB))
  await flush(volume)
  // The row is marked still: its parity is in doubt at the next start.
  machine.cut()
  image.copy(machine.device('d2').media)
  await machine.start()
  await machine.jobsDone()
  t.match(await failureOf(get(machine.open('v'), ROW + 96 * KIB, 512)), { message: /are lost/ })
  await machine.run('vinum.setstate', { state: 'up', object: 'v.p0', force: true })
  await machine.jobsDone()
  t.match(machine.volume('v'), { health: 'HEALTHY', status: '' })
})

t.test('a resync that waits does not go on with columns that are no more', async (t) => {
  const machine = await new Machine({ devices: 4 }).start()
  await machine.run('volume.create', {
    name: 'v',
    raid5: ['d1', 'd2', 'd3'],
    size: '8MiB',
    stripeSize: '16KiB',
  })
  await machine.jobsDone()
  await put(machine.open('v'), 0, pattern(1, 2 * MIB), true)
  machine.cut()
  await machine.start(['d1', 'd2', 'd3', 'd4'])
  const resync = jobOf(machine, 'resync')
  await resync.pause()
  await machine.run('volume.grow', { name: 'v', devices: ['d4'] })
  while (jobOf(machine, 'grow').state === 'running') await tick(2)
  if (resync.state === 'paused') resync.resume()
  await machine.jobsDone()
  t.ok((await get(machine.open('v'), 0, 2 * MIB)).equals(pattern(1, 2 * MIB)))
  await machine.run('volume.scrub', { name: 'v' })
  for (const { mismatches } of await machine.jobsDone()) t.equal(mismatches, 0)
})

t.test("two growths at once do not spoil each other's backups", async (t) => {
  const machine = await new Machine({ devices: 4 }).start()
  const options = { stripe: ['d1', 'd2'], stripeSize: '64KiB', size: '6MiB' }
  const data = [pattern(1, 6 * MIB), pattern(2, 6 * MIB)]
  for (const [index, name] of ['a', 'b'].entries()) {
    await machine.run('volume.create', { name, ...options })
    const volume = machine.open(name)
    await put(volume, 0, data[index] as Buffer)
    await volume.close()
  }
  machine.topology.jobs.limitBytesPerSecond = SLOW
  await machine.run('volume.grow', { name: 'a', devices: ['d3'] })
  await machine.run('volume.grow', { name: 'b', devices: ['d4'] })
  const jobs = machine.topology.jobs.list().filter((job) => job.report().kind === 'grow')
  const [first] = jobs
  while (first && first.doneBytes === 0) await tick(1)
  t.ok(jobs.every(({ state }) => state === 'running'))
  machine.cut()
  await machine.start()
  for (const { kind, state } of await machine.jobsDone()) t.equal(state, 'done', kind)
  for (const [index, name] of ['a', 'b'].entries()) {
    const volume = machine.open(name)
    t.ok(volume.geometry.sizeBytes > 6 * MIB)
    t.ok((await get(volume, 0, 6 * MIB)).equals(data[index] as Buffer), name)
  }
})

t.test('growths take turns, a window at a time; one with a backup goes first', async (t) => {
  const clock = new ManualClock()
  const backup = { offsetBytes: 0, lengthBytes: 1, driveUuids: [], crc32c: 0 }
  const growing = (uuid: string, has: boolean) => ({
    uuid,
    growth: { columnsBefore: 2, cursorBytes: 0, backup: has ? backup : undefined },
  })
  let plexes = [growing('a', false), growing('b', false)]
  const set = {
    clock,
    get model() {
      return { plexes }
    },
  }
  const turns = new GrowthTurns(set as unknown as VinumSet)
  const job = { id: 'j1', parking: false }
  const order: string[] = []
  const ends = new Map<string, () => void>()
  const run = (uuid: string) =>
    turns.run(uuid, job as unknown as Job, async () => {
      order.push(`${uuid} begins`)
      await new Promise<void>((resolve) => ends.set(uuid, resolve))
      order.push(`${uuid} ends`)
    })
  const later = async () => {
    await new Promise((resolve) => setImmediate(resolve))
    clock.advance(GROWTH_TURN_MS)
    await new Promise((resolve) => setImmediate(resolve))
  }
  const first = run('a')
  const second = run('b')
  await later()
  t.strictSame(order, ['a begins'])
  ends.get('a')?.()
  await first
  const third = run('a')
  await later()
  t.strictSame(order, ['a begins', 'a ends', 'b begins'], 'b has waited longer than a again')
  ends.get('b')?.()
  await second
  await later()
  ends.get('a')?.()
  await third
  order.length = 0
  plexes = [growing('a', false), growing('b', true)]
  const blocked = run('a')
  await later()
  t.strictSame(order, [], 'the areas have the window of b')
  const own = run('b')
  await later()
  t.strictSame(order, ['b begins'])
  plexes = [growing('a', false), growing('b', false)]
  ends.get('b')?.()
  await own
  await later()
  t.strictSame(order, ['b begins', 'b ends', 'a begins'])
  const parked = failureOf(run('b'))
  await later()
  job.parking = true
  await later()
  t.match(await parked, { kind: 'aborted' })
  ends.get('a')?.()
  await blocked
})

t.test('parity in the cache of a disk that goes before the flush was never computed', async (t) => {
  const machine = await new Machine({ devices: 3 }).start()
  machine.topology.jobs.limitBytesPerSecond = 1
  await machine.run('volume.create', { name: 'v', raid5: ['d1', 'd2', 'd3'] })
  // After its first step it waits.
  const job = jobOf(machine, 'initialise')
  for (let tries = 0; job.doneBytes === 0 && tries < 500; tries++) await tick()
  t.ok(job.doneBytes > 0)
  machine.device('d1').powerCut()
  await machine.pull('d1')
  await machine.replug('d1')
  t.match(await failureOf(job.pause()), { message: /subdisk v.p0.s0 was away for a while/ })
  machine.topology.jobs.limitBytesPerSecond = undefined
  job.resume()
  for (let tries = 0; job.state !== 'failed' && tries < 500; tries++) await tick()
  t.match(job.report(), { state: 'failed', error: /was away for a while/ })
  for (let tries = 0; machine.volume('v').state !== 'UP' && tries < 500; tries++) await tick()
  await machine.jobsDone()
  await machine.run('volume.scrub', { name: 'v' })
  for (const { mismatches } of await machine.jobsDone()) t.equal(mismatches, 0)
  t.equal(machine.volume('v').health, 'HEALTHY')
})
