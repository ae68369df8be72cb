import t from 'tap'
import { AssertionError, assert, defined } from '../../src/base/assert.ts'
import { alignDown, alignUp, formatSize, parseSize } from '../../src/base/bytes.ts'
import { ManualClock } from '../../src/base/clock.ts'
import { PlexusError, toPlexusError } from '../../src/base/errors.ts'
import { assertLimits, TURN_MS } from '../../src/base/limits.ts'
import { createLogger, journalLine } from '../../src/base/log.ts'
import { LogLimit } from '../../src/base/log-limit.ts'
import { inLanes, inTurns } from '../../src/base/turns.ts'

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

t.test('the journal gets one readable line with a priority', async (t) => {
  const lines: string[] = []
  const log = createLogger('info', 'journal', (text) => lines.push(text))
  log.child({ part: 'session' }).info({ tsih: 3 }, 'esx1 logged in')
  log.warn({ err: new Error('no answer') }, 'a device is slow')
  log.debug('not this one')
  t.same(lines, ['<6>session: esx1 logged in (tsih=3)\n', '<4>a device is slow: no answer\n'])
  t.equal(journalLine('no JSON'), 'no JSON')
})

t.test('long work in turns of the event loop', async (t) => {
  const done: number[] = []
  let turns = 0
  const beat = setInterval(() => turns++, 1)
  t.teardown(() => clearInterval(beat))
  await inTurns([1, 2, 3, 4, 5], (item) => {
    const untilMs = performance.now() + TURN_MS
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
