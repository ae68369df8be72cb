/**
 * The shipped buffer pool, seen by one power-up of the simulated machine: when the power goes, everything
 * that was lent out comes back, because nobody of that time runs any more. Leases that a machine at rest has
 * not given back are a leak. Used by world.ts.
 */
import { type AlignedPool, createAlignedPool } from '../../src/hal/aligned-pool.ts'
import type { AlignedBuffer, BufferPool, Lease } from '../../src/hal/block-device.ts'

const POOL_BYTES = 64 * 1024 * 1024

/** What is read after its release must look wrong: at both ends of it, as filling all of it costs a tenth of a run. */
const POISON = 0xdb
const POISONED_BYTES = 16 * 1024

/** One for the process: its memory is a mapping that only the collector would give back. */
export function createSimPool(): AlignedPool {
  return createAlignedPool(POOL_BYTES)
}

export class EpochPool implements BufferPool {
  readonly #pool: AlignedPool
  readonly #out = new Set<Lease>()
  readonly #waiting = new Set<() => void>()
  /** What disks keep, by the way to let it go. */
  readonly #kept = new Set<() => void>()
  #dead = false

  constructor(pool: AlignedPool) {
    this.#pool = pool
  }

  get totalBytes(): number {
    return this.#pool.totalBytes
  }

  get freeBytes(): number {
    return this.#pool.freeBytes
  }

  get leased(): number {
    return this.#out.size
  }

  get keptBytes(): number {
    return this.#pool.keptBytes
  }

  /** The slab, for code that computes in place. */
  get memory(): WebAssembly.Memory {
    return this.#pool.memory
  }

  get bytes(): Buffer {
    return this.#pool.bytes
  }

  get baseAddress(): number {
    return this.#pool.baseAddress
  }

  lease(length: number): Lease | undefined {
    const lease = this.#dead ? undefined : this.#pool.lease(length)
    return lease && this.#track(lease)
  }

  leaseSoon(length: number, deliver: (lease: Lease) => void): () => void {
    if (this.#dead) return () => {}
    let cancel = (): void => {}
    let done = false
    cancel = this.#pool.leaseSoon(length, (lease) => {
      done = true
      this.#waiting.delete(cancel)
      deliver(this.#track(lease))
    })
    if (!done) this.#waiting.add(cancel)
    return cancel
  }

  keep(data: AlignedBuffer): () => void {
    const letGo = this.#pool.keep(data)
    const once = (): void => {
      if (this.#kept.delete(once)) letGo()
    }
    this.#kept.add(once)
    return once
  }

  isKept(data: AlignedBuffer): boolean {
    return this.#pool.isKept(data)
  }

  /** The power is gone. */
  abandon(): void {
    this.#dead = true
    for (const letGo of [...this.#kept]) letGo()
    for (const cancel of this.#waiting) cancel()
    for (const lease of [...this.#out]) lease.release()
  }

  #track(lease: Lease): Lease {
    const out = this.#out
    const isKept = (data: AlignedBuffer): boolean => this.isKept(data)
    const isDead = (): boolean => this.#dead
    const tracked: Lease = {
      bytes: lease.bytes,
      address: lease.address,
      release() {
        if (!out.delete(tracked)) {
          // Of a machine without power: its requests to disks that hang may still come to an end.
          if (isDead()) return
          throw new Error('a lease was released twice')
        }
        if (!isKept(lease)) poison(lease.bytes)
        lease.release()
      },
    }
    out.add(tracked)
    return tracked
  }
}

function poison(bytes: Buffer): void {
  bytes.fill(POISON, 0, Math.min(POISONED_BYTES, bytes.length))
  bytes.fill(POISON, Math.max(0, bytes.length - POISONED_BYTES))
}
