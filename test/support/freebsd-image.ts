/**
 * Writes a drive as FreeBSD's vinum lays it out (spec of the format: docs/on-disk-format.md, "Drives of FreeBSD"):
 * header, two copies of the text, data. For tests and demonstrations of the import.
 */
import { assert } from '../../src/base/assert.ts'
import {
  FREEBSD_FORMS,
  FREEBSD_HEADER_BYTES,
  FREEBSD_HEADER_OFFSET_BYTES,
  FREEBSD_TEXT_BYTES,
  FREEBSD_TEXT_OFFSETS_BYTES,
  type FreebsdHeader,
  type FreebsdVariant,
  freebsdMagic,
} from '../../src/engine/vinum/freebsd/header.ts'
import { FREEBSD_DATA_OFFSET_BYTES } from '../../src/engine/vinum/text/config.ts'

export interface FreebsdImageOptions {
  readonly driveName: string
  readonly text: string
  readonly hostName?: string
  readonly variant?: FreebsdVariant
  readonly removed?: boolean
  /** Of the last save. */
  readonly seconds?: number
  readonly microseconds?: number
  /** What lies in the data area, by offset on the device. */
  readonly data?: readonly { readonly offset: number; readonly bytes: Buffer }[]
}

/** Lays the drive over `media`, whose other bytes stay as they are. */
export function writeFreebsdDrive(media: Buffer, options: FreebsdImageOptions): void {
  const { driveName, text, hostName = 'freebsd.example', variant = 'current' } = options
  const { removed = false, seconds = 1_700_000_000, microseconds = 5, data = [] } = options
  const header = encodeFreebsdHeader({
    variant,
    removed,
    configBytes: FREEBSD_TEXT_BYTES,
    hostName,
    driveName,
    birth: { seconds: 1_600_000_000, microseconds: 123_456 },
    lastUpdate: { seconds, microseconds },
    sizeBytes: 0,
  })
  header.copy(media, FREEBSD_HEADER_OFFSET_BYTES)
  for (const offset of FREEBSD_TEXT_OFFSETS_BYTES) {
    media.fill(0, offset, offset + FREEBSD_TEXT_BYTES)
    media.write(text, offset, 'latin1')
  }
  for (const { offset, bytes } of data) {
    if (offset < FREEBSD_DATA_OFFSET_BYTES) throw new Error(`${offset} is not in the data area`)
    bytes.copy(media, offset)
  }
}

/** The 512 bytes of a header. */
export function encodeFreebsdHeader(header: FreebsdHeader): Buffer {
  const { wide, big } = FREEBSD_FORMS[header.variant]
  const bytes = Buffer.alloc(FREEBSD_HEADER_BYTES)
  freebsdMagic(header.variant, header.removed).copy(bytes)
  let at = 8
  const number = (value: number, width: 4 | 8): void => {
    writeNumber(bytes, at, width, big, value)
    at += width
  }
  const text = (value: string): void => {
    assert(value.length < 32, `a name of FreeBSD has at most 31 bytes: ${value}`)
    bytes.write(value, at, 'latin1')
    at += 32
  }
  const width = wide ? 8 : 4
  number(header.configBytes, width)
  text(header.hostName)
  text(header.driveName)
  for (const time of [header.birth, header.lastUpdate]) {
    number(time.seconds, width)
    number(time.microseconds, width)
  }
  number(header.sizeBytes, 8)
  return bytes
}

function writeNumber(bytes: Buffer, at: number, width: 4 | 8, big: boolean, value: number): void {
  if (width === 4 && big) bytes.writeUInt32BE(value, at)
  else if (width === 4) bytes.writeUInt32LE(value, at)
  else if (big) bytes.writeBigUInt64BE(BigInt(value), at)
  else bytes.writeBigUInt64LE(BigInt(value), at)
}
