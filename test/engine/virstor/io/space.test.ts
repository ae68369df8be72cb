/** Free chunks: the bitmap in pieces, the two policies, all or none, what gets nothing, and the watermarks. */
import fc from 'fast-check'
import t from 'tap'
import type { Watermark } from '../../../../src/control/reports.ts'
import { Epochs } from '../../../../src/engine/virstor/io/epochs.ts'
import { FreeBits } from '../../../../src/engine/virstor/io/free-bits.ts'
import {
  Space,
  type SpacePolicy,
  type Watermarks,
} from '../../../../src/engine/virstor/io/space.ts'
import type { Component } from '../../../../src/engine/virstor/runtime.ts'
import { ManualClock } from '../../../support/manual-clock.ts'
import { testComponent } from '../../../support/virstor-rig.ts'

function build(
  chunks: readonly number[],
  policy: SpacePolicy = 'sequential',
  marks: Partial<Watermarks> = {},
) {
  const clock = new ManualClock()
  const components = chunks.map((count, at) => testComponent(at + 1, count, clock))
  const told: [Watermark, boolean][] = []
  const space = new Space({
    components,
    policy,
    chunkWatermark: 0,
    percentWatermark: 10,
    componentWatermark: 1,
    ...marks,
    onWatermark: (watermark, isLow) => told.push([watermark, isLow]),
  })
  const take = (count: number) =>
    space.take(count)?.map(({ component, number }) => `${component}:${number}`)
  return { clock, components, space, told, take }
}

t.test('the bitmap gives the lowest free number, over many pieces', async (t) => {
  const change = fc.oneof(fc.constant('take'), fc.nat(69_999))
  fc.assert(
    fc.property(
      fc.array(change, { maxLength: 60 }),
      fc.constantFrom(0, 32_766),
      (steps, filled) => {
        const bits = new FreeBits(70_000)
        const used = new Set<number>()
        const take = (): void => {
          let lowest = 0
          while (used.has(lowest)) lowest++
          const number = bits.take()
          if (number !== lowest) throw new Error(`${number} instead of ${lowest}`)
          used.add(number)
        }
        for (let count = 0; count < filled; count++) used.add(bits.take())
        for (const one of steps) {
          if (typeof one === 'string') take()
          else if (used.delete(one)) bits.give(one)
          else {
            bits.claim(one)
            used.add(one)
          }
          if (bits.free !== 70_000 - used.size) throw new Error(`${bits.free} are free`)
        }
      },
    ),
    { numRuns: 100 },
  )
  t.throws(() => new FreeBits(4).give(1), /changes hands once/)
})

t.test('2^32 chunks cost what is mixed', async (t) => {
  const bits = new FreeBits(2 ** 32)
  bits.claim(2 ** 32 - 1)
  t.equal(bits.take(), 0)
  t.equal(bits.free, 2 ** 32 - 2)
})

t.test('sequential fills one component after the other, round-robin takes turns', async (t) => {
  t.strictSame(build([2, 3]).take(4), ['1:0', '1:1', '2:0', '2:1'])
  t.strictSame(build([2, 3], 'round-robin').take(5), ['1:0', '2:0', '1:1', '2:1', '2:2'])
})

t.test('all or none', async (t) => {
  const { space, take } = build([2, 1])
  t.equal(take(4), undefined)
  t.equal(space.used, 0)
  t.strictSame(take(3), ['1:0', '1:1', '2:0'])
  t.equal(take(1), undefined)
  space.give({ component: 1, number: 1 })
  t.strictSame(take(1), ['1:1'])
})

t.test('nothing comes from a component that is away or being emptied', async (t) => {
  const { components, space, take } = build([2, 2, 2])
  const [first] = components
  if (first) first.consumer = undefined
  space.setEmptying(2, true)
  t.equal(space.free, 2)
  t.equal(take(3), undefined)
  t.strictSame(take(1), ['3:0'])
  space.setEmptying(2, false)
  t.strictSame(take(2), ['2:0', '2:1'])
})

t.test('components come and go', async (t) => {
  const { clock, space, take } = build([1])
  let freed = 0
  space.onFree = () => freed++
  t.equal(take(2), undefined)
  space.add(testComponent(7, 1, clock))
  t.equal(freed, 1)
  t.strictSame(take(2), ['1:0', '7:0'])
  t.throws(() => space.remove(7), /holds no data/)
  space.give({ component: 7, number: 0 })
  space.remove(7)
  t.equal(space.component(7), undefined)
  space.give({ component: 7, number: 0 })
  t.equal(space.total, 1)
})

t.test('what the map claims is not given', async (t) => {
  const { space, take } = build([3])
  space.claim({ component: 1, number: 0 }, true)
  space.claim({ component: 1, number: 2 })
  t.strictSame(take(1), ['1:1'])
  const counts = space.components.map(({ total, free, used }) => [total, free, used])
  t.strictSame(counts, [[3, 0, 3]])
})

t.test('few chunks, or percent: told when crossed, and back with some distance', async (t) => {
  for (const [marks, few] of [
    [{ chunkWatermark: 100, percentWatermark: 1 }, 100],
    [{ chunkWatermark: 100, percentWatermark: 5 }, 200],
  ] as const) {
    const { space, told } = build([2000, 2000], 'sequential', marks)
    t.equal(space.lowMark, few)
    space.take(3999 - few)
    t.strictSame(told, [['components', true]])
    space.take(1)
    t.strictSame(told.slice(1), [['chunks', true]])
    for (let number = 0; number < few / 8; number++) {
      space.give({ component: 1, number })
      t.equal(space.isLow('chunks'), true, 'chunks that come and go make no events')
    }
    space.give({ component: 1, number: 1000 })
    t.strictSame(told.slice(2), [['chunks', false]])
  }
})

t.test('other watermarks count at once, and a component that comes', async (t) => {
  const { space, told, clock } = build([100], 'round-robin')
  space.take(50)
  t.strictSame(told, [])
  space.watermarks = { chunkWatermark: 50, percentWatermark: 0, componentWatermark: 1 }
  t.strictSame(told, [['chunks', true]])
  space.add(testComponent(2, 100, clock))
  t.strictSame(told.slice(1), [['chunks', false]])
})

t.test('small devices are not low from their start', async (t) => {
  for (const chunks of [[1], [5], [20, 20], [90]]) {
    const { space, told } = build(chunks)
    space.changed()
    t.strictSame(told, [], `${chunks}`)
    space.take(space.free)
    t.equal(space.isLow('chunks'), true)
  }
})

t.test('one chunk of an empty component that comes and goes makes no events', async (t) => {
  const { clock, space, told } = build([8, 8, 8])
  space.take(9)
  t.strictSame(told, [['components', true]])
  space.give({ component: 2, number: 0 })
  space.take(1)
  space.give({ component: 2, number: 0 })
  t.equal(told.length, 1)
  space.give({ component: 1, number: 0 })
  t.strictSame(told.slice(1), [['components', false]], 'with room on what is begun')
  space.take(2)
  space.add(testComponent(4, 8, clock))
  t.strictSame(told.slice(2), [
    ['components', true],
    ['components', false],
  ])
})

t.test('few empty components: the map on one does not count as data', async (t) => {
  const { space, told } = build([4, 4, 4])
  space.claim({ component: 1, number: 0 }, true)
  space.claim({ component: 2, number: 0 }, true)
  space.take(2)
  t.strictSame(told, [])
  space.take(2)
  t.strictSame(told, [['components', true]])
  const other = build([4, 4, 4], 'round-robin')
  other.space.take(3)
  t.strictSame(other.told, [], 'all are in use at once')
})

t.test('epochs: what comes after all waits for who was there, and for nobody else', async (t) => {
  const freed: string[] = []
  const epochs = new Epochs()
  const after = (name: string) => epochs.afterAll(() => freed.push(name))
  after('nobody was there')
  t.strictSame(freed.splice(0), ['nobody was there'])
  const one = epochs.enter()
  after('a')
  const two = epochs.enter()
  after('b')
  t.strictSame(freed, [])
  epochs.leave(one)
  t.strictSame(freed.splice(0), ['a'])
  const three = epochs.enter()
  epochs.leave(two)
  t.strictSame(freed.splice(0), ['b'])
  t.equal(epochs.size, 1)
  epochs.leave(three)
  t.equal(epochs.size, 0)
})

t.test('a component is there once', async (t) => {
  const { components, space } = build([1])
  t.throws(() => space.add(components[0] as Component), /is there once/)
})
