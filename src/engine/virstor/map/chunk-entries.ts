/**
 * The entries of a chunk map in memory, in pages as they are on disk: 16 bytes for each chunk of a page that has ever had
 * an allocated one, no objects. What {@link MapTable} looks up and sets; lookups are on the way of every request.
 */
import { assert } from '../../../base/assert.ts'
import { VIRSTOR_CHUNKS } from '../../../base/limits.ts'
import type { MapRecord } from '../runtime.ts'
import {
  ENTRY_BYTES,
  ENTRY_WORDS,
  type Entry,
  entryAt,
  HEADER_WORDS,
  isEmptyPage,
  LOST_BIT,
  ownerWord,
  PAGE_ENTRIES,
  PAGE_WORDS,
  pagesFor,
} from './page.ts'

export class ChunkEntries {
  readonly granules: number
  #chunks: number
  /** undefined: no chunk of the page is allocated. */
  readonly #pages: (Uint32Array | undefined)[]
  /** Chunks that {@link isLost}. */
  protected lost = 0

  /** Nothing is allocated. `chunks` of the virtual device, `granules` of a chunk: 1 to 64. */
  constructor({ chunks, granules }: { readonly chunks: number; readonly granules: number }) {
    assert(chunks >= 1 && chunks <= VIRSTOR_CHUNKS, `a device of ${chunks} chunks`)
    assert(granules >= 1 && granules <= 64, `a chunk of ${granules} granules`)
    this.granules = granules
    this.#chunks = chunks
    this.#pages = new Array(pagesFor(chunks)).fill(undefined)
  }

  get chunks(): number {
    return this.#chunks
  }

  get pages(): number {
    return this.#pages.length
  }

  /** The device has grown. Its new pages are on disk, and the new size is in the configuration. */
  resize(chunks: number): void {
    assert(chunks >= this.#chunks && chunks <= VIRSTOR_CHUNKS, `grows to ${chunks} chunks`)
    this.#chunks = chunks
    while (this.#pages.length < pagesFor(chunks)) this.#pages.push(undefined)
  }

  componentOf(chunk: number): number {
    return this.#word(chunk, 3) & 0xffff
  }

  numberOf(chunk: number): number {
    return this.#word(chunk, 2)
  }

  get lostChunks(): number {
    return this.lost
  }

  isLost(chunk: number): boolean {
    return (this.#word(chunk, 3) & LOST_BIT) !== 0
  }

  isValid(chunk: number, first: number, last: number): boolean {
    const low = bits(first, last)
    const high = bits(first - 32, last - 32)
    return (this.#word(chunk, 0) & low) === low && (this.#word(chunk, 1) & high) === high
  }

  runEnd(chunk: number, from: number): number {
    const low = this.#word(chunk, 0) | 0
    const high = this.#word(chunk, 1) | 0
    const isValid = ((from < 32 ? low >> from : high >> (from - 32)) & 1) === 1
    const next = from + 1
    // Ones where it is otherwise, from the next granule on.
    const lowOther = next < 32 ? (isValid ? ~low : low) & (-1 << next) : 0
    if (lowOther !== 0) return Math.min(firstBit(lowOther), this.granules)
    if (next >= 64) return this.granules
    const highOther = (isValid ? ~high : high) & (-1 << Math.max(next - 32, 0))
    return Math.min(highOther === 0 ? 64 : 32 + firstBit(highOther), this.granules)
  }

  /** Of the entry of a chunk: valid granules (0, 1), number (2), component and owner (3). */
  #word(chunk: number, index: number): number {
    const words = this.#pages[pageOf(chunk)]
    return words === undefined ? 0 : (words[wordAt(chunk) + index] as number)
  }

  #made(page: number): Uint32Array {
    assert(page >= 0 && page < this.#pages.length, `page ${page} of ${this.#pages.length}`)
    const words = this.#pages[page] ?? new Uint32Array(PAGE_WORDS)
    this.#pages[page] = words
    return words
  }

  /** A copy. */
  protected entry(chunk: number): MapRecord {
    return {
      chunk,
      component: this.componentOf(chunk),
      number: this.numberOf(chunk),
      validLow: this.#word(chunk, 0),
      validHigh: this.#word(chunk, 1),
      lost: this.isLost(chunk),
    }
  }

  /** As they are in its page: a copy. */
  protected entryBytes(chunk: number): Buffer {
    const at = entryAt(chunk % PAGE_ENTRIES)
    return Buffer.from(bytesOf(this.#made(pageOf(chunk))).subarray(at, at + ENTRY_BYTES))
  }

  protected setEntry(chunk: number, entry: Entry): void {
    const words = this.#made(pageOf(chunk))
    const at = wordAt(chunk)
    this.lost += Number(entry.lost) - Number(this.isLost(chunk))
    words[at] = entry.validLow
    words[at + 1] = entry.validHigh
    words[at + 2] = entry.number
    words[at + 3] = ownerWord(entry)
  }

  /** Pages with entries, in order. */
  protected *usedPages(): Generator<number> {
    for (const [page, words] of this.#pages.entries()) if (words !== undefined) yield page
  }

  /** Is its entry of a form that this version writes? */
  protected isWellFormed(chunk: number): boolean {
    const low = this.#word(chunk, 0)
    const high = this.#word(chunk, 1)
    const last = (this.#word(chunk, 3) & ~LOST_BIT) >>> 0
    if ((last & 0xffff) === 0) return (low | high | this.#word(chunk, 2) | last) === 0
    const { granules } = this
    return last <= 0xffff && ((low & bits(granules, 63)) | (high & bits(granules - 32, 31))) === 0
  }

  /** The live entries of a page, behind room for the header. */
  protected copyPage(page: number, into: Buffer): void {
    const words = this.#pages[page]
    if (words === undefined) into.fill(0)
    else into.set(bytesOf(words))
  }

  /** For {@link MapStore}: the entries of a page on disk. Nothing is checked. */
  loadPage(page: number, bytes: Buffer): void {
    if (!isEmptyPage(bytes)) bytesOf(this.#made(page)).set(bytes)
  }
}

/** The page that has the entry of a chunk. */
export function pageOf(chunk: number): number {
  return Math.floor(chunk / PAGE_ENTRIES)
}

/** Where the entry of a chunk begins in its page. */
function wordAt(chunk: number): number {
  return HEADER_WORDS + (chunk % PAGE_ENTRIES) * ENTRY_WORDS
}

/** The same memory. */
function bytesOf(words: Uint32Array): Buffer {
  return Buffer.from(words.buffer, words.byteOffset, words.byteLength)
}

/** Bits `first` to `last` of a word of 32, as far as they lie in it. */
export function bits(first: number, last: number): number {
  const from = Math.max(first, 0)
  const count = Math.min(last, 31) - from + 1
  return count <= 0 ? 0 : count === 32 ? -1 : ((1 << count) - 1) << from
}

/** The lowest bit of a word that is not zero. */
function firstBit(word: number): number {
  return 31 - Math.clz32(word & -word)
}
