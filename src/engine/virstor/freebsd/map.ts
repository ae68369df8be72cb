/**
 * Reads the map of FreeBSD's virstor, at byte 0 of component 0, into the table of the native one: chunks are valid as a
 * whole, component n has id n + 1. An entry of 8 bytes, little-endian: flags (2; 1: allocated), component (2), number of the
 * physical chunk (4).
 */
import { alignUp } from '../../../base/bytes.ts'
import { PlexusError } from '../../../base/errors.ts'
import { VIRSTOR_MAP_IO_BYTES } from '../../../base/limits.ts'
import { nextTurn } from '../../../base/turns.ts'
import { allocateAligned } from '../../../hal/aligned-pool.ts'
import { readAt } from '../../../hal/io.ts'
import type { AnchorTarget } from '../../anchor/anchor-ends.ts'
import { MapTable } from '../map/chunk-map.ts'
import { chunksOf, FREEBSD_ENTRY_BYTES, type FreebsdLabel } from './label.ts'

const ALLOCATED = 1

/**
 * The map of a device with these components, all of them, in order. Throws `corrupt` with the first entry that cannot be
 * right, or the two that have one physical chunk; and as the component does.
 */
export async function readFreebsdMap(
  first: AnchorTarget,
  labels: readonly FreebsdLabel[],
): Promise<MapTable> {
  const [label] = labels
  if (!label) throw corrupt('', 'it has no components')
  const chunks = chunksOf(label)
  const table = new MapTable({ chunks, granules: 1 })
  for (const [index, one] of labels.entries()) {
    table.addComponent(index + 1, one.chunks)
    table.reserve(index + 1, { number: 0, count: one.reserved })
  }
  const { logicalBlockBytes } = first.geometry
  const buffer = allocateAligned(VIRSTOR_MAP_IO_BYTES)
  for (let chunk = 0; chunk < chunks; ) {
    const offset = chunk * FREEBSD_ENTRY_BYTES
    const bytes = Math.min(VIRSTOR_MAP_IO_BYTES, chunks * FREEBSD_ENTRY_BYTES - offset)
    const length = alignUp(bytes, logicalBlockBytes)
    const piece = { bytes: buffer.bytes.subarray(0, length), address: buffer.address }
    await readAt(first, piece, offset)
    for (let at = 0; at < bytes; at += FREEBSD_ENTRY_BYTES, chunk++) {
      if (piece.bytes.readUInt16LE(at) !== 0) loadEntry(table, labels, chunk, piece.bytes, at)
    }
    await nextTurn()
  }
  await table.loaded(0)
  const [one, two] = table.faults
  if (!one) return table
  const place = `chunk ${one.entry.number} of component ${one.entry.component - 1}`
  // The places of the map are the only other kind: components and numbers have been checked.
  const isTwin =
    two?.entry.component === one.entry.component && two.entry.number === one.entry.number
  const what = isTwin
    ? `entries ${one.chunk} and ${two.chunk} of its map both name ${place}`
    : `entry ${one.chunk} of its map names ${place}, which is kept for the map`
  throw corrupt(label.name, what)
}

function loadEntry(
  table: MapTable,
  labels: readonly FreebsdLabel[],
  chunk: number,
  bytes: Buffer,
  at: number,
): void {
  const { name } = labels[0] ?? { name: '' }
  const flags = bytes.readUInt16LE(at)
  const index = bytes.readUInt16LE(at + 2)
  const number = bytes.readUInt32LE(at + 4)
  if (flags !== ALLOCATED) throw corrupt(name, `entry ${chunk} of its map has flags ${flags}`)
  const component = labels[index]
  if (!component || number >= component.chunks) {
    const what = component ? `it has ${component.chunks}` : `there are ${labels.length} components`
    throw corrupt(
      name,
      `entry ${chunk} of its map names chunk ${number} of component ${index}, and ${what}`,
    )
  }
  table.loadRecord({ chunk, component: index + 1, number, validLow: 1, validHigh: 0, lost: false })
}

function corrupt(name: string, what: string): PlexusError {
  const message = `${what}; let FreeBSD's virstor mend it, or restore its disks from a backup`
  return new PlexusError('corrupt', { op: 'assemble', subject: name, message })
}
