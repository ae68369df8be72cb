/** Buffers of jobs: leased, cut into slices that are worked on at once, and given back when nothing is in flight in them. */
import type { ByteRange } from '../../base/bytes.ts'
import { JOB_SLICE_BYTES, JOB_SLICES } from '../../base/limits.ts'
import type { AlignedBuffer, BufferPool, Lease } from '../../hal/block-device.ts'

/** Waits for all of them, so that nothing is in flight in a buffer that is given back; then throws the first error. */
export async function settled(work: readonly Promise<void>[]): Promise<void> {
  for (const one of await Promise.allSettled(work)) if (one.status === 'rejected') throw one.reason
}

/**
 * Runs `use` with a buffer of `length` bytes from the pool, which waits in line for it, and gives it back. Once more,
 * with another buffer, when a disk that does not answer may have changed what was in it.
 */
export async function withLease<T>(
  pool: BufferPool,
  length: number,
  use: (lease: Lease) => Promise<T>,
): Promise<T> {
  for (;;) {
    const lease = await new Promise<Lease>((resolve) => {
      pool.leaseSoon(length, resolve)
    })
    try {
      const result = await use(lease)
      if (!pool.isKept(lease)) return result
    } catch (error) {
      if (!pool.isKept(lease)) throw error
    } finally {
      lease.release()
    }
  }
}

/**
 * Does [start, end) in slices, in order and as many at once as there are buffers: so one is written while the next
 * ones are read, and no drive waits for the other. A slice has a buffer to itself. After a failure none begins;
 * rejects with a failure when all have ended.
 */
export function inSlices(
  start: number,
  end: number,
  sliceBytes: number,
  buffers: readonly AlignedBuffer[],
  work: (at: number, length: number, buffer: AlignedBuffer) => Promise<void>,
): Promise<void> {
  let next = start
  const lane = async (buffer: AlignedBuffer): Promise<void> => {
    while (next < end) {
      const at = next
      next = Math.min(at + sliceBytes, end)
      try {
        await work(at, next - at, buffer)
      } catch (error) {
        next = end
        throw error
      }
    }
  }
  return settled(buffers.map(lane))
}

/** {@link inSlices} with buffers from the pool. Each has room for so many `lanes` of {@link laneBytes}. */
export function inLeasedSlices(
  pool: BufferPool,
  { offset, length }: ByteRange,
  lanes: number,
  work: (at: number, length: number, buffer: AlignedBuffer) => Promise<void>,
): Promise<void> {
  const bytes = laneBytes(length)
  const slices = Math.min(JOB_SLICES, Math.ceil(length / bytes))
  // One buffer for all lanes: who holds one must not wait for another.
  return withLease(pool, slices * lanes * bytes, (lease) =>
    inSlices(offset, offset + length, bytes, partsOf(lease, lanes * bytes), work),
  )
}

/** Bytes of a slice of a range of `length` bytes; the last one may be shorter. */
export function laneBytes(length: number): number {
  return Math.min(JOB_SLICE_BYTES, length)
}

/** As many parts of `bytes` as the buffer has. */
export function partsOf(buffer: AlignedBuffer, bytes: number): readonly AlignedBuffer[] {
  const count = Math.floor(buffer.bytes.length / bytes)
  return Array.from({ length: count }, (_, index) => slice(buffer, index * bytes, bytes))
}

/** A part of a buffer. */
export function slice(buffer: AlignedBuffer, offset: number, length: number): AlignedBuffer {
  return {
    bytes: buffer.bytes.subarray(offset, offset + length),
    address: buffer.address + offset,
  }
}
