/** Who has the physical chunks of one component: the reverse of the chunk map, in pieces that are made when needed. */
import { assert } from '../../../base/assert.ts'
import { VIRSTOR_CHUNKS, VIRSTOR_OWNER_PIECE } from '../../../base/limits.ts'
import type { Place } from '../runtime.ts'

/** Nobody. */
export const FREE = -1
/** The map itself. */
export const MAP = -2

/** For sets and maps of places. */
export function keyOf({ component, number }: Place): number {
  return component * 2 ** 32 + number
}

export class Owners {
  /** Physical chunks of the component. */
  chunks: number
  /** Those that are not free. */
  used = 0
  /** Of each place: owner plus 1, so that new pieces are free; the map as {@link MAP_WORD}. */
  readonly #pieces: (Uint32Array | undefined)[] = []

  constructor(chunks: number) {
    assert(chunks >= 0 && chunks <= VIRSTOR_CHUNKS, `a component of ${chunks} chunks`)
    this.chunks = chunks
  }

  get(number: number): number {
    const piece = this.#pieces[Math.floor(number / VIRSTOR_OWNER_PIECE)]
    const word = piece === undefined ? 0 : (piece[number % VIRSTOR_OWNER_PIECE] as number)
    return word === MAP_WORD ? MAP : word - 1
  }

  /** The first place from `from` on that a chunk has; -1: there is none. */
  nextChunk(from: number): number {
    for (let number = from; number < this.chunks; ) {
      const end = number - (number % VIRSTOR_OWNER_PIECE) + VIRSTOR_OWNER_PIECE
      if (this.#pieces[Math.floor(number / VIRSTOR_OWNER_PIECE)] === undefined) number = end
      for (; number < end && number < this.chunks; number++)
        if (this.get(number) >= 0) return number
    }
    return -1
  }

  /** Places that are not free, in order, with their owners. What was never in use costs nothing. */
  *entries(): Generator<readonly [number: number, owner: number]> {
    for (const [index, piece] of this.#pieces.entries()) {
      if (piece === undefined) continue
      const first = index * VIRSTOR_OWNER_PIECE
      for (let at = 0; at < piece.length; at++) {
        if (piece[at] !== 0) yield [first + at, this.get(first + at)]
      }
    }
  }

  set(number: number, owner: number): void {
    assert(number >= 0 && number < this.chunks, `place ${number} is one of ${this.chunks}`)
    const before = this.get(number)
    const index = Math.floor(number / VIRSTOR_OWNER_PIECE)
    let piece = this.#pieces[index]
    if (piece === undefined) {
      piece = new Uint32Array(VIRSTOR_OWNER_PIECE)
      this.#pieces[index] = piece
    }
    piece[number % VIRSTOR_OWNER_PIECE] = owner === MAP ? MAP_WORD : owner + 1
    this.used += Number(owner !== FREE) - Number(before !== FREE)
  }
}

const MAP_WORD = 0xffffffff
