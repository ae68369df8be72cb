/**
 * The order of overlapping ranges, the validity of reviving subdisks, and the write-intent map: its form on disk,
 * durability before data, shared writes, lazy clearing.
 */
import fc from 'fast-check'
import t from 'tap'
import { ManualClock } from '../../../../src/base/clock.ts'
import { crc32c } from '../../../../src/base/crc32c.ts'
import { PlexusError } from '../../../../src/base/errors.ts'
import { GIB, INTENT_CLEAR_MS, KIB, MIB } from '../../../../src/base/limits.ts'
import { IntentMap } from '../../../../src/engine/vinum/io/dirty-regions.ts'
import {
  decodeIntent,
  INTENT_BLOCK_BYTES,
  INTENT_REGIONS_MAX,
  IntentBits,
  mergeIntent,
  regionBytesOf,
} from '../../../../src/engine/vinum/io/intent-bits.ts'
import {
  type LockEntry,
  type LockMode,
  RangeLock,
} from '../../../../src/engine/vinum/io/range-lock.ts'
import { CursorValidity, RegionValidity } from '../../../../src/engine/vinum/io/validity.ts'
import { settle } from '../../../support/vinum-host.ts'

const UUID = '8f0c7c9e-30c5-4f5e-9c3a-0d8f6e2b1a77'

t.test('range lock', async (t) => {
  t.test('spec 7: ranges are half open, neighbours do not collide', async (t) => {
    const lock = new RangeLock()
    const seen: string[] = []
    lock.enter(0, 4096, 'write', () => seen.push('a'))
    lock.enter(4096, 4096, 'write', () => seen.push('b'))
    t.strictSame(seen, ['a', 'b'])
    const last = lock.enter(4095, 2, 'write', () => seen.push('c'))
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
        const entry = lock.enter(0, 10, first, () => {})
        lock.enter(5, 10, second, () => {
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
          one.entry = lock.enter(step.offset, step.length, step.mode, () => {
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
    const first = lock.enter(0, 1, 'write', () => {})
    const second = lock.enter(0, 1, 'write', () => {})
    t.throws(() => lock.leave(second), /let in/)
    lock.leave(first)
    lock.leave(second)
    t.throws(() => lock.leave(second), /let in/)
  })
})

t.test('validity', async (t) => {
  const cursor = new CursorValidity(100)
  t.ok(cursor.covers(0, 100))
  t.notOk(cursor.covers(99, 2))
  cursor.markValid(150, 50)
  t.equal(cursor.cursorBytes, 100, 'what is not connected does not move the cursor')
  cursor.markValid(100, 50)
  t.ok(cursor.covers(0, 150))
  cursor.markValid(0, 10)
  t.equal(cursor.cursorBytes, 150, 'it never goes back')

  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(60), fc.nat(8)), { maxLength: 8 }),
      fc.array(fc.tuple(fc.nat(60), fc.nat(12)), { maxLength: 12 }),
      (missing, marks) => {
        const validity = new RegionValidity(missing.map(([offset, length]) => ({ offset, length })))
        const model = new Uint8Array(80).fill(1)
        for (const [offset, length] of missing) model.fill(0, offset, offset + length)
        for (const [offset, length] of [[0, 0] as const, ...marks]) {
          validity.markValid(offset, length)
          model.fill(1, offset, offset + length)
          for (let at = 0; at < 70; at++) {
            for (const span of [1, 3, 9]) {
              const wanted = model.subarray(at, at + span).every((valid) => valid === 1)
              if (validity.covers(at, span) !== wanted) throw new Error(`${at}+${span}`)
            }
          }
        }
      },
    ),
    { numRuns: 100 },
  )
})

t.test('intent bits', async (t) => {
  t.test('regions fit one block, and are powers of two from 1 MiB', async (t) => {
    t.equal(regionBytesOf(1), MIB)
    t.equal(regionBytesOf(INTENT_REGIONS_MAX * MIB), MIB)
    t.equal(regionBytesOf(INTENT_REGIONS_MAX * MIB + 512), 2 * MIB)
    t.equal(regionBytesOf(2 ** 50), 64 * GIB)
  })

  t.test('a block survives the way to disk and back; golden frame', async (t) => {
    const bits = new IntentBits(100 * MIB + 512)
    bits.mark(3 * MIB - 1, 2)
    bits.mark(100 * MIB, 512)
    t.strictSame(bits.ranges(), [
      { offset: 2 * MIB, length: 2 * MIB },
      { offset: 100 * MIB, length: 512 },
    ])
    const block = Buffer.alloc(INTENT_BLOCK_BYTES, 0xff)
    bits.encode(block, UUID, 7)
    t.equal(block.toString('latin1', 0, 8), 'PLEXDIRT')
    t.equal(block.readUInt32LE(56), 101)
    t.equal(block.readUInt8(512), 0b1100, 'regions 2 and 3')
    t.equal(block.readUInt8(512 + 12), 0b10000, 'region 100')
    const copy = decodeIntent([block, Buffer.alloc(INTENT_BLOCK_BYTES)], UUID)
    t.match(copy, { sequence: 7, which: 0 })
    t.strictSame(copy?.bits.ranges(), bits.ranges())
  })

  t.test('the block says how large its regions are', async (t) => {
    const bits = new IntentBits(8 * MIB, 64 * 1024)
    bits.mark(3 * 64 * 1024, 1)
    const block = Buffer.alloc(INTENT_BLOCK_BYTES)
    bits.encode(block, UUID, 7)
    const copy = decodeIntent([block, Buffer.alloc(INTENT_BLOCK_BYTES)], UUID)
    t.strictSame(copy?.bits.ranges(), [{ offset: 3 * 64 * 1024, length: 64 * 1024 }])
    for (const bytes of [0, 1, 4096 + 512, 128 * 1024, 2 ** 53]) {
      const other = Buffer.from(block)
      other.writeBigUInt64LE(BigInt(bytes), 48)
      other.writeUInt32LE(0, 12)
      other.writeUInt32LE(crc32c(other), 12)
      t.equal(decodeIntent([other, Buffer.alloc(0)], UUID), undefined, `${bytes} bytes a region`)
    }
  })

  t.test('of a pair the newer whole one counts; a torn one leaves the other', async (t) => {
    const blockOf = (sequence: number, region: number): Buffer => {
      const bits = new IntentBits(64 * MIB)
      bits.mark(region * MIB, 1)
      const block = Buffer.alloc(INTENT_BLOCK_BYTES)
      bits.encode(block, UUID, sequence)
      return block
    }
    const older = blockOf(4, 1)
    const newer = blockOf(5, 2)
    t.match(decodeIntent([older, newer], UUID), { sequence: 5, which: 1 })
    t.match(decodeIntent([newer, older], UUID), { sequence: 5, which: 0 })
    const torn = Buffer.concat([newer.subarray(0, 512), older.subarray(512)])
    t.match(decodeIntent([older, torn], UUID), { sequence: 4, which: 0 })
    t.equal(decodeIntent([torn, torn], UUID), undefined)
    t.equal(decodeIntent([older, newer], UUID.replace('8', '9')), undefined, 'another volume')
    for (const at of [0, 9, 13, 20, 33, 41, 49, 57, 100, 512, 4095]) {
      const damaged = Buffer.from(newer)
      damaged[at] = (damaged[at] ?? 0) ^ 1
      t.equal(decodeIntent([damaged, Buffer.alloc(0)], UUID), undefined, `bit at ${at}`)
    }
  })

  t.test('what any drive remembers counts, also in the regions of a smaller volume', async (t) => {
    const small = new IntentBits(8 * MIB)
    small.mark(5 * MIB, 1)
    const large = new IntentBits(INTENT_REGIONS_MAX * MIB * 2)
    large.mark(10 * MIB, 1)
    const merged = mergeIntent(
      [
        { bits: small, sequence: 1, which: 0 },
        { bits: large, sequence: 2, which: 1 },
      ],
      large.sizeBytes,
    )
    t.equal(merged.regionBytes, 2 * MIB)
    t.strictSame(merged.ranges(), [
      { offset: 4 * MIB, length: 2 * MIB },
      { offset: 10 * MIB, length: 2 * MIB },
    ])
  })
})

interface Stored {
  readonly ranges: readonly { offset: number; length: number }[]
  readonly which: 0 | 1
  readonly sequence: number
}

/** A map whose writes to disk wait for the test. */
function harness(options: { sizeBytes?: number; initial?: IntentBits; held?: boolean } = {}) {
  const clock = new ManualClock()
  const stored: Stored[] = []
  const pending: ((error?: unknown) => void)[] = []
  const state = {
    automatic: false,
    mayClear: true,
    flushes: 0,
    failFlush: false,
    onFlush: () => {},
  }
  const initial = options.initial && {
    bits: options.initial,
    sequence: 41,
    which: 1 as const,
    held: options.held ?? false,
  }
  const map = new IntentMap({
    sizeBytes: options.sizeBytes ?? 64 * MIB,
    volumeUuid: UUID,
    clock,
    store: (block, which) => {
      const copy = decodeIntent([Buffer.from(block), Buffer.alloc(0)], UUID)
      if (!copy) throw new Error('the map stores what can be read')
      stored.push({ ranges: copy.bits.ranges(), which, sequence: copy.sequence })
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
      t.equal(map.dirtyRegions, 2, 'a subdisk is away: the marks are what it misses')
      state.mayClear = true
      state.failFlush = true
      clock.advance(INTENT_CLEAR_MS)
      await settle(1)
      t.equal(state.flushes, 1)
      t.equal(map.dirtyRegions, 2, 'not without the flush')
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

  t.test('held regions stay marked until a job says that they agree', async (t) => {
    const before = new IntentBits(64 * MIB)
    before.mark(4 * MIB, MIB)
    const { clock, map, state, stored, enter } = harness({ initial: before, held: true })
    state.automatic = true
    t.ok(map.isHeld(4 * MIB + 512, 512))
    t.notOk(map.isHeld(5 * MIB, 512))
    const write = enter(4 * MIB, 512)
    await settle(1)
    t.equal(write.granted, 1)
    t.equal(stored[0]?.which, 0, 'the place of the newest one is spared')
    t.equal(stored[0]?.sequence, 42)
    map.leave(4 * MIB, 512)
    clock.advance(5 * INTENT_CLEAR_MS)
    await settle(1)
    t.ok(map.isDirty(4 * MIB, 1))
    map.agree(4 * MIB, MIB / 2)
    t.ok(map.isHeld(4 * MIB + MIB / 2, 512), 'half of it still may differ')
    map.agree(4 * MIB + MIB / 2, MIB / 2)
    t.strictSame(map.held, [])
    clock.advance(5 * INTENT_CLEAR_MS)
    await settle(1)
    t.equal(map.dirtyRegions, 0)
    enter(8 * MIB, 512)
    await settle(1)
    map.keep(8 * MIB, 512)
    t.ok(map.isHeld(8 * MIB, 512), 'a write that failed')
    t.notOk(map.isHeld(8 * MIB + 512, 512))
    await map.hold(20 * MIB, 2 * MIB)
    t.strictSame(stored.at(-1)?.ranges, [
      { offset: 8 * MIB, length: MIB },
      { offset: 20 * MIB, length: 2 * MIB },
    ])
  })

  t.test('at the end all marks go that may', async (t) => {
    const { enter, map, state, stored } = harness()
    state.automatic = true
    enter(0, 512)
    enter(3 * MIB, 512)
    await settle(1)
    map.leave(0, 512)
    map.keep(3 * MIB, 512)
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
    t.equal(away.map.dirtyRegions, 1)
  })

  t.test('a grown volume has larger regions, durably, with the old marks', async (t) => {
    const { enter, map, state, stored } = harness({ sizeBytes: INTENT_REGIONS_MAX * MIB })
    state.automatic = true
    enter(7 * MIB, 512)
    await settle(1)
    t.rejects(map.resize(2 * INTENT_REGIONS_MAX * MIB), /no write is inside/)
    map.leave(7 * MIB, 512)
    await map.resize(2 * INTENT_REGIONS_MAX * MIB)
    t.equal(map.regionBytes, 2 * MIB)
    t.strictSame(stored.at(-1)?.ranges, [{ offset: 6 * MIB, length: 2 * MIB }])
    const high = enter(2 * INTENT_REGIONS_MAX * MIB - 512, 512)
    await settle(1)
    t.equal(high.granted, 1)
    map.leave(2 * INTENT_REGIONS_MAX * MIB - 512, 512)
  })
})
