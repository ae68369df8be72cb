/**
 * What the tables of foreign data are made of: the shape of a row, and fields of on-disk structures as
 * values for people (texts, UUIDs). Used by signature-own.ts, signature-volumes.ts, signature-filesystems.ts and the
 * walker, signatures.ts. The readers of fields never throw, whatever the bytes.
 */

export type SignatureKind =
  | 'filesystem'
  | 'partition-table'
  | 'raid'
  | 'volume-manager'
  | 'encryption'
  | 'swap'
  | 'plexus'
  | 'freebsd'

/** The device as the rows see it: its size, whole blocks only, and its logical block. */
export interface DiskShape {
  readonly sizeBytes: number
  readonly blockBytes: number
}

/** What a row can tell beside its own name. */
export interface SignatureDetail {
  /** Replaces the row's name where the bytes tell more: ext4 for ext. */
  readonly name?: string
  readonly label?: string | undefined
  readonly uuid?: string | undefined
}

export interface SignatureRow {
  readonly kind: SignatureKind
  readonly name: string
  /** Byte offsets at which the structure may begin. Those outside of the device are skipped. */
  readonly at: readonly number[] | ((disk: DiskShape) => readonly number[])
  /** Bytes of the structure that this row looks at. */
  readonly length: number
  /** One of these must be there: offset within the structure, bytes. */
  readonly magic: ReadonlyArray<readonly [number, Buffer]>
  /** Looks closer at `length` bytes; undefined says that it is not the format after all. */
  readonly detail?: (bytes: Buffer, offset: number, disk: DiskShape) => SignatureDetail | undefined
}

/** Letters, and bytes 80h to FFh as themselves. */
export function ascii(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}

export function hex(text: string): Buffer {
  return Buffer.from(text, 'hex')
}

export function le32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

export function be32(value: number): Buffer {
  return le32(value).reverse()
}

/**
 * The text of a fixed-size field: up to the first NUL, without blanks at its ends, with `?` in place of
 * every control character, since labels are printed on terminals. Undefined where nothing is left.
 */
export function text(
  bytes: Buffer,
  offset: number,
  length: number,
  encoding: 'utf8' | 'utf16le' = 'utf8',
): string | undefined {
  const whole = bytes.toString(encoding, offset, offset + length)
  const end = whole.indexOf('\0')
  const shown = (end < 0 ? whole : whole.slice(0, end)).replace(/\p{C}/gu, '?').trim()
  return shown === '' ? undefined : shown
}

/** Bytes as hexadecimal digits; undefined where all are zero, which means "none" in every format here. */
export function hexField(bytes: Buffer, offset: number, length: number): string | undefined {
  const field = bytes.subarray(offset, offset + length)
  return field.every((byte) => byte === 0) ? undefined : field.toString('hex')
}

/** Digits in groups of the given lengths: `grouped('0123…', [8, 4, 4, 4, 12], '-')`. */
export function grouped(
  digits: string | undefined,
  lengths: readonly number[],
  separator: string,
): string | undefined {
  if (digits === undefined) return undefined
  let at = 0
  const groups = lengths.map((length) => {
    at += length
    return digits.slice(at - length, at)
  })
  return groups.join(separator)
}

const UUID_GROUPS = [8, 4, 4, 4, 12]

/** 16 bytes as they stand (RFC 9562). */
export function uuid(bytes: Buffer, offset: number): string | undefined {
  return grouped(hexField(bytes, offset, 16), UUID_GROUPS, '-')
}

/** 16 bytes as Microsoft and UEFI write a GUID: the first three fields little endian. */
export function guid(bytes: Buffer, offset: number): string | undefined {
  const field = Buffer.from(bytes.subarray(offset, offset + 16))
  field.subarray(0, 4).reverse()
  field.subarray(4, 6).reverse()
  field.subarray(6, 8).reverse()
  return uuid(field, 0)
}

/** A 32-bit little endian serial number as DOS prints it: `1A2B-3C4D`. */
export function dosSerial(bytes: Buffer, offset: number): string {
  const digits = bytes.readUInt32LE(offset).toString(16).toUpperCase().padStart(8, '0')
  return `${digits.slice(0, 4)}-${digits.slice(4)}`
}

/** Block sizes that a label may have been written with, this device's first: disks move between enclosures. */
export function blockSizes(disk: DiskShape): readonly number[] {
  return [...new Set([disk.blockBytes, 512, 4096])]
}

export function lastSector(disk: DiskShape): readonly number[] {
  return blockSizes(disk).map((block) => disk.sizeBytes - block)
}
