/**
 * Chance under one seed (base/random.ts): everything in a simulated run that could come out otherwise asks a
 * stream that is derived from the seed and a label, so that the parts do not depend on each other's use of it.
 */
import { assert } from '../../src/base/assert.ts'
import type { Random } from '../../src/base/random.ts'
import { Random as Mulberry } from '../fuzz/random.ts'

export class SimRandom extends Mulberry implements Random {
  readonly #seed: number

  constructor(seed: number) {
    super(seed)
    this.#seed = seed
  }

  /** A stream of its own; the same label gives the same stream, whatever was drawn here before. */
  fork(label: string): SimRandom {
    let hash = 0x811c9dc5 ^ this.#seed
    for (const char of label) hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193)
    const stream = new SimRandom(Math.imul(hash ^ (hash >>> 15), 0x85ebca6b) >>> 0)
    stream.u32()
    return stream
  }

  override bytes(length: number): Buffer {
    const bytes = Buffer.alloc(length)
    this.fill(bytes)
    return bytes
  }

  /** Overwrites `bytes` with noise. */
  fill(bytes: Buffer): void {
    let x = this.u32() | 1
    const isWhole = bytes.byteOffset % 4 === 0 && bytes.length % 4 === 0
    const words = isWhole
      ? new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
      : new Int32Array(Math.ceil(bytes.length / 4))
    for (let at = 0; at < words.length; at++) {
      // xorshift32: good enough for content that nobody has written, and fast.
      x ^= x << 13
      x ^= x >>> 17
      x ^= x << 5
      words[at] = x
    }
    if (!isWhole) bytes.set(new Uint8Array(words.buffer, 0, bytes.length))
  }

  /** Exponentially distributed with this mean: the time between events that know nothing of each other. */
  exponential(mean: number): number {
    return -Math.log(1 - this.u32() / 2 ** 32) * mean
  }

  /** One of `rows`, each as likely as its weight says. */
  weighted<T>(rows: readonly (readonly [weight: number, what: T])[]): T {
    let at = this.below(rows.reduce((sum, [weight]) => sum + weight, 0))
    for (const [weight, what] of rows) {
      if (at < weight) return what
      at -= weight
    }
    assert(false, 'a weighted choice has weights')
  }
}
