/**
 * What happened in a run: a hash over all of it, which must be the same for the same seed, and the last
 * entries for the report of a violation. Lines are put together only when somebody wants to read them.
 */
const KEPT = 4000
const NOTES_KEPT = 400

/** Who is named for what does not belong to a disk or a volume. */
export const WORLD = 'world'

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
  readonly #notes: Entry[] = []
  #next = 0
  #hash = 0x811c9dc5

  /** `a` and `b` are usually offset and length. All but `text` is in the hash. */
  add(ms: number, who: string, what: string, a = 0, b = 0, text = ''): void {
    const entry = { ms, who, what, a, b, text }
    if (who === WORLD) this.#notes.push(entry)
    if (this.#notes.length > NOTES_KEPT) this.#notes.shift()
    this.#ring[this.#next] = entry
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

  /** The last `count` entries, oldest first. */
  lines(count: number): string[] {
    const all = [...this.#ring.slice(this.#next), ...this.#ring.slice(0, this.#next)]
    return all.slice(-count).map(line)
  }

  /** The last things that happened to the world as a whole: boots, verbs, faults, events of the engine. */
  notes(count: number): string[] {
    return this.#notes.slice(-count).map(line)
  }

  #mix(value: number): void {
    this.#hash = Math.imul(this.#hash ^ value, 0x01000193)
  }
}

function line({ ms, who, what, a, b, text }: Entry): string {
  return `${ms.toFixed(3).padStart(12)} ${who.padEnd(8)} ${what.padEnd(18)} ${a} +${b} ${text}`
}
