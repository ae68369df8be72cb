/**
 * Where the pages of a copy of the map lie on its component: in runs of physical chunks. Each chunk has the A slots of
 * its pages in its first half and the B slots in the second, so that neighbours are written together, and what damages one
 * slot does not reach the other. Pure.
 */
import { assert } from '../../../base/assert.ts'
import type { ByteRange } from '../../../base/bytes.ts'
import { MAP_PAGE_BYTES } from './page.ts'

/** Physical chunks one after the other. */
export interface Run {
  /** Number of the first. */
  readonly number: number
  readonly count: number
}

/** Physical chunks of the runs together. */
export function lengthOf(runs: readonly Run[]): number {
  return runs.reduce((sum, { count }) => sum + count, 0)
}

/** A or B: two places of a page, each of which has all of it. */
export type Slot = 0 | 1

/** Physical chunks that a copy of so many pages takes. */
export function chunksForPages(pages: number, chunkBytes: number): number {
  return Math.ceil(pages / pagesPerChunk(chunkBytes))
}

function pagesPerChunk(chunkBytes: number): number {
  return Math.floor(chunkBytes / (2 * MAP_PAGE_BYTES))
}

/** Where `count` pages from `first` on lie in a slot, in order: bytes from the start of physical chunk 0. */
export type PagePlaces = (slot: Slot, first: number, count: number) => ByteRange[]

/** Of a copy in these runs; asked for a page behind their end it throws. */
export function pagePlaces(runs: readonly Run[], chunkBytes: number): PagePlaces {
  const inChunk = pagesPerChunk(chunkBytes)
  return (slot, first, count) => {
    const ranges: ByteRange[] = []
    for (let page = first; page < first + count; ) {
      const before = page % inChunk
      const pages = Math.min(inChunk - before, first + count - page)
      const number = chunkAt(runs, Math.floor(page / inChunk))
      const offset = number * chunkBytes + (slot * inChunk + before) * MAP_PAGE_BYTES
      ranges.push({ offset, length: pages * MAP_PAGE_BYTES })
      page += pages
    }
    return ranges
  }
}

function chunkAt(runs: readonly Run[], index: number): number {
  let left = index
  for (const { number, count } of runs) {
    if (left < count) return number + left
    left -= count
  }
  assert(false, `the map has ${index - left} chunks, and not chunk ${index}`)
}
