/**
 * What an open device carries, for people: its file systems, partition tables, RAID and volume manager
 * members (signatures.ts), found by reading through the device itself. Called by the daemon when a device is
 * ready; later by the verbs that would overwrite it.
 */
import { MIB } from '../base/limits.ts'
import { allocateAligned } from './aligned-pool.ts'
import type { BlockDevice } from './block-device.ts'
import { readAt } from './io.ts'
import { findSignatures, type Signature } from './signatures.ts'

/**
 * The signatures on the device, first to last. Rejects with the device's PlexusError where it cannot be read:
 * a device that could not be examined must not pass for an empty one.
 */
export function deviceContents(
  device: Pick<BlockDevice, 'submit' | 'geometry'>,
): Promise<Signature[]> {
  const { sizeBytes, logicalBlockBytes } = device.geometry
  const scratch = allocateAligned(MIB)
  const read = async (offset: number, length: number): Promise<Buffer> => {
    const piece = { bytes: scratch.bytes.subarray(0, length), address: scratch.address }
    await readAt(device, piece, offset)
    return Buffer.from(piece.bytes)
  }
  return findSignatures(read, sizeBytes, logicalBlockBytes)
}

/** One line: `ext4 "home", LVM2 physical volume`. Empty for a blank device. */
export function formatContents(signatures: readonly Signature[]): string {
  return signatures
    .map(({ name, label }) => (label === undefined ? name : `${name} ${JSON.stringify(label)}`))
    .join(', ')
}
