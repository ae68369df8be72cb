import t from 'tap'
import { parseCase, parseCases } from '../../bench/cases.ts'
import {
  CONTESTANTS,
  checkEngineCases,
  ENGINE_CASES,
  goalOf,
  isReached,
  parseNames,
  shareOf,
  sharesOf,
} from '../../bench/engine-cases.ts'
import { ModelDevice, NULL_DISK, Turns } from '../../bench/engine-devices.ts'
import { type EngineSample, runLanes, runPasses } from '../../bench/engine-load.ts'
import {
  type EngineResult,
  engineRows,
  engineVerdicts,
  renderEngineVerdicts,
  renderJobs,
  renderMedium,
  replaceReport,
} from '../../bench/engine-report.ts'
import { makeWorld } from '../../bench/engine-world.ts'
import { measureXor } from '../../bench/engine-xor.ts'
import { Teardown } from '../../bench/environment.ts'
import { defined } from '../../src/base/assert.ts'
import { PlexusError } from '../../src/base/errors.ts'
import { KIB, MIB } from '../../src/base/limits.ts'
import { allocateAligned, createAlignedPool } from '../../src/hal/aligned-pool.ts'
import type { IoRequest } from '../../src/hal/block-device.ts'
import { readAt, writeAt, writeZeroes } from '../../src/hal/io.ts'

t.test('several devices get what one volume gets', async (t) => {
  t.same(shareOf(parseCase('sw1m1'), 4), { bytes: 256 * KIB, depth: 1 }, 'a full stripe')
  t.same(shareOf(parseCase('sw1m32'), 4), { bytes: 256 * KIB, depth: 32 })
  t.same(shareOf(parseCase('rr4k32'), 4), { bytes: 4 * KIB, depth: 8 }, 'whole requests')
  t.same(shareOf(parseCase('sr1m32'), 2), { bytes: MIB, depth: 16 }, 'a mirror cuts nothing')
  t.equal(shareOf(parseCase('rr4k1'), 4), undefined, 'one request cannot be on four devices')
  t.same(sharesOf(parseCase('rr4k1'), 'raid5'), { disks: 1, share: { bytes: 4 * KIB, depth: 1 } })
  t.equal(sharesOf(parseCase('sr1m1'), 'raw2'), undefined)
  t.equal(sharesOf(parseCase('sr1m1'), 'first'), undefined, 'what is read was written')
})

t.test('goals', async (t) => {
  const goal = (test: string, name: (typeof CONTESTANTS)[number]) => goalOf(parseCase(test), name)
  t.match(goal('rr4k1', 'concat'), { base: 'raw', wanted: 0.9 })
  t.match(goal('sw1m32', 'stripe'), { base: 'raw', wanted: 0.9 })
  t.match(goal('rr4k32', 'mirror'), { base: 'raw', wanted: 1 })
  t.equal(goal('rr4k1', 'mirror'), undefined, 'one read is on one disk')
  t.equal(goal('rw4k32', 'mirror'), undefined)
  t.match(goal('sw1m32', 'raid5'), { base: 'raw4', wanted: 0.8 })
  t.equal(goal('sw64k8', 'raid5'), undefined, 'no full stripe')
  t.match(goal('rw4k32', 'thin'), { base: 'raw', wanted: 0.95 })
  t.match(goal('sw4k32', 'first'), { base: 'raw', wanted: 0.6 })
  t.equal(goal('rw4k32', 'first'), undefined, 'each fills a granule')
  t.equal(isReached(defined(goal('rr4k1', 'concat'), 'a goal'), 0.9), true)
  t.equal(isReached(defined(goal('rr4k1', 'concat'), 'a goal'), 0.899), false)
  t.equal(isReached(defined(goal('rr4k32', 'mirror'), 'a goal'), 1), false, 'above, not as fast as')
})

t.test('lists', async (t) => {
  t.same(parseNames('mirror, raw', CONTESTANTS), ['raw', 'mirror'], 'in the order of the table')
  t.throws(() => parseNames('raw,nonsense', CONTESTANTS), /"nonsense" is not known/)
  t.throws(() => parseNames(' ', CONTESTANTS), /there are raw, disk/)
  t.equal(checkEngineCases(parseCases(ENGINE_CASES)).length, 10)
  t.throws(() => checkEngineCases(parseCases('rr4k1,mix4k8')), /"mix4k8" is not a case/)
  t.throws(() => checkEngineCases(parseCases('rr4k8x4')), /"rr4k8x4" is not a case/)
})

function sample(megabytes: number): EngineSample {
  return { opsPerSecond: megabytes, bytesPerSecond: megabytes * 1e6, meanUs: 1, cpuUsPerOp: 2 }
}

t.test('report', async (t) => {
  const result = (medium: 'loop' | 'null'): EngineResult => ({
    medium,
    test: parseCase('sw1m32'),
    samples: new Map([
      ['raw', [sample(100), sample(50), sample(100)]],
      ['concat', [sample(96), sample(47), sample(95)]],
      ['raid5', [sample(150), sample(75), sample(160)]],
      ['raw4', [sample(200), sample(100), sample(200)]],
    ]),
  })
  const results = [result('loop'), result('null')]
  const rows = engineRows(results)
  const concat = defined(
    rows.find(({ medium, contestant }) => medium === 'loop' && contestant === 'concat'),
    'a row',
  )
  t.equal(concat.ratios.raw, 0.95, 'the median of the quotients of one round')
  t.equal(concat.megabytesPerSecond, 95)
  const verdicts = engineVerdicts(results, rows)
  t.same(
    verdicts.map(({ medium, goal, got, reached }) => [medium, goal.contestant, got, reached]),
    [
      ['loop', 'concat', 0.95, true],
      ['loop', 'raid5', 0.75, false],
    ],
    'devices that do nothing are not judged',
  )
  const text = renderEngineVerdicts(verdicts)
  t.match(text, /loop sw1m32 concat of raw +>= 0\.90 +0\.95 .* reached/)
  t.match(text, /loop sw1m32 raid5 of raw4 +>= 0\.80 +0\.75 .* MISSED/)
  t.match(text, /goals: 1 of 2 are reached/)
  t.match(renderEngineVerdicts([]), /nothing was judged/)
  const tables = renderMedium('loop', 'loop devices', results, rows)
  t.match(tables, /raw MB\/s +concat +raid5 +raw4 +raid5\/raw4 +spread/)
  t.match(tables, /1 MiB sequential write, queue depth 32 +100 +0\.95x +1\.50x +2\.00x +0\.75x/)
  t.notMatch(renderMedium('null', 'nothing', results, rows), /MB\/s/, 'only CPU time')
})

t.test('the report in a document', async (t) => {
  const marks = ['<!-- engine benchmark: begin -->', '<!-- engine benchmark: end -->']
  const once = replaceReport(`a\n${marks.join('\nold\n')}\nb\n`, 'new\n')
  t.equal(once, `a\n${marks[0]}\n\n\`\`\`\nnew\n\`\`\`\n\n${marks[1]}\nb\n`)
  t.equal(replaceReport(once, 'new\n'), once, 'again, the same')
  t.throws(() => replaceReport('no marks', 'new'), /no place for the report/)
})

t.test('devices of the benchmark keep metadata', async (t) => {
  const device = new ModelDevice('d', MIB, NULL_DISK, new Turns())
  const wrote = allocateAligned(KIB)
  const found = allocateAligned(KIB)
  wrote.bytes.fill(7)
  await writeAt(device, wrote, 512)
  await readAt(device, found, 512)
  t.equal(found.bytes.equals(wrote.bytes), true)
  await writeZeroes(device, { offset: 0, length: KIB })
  await readAt(device, found, 512)
  t.equal(found.bytes[0], 0)
  t.equal(found.bytes[512], 7, 'what lies behind the zeroes stays')
  t.equal(device.inFlight, 0)
})

t.test('the load ends with the error of a request', async (t) => {
  const pool = createAlignedPool(32 * MIB)
  const error = new PlexusError('io', { op: 'read', subject: 'd', message: 'd: broken' })
  const target = {
    submit(request: { complete(error: PlexusError | undefined): void }) {
      setImmediate(() => request.complete(error))
    },
  }
  const lane = { target, spanBytes: MIB, bytes: 4 * KIB, depth: 4 }
  const times = { warmUpMs: 1, measuredMs: 1 }
  await t.rejects(runLanes(parseCase('rr4k4'), [lane], pool, times), { message: 'd: broken' })
  t.equal(pool.leased, 0)
})

t.test('a pass writes each block once, in order or in none', async (t) => {
  const pool = createAlignedPool(32 * MIB)
  for (const name of ['sw4k4', 'rw4k4']) {
    const passes: number[][] = []
    const target = {
      submit(request: IoRequest) {
        passes.at(-1)?.push(request.offset / (4 * KIB))
        setImmediate(() => request.complete(undefined))
      },
    }
    const lane = { target, spanBytes: 100 * 4 * KIB, bytes: 4 * KIB, depth: 4 }
    const times = { warmUpMs: 0, measuredMs: 5 }
    const prepare = async (): Promise<void> => void passes.push([])
    const got = await runPasses(parseCase(name), lane, pool, times, prepare)
    t.ok(got.opsPerSecond > 0)
    const inOrder = [...Array(100).keys()]
    for (const pass of passes) {
      t.strictSame(
        [...pass].sort((a, b) => a - b),
        inOrder,
        name,
      )
      t.equal(pass.join() === inOrder.join(), name === 'sw4k4')
    }
  }
  t.equal(pool.leased, 0)
})

t.test('every contestant runs on devices that do nothing', async (t) => {
  const teardown = new Teardown()
  try {
    const options = {
      medium: 'null',
      spanBytes: 16 * MIB,
      directory: '/dev/shm',
      teardown,
    } as const
    const world = await makeWorld(options)
    t.same(
      world.jobs.map(({ kind }) => kind),
      ['sync', 'initialise', 'rebuild'],
    )
    t.match(
      renderJobs(world.jobs),
      /^jobs: sync \d+ MB\/s, initialise \d+ MB\/s, rebuild \d+ MB\/s$/,
    )
    for (const name of CONTESTANTS) {
      const test = parseCase('sw1m4')
      const { disks, share } = defined(sharesOf(test, name), 'a share')
      const targets = world.targets(name)
      t.equal(targets.length, disks)
      const lanes = targets.map((target) => ({ target, spanBytes: 4 * MIB, ...share }))
      const times = { warmUpMs: 2, measuredMs: 10 }
      const got = await runLanes(test, lanes, world.pool, times)
      t.ok(got.bytesPerSecond > 0 && got.cpuUsPerOp > 0, name)
    }
    await world.emptyThin()
    t.equal(world.pool.leased, 0, 'nothing stays in flight')
  } finally {
    await teardown.run()
  }
})

t.test('XOR', async (t) => {
  for (const { name, gigabytesPerSecond } of measureXor(1, 1)) t.ok(gigabytesPerSecond > 0, name)
})
