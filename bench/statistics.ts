/** The few numbers that reports need: medians, spread, and a straight line through samples. */
import { assert } from '../src/base/assert.ts'
import { MIB } from '../src/base/limits.ts'

/** The middle value, or the mean of the two middle ones; 0 of nothing. */
export function median(values: readonly number[]): number {
  if (values.length === 0) return 0
  const sorted = [...values].sort((a, b) => a - b)
  const at = sorted.length >> 1
  const upper = sorted[at] ?? 0
  return sorted.length % 2 === 1 ? upper : ((sorted[at - 1] ?? 0) + upper) / 2
}

/** Largest minus smallest, as a share of the median: how much repetitions differ. */
export function spread(values: readonly number[]): number {
  const middle = median(values)
  return middle === 0 ? 0 : (Math.max(...values) - Math.min(...values)) / middle
}

/**
 * The median of the quotients of values measured in the same round. Machines drift over minutes;
 * two values of one round have seen the same drift. 0 when there is no round with both.
 */
export function pairedRatio(values: readonly number[], bases: readonly number[]): number {
  const ratios = values.flatMap((value, round) => {
    const base = bases[round] ?? 0
    return base > 0 ? [value / base] : []
  })
  return median(ratios)
}

export interface Line {
  /** Change of y per unit of x. */
  readonly slope: number
  readonly intercept: number
}

/** The least-squares line through the points; needs two different x. */
export function fitLine(x: readonly number[], y: readonly number[]): Line {
  assert(x.length === y.length && x.length >= 2, `a line needs 2 points or more, not ${x.length}`)
  const meanX = x.reduce((sum, value) => sum + value, 0) / x.length
  const meanY = y.reduce((sum, value) => sum + value, 0) / y.length
  let covariance = 0
  let variance = 0
  x.forEach((value, i) => {
    covariance += (value - meanX) * ((y[i] ?? 0) - meanY)
    variance += (value - meanX) ** 2
  })
  assert(variance > 0, 'a line needs two different x')
  const slope = covariance / variance
  return { slope, intercept: meanY - slope * meanX }
}

export interface MemoryVerdict {
  readonly flat: boolean
  readonly bytesPerHour: number
  /** Of the fitted line over the judged window. */
  readonly growthBytes: number
  readonly toleranceBytes: number
  /** Medians of the first and of the last tenth of the window. */
  readonly firstBytes: number
  readonly lastBytes: number
}

/** The start of a run fills pools and caches and warms the compiler up: it is not judged. */
const SETTLING_SHARE = 1 / 3
const TOLERANCE_BYTES = 8 * MIB
const TOLERANCE_SHARE = 0.03

/**
 * Is memory flat? A line is fitted through the samples after the settling time; it may rise by 8 MiB
 * or 3 % over the window, whichever is more, since a garbage collector draws a saw. The longer the
 * run, the smaller the leak that this finds: 30 minutes show 16 MiB an hour. Needs 6 samples.
 */
export function judgeMemory(
  seconds: readonly number[],
  residentBytes: readonly number[],
): MemoryVerdict {
  assert(seconds.length >= 6, `${seconds.length} memory samples are too few to judge`)
  const from = Math.floor(seconds.length * SETTLING_SHARE)
  const time = seconds.slice(from)
  const memory = residentBytes.slice(from)
  const { slope } = fitLine(time, memory)
  const windowS = (time.at(-1) ?? 0) - (time[0] ?? 0)
  const growthBytes = slope * windowS
  const tenth = Math.ceil(memory.length / 10)
  const toleranceBytes = Math.max(TOLERANCE_BYTES, median(memory) * TOLERANCE_SHARE)
  return {
    flat: growthBytes <= toleranceBytes,
    bytesPerHour: slope * 3600,
    growthBytes,
    toleranceBytes,
    firstBytes: median(memory.slice(0, tenth)),
    lastBytes: median(memory.slice(-tenth)),
  }
}
