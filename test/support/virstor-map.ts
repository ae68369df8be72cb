/**
 * A chunk map that keeps what is durable beside what counts, as plain objects: for tests of what is built on
 * engine/virstor/runtime.ts. Says when it is used wrongly: a place that is given twice, bits of a chunk without one.
 */
import { assert } from '../../src/base/assert.ts'
import { nextTurn } from '../../src/base/turns.ts'
import type { CommitJournal, CommitMap } from '../../src/engine/virstor/io/committer.ts'
import type { ChangeSet, ChunkMap, MapRecord, Place } from '../../src/engine/virstor/runtime.ts'

interface Entry {
  place: Place | undefined
  readonly valid: boolean[]
}

const isSet = ({ validLow, validHigh }: MapRecord, granule: number): boolean =>
  (((granule < 32 ? validLow : validHigh) >>> (granule & 31)) & 1) === 1

const bitsOf = (valid: readonly boolean[], from: number): number =>
  valid.slice(from, from + 32).reduce((sum, bit, at) => sum + (bit ? 2 ** at : 0), 0)

const keyOf = ({ component, number }: Place): string => `${component}:${number}`

export class NaiveMap implements ChunkMap, CommitMap, CommitJournal {
  readonly chunks: number
  readonly granules: number
  /** What the journal has, by chunk. */
  durable = new Map<number, MapRecord>()
  /** append waits for it before anything is durable. */
  gate: () => Promise<void> = nextTurn
  /** append fails with it. */
  refuse: Error | undefined
  /** Records of one set. */
  limit = Number.POSITIVE_INFINITY
  /** For each append, the records. */
  readonly appended: (readonly MapRecord[])[] = []
  readonly #entries: Entry[]
  readonly #owners = new Map<string, number>()
  readonly #changed = new Set<number>()
  #released: Place[] = []
  /** Granules by chunk that have become valid: since the last set was taken, and in that set. */
  readonly #fresh = new Map<number, Set<number>>()
  #taken = new Map<number, Set<number>>()

  constructor(chunks: number, granules: number, durable?: ReadonlyMap<number, MapRecord>) {
    this.chunks = chunks
    this.granules = granules
    this.#entries = Array.from({ length: chunks }, () => this.#empty())
    for (const record of durable?.values() ?? []) {
      this.durable.set(record.chunk, record)
      if (record.component !== 0) this.#take(record)
    }
  }

  get isChanged(): boolean {
    return this.#changed.size > 0 || this.#released.length > 0
  }

  /** Nothing is ever given up on it. */
  readonly lostChunks = 0

  isLost(): boolean {
    return false
  }

  componentOf(chunk: number): number {
    return this.#entry(chunk).place?.component ?? 0
  }

  numberOf(chunk: number): number {
    return this.#entry(chunk).place?.number ?? 0
  }

  isValid(chunk: number, first: number, last: number): boolean {
    assert(first >= 0 && first <= last && last < this.granules, `granules ${first} to ${last}`)
    return this.#entry(chunk)
      .valid.slice(first, last + 1)
      .every((bit) => bit)
  }

  runEnd(chunk: number, from: number): number {
    const { valid } = this.#entry(chunk)
    const end = valid.findIndex((bit, granule) => granule > from && bit !== valid[from])
    return end < 0 ? this.granules : end
  }

  assign(chunk: number, place: Place): void {
    const entry = this.#entry(chunk)
    assert(!entry.place && !entry.valid.includes(true), `chunk ${chunk} has no place yet`)
    this.#own(chunk, place)
    entry.place = place
    this.#changed.add(chunk)
  }

  markValid(chunk: number, first: number, last: number): void {
    const fresh = this.#fresh.get(chunk) ?? new Set()
    for (let granule = first; granule <= last; granule++) {
      if (!this.#entry(chunk).valid[granule]) fresh.add(granule)
    }
    this.#fresh.set(chunk, fresh)
    this.#mark(chunk, first, last, true)
  }

  markInvalid(chunk: number, first: number, last: number): boolean {
    return !this.#mark(chunk, first, last, false).includes(true)
  }

  release(chunk: number): void {
    const entry = this.#entry(chunk)
    assert(entry.place && !entry.valid.includes(true), `chunk ${chunk} has a place and no content`)
    this.#released.push(entry.place)
    entry.place = undefined
    this.#fresh.delete(chunk)
    this.#changed.add(chunk)
  }

  move(chunk: number, place: Place): void {
    const entry = this.#entry(chunk)
    assert(entry.place, `chunk ${chunk} has a place`)
    this.#own(chunk, place)
    this.#released.push(entry.place)
    entry.place = place
    this.#fresh.delete(chunk)
    this.#changed.add(chunk)
  }

  /** The place is nobody's at once, whatever the durable map says. */
  forget(place: Place): void {
    this.#owners.delete(keyOf(place))
    this.#released = this.#released.filter((other) => keyOf(other) !== keyOf(place))
  }

  ownerOf(place: Place): number {
    return this.#owners.get(keyOf(place)) ?? -1
  }

  takeChanges(): ChangeSet {
    const chunks = [...this.#changed].slice(0, this.limit)
    this.#taken = new Map()
    for (const chunk of chunks) {
      this.#changed.delete(chunk)
      this.#taken.set(chunk, this.#fresh.get(chunk) ?? new Set())
      this.#fresh.delete(chunk)
    }
    // Places are released with the last of what has changed.
    const released = this.#changed.size > 0 ? [] : this.#released
    if (this.#changed.size === 0) this.#released = []
    const set = { records: chunks.map((chunk) => this.#record(chunk)), released }
    return set
  }

  committed({ released }: ChangeSet): void {
    for (const place of released) this.#owners.delete(keyOf(place))
    this.#taken.clear()
  }

  failed({ records, released }: ChangeSet): void {
    for (const { chunk } of records) this.#changed.add(chunk)
    this.#released = [...released, ...this.#released]
    for (const [chunk, granules] of this.#taken) {
      this.#fresh.set(chunk, new Set([...granules, ...(this.#fresh.get(chunk) ?? [])]))
    }
    this.#taken.clear()
  }

  withdraw({ records, released }: ChangeSet, lost: ReadonlySet<number>): ChangeSet {
    const left = records.map((record) => {
      const { chunk, component } = record
      if (!lost.has(component)) return record
      const { valid } = this.#entry(chunk)
      const taken = this.#taken.get(chunk) ?? new Set()
      if (lost.has(this.componentOf(chunk))) {
        for (const granule of [...taken, ...(this.#fresh.get(chunk) ?? [])]) valid[granule] = false
      }
      const kept = valid.map((_, granule) => isSet(record, granule) && !taken.has(granule))
      return { ...record, validLow: bitsOf(kept, 0), validHigh: bitsOf(kept, 32) }
    })
    return { records: left, released }
  }

  async append({ records }: ChangeSet): Promise<number> {
    await this.gate()
    if (this.refuse) throw this.refuse
    this.appended.push(records)
    for (const record of records) this.durable.set(record.chunk, record)
    return this.appended.length
  }

  #mark(chunk: number, first: number, last: number, bit: boolean): boolean[] {
    const { place, valid } = this.#entry(chunk)
    assert(place, `chunk ${chunk} has a place`)
    assert(first >= 0 && first <= last && last < this.granules, `granules ${first} to ${last}`)
    valid.fill(bit, first, last + 1)
    this.#changed.add(chunk)
    return valid
  }

  #own(chunk: number, place: Place): void {
    assert(this.ownerOf(place) === -1, `${keyOf(place)} is in use`)
    this.#owners.set(keyOf(place), chunk)
  }

  #take(record: MapRecord): void {
    const { chunk, component, number } = record
    const entry = this.#entry(chunk)
    entry.place = { component, number }
    this.#own(chunk, entry.place)
    for (let granule = 0; granule < this.granules; granule++) {
      entry.valid[granule] = isSet(record, granule)
    }
  }

  #record(chunk: number): MapRecord {
    const { place, valid } = this.#entry(chunk)
    const { component, number } = place ?? { component: 0, number: 0 }
    return {
      chunk,
      component,
      number,
      validLow: bitsOf(valid, 0),
      validHigh: bitsOf(valid, 32),
      lost: false,
    }
  }

  #empty(): Entry {
    return { place: undefined, valid: new Array(this.granules).fill(false) }
  }

  #entry(chunk: number): Entry {
    const entry = this.#entries[chunk]
    assert(entry, `chunk ${chunk} is one of ${this.chunks}`)
    return entry
  }
}
