/**
 * The chunk map on disk: pages and a journal on one or two carriers (docs/adr/0015-virstor.md). Loads it into a
 * {@link MapTable}, appends what commits hand out, and writes pages so that the journal can go round.
 *
 * What is durable before what, and why:
 * 1. A group of blocks goes to every carrier with force unit access, one group at a time: so nothing but the newest
 *    group can be torn. {@link MapStore.append} resolves when all carriers of the configuration have it: one that fails
 *    is out of the configuration first, durably, or a start could believe it.
 * 2. A checkpoint notes the last committed sequence S, writes slot A of each page that changed up to S, flush, then slot
 *    B, flush, and only then a block that names S + 1 as the oldest. So at any time **every slot that is whole, together with the
 *    journal from the oldest, gives the page**: a power cut tears A while B and the journal have all of it, or B while A has.
 *    A slot that rots is replaced by the other one, whichever it is. If B kept its older state instead, it would have to
 *    be told apart from one that was torn.
 * 3. A block overwrites those that are not needed by what a durable block names as the oldest. One block of the ring is
 *    kept for that of the checkpoint, so that a full ring can always be emptied.
 * 4. A start makes the carriers equal before anything is appended (map-load.ts): what a power cut has torn off does not
 *    come back beside newer blocks, and each carrier can do without the other.
 */
import { assert } from '../../../base/assert.ts'
import { operatingError, PlexusError } from '../../../base/errors.ts'
import { VIRSTOR_COMMIT_BLOCKS, VIRSTOR_MAP_IO_BYTES } from '../../../base/limits.ts'
import { nextTurn } from '../../../base/turns.ts'
import { allocateAligned } from '../../../hal/aligned-pool.ts'
import type { ChangeSet, MapRecord } from '../runtime.ts'
import {
  blocksIn,
  type Carrier,
  Copy,
  type Failure,
  PIECE_PAGES,
  type Piece,
  writeGroup,
  writePages,
} from './carrier.ts'
import type { MapTable } from './chunk-map.ts'
import { blocksFor } from './journal.ts'
import { loadMap } from './map-load.ts'
import { pagesFor, sealPage } from './page.ts'

export interface MapStoreOptions {
  /** The device, for messages. */
  readonly subject: string
  /** UUID of the device: 16 bytes. */
  readonly uuid: Buffer
  /** With its components and the places of the map; empty otherwise. */
  readonly table: MapTable
  /** Those of the configuration: at least one. */
  readonly carriers: readonly Carrier[]
  /**
   * Takes a carrier out of the configuration: durable when it resolves. Never called for the last one. When it rejects,
   * nothing can be committed any more.
   */
  readonly onCarrierFailed: (id: number, error: PlexusError) => Promise<void>
  /** Nothing can be committed any more: the map has to be loaded anew. Called once. */
  readonly onBroken: (error: PlexusError) => void
}

/** The map on its carriers while nothing is written to them. */
export interface MapAtRest {
  readonly copies: readonly Copy[]
  /** Blocks of the journal that a start would need. */
  readonly oldest: number
  readonly newest: number
}

export class MapStore {
  readonly subject: string
  readonly table: MapTable
  readonly #uuid: Buffer
  readonly #onCarrierFailed: MapStoreOptions['onCarrierFailed']
  readonly #onBroken: MapStoreOptions['onBroken']
  #copies: readonly Copy[]
  /** Written to by all, and not in the configuration yet: its failure is that of {@link join}. */
  #joining: Copy | undefined
  /** Carriers on their way out of the configuration: nothing is acknowledged before that is durable. */
  #leaving: Promise<void> = Promise.resolve()
  /** Why nothing can be committed any more. */
  #broken: PlexusError | undefined
  /** The newest block. */
  #sequence = 0
  /** The newest one with records. */
  #appended = 0
  /** What the newest names as the oldest, and what the next one will name. */
  #named = 1
  #oldest = 1
  /** Blocks of groups that wait for their turn, but for those of checkpoints. */
  #queued = 0
  /** The group before has been written. */
  #turn: Promise<unknown> = Promise.resolve()
  /** Work of {@link atRest} has ended. */
  #rest: Promise<unknown> = Promise.resolve()
  #checkpointing: Promise<void> | undefined

  constructor({ subject, uuid, table, carriers, onCarrierFailed, onBroken }: MapStoreOptions) {
    assert(carriers.length > 0, 'the map has a carrier')
    this.subject = subject
    this.table = table
    this.#uuid = uuid
    this.#onCarrierFailed = onCarrierFailed
    this.#onBroken = onBroken
    this.#copies = carriers.map((carrier) => new Copy(carrier, uuid))
  }

  /** Ids of the carriers that have the map. */
  get carriers(): readonly number[] {
    return this.#copies.map(({ carrier }) => carrier.id)
  }

  /** Blocks of the journal that a start would read. */
  get journalUsed(): number {
    return this.#sequence - this.#named + 1
  }

  /**
   * Writes an empty map, durably: pages, then the first block of the journal, without which there is no map. Rejects when a
   * carrier fails.
   */
  async format(): Promise<void> {
    await Promise.all(this.#copies.map((copy) => this.#clearPages(copy, 0, this.table.pages)))
    this.#sequence = 1
    await Promise.all(this.#copies.map((copy) => writeGroup(copy, [], { first: 1, oldest: 1 })))
  }

  /**
   * Writes the pages that a device of `chunks` has beyond those that it has now, durably. Then the configuration may say
   * so, then the table. `carriers`: the same copies, with room for them.
   */
  async extend(chunks: number, carriers: readonly Carrier[]): Promise<void> {
    for (const copy of this.#copies) {
      const { id, epoch } = copy.carrier
      const longer = carriers.find((one) => one.id === id && one.epoch === epoch)
      if (!longer) {
        const message = `${this.subject}: component ${id}, which has a copy of its map, went meanwhile; try again`
        throw new PlexusError('gone', { op: 'grow', subject: this.subject, message })
      }
      copy.carrier = longer
    }
    await this.#onAll((copy) => this.#clearPages(copy, this.table.pages, pagesFor(chunks)))
  }

  async #clearPages(copy: Copy, from: number, end: number): Promise<void> {
    // Of its own: a checkpoint may be under way.
    const pages = allocateAligned(VIRSTOR_MAP_IO_BYTES)
    for (const slot of [0, 1] as const) {
      for (let first = from; first < end; first += PIECE_PAGES) {
        const count = Math.min(PIECE_PAGES, end - first)
        const buffer = blocksIn(pages, 0, count)
        for (let index = 0; index < count; index++) {
          const { bytes } = blocksIn(buffer, index, 1)
          sealPage(bytes.fill(0), copy.origin, first + index, this.table.sequence)
        }
        await copy.carrier.writePages(slot, first, buffer)
      }
    }
    await copy.carrier.flush()
  }

  /**
   * Reads the map into the table, which is empty, and makes the carriers equal. Rejects with `corrupt` where no carrier has a
   * page, or a block of the journal that is needed, or may be: nothing may be served then. With `mayLose` the last is no
   * reason, and it resolves to whether the newest changes may be lost.
   */
  async load(mayLose = false): Promise<boolean> {
    const { newest, oldest, mayLack } = await loadMap({
      subject: this.subject,
      table: this.table,
      copies: this.#copies,
      mayLose,
      fail: (failure) => this.#fail([failure]),
      onAll: (work) => this.#onAll(work),
    })
    this.#sequence = newest
    this.#appended = newest
    this.#named = oldest
    this.#oldest = oldest
    return mayLack
  }

  /**
   * Makes the records of a set durable; the data behind them is. One at a time. Resolves with the sequence for
   * {@link MapTable.committed}, which the caller calls before it appends again. Waits while the ring is full. Rejects
   * when no carrier is left, or one that failed could not be taken out of the configuration: then for good, and a
   * start may find the records or not.
   */
  async append({ records }: Pick<ChangeSet, 'records'>): Promise<number> {
    const count = blocksFor(records.length)
    assert(count <= VIRSTOR_COMMIT_BLOCKS, `a commit of ${records.length} records`)
    assert(this.table.sequence >= this.#appended, 'the commit before is in the table')
    if (records.length === 0) return this.table.sequence
    const last = await this.#writeWithRoom(records)
    // Failures are those of the next append.
    if (this.journalUsed > this.#ring / 2) this.checkpoint().catch(operatingError)
    return last
  }

  /** Blocks that fit on all carriers. */
  get #ring(): number {
    return Math.min(...this.#all.map(({ carrier }) => carrier.journalBlocks))
  }

  get #all(): readonly Copy[] {
    return this.#joining ? [...this.#copies, this.#joining] : this.#copies
  }

  /** As {@link #write}, when there is room for it beside the block that is kept for a checkpoint. */
  async #writeWithRoom(records: readonly MapRecord[]): Promise<number> {
    const count = blocksFor(records.length)
    while (this.journalUsed + this.#queued + count >= this.#ring) {
      await this.#turn
      await this.checkpoint()
    }
    this.#queued += count
    try {
      return await this.#write(records)
    } finally {
      this.#queued -= count
    }
  }

  /** Writes a group behind the one before, and resolves with its last sequence. */
  #write(records: readonly MapRecord[]): Promise<number> {
    const write = async (): Promise<number> => {
      const first = this.#sequence + 1
      const oldest = this.#oldest
      await this.#onAll((copy) => writeGroup(copy, records, { first, oldest }))
      this.#sequence += blocksFor(records.length)
      if (records.length > 0) this.#appended = this.#sequence
      this.#named = oldest
      return this.#sequence
    }
    const turn = this.#turn.then(write)
    this.#turn = turn.catch(() => {})
    return turn
  }

  /**
   * Writes the pages that are older than the journal, so that its blocks so far are not needed any more. In the background
   * whenever half of the ring is used; before a clean stop, so that the next start is short.
   */
  checkpoint(): Promise<void> {
    this.#checkpointing ??= this.#rest
      .then(() => this.#checkpoint())
      .finally(() => {
        this.#checkpointing = undefined
      })
    return this.#checkpointing
  }

  /**
   * Runs `work` while nothing is written to the carriers, and all that is in the journal is in the table: commits wait for
   * it, so it should be short. It gets the carriers, and the blocks of the journal that are needed.
   */
  async atRest<T>(work: (at: MapAtRest) => Promise<T>): Promise<T> {
    while (this.#checkpointing) await this.#checkpointing.catch(operatingError)
    const begin = async (): Promise<T> => {
      // Whoever has written the last group puts it into the table in this turn of the event loop.
      await nextTurn()
      if (this.#broken) throw this.#broken
      return work({ copies: this.#copies, oldest: this.#named, newest: this.#sequence })
    }
    const turn = this.#turn.then(begin)
    this.#turn = turn.catch(() => {})
    this.#rest = this.#turn
    return turn
  }

  /** Nothing of the journal so far is needed any more, whatever is the matter with its blocks. */
  async emptyJournal(): Promise<void> {
    await this.#writeWithRoom([])
    while (this.#checkpointing) await this.#checkpointing
    await this.checkpoint()
  }

  async #checkpoint(): Promise<void> {
    if (!this.table.isDirty && this.journalUsed <= 1) return
    // Blocks of checkpoints have no records: they count as committed with those before them.
    const isAllCommitted = this.table.sequence >= this.#appended
    const sequence = isAllCommitted ? this.#sequence : this.table.sequence
    const pieces = piecesOf(this.table.takeDirty())
    for (const slot of [0, 1] as const) {
      for (const piece of pieces) {
        await this.#onAll((copy) => writePages(copy, this.table, slot, piece))
      }
      await this.#onAll((copy) => copy.carrier.flush())
    }
    this.#oldest = sequence + 1
    if (this.#oldest > this.#named) await this.#write([])
  }

  /**
   * Makes a copy on another carrier, from nothing. When this resolves it has all that the others have, and goes on having it:
   * the configuration may name it. Rejects when it fails, or the others do; then it is out again.
   */
  async join(carrier: Carrier): Promise<void> {
    if (this.#broken) throw this.#broken
    assert(!this.#joining, 'one carrier joins at a time')
    // Two copies on one component would write over each other.
    assert(!this.carriers.includes(carrier.id), `component ${carrier.id} has no copy yet`)
    const copy = new Copy(carrier, this.#uuid)
    this.#joining = copy
    try {
      // It has the journal from this block on; all before it must be in its pages.
      const first = await this.#writeWithRoom([])
      do {
        while (this.#checkpointing) await this.#checkpointing
        this.table.dirtyAll()
        await this.checkpoint()
      } while (this.#joining === copy && this.#named < first)
      if (this.#joining !== copy) throw this.#joinError(carrier.id)
      this.#copies = [...this.#copies, copy]
    } finally {
      this.#joining = undefined
    }
  }

  #joinError(id: number): PlexusError {
    const { subject } = this
    const message = `${subject}: component ${id} did not take a copy of the map; choose another one`
    return new PlexusError('io', { op: 'write', subject, message })
  }

  /**
   * The device ends. Nothing is written from now on, whoever still asks for it, and when this resolves nothing is under way:
   * the next start reads the carriers and goes on where they are, and may give the places of a copy that was being made
   * to somebody else.
   */
  async end(): Promise<void> {
    const { subject } = this
    const message = `${subject} is not served any more; plexus status says why`
    this.#broken ??= new PlexusError('gone', { op: 'write', subject, message })
    await Promise.allSettled([this.#turn, this.#checkpointing])
  }

  /** A carrier that the configuration names no more is not written to any more. */
  leave(id: number): void {
    const left = this.#copies.filter(({ carrier }) => carrier.id !== id)
    if (left.length > 0) this.#copies = left
    else {
      const message = `component ${id} is no carrier any more`
      const cause = new PlexusError('gone', { op: 'write', subject: this.subject, message })
      this.#breakOff('no disk that carries its map can be written', cause)
    }
  }

  /**
   * Work on all carriers at once. Resolves when it is done on those that stay and the others are out of the
   * configuration.
   */
  async #onAll(work: (copy: Copy) => Promise<void>): Promise<void> {
    if (this.#broken) throw this.#broken
    const copies = this.#all
    const results = await Promise.allSettled(copies.map(work))
    const failed = copies.flatMap((copy, index) => {
      const result = results[index]
      return result?.status === 'rejected' ? [{ copy, error: operatingError(result.reason) }] : []
    })
    await this.#fail(failed)
  }

  /** Resolves when all carriers that have failed are out of the configuration; rejects where that cannot be. */
  async #fail(failed: readonly Failure[]): Promise<void> {
    const isAnyLeft = this.#copies.some((copy) => !failed.some((one) => one.copy === copy))
    for (const { copy, error } of failed) {
      if (copy === this.#joining) this.#joining = undefined
      else if (!isAnyLeft) this.#breakOff('no disk that carries its map can be written', error)
      else if (this.#copies.includes(copy)) this.#takeOut(copy, error)
    }
    await this.#leaving
    if (this.#broken) throw this.#broken
  }

  #takeOut(copy: Copy, error: PlexusError): void {
    this.#copies = this.#copies.filter((one) => one !== copy)
    const { id } = copy.carrier
    const before = this.#leaving
    this.#leaving = before.then(async () => {
      try {
        await this.#onCarrierFailed(id, error)
      } catch (cause) {
        const what = `component ${id} could not be taken out as a carrier of its map`
        this.#breakOff(what, operatingError(cause))
      }
    })
  }

  #breakOff(what: string, cause: PlexusError): void {
    if (this.#broken) return
    const message = `${this.subject}: ${what}; mend the disks (${cause.message})`
    this.#broken = new PlexusError('io', { op: 'write', subject: this.subject, message, cause })
    this.#onBroken(this.#broken)
  }
}

/**
 * Pieces of {@link PIECE_PAGES} at most that have all of these pages. What lies between two of them is written again: that is
 * no more than one request, and does no harm.
 */
function piecesOf(pages: readonly number[]): Piece[] {
  const pieces: { first: number; count: number }[] = []
  for (const page of pages) {
    const piece = pieces.at(-1)
    if (piece && page < piece.first + PIECE_PAGES) piece.count = page - piece.first + 1
    else pieces.push({ first: page, count: 1 })
  }
  return pieces
}
