/**
 * What a provider has done so far: plain numbers that the I/O path adds to and that `plexus stat`, the
 * status and the metrics read. Counters only grow; rates are the reader's business.
 */
import type { IoOp } from '../../hal/block-device.ts'

export const IO_OPS: readonly IoOp[] = ['read', 'write', 'flush', 'discard', 'write-zeroes']

/** Upper bounds of the latency buckets in microseconds: powers of two from 16 us to 16.8 s; one more above. */
export const LATENCY_BUCKETS_US: readonly number[] = Array.from({ length: 21 }, (_, i) => 16 << i)

export class OpStatistics {
  operations = 0
  bytes = 0
  errors = 0
  totalMs = 0
  /** Operations by latency: one counter for each bound of {@link LATENCY_BUCKETS_US} and one above. */
  readonly buckets = new Float64Array(LATENCY_BUCKETS_US.length + 1)

  /** Counts one operation that ended after `ms`. */
  count(bytes: number, ms: number, failed: boolean): void {
    this.operations++
    this.totalMs += ms
    if (failed) this.errors++
    else this.bytes += bytes
    // 31 - clz32 is the whole logarithm; below 16 us everything is in bucket 0. More than 32 bits are far above.
    const us = Math.min(ms * 1000, 0xffffffff)
    const bucket = Math.min(32 - Math.clz32(us >>> 4), LATENCY_BUCKETS_US.length)
    this.buckets[bucket] = (this.buckets[bucket] ?? 0) + 1
  }
}

export class ProviderStatistics {
  readonly read = new OpStatistics()
  readonly write = new OpStatistics()
  readonly flush = new OpStatistics()
  readonly discard = new OpStatistics()
  readonly 'write-zeroes' = new OpStatistics()
  /** Requests that have come and not ended. */
  inFlight = 0
}
