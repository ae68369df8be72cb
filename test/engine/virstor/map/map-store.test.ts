/**
 * The chunk map on disk: what a start finds after a power cut at every step, with torn writes and lost caches, after a
 * second cut while it starts, with a carrier lost, stale, rotten or new.
 */
import t from 'tap'
import { defined } from '../../../../src/base/assert.ts'
import { VIRSTOR_COMMIT_BLOCKS } from '../../../../src/base/limits.ts'
import type { Carrier } from '../../../../src/engine/virstor/map/carrier.ts'
import { MapTable } from '../../../../src/engine/virstor/map/chunk-map.ts'
import { JOURNAL_BLOCK_BYTES } from '../../../../src/engine/virstor/map/journal.ts'
import { MapStore } from '../../../../src/engine/virstor/map/map-store.ts'
import { PAGE_ENTRIES } from '../../../../src/engine/virstor/map/page.ts'
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
async function work(store: MapStore, expected: Expected, run: Run, machine: Machine): Promise<void> {
  const random = seeded(run.seed)
  for (let index = 1; index <= run.commits; index++) {
    if (index === run.breaksAt) defined(machine.disks[1], 'disk 2').isBroken = true
    // One in six has several blocks.
    change(store.table, random, random() < 0.16 ? 500 : 1 + Math.floor(random() * 8))
    await commit(store, expected, () => change(store.table, random, 2))
  }
}

/** A start after a power cut, and one more without a cut: is it what was expected? */
async function recovers(machine: Machine, expected: Expected, cutAt: number): Promise<boolean> {
  if (cutAt > 0) {
    const power = new Power(cutAt, cutAt)
    const store = storeOn(machine, power)
    await Promise.race([power.off, store.load().then(() => work(store, expected, RERUN, machine))])
  }
  const store = storeOn(machine, new Power(0))
  await store.load()
  const found = stateOf(store.table)
  if (store.table.badChunks > 0) return false
  if (!isSame(found, expected.committed) && !isSame(found, expected.appended)) return false
  // What was found stays, and work goes on, with either carrier alone as well.
  const now: Expected = { committed: found, appended: found }
  await work(store, now, RERUN, machine)
  for (const only of machine.carriers) {
    const one = storeOn({ disks: machine.disks, carriers: [only] }, new Power(0))
    await one.load()
    if (!isSame(stateOf(one.table), now.committed)) return false
  }
  return true
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
  for (const disk of machine.disks) disk.isBroken = false
  try {
    return { steps: power.steps, isRight: await recovers(machine, expected, again(power.random)) }
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
    const { steps, wrong } = await wrongSteps({ seed: disks, commits: 40 }, disks, once)
    t.ok(steps > 150, `${steps} steps on ${disks} disks`)
    t.strictSame(wrong, [], `${disks} disks`)
  }
})
