/** Jobs: pace, pause, cancel, checkpoints, failure, line and end, driven by a clock of the test. */
import pino from 'pino'
import t from 'tap'
import { PlexusError } from '../../../src/base/errors.ts'
import {
  JOB_CHECKPOINT_MS,
  JOB_STEP_BYTES,
  JOBS_ENDED_SHOWN,
  JOBS_RUNNING,
  MIB,
} from '../../../src/base/limits.ts'
import { EventLog } from '../../../src/engine/geom/events.ts'
import { type Job, JobManager, type JobPlan } from '../../../src/engine/jobs/job.ts'
import { ManualClock } from '../../support/manual-clock.ts'

/** Lets everything that needs no time happen. */
async function quiet(): Promise<void> {
  for (let turn = 0; turn < 200; turn++) await Promise.resolve()
}

class Bench {
  readonly clock = new ManualClock()
  readonly events = new EventLog(() => new Date(0))
  readonly jobs = new JobManager({
    clock: this.clock,
    log: pino({ level: 'silent' }),
    events: this.events,
  })
  /** What the plans were asked to do, in order. */
  readonly calls: string[] = []
  /** Steps wait for {@link go} while it is true. */
  stepwise = false
  /** What the next step or call of this name rejects with. */
  readonly failures = new Map<string, PlexusError>()
  readonly sizes: number[] = []
  stepMs = 0
  #steps: (() => void)[] = []

  plan(id: string, totalBytes: number, more: Partial<JobPlan> = {}): JobPlan {
    const note = async (what: string): Promise<void> => {
      this.calls.push(`${id} ${what}`)
      const failure = this.failures.get(what)
      if (failure) throw failure
    }
    return {
      id,
      kind: 'rebuild',
      object: `${id}.p0`,
      parent: id,
      totalBytes,
      startBytes: 0,
      step: async (offset, maxBytes) => {
        this.sizes.push(maxBytes)
        if (this.stepwise) await new Promise<void>((resolve) => this.#steps.push(resolve))
        if (this.stepMs > 0) {
          await new Promise<void>((resolve) => this.clock.after(this.stepMs, resolve))
        }
        await note(`step ${offset / MIB}`)
        return Math.min(totalBytes, offset + maxBytes)
      },
      checkpoint: (job) => note(`checkpoint ${job.doneBytes / MIB} ${job.state}`),
      finish: () => note('finish'),
      abandon: (_job, outcome) => note(`abandon ${outcome}`),
      ...more,
    }
  }

  /** One held step goes on. */
  async go(): Promise<void> {
    await quiet()
    this.#steps.shift()?.()
    await quiet()
  }

  async pass(ms: number, everyMs = 10): Promise<void> {
    for (let passed = 0; passed < ms; passed += everyMs) {
      this.clock.advance(everyMs)
      await quiet()
    }
  }
}

function failure(message: string): PlexusError {
  return new PlexusError('io', { op: 'test', subject: 'test', message })
}

t.test('steps run one after the other to the end, and the end is durable', async (t) => {
  const bench = new Bench()
  const states: string[] = []
  bench.jobs.onChange((job) => states.push(job.report().state))
  const job = bench.jobs.start(bench.plan('db', 3 * MIB + 512))
  t.equal(await job.ended, 'done')
  t.strictSame(bench.calls, ['db step 0', 'db step 1', 'db step 2', 'db step 3', 'db finish'])
  t.match(job.report(), {
    state: 'done',
    doneBytes: 3 * MIB + 512,
    totalBytes: 3 * MIB + 512,
    error: undefined,
    etaSeconds: undefined,
  })
  t.strictSame(states, ['running', 'done'])
  t.strictSame(bench.jobs.list(), [job])
  t.equal(bench.jobs.get('db'), job)
})

t.test('events tell the start, each fifth and the end, as mdadm does', async (t) => {
  const bench = new Bench()
  await bench.jobs.start(bench.plan('db', 10 * MIB)).ended
  t.strictSame(
    bench.events.history.map(({ event, severity }) => `${severity} ${event}`),
    [
      'info rebuild-started',
      'info rebuild-20',
      'info rebuild-40',
      'info rebuild-60',
      'info rebuild-80',
      'info rebuild-finished',
    ],
  )
  t.equal(bench.events.history[0]?.object, 'db.p0')
})

t.test('vinum.md 8.4: a job goes on where its checkpoint was, and says so', async (t) => {
  const bench = new Bench()
  const job = bench.jobs.start(bench.plan('db', 10 * MIB, { startBytes: 9 * MIB, mismatches: 7 }))
  await job.ended
  t.strictSame(bench.calls, ['db step 9', 'db finish'])
  t.match(bench.events.history[0]?.message, /goes on at 90 %/)
  t.equal(job.mismatches, 7)
  t.equal(bench.events.history.at(-1)?.severity, 'warning', 'mismatches are worth a warning')
  const done = bench.jobs.start(bench.plan('all', 5 * MIB, { startBytes: 5 * MIB }))
  t.equal(await done.ended, 'done', 'one that had only its end before it')
})

t.test('a pause waits for the step in hand and is durable; resume goes on', async (t) => {
  const bench = new Bench()
  bench.stepwise = true
  const job = bench.jobs.start(bench.plan('db', 4 * MIB))
  await quiet()
  let paused = false
  const pause = job.pause().then(() => {
    paused = true
  })
  await quiet()
  t.notOk(paused, 'the step is under way')
  t.equal(job.state, 'running')
  await bench.go()
  await pause
  t.equal(job.state, 'paused')
  t.strictSame(bench.calls, ['db step 0', 'db checkpoint 1 paused'])
  await bench.pass(60_000, 10_000)
  t.equal(bench.calls.length, 2, 'nothing happens meanwhile')
  await job.pause()
  t.equal(bench.calls.length, 3, 'a second pause makes a checkpoint again')
  job.resume()
  await bench.go()
  t.strictSame(bench.calls.slice(3), ['db step 1', 'db checkpoint 2 running'], 'resumed durably')
  bench.stepwise = false
  await bench.go()
  t.equal(await job.ended, 'done')
  await t.rejects(job.pause(), { kind: 'invalid', message: /at work no more/ })
  t.throws(() => job.resume(), { kind: 'invalid', message: /at work no more/ })
  await t.rejects(job.cancel(), { kind: 'invalid', message: /at work no more/ })
})

t.test('a pause that is taken back, fails, or comes too late is told so', async (t) => {
  const bench = new Bench()
  bench.stepwise = true
  const job = bench.jobs.start(bench.plan('db', 2 * MIB))
  await quiet()
  const takenBack = t.rejects(job.pause(), { kind: 'aborted', message: /resumed/ })
  job.resume()
  await takenBack
  await bench.go()
  bench.failures.set('checkpoint 2 paused', failure('no quorum'))
  const notDurable = t.rejects(job.pause(), { message: 'no quorum' })
  await bench.go()
  await notDurable
  t.equal(job.state, 'paused', 'it rests all the same')
  job.resume()
  t.equal(await job.ended, 'done')
  const failing = bench.jobs.start(bench.plan('x', 2 * MIB))
  bench.failures.set('step 0', failure('bad sector'))
  await quiet()
  const late = t.rejects(failing.pause(), { kind: 'invalid', message: /at work no more/ })
  await bench.go()
  await late
})

t.test('a plan that was paused stays paused until it is resumed', async (t) => {
  const bench = new Bench()
  const job = bench.jobs.start(bench.plan('db', MIB, { paused: true }))
  await quiet()
  t.strictSame(bench.calls, [])
  t.equal(job.report().state, 'paused')
  job.resume()
  t.equal(await job.ended, 'done')
})

t.test('cancel gives up durably after the step in hand, from any state', async (t) => {
  const bench = new Bench()
  bench.stepwise = true
  const job = bench.jobs.start(bench.plan('db', 4 * MIB))
  await quiet()
  const cancel = job.cancel()
  await bench.go()
  await cancel
  t.strictSame(bench.calls, ['db step 0', 'db abandon cancelled'])
  t.equal(await job.ended, 'cancelled')
  t.equal(bench.events.history.at(-1)?.event, 'rebuild-cancelled')
  const paused = bench.jobs.start(bench.plan('paused', MIB, { paused: true }))
  await paused.cancel()
  t.equal(paused.state, 'cancelled')
  bench.failures.set('abandon cancelled', failure('no quorum'))
  const stuck = bench.jobs.start(bench.plan('stuck', MIB, { paused: true }))
  await t.rejects(stuck.cancel(), { message: 'no quorum' })
  t.equal(stuck.state, 'failed')
})

t.test('vinum.md 8.6: a step that fails ends the job as failed, never as done', async (t) => {
  const bench = new Bench()
  bench.failures.set('step 1', failure('bad sector 7'))
  const job = bench.jobs.start(bench.plan('db', 4 * MIB))
  t.equal(await job.ended, 'failed')
  t.strictSame(bench.calls, ['db step 0', 'db step 1', 'db abandon failed'])
  t.equal(job.report().error, 'bad sector 7')
  t.match(bench.events.history.at(-1), { event: 'rebuild-failed', severity: 'critical' })
  bench.failures.clear()
  bench.failures.set('finish', failure('no quorum'))
  const late = bench.jobs.start(bench.plan('late', MIB, { kind: 'check' }))
  t.equal(await late.ended, 'failed', 'an end that is not durable is none')
  t.match(bench.events.history.at(-1), { event: 'check-failed', severity: 'warning' })
  bench.failures.clear()
  t.equal(await bench.jobs.start(bench.plan('db', 4 * MIB)).ended, 'done', 'it may be tried again')
  t.strictSame(
    bench.jobs.list().map(({ id, state }) => `${id} ${state}`),
    ['late failed', 'db done'],
    'and is listed once',
  )
})

t.test(
  'progress becomes durable every so often; a checkpoint that fails is no failure',
  async (t) => {
    const bench = new Bench()
    bench.stepMs = JOB_CHECKPOINT_MS / 4
    bench.failures.set('checkpoint 4 running', failure('no quorum'))
    const job = bench.jobs.start(bench.plan('db', 9 * MIB))
    await bench.pass(JOB_CHECKPOINT_MS * 3, JOB_CHECKPOINT_MS / 4)
    t.equal(await job.ended, 'done')
    t.strictSame(
      bench.calls.filter((call) => call.includes('checkpoint')),
      ['db checkpoint 4 running', 'db checkpoint 8 running'],
    )
  },
)

t.test('a limit holds over time, makes steps small, and changes at once', async (t) => {
  const bench = new Bench()
  const job = bench.jobs.start(bench.plan('db', 1000 * MIB, { limitBytesPerSecond: 4 * MIB }))
  await bench.pass(10_000)
  const after10 = job.doneBytes
  t.ok(Math.abs(after10 - 40 * MIB) <= MIB, `40 MiB in 10 s: ${after10 / MIB}`)
  t.ok(Math.max(...bench.sizes) <= 0.4 * MIB, 'a step is a tenth of a second')
  const { bytesPerSecond, etaSeconds, limitBytesPerSecond } = job.report()
  t.ok(Math.abs(bytesPerSecond - 4 * MIB) < 0.2 * MIB, `rate ${bytesPerSecond}`)
  t.ok(Math.abs((etaSeconds ?? 0) - 240) < 15, `eta ${etaSeconds}`)
  t.equal(limitBytesPerSecond, 4 * MIB)
  job.setLimit(40 * MIB)
  await bench.pass(1000)
  t.ok(Math.abs(job.doneBytes - after10 - 40 * MIB) <= 3 * MIB, 'the new one from now on')
  job.setLimit(undefined)
  await bench.pass(10_000)
  t.equal(await job.ended, 'done')
  t.equal(Math.max(...bench.sizes), JOB_STEP_BYTES)
})

t.test('the limit of all jobs is shared; what was jumped over is not charged', async (t) => {
  const bench = new Bench()
  bench.jobs.limitBytesPerSecond = 8 * MIB
  const one = bench.jobs.start(bench.plan('one', 1000 * MIB))
  const two = bench.jobs.start(bench.plan('two', 1000 * MIB))
  await bench.pass(10_000)
  const sum = one.doneBytes + two.doneBytes
  t.ok(Math.abs(sum - 80 * MIB) <= 3 * MIB, `80 MiB in 10 s: ${sum / MIB}`)
  t.ok(Math.abs(one.doneBytes - two.doneBytes) <= 8 * MIB, 'both get on')
  bench.jobs.limitBytesPerSecond = undefined
  await Promise.all([one.ended, two.ended])
  bench.jobs.limitBytesPerSecond = MIB
  const sparse = bench.plan('sparse', 1000 * MIB, {
    async step(offset, _maxBytes, job: Job) {
      job.skip(100 * MIB)
      return offset + 100 * MIB
    },
  })
  t.equal(await bench.jobs.start(sparse).ended, 'done', 'without any time')
})

t.test(
  'a job that gains from longer steps makes them while its drives serve nobody else',
  async (t) => {
    const bench = new Bench()
    const others = [false, false, true, true, false, false]
    const busy = () => others.shift() ?? false
    const job = bench.jobs.start(bench.plan('db', 20 * MIB, { aloneBytes: 4 * MIB, busy }))
    await bench.pass(1000)
    t.equal(await job.ended, 'done')
    t.strictSame(
      bench.sizes.map((size) => size / MIB),
      [1, 4, 4, 1, 1, 4, 4, 4],
      'the first one, and those after it has found others, are of the usual size',
    )
    bench.sizes.length = 0
    const limitBytesPerSecond = 20 * MIB
    bench.jobs.start(bench.plan('slow', 20 * MIB, { aloneBytes: 4 * MIB, limitBytesPerSecond }))
    await bench.pass(1000)
    t.equal(Math.max(...bench.sizes), 2 * MIB, 'a limit counts all the same')
  },
)

t.test('while the drives serve others, a job rests as long as it works', async (t) => {
  const bench = new Bench()
  bench.stepMs = 20
  let busy = true
  const job = bench.jobs.start(bench.plan('db', 1000 * MIB, { busy: () => busy }))
  await bench.pass(2000)
  t.equal(job.doneBytes, 50 * MIB, 'half of the time')
  busy = false
  const before = job.doneBytes
  await bench.pass(2000)
  t.ok(job.doneBytes - before >= 99 * MIB, 'all of it')
  const cancel = job.cancel()
  await bench.pass(100)
  await cancel
})

t.test('more jobs than may run wait in line, in order, and may be cancelled there', async (t) => {
  const bench = new Bench()
  bench.stepwise = true
  const jobs = Array.from({ length: JOBS_RUNNING + 3 }, (_, i) =>
    bench.jobs.start(bench.plan(`j${i}`, MIB)),
  )
  await quiet()
  t.equal(bench.sizes.length, JOBS_RUNNING)
  await jobs[JOBS_RUNNING]?.cancel()
  await bench.go()
  t.equal(bench.sizes.length, JOBS_RUNNING + 1, 'one has ended, the next one runs')
  t.ok(bench.calls.includes('j0 finish'))
  for (let i = 0; i < 8; i++) await bench.go()
  bench.stepwise = false
  await Promise.all(jobs.map((job) => job.ended))
  t.strictSame(bench.calls.filter((call) => call.includes('step')).slice(-2), [
    `j${JOBS_RUNNING + 1} step 0`,
    `j${JOBS_RUNNING + 2} step 0`,
  ])
  t.throws(() => bench.jobs.get('nobody'), { kind: 'not-found', message: /j0/ })
  for (let i = 0; i < 20; i++) await bench.jobs.start(bench.plan(`more${i}`, MIB)).ended
  t.equal(bench.jobs.list().length, JOBS_ENDED_SHOWN)
})

t.test('a paused job lets the next one work', async (t) => {
  const bench = new Bench()
  bench.stepwise = true
  const jobs = Array.from({ length: JOBS_RUNNING + 1 }, (_, i) =>
    bench.jobs.start(bench.plan(`j${i}`, 2 * MIB)),
  )
  await quiet()
  const pause = jobs[0]?.pause()
  await bench.go()
  await pause
  t.equal(bench.sizes.length, JOBS_RUNNING + 1)
  bench.stepwise = false
  jobs[0]?.resume()
  for (let i = 0; i < 12; i++) await bench.go()
  await Promise.all(jobs.map((job) => job.ended))
})

t.test('one job of an id at a time', async (t) => {
  const bench = new Bench()
  bench.stepwise = true
  const job = bench.jobs.start(bench.plan('db', MIB))
  t.throws(() => bench.jobs.start(bench.plan('db', MIB)), {
    kind: 'in-use',
    message: /runs already/,
  })
  bench.stepwise = false
  await bench.go()
  await job.ended
  t.throws(() => new Bench().jobs.get('x'), { kind: 'not-found', message: /no job runs/ })
})

t.test('stop parks all at a checkpoint; nothing is finished or abandoned', async (t) => {
  const bench = new Bench()
  bench.stepwise = true
  const running = bench.jobs.start(bench.plan('a', 4 * MIB))
  const paused = bench.jobs.start(bench.plan('b', 4 * MIB, { paused: true }))
  const limited = bench.jobs.start(bench.plan('c', 4 * MIB, { limitBytesPerSecond: 1024 }))
  await quiet()
  const stop = bench.jobs.stop()
  await bench.go()
  await bench.go()
  await stop
  t.equal(await running.ended, 'running')
  t.equal(await paused.ended, 'paused')
  t.equal(await limited.ended, 'running')
  t.strictSame([...bench.calls].sort(), [
    'a checkpoint 1 running',
    'a step 0',
    'b checkpoint 0 paused',
    'c checkpoint 0.0625 running',
    'c step 0',
  ])
  t.strictSame(bench.jobs.list(), [])
  await running.park()
  t.throws(() => bench.jobs.start(bench.plan('late', MIB)), {
    kind: 'aborted',
    message: /stopping/,
  })
})

t.test(
  'a step that fails while everything stops is no failure: it is tried after the restart',
  async (t) => {
    const bench = new Bench()
    bench.stepwise = true
    bench.failures.set('step 0', failure('closed'))
    const job = bench.jobs.start(bench.plan('a', 4 * MIB))
    await quiet()
    const stop = bench.jobs.stop()
    t.ok(job.parking)
    await bench.go()
    await stop
    t.strictSame(bench.calls, ['a step 0', 'a checkpoint 0 running'])
  },
)

t.test('an error of the program is not taken for an operating error', async (t) => {
  const bench = new Bench()
  const job = bench.plan('db', MIB, { step: async (offset) => offset })
  const seen = new Promise((resolve) => process.once('unhandledRejection', resolve))
  bench.jobs.start(job)
  t.match(await seen, { name: 'AssertionError', message: /gets on/ })
})
