/**
 * The chunk map on disk: what a start finds after a power cut at every step, with torn writes and lost caches, after a
 * second cut while it starts, with a carrier lost, stale, rotten or new.
 */
import t from 'tap'
import { defined } from '../../../../src/base/assert.ts'
import { VIRSTOR_COMMIT_BLOCKS } from '../../../../src/base/limits.ts'
import { nextTurn } from '../../../../src/base/turns.ts'
import type { Carrier } from '../../../../src/engine/virstor/map/carrier.ts'
import { MapTable } from '../../../../src/engine/virstor/map/chunk-map.ts'
import { BLOCK_RECORDS } from '../../../../src/engine/virstor/map/journal.ts'
import { MapStore } from '../../../../src/engine/virstor/map/map-store.ts'
import { MAP_PAGE_BYTES, PAGE_ENTRIES } from '../../../../src/engine/virstor/map/page.ts'
import { failureOf } from '../../../support/failure.ts'
import { MapDisk, Power, seeded } from '../../../support/map-carrier.ts'

const UUID = Buffer.from('8f0c7c9e30c54f5e9c3a0d8f6e2b1a77', 'hex')
const PAGES = 4
const CHUNKS = PAGES * PAGE_ENTRIES - 5
/** The least ring. */
const RING = VIRSTOR_COMMIT_BLOCKS + 2

/** What survives a power cut beside the disks. */
interface Machine {
  readonly disks: readonly MapDisk[]
  /** Disks that the configuration names. */
  carriers: readonly number[]
}

function machineWith(disks: number): Machine {
  const ids = Array.from({ length: disks }, (_, index) => index + 1)
  return { disks: ids.map((id) => new MapDisk(id, PAGES, RING)), carriers: ids }
}

function emptyTable(): MapTable {
  const table = new MapTable({ chunks: CHUNKS, granules: 64 })
  table.addComponent(1, 4000)
  table.addComponent(2, 4000)
  table.reserve(1, { number: 0, count: 1 })
  return table
}

function storeOn(machine: Machine, power: Power): MapStore {
  const carriers = machine.disks
    .filter(({ id }) => machine.carriers.includes(id))
    .map((disk): Carrier => disk.on(power))
  return new MapStore({
    subject: 'v',
    uuid: UUID,
    table: emptyTable(),
    carriers,
    onBroken: () => {},
    onCarrierFailed: async (id) => {
      await power.step()
      machine.carriers = machine.carriers.filter((one) => one !== id)
    },
  })
}

/** All entries of a map, as text by chunk. */
type State = ReadonlyMap<number, string>

function stateOf(table: MapTable): State {
  const state = new Map<number, string>()
  for (let chunk = 0; chunk < table.chunks; chunk++) {
    const component = table.componentOf(chunk)
    if (component === 0) continue
    const place = { component, number: table.numberOf(chunk) }
    const runs = [0]
    while ((runs.at(-1) ?? 64) < 64) runs.push(table.runEnd(chunk, runs.at(-1) ?? 0))
    const isOwner = table.ownerOf(place) === chunk
    const first = table.isValid(chunk, 0, 0)
    state.set(chunk, `${component}:${place.number} ${first} ${runs} ${isOwner}`)
  }
  return state
}

function isSame(one: State, other: State): boolean {
  return one.size === other.size && [...one].every(([chunk, text]) => other.get(chunk) === text)
}

/** What a start may find: the first is durable, the second is under way. */
interface Expected {
  committed: State
  appended: State
}

/** Changes chunks at random, as requests do. */
function change(table: MapTable, random: () => number, count: number): void {
  const pick = (end: number): number => Math.floor(random() * end)
  const freePlace = () => {
    for (;;) {
      const place = { component: 1 + pick(2), number: pick(4000) }
      if (table.ownerOf(place) === -1) return place
    }
  }
  for (let index = 0; index < count; index++) {
    // Mostly in a few pages, so that the others are old when a page is torn.
    const chunk = random() < 0.8 ? pick(20) : pick(CHUNKS)
    const first = pick(64)
    const last = first + pick(64 - first)
    const kind = random()
    if (table.componentOf(chunk) === 0) table.assign(chunk, freePlace())
    else if (kind < 0.2) table.release(chunk)
    else if (kind < 0.4) table.move(chunk, freePlace())
    else if (kind < 0.6) table.markInvalid(chunk, first, last)
    if (table.componentOf(chunk) !== 0) table.markValid(chunk, first, last)
  }
}

async function commit(store: MapStore, expected: Expected, during = () => {}): Promise<void> {
  const { table } = store
  const set = table.takeChanges()
  expected.appended = stateOf(table)
  during()
  const sequence = await store.append(set)
  table.committed(set, sequence)
  expected.committed = expected.appended
}

interface Run {
  readonly seed: number
  readonly commits: number
  /** Before this commit disk 2 breaks; 0: never. */
  readonly breaksAt?: number
}

/** Commits until the end, or the power goes. */
async function work(
  store: MapStore,
  expected: Expected,
  run: Run,
  machine: Machine,
): Promise<void> {
  const random = seeded(run.seed)
  for (let index = 1; index <= run.commits; index++) {
    if (index === run.breaksAt) defined(machine.disks[1], 'disk 2').isBroken = true
    // One in six has several blocks.
    change(store.table, random, random() < 0.16 ? 500 : 1 + Math.floor(random() * 8))
    await commit(store, expected, () => change(store.table, random, 2))
  }
}

/** When all that was done before the power went is known; who worked then changes only the old one. */
async function atRest(expected: Expected): Promise<Expected> {
  await nextTurn()
  return { ...expected }
}

/** A start. True: it finds what was expected, which is durable from now on. */
async function starts(store: MapStore, expected: Expected): Promise<boolean> {
  await store.load()
  const found = stateOf(store.table)
  const isRight = isSame(found, expected.committed) || isSame(found, expected.appended)
  expected.committed = found
  expected.appended = found
  return isRight && store.table.badChunks === 0
}

/**
 * Starts after a power cut; the first one, which goes on with its work, is cut off too where `cutAt` is not 0. Do the
 * starts find what they must, with either carrier alone as well?
 */
async function recovers(machine: Machine, expected: Expected, cutAt: number): Promise<boolean> {
  let isRight = true
  if (cutAt > 0) {
    const power = new Power(cutAt, cutAt)
    const store = storeOn(machine, power)
    const run = async () => {
      isRight = await starts(store, expected)
      await work(store, expected, RERUN, machine)
    }
    await Promise.race([power.off, run()])
  }
  const left = await atRest(expected)
  const store = storeOn(machine, new Power(0))
  isRight &&= await starts(store, left)
  await work(store, left, RERUN, machine)
  for (const only of machine.carriers) {
    const alone = storeOn({ disks: machine.disks, carriers: [only] }, new Power(0))
    isRight &&= await starts(alone, left)
  }
  return isRight
}

const RERUN: Run = { seed: 99, commits: 3 }

async function formatted(disks: number): Promise<Machine> {
  const machine = machineWith(disks)
  await storeOn(machine, new Power(0)).format()
  return machine
}

/** Runs with a power cut at step `cutAt`. Returns the steps, and whether the start found what it had to. */
async function crash(
  run: Run,
  disks: number,
  cutAt: number,
  again: (random: () => number) => number,
  prepare: (machine: Machine) => void = () => {},
): Promise<{ steps: number; isRight: boolean }> {
  const machine = await formatted(disks)
  prepare(machine)
  const power = new Power(run.seed * 1000 + cutAt, cutAt)
  const store = storeOn(machine, power)
  const expected: Expected = { committed: new Map(), appended: new Map() }
  await store.load()
  await Promise.race([power.off, work(store, expected, run, machine)])
  const left = await atRest(expected)
  for (const disk of machine.disks) disk.isBroken = false
  try {
    return { steps: power.steps, isRight: await recovers(machine, left, again(power.random)) }
  } catch {
    return { steps: power.steps, isRight: false }
  }
}

async function wrongSteps(
  run: Run,
  disks: number,
  again: (random: () => number) => number,
  prepare?: (machine: Machine) => void,
): Promise<{ steps: number; wrong: number[] }> {
  const { steps } = await crash(run, disks, 0, () => 0)
  const wrong: number[] = []
  for (let cutAt = 1; cutAt <= steps; cutAt++) {
    const { isRight } = await crash(run, disks, cutAt, again, prepare)
    if (!isRight) wrong.push(cutAt)
  }
  return { steps, wrong }
}

const once = () => 0
const twice = (random: () => number) => 1 + Math.floor(random() * 12)

t.test('a power cut at every step', async (t) => {
  for (const disks of [1, 2]) {
    const { steps, wrong } = await wrongSteps({ seed: disks, commits: 36 }, disks, once)
    t.ok(steps > 90, `${steps} steps on ${disks} disks`)
    t.strictSame(wrong, [], `${disks} disks`)
  }
})

t.test('a second power cut while it starts', async (t) => {
  const { wrong } = await wrongSteps({ seed: 3, commits: 30 }, 2, twice)
  t.strictSame(wrong, [])
})

t.test('a carrier that fails, and power cuts before and after it is out', async (t) => {
  // With the power back its disk works, and is stale: it counts only where the configuration still names it.
  const { steps, wrong } = await wrongSteps({ seed: 4, commits: 40, breaksAt: 15 }, 2, once)
  t.ok(steps > 100, `${steps} steps`)
  t.strictSame(wrong, [])
})

t.test('the tests find an order that is broken', async (t) => {
  const early = await wrongSteps({ seed: 2, commits: 40 }, 2, once, ({ disks }) => {
    for (const disk of disks) disk.ignoresFlush = true
  })
  t.not(early.wrong.length, 0, 'the oldest advances before the pages are durable')
  const unforced = await wrongSteps({ seed: 2, commits: 10 }, 2, once, ({ disks }) => {
    for (const disk of disks) disk.ignoresForce = true
  })
  t.not(unforced.wrong.length, 0, 'a commit is acknowledged before its blocks are durable')
})

/** A machine after some commits, and its state. */
async function worked(
  disks: number,
  commits = 12,
): Promise<{ machine: Machine; expected: Expected }> {
  const machine = await formatted(disks)
  const store = storeOn(machine, new Power(0))
  const expected: Expected = { committed: new Map(), appended: new Map() }
  await store.load()
  await work(store, expected, { seed: 7, commits }, machine)
  return { machine, expected }
}

async function loaded(machine: Machine): Promise<MapStore> {
  const store = storeOn(machine, new Power(0))
  await store.load()
  return store
}

t.test('slots that rot are mended from the other one, or from the other carrier', async (t) => {
  for (const slot of [0, 1] as const) {
    const { machine, expected } = await worked(1)
    const disk = defined(machine.disks[0], 'disk')
    const whole = Array.from({ length: PAGES }, (_, page) => {
      const before = Buffer.from(disk.block(slot, page))
      disk.block(slot, page).fill(0xee, 700, 800)
      return before
    })
    t.ok(isSame(stateOf((await loaded(machine)).table), expected.committed), `slot ${slot}`)
    t.not(disk.block(slot, 0).readUInt8(700), 0xee, 'it is whole again')
    t.equal(whole.length, PAGES)
  }
  const { machine, expected } = await worked(2)
  const [one, other] = machine.disks as [MapDisk, MapDisk]
  for (const slot of [0, 1] as const) one.block(slot, 2).fill(0)
  for (let place = 0; place < RING; place++) other.block('ring', place).fill(0)
  t.ok(isSame(stateOf((await loaded(machine)).table), expected.committed))
  const alone = await loaded({ disks: machine.disks, carriers: [2] })
  t.ok(isSame(stateOf(alone.table), expected.committed), 'the ring is copied')
})

t.test('what is left of a torn group does not come back', async (t) => {
  const { machine, expected } = await worked(2)
  const store = await loaded(machine)
  await store.checkpoint()
  const first = (await loaded(machine)).table.sequence + 1
  change(store.table, seeded(12), 3000)
  const set = store.table.takeChanges()
  t.ok(set.records.length > 2 * BLOCK_RECORDS)
  await store.append(set)
  // Its first block never got anywhere.
  for (const disk of machine.disks) disk.block('ring', first % RING).fill(0)
  const again = await loaded(machine)
  t.ok(isSame(stateOf(again.table), expected.committed), 'it did not count')
  change(again.table, seeded(13), 2)
  await commit(again, expected)
  t.equal(again.table.sequence, first)
  t.ok(isSame(stateOf((await loaded(machine)).table), expected.committed), 'what came later does')
})

t.test('what no carrier has is a fault, not an empty map', async (t) => {
  const { machine } = await worked(2)
  const saved = machine.disks.map((disk) => Buffer.from(disk.block(0, 3)))
  for (const disk of machine.disks) for (const slot of [0, 1] as const) disk.block(slot, 3).fill(0)
  const page = await failureOf(loaded(machine))
  t.match(page, { kind: 'corrupt', message: /^v: page 3 of its map is damaged on every disk/ })
  for (const [index, disk] of machine.disks.entries()) saved[index]?.copy(disk.block(0, 3))
  await loaded(machine)

  // A block in the middle of those that are needed.
  const store = await loaded(machine)
  await store.checkpoint()
  const expected: Expected = { committed: new Map(), appended: new Map() }
  await work(store, expected, { seed: 8, commits: 4 }, machine)
  t.ok(store.journalUsed >= 4)
  const lost = store.table.sequence - 2
  for (const disk of machine.disks) disk.block('ring', lost % RING).fill(0, 100)
  const gap = await failureOf(loaded(machine))
  t.match(gap, { kind: 'corrupt', message: /^v: block \d+ of the journal of its map is damaged/ })
  t.ok(gap.message.includes(`block ${lost} of`), gap.message)

  for (const disk of machine.disks) for (let at = 0; at < RING; at++) disk.block('ring', at).fill(0)
  t.match(await failureOf(loaded(machine)), { kind: 'corrupt', message: /no copy of the journal/ })
})

t.test('carriers that fail', async (t) => {
  const { machine, expected } = await worked(2)
  const store = await loaded(machine)
  const [one, other] = machine.disks as [MapDisk, MapDisk]
  other.isBroken = true
  await commit(store, expected, () => {})
  change(store.table, seeded(1), 5)
  await commit(store, expected)
  t.strictSame(machine.carriers, [1], 'it is out before the commit counts')
  t.strictSame(store.carriers, [1])

  one.isBroken = true
  change(store.table, seeded(2), 5)
  const set = store.table.takeChanges()
  const none = await failureOf(store.append(set))
  t.match(none, { kind: 'io', message: /^v: no disk that carries its map can be written; mend/ })
  store.table.failed(set)
  t.strictSame(machine.carriers, [1], 'the last one stays in the configuration')
  one.isBroken = false
  t.equal(await failureOf(store.append(set)), none, 'for good')
  t.ok(isSame(stateOf((await loaded(machine)).table), expected.committed))

  const unwritten = new MapStore({
    subject: 'v',
    uuid: UUID,
    table: emptyTable(),
    carriers: [one.on(new Power(0)), new MapDisk(2, PAGES, RING).on(new Power(0))],
    onCarrierFailed: (id) => Promise.reject(none.kind === 'io' ? none : id),
    onBroken: () => {},
  })
  await unwritten.format()
  const table = unwritten.table
  table.assign(1, { component: 1, number: 9 })
  one.isBroken = true
  const refused = await failureOf(unwritten.append(table.takeChanges()))
  t.match(refused.message, /component 1 could not be taken out as a carrier/)
})

t.test('a start without one of two carriers takes it out, unless it is needed', async (t) => {
  const { machine, expected } = await worked(2)
  const [one, other] = machine.disks as [MapDisk, MapDisk]
  one.isBroken = true
  other.block(0, 1).fill(0)
  other.block(1, 1).fill(0)
  t.match(await failureOf(loaded(machine)), { kind: 'corrupt' })
  t.strictSame(machine.carriers, [1, 2], 'the one that is away has the page')
  one.isBroken = false
  await loaded(machine)
  one.isBroken = true
  t.ok(isSame(stateOf((await loaded(machine)).table), expected.committed))
  t.strictSame(machine.carriers, [2])
})

t.test('a new carrier gets all of it while commits go on', async (t) => {
  const { machine, expected } = await worked(1)
  const store = await loaded(machine)
  // It has an older copy, which is of another epoch.
  const disk = new MapDisk(2, PAGES, RING)
  await storeOn({ disks: [disk], carriers: [2] }, new Power(0)).format()
  const power = new Power(0)
  const joined = store.join(disk.on(power, 2))
  await work(store, expected, { seed: 5, commits: 20 }, machine)
  await joined
  await work(store, expected, { seed: 6, commits: 5 }, machine)
  t.strictSame(store.carriers, [1, 2])
  const reader = (epoch: number) =>
    new MapStore({
      subject: 'v',
      uuid: UUID,
      table: emptyTable(),
      carriers: [disk.on(power, epoch)],
      onCarrierFailed: () => Promise.resolve(),
      onBroken: () => {},
    })
  const alone = reader(2)
  await alone.load()
  t.ok(isSame(stateOf(alone.table), expected.committed))
  t.equal((await failureOf(reader(1).load())).kind, 'corrupt', 'nothing of the older copy is left')

  store.leave(1)
  await work(store, expected, { seed: 9, commits: 3 }, machine)
  t.strictSame(store.carriers, [2])
  const broken = new MapDisk(3, PAGES, RING)
  broken.isBroken = true
  const refused = await failureOf(store.join(broken.on(power, 3)))
  t.match(refused.message, /^v: component 3 did not take a copy of the map/)
  await work(store, expected, { seed: 10, commits: 3 }, machine)
  t.strictSame(store.carriers, [2])
})

t.test('what goes on with a store that has ended writes nothing any more', async (t) => {
  const { machine, expected } = await worked(1)
  const store = await loaded(machine)
  change(store.table, seeded(14), 5)
  const slow = new MapDisk(2, PAGES, RING).on(new Power(0), 2)
  let goOn: () => void = () => {}
  const held = new Promise<void>((resolve) => {
    goOn = resolve
  })
  let isWriting = false
  const joined = failureOf(
    store.join({
      ...slow,
      writePages(...part) {
        isWriting = true
        return held.then(() => slow.writePages(...part))
      },
    }),
  )
  while (!isWriting) await nextTurn()
  let hasEnded = false
  const ended = store.end().then(() => {
    hasEnded = true
  })
  await nextTurn()
  t.notOk(hasEnded, 'it waits for what is under way')
  goOn()
  await ended
  const next = await loaded(machine)
  await work(next, expected, { seed: 5, commits: 5 }, machine)
  t.match(await joined, { kind: 'gone', message: /v is not served any more/ })
  t.equal((await failureOf(store.append(store.table.takeChanges()))).kind, 'gone')
  t.equal((await failureOf(store.emptyJournal())).kind, 'gone')
  t.equal((await failureOf(store.atRest(async () => {}))).kind, 'gone')
  t.ok(isSame(stateOf((await loaded(machine)).table), expected.committed))
})

t.test('the device grows', async (t) => {
  const disk = new MapDisk(1, 2 * PAGES, RING)
  const machine: Machine = { disks: [disk], carriers: [1] }
  await storeOn(machine, new Power(0)).format()
  const store = await loaded(machine)
  const chunks = 2 * PAGES * PAGE_ENTRIES
  await store.extend(chunks, [disk.on(new Power(0))])
  store.table.resize(chunks)
  store.table.assign(chunks - 1, { component: 2, number: 5 })
  store.table.markValid(chunks - 1, 3, 3)
  await commit(store, { committed: new Map(), appended: new Map() })
  await store.checkpoint()
  t.ok(store.journalUsed <= 1, 'nothing is left in the journal but its newest block')
  const again = new MapStore({
    subject: 'v',
    uuid: UUID,
    table: new MapTable({ chunks, granules: 64 }),
    carriers: [defined(machine.disks[0], 'disk').on(new Power(0))],
    onCarrierFailed: () => Promise.resolve(),
    onBroken: () => {},
  })
  again.table.addComponent(2, 4000)
  await again.load()
  t.equal(again.table.numberOf(chunks - 1), 5)
  t.ok(again.table.isValid(chunks - 1, 3, 3))
})

t.test('a full ring is emptied by the commit that waits for it', async (t) => {
  const { machine, expected } = await worked(2, 1)
  const store = await loaded(machine)
  const random = seeded(11)
  for (let index = 0; index < 12; index++) {
    change(store.table, random, 3000)
    await commit(store, expected)
    t.ok(store.journalUsed < RING, `${store.journalUsed} blocks`)
  }
  t.ok(isSame(stateOf((await loaded(machine)).table), expected.committed))
})

t.test('no block that is needed is written over while the ring is full', async (t) => {
  const others = {
    'a repair': (store: MapStore) => store.emptyJournal(),
    'a new copy': (store: MapStore) => store.join(new MapDisk(2, PAGES, RING).on(new Power(0), 2)),
  }
  for (const [name, other] of Object.entries(others)) {
    const { machine, expected } = await worked(1)
    const carrier = defined(machine.disks[0], 'disk').on(new Power(0))
    let goOn = (): void => {}
    const gate = new Promise<void>((resolve) => {
      goOn = resolve
    })
    const used: number[] = []
    const store: MapStore = new MapStore({
      subject: 'v',
      uuid: UUID,
      table: emptyTable(),
      carriers: [
        {
          ...carrier,
          flush: () => gate.then(carrier.flush),
          writeJournal(first, from) {
            used.push(store.journalUsed + from.bytes.length / MAP_PAGE_BYTES)
            return carrier.writeJournal(first, from)
          },
        },
      ],
      onCarrierFailed: () => Promise.resolve(),
      onBroken: () => {},
    })
    await store.load()
    // Of these the checkpoint that has begun takes none away yet.
    const random = seeded(7)
    while (store.journalUsed < RING - 1) {
      change(store.table, random, 1)
      await commit(store, expected)
    }
    const ended = other(store)
    for (let turn = 0; turn < 10; turn++) await nextTurn()
    goOn()
    await ended
    t.ok(Math.max(...used) <= RING, `${name}: ${Math.max(...used)} blocks`)
    t.ok(isSame(stateOf((await loaded(machine)).table), expected.committed))
  }
})
