/**
 * The chunk map in memory (docs/adr/0015-virstor.md): what counts now, what is durable where that differs, and who has
 * which place. No I/O: map-store.ts loads it and writes what it hands out.
 *
 *   takeChanges() -> (flush of the components, journal) -> committed(): durable, released places are free
 *                                                      \-> failed(): to be taken again
 *
 * The live entries lie in pages as on disk. A chunk that has changed since the last {@link MapTable.takeChanges} is in
 * `#pending` with the entry from before; one that is under way is in `#taken` with the entry that is durable. What changes
 * meanwhile is pending again, against what is under way.
 *
 * **Entries that cannot be right** are found by {@link MapTable.loaded}: an unknown component, a number that it does not
 * have, a place of the map itself, a place that two chunks have (neither is believed), a form that nobody writes. Such
 * a chunk is out of service: it appears to be on component {@link BAD_COMPONENT}, which no device has, with all granules
 * valid, so that it is neither read from any disk nor as zeroes; nothing may change it. On disk its entry stays as it is, and
 * a place that it names and that exists stays in use.
 *
 * **What is lost** with a component that was given up ({@link MapTable.lose}) has no place, and is marked in the entry:
 * what is not valid of such a chunk is lost, instead of zeroes. The mark goes when all of it has been written again, or has
 * been discarded.
 */
import { assert, defined } from '../../../base/assert.ts'
import { VIRSTOR_COMMIT_BLOCKS } from '../../../base/limits.ts'
import { inTurns } from '../../../base/turns.ts'
import type { ChangeSet, ChunkMap, MapRecord, Place } from '../runtime.ts'
import { BadChunks, type MapFault, placeFault } from './bad-chunks.ts'
import { type ChangedEntry, without } from './changed-entry.ts'
import { bits, ChunkEntries, pageOf } from './chunk-entries.ts'
import { BLOCK_RECORDS } from './journal.ts'
import type { Run } from './layout.ts'
import { FREE, keyOf, MAP, Owners } from './owners.ts'
import { type Entry, entryAt, isSameEntry, PAGE_ENTRIES, UNALLOCATED, writeEntry } from './page.ts'

/** Id that a chunk out of service appears to be on: components have ids from 1 to one less. */
export const BAD_COMPONENT = 0xffff
/** Records that one commit takes: what is left is for the next one. */
export const COMMIT_RECORDS = VIRSTOR_COMMIT_BLOCKS * BLOCK_RECORDS

interface Taken {
  readonly set: ChangeSet
  /** Places of the set, by {@link keyOf}. */
  readonly released: ReadonlyMap<number, Place>
  /** Each chunk in it, with the durable entry. */
  readonly changed: ReadonlyMap<number, ChangedEntry>
}

export class MapTable extends ChunkEntries implements ChunkMap {
  readonly #owners: (Owners | undefined)[] = []
  readonly #pending = new Map<number, ChangedEntry>()
  #taken: Taken | undefined
  /** Places that went out of use since the last {@link takeChanges}, by {@link keyOf}. */
  #released = new Map<number, Place>()
  /** Chunks out of service, with the bytes of their entries on disk. */
  readonly #bad = new BadChunks()
  #dirty = new Set<number>()
  #sequence = 0

  /** Of the journal: all that was committed up to here is durable. */
  get sequence(): number {
    return this.#sequence
  }

  get isChanged(): boolean {
    return this.#pending.size > 0 || this.#released.size > 0
  }

  /** Chunks out of service. The first {@link VIRSTOR_MAP_FAULTS} are described by {@link faults}. */
  get badChunks(): number {
    return this.#bad.size
  }

  get faults(): readonly MapFault[] {
    return this.#bad.faults
  }

  /** One that has come, with so many physical chunks: none is in use. Also one that is away: its chunks are known. */
  addComponent(id: number, chunks: number): void {
    assert(id >= 1 && id < BAD_COMPONENT && !this.#owners[id], `component ${id} is a new one`)
    this.#owners[id] = new Owners(chunks)
  }

  /** Its disk has grown: it has so many physical chunks. */
  growComponent(id: number, chunks: number): void {
    this.#ownersOf(id).chunks = chunks
  }

  /** Nothing of it is in use: {@link usedOf}. */
  removeComponent(id: number): void {
    assert(this.usedOf(id) === 0, `nothing lies on component ${id}`)
    this.#owners[id] = undefined
  }

  has(id: number): boolean {
    return this.#owners[id] !== undefined
  }

  /** Chunks that lie on a component, and go with it. */
  *chunksOn(id: number): Generator<number> {
    for (const [, owner] of this.#ownersOf(id).entries()) {
      if (owner >= 0 && this.componentOf(owner) === id) yield owner
    }
  }

  /**
   * One of {@link chunksOn} of a component that is lost for good, and the configuration says so: it is lost. The next commit
   * writes that into its entry. Nothing is under way on it.
   */
  lose(chunk: number): void {
    const changed = this.#remember(chunk)
    changed.freshLow = 0
    changed.freshHigh = 0
    this.setEntry(chunk, { ...UNALLOCATED, lost: true })
  }

  /** A component is no more. All chunks on it are lost, durably. */
  giveUp(id: number): void {
    this.#owners[id] = undefined
  }

  /** Places of a component that are in use, by the map itself too. */
  usedOf(id: number): number {
    return this.#ownersOf(id).used
  }

  /** These places, in order, with their owners as {@link ownerOf} has them. */
  used(id: number): Generator<readonly [number: number, owner: number]> {
    return this.#ownersOf(id).entries()
  }

  /** The map itself lies there from now on. */
  reserve(id: number, { number, count }: Run): void {
    for (let at = number; at < number + count; at++) this.#take({ component: id, number: at }, MAP)
  }

  /** The map does not lie there any more: free. */
  unreserve(id: number, { number, count }: Run): void {
    for (let at = number; at < number + count; at++) {
      assert(this.#ownersOf(id).get(at) === MAP, `the map lies at place ${at} of component ${id}`)
      this.#ownersOf(id).set(at, FREE)
    }
  }

  /**
   * The first place of a component from number `from` on that a chunk has, or had until a commit that is still to come; -1:
   * there is none.
   */
  nextChunkOn(component: number, from: number): number {
    return this.#ownersOf(component).nextChunk(from)
  }

  ownerOf({ component, number }: Place): number {
    return this.#ownersOf(component).get(number)
  }

  assign(chunk: number, place: Place): void {
    assert(this.componentOf(chunk) === 0, `chunk ${chunk} is unallocated`)
    this.#take(place, chunk)
    this.#remember(chunk)
    this.setEntry(chunk, { ...place, validLow: 0, validHigh: 0, lost: this.isLost(chunk) })
  }

  markValid(chunk: number, first: number, last: number): void {
    if (this.isValid(chunk, first, last)) return
    assert(this.componentOf(chunk) !== 0, `chunk ${chunk} is allocated`)
    assert(first >= 0 && last < this.granules, `granules ${first} to ${last} of ${this.granules}`)
    const changed = this.#remember(chunk)
    const entry = this.entry(chunk)
    const low = bits(first, last)
    const high = bits(first - 32, last - 32)
    changed.freshLow |= low & ~entry.validLow
    changed.freshHigh |= high & ~entry.validHigh
    this.setEntry(chunk, {
      ...entry,
      validLow: entry.validLow | low,
      validHigh: entry.validHigh | high,
    })
    if (entry.lost && this.isValid(chunk, 0, this.granules - 1)) {
      this.setEntry(chunk, { ...this.entry(chunk), lost: false })
    }
  }

  markInvalid(chunk: number, first: number, last: number): boolean {
    const entry = this.entry(chunk)
    const validLow = (entry.validLow & ~bits(first, last)) >>> 0
    const validHigh = (entry.validHigh & ~bits(first - 32, last - 32)) >>> 0
    const isWhole = first === 0 && last === this.granules - 1
    assert(isWhole || !entry.lost, `chunk ${chunk}, which is lost in part, goes as a whole`)
    if (validLow !== entry.validLow || validHigh !== entry.validHigh || entry.lost) {
      this.#remember(chunk)
      this.setEntry(chunk, { ...entry, validLow, validHigh, lost: false })
    }
    return validLow === 0 && validHigh === 0
  }

  release(chunk: number): void {
    this.#vacate(chunk)
    this.setEntry(chunk, { ...UNALLOCATED, lost: this.isLost(chunk) })
  }

  move(chunk: number, place: Place): void {
    this.#take(place, chunk)
    const entry = this.entry(chunk)
    this.#vacate(chunk)
    this.setEntry(chunk, { ...entry, ...place })
  }

  /** Has a chunk let it go, and the commit is still to end that makes this durable? */
  isReleased(place: Place): boolean {
    const key = keyOf(place)
    return this.#released.has(key) || this.#taken?.released.has(key) === true
  }

  /**
   * What a commit writes: at most {@link COMMIT_RECORDS} records; where {@link isChanged} stays true there is more, and
   * the released places come with the last of it. One set at a time, until {@link committed} or {@link failed}.
   */
  takeChanges(): ChangeSet {
    assert(!this.#taken, 'one commit at a time')
    const taken = new Map<number, ChangedEntry>()
    const records: MapRecord[] = []
    for (const [chunk, changed] of this.#pending) {
      if (records.length === COMMIT_RECORDS) break
      this.#pending.delete(chunk)
      const record = this.entry(chunk)
      if (isSameEntry(record, changed.before)) continue
      taken.set(chunk, changed)
      records.push(record)
    }
    const released = this.#pending.size === 0 ? this.#released : new Map<number, Place>()
    if (this.#pending.size === 0) this.#released = new Map()
    const set = { records, released: [...released.values()] }
    this.#taken = { set, released, changed: taken }
    return set
  }

  /**
   * The journal has `set` durably, up to block `sequence`. Its pages are due for a checkpoint. Returns the places that
   * are free now.
   */
  committed(set: ChangeSet, sequence: number): readonly Place[] {
    this.#settle(set)
    assert(sequence >= this.#sequence, 'commits are in order')
    this.#sequence = sequence
    for (const { chunk } of set.records) this.#dirty.add(pageOf(chunk))
    for (const { component, number } of set.released) this.#ownersOf(component).set(number, FREE)
    return set.released
  }

  /** Nothing of `set` is durable: the next commit takes it, with what has changed meanwhile. */
  failed(set: ChangeSet): void {
    for (const [chunk, { before, freshLow, freshHigh }] of this.#settle(set).changed) {
      const since = this.#pending.get(chunk)
      this.#pending.set(chunk, {
        before,
        freshLow: freshLow | (since?.freshLow ?? 0),
        freshHigh: freshHigh | (since?.freshHigh ?? 0),
      })
    }
    for (const place of set.released) this.#free(place)
  }

  /**
   * Components have failed the flush for `set`: what is to be committed in its place. Of chunks in it that are on them,
   * granules are invalid again that have become valid since the durable entry, in the set and now. The place stays:
   * who still writes there must not meet another one, and while the component is away all of the chunk fails, instead of
   * zeroes that nobody has written. What is not in the set is withdrawn from the next one.
   */
  withdraw(set: ChangeSet, components: ReadonlySet<number>): ChangeSet {
    const { changed, released } = this.#settle(set)
    const records = set.records.flatMap((record) => {
      const { chunk, component } = record
      if (!components.has(component)) return [record]
      const fresh = defined(changed.get(chunk), `what has changed of chunk ${chunk}`)
      // What was lost before, and has been written since, is lost again.
      const lost = record.lost || fresh.before.lost
      const left = { ...record, ...without(record, fresh), lost }
      const since = this.#pending.get(chunk)
      if (since) since.before = left
      const live = this.entry(chunk)
      if (components.has(live.component)) {
        const rest = without(live, fresh)
        const valid = since ? without({ ...live, ...rest }, since) : rest
        this.setEntry(chunk, { ...live, ...valid, lost: lost || live.lost })
      }
      return isSameEntry(left, fresh.before) ? [] : [left]
    })
    const left = { records, released: set.released }
    this.#taken = { set: left, released, changed }
    return left
  }

  /** Are there pages that are older on disk than the journal? */
  get isDirty(): boolean {
    return this.#dirty.size > 0
  }

  /** Pages to be written, in order: once they are durable, nothing up to {@link sequence} is needed of the journal. */
  takeDirty(): readonly number[] {
    const pages = [...this.#dirty].sort((a, b) => a - b)
    this.#dirty = new Set()
    return pages
  }

  /** All pages are to be written: there is a new copy. */
  dirtyAll(): void {
    for (const page of Array(this.pages).keys()) this.#dirty.add(page)
  }

  /** The durable entries of a page as of {@link sequence}, into a block of 4 KiB; its header is left to the caller. */
  pageImage(page: number, into: Buffer): void {
    this.copyPage(page, into)
    if (this.#pending.size === 0 && !this.#taken && this.#bad.size === 0) return
    for (let index = 0; index < PAGE_ENTRIES; index++) {
      const chunk = page * PAGE_ENTRIES + index
      const changed = this.#taken?.changed.get(chunk) ?? this.#pending.get(chunk)
      if (changed) writeEntry(into, index, changed.before)
      this.#bad.bytesOf(chunk)?.copy(into, entryAt(index))
    }
  }

  /** For {@link MapStore}, after all pages: a record that may not be in its page yet. */
  loadRecord(record: MapRecord): void {
    assert(record.chunk < this.chunks, `chunk ${record.chunk} is one of ${this.chunks}`)
    this.setEntry(record.chunk, record)
    this.#dirty.add(pageOf(record.chunk))
  }

  /**
   * All pages and records are there, up to block `sequence` of the journal. Fills the reverse map and puts
   * chunks whose entries cannot be right out of service. Only now: pages of different age may name one place twice.
   */
  async loaded(sequence: number): Promise<void> {
    this.#sequence = sequence
    this.lost = 0
    await inTurns(this.usedPages(), (page) => {
      const end = Math.min((page + 1) * PAGE_ENTRIES, this.chunks)
      for (let chunk = page * PAGE_ENTRIES; chunk < end; chunk++) {
        this.lost += Number(this.isLost(chunk))
        this.#loadOwner(chunk)
      }
    })
    for (const chunk of this.#bad.chunks) this.setEntry(chunk, OUT_OF_SERVICE)
  }

  #loadOwner(chunk: number): void {
    if (!this.isWellFormed(chunk)) {
      this.#fault(chunk, 'its entry has a form that this version does not write')
    }
    const component = this.componentOf(chunk)
    if (component === 0) return
    const number = this.numberOf(chunk)
    const owners = this.#owners[component]
    const owner = owners && number < owners.chunks ? owners.get(number) : undefined
    if (owner === FREE) {
      owners?.set(number, chunk)
      return
    }
    // Of two chunks with one place neither is believed.
    if (owner !== undefined && owner !== MAP) {
      this.#fault(owner, `chunk ${chunk} has place ${number} of component ${component} too`)
    }
    this.#fault(chunk, placeFault(this.entry(chunk), owners))
  }

  #fault(chunk: number, reason: string): void {
    this.#bad.add(this.entry(chunk), this.entryBytes(chunk), reason)
  }

  #ownersOf(component: number): Owners {
    return defined(this.#owners[component], `component ${component}`)
  }

  /** Before a change. */
  #remember(chunk: number): ChangedEntry {
    assert(chunk >= 0 && chunk < this.chunks, `chunk ${chunk} is one of ${this.chunks}`)
    assert(!this.#bad.has(chunk), `chunk ${chunk} is in service`)
    const there = this.#pending.get(chunk)
    if (there) return there
    const changed = { before: this.entry(chunk), freshLow: 0, freshHigh: 0 }
    this.#pending.set(chunk, changed)
    return changed
  }

  #take(place: Place, owner: number): void {
    assert(this.ownerOf(place) === FREE, `${place.number} of ${place.component} is free`)
    this.#ownersOf(place.component).set(place.number, owner)
  }

  /** The place of a chunk goes out of use with the next commit. */
  #vacate(chunk: number): void {
    const changed = this.#remember(chunk)
    // Where it moves, the new place was flushed before.
    changed.freshLow = 0
    changed.freshHigh = 0
    assert(this.componentOf(chunk) !== 0, `chunk ${chunk} is allocated`)
    this.#free({ component: this.componentOf(chunk), number: this.numberOf(chunk) })
  }

  /** With the next commit; the place has its last owner until then. */
  #free({ component, number }: Place): void {
    this.#released.set(keyOf({ component, number }), { component, number })
  }

  #settle(set: ChangeSet): Taken {
    const taken = defined(this.#taken, 'a commit under way')
    assert(taken.set === set, 'the set is the one that was taken')
    this.#taken = undefined
    return taken
  }
}

const OUT_OF_SERVICE: Entry = {
  component: BAD_COMPONENT,
  number: 0,
  validLow: 0xffffffff,
  validHigh: 0xffffffff,
  lost: false,
}
