/**
 * A raid5 plex as small as can be, with the shipped log: columns with a volatile cache, rings, updates of rows that run side by
 * side, a power cut at any moment, a lost column, a rotten block of a ring. After the replay each sector must be what was
 * acknowledged last, or newer, or what the last flush left possible.
 */

import { LOG_BLOCK_BYTES, memberBits } from '../../../../src/engine/vinum/log/block.ts'
import { PlexLog } from '../../../../src/engine/vinum/log/plex-log.ts'
import { type RingView, readRing } from '../../../../src/engine/vinum/log/read-ring.ts'
import {
  type ColumnView,
  planReplay,
  type ReplayPlan,
} from '../../../../src/engine/vinum/log/replay-plan.ts'
import type { LogPiece, RingRegion } from '../../../../src/engine/vinum/log/ring.ts'
import { allocateAligned } from '../../../../src/hal/aligned-pool.ts'
import type { AlignedBuffer } from '../../../../src/hal/block-device.ts'

export const SECTOR = 512
const STRIPE = 4 * 1024
const ROWS = 3
const RING = 128 * 1024

export type Dice = (below: number) => number

/** mulberry32: the same numbers for the same seed. */
export function diceOf(seed: number): Dice {
  let state = seed >>> 0
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

/** Bytes with a cache: sectors that were written and not flushed may be lost by a power cut, one by one. */
class Medium {
  readonly durable: Buffer
  now: Buffer
  readonly #dice: Dice
  isCut = false

  constructor(bytes: number, dice: Dice) {
    this.durable = Buffer.alloc(bytes)
    this.now = Buffer.alloc(bytes)
    this.#dice = dice
  }

  async write(offset: number, from: Buffer, durable: boolean): Promise<void> {
    // In pieces over time, in any order: a cut finds some of them.
    const sectors = Array.from({ length: from.length / SECTOR }, (_, index) => index)
    for (let at = sectors.length - 1; at > 0; at--) {
      const other = this.#dice(at + 1)
      ;[sectors[at], sectors[other]] = [sectors[other] as number, sectors[at] as number]
    }
    const copy = Buffer.from(from)
    const half = this.#dice(sectors.length + 1)
    for (const [index, sector] of sectors.entries()) {
      if (index === half || this.#dice(4) === 0) await turns(this.#dice(3) + 1)
      if (this.isCut) return never()
      const at = offset + sector * SECTOR
      copy.copy(this.now, at, sector * SECTOR, (sector + 1) * SECTOR)
    }
    await turns(this.#dice(4))
    if (this.isCut) return never()
    if (durable) this.now.copy(this.durable, offset, offset, offset + from.length)
  }

  async flush(): Promise<void> {
    await turns(this.#dice(4))
    if (this.isCut) return never()
    this.now.copy(this.durable)
  }

  cut(): void {
    this.isCut = true
    for (let at = 0; at < this.now.length; at += SECTOR) {
      const lost = this.#dice(2) === 0
      const from = lost ? this.durable : this.now
      from.copy(lost ? this.now : this.durable, at, at, at + SECTOR)
    }
  }
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await Promise.resolve()
}

function fail(error: unknown): never {
  throw error
}

function never(): Promise<never> {
  return new Promise(() => {})
}

export interface HistoryOptions {
  readonly seed: number
  /** When a column is lost: never, before the cut, by it, or after the replay. */
  readonly lost: 'never' | 'before' | 'with' | 'after'
  /** A block of a ring rots after the cut. */
  readonly rots: boolean
  /** A broken log, which the test has to find. */
  readonly wrong?: 'order' | 'single' | 'tear' | 'in-place-first' | 'not-durable' | undefined
}

export interface Outcome {
  readonly updates: number
  readonly replayed: number
  /** What a sector has, and what it may have. */
  readonly violation: string | undefined
  readonly doubtful: number
}

export async function playHistory(options: HistoryOptions): Promise<Outcome> {
  const dice = diceOf(options.seed)
  const columns = 3 + dice(3)
  const history = new History(options, columns, dice)
  await history.run()
  return await history.recover()
}

/** A sector: what it had at the last flush, and all that was written since. */
type Allowed = Set<string>

class History {
  readonly #options: HistoryOptions
  readonly #columns: number
  readonly #dice: Dice
  readonly #media: Medium[]
  readonly #rings: Medium[]
  readonly #regions: RingRegion[]
  readonly #log: PlexLog
  /** What is in place, if nothing is lost: for the XOR. */
  readonly #truth: Buffer[]
  readonly #allowed = new Map<string, Allowed>()
  readonly #locked = new Set<number>()
  #out: number | undefined
  #updates = 0
  #serial = 1

  constructor(options: HistoryOptions, columns: number, dice: Dice) {
    this.#options = options
    this.#columns = columns
    this.#dice = dice
    const all = Array.from({ length: columns })
    this.#media = all.map(() => new Medium(STRIPE * ROWS, dice))
    this.#rings = all.map(() => new Medium(RING, dice))
    this.#truth = all.map(() => Buffer.alloc(STRIPE * ROWS))
    this.#regions = this.#rings.map((ring) => ({
      bytes: RING,
      write: (at: number, from: AlignedBuffer) =>
        ring.write(at, from.bytes, options.wrong !== 'not-durable'),
      read: (at: number, length: number) => readMedium(ring, at, length),
    }))
    this.#log = new PlexLog({
      regionOf: (column) => (column === this.#out ? undefined : this.#regions[column]),
      uuidOf: (column) => Buffer.alloc(16, column + 1),
      beginRun: async () => 1,
      keepDoubt: async () => {},
      flush: () => this.#flushAll(),
    })
  }

  async run(): Promise<void> {
    const { lost } = this.#options
    await this.#log.open(this.#members())
    const workers = Array.from({ length: 1 + this.#dice(3) }, () => this.#work(2 + this.#dice(25)))
    Promise.all(workers).catch(fail)
    const turnsLeft = this.#dice(900)
    const leavesAt = lost === 'before' ? this.#dice(turnsLeft + 1) : -1
    for (let turn = 0; turn < turnsLeft; turn++) {
      // Its demotion is durable at once; what is under way goes on without it.
      if (turn === leavesAt) this.#out = this.#dice(this.#columns)
      await Promise.resolve()
    }
    for (const medium of [...this.#media, ...this.#rings]) medium.cut()
  }

  #members(): number[] {
    return Array.from({ length: this.#columns }, (_, column) => column).filter(
      (column) => column !== this.#out,
    )
  }

  async #work(count: number): Promise<void> {
    for (let update = 0; update < count; update++) {
      if (this.#dice(6) === 0) await this.#flush()
      else await this.#update()
    }
  }

  /** As an initiator has it: what was acknowledged before it is certain after it. */
  async #flush(): Promise<void> {
    const before = new Map([...this.#allowed].map(([key, values]) => [key, [...values].at(-1)]))
    const settled = [...before].filter(([key]) => !this.#locked.has(rowOfKey(key)))
    await this.#flushAll()
    for (const [key, value] of settled) {
      const values = this.#allowed.get(key)
      if (!values || value === undefined) continue
      for (const one of [...values]) {
        if (one === value) break
        values.delete(one)
      }
    }
  }

  async #flushAll(): Promise<void> {
    await Promise.all(this.#members().map((column) => this.#media[column]?.flush()))
  }

  async #update(): Promise<void> {
    const row = this.#dice(ROWS)
    while (this.#locked.has(row)) await turns(1)
    this.#locked.add(row)
    this.#updates++
    const parity = row % this.#columns
    const start = row * STRIPE + this.#dice(STRIPE / SECTOR) * SECTOR
    const end = start + (1 + this.#dice(((row + 1) * STRIPE - start) / SECTOR)) * SECTOR
    const data = this.#members().filter((column) => column !== parity)
    // One that is out is written, too: only its parity is.
    const targets = new Set<number>()
    for (let one = 0; one <= this.#dice(this.#columns - 1); one++) {
      targets.add(this.#dice(this.#columns - 1))
    }
    const contents = new Map<number, Buffer>()
    for (const index of targets) {
      const column = index >= parity ? index + 1 : index
      contents.set(column, Buffer.alloc(end - start, 0))
      const bytes = contents.get(column) as Buffer
      for (let at = 0; at < bytes.length; at += SECTOR) {
        bytes.fill(0, at, at + SECTOR)
        bytes.writeUInt32LE(this.#serial++, at)
        const key = keyOf(column, start + at)
        const allowed =
          this.#allowed.get(key) ?? new Set([hex(this.#truth[column] as Buffer, start + at)])
        this.#allowed.set(key, allowed)
        allowed.add(hex(bytes, at))
      }
    }
    for (const [column, bytes] of contents) bytes.copy(this.#truth[column] as Buffer, start)
    const sum = Buffer.alloc(end - start)
    for (const [column, truth] of this.#truth.entries()) {
      if (column === parity) continue
      for (let at = 0; at < sum.length; at++) sum[at] = (sum[at] ?? 0) ^ (truth[start + at] ?? 0)
    }
    sum.copy(this.#truth[parity] as Buffer, start)
    contents.set(parity, sum)
    // The parts of columns that are here; parity alone where that is all that is left.
    const here = [...contents].filter(
      ([column]) => data.includes(column) || (column === parity && this.#out !== parity),
    )
    if (here.length > 0) await this.#write(row, start, new Map(here))
    this.#locked.delete(row)
  }

  async #write(row: number, start: number, contents: ReadonlyMap<number, Buffer>): Promise<void> {
    const { wrong } = this.#options
    const entry = this.#log.begin(row, 1)
    const members = memberBits(contents.keys())
    const parts = new Map<number, readonly LogPiece[]>()
    for (const [column, bytes] of contents) {
      const data = allocateAligned(bytes.length)
      bytes.copy(data.bytes)
      const isZeroes = false
      const { length } = bytes
      parts.set(column, [{ entry, offset: start, length, members, isZeroes, data, dataOffset: 0 }])
    }
    const logged = new Promise<void>((resolve) => {
      this.#log.append(
        parts,
        () => new Error('gone') as never,
        () => resolve(),
      )
    })
    if (wrong !== 'in-place-first') await logged
    await Promise.all(
      [...contents].map(async ([column, bytes]) => {
        if (column !== this.#out) await this.#media[column]?.write(start, bytes, false)
      }),
    )
    await logged
    this.#log.ended(entry)
  }

  async recover(): Promise<Outcome> {
    const { lost, rots, wrong } = this.#options
    const dice = this.#dice
    const gone = lost === 'with' ? dice(this.#columns) : undefined
    if (rots && this.#out === undefined && gone === undefined) this.#rot()
    const views: ColumnView[] = []
    for (let column = 0; column < this.#columns; column++) {
      if (column === this.#out) views.push({ state: 'out' })
      else if (column === gone) views.push({ state: 'away' })
      else {
        const origin = { uuid: Buffer.alloc(16, column + 1), epoch: 1 }
        const ring = await readRing(this.#regions[column] as RingRegion, origin)
        views.push({ state: 'here', ring: spoiled(ring, wrong) })
      }
    }
    const plan = spoiledPlan(planReplay(views, STRIPE), wrong)
    for (const { column, record } of plan.writes) {
      record.data?.copy((this.#media[column] as Medium).now, record.offset)
    }
    for (const row of plan.doubtfulRows) this.#settle(row)
    const missing = this.#out ?? gone ?? (lost === 'after' ? dice(this.#columns) : undefined)
    return {
      updates: this.#updates,
      replayed: plan.writes.length,
      doubtful: plan.doubtfulRows.size,
      violation: this.#check(missing),
    }
  }

  /** One block of one ring, not at its begin. */
  #rot(): void {
    const ring = this.#rings[this.#dice(this.#columns)] as Medium
    const place = (2 + this.#dice(RING / LOG_BLOCK_BYTES - 2)) * LOG_BLOCK_BYTES
    ring.now.fill(0xee, place, place + LOG_BLOCK_BYTES)
  }

  /** As the engine does it where all columns are here: the data speak, and the parity is computed. */
  #settle(row: number): void {
    const parity = row % this.#columns
    const into = this.#media[parity] as Medium
    for (let at = row * STRIPE; at < (row + 1) * STRIPE; at++) {
      let sum = 0
      for (const [column, { now }] of this.#media.entries()) {
        if (column !== parity) sum ^= now[at] ?? 0
      }
      into.now[at] = sum
    }
  }

  #check(missing: number | undefined): string | undefined {
    for (const [key, allowed] of this.#allowed) {
      const [column = 0, at = 0] = key.split(' ').map(Number)
      let found = Buffer.from((this.#media[column] as Medium).now.subarray(at, at + SECTOR))
      if (column === missing) {
        found = Buffer.alloc(SECTOR)
        for (const [other, { now }] of this.#media.entries()) {
          if (other === missing) continue
          for (let byte = 0; byte < SECTOR; byte++)
            found[byte] = (found[byte] ?? 0) ^ (now[at + byte] ?? 0)
        }
      }
      if (!allowed.has(hex(found, 0))) {
        return `column ${column}, byte ${at}: ${hex(found, 0).slice(0, 16)}, allowed ${[...allowed].map((one) => one.slice(0, 16)).join(' ')}`
      }
    }
    return undefined
  }
}

async function readMedium(medium: Medium, at: number, length: number): Promise<AlignedBuffer> {
  const into = allocateAligned(length)
  medium.now.copy(into.bytes, 0, at, at + length)
  return into
}

function spoiled(ring: RingView, wrong: HistoryOptions['wrong']): RingView {
  if (wrong === 'tear') return { ...ring, isRotten: false }
  if (wrong !== 'single') return ring
  const parts = [...ring.parts].filter(([, { records }]) => membersCount(records[0]?.members) > 1)
  return { ...ring, parts: new Map(parts) }
}

function spoiledPlan(plan: ReplayPlan, wrong: HistoryOptions['wrong']): ReplayPlan {
  return wrong === 'order' ? { ...plan, writes: [...plan.writes].reverse() } : plan
}

function membersCount(bits: Buffer | undefined): number {
  let count = 0
  for (const byte of bits ?? []) for (let bit = 0; bit < 8; bit++) count += (byte >> bit) & 1
  return count
}

function keyOf(column: number, at: number): string {
  return `${column} ${at}`
}

function rowOfKey(key: string): number {
  return Math.floor(Number(key.split(' ')[1]) / STRIPE)
}

function hex(bytes: Buffer, at: number): string {
  return bytes.subarray(at, at + 8).toString('hex')
}
