/**
 * What carries a copy of the chunk map, and how the map's store (map-store.ts, map-load.ts) writes to it: in pages of
 * two slots and in blocks of a ring. Where these lie on the component is the carrier's own business (layout.ts).
 */
import { assert } from '../../../base/assert.ts'
import { operatingError, type PlexusError } from '../../../base/errors.ts'
import { VIRSTOR_COMMIT_BLOCKS, VIRSTOR_MAP_IO_BYTES } from '../../../base/limits.ts'
import { allocateAligned } from '../../../hal/aligned-pool.ts'
import type { AlignedBuffer } from '../../../hal/block-device.ts'
import { type Origin, SEALED_BYTES } from '../../metadata/sealed-block.ts'
import type { MapRecord } from '../runtime.ts'
import type { MapTable } from './chunk-map.ts'
import { blocksFor, encodeBlocks, JOURNAL_BLOCK_BYTES } from './journal.ts'
import type { Slot } from './layout.ts'
import { MAP_PAGE_BYTES, sealPage } from './page.ts'

/** A copy of the map on a component. All reject with PlexusError. */
export interface Carrier {
  /** Of the component. */
  readonly id: number
  /** From the configuration: of this copy. */
  readonly epoch: number
  /** Blocks of 4 KiB in its ring: the same for as long as the copy has its epoch. */
  readonly journalBlocks: number
  /** Fills `into` with pages from `first` on. */
  readPages(slot: Slot, first: number, into: AlignedBuffer): Promise<void>
  writePages(slot: Slot, first: number, from: AlignedBuffer): Promise<void>
  /** Fills `into` with blocks of the ring from `first` on. */
  readJournal(first: number, into: AlignedBuffer): Promise<void>
  /** Durable when it resolves. */
  writeJournal(first: number, from: AlignedBuffer): Promise<void>
  /** Pages written so far are durable. */
  flush(): Promise<void>
}

/** A carrier with buffers of its own: a commit must not wait for the pool, which writes that wait for it may hold. */
export class Copy {
  /** Another one of the same copy where it has become longer. */
  carrier: Carrier
  readonly origin: Origin
  /** Lent to one group of the journal at a time, and to one step of a checkpoint. */
  readonly blocks: AlignedBuffer = allocateAligned(VIRSTOR_COMMIT_BLOCKS * JOURNAL_BLOCK_BYTES)
  readonly pages: AlignedBuffer = allocateAligned(VIRSTOR_MAP_IO_BYTES)

  constructor(carrier: Carrier, uuid: Buffer) {
    assert(carrier.journalBlocks >= VIRSTOR_COMMIT_BLOCKS + 2, 'a ring has room for a commit')
    this.carrier = carrier
    this.origin = { uuid, epoch: carrier.epoch }
  }
}

/** A carrier that has failed. */
export interface Failure {
  readonly copy: Copy
  readonly error: PlexusError
}

/** Pages of one request. */
export const PIECE_PAGES = VIRSTOR_MAP_IO_BYTES / MAP_PAGE_BYTES

/** Pages one after the other: {@link PIECE_PAGES} at most. */
export interface Piece {
  readonly first: number
  readonly count: number
}

/** Writes pages as they are durable now. */
export async function writePages(
  copy: Copy,
  table: MapTable,
  slot: Slot,
  { first, count }: Piece,
): Promise<void> {
  const part = blocksIn(copy.pages, 0, count)
  for (let index = 0; index < count; index++) {
    const { bytes } = blocksIn(part, index, 1)
    table.pageImage(first + index, bytes)
    sealPage(bytes, copy.origin, first + index, table.sequence)
  }
  await copy.carrier.writePages(slot, first, part)
}

/** Writes a group to its places in the ring; at its end it goes on at the start. */
export async function writeGroup(
  { carrier, origin, blocks }: Copy,
  records: readonly MapRecord[],
  group: { readonly first: number; readonly oldest: number },
): Promise<void> {
  const count = blocksFor(records.length)
  encodeBlocks(blocks.bytes, records, origin, group)
  const place = group.first % carrier.journalBlocks
  const before = Math.min(count, carrier.journalBlocks - place)
  await carrier.writeJournal(place, blocksIn(blocks, 0, before))
  if (before < count) await carrier.writeJournal(0, blocksIn(blocks, before, count - before))
}

/**
 * What cannot be read is zeroes, which is no block; `onUnread` hears where. Rejects when the disk does not answer.
 */
export async function readBlocks(
  read: (first: number, into: AlignedBuffer) => Promise<void>,
  first: number,
  into: AlignedBuffer,
  onUnread: (at: number) => void = () => {},
): Promise<void> {
  const count = into.bytes.length / blocksIn(into, 0, 1).bytes.length
  try {
    await read(first, into)
  } catch (error) {
    const { kind } = operatingError(error)
    if (kind === 'gone' || kind === 'timeout') throw error
    if (count > 1) {
      for (let at = 0; at < count; at++) {
        await readBlocks(read, first + at, blocksIn(into, at, 1), onUnread)
      }
      return
    }
    into.bytes.fill(0)
    onUnread(first)
  }
}

/** Pages or blocks of those in a buffer. */
export function blocksIn(
  { bytes, address }: AlignedBuffer,
  first: number,
  count: number,
): AlignedBuffer {
  const offset = first * SEALED_BYTES
  return { bytes: bytes.subarray(offset, offset + count * SEALED_BYTES), address: address + offset }
}
