/**
 * What the reads, or the writes, of one session hold of the buffer pool, and may hold: its share of half of it, a third of
 * what the others have left, and nothing of the last quarter but a minimum. An initiator that takes nothing, or sends nothing,
 * thus holds up nobody else, however many there are of it and whoever came first. Used by session.ts.
 */
import { assert } from '../../base/assert.ts'
import { PIECE_BYTES_MIN, POOL_CHUNK_BYTES, POOL_CLASS_BYTES } from '../../base/limits.ts'
import type { BufferPool } from '../../hal/block-device.ts'

export class PoolShare {
  #heldBytes = 0
  readonly #pool: BufferPool
  /** Sessions that share the pool. */
  readonly #sharers: () => number

  constructor(pool: BufferPool, sharers: () => number) {
    this.#pool = pool
    this.#sharers = sharers
  }

  get heldBytes(): number {
    return this.#heldBytes
  }

  /**
   * Takes `wantedBytes`, or for a transfer that goes in pieces what there is room for, and returns how much; 0: there is no
   * room now. Who holds nothing may always have something.
   */
  take(wantedBytes: number, inPieces: boolean): number {
    const held = this.#heldBytes
    const { totalBytes, freeBytes } = this.#pool
    // What this session holds counts among what is left, so that the bound does not fall as it takes.
    const leftBytes = freeBytes + held - totalBytes / 4
    const most = Math.min(totalBytes / 2 / Math.max(1, this.#sharers()), leftBytes / 3)
    let bytes = wantedBytes
    if (inPieces && (held + wantedBytes > most || wantedBytes > POOL_CHUNK_BYTES)) {
      // A whole class: what a lease of another length leaves of its slot is lost to all.
      const room = POOL_CLASS_BYTES.findLast((size) => size <= most - held) ?? 0
      const leastBytes = held === 0 ? PIECE_BYTES_MIN : 0
      bytes = Math.min(wantedBytes, POOL_CHUNK_BYTES, Math.max(room, leastBytes))
      if (bytes < Math.min(wantedBytes, PIECE_BYTES_MIN)) return 0
    } else if (held > 0 && held + wantedBytes > most) {
      return 0
    }
    this.#heldBytes += bytes
    return bytes
  }

  giveBack(bytes: number): void {
    this.#heldBytes -= bytes
    assert(this.#heldBytes >= 0, 'a session gives back what it has taken')
  }
}
