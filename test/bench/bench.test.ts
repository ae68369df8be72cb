import t from 'tap'
import { describeCase, parseCase, parseCases } from '../../bench/cases.ts'
import type { Sample } from '../../bench/client.ts'
import { requirePrograms, Teardown } from '../../bench/environment.ts'
import { type FairnessRow, renderFairness, SHARE_MIN, unfairRows } from '../../bench/fairness.ts'
import { gateCases, judge, renderVerdicts } from '../../bench/gate.ts'
import { longPauses, PAUSE_MAX_MS, renderReloads } from '../../bench/reload.ts'
import {
  type CaseResult,
  clientWarnings,
  makeRows,
  type Row,
  renderDigests,
  table,
} from '../../bench/report.ts'
import { fitLine, judgeMemory, median, pairedRatio, spread } from '../../bench/statistics.ts'
import { KIB, MIB } from '../../src/base/limits.ts'

t.test('cases', async (t) => {
  t.same(parseCase('rr4k32x4'), {
    name: 'rr4k32x4',
    kind: 'rr',
    bytes: 4 * KIB,
    depth: 32,
    sessions: 4,
  })
  t.match(parseCase('sw1m4'), { kind: 'sw', bytes: MIB, depth: 4, sessions: 1 })
  t.equal(describeCase(parseCase('mix4k8')), '4 KiB random 70/30 mix, queue depth 8')
  t.same(
    parseCases('rr4k1, rw4k1;rr4k1').map((one) => one.name),
    ['rr4k1', 'rw4k1'],
    'a repeated case runs once',
  )
  for (const wrong of [
    '',
    'rr',
    'rr4k',
    'xx4k1',
    'rr4k0',
    'rr4k1x0',
    'rr4k9999',
    'rr4g1',
    'rr4k1 ',
  ]) {
    t.throws(() => parseCase(wrong), /is not a (test case|size)/, `refuses "${wrong}"`)
  }
})

t.test('statistics', async (t) => {
  t.equal(median([]), 0)
  t.equal(median([9, 1, 5]), 5)
  t.equal(median([4, 1, 3, 2]), 2.5)
  t.equal(spread([90, 100, 120]), 0.3)
  t.equal(spread([]), 0)
  // The machine became twice as slow in round 2: the quotients do not see it.
  t.equal(pairedRatio([200, 100, 210], [100, 50, 100]), 2)
  t.equal(pairedRatio([1, 2], []), 0)
  const line = fitLine([0, 1, 2, 3], [5, 7, 9, 11])
  t.equal(line.slope, 2)
  t.equal(line.intercept, 5)
  t.throws(() => fitLine([1], [1]), { name: 'AssertionError' })
  t.throws(() => fitLine([1, 1], [1, 2]), { name: 'AssertionError' })
})

t.test('memory: a saw is flat, a leak is not, the start does not count', async (t) => {
  const seconds = Array.from({ length: 600 }, (_, i) => i)
  const saw = seconds.map((s) => (100 + (s % 20)) * MIB)
  t.equal(judgeMemory(seconds, saw).flat, true)
  const settling = seconds.map((s) => (s < 150 ? 40 + s / 2 : 115) * MIB)
  t.equal(judgeMemory(seconds, settling).flat, true)
  const leak = seconds.map((s) => (100 + (s % 20) + s / 20) * MIB)
  const verdict = judgeMemory(seconds, leak)
  t.equal(verdict.flat, false)
  t.ok(Math.abs(verdict.bytesPerHour / MIB - 180) < 10, `${verdict.bytesPerHour / MIB} MiB/h`)
  t.ok(verdict.lastBytes > verdict.firstBytes)
  t.throws(() => judgeMemory([1, 2], [1, 2]), { name: 'AssertionError' })
})

function sample(iops: number, serverCpuUsPerOp: number, clientCores = 0.3): Sample {
  return {
    iops,
    bytesPerSecond: iops * 4096,
    meanUs: 1,
    p50Us: 1,
    p99Us: 2,
    maxUs: 3,
    gapUs: 0,
    serverCpuUsPerOp,
    serverCpuSPerGib: 1,
    clientCores,
    errors: 0,
  }
}

function results(test: string, samples: Record<string, Sample[]>): CaseResult {
  return { test: parseCase(test), samples: new Map(Object.entries(samples)) }
}

t.test('rows: medians, ratios, warnings', async (t) => {
  const rows = makeRows(
    [
      results('rr4k32', {
        raw: [sample(300_000, 2), sample(200_000, 2), sample(250_000, 2)],
        plexus: [sample(120_000, 5, 0.9), sample(80_000, 7, 0.9), sample(100_000, 6, 0.9)],
      }),
    ],
    ['raw', 'tgt-aio'],
  )
  const plexus = rows.find((row) => row.target === 'plexus')
  t.match(plexus, { iops: 100_000, cpuUsPerOp: 6, ratios: { raw: 0.4 } })
  t.equal(plexus?.ratios['tgt-aio'], undefined, 'no ratio to what did not run')
  t.equal(rows.find((row) => row.target === 'raw')?.ratios['raw'], undefined)
  t.equal(clientWarnings(rows).length, 1)
  t.match(clientWarnings(rows)[0], /rr4k32 on plexus: the client used 90 %/)
})

t.test('digests: the loss is against the same client without them', async (t) => {
  const rows = makeRows(
    [results('rr4k32', { none: [sample(100, 5)], header: [sample(90, 6)], both: [sample(75, 9)] })],
    ['none'],
  )
  const text = renderDigests(rows)
  t.match(text, /header .* 1\.0 +10 %/)
  t.match(text, /both .* 4\.0 +25 %/)
})

t.test('table', async (t) => {
  t.equal(
    table(
      ['a', 'b'],
      [
        ['long', '1'],
        ['x', '1000'],
      ],
    ),
    'a        b\nlong     1\nx     1000',
  )
})

t.test('gate', async (t) => {
  const run = (iops: number, cpu: number): readonly Row[] =>
    makeRows(
      [
        results('rr4k32', {
          raw: [sample(300_000, 2)],
          plexus: [sample(iops, cpu)],
          'tgt-aio': [sample(60_000, 11)],
        }),
      ],
      ['tgt-aio', 'raw'],
    )
  const good = judge(run(90_000, 6), 'realistic', 'ram')
  t.equal(good.length, 3, 'only rules whose case has run are judged')
  t.ok(good.every((verdict) => verdict.passed))
  t.match(renderVerdicts(good, 'realistic'), /all 3 goals are reached/)

  t.notOk(judge(run(90_000, 6), 'great', 'ram').every((verdict) => verdict.passed))
  const slow = judge(run(70_000, 9), 'realistic', 'ram')
  t.same(
    slow.filter((verdict) => !verdict.passed).map((verdict) => verdict.measure),
    ['vs tgt-aio', 'share of raw', 'CPU us/op'],
  )
  t.match(renderVerdicts(slow, 'realistic'), /3 of 3 goals are missed/)
  t.same(
    judge(run(90_000, 6), 'realistic', 'disk').map((verdict) => [verdict.measure, verdict.passed]),
    [
      ['CPU us/op', true],
      ['share of raw', false],
    ],
    'a disk is judged by its share of the bare device',
  )
  t.ok(
    judge(run(90_000, 0), 'realistic', 'ram').some(
      (verdict) => verdict.got === undefined && !verdict.passed,
    ),
    'a figure that is missing fails',
  )
  t.match(renderVerdicts(judge([], 'great', 'ram'), 'great'), /nothing was judged/)
  t.match(gateCases('ram'), /rr4k32x4/)
  t.notMatch(gateCases('disk'), /sr128k8/)
})

t.test('missing programs are all named, with the packages that have them', async (t) => {
  await t.rejects(requirePrograms(['sh', 'no-such-tool', 'neither-this']), {
    message: /Missing: no-such-tool, neither-this.*apt-get install .*no-such-tool neither-this/s,
  })
})

t.test(
  'teardown: in reverse order, a failing step does not stop the others, once only',
  async (t) => {
    const done: string[] = []
    const teardown = new Teardown()
    teardown.add('first', async () => {
      done.push('first')
    })
    teardown.add('a step that fails in this test', async () => {
      throw new Error('on purpose')
    })
    teardown.add('last', async () => {
      done.push('last')
    })
    await teardown.run()
    await teardown.run()
    t.same(done, ['last', 'first'])
  },
)

t.test('fairness: Plexus is judged by the share that is left, its peers are not', async (t) => {
  const row = (target: string, flood: string, share: number): FairnessRow => ({
    target,
    flood,
    aloneIops: 1000,
    besideIops: 1000 * share,
    share,
    slowestMs: 12.34,
    floodPerSecond: 5000,
  })
  const rows = [
    row('plexus', 'INQUIRY', SHARE_MIN),
    row('plexus', 'Text', SHARE_MIN - 0.01),
    row('plexus', 'NOP-Out', Number.NaN),
    row('istgt', 'INQUIRY', 0.01),
  ]
  t.same(
    unfairRows(rows).map(({ flood }) => flood),
    ['Text', 'NOP-Out'],
    'no figure misses the goal, too',
  )
  t.match(renderFairness(rows), /plexus Text +1000 +190 +19\.0 % +12\.3 +5000\n/)
})

t.test('reload: a pause above the goal is named, unless it was without a reload', async (t) => {
  const rows = [
    { reload: 'none', tookMs: 0, pausesMs: [200] },
    { reload: 'unchanged', tookMs: 900, pausesMs: [20, PAUSE_MAX_MS, 400] },
    { reload: 'more', tookMs: 6400, pausesMs: [40, 6401, 51] },
  ]
  t.same(
    longPauses(rows).map(({ reload }) => reload),
    ['more'],
  )
  t.match(renderReloads(rows), /unchanged +900 +50\.0 +400\.0\n/)
})
