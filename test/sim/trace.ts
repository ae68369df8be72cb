/**
 * What happened in a run: a hash over all of it, which must be the same for the same seed, and the last
 * entries for the report of a violation. Lines are put together only when somebody wants to read them.
 */
const KEPT = 4000

interface Entry {
  readonly ms: number
  readonly who: string
  readonly what: string
  readonly a: number
  readonly b: number
  readonly text: string
}

export class Trace {
  readonly #ring: Entry[] = []
  #next = 0
  #hash = 0x811c9dc5

  /** `a` and `b` are usually offset and length. All but `text` is in the hash. */
  add(ms: number, who: string, what: string, a = 0, b = 0, text = ''): void {
    this.#ring[this.#next] = { ms, who, what, a, b, text }
    this.#next = (this.#next + 1) % KEPT
    this.#mix(Math.round(ms * 1e6) % 2 ** 31)
    this.#mix(a)
    this.#mix(b)
    for (let i = 0; i < who.length; i++) this.#mix(who.charCodeAt(i))
    for (let i = 0; i < what.length; i++) this.#mix(what.charCodeAt(i))
  }

  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, '0')
  }

  /** The last `count` entries, oldest first. `only` chooses. */
  lines(count: number, only: (entry: Entry) => boolean = () => true): string[] {
    const all = [...this.#ring.slice(this.#next), ...this.#ring.slice(0, this.#next)]
    return all
      .filter(only)
      .slice(-count)
      .map(
        ({ ms, who, what, a, b, text }) =>
          `${ms.toFixed(3).padStart(12)} ${who.padEnd(10)} ${what.padEnd(18)} ${a} +${b} ${text}`,
      )
  }

  #mix(value: number): void {
    this.#hash = Math.imul(this.#hash ^ value, 0x01000193)
  }
}
