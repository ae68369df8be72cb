/**
 * Writes a drive as FreeBSD's vinum lays it out (spec of the format: docs/on-disk-format.md, "Drives of FreeBSD"):
 * header, two copies of the text, data. For tests and demonstrations of the import.
 */
import {
  encodeFreebsdHeader,
  FREEBSD_DATA_OFFSET_BYTES,
  FREEBSD_HEADER_OFFSET_BYTES,
  FREEBSD_TEXT_BYTES,
  FREEBSD_TEXT_OFFSETS_BYTES,
  type FreebsdVariant,
} from '../../src/engine/vinum/freebsd/header.ts'

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
