/**
 * Which physical chunks of one component are free: a bitmap in pieces, which exist only where a piece is neither all
 * free nor all in use. So 2^32 chunks cost no more than what is mixed. Used by space.ts.
 */
import { assert } from '../../../base/assert.ts'

/** Chunks of one piece: 4 KiB of bits. */
const PIECE = 32_768
const WORDS = PIECE / 32

export class FreeBits {
  chunks: number
  free: number
  /** A set bit: in use. */
  readonly #pieces: (Uint32Array | undefined)[] = []
  #freeIn: Uint32Array
  /** No piece before this one has a free chunk. */
  #from = 0

  constructor(chunks: number) {
    this.chunks = chunks
    this.free = chunks
    this.#freeIn = new Uint32Array(Math.max(1, Math.ceil(chunks / PIECE))).fill(PIECE)
    const last = this.#freeIn.length - 1
    this.#freeIn[last] = this.#sizeOf(last)
  }

  /** There are so many now: those behind the former end are free. */
  grow(chunks: number): void {
    const before = this.chunks
    assert(chunks >= before, `a component of ${before} chunks grows to ${chunks}`)
    const last = this.#freeIn.length - 1
    const words = this.#words(last)
    const freeIn = new Uint32Array(Math.ceil(chunks / PIECE)).fill(PIECE)
    freeIn.set(this.#freeIn)
    this.chunks = chunks
    this.free += chunks - before
    for (let over = before - last * PIECE; over < this.#sizeOf(last); over++) {
      words[over >>> 5] = (words[over >>> 5] as number) & ~(1 << (over & 31))
      freeIn[last] = (freeIn[last] as number) + 1
    }
    const end = freeIn.length - 1
    if (end > last) freeIn[end] = this.#sizeOf(end)
    this.#freeIn = freeIn
    if (freeIn[last] === this.#sizeOf(last) || freeIn[last] === 0) this.#pieces[last] = undefined
    this.#from = Math.min(this.#from, last)
  }

  /** Takes the lowest free number; there is one. */
  take(): number {
    assert(this.free > 0, 'a chunk is taken where one is free')
    while (this.#freeIn[this.#from] === 0) this.#from++
    const words = this.#words(this.#from)
    let word = 0
    while (words[word] === 0xffffffff) word++
    const clear = ~(words[word] as number)
    const number = this.#from * PIECE + word * 32 + 31 - Math.clz32(clear & -clear)
    this.claim(number)
    return number
  }

  isFree(number: number): boolean {
    const piece = Math.floor(number / PIECE)
    const words = this.#pieces[piece]
    if (!words) return this.#freeIn[piece] !== 0
    return (((words[(number % PIECE) >>> 5] as number) >>> (number & 31)) & 1) === 0
  }

  /** {@link free}, counted anew. */
  count(): number {
    return this.#freeIn.reduce((sum, free, piece) => {
      const words = this.#pieces[piece]
      return sum + (words ? words.reduce((left, word) => left - ones(word), PIECE) : free)
    }, 0)
  }

  /** It is in use from now on. */
  claim(number: number): void {
    this.#change(number, true)
  }

  give(number: number): void {
    this.#change(number, false)
    this.#from = Math.min(this.#from, Math.floor(number / PIECE))
  }

  #change(number: number, used: boolean): void {
    assert(number >= 0 && number < this.chunks, `chunk ${number} is one of ${this.chunks}`)
    const piece = Math.floor(number / PIECE)
    const words = this.#words(piece)
    const word = (number % PIECE) >>> 5
    const bit = 1 << (number & 31)
    assert((((words[word] as number) & bit) !== 0) !== used, `chunk ${number} changes hands once`)
    words[word] = (words[word] as number) ^ bit
    const step = used ? -1 : 1
    this.free += step
    const free = (this.#freeIn[piece] as number) + step
    this.#freeIn[piece] = free
    if (free === 0 || free === this.#sizeOf(piece)) this.#pieces[piece] = undefined
  }

  #words(piece: number): Uint32Array {
    const there = this.#pieces[piece]
    if (there) return there
    const words = new Uint32Array(WORDS)
    if (this.#freeIn[piece] === 0) words.fill(0xffffffff)
    else {
      for (let over = this.#sizeOf(piece); over < PIECE; over++) {
        words[over >>> 5] = (words[over >>> 5] as number) | (1 << (over & 31))
      }
    }
    this.#pieces[piece] = words
    return words
  }

  #sizeOf(piece: number): number {
    return Math.min(PIECE, this.chunks - piece * PIECE)
  }
}

/** Bits that are set in a word of 32. */
function ones(word: number): number {
  const pairs = word - ((word >>> 1) & 0x55555555)
  const fours = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333)
  return Math.imul((fours + (fours >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}
