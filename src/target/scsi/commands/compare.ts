/** Comparing the medium with data, for VERIFY, WRITE AND VERIFY and COMPARE AND WRITE. */
import type { ByteRange } from '../../../base/bytes.ts'
import type { AlignedBuffer } from '../../../hal/block-device.ts'
import { ASC, SENSE_KEY, sense, usesDescriptorSense } from '../sense.ts'
import type { Task } from '../task.ts'
import type { LogicalUnit } from '../types.ts'
import { readPieces } from './bad-block.ts'
import { stopIfAborted } from './medium.ts'

/**
 * Compares a range of the medium with `expected`, which is as long as the range, or one block that every block
 * must equal. Returns the offset of the first byte that differs, or undefined.
 */
export async function findDifference(
  task: Task,
  lu: LogicalUnit,
  range: ByteRange,
  expected: Buffer,
  scratch: AlignedBuffer,
): Promise<number | undefined> {
  let difference: number | undefined
  await readPieces(task, lu, range, scratch, (piece, at) => {
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
