/**
 * The ring of one column: a part of the journal area of its drive that takes the parts of entries, durably, before they are
 * written in place (docs/adr/0016-raid5-log.md). One write is under way at a time; what comes meanwhile shares the next
 * block. A block stays until a checkpoint has passed it.
 */
import { assert } from '../../../base/assert.ts'
import { alignDown, alignUp } from '../../../base/bytes.ts'
import { crc32c } from '../../../base/crc32c.ts'
import { type PlexusError, toPlexusError } from '../../../base/errors.ts'
import { LOG_PART_BYTES_MAX } from '../../../base/limits.ts'
import { allocateAligned } from '../../../hal/aligned-pool.ts'
import type { AlignedBuffer } from '../../../hal/block-device.ts'
import type { Origin } from '../../metadata/sealed-block.ts'
import {
  BLOCK_RECORDS,
  CIRCLE_START_BYTES,
  encodeCheckpoint,
  encodeRecord,
  LOG_BLOCK_BYTES,
  type LogRecord,
  sealHeader,
} from './block.ts'

/** Where a ring lies. Offsets are in it, and whole blocks of 4 KiB. */
export interface RingRegion {
  readonly bytes: number
  /** Durable when it resolves. */
  write(offset: number, from: AlignedBuffer): Promise<void>
  read(offset: number, length: number): Promise<AlignedBuffer>
}

/** A record with its data, which stays untouched until the part is durable. Undefined: zeroes. */
export interface LogPiece extends LogRecord {
  readonly data: AlignedBuffer | undefined
  readonly dataOffset: number
}

/** What an entry writes in this column. Durable together, or not at all. */
interface Part {
  readonly pieces: readonly LogPiece[]
  readonly bytes: number
  readonly done: (error: PlexusError | undefined) => void
}

/** The longest part that a ring of so many bytes takes. */
export function partBytesMax(ringBytes: number): number {
  const blockBytes = alignDown((ringBytes - CIRCLE_START_BYTES) / 4, LOG_BLOCK_BYTES)
  return Math.min(LOG_PART_BYTES_MAX, blockBytes - LOG_BLOCK_BYTES)
}

interface LiveBlock {
  readonly sequence: number
  readonly place: number
  /** Its newest entry. */
  readonly lastEntry: number
}

export class LogRing {
  /** {@link partBytesMax} */
  readonly partBytesMax: number
  readonly #region: RingRegion
  readonly #uuid: Buffer
  /** A block of the longest part that is written, or the next one that will be. */
  #staging: AlignedBuffer | undefined
  #run = 0
  /** The slot of the next checkpoint. */
  #slot = 0
  #sequence: number
  /** Where the next block goes if it finds room there. */
  #place = CIRCLE_START_BYTES
  /** Those that a checkpoint has not passed, oldest first. */
  #live: LiveBlock[] = []
  readonly #waiting: Part[] = []
  #isBusy = false
  readonly #onFull: () => void

  /**
   * `firstSequence`: above all that the ring has in this run. `onFull`: more than half of it is taken; called again and
   * again until a checkpoint has made room.
   */
  constructor(region: RingRegion, uuid: Buffer, firstSequence: number, onFull: () => void) {
    this.partBytesMax = partBytesMax(region.bytes)
    assert(this.partBytesMax > 0, 'a ring has room for four blocks')
    this.#region = region
    this.#uuid = uuid
    this.#onFull = onFull
    this.#sequence = firstSequence
  }

  /** Begins anew, empty, in a run of the log: what it holds counts no more when this resolves. */
  async open(run: number): Promise<void> {
    this.#run = run
    this.#live = []
    // Both: where one of them is damaged, the other one is not of another run.
    await this.#writeCheckpoint(this.#sequence, this.#place)
    await this.#writeCheckpoint(this.#sequence, this.#place)
  }

  /** Is nothing in it that a replay would write? */
  get isEmpty(): boolean {
    return this.#live.length === 0
  }

  /**
   * Takes the part of an entry; `done` when it is durable, never from within. At most {@link partBytesMax} bytes of data
   * and {@link BLOCK_RECORDS} pieces.
   */
  append(pieces: readonly LogPiece[], done: (error: PlexusError | undefined) => void): void {
    let bytes = 0
    for (const piece of pieces) if (piece.data) bytes += piece.length
    assert(pieces.length > 0 && pieces.length <= BLOCK_RECORDS, 'a part fits the header of a block')
    assert(bytes <= this.partBytesMax, 'a part fits a block')
    this.#waiting.push({ pieces, bytes, done })
    if (!this.#isBusy) void this.#write()
  }

  /**
   * Drops the blocks whose entries are all older than `entry`: durable when it resolves. They must be in place, durably.
   */
  async passed(entry: number): Promise<void> {
    const keep = this.#live.findIndex(({ lastEntry }) => lastEntry >= entry)
    const count = keep < 0 ? this.#live.length : keep
    if (count === 0) {
      if (this.#waiting.length > 0) this.#onFull()
      return
    }
    const next = this.#live[count]
    await this.#writeCheckpoint(next?.sequence ?? this.#sequence, next?.place ?? this.#place)
    this.#live.splice(0, count)
    if (!this.#isBusy) void this.#write()
  }

  /** What waits for room gets the error: no checkpoint can be made. */
  fail(error: PlexusError): void {
    for (const { done } of this.#waiting.splice(0)) done(error)
  }

  async #writeCheckpoint(sequence: number, place: number): Promise<void> {
    const block = allocateAligned(LOG_BLOCK_BYTES)
    encodeCheckpoint(block.bytes, { sequence, place }, this.#origin)
    await this.#region.write(this.#slot * LOG_BLOCK_BYTES, block)
    this.#slot = 1 - this.#slot
  }

  get #origin(): Origin {
    return { uuid: this.#uuid, epoch: this.#run }
  }

  /** Block after block, as long as something waits that finds room. */
  async #write(): Promise<void> {
    this.#isBusy = true
    for (;;) {
      const parts = this.#nextParts()
      if (parts.length === 0) break
      const failure = await this.#writeBlock(parts)
      if (this.#used > this.#region.bytes / 2) this.#onFull()
      for (const { done } of parts) done(failure)
    }
    this.#isBusy = false
    if (this.#waiting.length > 0) this.#onFull()
  }

  /** Those of the waiting ones that go into one block, if there is room for it. */
  #nextParts(): Part[] {
    let bytes = 0
    let records = 0
    let count = 0
    for (const part of this.#waiting) {
      if (records + part.pieces.length > BLOCK_RECORDS) break
      if (bytes + part.bytes > this.partBytesMax && count > 0) break
      bytes += part.bytes
      records += part.pieces.length
      count++
    }
    if (count === 0 || this.#roomFor(LOG_BLOCK_BYTES + alignUp(bytes, LOG_BLOCK_BYTES)) < 0)
      return []
    return this.#waiting.splice(0, count)
  }

  /** The place for a block of so many bytes; -1: there is none. */
  #roomFor(bytes: number): number {
    const tail = this.#live[0]?.place
    const end = this.#region.bytes
    if (tail === undefined || this.#place > tail) {
      if (this.#place + bytes <= end) return this.#place
      return CIRCLE_START_BYTES + bytes <= (tail ?? end) ? CIRCLE_START_BYTES : -1
    }
    return this.#place + bytes <= tail ? this.#place : -1
  }

  /** Bytes that cannot be written, with what is skipped at the end of the circle. */
  get #used(): number {
    const tail = this.#live[0]?.place
    if (tail === undefined) return 0
    const used = this.#place - tail
    return used > 0 ? used : used + this.#region.bytes - CIRCLE_START_BYTES
  }

  async #writeBlock(parts: readonly Part[]): Promise<PlexusError | undefined> {
    this.#staging ??= allocateAligned(LOG_BLOCK_BYTES + this.partBytesMax)
    const { bytes, address } = this.#staging
    let at = LOG_BLOCK_BYTES
    let records = 0
    let lastEntry = 0
    for (const { pieces } of parts) {
      for (const piece of pieces) {
        const { data, dataOffset, length } = piece
        let crc = 0
        if (data) {
          data.bytes.copy(bytes, at, dataOffset, dataOffset + length)
          crc = crc32c(bytes.subarray(at, at + length))
          at += length
        }
        encodeRecord(bytes, records++, piece, crc)
        lastEntry = Math.max(lastEntry, piece.entry)
      }
    }
    const end = alignUp(at, LOG_BLOCK_BYTES)
    bytes.fill(0, at, end)
    const place = this.#roomFor(end)
    const sequence = this.#sequence
    const header = bytes.subarray(0, LOG_BLOCK_BYTES)
    sealHeader(header, { records, sequence, bytes: end, place }, this.#origin)
    try {
      await this.#region.write(place, { bytes: bytes.subarray(0, end), address })
    } catch (error) {
      // A disk that does not answer may still read it. The next block has the same place and sequence: the chain has no hole.
      this.#staging = undefined
      return toPlexusError(error, 'write', 'the log')
    }
    this.#sequence++
    this.#live.push({ sequence, place, lastEntry })
    this.#place = place + end
    return undefined
  }
}
