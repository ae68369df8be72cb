/** How fast parity is computed, by the kernels that raid5 uses. Called by engine.ts. */
import { performance } from 'node:perf_hooks'
import { defined } from '../src/base/assert.ts'
import { formatSize } from '../src/base/bytes.ts'
import { createKernels, type Kernels, type XorSource } from '../src/base/kernels.ts'
import { KIB, MIB } from '../src/base/limits.ts'
import { createAlignedPool } from '../src/hal/aligned-pool.ts'
import { median, spread } from './statistics.ts'

export interface XorResult {
  readonly name: string
  /** Bytes of all sources, by 1e9. */
  readonly gigabytesPerSecond: number
  readonly spread: number
}

const SOURCES = 4
const POOL_BYTES = 128 * MIB

interface Variant {
  readonly name: string
  readonly length: number
  /** Sets of buffers that take turns; one stays in the cache of the processor. */
  readonly sets: number
  readonly kernels: 'simd' | 'plain'
}

const VARIANTS: readonly Variant[] = [
  { name: 'one set of buffers', length: 4 * KIB, sets: 1, kernels: 'simd' },
  { name: 'one set of buffers', length: 256 * KIB, sets: 1, kernels: 'simd' },
  { name: 'sets in turn', length: 256 * KIB, sets: 64, kernels: 'simd' },
  { name: 'one set of buffers, without the slab', length: 256 * KIB, sets: 1, kernels: 'plain' },
]

/** Each variant for `ms` in each of `rounds` rounds, interleaved. */
export function measureXor(rounds: number, ms: number): readonly XorResult[] {
  const pool = createAlignedPool(POOL_BYTES)
  const kernels = { simd: createKernels(pool.memory), plain: createKernels() }
  const rates = VARIANTS.map((): number[] => [])
  // The first round is for the compiler.
  for (let round = -1; round < rounds; round++) {
    for (const [index, variant] of VARIANTS.entries()) {
      const rate = measure(kernels[variant.kernels], pool.bytes, variant, ms)
      if (round >= 0) defined(rates[index], 'the rates of a variant').push(rate)
    }
  }
  return VARIANTS.map(({ name, length }, index) => ({
    name: `${formatSize(length)}, ${name}`,
    gigabytesPerSecond: median(rates[index] ?? []),
    spread: spread(rates[index] ?? []),
  }))
}

function measure(kernels: Kernels, slab: Buffer, { length, sets }: Variant, ms: number): number {
  const lanes = Array.from({ length: sets }, (_, set) => {
    const at = set * (SOURCES + 1) * length
    const sources = Array.from({ length: SOURCES }, (_, source): XorSource => {
      return { bytes: slab, offset: at + (source + 1) * length }
    })
    return { at, sources }
  })
  let calls = 0
  const startMs = performance.now()
  let nowMs = startMs
  while (nowMs - startMs < ms) {
    for (const { at, sources } of lanes) kernels.xor(slab, at, sources, length)
    calls += sets
    nowMs = performance.now()
  }
  return (calls * SOURCES * length) / ((nowMs - startMs) / 1000) / 1e9
}
