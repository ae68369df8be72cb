/**
 * What the medium commands share beside plain reads and writes: buffers for work in pieces, zeroing and unmapping
 * ranges. All of it stops between two pieces when the task is aborted.
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
import { discard, flush, writeZeroes } from '../../../hal/io.ts'
import { failTask } from '../sense.ts'
import { STATUS, type Task } from '../task.ts'
import type { LogicalUnit } from '../types.ts'

/** The work stopped because the task was aborted; its end releases the fence. */
export class TaskAborted extends Error {
  override readonly name = 'TaskAborted'
}

/** Reading failed with `error`; `lba` is the first block that cannot be read, where that is known. */
export class UnreadableBlock extends Error {
  override readonly name = 'UnreadableBlock'
  readonly error: PlexusError
  readonly lba: number | undefined

  constructor(error: PlexusError, lba: number | undefined) {
    super(error.message)
    this.error = error
    this.lba = lba
  }
}

/**
 * Runs the steps of a command that is more than one request, and ends the task with whatever went wrong:
 * sense data by the error's kind, nothing (TASK ABORTED, never sent) where the task was aborted.
 * `steps` ends the task itself when all is well.
 */
export function runSteps(task: Task, op: IoOp, steps: () => Promise<void>): void {
  steps().catch((error: unknown) => {
    if (error instanceof TaskAborted) task.finish(STATUS.TASK_ABORTED, undefined)
    else if (error instanceof UnreadableBlock) failTask(task, error.error, 'read', error.lba)
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
