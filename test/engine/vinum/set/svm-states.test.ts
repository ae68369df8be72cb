/**
 * The states that Solaris Volume Manager gives units and columns, mapped onto vinum's by the table in docs/vinum.md (5.4):
 * each transition of a column, and what the unit is then.
 */
import t, { type Test } from 'tap'
import { KIB, MIB } from '../../../../src/base/limits.ts'
import type { Consumer } from '../../../../src/engine/geom/consumer.ts'
import { flush, get, Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'

// The clock's timers do not keep a process alive.
const alive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(alive))

const DATA = 4 * MIB

/** A raid5 volume v on d1 to d3, and three more drives, which keep the majority. */
class Unit {
  readonly machine = new Machine({ devices: 6 })

  async start(): Promise<this> {
    await this.machine.start()
    await this.machine.run('volume.create', { name: 'other', mirror: ['d4', 'd5', 'd6'] })
    await this.machine.jobsDone()
    return this
  }

  async create(): Promise<Consumer> {
    await this.machine.run('volume.create', { name: 'v', raid5: ['d1', 'd2', 'd3'] })
    return this.machine.open('v')
  }

  /** Jobs stand still, so that the state while they run can be looked at. */
  holdJobs(): void {
    this.machine.topology.jobs.limitBytesPerSecond = 1
  }

  async jobsDone(): Promise<void> {
    this.machine.topology.jobs.limitBytesPerSecond = undefined
    await this.machine.jobsDone()
  }

  run(verb: string, parameters = {}) {
    return this.machine.run(`vinum.${verb}`, { objects: ['v.p0'], plexes: ['v.p0'], ...parameters })
  }

  /** Columns of the plex, the plex, the volume, and the job that works on it. */
  async states(): Promise<string> {
    const objects = await this.machine.list('vinum.list')
    const find = (name: string) => objects.find((one) => one.name === name)
    const columns = [0, 1, 2].map((column) => find(`v.p0.s${column}`)?.state)
    const job = find('v')?.process?.kind ?? 'no job'
    return `${columns.join(' ')}, ${find('v.p0')?.state}, ${find('v')?.state}, ${job}`
  }
}

t.test('Initializing: served, and Okay when the parity is computed', async (t) => {
  const unit = await new Unit().start()
  unit.holdJobs()
  const v = await unit.create()
  t.equal(await unit.states(), 'UP UP UP, INITIALIZING, INITIALISING, initialise')
  await put(v, 0, pattern(1, DATA))
  t.ok((await get(v, 0, DATA)).equals(pattern(1, DATA)), 'the original says EAGAIN')
  await unit.jobsDone()
  t.equal(await unit.states(), 'UP UP UP, UP, UP, no job')
})

t.test('Initialization Failed: there is none, it goes on when the column is back', async (t) => {
  const unit = await new Unit().start()
  unit.holdJobs()
  const v = await unit.create()
  await put(v, 0, pattern(1, DATA))
  await unit.machine.pull('d1')
  t.equal(await unit.states(), 'DOWN UP UP, DOWN, DOWN, initialise', 'no parity stands for it')
  t.match(await failureOf(get(v, 0, DATA)), { kind: 'gone', message: /bring the subdisk back/ })
  await unit.machine.replug('d1')
  await unit.jobsDone()
  t.equal(await unit.states(), 'UP UP UP, UP, UP, no job')
  t.ok((await get(v, 0, DATA)).equals(pattern(1, DATA)))
})

/** A unit with one column in maintenance: d1 failed the write of pattern 2. */
async function maintained(t: Test): Promise<[Unit, Consumer]> {
  const unit = await new Unit().start()
  const v = await unit.create()
  await unit.jobsDone()
  await put(v, 0, pattern(1, DATA))
  unit.machine.device('d1').fail('write', 'io')
  await put(v, 0, pattern(2, DATA))
  t.equal(await unit.states(), MAINTENANCE)
  return [unit, v]
}

const OKAY = 'UP UP UP, UP, UP, no job'
const MAINTENANCE = 'STALE UP UP, DEGRADED, DEGRADED, no job'
const RESYNCING = 'REVIVING UP UP, DEGRADED, DEGRADED, rebuild'

t.test('Okay -> Maintenance: read by the parity, written with it', async (t) => {
  const [unit, v] = await maintained(t)
  t.ok((await get(v, 0, DATA)).equals(pattern(2, DATA)))
  await put(v, 0, pattern(3, DATA))
  t.ok((await get(v, 0, DATA)).equals(pattern(3, DATA)))
  t.match(
    await failureOf(unit.run('rebuildparity')),
    { kind: 'invalid' },
    'Regen needs all columns',
  )
})

t.test('Maintenance -> Resyncing -> Okay', async (t) => {
  const [unit, v] = await maintained(t)
  unit.holdJobs()
  await unit.run('start')
  t.equal(await unit.states(), RESYNCING)
  t.match(await failureOf(unit.run('start')), { kind: 'in-use' }, 'one job at a time')
  await put(v, 0, pattern(3, DATA))
  await unit.jobsDone()
  t.equal(await unit.states(), OKAY)
  await unit.machine.pull('d3')
  t.ok((await get(v, 0, DATA)).equals(pattern(3, DATA)), 'd1 has what it missed')
})

t.test('Resyncing -> Maintenance: a failed write to the target', async (t) => {
  const [unit, v] = await maintained(t)
  unit.holdJobs()
  await unit.run('start')
  unit.machine.device('d1').fail('write', 'io', 100)
  await unit.jobsDone()
  t.equal(await unit.states(), MAINTENANCE)
  t.ok((await get(v, 0, DATA)).equals(pattern(2, DATA)))
})

t.test('Maintenance and Last Erred: the second column stays in service', async (t) => {
  const [unit, v] = await maintained(t)
  unit.machine.device('d2').fail('write', 'io', 100)
  t.match(await failureOf(put(v, 256 * KIB, pattern(4, 64 * KIB))), { kind: 'io' })
  t.equal(await unit.states(), MAINTENANCE, 'as far as it can be read, it is')
  t.ok((await get(v, MIB, DATA - MIB)).equals(pattern(2, DATA).subarray(MIB)))
})

t.test('Last Erred -> Okay: two columns that were away together are back', async (t) => {
  const unit = await new Unit().start()
  const v = await unit.create()
  await unit.jobsDone()
  await put(v, 0, pattern(1, DATA))
  await flush(v)
  await unit.machine.pull('d1')
  await unit.machine.pull('d2')
  t.equal(await unit.states(), 'STALE DOWN UP, DOWN, DOWN, no job', 'Unavailable')
  t.match(await failureOf(put(v, 0, pattern(2, DATA))), { kind: 'io' }, 'a write is refused')
  await unit.machine.replug('d1')
  await unit.machine.replug('d2')
  await unit.jobsDone()
  t.equal(await unit.states(), OKAY, 'neither has missed anything')
  t.ok((await get(v, 0, DATA)).equals(pattern(1, DATA)))
})

t.test(
  'Okay -> Regen -> Okay: the parity is computed anew, and a read error is mended',
  async (t) => {
    const unit = await new Unit().start()
    const v = await unit.create()
    await unit.jobsDone()
    await put(v, 0, pattern(1, DATA))
    unit.holdJobs()
    await unit.run('rebuildparity')
    t.equal(await unit.states(), 'UP UP UP, UP, UP, repair')
    await put(v, 0, pattern(2, DATA))
    unit.machine.device('d2').fail('read', 'io')
    await unit.jobsDone()
    t.equal(await unit.states(), OKAY, 'one unreadable block takes no column out of service')
    t.ok((await get(v, 0, DATA)).equals(pattern(2, DATA)))
  },
)
