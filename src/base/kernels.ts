/**
 * XOR of several buffers into one, the arithmetic of RAID5. Buffers in the I/O slab (hal/aligned-pool.ts) are
 * worked on in place by a WebAssembly module with 128-bit SIMD, which is assembled here at start: its code is
 * one loop, so that neither a compiler nor a binary file is needed. Buffers elsewhere take a slower way with
 * the same result. Used by engine/vinum/raid5-*.ts through VinumHost.kernels.
 */
import { assert, defined } from './assert.ts'

/** Bytes that one turn of the loop handles; lengths are multiples of it. Blocks of 512 bytes are. */
const TURN_BYTES = 64
const VECTOR_BYTES = 16
/** Sources that one call of the module takes; more are added in further calls. */
const SOURCES_PER_CALL = 5
/** A run that stays in the first-level cache while further sources are added to it. */
const RUN_BYTES = 8192

/** A part of a buffer, from `offset` on. */
export interface XorSource {
  readonly bytes: Uint8Array
  readonly offset: number
}

export interface Kernels {
  /**
   * into[offset .. offset + length) = XOR of the same length of all sources. One source is copied, none gives
   * zeroes. The destination may be one of the sources; apart from that, they must not overlap it. `length` and
   * all offsets in memory are multiples of 64 and 8 bytes for the fast ways; blocks are.
   */
  xor(into: Uint8Array, offset: number, sources: readonly XorSource[], length: number): void
}

type XorCall = (into: number, length: number, ...sources: number[]) => void

/** The kernels for buffers in `memory`, which must be shared; without one all take the slower way. */
export function createKernels(memory?: WebAssembly.Memory): Kernels {
  return new XorKernels(memory)
}

class XorKernels implements Kernels {
  readonly #slab: ArrayBufferLike | undefined
  /** By the number of sources, from 2. */
  readonly #calls: readonly XorCall[]

  constructor(memory: WebAssembly.Memory | undefined) {
    this.#slab = memory?.buffer
    this.#calls = memory ? instantiate(memory) : []
  }

  xor(into: Uint8Array, offset: number, sources: readonly XorSource[], length: number): void {
    assert(offset + length <= into.length, 'the destination of an XOR has room')
    for (const source of sources) {
      assert(source.offset + length <= source.bytes.length, 'a source of an XOR is long enough')
    }
    const first = sources[0]
    if (!first) {
      into.fill(0, offset, offset + length)
    } else if (sources.length === 1) {
      into.set(first.bytes.subarray(first.offset, first.offset + length), offset)
    } else if (length % TURN_BYTES === 0 && this.#inSlab(into, sources)) {
      this.#xorSlab(into.byteOffset + offset, sources, length)
    } else xorPlain(into, offset, sources, length)
  }

  #inSlab(into: Uint8Array, sources: readonly XorSource[]): boolean {
    if (this.#slab === undefined || into.buffer !== this.#slab) return false
    for (const { bytes } of sources) if (bytes.buffer !== this.#slab) return false
    return true
  }

  #xorSlab(into: number, sources: readonly XorSource[], length: number): void {
    if (sources.length <= SOURCES_PER_CALL) {
      const [one, two, three, four, five] = sources
      const call = this.#call(sources.length)
      // What a call does not take, it does not look at: no list is made for each small write.
      call(into, length, address(one), address(two), address(three), address(four), address(five))
      return
    }
    const at = sources.map(address)
    // A destination that is also a source must be read in the first call: that one overwrites it.
    const own = at.indexOf(into)
    if (own > 0) [at[0], at[own]] = [into, defined(at[0], 'first source')]
    for (let done = 0; done < length; done += RUN_BYTES) {
      const run = Math.min(RUN_BYTES, length - done)
      const here = at.map((address) => address + done)
      this.#call(SOURCES_PER_CALL)(into + done, run, ...here.slice(0, SOURCES_PER_CALL))
      for (let next = SOURCES_PER_CALL; next < here.length; next += SOURCES_PER_CALL - 1) {
        const more = here.slice(next, next + SOURCES_PER_CALL - 1)
        this.#call(more.length + 1)(into + done, run, into + done, ...more)
      }
    }
  }

  #call(sources: number): XorCall {
    return defined(this.#calls[sources - 2], 'an XOR of so many sources')
  }
}

function address(source: XorSource | undefined): number {
  return source ? source.bytes.byteOffset + source.offset : 0
}

/** Without the slab: 8 bytes at once where all addresses allow it, else single bytes. */
function xorPlain(
  into: Uint8Array,
  offset: number,
  sources: readonly XorSource[],
  length: number,
): void {
  const starts = [
    into.byteOffset + offset,
    ...sources.map((one) => one.bytes.byteOffset + one.offset),
  ]
  const wide = length % 8 === 0 && starts.every((start) => start % 8 === 0)
  const target = view(into, offset, length, wide)
  const words = sources.map((source) => view(source.bytes, source.offset, length, wide))
  for (let i = 0; i < target.length; i++) {
    let word = 0
    for (const source of words) word ^= source[i] as number
    target[i] = word
  }
}

/** 32-bit words: those of 64 bits would be BigInts. */
function view(bytes: Uint8Array, offset: number, length: number, wide: boolean) {
  const start = bytes.byteOffset + offset
  return wide
    ? new Int32Array(bytes.buffer, start, length / 4)
    : new Uint8Array(bytes.buffer, start, length)
}

// The module: one function for each number of sources, all alike.
//
//   (func (param $into i32) (param $length i32) (param $s0 i32) … (local $end i32)
//     (local.set $end (i32.add $into $length))
//     (block (br_if 0 (i32.eqz $length))
//       (loop
//         four times: (v128.store offset=16·k $into (v128.xor (v128.load offset=16·k $s0) …))
//         $into += 64; $s0 += 64; …
//         (br_if 0 (i32.lt_u $into $end)))))

function instantiate(memory: WebAssembly.Memory): readonly XorCall[] {
  const instance = new WebAssembly.Instance(new WebAssembly.Module(assemble()), {
    m: { m: memory },
  })
  return Array.from(
    { length: SOURCES_PER_CALL - 1 },
    (_, index) => instance.exports[`x${index + 2}`] as XorCall,
  )
}

/** The bytes of the module (WebAssembly 2.0, binary format; threads proposal for the shared memory). */
function assemble(): Uint8Array {
  const counts = Array.from({ length: SOURCES_PER_CALL - 1 }, (_, index) => index + 2)
  const I32 = 0x7f
  const types = counts.map((count) => [0x60, ...vector(Array(count + 2).fill([I32])), 0x00])
  const memoryImport = [...name('m'), ...name('m'), 0x02, 0x03, ...unsigned(1), ...unsigned(32768)]
  const functions = counts.map((_, index) => unsigned(index))
  const exported = counts.map((count, index) => [...name(`x${count}`), 0x00, ...unsigned(index)])
  const bodies = counts.map((count) => {
    const code = functionBody(count)
    return [...unsigned(code.length), ...code]
  })
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, vector(types)),
    ...section(2, vector([memoryImport])),
    ...section(3, vector(functions)),
    ...section(7, vector(exported)),
    ...section(10, vector(bodies)),
  ])
}

const OP = {
  block: [0x02, 0x40],
  loop: [0x03, 0x40],
  end: [0x0b],
  branchIf: [0x0d, 0x00],
  get: 0x20,
  set: 0x21,
  constant: 0x41,
  isZero: [0x45],
  less: [0x49],
  add: [0x6a],
  load: [0xfd, 0x00],
  store: [0xfd, 0x0b],
  xor: [0xfd, 0x51],
} as const

function functionBody(count: number): readonly number[] {
  const into = 0
  const length = 1
  const end = count + 2
  const sources = Array.from({ length: count }, (_, index) => index + 2)
  const get = (local: number) => [OP.get, ...unsigned(local)]
  const turn: number[] = []
  for (let at = 0; at < TURN_BYTES; at += VECTOR_BYTES) {
    // Alignment hint 0: a request may begin anywhere in its buffer.
    const place = [0x00, ...unsigned(at)]
    turn.push(...get(into))
    sources.forEach((source, index) => {
      turn.push(...get(source), ...OP.load, ...place)
      if (index > 0) turn.push(...OP.xor)
    })
    turn.push(...OP.store, ...place)
  }
  const steps = [into, ...sources].flatMap((local) => [
    ...get(local),
    ...[OP.constant, ...signed(TURN_BYTES)],
    ...OP.add,
    ...[OP.set, ...unsigned(local)],
  ])
  return [
    ...[0x01, 0x01, 0x7f], // one local of type i32
    ...[...get(into), ...get(length), ...OP.add, OP.set, ...unsigned(end)],
    ...OP.block,
    ...[...get(length), ...OP.isZero, ...OP.branchIf],
    ...[...OP.loop, ...turn, ...steps, ...get(into), ...get(end), ...OP.less, ...OP.branchIf],
    ...OP.end,
    ...OP.end,
    ...OP.end,
  ]
}

/** LEB128 without a sign. */
function unsigned(value: number): readonly number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)]
}

/** LEB128 of a positive number with a sign: bit 6 of the last byte must be clear. */
function signed(value: number): readonly number[] {
  return value < 0x40 ? [value] : [(value & 0x7f) | 0x80, ...signed(value >> 7)]
}

function vector(items: readonly (readonly number[])[]): readonly number[] {
  return [...unsigned(items.length), ...items.flat()]
}

function name(text: string): readonly number[] {
  return [...unsigned(text.length), ...Buffer.from(text)]
}

function section(id: number, content: readonly number[]): readonly number[] {
  return [id, ...unsigned(content.length), ...content]
}
