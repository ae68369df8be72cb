/**
 * The replay of the raid5 logs, before a set serves anything (docs/adr/0016-raid5-log.md): entries that a crash may have cut
 * off in place are written again; rows of which nobody knows what was under way get their parity anew.
 */
import { operatingError } from '../../../base/errors.ts'
import type { XorSource } from '../../../base/kernels.ts'
import { JOB_STEP_BYTES, PAGE_BYTES } from '../../../base/limits.ts'
import { uuidBytes } from '../../../base/random.ts'
import { allocateAligned } from '../../../hal/aligned-pool.ts'
import { flush, readAt, writeAt, writeZeroes } from '../../../hal/io.ts'
import type { Consumer } from '../../geom/consumer.ts'
import { readRing, UNREADABLE_RING } from '../log/read-ring.ts'
import {
  type ColumnView,
  isThere,
  planReplay,
  type ReplayPlan,
  type ReplayWrite,
} from '../log/replay-plan.ts'
import { hasLog, nextRun } from '../model/log-rings.ts'
import { demoteSubdisks } from '../model/membership.ts'
import {
  mapRecords,
  type PlexRecord,
  type SubdiskRecord,
  sizeOfPlex,
  subdisksOf,
  type VinumModel,
} from '../model/model.ts'
import { createLayout, parityColumn } from '../raid5/layout.ts'
import { regionOf } from './plex-log.ts'
import type { VinumSet } from './vinum-set.ts'

export interface Replayed {
  /** Plexes, by UUID: what their logs had is in place. */
  readonly plexes: ReadonlySet<string>
  /** Those of them in which the crash has left no parity in doubt. */
  readonly settled: ReadonlySet<string>
  /** Subdisks that are away, or could not be written, and have missed something of it. */
  readonly missed: ReadonlySet<string>
  /** Plexes that must not be used before they are replayed: too much of them is missing. */
  readonly waiting: ReadonlySet<string>
}

export const NOTHING_REPLAYED: Replayed = {
  plexes: new Set(),
  settled: new Set(),
  missed: new Set(),
  waiting: new Set(),
}

/** Of those that have a log; `outdated`: subdisks whose content is of an older time, by UUID. */
export async function replayLogs(
  set: VinumSet,
  model: VinumModel,
  of: readonly PlexRecord[],
  outdated: readonly string[],
): Promise<Replayed> {
  const plexes = new Set<string>()
  const settled = new Set<string>()
  const missed = new Set<string>()
  const waiting = new Set<string>()
  for (const plex of of) {
    // Before its first run writes were not logged.
    if (!hasLog(plex) || plex.logRun === 0) continue
    const replay = new Replay(set, model, plex, outdated)
    if (await replay.run()) {
      plexes.add(plex.uuid)
      if (replay.isSettled) settled.add(plex.uuid)
      for (const uuid of replay.missed) missed.add(uuid)
    } else waiting.add(plex.uuid)
  }
  return { plexes, settled, missed, waiting }
}

/**
 * The model after a replay: who has missed something of it is out of service. What was replayed does not count any more: others
 * may write there before the plexes' logs begin anew.
 */
export function afterReplay(model: VinumModel, replayed: Replayed): VinumModel {
  const { plexes, settled, missed } = replayed
  return mapRecords(demoteSubdisks(model, [...missed]), 'plexes', (plex) => {
    if (!plexes.has(plex.uuid) || plex.logRun === undefined) return plex
    const mapDoubts = settled.has(plex.uuid) ? plex.mapDoubts : true
    return { ...plex, logRun: nextRun(plex), mapDoubts }
  })
}

class Replay {
  readonly missed = new Set<string>()
  isSettled = true
  readonly #set: VinumSet
  readonly #plex: PlexRecord
  readonly #columns: readonly SubdiskRecord[]
  readonly #views: ColumnView[] = []

  constructor(set: VinumSet, model: VinumModel, plex: PlexRecord, outdated: readonly string[]) {
    this.#set = set
    this.#plex = plex
    this.#columns = subdisksOf(model, plex.uuid)
    for (const { uuid, state, driveUuid } of this.#columns) {
      const isOut = state === 'stale' || state === 'initializing' || outdated.includes(uuid)
      const isHere = set.drives.get(driveUuid)?.present
      if (isOut) this.#views.push({ state: 'out' })
      else if (isHere && state === 'reviving')
        this.#views.push({ state: 'filling', ring: UNREADABLE_RING })
      else if (isHere) this.#views.push({ state: 'here', ring: UNREADABLE_RING })
      else this.#views.push({ state: 'away' })
    }
  }

  /** false: too many columns are missing to say anything. A column that fails on the way is away, and it begins again. */
  async run(): Promise<boolean> {
    if (this.#lacking > 1) return false
    await this.#readRings()
    for (;;) {
      const plan = planReplay(this.#views, this.#plex.stripeBytes)
      const failed = await this.#carryOut(plan)
      if (failed === undefined) {
        if (this.#isComputed) for (const column of plan.missed.keys()) this.#miss(column)
        else this.isSettled &&= plan.missed.size === 0
        if (plan.entries > 0 || plan.doubtfulRows.size > 0) this.#tell(plan)
        return true
      }
      if (!this.#isComputed) return false
      this.#miss(failed)
      this.#views[failed] = { state: 'away' }
      if (this.#lacking > 1) return false
    }
  }

  /** Has every row its parity? Else a column may be the only copy of what it has, and comes back as it is. */
  get #isComputed(): boolean {
    return this.#plex.parityValidBytes >= sizeOfPlex(this.#plex, this.#columns)
  }

  get #lacking(): number {
    return this.#views.filter((view) => !isThere(view)).length
  }

  #miss(column: number): void {
    const subdisk = this.#columns[column]
    if (subdisk) this.missed.add(subdisk.uuid)
  }

  async #readRings(): Promise<void> {
    for (const [column, view] of this.#views.entries()) {
      const { uuid, ring } = this.#columns[column] ?? {}
      const label = this.#set.drives.get(ring?.driveUuid ?? '')?.label
      if (!isThere(view) || !label || !ring || uuid === undefined) continue
      const region = regionOf(label, ring)
      if (!region) continue
      const origin = { uuid: uuidBytes(uuid), epoch: this.#plex.logRun ?? 0 }
      this.#views[column] = { state: view.state, ring: await readRing(region, origin) }
    }
  }

  /** Resolves to the column that has failed; undefined: all is durable. */
  async #carryOut(plan: ReplayPlan): Promise<number | undefined> {
    for (const write of plan.writes) {
      if (!(await this.#try(write.column, (target, at) => writeRecord(target, at, write)))) {
        return write.column
      }
    }
    for (const row of plan.doubtfulRows) {
      const failed = await this.#settle(row)
      if (failed !== undefined) return failed
    }
    if (plan.writes.length === 0 && plan.doubtfulRows.size === 0) return undefined
    for (const column of this.#views.keys()) {
      if (!(await this.#try(column, (target) => flush(target)))) return column
    }
    return undefined
  }

  /** false: the column failed it. One that is not here has nothing to do. */
  async #try(
    column: number,
    work: (target: Consumer, start: number) => Promise<void>,
  ): Promise<boolean> {
    const { driveUuid = '', driveOffsetBytes = 0 } = this.#columns[column] ?? {}
    const target = this.#set.drives.get(driveUuid)?.consumer
    if (!isThere(this.#views[column])) return true
    if (!target) return false
    const err = await work(target, driveOffsetBytes).then(() => undefined, operatingError)
    if (err) this.#set.log.error({ err, plex: this.#plex.name, column }, 'a replay failed')
    return !err
  }

  /** The data of the row count, and its parity is computed. Without a column, or in a growth, the row stays in doubt. */
  async #settle(row: number): Promise<number | undefined> {
    const { stripeBytes, parityLayout = 'left-symmetric', growth } = this.#plex
    const columns = growth?.columnsBefore ?? this.#columns.length
    if (growth || this.#views.some(({ state }) => state !== 'here')) {
      this.isSettled = false
      return undefined
    }
    const parity = parityColumn(createLayout(columns, stripeBytes, parityLayout), row)
    const width = Math.min(stripeBytes, Math.max(PAGE_BYTES, JOB_STEP_BYTES / 16))
    for (let within = 0; within < stripeBytes; within += width) {
      const bytes = Math.min(width, stripeBytes - within)
      const lanes = Array.from({ length: columns }, () => allocateAligned(bytes))
      for (const [column, lane] of lanes.entries()) {
        const place = row * stripeBytes + within
        const read = (target: Consumer, at: number) => readAt(target, lane, at + place)
        if (column !== parity && !(await this.#try(column, read))) return column
      }
      const into = lanes[parity]
      if (!into) continue
      const sources: XorSource[] = lanes
        .filter((_, column) => column !== parity)
        .map((lane) => ({ bytes: lane.bytes, offset: 0 }))
      this.#set.topology.kernels.xor(into.bytes, 0, sources, bytes)
      const place = row * stripeBytes + within
      const write = (target: Consumer, at: number) => writeAt(target, into, at + place)
      if (!(await this.#try(parity, write))) return parity
    }
    return undefined
  }

  #tell({ entries, doubtfulRows }: ReplayPlan): void {
    const { name } = this.#plex
    const settled = this.isSettled ? 'was computed' : 'is in doubt'
    const rows = doubtfulRows.size > 0 ? `; the parity of ${doubtfulRows.size} rows ${settled}` : ''
    const text = `plex ${name}: ${entries} updates of rows were written again from its log${rows}`
    this.#set.topology.events.emit('info', 'log-replayed', name, text)
  }
}

async function writeRecord(
  target: Consumer,
  start: number,
  { record }: ReplayWrite,
): Promise<void> {
  const { offset, length, data } = record
  if (!data) {
    await writeZeroes(target, { offset: start + offset, length })
    return
  }
  const from = allocateAligned(length)
  data.copy(from.bytes)
  await writeAt(target, from, start + offset)
}
