import fc from 'fast-check'
import t from 'tap'
import { createKernels } from '../../src/base/kernels.ts'

const memory = new WebAssembly.Memory({ initial: 32, maximum: 32, shared: true })
const slab = Buffer.from(memory.buffer)
for (let i = 0; i < slab.length; i++) slab[i] = (i * 2654435761) >>> 13
const kernels = createKernels(memory)

function naive(parts: readonly Buffer[], length: number): Buffer {
  const result = Buffer.alloc(length)
  for (const part of parts)
    for (let i = 0; i < length; i++) result[i] = (result[i] ?? 0) ^ (part[i] ?? 0)
  return result
}

t.test('any number of sources, in the slab or not, gives the same as byte by byte', async (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(20), { maxLength: 12 }),
      fc.constantFrom(64, 512, 4096, 8256, 20_480, 72, 13),
      fc.boolean(),
      fc.nat(12),
      (places, length, inSlab, ownIndex) => {
        const bytes = inSlab ? slab : Buffer.from(slab.subarray(0, 21 * 32768))
        // Distinct places, so that the destination overlaps none but, at times, one of its sources.
        const offsets = [...new Set(places)].map((place) => place * 32768)
        const own = offsets[ownIndex]
        const into = own ?? 25 * 32768
        const target = inSlab || own !== undefined ? bytes : Buffer.alloc(26 * 32768)
        const parts = offsets.map((offset) => Buffer.from(bytes.subarray(offset, offset + length)))
        const after = target[into + length]
        kernels.xor(
          target,
          into,
          offsets.map((offset) => ({ bytes, offset })),
          length,
        )
        t.ok(naive(parts, length).equals(target.subarray(into, into + length)))
        t.equal(target[into + length], after, 'nothing behind the end is touched')
      },
    ),
    { numRuns: 120 },
  )
})

t.test('without a slab, and with sources in and outside of it', async (t) => {
  const outside = Buffer.from(slab.subarray(0, 4096))
  const inside = slab.subarray(8192, 12_288)
  const expected = naive([outside, inside], 4096)
  for (const kernel of [kernels, createKernels()]) {
    const into = Buffer.alloc(4096)
    const sources = [outside, inside].map((bytes) => ({ bytes, offset: 0 }))
    kernel.xor(into, 0, sources, 4096)
    t.ok(into.equals(expected))
    kernel.xor(into, 0, [], 4096)
    t.ok(into.equals(Buffer.alloc(4096)), 'no source gives zeroes')
  }
})

t.test('what does not fit is refused', async (t) => {
  const small = Buffer.alloc(64)
  t.throws(() => kernels.xor(small, 8, [{ bytes: slab, offset: 0 }], 64), /destination/)
  t.throws(() => kernels.xor(slab, 0, [{ bytes: small, offset: 8 }], 64), /source/)
})
