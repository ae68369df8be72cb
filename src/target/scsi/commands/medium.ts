/**
 * What the medium commands share beside plain reads and writes: buffers for work in pieces, comparing the medium with
 * data, zeroing and unmapping ranges. All of it stops between two pieces when the task is aborted. Used by
 * verify.ts, compare-and-write.ts, write-same.ts and unmap.ts.
 */
import { alignDown, alignUp, type ByteRange } from '../../../base/bytes.ts'
import { PlexusError } from '../../../base/errors.ts'
import {
  MEDIUM_CHUNK_BYTES,
  POOL_CLASS_BYTES,
  POOL_WAIT_MS,
  ZERO_CHUNK_BYTES,
} from '../../../base/limits.ts'
import type { AlignedBuffer, BlockDevice, IoOp, Lease } from '../../../hal/block-device.ts'
import { discard, flush, readAt, writeZeroes } from '../../../hal/io.ts'
import { ASC, failTask, SENSE_KEY, sense, usesDescriptorSense } from '../sense.ts'
import { STATUS, type Task } from '../task.ts'
import type { LogicalUnit } from '../types.ts'

/** The work stopped because the task was aborted; its end releases the fence. */
export class TaskAborted extends Error {
  override readonly name = 'TaskAborted'
}

/**
 * Runs the steps of a command that is more than one request, and ends the task with whatever went wrong:
 * sense data by the error's kind, nothing (TASK ABORTED, never sent) where the task was aborted.
 * `steps` ends the task itself when all is well.
 */
export function runSteps(task: Task, op: IoOp, steps: () => Promise<void>): void {
  steps().catch((error: unknown) => {
    if (error instanceof TaskAborted) task.finish(STATUS.TASK_ABORTED, undefined)
    else if (error instanceof PlexusError && !task.completed) failTask(task, error, op)
    else {
      process.nextTick(() => {
        throw error
      })
    }
  })
}

/** Throws {@link TaskAborted} once a task management function has ended the task. */
export function stopIfAborted(task: Task): void {
  if (task.aborted) throw new TaskAborted()
}

/** The device, or PlexusError `gone`: it may have left since the task was checked. */
export function deviceOf(lu: LogicalUnit): BlockDevice {
  if (lu.device) return lu.device
  throw goneError(lu)
}

export function goneError(lu: LogicalUnit): PlexusError {
  return new PlexusError('gone', {
    op: 'use',
    subject: lu.name,
    message: `${lu.name}: the device went away; attach it again`,
  })
}

/**
 * A buffer for work in pieces: up to `wantedBytes` and {@link MEDIUM_CHUNK_BYTES}, less where the pool is low, always
 * whole blocks. A command that holds its Data-Out must not wait for a second buffer (many of them could hold
 * the whole pool and wait for ever), so an empty pool is `exhausted`: TASK SET FULL, the initiator tries again.
 */
export function leaseChunk(lu: LogicalUnit, wantedBytes: number): Lease {
  const mostBytes = Math.min(wantedBytes, MEDIUM_CHUNK_BYTES)
  const sizes = POOL_CLASS_BYTES.filter((bytes) => bytes < mostBytes && bytes >= lu.blockBytes)
  for (const bytes of [mostBytes, ...sizes.reverse()]) {
    const length = alignDown(bytes, lu.blockBytes)
    const lease = length === 0 ? undefined : lu.pool.lease(length)
    if (lease) return lease
  }
  throw exhaustedError(lu)
}

export function exhaustedError(lu: LogicalUnit): PlexusError {
  return new PlexusError('exhausted', {
    op: 'lease',
    subject: lu.name,
    message: `${lu.name}: the buffer pool is empty; raise bufferPool or lower the load`,
  })
}

/** A lease of `length` bytes as soon as one is free; undefined where there was none for {@link POOL_WAIT_MS}. */
export function leaseWithin(
  lu: LogicalUnit,
  length: number,
  deliver: (lease: Lease | undefined) => void,
): void {
  let cancel = (): void => {}
  const timer = lu.clock.after(POOL_WAIT_MS, () => {
    cancel()
    deliver(undefined)
  })
  cancel = lu.pool.leaseSoon(length, (lease) => {
    timer.cancel()
    deliver(lease)
  })
}

/** As {@link leaseChunk} for a task that holds no buffer: waits its turn. Rejects with `exhausted`. */
export function leaseChunkSoon(lu: LogicalUnit, wantedBytes: number): Promise<Lease> {
  const length = alignDown(Math.min(wantedBytes, MEDIUM_CHUNK_BYTES), lu.blockBytes)
  const lease = lu.pool.lease(length)
  if (lease) return Promise.resolve(lease)
  return new Promise((resolve, reject) => {
    leaseWithin(lu, length, (later) => (later ? resolve(later) : reject(exhaustedError(lu))))
  })
}

/** The first `length` bytes of a buffer. */
export function headOf(buffer: AlignedBuffer, length: number): AlignedBuffer {
  if (buffer.bytes.length === length) return buffer
  return { bytes: buffer.bytes.subarray(0, length), address: buffer.address }
}

/**
 * Reads a range through `scratch`, piece by piece; `visit` gets each piece with its distance from the range's begin,
 * and ends the walk by returning false.
 */
export async function readPieces(
  task: Task,
  device: BlockDevice,
  range: ByteRange,
  scratch: AlignedBuffer,
  visit: (piece: Buffer, at: number) => boolean,
): Promise<void> {
  for (let at = 0; at < range.length; at += scratch.bytes.length) {
    stopIfAborted(task)
    const piece = headOf(scratch, Math.min(scratch.bytes.length, range.length - at))
    await readAt(device, piece, range.offset + at, { cause: 'initiator' })
    if (!visit(piece.bytes, at)) return
  }
}

/**
 * Compares a range of the medium with `expected`, which is as long as the range, or one block that every block
 * must equal. Returns the offset of the first byte that differs, or undefined.
 */
export async function findDifference(
  task: Task,
  device: BlockDevice,
  range: ByteRange,
  expected: Buffer,
  scratch: AlignedBuffer,
): Promise<number | undefined> {
  let difference: number | undefined
  await readPieces(task, device, range, scratch, (piece, at) => {
    const stepBytes = Math.min(piece.length, expected.length)
    for (let from = 0; from < piece.length && difference === undefined; from += stepBytes) {
      const wanted = (at + from) % expected.length
      const found = firstDifference(piece, from, expected, wanted, stepBytes)
      if (found !== undefined) difference = at + from + found
    }
    return difference === undefined
  })
  stopIfAborted(task)
  return difference
}

/** Distance of the first byte in which `length` bytes at `a[aAt]` and `b[bAt]` differ. */
function firstDifference(
  a: Buffer,
  aAt: number,
  b: Buffer,
  bAt: number,
  length: number,
): number | undefined {
  if (a.compare(b, bAt, bAt + length, aAt, aAt + length) === 0) return undefined
  for (let i = 0; i < length; i++) if (a[aAt + i] !== b[bAt + i]) return i
  return undefined
}

/** MISCOMPARE with the offset of the first byte that differs in INFORMATION (SBC-4, 5.3 and 5.34). */
export function failMiscompare(task: Task, offset: number): void {
  const options = { information: offset, descriptor: usesDescriptorSense(task) }
  task.check(sense(SENSE_KEY.MISCOMPARE, ASC.MISCOMPARE_DURING_VERIFY, options))
}

/** Zeroes a range: the device's own way where it has one, written zeroes otherwise (the HAL's part). */
export async function zeroRange(task: Task, device: BlockDevice, range: ByteRange): Promise<void> {
  const endBytes = range.offset + range.length
  for (let offset = range.offset; offset < endBytes; offset += ZERO_CHUNK_BYTES) {
    stopIfAborted(task)
    const length = Math.min(ZERO_CHUNK_BYTES, endBytes - offset)
    await writeZeroes(device, { offset, length })
  }
}

/**
 * Unmaps the whole granules of a range. What is left at its ends stays mapped; where unmapped blocks are promised to
 * read as zeroes (LBPRZ) the ends are zeroed, so that the whole range reads so.
 */
export async function unmapRange(task: Task, device: BlockDevice, range: ByteRange): Promise<void> {
  const { discardGranularityBytes, discardAlignmentBytes, discardZeroes } = device.features
  const endBytes = range.offset + range.length
  const align = discardAlignmentBytes % discardGranularityBytes
  const from = Math.min(endBytes, alignUp(range.offset - align, discardGranularityBytes) + align)
  const to = Math.max(from, alignDown(endBytes - align, discardGranularityBytes) + align)
  const mostBytes = alignDown(device.features.discardMaxBytes, discardGranularityBytes)
  const stepBytes = mostBytes > 0 ? mostBytes : to - from
  for (let offset = from; offset < to; offset += stepBytes) {
    stopIfAborted(task)
    await discard(device, { offset, length: Math.min(stepBytes, to - offset) })
  }
  if (!discardZeroes) return
  await zeroRange(task, device, { offset: range.offset, length: from - range.offset })
  await zeroRange(task, device, { offset: to, length: endBytes - to })
}

/** With WCE = 0 every change is durable before GOOD: flushes what discard and zeroing left in the device's cache. */
export async function flushIfWriteThrough(lu: LogicalUnit, device: BlockDevice): Promise<void> {
  if (!lu.mode.writeCacheEnabled && device.features.volatileWriteCache) await flush(device)
}
