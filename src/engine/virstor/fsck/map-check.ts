/**
 * The map on its carriers against the map in memory, piece by piece while the device serves. A start takes any whole slot of
 * a page, applies the journal from the oldest block that is needed, and has the page (map/map-store.ts): so must this, on each
 * carrier and from each slot.
 */
import { defined } from '../../../base/assert.ts'
import { operatingError } from '../../../base/errors.ts'
import { nextTurn } from '../../../base/turns.ts'
import { allocateAligned } from '../../../hal/aligned-pool.ts'
import type { AlignedBuffer } from '../../../hal/block-device.ts'
import { SEALED_BYTES, SEALED_HEADER_BYTES } from '../../metadata/sealed-block.ts'
import { blocksIn, type Copy, PIECE_PAGES, readBlocks, writePages } from '../map/carrier.ts'
import type { MapTable } from '../map/chunk-map.ts'
import { decodeBlock, recordsOf } from '../map/journal.ts'
import type { Slot } from '../map/layout.ts'
import type { MapAtRest, MapStore } from '../map/map-store.ts'
import { decodePage, MAP_PAGE_BYTES, PAGE_ENTRIES, writeEntry } from '../map/page.ts'
import type { MapRecord } from '../runtime.ts'
import type { Findings } from './findings.ts'

/** A slot of a page that is not what it should be. */
interface BadSlot {
  readonly copy: Copy
  readonly slot: Slot
  readonly page: number
  /** It is whole, and says something else than memory. */
  readonly isOther: boolean
}

const SLOT_NAMES = ['A', 'B'] as const

export class MapCheck {
  readonly #store: MapStore
  readonly #findings: Findings
  readonly #repairs: boolean
  readonly #nameOf: (component: number) => string
  readonly #buffer = allocateAligned(PIECE_PAGES * SEALED_BYTES)
  /** Records of the blocks that are needed, by sequence. */
  readonly #records = new Map<number, readonly MapRecord[]>()
  /** All blocks up to here have been looked at. */
  #readTo = 0
  /** Blocks that are damaged on a carrier, and those that are so on all. */
  #badBlocks = 0
  #lostBlocks = 0
  /** Carriers that do not answer: told once. */
  readonly #silent = new Set<number>()
  pages = 0
  blocks = 0

  constructor(
    store: MapStore,
    findings: Findings,
    { repairs, nameOf }: { readonly repairs: boolean; nameOf(component: number): string },
  ) {
    this.#store = store
    this.#findings = findings
    this.#repairs = repairs
    this.#nameOf = nameOf
  }

  get #table(): MapTable {
    return this.#store.table
  }

  async run(): Promise<void> {
    for (let isMore = true; isMore; ) {
      isMore = await this.#store.atRest((rest) => this.#readJournal(rest, PIECE_PAGES))
      await nextTurn()
    }
    if (this.#repairs && this.#badBlocks > 0) await this.#emptyJournal()
    // A device that grows meanwhile has more of them.
    for (let first = 0; first < this.#table.pages; first += PIECE_PAGES) {
      await this.#store.atRest((rest) => this.#checkPiece(rest, first))
      await nextTurn()
    }
  }

  /** What it says in its blocks is in memory: none of them is needed. */
  async #emptyJournal(): Promise<void> {
    try {
      await this.#store.emptyJournal()
      this.#findings.markRepaired((one) => one.area === 'journal')
      this.#lostBlocks = 0
    } catch (error) {
      this.#findings.failed(operatingError(error))
    }
  }

  /** Looks at blocks that are new, `most` of them. True: there are more. */
  async #readJournal({ copies, oldest, newest }: MapAtRest, most: number): Promise<boolean> {
    for (const sequence of this.#records.keys()) {
      if (sequence < oldest) this.#records.delete(sequence)
    }
    const from = Math.max(oldest, this.#readTo + 1)
    const to = Math.min(newest, from + most - 1)
    this.#readTo = to
    this.blocks += Math.max(0, to - from + 1)
    /** As the first carrier has it that has it. */
    const known = new Map<number, Buffer>()
    for (const copy of copies) {
      await this.#attempt(copy, () => this.#readBlocks(copy, from, to, known))
    }
    for (let sequence = from; sequence <= to; sequence++) {
      if (known.has(sequence)) continue
      this.#lostBlocks++
    }
    return to < newest
  }

  async #readBlocks(copy: Copy, from: number, to: number, known: Map<number, Buffer>) {
    const { carrier, origin } = copy
    for (let at = from; at <= to; ) {
      const place = at % carrier.journalBlocks
      const count = Math.min(to - at + 1, carrier.journalBlocks - place, PIECE_PAGES)
      const part = blocksIn(this.#buffer, 0, count)
      await readBlocks((first, into) => carrier.readJournal(first, into), place, part)
      for (let index = 0; index < count; index++) {
        const { bytes } = blocksIn(part, index, 1)
        const block = decodeBlock(bytes, origin)
        const sequence = at + index
        if (!this.#isCarrier(copy)) return
        if (block?.sequence !== sequence) this.#tellBlock(copy, sequence, 'is damaged')
        else {
          const content = Buffer.from(bytes.subarray(36))
          const other = known.get(sequence)
          if (!other) {
            known.set(sequence, content)
            this.#records.set(sequence, recordsOf(block))
          } else if (!other.equals(content))
            this.#tellBlock(copy, sequence, 'is not as on another one')
        }
      }
      at += count
    }
  }

  #tellBlock({ carrier }: Copy, sequence: number, what: string): void {
    this.#badBlocks++
    this.#findings.add({
      area: 'journal',
      severity: 'warning',
      object: this.#nameOf(carrier.id),
      message: `block ${sequence} of the journal of the map ${what}`,
      repair: 'the map is written whole, so that the block is not needed any more',
    })
  }

  async #checkPiece(rest: MapAtRest, first: number): Promise<void> {
    const table = this.#table
    const count = Math.min(PIECE_PAGES, table.pages - first)
    await this.#readJournal(rest, Number.POSITIVE_INFINITY)
    const changed = this.#changesOf(first, count)
    const bad: BadSlot[] = []
    /** Pages of which a slot has what memory has. */
    const good = new Set<number>()
    for (const copy of rest.copies) {
      for (const slot of [0, 1] as const) {
        const part = blocksIn(this.#buffer, 0, count)
        await this.#attempt(copy, async () => {
          const read = (at: number, into: AlignedBuffer) => copy.carrier.readPages(slot, at, into)
          await readBlocks(read, first, part)
          for (let index = 0; index < count; index++) {
            const page = first + index
            const { bytes } = blocksIn(part, index, 1)
            if (!this.#isCarrier(copy)) return
            const state = this.#compare(copy, page, bytes, changed.get(page) ?? [], rest.newest)
            if (state === 'same') good.add(page)
            else bad.push({ copy, slot, page, isOther: state === 'other' })
          }
        })
      }
    }
    this.pages += count
    const isDoubtful = (page: number): boolean =>
      !good.has(page) && bad.some((one) => one.page === page && one.isOther)
    const mended: BadSlot[] = []
    for (const one of bad.filter(({ copy }) => this.#isCarrier(copy))) {
      const hasRepair = !isDoubtful(one.page)
      this.#tellSlot(one, hasRepair)
      if (hasRepair) mended.push(one)
    }
    if (this.#repairs && mended.length > 0) await this.#mend(mended)
  }

  /** Newest records in the journal of the chunks of these pages, by page. */
  #changesOf(first: number, count: number): ReadonlyMap<number, readonly MapRecord[]> {
    const changes = new Map<number, MapRecord[]>()
    for (const sequence of [...this.#records.keys()].sort((a, b) => a - b)) {
      for (const record of defined(this.#records.get(sequence), 'records of a block')) {
        const page = Math.floor(record.chunk / PAGE_ENTRIES)
        if (page < first || page >= first + count) continue
        const list = changes.get(page) ?? []
        list.push(record)
        changes.set(page, list)
      }
    }
    return changes
  }

  /** Is a slot, with the journal, what memory says is durable? */
  #compare(
    copy: Copy,
    page: number,
    bytes: Buffer,
    changes: readonly MapRecord[],
    newest: number,
  ): 'same' | 'damaged' | 'other' {
    const sequence = decodePage(bytes, copy.origin, page)
    if (sequence === undefined) return 'damaged'
    if (sequence > newest) return 'other'
    // What a lost block of the journal says cannot be told from what is wrong.
    if (this.#lostBlocks > 0) return 'same'
    for (const record of changes) writeEntry(bytes, record.chunk % PAGE_ENTRIES, record)
    const image = Buffer.alloc(MAP_PAGE_BYTES)
    this.#table.pageImage(page, image)
    return bytes.compare(image, SEALED_HEADER_BYTES, undefined, SEALED_HEADER_BYTES) === 0
      ? 'same'
      : 'other'
  }

  #tellSlot({ copy, slot, page, isOther }: BadSlot, hasRepair: boolean): void {
    const what = isOther ? 'says something else than the map in memory' : 'is damaged'
    this.#findings.add({
      area: `page ${page}`,
      severity: hasRepair ? 'warning' : 'critical',
      object: this.#nameOf(copy.carrier.id),
      message: `slot ${SLOT_NAMES[slot]} of page ${page} of the map ${what}`,
      ...(hasRepair
        ? { repair: 'it is written again from the map in memory' }
        : {
            action:
              'no slot of this page has what is served now: copy the data elsewhere before the device is stopped',
          }),
    })
  }

  /** At rest: nothing else is written. Slot A is durable before slot B is touched. */
  async #mend(slots: readonly BadSlot[]): Promise<void> {
    for (const copy of new Set(slots.map((one) => one.copy))) {
      for (const slot of [0, 1] as const) {
        const own = slots.filter((one) => one.copy === copy && one.slot === slot)
        if (own.length === 0) continue
        try {
          for (const { page } of own) {
            await writePages(copy, this.#table, slot, { first: page, count: 1 })
          }
          await copy.carrier.flush()
          const name = this.#nameOf(copy.carrier.id)
          const prefix = `slot ${SLOT_NAMES[slot]} of`
          const areas = new Set(own.map(({ page }) => `page ${page}`))
          this.#findings.markRepaired(
            ({ area, object, message }) =>
              areas.has(area) && object === name && message.startsWith(prefix),
          )
        } catch (error) {
          this.#findings.failed(operatingError(error))
        }
      }
    }
  }

  /** It may leave while it is read: then its content means nothing. */
  #isCarrier({ carrier }: Copy): boolean {
    return this.#store.carriers.includes(carrier.id)
  }

  /** A carrier that does not answer is told once; the others are looked at. */
  async #attempt(copy: Copy, work: () => Promise<unknown>): Promise<void> {
    const { id } = copy.carrier
    if (this.#silent.has(id)) return
    try {
      await work()
    } catch (error) {
      const { message } = operatingError(error)
      if (!this.#isCarrier(copy)) return
      this.#silent.add(id)
      this.#findings.add({
        area: 'carrier',
        severity: 'warning',
        object: this.#nameOf(id),
        message: `its copy of the map cannot be read: ${message}`,
        action: 'connect it, or look at the disk',
      })
    }
  }
}
