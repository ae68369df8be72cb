/** What is lost of a raid5 plex: ranges that grow, shrink, are bounded, and are never forgotten. */
import fc from 'fast-check'
import t from 'tap'
import { PlexusError } from '../../../../src/base/errors.ts'
import { LOST_RANGES } from '../../../../src/base/limits.ts'
import { createLayout } from '../../../../src/engine/vinum/raid5/layout.ts'
import {
  dataOf,
  type Lost,
  lostBytes,
  touchesLost,
  withLost,
  withoutLost,
} from '../../../../src/engine/vinum/raid5/lost.ts'

const BLOCK = 4096
const BLOCKS = 1000
const isLost = (lost: Lost, column: number, block: number) =>
  touchesLost(lost, { column, offset: block * BLOCK, length: BLOCK })

t.test('beyond the bound neighbours count as one, and who kept them counts no more', async (t) => {
  let lost: Lost
  for (let block = 0; block < 4 * LOST_RANGES; block += 2) {
    const keptBy = block % 4 === 0 ? 'kept' : undefined
    lost = withLost(lost, 1, [{ offset: block * BLOCK, length: BLOCK }], keptBy)
    t.ok((lost?.length ?? 0) <= LOST_RANGES, `after block ${block}`)
  }
  for (let block = 0; block < 4 * LOST_RANGES; block += 2) t.ok(isLost(lost, 1, block))
  t.notOk(isLost(lost, 0, 0), 'another column')
  t.ok(lost?.every(({ keptBy, lengthBytes }) => keptBy === undefined || lengthBytes === BLOCK))
})

t.test('nothing is lost when all data is written, whatever parity lies between', async (t) => {
  const rows = 3 * LOST_RANGES
  const layout = createLayout(3, BLOCK, 'left-asymmetric')
  let lost = withLost(undefined, 1, dataOf(layout, 1, 0, rows), 'kept')
  t.equal(lostBytes(lost), rows * BLOCK, 'too many parts to leave the parity out')
  for (let row = 0; row < rows; row += 3) {
    // As initiators write: from row to row, in pieces smaller than a unit.
    for (const one of dataOf(layout, 1, row, 3)) {
      const half = one.length / 2
      for (const offset of [one.offset, one.offset + half]) {
        lost = withoutLost(lost, [{ column: 1, offset, length: half }], layout)
      }
    }
    t.equal(isLost(lost, 1, row + 4), row + 4 < rows)
  }
  t.equal(lost, undefined)
})

t.test('what is lost stays so until it is known', async (t) => {
  const change = fc.record({
    column: fc.nat(2),
    block: fc.nat(BLOCKS),
    blocks: fc.integer({ min: 1, max: 9 }),
    keptBy: fc.constantFrom(undefined, 'a', 'b'),
    known: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(change, { minLength: 400, maxLength: 600 }), (changes) => {
      let lost: Lost
      const truth = new Set<string>()
      for (const { column, block, blocks, keptBy, known } of changes) {
        const range = { offset: block * BLOCK, length: blocks * BLOCK }
        const all = Array.from({ length: blocks }, (_, index) => `${column} ${block + index}`)
        if (known) {
          try {
            lost = withoutLost(lost, [{ column, ...range }], undefined)
          } catch (error) {
            if (!(error instanceof PlexusError) || lost?.length !== LOST_RANGES) throw error
            continue
          }
          if (all.some((_, index) => isLost(lost, column, block + index))) return false
          for (const one of all) truth.delete(one)
        } else {
          for (const one of all) truth.add(one)
          lost = withLost(lost, column, [range], keptBy)
        }
        if ((lost?.length ?? 0) > LOST_RANGES) return false
      }
      for (const one of truth) {
        const [column, block] = one.split(' ').map(Number)
        if (!isLost(lost, column ?? -1, block ?? -1)) return false
      }
      return lostBytes(lost) >= truth.size * BLOCK
    }),
    { numRuns: 40 },
  )
  t.pass()
})

t.test('what lies between parts that were lost at different times is kept by nobody', async (t) => {
  const ends = (count: number, from: number) =>
    Array.from({ length: count }, (_, index) => ({
      offset: (from + 2 * index) * BLOCK,
      length: BLOCK,
    }))
  const first = withLost(undefined, 0, ends(LOST_RANGES, 0), 'a')
  t.ok(first?.every(({ keptBy }) => keptBy === 'a'))
  // The disk is back, and leaves once more: what lies between may have been written while it was away.
  const again = withLost(first, 0, ends(2, 2 * LOST_RANGES), 'a')
  const joined = again?.filter(({ lengthBytes }) => lengthBytes > BLOCK) ?? []
  t.ok(joined.length > 0)
  t.ok(joined.every(({ keptBy }) => keptBy === undefined))
  t.ok(withLost(undefined, 0, ends(2 * LOST_RANGES, 0), 'a')?.every(({ keptBy }) => keptBy === 'a'))
})
