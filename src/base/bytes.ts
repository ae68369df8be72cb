/**
 * Byte ranges and sizes: the words of people (`256KiB`, `1.5TiB`, `64k`) and the numbers of code.
 * Sizes are plain numbers: they are exact up to 2^53 bytes (8 PiB), which `parseSize` enforces.
 */
import { PlexusError } from './errors.ts'

export interface ByteRange {
  readonly offset: number
  readonly length: number
}

const UNIT_BYTES: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
  PiB: 2 ** 50,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  PB: 1e15,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
  s: 512,
}

/**
 * Bytes of a size text: a number, optionally with a fraction, and a unit: none or B, KiB to PiB
 * (powers of 1024), kB to PB (powers of 1000), k m g t (powers of 1024, as vinum and fio write them)
 * or s (512-byte sectors). Throws `invalid` for anything else.
 */
export function parseSize(text: string): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$/.exec(text)
  const unit = match?.[2] ?? ''
  const factor = Object.hasOwn(UNIT_BYTES, unit)
    ? UNIT_BYTES[unit]
    : Object.hasOwn(UNIT_BYTES, unit.toLowerCase())
      ? UNIT_BYTES[unit.toLowerCase()]
      : undefined
  const bytes = match && factor !== undefined ? Number(match[1]) * factor : Number.NaN
  if (!Number.isSafeInteger(bytes)) {
    throw new PlexusError('invalid', {
      op: 'parse',
      subject: text,
      message: `"${text}" is not a size; write a number with B, KiB, MiB, GiB, TiB or kB, MB, GB, TB`,
    })
  }
  return bytes
}

const PRINT_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

/** A size for people: three significant digits and a unit of 1024, `5.46 TiB`, `512 B`. */
export function formatSize(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < PRINT_UNITS.length - 1) {
    value /= 1024
    unit++
  }
  const digits = unit === 0 || Number.isInteger(value) ? 0 : value < 10 ? 2 : value < 100 ? 1 : 0
  return `${value.toFixed(digits)} ${PRINT_UNITS[unit]}`
}

export function isAligned(value: number, alignment: number): boolean {
  return value % alignment === 0
}

export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment
}

export function alignDown(value: number, alignment: number): number {
  return Math.floor(value / alignment) * alignment
}
