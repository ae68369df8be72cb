/** A group of the journal that a power cut has torn, and that a start could not see all of: it never comes back. */
import t from 'tap'
import { PlexusError } from '../../../../src/base/errors.ts'
import type { Carrier } from '../../../../src/engine/virstor/map/carrier.ts'
import { MapTable } from '../../../../src/engine/virstor/map/chunk-map.ts'
import { MapStore } from '../../../../src/engine/virstor/map/map-store.ts'
import { failureOf } from '../../../support/failure.ts'
import { MapDisk, Power } from '../../../support/map-carrier.ts'

const CHUNKS = 400
const RING = 64

function storeOn(carriers: readonly Carrier[]): MapStore {
  const table = new MapTable({ chunks: CHUNKS, granules: 64 })
  table.addComponent(1, 4000)
  return new MapStore({
    subject: 'v',
    uuid: Buffer.alloc(16, 7),
    table,
    carriers,
    onCarrierFailed: (_id, error) => Promise.reject(error),
    onBroken: () => {},
  })
}

async function commit(store: MapStore, from: number, to: number): Promise<void> {
  const { table } = store
  for (let chunk = from; chunk < to; chunk++) table.assign(chunk, { component: 1, number: chunk })
  const set = table.takeChanges()
  table.committed(set, await store.append(set))
}

t.test('a block of it that cannot be read at one start does not count at the next', async (t) => {
  const disk = new MapDisk(1, 2, RING)
  const carrier = disk.on(new Power(0))
  const first = storeOn([carrier])
  await first.format()
  await commit(first, 0, 1)
  await commit(first, 1, 200)
  // Blocks 3 and 4; of the first of them nothing has got there.
  disk.block('ring', 3).fill(0)
  const blind = storeOn([
    {
      ...carrier,
      readJournal: async (at, into) => {
        await carrier.readJournal(at, into)
        if (at > 4 || at + into.bytes.length / 4096 <= 4) return
        throw new PlexusError('io', { op: 'read', subject: 'd1', message: 'unreadable' })
      },
    },
  ])
  await blind.load()
  t.equal(blind.table.componentOf(1), 0, 'it was torn')
  await commit(blind, 300, 301)
  const next = storeOn([carrier])
  await next.load()
  t.equal(next.table.componentOf(300), 1, 'what was committed since is there')
  t.equal(next.table.componentOf(1), 0)
})

/** The carrier with blocks of the ring that cannot be read. */
function unreadable(carrier: Carrier, ...blocks: readonly number[]): Carrier {
  return {
    ...carrier,
    async readJournal(at, into) {
      await carrier.readJournal(at, into)
      if (!blocks.some((one) => at <= one && one < at + into.bytes.length / 4096)) return
      throw new PlexusError('io', { op: 'read', subject: 'd1', message: 'unreadable' })
    },
  }
}

t.test('the newest blocks cannot be read: nothing is forgotten but by an operator', async (t) => {
  // A group of one block, and each block of a group of two.
  for (const [chunks, block] of [
    [1, 2],
    [200, 2],
    [200, 3],
  ] as const) {
    const disk = new MapDisk(1, 2, RING)
    const carrier = disk.on(new Power(0))
    const first = storeOn([carrier])
    await first.format()
    await commit(first, 0, chunks)
    const blind = storeOn([unreadable(carrier, block)])
    t.match(await failureOf(blind.load()), {
      kind: 'corrupt',
      message: /assemble v tries again; with --force/,
    })
    const next = storeOn([carrier])
    t.equal(await next.load(), false)
    t.equal(next.table.componentOf(0), 1, 'it was not written over')
    const other = new MapDisk(2, 2, RING)
    t.equal(await storeOn([unreadable(carrier, 7)]).load(), false, 'an older place')
    const two = storeOn([carrier, other.on(new Power(0))])
    await two.format()
    await commit(two, 0, chunks)
    const half = storeOn([unreadable(carrier, block), other.on(new Power(0))])
    t.equal(await half.load(), false, 'another copy has it')
    t.equal(half.table.componentOf(0), 1)
    const forced = storeOn([unreadable(carrier, block), unreadable(other.on(new Power(0)), block)])
    t.match(await failureOf(forced.load()), { kind: 'corrupt' })
    const again = storeOn([unreadable(carrier, block), unreadable(other.on(new Power(0)), block)])
    t.equal(await again.load(true), true)
    t.equal(again.table.componentOf(0), 0)
  }
})

t.test('a copy of the map that has gone meanwhile is not made longer', async (t) => {
  const store = storeOn([new MapDisk(1, 2, RING).on(new Power(0))])
  await store.format()
  t.match(await failureOf(store.extend(CHUNKS + 300, [])), { kind: 'gone', message: /try again/ })
})
