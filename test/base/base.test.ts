import t from 'tap'
import { AssertionError, assert, defined } from '../../src/base/assert.ts'
import { alignDown, alignUp, formatSize, parseSize } from '../../src/base/bytes.ts'
import { PlexusError, Refusals, toPlexusError } from '../../src/base/errors.ts'
import { assertLimits, LONG_WORK_MS } from '../../src/base/limits.ts'
import { createLogger, journalLine } from '../../src/base/log.ts'
import { LogLimit } from '../../src/base/log-limit.ts'
import { formatAddress, networkOf } from '../../src/base/network.ts'
import { printable } from '../../src/base/printable.ts'
import { inLanes, inTurns } from '../../src/base/turns.ts'
import { ManualClock } from '../support/manual-clock.ts'

t.test('sizes as people write them', async (t) => {
  const cases = [
    ['0', 0],
    ['512', 512],
    ['512 B', 512],
    ['4KiB', 4096],
    ['1.5MiB', 1.5 * 2 ** 20],
    ['20TiB', 20 * 2 ** 40],
    ['1GB', 1e9],
    ['64k', 65536],
    ['8s', 4096],
  ] as const
  for (const [text, bytes] of cases) t.equal(parseSize(text), bytes, text)
  for (const text of ['', '-1', 'KiB', '1.5', '1e3', '1 XB', '10 000', '9PiB', '0x10']) {
    t.throws(() => parseSize(text), PlexusError, text)
  }
  t.equal(formatSize(512), '512 B')
  t.equal(formatSize(4 * 2 ** 30), '4 GiB')
  t.equal(formatSize(6_003_000_000_000), '5.46 TiB')
})

t.test('alignment', async (t) => {
  t.equal(alignUp(4097, 4096), 8192)
  t.equal(alignDown(4097, 4096), 4096)
})

t.test('limits fit together', async (t) => {
  t.doesNotThrow(assertLimits)
})

t.test('assertions stay on', async (t) => {
  t.throws(() => assert(false, 'two and two'), AssertionError)
  t.throws(() => defined(undefined, 'x'), AssertionError)
  t.equal(defined(0, 'x'), 0)
})

t.test('a refusal is a sentence, and its first value the subject', async (t) => {
  const refuse = new Refusals('remove')
  const error = refuse.inUse`volume ${'v1'} has ${2} sessions`
  const message = 'volume v1 has 2 sessions'
  t.match(error, { kind: 'in-use', op: 'remove', subject: 'v1', message })
  t.ok(error instanceof PlexusError)
})

t.test('any thrown value becomes a PlexusError, which stays what it is', async (t) => {
  const own = new PlexusError('gone', { op: 'read', subject: 'd1', message: 'd1: gone' })
  t.equal(toPlexusError(own, 'write', 'd2'), own)
  const foreign = toPlexusError(new Error('boom'), 'open', 'd3')
  t.match(foreign, { kind: 'io', op: 'open', subject: 'd3', message: 'd3: open: boom' })
})

t.test('the manual clock runs timers in order, and only as far as told', async (t) => {
  const clock = new ManualClock()
  const seen: string[] = []
  clock.after(20, () => seen.push(`b${clock.nowMs()}`))
  const every = clock.every(8, () => seen.push(`t${clock.nowMs()}`))
  clock.after(5, () => clock.after(1, () => seen.push(`a${clock.nowMs()}`)))
  clock.after(7, () => seen.push('never')).cancel()
  clock.advance(19)
  t.same(seen, ['a6', 't8', 't16'])
  every.cancel()
  clock.advance(100)
  t.same(seen, ['a6', 't8', 't16', 'b20'])
})

t.test('a flood becomes a few lines and a count', async (t) => {
  const clock = new ManualClock()
  const limit = new LogLimit(clock, 2, 1000)
  t.same([limit.take(), limit.take(), limit.take(), limit.take()], [{}, {}, undefined, undefined])
  clock.advance(999)
  t.equal(limit.take(), undefined)
  clock.advance(1)
  t.same(limit.take(), { omitted: 3 })
  t.same(limit.take(), {})
})

t.test('a noisy peer does not hide another, and many share one allowance', async (t) => {
  const clock = new ManualClock()
  const limit = new LogLimit(clock, 1, 1000, 2)
  t.same([limit.take('a'), limit.take('a'), limit.take('a')], [{}, undefined, undefined])
  t.same(limit.take('b'), {}, 'the second peer is heard')
  t.same([limit.take('c'), limit.take('d')], [{}, undefined], 'the others have one line together')
  clock.advance(1000)
  t.same(limit.take('a'), { omitted: 2 })
  t.same(limit.take('c'), {}, 'in the place of b')
  t.same([limit.take('d'), limit.take('e')], [{ omitted: 1 }, undefined])
})

t.test('the journal gets one readable line with a priority', async (t) => {
  const lines: string[] = []
  const log = createLogger('info', 'journal', (text) => lines.push(text))
  log.child({ part: 'session' }).info({ tsih: 3 }, 'esx1 logged in')
  log.warn({ err: new Error('no answer') }, 'a device is slow')
  log.debug('not this one')
  t.same(lines, ['<6>session: esx1 logged in (tsih=3)\n', '<4>a device is slow: no answer\n'])
  t.equal(journalLine('no JSON'), 'no JSON')
})

t.test('a terminal gets one readable line with time and level', async (t) => {
  t.intercept(process.stderr, 'isTTY', { value: true })
  t.intercept(process, 'env', { value: { ...process.env, JOURNAL_STREAM: '8:1234' } })
  const lines: string[] = []
  const log = createLogger('info', 'auto', (text) => lines.push(text))
  log.child({ part: 'session' }).info({ tsih: 3 }, 'esx1 logged in')
  log.fatal({ err: new Error('no answer') }, 'plexusd cannot start')
  t.match(lines[0], /^\d\d:\d\d:\d\d info: session: esx1 logged in \(tsih=3\)\n$/)
  t.match(lines[1], /^\d\d:\d\d:\d\d fatal: plexusd cannot start: no answer\n$/)
})

t.test('a JSON line has each key once', async (t) => {
  const lines: string[] = []
  const log = createLogger('info', 'json', (text) => lines.push(text))
  log.child({ part: 'engine' }).child({ part: 'vinum' }).info({ n: 1 }, 'up')
  t.match(lines[0], /^\{"level":30,"time":"[^"]+","part":"vinum","n":1,"msg":"up"\}\n$/)
})

t.test('networks of strangers', async (t) => {
  t.equal(networkOf('10.0.0.1'), '10.0.0.1')
  t.equal(networkOf('::ffff:10.0.0.1'), '10.0.0.1')
  t.equal(networkOf('2001:db8:1:2:3:4:5:6'), '2001:db8:1:2::/64')
  t.equal(networkOf('2001:db8:1:2::9'), '2001:db8:1:2::/64')
  t.equal(networkOf('2001:db8::9'), '2001:db8:0:0::/64')
  t.equal(networkOf('::1'), '0:0:0:0::/64')
  t.equal(networkOf('fe80::1%eth0'), 'fe80::1%eth0', 'the hosts of a link are not one')
  t.equal(formatAddress('fd00::5', 1), '[fd00::5]:1')
})

t.test('nothing in the log steers a terminal', async (t) => {
  const hostile = 'a\u009b31m\u202eb\u2028c\u007f\u{e0001}é'
  const shown = 'a\\u009b31m\\u202eb\\u2028c\\u007f\\udb40\\udc01é'
  t.equal(printable(hostile), shown)
  const lines: string[] = []
  for (const format of ['journal', 'json'] as const) {
    createLogger('info', format, (text) => lines.push(text)).info({ name: `${hostile}\n` }, hostile)
  }
  t.equal(lines[0], `<6>${shown} (name=${shown}\\u000a)\n`)
  t.notMatch(lines[1]?.trimEnd(), /\p{C}/u)
  t.match(
    JSON.parse(lines[1] ?? ''),
    { name: `${hostile}\n`, msg: hostile },
    'the same for programs',
  )
})

t.test('long work in turns of the event loop', async (t) => {
  const done: number[] = []
  let turns = 0
  const beat = setInterval(() => turns++, 1)
  t.teardown(() => clearInterval(beat))
  await inTurns([1, 2, 3, 4, 5], (item) => {
    const untilMs = performance.now() + LONG_WORK_MS
    while (performance.now() < untilMs);
    done.push(item)
  })
  t.strictSame(done, [1, 2, 3, 4, 5])
  t.ok(turns >= 4, 'others have had their turns in between')

  let busy = 0
  let most = 0
  await inLanes(new Set([1, 2, 3, 4, 5, 6, 7]), 3, async (item) => {
    most = Math.max(most, ++busy)
    await new Promise((resolve) => setTimeout(resolve, item % 3))
    busy--
    done.push(item)
  })
  t.equal(most, 3)
  t.equal(done.length, 12)
  await t.rejects(
    inLanes([1, 2], 2, async (item) => {
      if (item === 2) throw new Error('two')
    }),
    /two/,
  )
})
