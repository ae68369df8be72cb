/**
 * The ways to discard or to zero a range of a block device or a regular file (fallocate(2), ioctl), in the order in which
 * direct-device.ts tries them.
 */
import { RANGE_STEP_BYTES, ZERO_WRITE_BYTES } from '../base/limits.ts'
import type { DeviceFeatures } from './block-device.ts'
import { ERRNO } from './errno.ts'
import { IO_KIND } from './io-engine.ts'
import { BLKDISCARD, BLKZEROOUT, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE } from './libc.ts'

interface RangeTarget {
  readonly kind: 'block' | 'file'
  readonly features: DeviceFeatures
}

/** A way to discard or to zero a range. */
export interface RangeMethod {
  readonly kind: typeof IO_KIND.ALLOCATE | typeof IO_KIND.RANGE_IOCTL | typeof IO_KIND.WRITE
  /** Mode of fallocate or request of ioctl. */
  readonly flags: number
  readonly stepBytes: number
}

const PUNCH = { kind: IO_KIND.ALLOCATE, flags: FALLOC_PUNCH_HOLE, stepBytes: RANGE_STEP_BYTES }
const ZERO_RANGE = { kind: IO_KIND.ALLOCATE, flags: FALLOC_ZERO_RANGE, stepBytes: RANGE_STEP_BYTES }
const DISCARD_IOCTL = { kind: IO_KIND.RANGE_IOCTL, flags: BLKDISCARD, stepBytes: RANGE_STEP_BYTES }
const ZEROOUT_IOCTL = { kind: IO_KIND.RANGE_IOCTL, flags: BLKZEROOUT, stepBytes: RANGE_STEP_BYTES }
const WRITE_ZEROES = { kind: IO_KIND.WRITE, flags: 0, stepBytes: ZERO_WRITE_BYTES }

/**
 * What to try for a discard. Where discarded blocks must read as zeroes (LBPRZ), only the hole punch
 * will do, which the kernel refuses where it cannot promise that; BLKDISCARD promises nothing. A kernel that
 * finds out later that the device cannot punch (loop over tmpfs) still owes the zeroes: they are written.
 */
export function discardMethods(init: RangeTarget): RangeMethod[] {
  if (init.features.discardGranularityBytes === 0) return []
  if (init.kind === 'file') return [PUNCH, ZERO_RANGE, WRITE_ZEROES]
  return init.features.discardZeroes ? [PUNCH, ZEROOUT_IOCTL] : [DISCARD_IOCTL]
}

/** What to try for write-zeroes; writing them always works. */
export function zeroMethods(init: RangeTarget): RangeMethod[] {
  return init.kind === 'file'
    ? [ZERO_RANGE, WRITE_ZEROES]
    : [ZERO_RANGE, ZEROOUT_IOCTL, WRITE_ZEROES]
}

/** Results that mean: not this way, and never will be. */
export const NOT_THIS_WAY: ReadonlySet<number> = new Set([
  -ERRNO.EOPNOTSUPP,
  -ERRNO.ENOTTY,
  -ERRNO.ENOSYS,
])
