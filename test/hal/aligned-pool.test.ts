/** The slab: alignment, classes, recycling, order of waiters, and what must never happen. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { KIB, MIB, PAGE_BYTES, POOL_CHUNK_BYTES, POOL_CLASS_BYTES } from '../../src/base/limits.ts'
import type { AlignedPool } from '../../src/hal/aligned-pool.ts'
import { allocateAligned, createAlignedPool, POISON_BYTE } from '../../src/hal/aligned-pool.ts'
import type { Lease } from '../../src/hal/block-device.ts'

const TOTAL_BYTES = 8 * POOL_CHUNK_BYTES

function take(pool: AlignedPool, length: number): Lease {
  const lease = pool.lease(length)
  if (!lease) throw new Error(`no lease of ${length} bytes`)
  return lease
}

/** Leases of one length until there is none. */
function exhaust(pool: AlignedPool, length: number): Lease[] {
  const leases: Lease[] = []
  for (let lease = pool.lease(length); lease; lease = pool.lease(length)) leases.push(lease)
  return leases
}

t.test('a lease is page-aligned, as long as asked for, and lies in the slab', async (t) => {
  const pool = createAlignedPool(TOTAL_BYTES, { poison: true })
  for (const length of [1, 512, 4096, 4097, 64 * KIB, 300 * KIB, 4 * MIB]) {
    const lease = take(pool, length)
    t.equal(lease.bytes.length, length)
    t.equal(lease.address % PAGE_BYTES, 0)
    const offset = lease.address - pool.baseAddress
    lease.bytes.fill(0x5a)
    t.ok(pool.bytes.subarray(offset, offset + length).equals(lease.bytes), 'address and view agree')
    lease.release()
    t.equal(pool.bytes[offset], POISON_BYTE, 'released memory is poisoned')
  }
  t.equal(pool.leased, 0)
  t.equal(pool.freeBytes, TOTAL_BYTES)
  t.equal(new Uint8Array(pool.memory.buffer).length, TOTAL_BYTES)
})

/** `VmFlags` of the mapping that holds an address (proc(5)). */
function mappingFlags(address: number): readonly string[] {
  const mappings = readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)
  const found = mappings.find((text) => {
    const [from = 0, to = 0] = (/^\S+/.exec(text)?.[0] ?? '')
      .split('-')
      .map((one) => parseInt(one, 16))
    return from <= address && address < to
  })
  return (
    /^VmFlags: (.*)$/m
      .exec(found ?? '')?.[1]
      ?.trim()
      .split(' ') ?? []
  )
}

t.test('a child process gets nothing of the slab', async (t) => {
  const pool = createAlignedPool(TOTAL_BYTES)
  for (const at of [0, TOTAL_BYTES - 1]) {
    t.ok(mappingFlags(pool.baseAddress + at).includes('dc'), 'MADV_DONTFORK')
  }
  for (const length of [512, 4096, 4097]) {
    const { bytes, address } = allocateAligned(length)
    const pagesEnd = Math.ceil((address + length) / PAGE_BYTES) * PAGE_BYTES
    const roomEnd = address - bytes.byteOffset + bytes.buffer.byteLength
    t.ok(pagesEnd <= roomEnd, `the last page of ${length} bytes is nobody else's`)
  }
})

t.test('every class fills the whole pool without overlap, and gives it back', async (t) => {
  const pool = createAlignedPool(TOTAL_BYTES)
  for (const length of POOL_CLASS_BYTES) {
    const leases = exhaust(pool, length)
    t.equal(leases.length, TOTAL_BYTES / length, `${length}: all slots`)
    t.equal(new Set(leases.map((lease) => lease.address)).size, leases.length)
    t.equal(pool.freeBytes, 0)
    t.equal(pool.leased, leases.length)
    // Every other one first, so that chunks become partly free in odd orders.
    for (const lease of leases.filter((_, i) => i % 2 === 0)) lease.release()
    for (const lease of leases.filter((_, i) => i % 2 === 1)) lease.release()
    t.equal(pool.leased, 0)
  }
})

t.test('a lease takes a slot of a larger class before it fails', async (t) => {
  const pool = createAlignedPool(2 * POOL_CHUNK_BYTES)
  const large = [take(pool, MIB), take(pool, 256 * KIB)]
  const small = take(pool, 4 * KIB)
  t.equal(small.bytes.length, 4 * KIB)
  t.equal(pool.freeBytes, 2 * POOL_CHUNK_BYTES - MIB - 2 * 256 * KIB)
  t.equal(pool.lease(4 * MIB), undefined)
  for (const lease of [...large, small]) lease.release()
  take(pool, 4 * MIB).release()
})

t.test('the steady state hands out the same object and the same view', async (t) => {
  const pool = createAlignedPool(TOTAL_BYTES)
  const first = take(pool, 8 * KIB)
  const view = first.bytes
  first.release()
  const second = take(pool, 8 * KIB)
  t.equal(second, first)
  t.equal(second.bytes, view)
  second.release()
  const shorter = take(pool, 8 * KIB - 512)
  t.equal(shorter.bytes.length, 8 * KIB - 512)
  shorter.release()
})

t.test('a second release is a defect', async (t) => {
  const pool = createAlignedPool(TOTAL_BYTES, { poison: true })
  const lease = take(pool, 512)
  lease.release()
  t.throws(() => lease.release(), /released twice/)
  const next = take(pool, 512)
  t.equal(next.address, lease.address)
  t.throws(() => lease.release(), /released twice/, 'also when the slot has a new owner')
  t.equal(pool.leased, 1)
  next.release()
  t.throws(() => pool.lease(POOL_CHUNK_BYTES + 1), /lease of/)
  t.throws(() => pool.lease(0), /lease of/)
  t.throws(() => createAlignedPool(POOL_CHUNK_BYTES + 1), /whole chunks/)
})

t.test('waiters are served in order, and nobody overtakes them', async (t) => {
  const pool = createAlignedPool(2 * POOL_CHUNK_BYTES)
  const held = exhaust(pool, 64 * KIB)
  const served: number[] = []
  const got: Lease[] = []
  const wait = (length: number) =>
    pool.leaseSoon(length, (lease) => {
      served.push(length)
      got.push(lease)
    })
  wait(4 * MIB)
  const cancel = wait(MIB)
  wait(4 * KIB)
  held.pop()?.release()
  t.same(served, [], 'a small one does not pass a large one that waits')
  t.equal(pool.lease(512), undefined, 'nor does a newcomer')
  cancel()
  cancel()
  for (const lease of held.splice(0)) lease.release()
  t.same(served, [4 * MIB, 4 * KIB])
  for (const lease of got) lease.release()
  t.equal(pool.leased, 0)
  t.equal(take(pool, 512).bytes.length, 512)
})

t.test('leaseSoon delivers at once when it can, and a cancelled head lets others go', async (t) => {
  const pool = createAlignedPool(POOL_CHUNK_BYTES)
  const got: Lease[] = []
  pool.leaseSoon(MIB, (lease) => got.push(lease))
  t.equal(got.length, 1)
  const cancelHead = pool.leaseSoon(4 * MIB, () => t.fail('cancelled'))
  pool.leaseSoon(MIB, (lease) => got.push(lease))
  t.equal(got.length, 1)
  cancelHead()
  t.equal(got.length, 2)
  // A waiter that gives back at once from within its delivery keeps the order.
  const order: string[] = []
  const rest = exhaust(pool, MIB)
  for (const name of ['a', 'b', 'c']) {
    pool.leaseSoon(MIB, (lease) => {
      order.push(name)
      lease.release()
    })
  }
  rest.pop()?.release()
  t.same(order, ['a', 'b', 'c'])
  for (const lease of [...got, ...rest]) lease.release()
  t.equal(pool.leased, 0)
})

t.test('a random life keeps the books', async (t) => {
  const pool = createAlignedPool(TOTAL_BYTES, { poison: true })
  const live: { lease: Lease; mark: number }[] = []
  let seed = 12345
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff
    return (seed >>> 8) % below
  }
  let damaged = 0
  for (let i = 0; i < 20_000; i++) {
    if (random(100) < 52) {
      const lease = pool.lease(1 + random(random(10) === 0 ? 4 * MIB : 20 * KIB))
      if (!lease) continue
      const mark = i & 0x7f
      lease.bytes[0] = mark
      lease.bytes[lease.bytes.length - 1] = mark
      live.push({ lease, mark })
    } else if (live.length > 0) {
      const at = random(live.length)
      const { lease, mark } = live[at] as { lease: Lease; mark: number }
      live[at] = live[live.length - 1] as { lease: Lease; mark: number }
      live.pop()
      if (lease.bytes[0] !== mark || lease.bytes.at(-1) !== mark) damaged++
      lease.release()
    }
  }
  t.equal(damaged, 0, 'no lease was written by another')
  t.equal(pool.leased, live.length)
  for (const { lease } of live) lease.release()
  t.equal(pool.freeBytes, TOTAL_BYTES)
  t.equal(exhaust(pool, 4 * MIB).length, TOTAL_BYTES / POOL_CHUNK_BYTES, 'all chunks came back')
})

t.test('memory that a disk keeps is lent to nobody else, whoever gives it back', async (t) => {
  const pool = createAlignedPool(TOTAL_BYTES, { poison: true })
  const lease = pool.lease(16 * KIB) as Lease
  const part = { bytes: lease.bytes.subarray(4096, 8192), address: lease.address + 4096 }
  t.notOk(pool.isKept(lease))
  const first = pool.keep(part)
  const second = pool.keep(lease)
  t.ok(pool.isKept(lease))
  t.equal(pool.keptBytes, 0, 'it is still leased')
  lease.bytes.fill(1)
  lease.release()
  t.throws(() => lease.release(), /twice/)
  t.equal(pool.keptBytes, 16 * KIB)
  t.equal(pool.leased, 1)
  const others = exhaust(pool, 16 * KIB)
  t.equal(others.length, TOTAL_BYTES / (16 * KIB) - 1)
  t.notOk(others.some(({ address }) => address === lease.address))
  for (const other of others) other.release()
  first()
  t.equal(pool.leased, 1)
  t.ok(
    lease.bytes.every((byte) => byte === 1),
    'not poisoned: the disk may still send it',
  )
  second()
  t.same([pool.leased, pool.keptBytes, pool.freeBytes], [0, 0, TOTAL_BYTES])

  const read = pool.lease(4096) as Lease
  pool.keep(read)()
  t.ok(pool.isKept(read), 'what came late may be in it')
  read.release()
  const next = pool.lease(4096) as Lease
  t.notOk(pool.isKept(next))
  next.release()

  const own = allocateAligned(8192)
  const letGo = pool.keep({ bytes: own.bytes.subarray(0, 4096), address: own.address })
  t.ok(pool.isKept(own))
  t.notOk(pool.isKept({ bytes: own.bytes.subarray(4096), address: own.address + 4096 }))
  letGo()
  t.notOk(pool.isKept(own))
})

t.test('allocateAligned is aligned, zeroed and of its own', async (t) => {
  const a = allocateAligned(512)
  const b = allocateAligned(512)
  t.equal(a.address % PAGE_BYTES, 0)
  t.equal(a.bytes.length, 512)
  t.ok(a.bytes.every((byte) => byte === 0))
  t.not(a.address, b.address)
})
