/**
 * CRC32C (Castagnoli), as RFC 7143, 13.1 and our on-disk formats use it: polynomial 1EDC6F41h,
 * reflected, initial and final value all ones. Short inputs (a 48-byte header) go through a
 * slice-by-8 table in JavaScript, since a call into native code costs more than they do; longer ones
 * use the CPU's instruction through @node-rs/crc32.
 */
import { crc32c as nativeCrc32c } from '@node-rs/crc32'

const REFLECTED_POLYNOMIAL = 0x82f63b78
/** Below this length the table is faster than the call. */
const NATIVE_FROM_BYTES = 256

const TABLES: readonly Int32Array[] = makeTables()

function makeTables(): Int32Array[] {
  const tables = Array.from({ length: 8 }, () => new Int32Array(256))
  const first = tables[0] as Int32Array
  for (let i = 0; i < 256; i++) {
    let crc = i
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ REFLECTED_POLYNOMIAL : crc >>> 1
    first[i] = crc
  }
  for (let i = 0; i < 256; i++) {
    let crc = first[i] as number
    for (let t = 1; t < 8; t++) {
      crc = (crc >>> 8) ^ (first[crc & 0xff] as number)
      ;(tables[t] as Int32Array)[i] = crc
    }
  }
  return tables
}

const [T0, T1, T2, T3, T4, T5, T6, T7] = TABLES as unknown as readonly [
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
]

function tableCrc32c(bytes: Uint8Array, seed: number): number {
  let crc = ~seed
  let at = 0
  const end8 = bytes.length & ~7
  while (at < end8) {
    const low =
      crc ^
      ((bytes[at] as number) |
        ((bytes[at + 1] as number) << 8) |
        ((bytes[at + 2] as number) << 16) |
        ((bytes[at + 3] as number) << 24))
    crc =
      (T7[low & 0xff] as number) ^
      (T6[(low >>> 8) & 0xff] as number) ^
      (T5[(low >>> 16) & 0xff] as number) ^
      (T4[low >>> 24] as number) ^
      (T3[bytes[at + 4] as number] as number) ^
      (T2[bytes[at + 5] as number] as number) ^
      (T1[bytes[at + 6] as number] as number) ^
      (T0[bytes[at + 7] as number] as number)
    at += 8
  }
  for (; at < bytes.length; at++) {
    crc = (crc >>> 8) ^ (T0[(crc ^ (bytes[at] as number)) & 0xff] as number)
  }
  return ~crc >>> 0
}

/**
 * CRC32C of `bytes` as an unsigned 32-bit number. `seed` is the CRC of what came before, so that
 * crc32c(b, crc32c(a)) is the CRC of a followed by b; 0 to begin.
 */
export function crc32c(bytes: Uint8Array, seed = 0): number {
  return bytes.length < NATIVE_FROM_BYTES ? tableCrc32c(bytes, seed) : nativeCrc32c(bytes, seed)
}
