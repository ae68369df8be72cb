/** A seeded random source (mulberry32), so that every case of the fuzzer can be run again by its number. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** A source of its own for case `number` of a run: cases do not depend on each other's use of chance. */
  static forCase(seed: number, number: number): Random {
    const random = new Random(seed ^ Math.imul(number + 1, 0x9e3779b1))
    random.u32()
    return random
  }

  u32(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return (mixed ^ (mixed >>> 14)) >>> 0
  }

  /** 0 to below `limit`. */
  below(limit: number): number {
    return Math.floor((this.u32() / 2 ** 32) * limit)
  }

  between(least: number, most: number): number {
    return least + this.below(most - least + 1)
  }

  chance(probability: number): boolean {
    return this.u32() / 2 ** 32 < probability
  }

  pick<T>(from: readonly T[]): T {
    const chosen = from[this.below(from.length)]
    if (chosen === undefined) throw new Error('nothing to pick from')
    return chosen
  }

  bytes(length: number): Buffer {
    const bytes = Buffer.alloc(length)
    for (let at = 0; at < length; at++) bytes[at] = this.u32()
    return bytes
  }

  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1)
      const [a, b] = [items[i], items[j]]
      if (a !== undefined && b !== undefined) {
        items[i] = b
        items[j] = a
      }
    }
    return items
  }
}
