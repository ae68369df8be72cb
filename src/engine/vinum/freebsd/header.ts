/**
 * The header that FreeBSD's vinum has at byte 4096 of a drive, in all its forms (docs/vinum.md, 2): read from
 * disks of FreeBSD boxes, never written. Called by freebsd/format.ts.
 *
 *   field            64 bit   32 bit        the file
 *   magic             0  8     0  8         0       not touched
 *   config length     8  8     8  4         4096    header, 512 bytes
 *   host             16 32    12 32         4608    text, copy 1, 65536 bytes
 *   drive            48 32    44 32         70144   text, copy 2
 *   birth s, us      80  8+8  76  4+4       135680  data
 *   last update      96  8+8  84  4+4
 *   size            112  8    92  8
 *
 * The present form is 64 bit, big-endian, `VINUM-1`. The older ones begin with `IN VINO` as a 64-bit number in
 * the byte order of the machine that wrote them. A drive that was taken out has `VINUM--` or `NO VINO`.
 */
export const FREEBSD_HEADER_OFFSET_BYTES = 4096
export const FREEBSD_HEADER_BYTES = 512
export const FREEBSD_TEXT_BYTES = 65536
export const FREEBSD_TEXT_OFFSETS_BYTES: readonly [number, number] = [4608, 70144]

const MAGIC = { current: 'VINUM-1\0', legacy: 'IN VINO\0' } as const
const REMOVED = { current: 'VINUM--\0', legacy: 'NO VINO\0' } as const

export type FreebsdVariant =
  | 'current'
  | 'legacy-64-big'
  | 'legacy-64-little'
  | 'legacy-32-big'
  | 'legacy-32-little'

/** Wall-clock time of a FreeBSD box, as it is stored. */
export interface FreebsdTime {
  readonly seconds: number
  readonly microseconds: number
}

export interface FreebsdHeader {
  readonly variant: FreebsdVariant
  /** Taken out by `gvinum rm`. */
  readonly removed: boolean
  readonly configBytes: number
  readonly hostName: string
  readonly driveName: string
  readonly birth: FreebsdTime
  readonly lastUpdate: FreebsdTime
  /** Often 0: the original never fills it when it creates a drive. */
  readonly sizeBytes: number
}

interface Form {
  readonly wide: boolean
  readonly big: boolean
  readonly magics: keyof typeof MAGIC
}

export const FREEBSD_FORMS: Readonly<Record<FreebsdVariant, Form>> = {
  current: { wide: true, big: true, magics: 'current' },
  'legacy-64-big': { wide: true, big: true, magics: 'legacy' },
  'legacy-64-little': { wide: true, big: false, magics: 'legacy' },
  'legacy-32-big': { wide: false, big: true, magics: 'legacy' },
  'legacy-32-little': { wide: false, big: false, magics: 'legacy' },
}

/** The header in 512 bytes, or undefined when there is none. */
export function decodeFreebsdHeader(bytes: Buffer): FreebsdHeader | undefined {
  const found = recognise(bytes)
  if (!found) return undefined
  const { variant, removed } = found
  const { wide, big } = FREEBSD_FORMS[variant]
  let at = 8
  const number = (width: 4 | 8): number => {
    const value = readNumber(bytes, at, width, big)
    at += width
    return value
  }
  const text = (): string => {
    const raw = bytes.toString('latin1', at, at + 32)
    at += 32
    return raw.replace(/\0.*$/s, '')
  }
  const width = wide ? 8 : 4
  const configBytes = number(width)
  const hostName = text()
  const driveName = text()
  const birth = { seconds: number(width), microseconds: number(width) }
  const lastUpdate = { seconds: number(width), microseconds: number(width) }
  const sizeBytes = number(8)
  return { variant, removed, configBytes, hostName, driveName, birth, lastUpdate, sizeBytes }
}

/** The first 8 bytes of a header. */
export function freebsdMagic(variant: FreebsdVariant, removed: boolean): Buffer {
  const { magics, big } = FREEBSD_FORMS[variant]
  const bytes = Buffer.from((removed ? REMOVED : MAGIC)[magics], 'latin1')
  return big ? bytes : bytes.reverse()
}

function recognise(bytes: Buffer): { variant: FreebsdVariant; removed: boolean } | undefined {
  for (const removed of [false, true]) {
    for (const candidate of ['current', 'legacy-64-big', 'legacy-64-little'] as const) {
      const magic = freebsdMagic(candidate, removed)
      if (bytes.compare(magic, 0, 8, 0, 8) !== 0) continue
      return { variant: refine(candidate, bytes), removed }
    }
  }
  return undefined
}

/**
 * A legacy magic says the byte order only. The original's test for the width takes every big-endian 64-bit
 * header for a 32-bit one: it looks for a host name at byte 12, where the low half of the length is.
 */
function refine(candidate: FreebsdVariant, bytes: Buffer): FreebsdVariant {
  if (candidate === 'legacy-64-big') {
    return bytes.readUInt32BE(8) === 0 ? 'legacy-64-big' : 'legacy-32-big'
  }
  if (candidate !== 'legacy-64-little') return candidate
  // The host name begins at 12 or at 16; where it is empty, the drive's name at 44 or at 48 decides.
  if (bytes.readUInt32LE(12) !== 0) return 'legacy-32-little'
  if (bytes[16] !== 0) return 'legacy-64-little'
  return bytes[44] !== 0 ? 'legacy-32-little' : 'legacy-64-little'
}

function readNumber(bytes: Buffer, at: number, width: 4 | 8, big: boolean): number {
  if (width === 4) return big ? bytes.readUInt32BE(at) : bytes.readUInt32LE(at)
  return Number(big ? bytes.readBigUInt64BE(at) : bytes.readBigUInt64LE(at))
}
