/**
 * Logical block provisioning thresholds (SBC-4, 4.7.3.7): the space of a thin unit, and the point at which it is low, in
 * threshold sets as VPD B2h, log page 0Ch and mode page 1Ch/02h have them. One threshold: the watermark of the device.
 */
import { ASC } from './sense.ts'
import type { AscCode, LogicalUnit } from './types.ts'

export interface Thresholds {
  /** A threshold set is 2^exponent logical blocks; never 0. */
  readonly exponent: number
  /** LBA mapping resources, in threshold sets. */
  readonly available: number
  readonly used: number
  /** Space is low when so much is available, or less. */
  readonly low: number
}

/** Where the descriptor of the one threshold begins in mode page 1Ch/02h. */
export const THRESHOLD_DESCRIPTOR_AT = 16

const SETS_MAX = 0xffff_ffff

/** Undefined: the unit does not know its space, as it is no device of ours that gives space when it is written. */
export function thresholdsOf(lu: LogicalUnit): Thresholds | undefined {
  const space = lu.thin ? lu.device?.provisioning : undefined
  if (!space) return undefined
  const pieceBlocks = space.pieceBytes / lu.blockBytes
  let exponent = 1
  while (pieceBlocks % 2 ** (exponent + 1) === 0) exponent++
  // The whole unit is below 2^32 sets (SBC-4, 6.6.7).
  while (lu.blocks / 2 ** exponent > SETS_MAX) exponent++
  const sets = (pieces: number): number =>
    Math.min(SETS_MAX, Math.floor((pieces * pieceBlocks) / 2 ** exponent))
  return {
    exponent,
    available: sets(space.freePieces),
    used: sets(space.usedPieces),
    low: sets(space.lowPieces),
  }
}

/** INFORMATION of a unit attention: the byte offset of the threshold descriptor that was reached (SBC-4, 4.7.3.7.6). */
export function informationOf(attention: AscCode): { readonly information?: number } {
  return attention === ASC.THIN_PROVISIONING_SOFT_THRESHOLD_REACHED
    ? { information: THRESHOLD_DESCRIPTOR_AT }
    : {}
}
