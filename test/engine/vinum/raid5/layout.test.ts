import fc from 'fast-check'
import t from 'tap'
import { PARITY_LAYOUTS } from '../../../../src/engine/vinum/model/model.ts'
import {
  createLayout,
  dataColumn,
  dataIndex,
  locate,
  parityColumn,
  plexOffsetOf,
  rowOf,
} from '../../../../src/engine/vinum/raid5/layout.ts'
import { type Extent, planRow } from '../../../../src/engine/vinum/raid5/row-plan.ts'
import type { RowState } from '../../../../src/engine/vinum/raid5/row-state.ts'
import { pictureRow } from '../../../support/raid5-rig.ts'

t.test('n = 4 is laid out as vinum does it (spec 7) and as md does it', async (t) => {
  const draw = (name: (typeof PARITY_LAYOUTS)[number]) => {
    const layout = createLayout(4, 512, name)
    return [0, 1, 2, 3].map((row) =>
      [0, 1, 2, 3]
        .map((column) => {
          const offset = plexOffsetOf(layout, column, row * 512)
          return offset === undefined ? 'P' : `D${offset / 512}`
        })
        .join(' '),
    )
  }
  t.same(draw('left-asymmetric'), ['D0 D1 D2 P', 'D3 D4 P D5', 'D6 P D7 D8', 'P D9 D10 D11'])
  t.same(draw('left-symmetric'), ['D0 D1 D2 P', 'D4 D5 P D3', 'D8 P D6 D7', 'P D9 D10 D11'])
})

t.test('every byte has one place and every place one byte', async (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 9 }),
      fc.constantFrom(512, 4096, 65_536, 262_144),
      fc.constantFrom(...PARITY_LAYOUTS),
      fc.nat(2 ** 40),
      (columns, stripe, name, offset) => {
        const layout = createLayout(columns, stripe, name)
        const { row, column, columnOffset } = locate(layout, offset)
        t.equal(plexOffsetOf(layout, column, columnOffset), offset)
        t.equal(row, rowOf(layout, offset))
        t.equal(Math.floor(columnOffset / stripe), row)
        t.not(column, parityColumn(layout, row))
        const picture = pictureRow(columns, name, row % (columns * 3))
        const near = row % (columns * 3)
        const base = near * (columns - 1)
        for (const [at, unit] of picture.entries()) {
          t.equal(dataIndex(layout, near, at), unit < 0 ? -1 : unit - base)
          if (unit >= 0) t.equal(dataColumn(layout, near, unit - base), at)
        }
      },
    ),
    { numRuns: 60 },
  )
})

t.test('parity moves over all columns, one to the left in each row', async (t) => {
  const layout = createLayout(5, 4096, 'left-symmetric')
  t.same(
    [0, 1, 2, 3, 4, 5].map((row) => parityColumn(layout, row)),
    [4, 3, 2, 1, 0, 4],
  )
})

const none: ReadonlySet<number> = new Set()
const S = 8192

/** Columns 0 to 4, parity on 4. */
function state(more: Partial<RowState> = {}): RowState {
  return {
    columns: 5,
    parity: 4,
    unreadable: none,
    failed: undefined,
    unwritable: none,
    parityState: 'right',
    ...more,
  }
}

function full(...columns: number[]): Extent[] {
  return columns.map((column) => ({ column, start: 0, end: S }))
}

function methods(row: RowState, touched: Extent[]): readonly string[] | undefined {
  return planRow(row, touched)?.segments.map(({ method }) => method)
}

t.test('the plan of a row reads as little as possible', async (t) => {
  t.same(planRow(state(), full(0, 1, 2, 3))?.reads, [], 'a full stripe needs no reads')
  t.same(
    planRow(state(), full(0, 1, 2))?.reads,
    [{ column: 3, start: 0, end: S }],
    'three of four: the fourth is read',
  )
  t.same(
    planRow(state(), [{ column: 1, start: 512, end: 1024 }])?.reads,
    [
      { column: 4, start: 512, end: 1024 },
      { column: 1, start: 512, end: 1024 },
    ],
    'one of four: its old data and parity, and only the bytes that change',
  )
  const head = [{ column: 0, start: 4096, end: S }, ...full(1, 2, 3)]
  t.same(planRow(state(), head)?.reads, [{ column: 0, start: 0, end: 4096 }], 'a cut head')
  t.same(planRow(state(), head)?.parityWrites, [{ column: 4, start: 0, end: S }], 'parity at once')
})

t.test('parity that is not right is never modified', async (t) => {
  t.same(methods(state(), full(1)), ['modify'])
  t.same(methods(state({ parityState: 'unknown' }), full(1)), ['reconstruct'])
})

t.test('a column is missing: parity holds its data, or the write is refused', async (t) => {
  const lost = (column: number) => ({
    unreadable: new Set([column]),
    unwritable: new Set([column]),
  })
  t.same(methods(state(lost(1)), full(1)), ['reconstruct'], 'its new data go into parity')
  t.same(methods(state(lost(1)), full(0, 2, 3)), ['modify'], 'its old data stay in parity')
  t.same(methods(state(lost(4)), full(1)), ['data'], 'without a parity column there is none')
  t.same(
    methods(state({ ...lost(1), parityState: 'unknown' }), full(1)),
    undefined,
    'parity does not count',
  )
  t.same(
    methods(state({ ...lost(1), parityState: 'unknown' }), full(2)),
    ['modify'],
    'what it may hold of the missing one, it goes on to hold',
  )
  const part = [
    { column: 1, start: 0, end: 512 },
    { column: 2, start: 0, end: 1024 },
  ]
  t.same(methods(state(lost(1)), part), ['reconstruct', 'modify'], 'each segment on its own')
  const two = { unreadable: new Set([1, 2]), unwritable: new Set([1, 2]) }
  t.same(methods(state(two), full(1)), undefined)
})

t.test(
  'two columns are away, and one comes back as it is: parity follows, or nothing is written',
  async (t) => {
    const without = (...columns: number[]) =>
      state({ unreadable: new Set(columns), unwritable: new Set(columns) })
    t.same(methods(without(1, 2), full(0)), ['modify'])
    t.same(methods(without(1, 2), full(0, 3)), ['modify'])
    for (const touched of [full(1), full(0, 1), full(0, 1, 2, 3)]) {
      t.same(methods(without(1, 2), touched), undefined)
    }
    t.same(methods(without(1, 4), full(0)), undefined, 'parity is away')
    const filling = state({ unreadable: new Set([1, 2]), unwritable: new Set([1]) })
    t.same(methods(filling, full(2)), undefined, 'its rebuild would take the write back')
    t.same(methods(filling, full(3)), ['modify'])
  },
)

t.test('a column that is being filled gets what is written', async (t) => {
  const filling = { unreadable: new Set([0, 1, 2, 3, 4]) }
  t.same(methods(state(filling), full(0, 1, 2, 3)), ['reconstruct'], 'whole rows with parity')
  t.same(methods(state(filling), full(0)), ['data'], 'parts of rows without')
  const unread = { unreadable: new Set([4]) }
  t.same(methods(state(unread), full(0)), ['data'], 'parity comes with its rebuild')
  t.same(
    methods(state({ ...unread, failed: 4 }), full(0)),
    ['reconstruct'],
    'a bad sector of parity',
  )
})
