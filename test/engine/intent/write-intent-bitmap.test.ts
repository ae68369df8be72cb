/**
 * The order of overlapping ranges, sets of ranges, and the write-intent map: its form on disk,
 * durability before data, shared writes, lazy clearing.
 */
import fc from 'fast-check'
import t from 'tap'
import { crc32c } from '../../../src/base/crc32c.ts'
import { PlexusError } from '../../../src/base/errors.ts'
import { GIB, INTENT_CLEAR_MS, INTENT_PIECES, KIB, MIB } from '../../../src/base/limits.ts'
import { RangeSet } from '../../../src/base/range-set.ts'
import {
  CallbackEntry,
  type LockEntry,
  type LockMode,
  RangeLock,
} from '../../../src/engine/geom/range-lock.ts'
import {
  decodeIntent,
  INTENT_BLOCK_BYTES,
  INTENT_BLOCK_REGIONS,
  IntentBits,
} from '../../../src/engine/intent/intent-bits.ts'
import {
  type IntentBlock,
  WriteIntentBitmap,
} from '../../../src/engine/intent/write-intent-bitmap.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { settle } from '../../support/vinum-host.ts'

const NOTHING = Buffer.alloc(INTENT_BLOCK_BYTES)
const UUID = '8f0c7c9e-30c5-4f5e-9c3a-0d8f6e2b1a77'

function enterLock(
  lock: RangeLock,
  offset: number,
  length: number,
  mode: LockMode,
  granted: () => void,
): LockEntry {
  const entry = new CallbackEntry(granted)
  lock.add(entry, offset, length, mode)
  return entry
}

function markedBytes({ marked }: WriteIntentBitmap): number {
  return marked.reduce((sum, { length }) => sum + length, 0)
}

t.test('range lock', async (t) => {
  t.test('spec 7: ranges are half open, neighbours do not collide', async (t) => {
    const lock = new RangeLock()
    const seen: string[] = []
    enterLock(lock, 0, 4096, 'write', () => seen.push('a'))
    enterLock(lock, 4096, 4096, 'write', () => seen.push('b'))
    t.strictSame(seen, ['a', 'b'])
    const last = enterLock(lock, 4095, 2, 'write', () => seen.push('c'))
    t.strictSame(seen, ['a', 'b'])
    t.equal(last.blockers, 2)
  })

  t.test('who conflicts with whom', async (t) => {
    const modes: LockMode[] = ['read', 'write', 'writes', 'all']
    const conflicting = new Set([
      'read all',
      'write write',
      'write writes',
      'write all',
      'writes writes',
      'writes all',
      'all all',
    ])
    for (const first of modes) {
      for (const second of modes) {
        const lock = new RangeLock()
        let granted = false
        const entry = enterLock(lock, 0, 10, first, () => {})
        enterLock(lock, 5, 10, second, () => {
          granted = true
        })
        const wanted =
          conflicting.has(`${first} ${second}`) || conflicting.has(`${second} ${first}`)
        t.equal(granted, !wanted, `${second} beside ${first}`)
        lock.leave(entry)
        t.ok(granted, `${second} after ${first}`)
      }
    }
  })

  t.test('first in, first out among those that conflict, whatever comes', async () => {
    // From bytes in one bucket to ranges over all of them, and places that share their slots.
    const step = fc
      .record({
        place: fc.nat(20),
        units: fc.integer({ min: 0, max: 8 }),
        unit: fc.constantFrom(1, 20 * KIB, 20 * KIB, 64 * KIB, 64 * KIB, MIB, 16 * MIB),
        base: fc.constantFrom(0, 0, 0, 0, 32 * MIB, 2 ** 47),
        mode: fc.constantFrom<LockMode>('read', 'write', 'writes', 'all'),
        leaves: fc.nat(3),
        who: fc.nat(),
      })
      .map(({ place, units, unit, base, ...rest }) => ({
        ...rest,
        offset: base + place * unit,
        length: units * unit,
      }))
    type Step = typeof step extends fc.Arbitrary<infer T> ? T : never
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const lock = new RangeLock()
        const conflicts = (a: Step, b: Step): boolean => {
          const jobs = a.mode === 'all' || b.mode === 'all'
          const reads = a.mode === 'read' || b.mode === 'read'
          return (
            (jobs || !reads) && a.offset < b.offset + b.length && b.offset < a.offset + a.length
          )
        }
        const all: { step: Step; entry: LockEntry; state: 'waits' | 'in' | 'out' }[] = []
        const granted: number[] = []
        const check = (): void => {
          all.forEach((one, index) => {
            const blocked = all
              .slice(0, index)
              .some((other) => other.state !== 'out' && conflicts(other.step, one.step))
            if (one.state !== 'out' && blocked !== (one.state === 'waits')) {
              throw new Error(`entry ${index} ${one.state} although blocked is ${blocked}`)
            }
          })
        }
        const leave = (who: number): boolean => {
          const inside = all.filter(({ state }) => state === 'in')
          const one = inside[who % Math.max(inside.length, 1)]
          if (!one) return false
          one.state = 'out'
          granted.length = 0
          lock.leave(one.entry)
          if (granted.some((index, at) => index < (granted[at - 1] ?? 0))) {
            throw new Error(`let in as ${granted}, not in order of arrival`)
          }
          check()
          return true
        }
        for (const [index, step] of steps.entries()) {
          const one: (typeof all)[0] = { step, entry: undefined as never, state: 'waits' }
          all.push(one)
          one.entry = enterLock(lock, step.offset, step.length, step.mode, () => {
            if (one.state !== 'waits') throw new Error(`entry ${index} was let in twice`)
            one.state = 'in'
            granted.push(index)
          })
          check()
          for (let i = 0; i < step.leaves; i++) leave(step.who)
        }
        while (leave(all.length));
        if (lock.size !== 0) throw new Error('somebody was left waiting')
      }),
      { numRuns: 500 },
    )
  })

  t.test('only who is in may leave, and once', async (t) => {
    const lock = new RangeLock()
    const first = enterLock(lock, 0, 1, 'write', () => {})
    const second = enterLock(lock, 0, 1, 'write', () => {})
    t.throws(() => lock.leave(second), /let in/)
    lock.leave(first)
    lock.leave(second)
    t.throws(() => lock.leave(second), /let in/)
  })
})

t.test('a set of ranges', async () => {
  const change = fc.record({ adds: fc.boolean(), offset: fc.nat(60), length: fc.nat(12) })
  fc.assert(
    fc.property(fc.array(change, { maxLength: 20 }), (changes) => {
      const set = new RangeSet()
      const model = new Uint8Array(80)
      for (const { adds, offset, length } of changes) {
        if (adds) set.add(offset, length)
        else set.remove(offset, length)
        model.fill(adds ? 1 : 0, offset, offset + length)
      }
      const bytes = [...model.keys()].filter((at) => model[at] === 1)
      const listed = set.ranges.flatMap(({ offset, length }) =>
        Array.from({ length }, (_, at) => offset + at),
      )
      if (String(listed) !== String(bytes)) throw new Error(`${listed} and not ${bytes}`)
      set.ranges.forEach(({ offset, length }, index) => {
        const next = set.ranges[index + 1]
        if (length <= 0 || (next && next.offset <= offset + length)) throw new Error('not joined')
      })
      for (let at = 0; at < 70; at++) {
        const here = model.subarray(at, at + 3)
        if (set.covers(at, 3) !== here.every((one) => one === 1)) throw new Error(`covers ${at}`)
        if (set.touches(at, 3) !== here.includes(1)) throw new Error(`touches ${at}`)
      }
    }),
  )
})

t.test('intent bits', async (t) => {
  t.test('regions fit the blocks, and are powers of two from 1 MiB', async (t) => {
    const regionBytes = (sizeBytes: number, blocks: number): number =>
      new IntentBits({ sizeBytes, blocks }).regionBytes
    t.equal(regionBytes(1, 1), MIB)
    t.equal(regionBytes(INTENT_BLOCK_REGIONS * MIB, 1), MIB)
    t.equal(regionBytes(INTENT_BLOCK_REGIONS * MIB + 512, 1), 2 * MIB)
    t.equal(regionBytes(2 ** 50, 1), 64 * GIB)
    t.equal(regionBytes(2 ** 50, 586), 64 * MIB)
  })

  t.test('a block survives the way to disk and back; golden frame', async (t) => {
    const bits = new IntentBits({ sizeBytes: 100 * MIB + 512, blocks: 1 })
    bits.mark(3 * MIB - 1, 2)
    bits.mark(100 * MIB, 512)
    t.strictSame(bits.ranges(), [
      { offset: 2 * MIB, length: 2 * MIB },
      { offset: 100 * MIB, length: 512 },
    ])
    const block = bits.encode(0, UUID, 7)
    t.equal(block.toString('latin1', 0, 8), 'PLEXDIRT')
    t.equal(block.readUInt32LE(56), 101)
    t.equal(block.readUInt32LE(60), 0)
    t.equal(block.readUInt8(512), 0b1100, 'regions 2 and 3')
    t.equal(block.readUInt8(512 + 12), 0b10000, 'region 100')
    t.match(decodeIntent([block, NOTHING], UUID), [{ sequence: 7, which: 0, block: 0 }])
    t.strictSame(decodeIntent([block, NOTHING], UUID)[0]?.ranges, [
      { offset: 2 * MIB, length: 2 * MIB },
      { offset: 100 * MIB, length: MIB },
    ])
  })

  t.test('each block tells of its own regions', async (t) => {
    const bits = new IntentBits({ sizeBytes: 5 * 2 ** 40, blocks: 3 })
    t.match(bits, { regionBytes: 64 * MIB, blocks: 3 })
    const perBlock = INTENT_BLOCK_REGIONS * 64 * MIB
    bits.mark(perBlock - 1, 2)
    bits.mark(5 * 2 ** 40 - 1, 1)
    t.strictSame(
      [0, 1, 2].map((block) => bits.countIn(block)),
      [1, 1, 1],
    )
    const last = { offset: 5 * 2 ** 40 - 64 * MIB, length: 64 * MIB }
    t.strictSame(decodeIntent([bits.encode(2, UUID, 1), NOTHING], UUID, 2)[0]?.ranges, [last])
    t.strictSame(decodeIntent([bits.encode(2, UUID, 1), NOTHING], UUID, 1), [], 'of another place')
    const copy = bits.fresh()
    for (const block of [0, 1, 2]) copy.take(block, bits.encode(block, UUID, 1))
    t.strictSame([copy.ranges(), copy.count], [bits.ranges(), 3])
  })

  t.test('the block says how large its regions are', async (t) => {
    const bits = new IntentBits({ sizeBytes: 8 * MIB, blocks: 1, regionBytes: 64 * KIB })
    bits.mark(3 * 64 * KIB, 1)
    const block = bits.encode(0, UUID, 7)
    t.strictSame(decodeIntent([block, NOTHING], UUID)[0]?.ranges, [
      { offset: 3 * 64 * KIB, length: 64 * KIB },
    ])
    for (const bytes of [0, 1, 4096 + 512, 128 * KIB, 2 ** 53]) {
      const other = Buffer.from(block)
      other.writeBigUInt64LE(BigInt(bytes), 48)
      other.writeUInt32LE(0, 12)
      other.writeUInt32LE(crc32c(other), 12)
      t.strictSame(decodeIntent([other, NOTHING], UUID), [], `${bytes} bytes a region`)
    }
  })

  t.test('of a pair the newer whole one counts; a torn one leaves the other', async (t) => {
    const blockOf = (sequence: number, region: number, regionBytes = MIB): Buffer => {
      const bits = new IntentBits({ sizeBytes: 64 * MIB, blocks: 1, regionBytes })
      bits.set(region)
      return bits.encode(0, UUID, sequence)
    }
    const older = blockOf(4, 1)
    const newer = blockOf(5, 2)
    const decoded = (first: Buffer, second: Buffer, uuid = UUID) =>
      decodeIntent([first, second], uuid).map(({ sequence, which }) => [sequence, which])
    t.strictSame(decoded(older, newer), [[5, 1]])
    t.strictSame(decoded(newer, older), [[5, 0]])
    const torn = Buffer.concat([newer.subarray(0, 512), older.subarray(512)])
    t.strictSame(decoded(older, torn), [[4, 0]])
    t.strictSame(decoded(torn, torn), [])
    t.strictSame(decoded(older, newer, UUID.replace('8', '9')), [], 'another volume')
    const recut = [
      [5, 1],
      [4, 0],
    ]
    t.strictSame(decoded(blockOf(4, 1, 2 * MIB), newer), recut, 'both, while it is cut anew')
    for (const at of [0, 9, 13, 20, 33, 41, 49, 57, 61, 100, 512, 4095]) {
      const damaged = Buffer.from(newer)
      damaged[at] = (damaged[at] ?? 0) ^ 1
      t.strictSame(decoded(damaged, NOTHING), [], `bit at ${at}`)
    }
  })
})

interface Stored {
  readonly block: number
  readonly ranges: readonly { offset: number; length: number }[]
  readonly which: 0 | 1
  readonly sequence: number
}

/** A map whose writes to disk wait for the test. */
function harness(options: { sizeBytes?: number; blocks?: number; initial?: IntentBits } = {}) {
  const clock = new ManualClock()
  const stored: Stored[] = []
  const pending: ((error?: unknown) => void)[] = []
  const state = {
    automatic: false,
    mayClear: true,
    needsAll: false,
    flushes: 0,
    failFlush: false,
    onFlush: () => {},
  }
  const initial = options.initial && {
    bits: options.initial,
    sequence: 41,
    which: [1 as const],
    outdated: [],
  }
  const map = new WriteIntentBitmap({
    sizeBytes: options.sizeBytes ?? 64 * MIB,
    blocks: options.blocks ?? 1,
    volumeUuid: UUID,
    clock,
    needsAll: () => state.needsAll,
    store: (blocks) => {
      for (const { block, which, bytes } of blocks as readonly IntentBlock[]) {
        const [copy] = decodeIntent([bytes, NOTHING], UUID, block)
        if (!copy) throw new Error('the map stores what can be read')
        stored.push({ block, ranges: copy.ranges, which, sequence: copy.sequence })
      }
      if (state.automatic) return Promise.resolve()
      return new Promise((resolve, reject) => {
        pending.push((error) => (error ? reject(error) : resolve()))
      })
    },
    flushDrives: async () => {
      state.flushes++
      state.onFlush()
      if (state.failFlush) throw new Error('flush')
    },
    mayClear: () => state.mayClear,
    ...(initial && { initial }),
  })
  const enter = (offset: number, length: number) => {
    const waiter = {
      granted: 0,
      error: undefined as PlexusError | undefined,
      intended(error: PlexusError | undefined) {
        waiter.granted++
        waiter.error = error
      },
    }
    map.enter(offset, length, waiter)
    return waiter
  }
  return { clock, stored, pending, state, map, enter }
}

t.test('intent map', async (t) => {
  t.test('a write waits until its mark is durable; a marked region costs nothing', async (t) => {
    const { enter, map, stored, pending } = harness()
    const first = enter(5 * MIB, 4096)
    await settle(1)
    t.equal(stored.length, 1)
    t.equal(first.granted, 0, 'not before the map is durable')
    pending[0]?.()
    await settle(1)
    t.equal(first.granted, 1)
    map.leave(5 * MIB, 4096)
    const second = enter(5 * MIB + 8192, 4096)
    t.equal(second.granted, 1, 'at once, from within')
    t.equal(stored.length, 1)
  })

  t.test('all writes that wait share the next map write', async (t) => {
    const { enter, stored, pending } = harness()
    const first = [enter(0, 512), enter(MIB, 512), enter(2 * MIB, 512)]
    await settle(1)
    t.equal(stored.length, 1, 'one turn, one write')
    const later = [enter(10 * MIB, 512), enter(0, 512), enter(11 * MIB, MIB + 1)]
    await settle(1)
    t.equal(stored.length, 1, 'one at a time')
    pending[0]?.()
    await settle(1)
    t.strictSame(
      first.map(({ granted }) => granted),
      [1, 1, 1],
    )
    t.strictSame(
      later.map(({ granted }) => granted),
      [0, 0, 0],
      'the write under way did not carry them',
    )
    t.equal(stored.length, 2)
    pending[1]?.()
    await settle(1)
    t.strictSame(
      later.map(({ granted }) => granted),
      [1, 1, 1],
    )
    t.strictSame(stored[1]?.ranges, [
      { offset: 0, length: 3 * MIB },
      { offset: 10 * MIB, length: 3 * MIB },
    ])
  })

  t.test('the pair is written in turn, but a failed write is repeated in its place', async (t) => {
    const { enter, map, stored, pending } = harness()
    enter(0, 512)
    await settle(1)
    pending[0]?.()
    await settle(1)
    const failing = enter(MIB, 512)
    await settle(1)
    pending[1]?.(new PlexusError('io', { op: 'write', subject: 'd1', message: 'broken' }))
    await settle(1)
    t.equal(failing.granted, 1)
    t.match(failing.error, { kind: 'io', message: 'broken' })
    map.leave(MIB, 512)
    const again = enter(MIB, 512)
    t.equal(again.granted, 0, 'what failed is not durable')
    await settle(1)
    pending[2]?.()
    await settle(1)
    t.equal(again.error, undefined)
    t.strictSame(
      stored.map(({ which, sequence }) => [which, sequence]),
      [
        [0, 1],
        [1, 2],
        [1, 3],
      ],
    )
  })

  t.test(
    'marks go only after rest, after a flush, and while every copy is in service',
    async (t) => {
      const { clock, enter, map, state, stored } = harness()
      state.automatic = true
      enter(0, 512)
      enter(9 * MIB, 512)
      await settle(1)
      map.leave(0, 512)
      clock.advance(INTENT_CLEAR_MS)
      await settle(1)
      t.equal(state.flushes, 0, 'it was written since the last look')
      state.mayClear = false
      clock.advance(INTENT_CLEAR_MS)
      await settle(1)
      t.equal(state.flushes, 0)
      t.equal(markedBytes(map), 2 * MIB, 'a subdisk is away: the marks are what it misses')
      state.mayClear = true
      state.failFlush = true
      clock.advance(INTENT_CLEAR_MS)
      await settle(1)
      t.equal(state.flushes, 1)
      t.equal(markedBytes(map), 2 * MIB, 'not without the flush')
      state.failFlush = false
      clock.advance(INTENT_CLEAR_MS)
      await settle(1)
      t.strictSame(stored.at(-1)?.ranges, [{ offset: 9 * MIB, length: MIB }], 'a write is inside')
      map.leave(9 * MIB, 512)
      clock.advance(3 * INTENT_CLEAR_MS)
      await settle(1)
      t.strictSame(stored.at(-1)?.ranges, [])
      const stores = stored.length
      clock.advance(10 * INTENT_CLEAR_MS)
      await settle(1)
      t.equal(stored.length, stores, 'a clean map rests')
    },
  )

  t.test(
    'a write during the flush keeps its mark; one that comes while a mark goes waits',
    async (t) => {
      const { clock, enter, map, state, stored, pending } = harness()
      enter(0, 512)
      enter(MIB, 512)
      await settle(1)
      pending.shift()?.()
      await settle(1)
      map.leave(0, 512)
      map.leave(MIB, 512)
      clock.advance(INTENT_CLEAR_MS)
      await settle(1)
      pending.shift()?.()
      await settle(1)
      state.onFlush = () => {
        enter(0, 512)
      }
      clock.advance(INTENT_CLEAR_MS)
      await settle(1)
      t.strictSame(stored.at(-1)?.ranges, [{ offset: 0, length: MIB }])
      const late = enter(MIB, 512)
      t.equal(late.granted, 0, 'the mark is on its way out')
      await settle(1)
      pending.shift()?.()
      await settle(1)
      t.equal(late.granted, 0)
      t.strictSame(stored.at(-1)?.ranges, [{ offset: 0, length: 2 * MIB }])
      pending.shift()?.()
      await settle(1)
      t.equal(late.granted, 1)
    },
  )

  t.test('unsynced regions stay marked until a job says that they agree', async (t) => {
    const before = new IntentBits({ sizeBytes: 64 * MIB, blocks: 1 })
    before.mark(4 * MIB, MIB)
    const { clock, map, state, stored, enter } = harness({ initial: before })
    state.automatic = true
    t.ok(map.unsynced.touches(4 * MIB + 512, 512))
    t.notOk(map.unsynced.touches(5 * MIB, 512))
    const write = enter(4 * MIB, 512)
    await settle(1)
    t.equal(write.granted, 1)
    t.equal(stored[0]?.which, 0, 'the place of the newest one is spared')
    t.equal(stored[0]?.sequence, 42)
    map.leave(4 * MIB, 512)
    clock.advance(5 * INTENT_CLEAR_MS)
    await settle(1)
    t.equal(markedBytes(map), MIB)
    map.markSynced(4 * MIB, MIB / 2)
    t.ok(map.unsynced.touches(4 * MIB + MIB / 2, 512), 'half of it still may differ')
    map.markSynced(4 * MIB + MIB / 2, MIB / 2)
    t.strictSame(map.unsynced.ranges, [])
    clock.advance(5 * INTENT_CLEAR_MS)
    await settle(1)
    t.equal(markedBytes(map), 0)
    enter(8 * MIB, 512)
    await settle(1)
    map.leaveUnsynced(8 * MIB, 512)
    t.ok(map.unsynced.touches(8 * MIB, 512), 'a write that failed')
    t.notOk(map.unsynced.touches(8 * MIB + 512, 512))
    await map.markUnsynced(20 * MIB, 2 * MIB)
    t.strictSame(stored.at(-1)?.ranges, [
      { offset: 8 * MIB, length: MIB },
      { offset: 20 * MIB, length: 2 * MIB },
    ])
  })

  t.test('what many failed writes leave is bounded, and none of it is forgotten', async (t) => {
    const { enter, map, state } = harness({ sizeBytes: 64 * GIB })
    state.automatic = true
    const places = Array.from({ length: 12_000 }, (_, index) => index * 4 * MIB + 8192)
    for (const offset of places) enter(offset, 4096)
    await settle(1)
    for (const offset of places) map.leaveUnsynced(offset, 4096)
    const pieces = map.unsynced.ranges.filter(({ length }) => length < map.regionBytes)
    t.ok(pieces.length <= INTENT_PIECES, `${pieces.length} pieces smaller than a region`)
    t.ok(places.every((offset) => map.unsynced.touches(offset, 4096)))
  })

  t.test('writes to marked regions alone move the sequence on, once in a while', async (t) => {
    const { clock, enter, map, state, stored } = harness()
    state.automatic = true
    enter(0, 512)
    await settle(1)
    map.leave(0, 512)
    for (const sequence of [2, 3]) {
      enter(0, 512)
      map.leave(0, 512)
      clock.advance(INTENT_CLEAR_MS)
      await settle(1)
      t.match(stored.at(-1), { sequence, ranges: [{ offset: 0, length: MIB }] })
    }
  })

  t.test('at the end all marks go that may', async (t) => {
    const { enter, map, state, stored } = harness()
    state.automatic = true
    enter(0, 512)
    enter(3 * MIB, 512)
    await settle(1)
    map.leave(0, 512)
    map.leaveUnsynced(3 * MIB, 512)
    await map.stop()
    t.equal(state.flushes, 1)
    t.strictSame(stored.at(-1)?.ranges, [{ offset: 3 * MIB, length: MIB }])
    const away = harness()
    away.state.automatic = true
    away.enter(0, 512)
    await settle(1)
    away.map.leave(0, 512)
    away.state.mayClear = false
    await away.map.stop()
    t.equal(markedBytes(away.map), MIB)
  })

  t.test('a grown volume has larger regions, durably, with the old marks', async (t) => {
    const { enter, map, state, stored } = harness({ sizeBytes: INTENT_BLOCK_REGIONS * MIB })
    state.automatic = true
    enter(7 * MIB, 512)
    await settle(1)
    const larger = { sizeBytes: 2 * INTENT_BLOCK_REGIONS * MIB, blocks: 1 }
    t.rejects(map.resize(larger), /no write is inside/)
    map.leave(7 * MIB, 512)
    await map.resize(larger)
    t.equal(map.regionBytes, 2 * MIB)
    t.strictSame(stored.at(-1)?.ranges, [{ offset: 6 * MIB, length: 2 * MIB }])
    const high = enter(2 * INTENT_BLOCK_REGIONS * MIB - 512, 512)
    await settle(1)
    t.equal(high.granted, 1)
    map.leave(2 * INTENT_BLOCK_REGIONS * MIB - 512, 512)
  })
})
