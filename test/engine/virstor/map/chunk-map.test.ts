/** The chunk map in memory against a naive model, what it finds wrong when it is loaded, and what a large commit takes. */
import fc from 'fast-check'
import t from 'tap'
import {
  BAD_COMPONENT,
  COMMIT_RECORDS,
  MapTable,
} from '../../../../src/engine/virstor/map/chunk-map.ts'
import {
  ENTRY_BYTES,
  entryAt,
  PAGE_ENTRIES,
  writeEntry,
} from '../../../../src/engine/virstor/map/page.ts'
import type { ChangeSet, MapRecord, Place } from '../../../../src/engine/virstor/runtime.ts'

const GRANULES = 40
const CHUNKS = [0, 1, 2, 251, 252, 259]
const COMPONENTS = [1, 2]
const PLACES = 5

interface Entry {
  readonly component: number
  readonly number: number
  readonly valid: bigint
}
type State = ReadonlyMap<number, Entry>

const keyOf = ({ component, number }: Place): string => `${component}:${number}`
const textOf = (entry: Entry | undefined): string =>
  entry ? `${keyOf(entry)} ${entry.valid.toString(2)}` : 'none'
const range = (first: number, last: number): bigint =>
  ((1n << BigInt(last - first + 1)) - 1n) << BigInt(first)

/** What the map must be: whole states instead of differences. */
class Model {
  live = new Map<number, Entry>()
  durable: State = new Map()
  taken:
    | { state: State; released: ReadonlyMap<string, number>; fresh: ReadonlyMap<number, bigint> }
    | undefined
  /** Granules that have become valid since the last set was taken. */
  fresh = new Map<number, bigint>()
  /** Places that wait for a commit, and their last owners. */
  released = new Map<string, number>()

  get before(): State {
    return this.taken?.state ?? this.durable
  }

  ownerOf(place: Place): number {
    for (const [chunk, entry] of this.live) if (keyOf(entry) === keyOf(place)) return chunk
    return this.released.get(keyOf(place)) ?? this.taken?.released.get(keyOf(place)) ?? -1
  }

  vacate(chunk: number): void {
    const entry = this.live.get(chunk)
    if (entry) this.released.set(keyOf(entry), chunk)
    this.fresh.delete(chunk)
  }

  take(): void {
    this.taken = { state: new Map(this.live), released: this.released, fresh: this.fresh }
    this.released = new Map()
    this.fresh = new Map()
  }

  failed(): void {
    for (const [place, chunk] of this.taken?.released ?? []) this.released.set(place, chunk)
    for (const [chunk, valid] of this.taken?.fresh ?? []) {
      this.fresh.set(chunk, valid | (this.fresh.get(chunk) ?? 0n))
    }
    this.taken = undefined
  }

  /** What has become valid on a component, in the set under way and since, does not count. */
  withdraw(component: number): void {
    if (!this.taken) return
    const state = new Map(this.taken.state)
    for (const [chunk, entry] of this.taken.state) {
      if (entry.component !== component) continue
      if (textOf(entry) === textOf(this.durable.get(chunk))) continue
      const taken = this.taken.fresh.get(chunk) ?? 0n
      state.set(chunk, { ...entry, valid: entry.valid & ~taken })
      const live = this.live.get(chunk)
      if (live?.component !== component) continue
      const all = taken | (this.fresh.get(chunk) ?? 0n)
      this.live.set(chunk, { ...live, valid: live.valid & ~all })
    }
    this.taken = { ...this.taken, state }
  }
}

const step = fc.record({
  kind: fc.constantFrom(
    ...(['assign', 'assign', 'assign', 'valid', 'valid', 'invalid', 'release', 'move'] as const),
    ...(['take', 'take', 'committed', 'failed', 'withdraw'] as const),
  ),
  chunk: fc.constantFrom(...CHUNKS),
  place: fc.record({
    component: fc.constantFrom(...COMPONENTS),
    number: fc.nat(PLACES - 1),
  }),
  granules: fc.tuple(fc.nat(GRANULES - 1), fc.nat(GRANULES - 1)),
})
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

function newTable(): MapTable {
  const table = new MapTable({ chunks: 260, granules: GRANULES })
  for (const id of COMPONENTS) table.addComponent(id, PLACES)
  return table
}

class Pair {
  readonly table = newTable()
  readonly model = new Model()
  #set: ChangeSet | undefined
  #sequence = 0

  run({ kind, chunk, place, granules }: Step): void {
    const { table, model } = this
    const entry = model.live.get(chunk)
    const [first, last] = granules.toSorted((a, b) => a - b) as [number, number]
    const isFree = model.ownerOf(place) === -1
    if (kind === 'assign' && !entry && isFree) {
      table.assign(chunk, place)
      model.live.set(chunk, { ...place, valid: 0n })
    } else if (kind === 'valid' && entry) {
      table.markValid(chunk, first, last)
      const fresh = range(first, last) & ~entry.valid
      model.fresh.set(chunk, fresh | (model.fresh.get(chunk) ?? 0n))
      model.live.set(chunk, { ...entry, valid: entry.valid | range(first, last) })
    } else if (kind === 'invalid' && entry) {
      const valid = entry.valid & ~range(first, last)
      same(table.markInvalid(chunk, first, last), valid === 0n, 'nothing is left')
      model.live.set(chunk, { ...entry, valid })
    } else if (kind === 'release' && entry) {
      table.release(chunk)
      model.vacate(chunk)
      model.live.delete(chunk)
    } else if (kind === 'move' && entry && isFree) {
      table.move(chunk, place)
      model.vacate(chunk)
      model.live.set(chunk, { ...place, valid: entry.valid })
    } else if (kind === 'take' && !this.#set) this.#take()
    else if (kind === 'committed' && this.#set) this.#committed(this.#set)
    else if (kind === 'withdraw' && this.#set) {
      this.#set = table.withdraw(this.#set, new Set([place.component]))
      model.withdraw(place.component)
      this.#checkSet(this.#set)
    } else if (kind === 'failed' && this.#set) {
      table.failed(this.#set)
      model.failed()
      this.#set = undefined
    }
    this.#check()
  }

  #take(): void {
    const { table, model } = this
    const isDue = model.released.size > 0 || CHUNKS.some((chunk) => differs(model, chunk))
    if (isDue) same(table.isChanged, true, 'there is something to commit')
    this.#set = table.takeChanges()
    same(table.isChanged, false, 'all is taken')
    model.take()
    this.#checkSet(this.#set)
  }

  /** Its records lead from what is durable to what was when it was taken, and to nothing newer. */
  #checkSet(set: ChangeSet): void {
    const { model } = this
    const changed = CHUNKS.filter(
      (chunk) => textOf(model.before.get(chunk)) !== textOf(model.durable.get(chunk)),
    )
    const records = set.records.map((record) => `${record.chunk} ${textOf(fromRecord(record))}`)
    same(
      records.toSorted(),
      changed.map((chunk) => `${chunk} ${textOf(model.before.get(chunk))}`).toSorted(),
      'records',
    )
  }

  #committed(set: ChangeSet): void {
    const { table, model } = this
    const free = table.committed(set, ++this.#sequence).map(keyOf)
    same(free.toSorted(), [...(model.taken?.released.keys() ?? [])].toSorted(), 'free')
    model.durable = model.before
    model.taken = undefined
    this.#set = undefined
  }

  /** All that the map says, and its pages as they would be written. */
  #check(): void {
    const { table, model } = this
    for (const chunk of CHUNKS) {
      const { component, number, valid } = model.live.get(chunk) ?? {
        component: 0,
        number: 0,
        valid: 0n,
      }
      same(table.componentOf(chunk), component, `component of ${chunk}`)
      same(table.numberOf(chunk), number, `number of ${chunk}`)
      for (let from = 0; from < GRANULES; from++) {
        let end = from + 1
        const bit = (at: number) => (valid >> BigInt(at)) & 1n
        while (end < GRANULES && bit(end) === bit(from)) end++
        same(table.runEnd(chunk, from), end, `end of the run of ${from}`)
        same(table.isValid(chunk, from, end - 1), bit(from) === 1n, `granules from ${from}`)
        if (end < GRANULES) same(table.isValid(chunk, from, end), false, 'a mixed range is not')
      }
    }
    for (const component of COMPONENTS) {
      let used = 0
      for (let number = 0; number < PLACES; number++) {
        const owner = model.ownerOf({ component, number })
        same(table.ownerOf({ component, number }), owner, `owner of ${component}:${number}`)
        if (owner !== -1) used++
      }
      same(table.usedOf(component), used, `places in use of ${component}`)
    }
    const page = Buffer.alloc(4096)
    for (const first of [0, PAGE_ENTRIES]) {
      table.pageImage(first / PAGE_ENTRIES, page)
      for (const chunk of CHUNKS.filter((one) => one >= first && one < first + PAGE_ENTRIES)) {
        const wanted = Buffer.alloc(4096)
        const durable = model.durable.get(chunk)
        if (durable) writeEntry(wanted, chunk - first, toRecord(chunk, durable))
        const at = entryAt(chunk - first)
        same(
          page.compare(wanted, at, at + ENTRY_BYTES, at, at + ENTRY_BYTES),
          0,
          `page of ${chunk}`,
        )
      }
    }
  }
}

const differs = (model: Model, chunk: number) =>
  textOf(model.live.get(chunk)) !== textOf(model.before.get(chunk))

function toRecord(chunk: number, { component, number, valid }: Entry): MapRecord {
  const [validLow, validHigh] = [Number(valid & 0xffffffffn), Number(valid >> 32n)]
  return { chunk, component, number, validLow, validHigh, lost: false }
}

function fromRecord({ component, number, validLow, validHigh }: MapRecord): Entry | undefined {
  const valid = BigInt(validLow) | (BigInt(validHigh) << 32n)
  return component === 0 ? undefined : { component, number, valid }
}

function same(found: unknown, wanted: unknown, what: string): void {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) {
    throw new Error(`${what}: ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`)
  }
}

t.test('the map is what a naive one would be', async () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80, size: 'max' }), (steps) => {
      const pair = new Pair()
      for (const one of steps) pair.run(one)
    }),
    { numRuns: 300 },
  )
})

t.test('bits up to the last granule', async (t) => {
  for (const granules of [1, 31, 32, 33, 63, 64]) {
    const table = new MapTable({ chunks: 1, granules })
    table.addComponent(1, 1)
    t.equal(table.runEnd(0, 0), granules)
    table.assign(0, { component: 1, number: 0 })
    table.markValid(0, 0, granules - 1)
    t.ok(table.isValid(0, 0, granules - 1))
    t.equal(table.runEnd(0, 0), granules)
    t.equal(table.markInvalid(0, granules - 1, granules - 1), granules === 1)
    t.equal(table.runEnd(0, granules - 1), granules)
    t.notOk(table.isValid(0, 0, granules - 1))
  }
})

t.test('a large commit takes its records in parts, and frees places with the last', async (t) => {
  const chunks = COMMIT_RECORDS + 10
  const table = new MapTable({ chunks, granules: 1 })
  table.addComponent(1, 2 * chunks)
  for (let chunk = 0; chunk < chunks; chunk++) table.assign(chunk, { component: 1, number: chunk })
  const commitPart = () => {
    const set = table.takeChanges()
    table.committed(set, table.sequence + 1)
    return [set.records.length, set.released.length, table.isChanged]
  }
  t.strictSame(commitPart(), [COMMIT_RECORDS, 0, true])
  t.strictSame(commitPart(), [10, 0, false])
  for (let chunk = 0; chunk < chunks; chunk++) {
    table.move(chunk, { component: 1, number: chunks + chunk })
  }
  t.strictSame(commitPart(), [COMMIT_RECORDS, 0, true])
  t.equal(table.ownerOf({ component: 1, number: 0 }), 0, 'still in use')
  t.strictSame(commitPart(), [10, chunks, false])
  t.equal(table.ownerOf({ component: 1, number: 0 }), -1)
  t.strictSame(table.takeDirty(), [...Array(table.pages).keys()])
  t.strictSame(table.takeDirty(), [])
})

t.test('components come and go', async (t) => {
  const table = newTable()
  table.addComponent(3, 10)
  table.reserve(3, { number: 2, count: 3 })
  t.equal(table.ownerOf({ component: 3, number: 4 }), -2)
  t.throws(() => table.assign(0, { component: 3, number: 4 }), /4 of 3 is free/)
  t.throws(() => table.removeComponent(3), /nothing lies on component 3/)
  table.unreserve(3, { number: 2, count: 3 })
  table.removeComponent(3)
  t.throws(() => table.ownerOf({ component: 3, number: 0 }), /component 3/)
  table.resize(600)
  table.assign(599, { component: 1, number: 0 })
  t.equal(table.pages, 3)
  t.throws(() => table.assign(600, { component: 1, number: 1 }), /chunk 600/)
})

t.test(
  'entries that cannot be right are out of service, and stay on disk as they are',
  async (t) => {
    const table = newTable()
    table.reserve(2, { number: 0, count: 1 })
    const page = Buffer.alloc(4096)
    const put = (index: number, component: number, number: number, high = 0) =>
      writeEntry(page, index, { component, number, validLow: 1, validHigh: high, lost: false })
    put(0, 1, 0)
    put(1, 7, 0)
    put(2, 1, PLACES)
    put(3, 2, 0)
    put(4, 1, 3)
    put(5, 1, 3)
    put(6, 1, 4, 0x100)
    put(7, 0, 0)
    put(8, 1, 1)
    page.writeUInt16LE(9, entryAt(8) + 14)
    table.loadPage(0, page)
    // Page 1 is older than the record that has moved its chunk away from the place of chunk 0.
    const older = Buffer.alloc(4096)
    writeEntry(older, 0, { component: 1, number: 0, validLow: 1, validHigh: 0, lost: false })
    table.loadPage(1, older)
    table.loadRecord({
      chunk: PAGE_ENTRIES,
      component: 2,
      number: 1,
      validLow: 3,
      validHigh: 0,
      lost: false,
    })
    await table.loaded(17)
    t.equal(table.badChunks, 8)
    t.strictSame(
      table.faults.map(({ chunk, reason }) => `${chunk}: ${reason}`),
      [
        '1: there is no component 7',
        `2: there is no place ${PLACES} of component 1`,
        '3: the map itself lies at place 0 of component 2',
        '4: chunk 5 has place 3 of component 1 too',
        '5: chunk 4 has place 3 of component 1 too',
        '6: its entry has a form that this version does not write',
        '7: its entry has a form that this version does not write',
        '8: its entry has a form that this version does not write',
      ],
    )
    t.match(table.faults[3], { entry: { chunk: 4, component: 1, number: 3, validLow: 1 } })
    for (const chunk of [1, 2, 3, 4, 5, 6, 7, 8]) {
      t.equal(table.componentOf(chunk), BAD_COMPONENT)
      t.ok(table.isValid(chunk, 0, GRANULES - 1), 'it does not read as zeroes')
      t.throws(() => table.release(chunk), /in service/)
    }
    t.equal(table.ownerOf({ component: 1, number: 3 }), 4, 'given to nobody')
    t.equal(table.ownerOf({ component: 1, number: 0 }), 0)
    t.equal(table.numberOf(PAGE_ENTRIES), 1)
    t.equal(table.componentOf(0), 1)

    const image = Buffer.alloc(4096)
    table.pageImage(0, image)
    t.ok(image.equals(page), 'the page is written as it was')
    table.markValid(0, 5, 5)
    table.pageImage(0, image)
    t.ok(image.equals(page))
  },
)

t.test('places in use are listed by what is there, not by what could be', async (t) => {
  const table = new MapTable({ chunks: 8, granules: 8 })
  table.addComponent(1, 2 ** 26)
  table.reserve(1, { number: 2 ** 26 - 1, count: 1 })
  table.assign(3, { component: 1, number: 40_000 })
  table.assign(5, { component: 1, number: 0 })
  t.strictSame(
    [...table.used(1)],
    [
      [0, 5],
      [40_000, 3],
      [2 ** 26 - 1, -2],
    ],
  )
})

t.test('what is lost stays so until it is written again', async (t) => {
  const table = new MapTable({ chunks: 4, granules: 8 })
  for (const id of [1, 2, 3]) table.addComponent(id, 8)
  let sequence = 0
  const commit = () => table.committed(table.takeChanges(), ++sequence)
  table.assign(0, { component: 1, number: 0 })
  table.markValid(0, 0, 7)
  commit()
  table.lose(0)
  commit()
  t.strictSame([table.componentOf(0), table.isLost(0), table.lostChunks], [0, true, 1])
  table.assign(0, { component: 2, number: 0 })
  table.release(0)
  t.ok(table.isLost(0), 'a place for a write that failed')
  commit()
  table.assign(0, { component: 2, number: 1 })
  table.markValid(0, 0, 3)
  commit()
  table.move(0, { component: 3, number: 0 })
  t.ok(table.isLost(0), 'a move')
  commit()
  table.markValid(0, 4, 7)
  t.notOk(table.isLost(0))
  const set = table.withdraw(table.takeChanges(), new Set([3]))
  t.strictSame(set.records, [], 'what was in a cache that is lost')
  t.strictSame(
    [table.isLost(0), table.isValid(0, 0, 3), table.isValid(0, 4, 4)],
    [true, true, false],
  )
})
