/**
 * The one slab of I/O memory: a shared WebAssembly memory, page-aligned, at a fixed address, which the
 * kernel reads and writes directly, sockets send from, worker threads and WASM code see. Leases come
 * in size classes ({@link POOL_CLASS_BYTES}); a class takes chunks of {@link POOL_CHUNK_BYTES} when it
 * needs them and gives a chunk back when all of its slots are free. In the steady state a lease
 * allocates nothing: a slot keeps its Lease object and the last view that it handed out.
 *
 *   slab    | chunk 0: 64 x 64 KiB | chunk 1: 1024 x 4 KiB | chunk 2: free | ...
 *
 * Called by the target (data of commands), the engine (scratch), start-up code through leaseSoon.
 */
import { assert, defined } from '../base/assert.ts'
import { alignUp } from '../base/bytes.ts'
import { PAGE_BYTES, POOL_BYTES_MAX, POOL_CHUNK_BYTES, POOL_CLASS_BYTES } from '../base/limits.ts'
import type { AlignedBuffer, BufferPool, Lease } from './block-device.ts'
import { bytesAddress, keepFromChildren, memoryAddress } from './libc.ts'

const WASM_PAGE_BYTES = 65536
/** What released memory holds in a pool that poisons: a pattern that no test data uses. */
export const POISON_BYTE = 0xa5

export interface AlignedPoolOptions {
  /**
   * For tests: fills released memory with {@link POISON_BYTE}, and never hands the same Lease object
   * out twice, so that a second release by a former owner is always found.
   */
  readonly poison?: boolean
}

/** One slot of a chunk while the chunk belongs to its class: the recycled Lease. */
class Slot implements Lease {
  readonly chunk: Chunk
  readonly address: number
  readonly offset: number
  bytes: Buffer
  out = false
  /** Requests of disks that do not answer, and whether there was one since it was leased. */
  keepers = 0
  kept = false

  constructor(chunk: Chunk, offset: number, bytes: Buffer) {
    this.chunk = chunk
    this.offset = offset
    this.address = chunk.pool.baseAddress + offset
    this.bytes = bytes
  }

  release(): void {
    assert(this.out, `lease of ${this.bytes.length} bytes at ${this.offset} released twice`)
    this.out = false
    this.chunk.pool.release(this)
  }
}

class Chunk {
  readonly pool: SlabPool
  readonly offset: number
  /** Index into POOL_CLASS_BYTES; -1 before first use. Stays while the chunk is free. */
  classIndex = -1
  slotBytes = 0
  slotCount = 0
  /** Slots made so far, and those of them that are free, last released first. */
  made = 0
  readonly free: Slot[] = []
  /** All slots made so far, in order of address. */
  readonly slots: Slot[] = []
  out = 0
  /** Neighbours among the chunks of the class that have a free slot. */
  previous: Chunk | undefined = undefined
  next: Chunk | undefined = undefined
  listed = false

  constructor(pool: SlabPool, offset: number) {
    this.pool = pool
    this.offset = offset
  }

  /** Gives the chunk to a class. Its cached slots survive when it comes back to the same class. */
  assign(classIndex: number): void {
    assert(this.out === 0, 'a chunk changes its class only when it is free')
    if (this.classIndex === classIndex) return
    this.classIndex = classIndex
    this.slotBytes = defined(POOL_CLASS_BYTES[classIndex], 'size class')
    this.slotCount = POOL_CHUNK_BYTES / this.slotBytes
    this.made = 0
    this.free.length = 0
    this.slots.length = 0
  }
}

/** The chunks of one class that have a free slot; the first is used until it is full. */
class ChunkList {
  first: Chunk | undefined = undefined
  #last: Chunk | undefined = undefined

  append(chunk: Chunk): void {
    chunk.previous = this.#last
    chunk.next = undefined
    if (this.#last) this.#last.next = chunk
    else this.first = chunk
    this.#last = chunk
    chunk.listed = true
  }

  remove(chunk: Chunk): void {
    if (chunk.previous) chunk.previous.next = chunk.next
    else this.first = chunk.next
    if (chunk.next) chunk.next.previous = chunk.previous
    else this.#last = chunk.previous
    chunk.previous = undefined
    chunk.next = undefined
    chunk.listed = false
  }
}

interface Waiter {
  readonly length: number
  readonly deliver: (lease: Lease) => void
}

/** The smallest class that holds `length` bytes. */
function classFor(length: number): number {
  for (let index = 0; index < POOL_CLASS_BYTES.length; index++) {
    if (length <= (POOL_CLASS_BYTES[index] as number)) return index
  }
  return -1
}

class SlabPool implements AlignedPool {
  readonly totalBytes: number
  readonly memory: WebAssembly.Memory
  readonly bytes: Buffer
  readonly baseAddress: number
  readonly #poison: boolean
  /** All of them, in order of address. */
  readonly #chunks: readonly Chunk[]
  readonly #freeChunks: Chunk[]
  readonly #partial: readonly ChunkList[] = POOL_CLASS_BYTES.map(() => new ChunkList())
  /** In order of arrival; a Set, since a cancelled waiter leaves from the middle. */
  readonly #waiters = new Set<Waiter>()
  #serving = false
  #leased = 0
  #outBytes = 0
  /** Slots that are or were kept since they were leased, and the bytes of those that were released. */
  #keptSlots = 0
  #keptBytes = 0
  /** Memory of others that disks keep. */
  readonly #foreign = new Set<AlignedBuffer>()

  constructor(totalBytes: number, poison: boolean) {
    assert(
      totalBytes > 0 && totalBytes <= POOL_BYTES_MAX && totalBytes % POOL_CHUNK_BYTES === 0,
      `a pool of ${totalBytes} bytes: must be whole chunks of ${POOL_CHUNK_BYTES}, at most ${POOL_BYTES_MAX}`,
    )
    const pages = totalBytes / WASM_PAGE_BYTES
    this.totalBytes = totalBytes
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
    this.bytes = Buffer.from(this.memory.buffer, 0, totalBytes)
    this.baseAddress = memoryAddress(this.memory)
    assert(this.baseAddress % PAGE_BYTES === 0, 'WebAssembly memory is page-aligned')
    keepFromChildren(this.baseAddress, totalBytes)
    this.#poison = poison
    this.#chunks = Array.from(
      { length: totalBytes / POOL_CHUNK_BYTES },
      (_, index) => new Chunk(this, index * POOL_CHUNK_BYTES),
    )
    this.#freeChunks = this.#chunks.toReversed()
  }

  get leased(): number {
    return this.#leased
  }

  get freeBytes(): number {
    return this.totalBytes - this.#outBytes
  }

  lease(length: number): Lease | undefined {
    // Those who wait come first, or a large one would starve behind a stream of small ones.
    if (this.#waiters.size > 0) return undefined
    return this.#take(length)
  }

  leaseSoon(length: number, deliver: (lease: Lease) => void): () => void {
    const lease = this.lease(length)
    if (lease) {
      deliver(lease)
      return () => {}
    }
    const waiter: Waiter = { length, deliver }
    this.#waiters.add(waiter)
    return () => {
      if (this.#waiters.delete(waiter)) this.#serve()
    }
  }

  get keptBytes(): number {
    return this.#keptBytes
  }

  keep(data: AlignedBuffer): () => void {
    const slot = this.#slotAt(data.address)
    if (!slot) {
      const one = { ...data }
      this.#foreign.add(one)
      return () => this.#foreign.delete(one)
    }
    slot.keepers++
    if (!slot.kept) this.#keptSlots++
    slot.kept = true
    return () => {
      slot.keepers--
      if (slot.keepers > 0 || slot.out) return
      this.#keptBytes -= slot.chunk.slotBytes
      this.#takeBack(slot)
    }
  }

  isKept(data: AlignedBuffer): boolean {
    // Asked for each read.
    if (this.#keptSlots === 0 && this.#foreign.size === 0) return false
    const { address, bytes } = data
    for (const one of this.#foreign) {
      const overlaps =
        address < one.address + one.bytes.length && one.address < address + bytes.length
      if (overlaps) return true
    }
    return this.#slotAt(address)?.kept ?? false
  }

  #slotAt(address: number): Slot | undefined {
    const offset = address - this.baseAddress
    const chunk = offset < 0 ? undefined : this.#chunks[Math.floor(offset / POOL_CHUNK_BYTES)]
    return chunk?.slots[Math.floor((offset - chunk.offset) / chunk.slotBytes)]
  }

  /** Only {@link Slot.release} calls it. */
  release(slot: Slot): void {
    if (slot.keepers > 0) this.#keptBytes += slot.chunk.slotBytes
    else this.#takeBack(slot)
  }

  #takeBack(slot: Slot): void {
    const chunk = slot.chunk
    if (slot.kept) this.#keptSlots--
    slot.kept = false
    this.#leased--
    this.#outBytes -= chunk.slotBytes
    chunk.out--
    if (this.#poison) {
      this.bytes.fill(POISON_BYTE, slot.offset, slot.offset + chunk.slotBytes)
      const next = new Slot(chunk, slot.offset, slot.bytes)
      chunk.slots[(slot.offset - chunk.offset) / chunk.slotBytes] = next
      chunk.free.push(next)
    } else {
      chunk.free.push(slot)
    }
    const list = defined(this.#partial[chunk.classIndex], 'size class')
    if (chunk.out === 0) {
      if (chunk.listed) list.remove(chunk)
      this.#freeChunks.push(chunk)
    } else if (!chunk.listed) {
      list.append(chunk)
    }
    if (this.#waiters.size > 0) this.#serve()
  }

  #take(length: number): Lease | undefined {
    const wanted = classFor(length)
    assert(wanted >= 0 && length > 0, `a lease of ${length} bytes: 1 to ${POOL_CHUNK_BYTES} exist`)
    const chunk = this.#chunkWithSlot(wanted)
    if (!chunk) return undefined
    const slot = chunk.free.pop() ?? this.#makeSlot(chunk, length)
    if (++chunk.out === chunk.slotCount) {
      defined(this.#partial[chunk.classIndex], 'size class').remove(chunk)
    }
    slot.out = true
    if (slot.bytes.length !== length) {
      slot.bytes = this.bytes.subarray(slot.offset, slot.offset + length)
    }
    this.#leased++
    this.#outBytes += chunk.slotBytes
    return slot
  }

  /** A chunk of the class; else a free chunk; else one of a larger class, before giving up. */
  #chunkWithSlot(wanted: number): Chunk | undefined {
    const own = this.#partial[wanted]?.first
    if (own) return own
    const free = this.#takeFreeChunk(wanted)
    if (free) return free
    for (let index = wanted + 1; index < this.#partial.length; index++) {
      const larger = this.#partial[index]?.first
      if (larger) return larger
    }
    return undefined
  }

  #takeFreeChunk(wanted: number): Chunk | undefined {
    const free = this.#freeChunks
    let index = free.length - 1
    // The one released last, unless another still has the slots of this class; few steps, since a
    // chunk that alternates lies near the end.
    for (let i = index; i >= 0 && i > free.length - 8; i--) {
      if (free[i]?.classIndex === wanted) {
        index = i
        break
      }
    }
    if (index < 0) return undefined
    const chunk = defined(free[index], 'free chunk')
    free[index] = defined(free.at(-1), 'free chunk')
    free.pop()
    chunk.assign(wanted)
    defined(this.#partial[wanted], 'size class').append(chunk)
    return chunk
  }

  #makeSlot(chunk: Chunk, length: number): Slot {
    const offset = chunk.offset + chunk.made * chunk.slotBytes
    assert(chunk.made < chunk.slotCount, 'a listed chunk has a slot')
    chunk.made++
    const slot = new Slot(chunk, offset, this.bytes.subarray(offset, offset + length))
    chunk.slots.push(slot)
    return slot
  }

  /** Serves waiters in order until one has to wait. `deliver` may lease and release: the loop sees it. */
  #serve(): void {
    if (this.#serving) return
    this.#serving = true
    try {
      for (const waiter of this.#waiters) {
        const lease = this.#take(waiter.length)
        if (!lease) break
        this.#waiters.delete(waiter)
        waiter.deliver(lease)
      }
    } finally {
      this.#serving = false
    }
  }
}

export interface AlignedPool extends BufferPool {
  /** The slab; `initial` = `maximum`, shared. */
  readonly memory: WebAssembly.Memory
  /** All of the slab. */
  readonly bytes: Buffer
  /** Address of its first byte in this process, for every thread of it. */
  readonly baseAddress: number
}

/**
 * Makes the pool. `totalBytes` is a whole number of chunks, at most {@link POOL_BYTES_MAX}; the memory
 * is reserved now and used when touched. While somebody waits in `leaseSoon`, `lease` answers
 * undefined: whoever holds one lease must not wait for another one without a bound.
 */
export function createAlignedPool(
  totalBytes: number,
  options: AlignedPoolOptions = {},
): AlignedPool {
  return new SlabPool(totalBytes, options.poison ?? false)
}

/**
 * Zeroed, page-aligned bytes outside the pool, for as long as the result is referenced: constant
 * buffers and start-up code. It has its pages to itself: a page that this process writes to while a disk does, too, would
 * lose what the disk writes if the process forks meanwhile (open(2), notes on O_DIRECT). Costs one page more than
 * `length` and up to one to fill the last.
 */
export function allocateAligned(length: number): AlignedBuffer {
  const room = Buffer.alloc(alignUp(length, PAGE_BYTES) + PAGE_BYTES)
  const address = bytesAddress(room)
  const start = alignUp(address, PAGE_BYTES) - address
  return { bytes: room.subarray(start, start + length), address: address + start }
}
