/**
 * Scratch memory of a RAID5 plex: from the pool, and when that has none, from one reserve that a plex allocates for
 * itself. A write holds its data in the pool while it waits for scratch; if all of the pool were held like that,
 * nobody would ever go on. With the reserve one row always does.
 */
import { assert } from '../../../base/assert.ts'
import { RAID5_SCRATCH_BYTES } from '../../../base/limits.ts'
import { allocateAligned } from '../../../hal/aligned-pool.ts'
import type { AlignedBuffer, BufferPool, Lease } from '../../../hal/block-device.ts'

interface Waiter {
  readonly length: number
  readonly deliver: (lease: Lease) => void
}

export class Scratch {
  readonly #pool: BufferPool
  #reserve: AlignedBuffer | undefined
  #lent = false
  /** In order of arrival; none while the reserve is there. */
  readonly #waiters: Waiter[] = []

  constructor(pool: BufferPool) {
    this.#pool = pool
  }

  /** At most {@link RAID5_SCRATCH_BYTES}. `deliver` runs at once where there is some, else in order of arrival. */
  take(length: number, deliver: (lease: Lease) => void): void {
    assert(length > 0 && length <= RAID5_SCRATCH_BYTES, `${length} bytes of scratch`)
    this.#waiters.push({ length, deliver })
    this.#serve()
  }

  /** Waiters are served from the pool, or when the reserve is returned. */
  #serve(): void {
    for (let waiter = this.#waiters[0]; waiter; waiter = this.#waiters[0]) {
      const lease = this.#pool.lease(waiter.length)
      if (!lease && this.#lent) return
      this.#waiters.shift()
      waiter.deliver(lease ?? this.#lend(waiter.length))
    }
  }

  #lend(length: number): Lease {
    this.#lent = true
    this.#reserve ??= allocateAligned(RAID5_SCRATCH_BYTES)
    const { bytes, address } = this.#reserve
    return {
      bytes: bytes.subarray(0, length),
      address,
      release: () => {
        // A disk that does not answer may still use it: that disk may have it, and the next one gets another.
        if (this.#pool.isKept({ bytes, address })) this.#reserve = undefined
        this.#lent = false
        this.#serve()
      },
    }
  }
}
