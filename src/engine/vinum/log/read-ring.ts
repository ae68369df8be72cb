/** What a ring of the log shows after a start: the parts of entries that are in it, and whether something was lost. */
import { JOB_STEP_BYTES } from '../../../base/limits.ts'
import type { Origin } from '../../metadata/sealed-block.ts'
import {
  type Checkpoint,
  CIRCLE_START_BYTES,
  decodeBlock,
  decodeCheckpoint,
  type FoundBlock,
  type FoundRecord,
  LOG_BLOCK_BYTES,
} from './block.ts'
import type { RingRegion } from './ring.ts'

/** The part of an entry in one column. */
export interface FoundPart {
  readonly records: readonly FoundRecord[]
  readonly isWhole: boolean
}

export interface RingView {
  readonly parts: ReadonlyMap<number, FoundPart>
  /**
   * Something is missing that no power cut takes: a block in front of others, or all of it. The last block alone may be
   * torn, since it was the only one under way.
   */
  readonly isRotten: boolean
}

export const UNREADABLE_RING: RingView = { parts: new Map(), isRotten: true }

/** Reads a ring. What cannot be read is rotten. */
export async function readRing(region: RingRegion, origin: Origin): Promise<RingView> {
  const ring = Buffer.alloc(region.bytes)
  try {
    for (let at = 0; at < region.bytes; at += JOB_STEP_BYTES) {
      const length = Math.min(JOB_STEP_BYTES, region.bytes - at)
      const { bytes } = await region.read(at, length)
      bytes.copy(ring, at)
    }
  } catch {
    return UNREADABLE_RING
  }
  return viewOf(ring, origin)
}

/** What the bytes of a ring show. */
export function viewOf(ring: Buffer, origin: Origin): RingView {
  const checkpoint = newestCheckpoint(ring, origin)
  if (!checkpoint) return UNREADABLE_RING
  const parts = new Map<number, FoundPart>()
  let { sequence, place } = checkpoint
  let torn = false
  for (;;) {
    // Where it did not fit, at the begin of the circle.
    const block = blockOf(ring, place, sequence, origin)
    const found = block ?? blockOf(ring, CIRCLE_START_BYTES, sequence, origin)
    if (!found) break
    place = (block ? place : CIRCLE_START_BYTES) + found.bytes
    if (torn) return withLater(parts, ring, found.sequence, origin)
    torn = addParts(parts, found)
    sequence++
  }
  const later = laterBlocks(ring, sequence, origin)
  return later.length > 0 ? withLater(parts, ring, sequence, origin) : { parts, isRotten: false }
}

function newestCheckpoint(ring: Buffer, origin: Origin): Checkpoint | undefined {
  const [a, b] = [0, LOG_BLOCK_BYTES].map((at) =>
    decodeCheckpoint(ring.subarray(at, at + LOG_BLOCK_BYTES), origin),
  )
  return a && b ? (a.sequence > b.sequence ? a : b) : (a ?? b)
}

function blockOf(
  ring: Buffer,
  place: number,
  sequence: number,
  origin: Origin,
): FoundBlock | undefined {
  const block = decodeBlock(ring, place, origin)
  return block?.sequence === sequence ? block : undefined
}

/** Adds what a block has. Is a part of it damaged? */
function addParts(parts: Map<number, FoundPart>, { records }: FoundBlock): boolean {
  let damaged = false
  for (const record of records) {
    const before = parts.get(record.entry)
    const isWhole = record.isWhole && (before?.isWhole ?? true)
    if (!isWhole) damaged = true
    parts.set(record.entry, { records: [...(before?.records ?? []), record], isWhole })
  }
  return damaged
}

function laterBlocks(ring: Buffer, from: number, origin: Origin): FoundBlock[] {
  const found: FoundBlock[] = []
  for (let at = CIRCLE_START_BYTES; at < ring.length; at += LOG_BLOCK_BYTES) {
    const block = decodeBlock(ring, at, origin)
    if (block && block.sequence >= from) found.push(block)
  }
  return found.sort((a, b) => a.sequence - b.sequence)
}

function withLater(
  parts: Map<number, FoundPart>,
  ring: Buffer,
  from: number,
  origin: Origin,
): RingView {
  for (const block of laterBlocks(ring, from, origin)) addParts(parts, block)
  return { parts, isRotten: true }
}
