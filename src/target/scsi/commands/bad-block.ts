/**
 * The first block that cannot be read, for INFORMATION of a MEDIUM ERROR (SBC-3, 4.18.1). Devices and volumes fail a range as a
 * whole and do not say where; initiators without the address give up the whole request, with it only what lies
 * from there on. So the range is read again in smaller steps, whatever is below: a disk, a mirror, RAID5.
 * Only after an error, with a bounded number of reads and a bounded time.
 */
import { alignUp, type ByteRange } from '../../../base/bytes.ts'
import { PlexusError } from '../../../base/errors.ts'
import { BAD_BLOCK_MS, BAD_BLOCK_READS } from '../../../base/limits.ts'
import type { AlignedBuffer, Lease } from '../../../hal/block-device.ts'
import { readAt } from '../../../hal/io.ts'
import { failTask, isMediumError, senseForError, usesDescriptorSense } from '../sense.ts'
import type { Task } from '../task.ts'
import type { LogicalUnit } from '../types.ts'
import {
  deviceOf,
  headOf,
  leaseChunkSoon,
  runSteps,
  stopIfAborted,
  UnreadableBlock,
} from './medium.ts'

/**
 * Ends a READ, or goes on with it up to the bad block, after its request for `failed` came back with `error`. What lies before
 * that block is sent, as disks do: Linux takes no more for good than has come and lies before the block that is named. The
 * request's buffer has been given back.
 */
export function failRead(task: Task, lu: LogicalUnit, error: PlexusError, failed: ByteRange): void {
  if (!isMediumError(error)) {
    failTask(task, error, 'read')
    return
  }
  runSteps(task, 'read', async () => {
    const lba = await findInChunk(task, lu, failed)
    const goodBytes = lba === undefined ? 0 : lba * lu.blockBytes - failed.offset
    const good = goodBytes > 0 ? await readAgain(task, lu, failed.offset, goodBytes) : undefined
    if (lba === undefined || !good) {
      failTask(task, error, 'read', lba)
      return
    }
    const descriptor = usesDescriptorSense(task)
    task.failsNext = senseForError(error, 'read', { descriptor, information: lba })
    task.dataIn = good
    task.dataInBytes = task.rangeBytes
    task.pieceBytes = goodBytes
    task.endPiece()
  })
}

async function findInChunk(
  task: Task,
  lu: LogicalUnit,
  range: ByteRange,
): Promise<number | undefined> {
  const scratch = await leaseChunkSoon(lu, range.length)
  try {
    return await findBadBlock(task, lu, range, scratch)
  } finally {
    scratch.release()
  }
}

/** Blocks that could be read a moment ago; undefined where there is no buffer for them, or they cannot be read any more. */
async function readAgain(
  task: Task,
  lu: LogicalUnit,
  offset: number,
  length: number,
): Promise<Lease | undefined> {
  const lease = lu.pool.lease(length)
  if (!lease) return undefined
  let isGood = false
  try {
    isGood = await canRead(task, lu, lease, offset)
    return isGood ? lease : undefined
  } finally {
    if (!isGood) lease.release()
  }
}

/**
 * Reads a range through `scratch`, piece by piece; `visit` gets each piece with its distance from the range's begin,
 * and ends the walk by returning false. Throws {@link UnreadableBlock}.
 */
export async function readPieces(
  task: Task,
  lu: LogicalUnit,
  range: ByteRange,
  scratch: AlignedBuffer,
  visit: (piece: Buffer, at: number) => boolean,
): Promise<void> {
  for (let at = 0; at < range.length; at += scratch.bytes.length) {
    stopIfAborted(task)
    const piece = headOf(scratch, Math.min(scratch.bytes.length, range.length - at))
    const offset = range.offset + at
    try {
      await readAt(deviceOf(lu), piece, offset, { cause: 'initiator' })
    } catch (error) {
      if (!(error instanceof PlexusError)) throw error
      const failed = { offset, length: piece.bytes.length }
      const lba = isMediumError(error) ? await findBadBlock(task, lu, failed, scratch) : undefined
      throw new UnreadableBlock(error, lba)
    }
    if (!visit(piece.bytes, at)) return
  }
}

/**
 * The LBA of the first block of a range that cannot be read: the first step of the size of `scratch` that fails, halved until
 * one block is left. Where {@link BAD_BLOCK_READS} or {@link BAD_BLOCK_MS} end the search, the first block that is not
 * known to be good; undefined when all of it can be read now. Throws what is no error of the medium.
 */
async function findBadBlock(
  task: Task,
  lu: LogicalUnit,
  range: ByteRange,
  scratch: AlignedBuffer,
): Promise<number | undefined> {
  const { blockBytes, clock } = lu
  const endMs = clock.nowMs() + BAD_BLOCK_MS
  const endBytes = range.offset + range.length
  let from = range.offset
  let length = Math.min(scratch.bytes.length, range.length)
  /** The step of this length at `from` has failed, and is halved. */
  let narrowing = false
  for (let reads = 0; from < endBytes; reads++) {
    if (reads === BAD_BLOCK_READS || clock.nowMs() > endMs) break
    if (narrowing && length === blockBytes) break
    const step = narrowing ? alignUp(length / 2, blockBytes) : length
    if (await canRead(task, lu, headOf(scratch, step), from)) {
      from += step
      length = narrowing ? length - step : Math.min(length, endBytes - from)
    } else {
      narrowing = true
      length = step
    }
  }
  return from < endBytes ? from / blockBytes : undefined
}

async function canRead(
  task: Task,
  lu: LogicalUnit,
  into: AlignedBuffer,
  offset: number,
): Promise<boolean> {
  stopIfAborted(task)
  try {
    await readAt(deviceOf(lu), into, offset, { cause: 'initiator' })
    return true
  } catch (error) {
    if (error instanceof PlexusError && isMediumError(error)) return false
    throw error
  }
}
