/**
 * Which chunks a rebalance moves: as many as it takes until each component has its part of the data, by its size. Counted once,
 * when it begins; what is written and discarded meanwhile may leave it a little uneven.
 */
import type { ComponentSpace } from '../io/space.ts'
import type { MapTable } from '../map/chunk-map.ts'
import type { Move } from './chunk-mover.ts'

/** What a component has more than its part, in chunks; less: negative. */
export interface Surplus {
  readonly id: number
  chunks: number
}

/** Of the components that can give and take; their sum is zero. */
export function surplusOf(space: readonly ComponentSpace[]): readonly Surplus[] {
  const all = space
    .filter(({ component, emptying }) => component.consumer && !emptying)
    .map(({ component: { id }, total, used, reserved }) => ({
      id,
      room: total - reserved,
      data: used - reserved,
    }))
  const room = all.reduce((sum, one) => sum + one.room, 0)
  const data = all.reduce((sum, one) => sum + one.data, 0)
  const parts = all.map((one) => {
    const part = room === 0 ? 0 : Math.floor((data * one.room) / room)
    return { id: one.id, chunks: one.data - part }
  })
  // What is left of the division stays with those that have most.
  let rest = parts.reduce((sum, { chunks }) => sum + chunks, 0)
  for (const part of [...parts].sort((a, b) => b.chunks - a.chunks)) {
    if (rest === 0) break
    part.chunks--
    rest--
  }
  return parts
}

/** Chunks that move. */
export function movesOf(surplus: readonly Surplus[]): number {
  return surplus.reduce((sum, { chunks }) => sum + Math.max(0, chunks), 0)
}

export class Rebalancing {
  readonly chunks: number
  readonly #map: MapTable
  readonly #surplus: readonly Surplus[]
  /** By component: where it looks next for a chunk to move. */
  readonly #next = new Map<number, number>()

  constructor(map: MapTable, space: readonly ComponentSpace[]) {
    this.#map = map
    this.#surplus = surplusOf(space)
    this.chunks = movesOf(this.#surplus)
  }

  /** The next one, from who has most to who has least; undefined: that was the last. */
  next(): Move | undefined {
    for (;;) {
      const ordered = [...this.#surplus].sort((a, b) => b.chunks - a.chunks)
      const [from, to] = [ordered[0], ordered.at(-1)]
      if (!from || !to || from.chunks <= 0 || to.chunks >= 0) return undefined
      const chunk = this.#chunkOn(from.id)
      // Discarded since.
      if (chunk === undefined) from.chunks = 0
      else {
        from.chunks--
        to.chunks++
        return { chunk, from: from.id, to: to.id }
      }
    }
  }

  #chunkOn(id: number): number | undefined {
    const map = this.#map
    for (;;) {
      const number = map.nextChunkOn(id, this.#next.get(id) ?? 0)
      if (number === -1) return undefined
      this.#next.set(id, number + 1)
      const chunk = map.ownerOf({ component: id, number })
      // Else the next commit frees the place, or nobody knows what is there.
      if (map.componentOf(chunk) === id && map.numberOf(chunk) === number) return chunk
    }
  }
}
