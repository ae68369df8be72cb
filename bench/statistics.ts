/** The few numbers that reports need: medians, spread, and a straight line through samples. */
import { assert } from '../src/base/assert.ts'

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
