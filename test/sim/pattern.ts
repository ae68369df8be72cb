/**
 * The content of a block, from the number of the write and the block's address: every block of every write
 * is told from every other one, and no XOR of some of them looks like another. Used by oracle.ts.
 */
function seedOf(value: number, block: number): number {
  const mixed = Math.imul(value ^ Math.imul(block, 0x9e3779b1), 0x85ebca6b)
  return (mixed ^ (mixed >>> 13)) | 0
}

function words(bytes: Buffer): Int32Array {
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
}

/** Fills `bytes`, which begins at block `first`, with write number `value` (> 0). */
export function fillPattern(bytes: Buffer, value: number, first: number, blockBytes: number): void {
  const out = words(bytes)
  const count = blockBytes / 4
  for (let at = 0; at < out.length; at += count) {
    const block = first + at / count
    let x = seedOf(value, block)
    out[at] = value
    out[at + 1] = block
    for (let i = 2; i < count; i++) {
      x = (Math.imul(x, 0x915f77f5) + 0x3c6ef35f) | 0
      out[at + i] = x ^ (x >>> 15)
    }
  }
}

/** Do the `length` bytes at `at` have exactly this content? */
export function matchesPattern(
  bytes: Buffer,
  at: number,
  length: number,
  value: number,
  block: number,
): boolean {
  if (bytes.readInt32LE(at) !== value || bytes.readInt32LE(at + 4) !== block) return false
  const found = words(bytes.subarray(at, at + length))
  let x = seedOf(value, block)
  for (let i = 2; i < found.length; i++) {
    x = (Math.imul(x, 0x915f77f5) + 0x3c6ef35f) | 0
    if (found[i] !== (x ^ (x >>> 15))) return false
  }
  return true
}

export function isZero(bytes: Buffer, at: number, length: number): boolean {
  if (bytes.readInt32LE(at) !== 0) return false
  return words(bytes.subarray(at, at + length)).every((word) => word === 0)
}
