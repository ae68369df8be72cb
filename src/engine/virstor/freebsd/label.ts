/**
 * The label of FreeBSD's GEOM_VIRSTOR, in the last block of each component (docs/on-disk-format.md): read, never written.
 * Or the record of a conversion, which takes its place on component 0 (record.ts) and has the label in it.
 */
import { formatSize } from '../../../base/bytes.ts'
import { VIRSTOR_CHUNKS } from '../../../base/limits.ts'
import { allocateAligned } from '../../../hal/aligned-pool.ts'
import { readAt } from '../../../hal/io.ts'
import type { AnchorTarget } from '../../anchor/anchor-ends.ts'
import { BAD_COMPONENT } from '../map/chunk-map.ts'
import { type ConversionRecord, decodeRecord } from './record.ts'

export const FREEBSD_LABEL_BYTES = 92
/** An entry of the map at byte 0 of component 0. */
export const FREEBSD_ENTRY_BYTES = 8
const MAGIC = Buffer.from('GEOM::VIRSTOR\0\0\0', 'latin1')
const VERSION = 1

export interface FreebsdLabel {
  readonly name: string
  /** Of the device, random: what tells it from an older one of the same name. */
  readonly id: number
  readonly virtualBytes: number
  readonly chunkBytes: number
  /** Components of the device, and which of them this is, from 0. */
  readonly count: number
  readonly index: number
  readonly mediaBytes: number
  /** Physical chunks, counted from byte 0 of the medium. */
  readonly chunks: number
  /** Of them, from the first on, those that never hold data: the map, and as many again. */
  readonly reserved: number
  /** The 92 bytes. */
  readonly bytes: Buffer
}

/** What a device says. With `problem`: why it cannot be used, as in `d1 PROBLEM`. */
export type Found =
  | { readonly label: FreebsdLabel; readonly record: ConversionRecord | undefined }
  | { readonly problem: string }

/** Chunks of the device. */
export function chunksOf({ virtualBytes, chunkBytes }: FreebsdLabel): number {
  return virtualBytes / chunkBytes
}

/** Chunks of component 0 that the map itself takes. */
export function mapChunksOf(label: FreebsdLabel): number {
  return Math.ceil((chunksOf(label) * FREEBSD_ENTRY_BYTES) / label.chunkBytes)
}

/** The label in the last block of a device; undefined: there is none. Throws as the device does. */
export async function findFreebsdLabel(device: AnchorTarget): Promise<Found | undefined> {
  const { sizeBytes, logicalBlockBytes } = device.geometry
  if (sizeBytes < logicalBlockBytes) return undefined
  const block = allocateAligned(logicalBlockBytes)
  await readAt(device, block, sizeBytes - logicalBlockBytes)
  const record = decodeRecord(block.bytes)
  const bytes = record?.label ?? block.bytes.subarray(0, FREEBSD_LABEL_BYTES)
  const found = decodeFreebsdLabel(bytes, { sizeBytes, blockBytes: logicalBlockBytes })
  if (!found || 'problem' in found) return found
  const { label } = found
  if (record && label.index !== 0) {
    return refused(
      `of device ${label.name} is in a record of a conversion, and for component ${label.index}`,
    )
  }
  return { label, record }
}

/**
 * The label in 92 bytes, for a medium; undefined: there is none. Hints of FreeBSD's are not used: flags and the next chunk,
 * which a crash leaves wrong, and the name of the device that carried it there.
 */
export function decodeFreebsdLabel(
  bytes: Buffer,
  medium: { readonly sizeBytes: number; readonly blockBytes: number },
): { readonly label: FreebsdLabel } | { readonly problem: string } | undefined {
  if (bytes.length < FREEBSD_LABEL_BYTES || bytes.compare(MAGIC, 0, 16, 0, 16) !== 0) {
    return undefined
  }
  const version = bytes.readUInt32LE(16)
  if (version !== VERSION) {
    return refused(`has version ${version}; Plexus reads version ${VERSION}`)
  }
  const raw = bytes.toString('latin1', 20, 36)
  const name = raw.replace(/\0.*$/s, '')
  // Advice says the name in commands that people paste into a shell.
  if (!raw.includes('\0') || !/^[\w.+:@][\w.+:@-]*$/.test(name))
    return refused('has no name that could be one')
  const label = {
    name,
    virtualBytes: wide(bytes, 36),
    chunkBytes: bytes.readUInt32LE(44),
    id: bytes.readUInt32LE(48),
    count: bytes.readUInt16LE(52),
    index: bytes.readUInt16LE(70),
    mediaBytes: wide(bytes, 72),
    chunks: bytes.readUInt32LE(80),
    reserved: bytes.readUInt16LE(88),
    bytes: Buffer.from(bytes.subarray(0, FREEBSD_LABEL_BYTES)),
  }
  const problem = problemOf(label, medium)
  return problem === undefined ? { label } : refused(`of device ${name} ${problem}`)
}

/** Numbers that are too large to be exact stay too large for every check. */
function wide(bytes: Buffer, at: number): number {
  return Number(bytes.readBigUInt64LE(at))
}

function refused(problem: string): { readonly problem: string } {
  return { problem: `is not used: the label of FreeBSD's virstor on it ${problem}` }
}

function problemOf(
  label: FreebsdLabel,
  { sizeBytes, blockBytes }: { readonly sizeBytes: number; readonly blockBytes: number },
): string | undefined {
  const { virtualBytes, chunkBytes, count, index, mediaBytes, chunks, reserved } = label
  if (mediaBytes !== sizeBytes) {
    const sizes = `is for ${mediaBytes} bytes, and the disk has ${sizeBytes}`
    return `${sizes}: it belongs to a partition that ends here, or the disk had another size`
  }
  if (chunkBytes === 0 || chunkBytes % blockBytes !== 0) {
    return `has chunks of ${chunkBytes} bytes, which are no blocks of ${blockBytes}`
  }
  const isExact = Number.isSafeInteger(virtualBytes)
  if (!isExact || virtualBytes < chunkBytes || virtualBytes % chunkBytes !== 0) {
    return `has a size of ${virtualBytes} bytes, which are no chunks of ${chunkBytes}`
  }
  if (chunksOf(label) > VIRSTOR_CHUNKS || chunks > VIRSTOR_CHUNKS) {
    return `is for ${formatSize(virtualBytes)} in chunks of ${formatSize(chunkBytes)}: Plexus has ${VIRSTOR_CHUNKS} chunks at most`
  }
  if (count === 0 || count >= BAD_COMPONENT || index >= count) {
    return `is for component ${index} of ${count}, which cannot be`
  }
  // FreeBSD's `add` takes the last chunk in with the label in it: that is read as it is there.
  if (chunks * chunkBytes > sizeBytes) {
    return `has ${chunks} chunks of ${chunkBytes} bytes, more than the disk`
  }
  if (reserved > chunks || (index === 0 && reserved < mapChunksOf(label))) {
    return `keeps ${reserved} of ${chunks} chunks for a map of ${mapChunksOf(label)}`
  }
  return undefined
}
