/**
 * A start reads the chunk map from its carriers and makes these equal. Nothing is written, and no carrier leaves the
 * configuration, before all pages and the journal are there: what cannot be read now may be the only one that has it.
 * Then, each step durable before the next:
 * 1. carriers that could not be read are out of the configuration;
 * 2. each carrier has every block of the journal that is needed, and none that is newer: a group that a power cut has
 *    torn would else seem to be newer than what is appended now;
 * 3. each slot has its page again.
 * Cut off anywhere, the next start finds the same map.
 */
import { defined } from '../../../base/assert.ts'
import { operatingError, type PlexusError } from '../../../base/errors.ts'
import { VIRSTOR_MAP_IO_BYTES } from '../../../base/limits.ts'
import { nextTurn } from '../../../base/turns.ts'
import { allocateAligned } from '../../../hal/aligned-pool.ts'
import type { AlignedBuffer } from '../../../hal/block-device.ts'
import {
  blocksIn,
  type Copy,
  type Failure,
  PIECE_PAGES,
  readBlocks,
  writePages,
} from './carrier.ts'
import type { MapTable } from './chunk-map.ts'
import {
  blockFor,
  corrupt,
  decodeBlock,
  type JournalBlock,
  recordsOf,
  replayable,
} from './journal.ts'
import type { Slot } from './layout.ts'
import { decodePage } from './page.ts'

export interface LoadContext {
  readonly subject: string
  readonly table: MapTable
  readonly copies: readonly Copy[]
  /** Goes on where the newest changes may be lost: by an operator's word. */
  readonly mayLose: boolean
  /** Takes a carrier out of the configuration; rejects when it is the last one. */
  readonly fail: (failure: Failure) => Promise<void>
  /** Work on all carriers that are left. */
  readonly onAll: (work: (copy: Copy) => Promise<void>) => Promise<void>
}

/** What one carrier has. */
class Reading {
  readonly copy: Copy
  /** Sequence of the block at each place of the ring; 0: none. */
  readonly ring: Float64Array
  /** Places of the ring that could not be read: there may be a block, which may be newer than all that count. */
  readonly unread = new Set<number>()
  /** Pages that are not whole, by slot. */
  readonly damaged: readonly [number[], number[]] = [[], []]
  readonly slots: readonly [AlignedBuffer, AlignedBuffer]
  error: PlexusError | undefined

  constructor(copy: Copy) {
    this.copy = copy
    this.ring = new Float64Array(copy.carrier.journalBlocks)
    this.slots = [copy.pages, allocateAligned(VIRSTOR_MAP_IO_BYTES)]
  }

  /** Reads, unless it has failed before. */
  async attempt(work: () => Promise<unknown>): Promise<void> {
    if (this.error) return
    try {
      await work()
    } catch (error) {
      this.error = operatingError(error)
    }
  }
}

/**
 * Reads all into the table, which is empty. Resolves with the newest block of the journal and the oldest that it names, and
 * whether newer ones may be lost.
 */
export async function loadMap(
  context: LoadContext,
): Promise<{ newest: number; oldest: number; mayLack: boolean }> {
  const { subject, table } = context
  const readings = context.copies.map((copy) => new Reading(copy))
  const found = new Map<number, JournalBlock>()
  await onEach(readings, (reading) => readRing(reading, found))
  const blocks = replayable(found, subject)
  const newest = blocks.at(-1)?.sequence ?? 0
  const mayLack = mayHideNewer(readings, found, newest)
  if (mayLack && !context.mayLose) throw unreadError(subject, newest + 1)
  for (let first = 0; first < table.pages; first += PIECE_PAGES) {
    const count = Math.min(PIECE_PAGES, table.pages - first)
    await readPiece(context, readings, first, count, newest)
    await nextTurn()
  }
  for (const block of blocks) loadRecords(context, block)
  await table.loaded(newest)
  for (const { copy, error } of readings) if (error) await context.fail({ copy, error })
  const readingOf = (copy: Copy) =>
    defined(
      readings.find((reading) => reading.copy === copy),
      'the reading of a carrier',
    )
  await context.onAll((copy) => levelRing(readingOf(copy), blocks, newest))
  await context.onAll((copy) => mendPages(readingOf(copy), table))
  return { newest, oldest: blocks[0]?.sequence ?? 0, mayLack }
}

/**
 * May a whole group that is newer than all that count lie where no copy can be read? Not where a copy can be read and has
 * something else: then the group was torn, and nobody was told that it is durable.
 */
function mayHideNewer(
  readings: readonly Reading[],
  found: ReadonlyMap<number, JournalBlock>,
  newest: number,
): boolean {
  const isUnread = (sequence: number): boolean =>
    readings.every(({ error, unread, ring }) => error || unread.has(sequence % ring.length))
  const seen = [...found.values()].find(({ sequence }) => sequence > newest)
  const end = seen?.groupLast ?? newest + 1
  let lacks = false
  for (let sequence = newest + 1; sequence <= end; sequence++) {
    if (found.has(sequence)) continue
    if (!isUnread(sequence)) return false
    lacks = true
  }
  return lacks
}

function unreadError(subject: string, sequence: number): PlexusError {
  return corrupt(
    subject,
    `block ${sequence} of the journal of its map, which may be the newest, cannot be read on any disk; plexus virstor ` +
      `assemble ${subject} tries again; with --force it goes on without, and what was written or discarded last may be lost`,
  )
}

async function onEach(
  readings: readonly Reading[],
  work: (reading: Reading) => Promise<unknown>,
): Promise<void> {
  await Promise.all(readings.map((reading) => reading.attempt(() => work(reading))))
  const [first] = readings
  if (first?.error && readings.every(({ error }) => error)) throw first.error
}

async function readRing(
  { copy, ring, unread, slots: [buffer] }: Reading,
  found: Map<number, JournalBlock>,
): Promise<void> {
  const { carrier, origin } = copy
  for (let first = 0; first < ring.length; first += PIECE_PAGES) {
    const count = Math.min(PIECE_PAGES, ring.length - first)
    const read = (at: number, into: AlignedBuffer) => carrier.readJournal(at, into)
    await readBlocks(read, first, blocksIn(buffer, 0, count), (place) => unread.add(place))
    for (let index = 0; index < count; index++) {
      const block = decodeBlock(blocksIn(buffer, index, 1).bytes, origin)
      if (!block || block.sequence % ring.length !== first + index) continue
      ring[first + index] = block.sequence
      if (found.has(block.sequence)) continue
      found.set(block.sequence, { ...block, bytes: Buffer.from(block.bytes) })
    }
    await nextTurn()
  }
}

/** The newest of all slots that are whole; with the journal, each of them would do (map-store.ts). */
async function readPiece(
  { subject, table }: LoadContext,
  readings: readonly Reading[],
  first: number,
  count: number,
  newest: number,
): Promise<void> {
  await onEach(readings, ({ copy, slots }) =>
    Promise.all(
      slots.map((buffer, slot) => {
        const read = (at: number, into: AlignedBuffer) =>
          copy.carrier.readPages(slot as Slot, at, into)
        return readBlocks(read, first, blocksIn(buffer, 0, count))
      }),
    ),
  )
  for (let index = 0; index < count; index++) {
    const page = first + index
    let best: Buffer | undefined
    let sequence = -1
    for (const { copy, slots, damaged, error } of readings) {
      if (error) continue
      for (const slot of [0, 1] as const) {
        const { bytes } = blocksIn(slots[slot], index, 1)
        const its = decodePage(bytes, copy.origin, page)
        if (its === undefined) damaged[slot].push(page)
        else if (its > sequence) {
          best = bytes
          sequence = its
        }
      }
    }
    if (!best)
      throw corrupt(subject, `page ${page} of its map is damaged on every disk that has it`)
    if (sequence > newest) {
      const what = `the journal of its map ends with block ${newest}, and page ${page} is of block ${sequence}`
      throw corrupt(subject, what)
    }
    table.loadPage(page, best)
  }
}

function loadRecords({ subject, table }: LoadContext, block: JournalBlock): void {
  for (const record of recordsOf(block)) {
    if (record.chunk >= table.chunks) {
      const what = `block ${block.sequence} of the journal of its map names chunk ${record.chunk} of ${table.chunks}`
      throw corrupt(subject, what)
    }
    table.loadRecord(record)
  }
}

async function levelRing(
  { copy: { carrier, origin, blocks: buffer }, ring, unread }: Reading,
  blocks: readonly JournalBlock[],
  newest: number,
): Promise<void> {
  const into = blocksIn(buffer, 0, 1)
  for (const [place, sequence] of ring.entries()) {
    // What could not be read now may be read next time, and be taken for the newest group then.
    if (sequence <= newest && !unread.has(place)) continue
    into.bytes.fill(0)
    await carrier.writeJournal(place, into)
  }
  for (const block of blocks) {
    const place = block.sequence % ring.length
    if (ring[place] === block.sequence) continue
    blockFor(block, origin).copy(into.bytes)
    await carrier.writeJournal(place, into)
  }
}

async function mendPages({ copy, damaged }: Reading, table: MapTable): Promise<void> {
  if (damaged[0].length + damaged[1].length === 0) return
  for (const slot of [0, 1] as const) {
    for (const first of damaged[slot]) await writePages(copy, table, slot, { first, count: 1 })
  }
  await copy.carrier.flush()
}
