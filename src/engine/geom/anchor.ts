/**
 * The metadata of all native classes on a disk: found through the anchor in its last logical block
 * (docs/on-disk-format.md). topology.ts reads the anchor of everything that it tastes; classes use
 * {@link AnchoredDevice} to commit their configuration and anchor-quorum.ts to choose among copies.
 *
 * Only the last block is looked at: a disk that has grown since does not show its anchor, and neither does
 * one whose logical block has another size now. Both must be given their old form back first.
 */
import { allocateAligned } from '../../hal/aligned-pool.ts'
import { readAt } from '../../hal/io.ts'
import { decodeAnchor, decodeSlotHeader, hasAnchorMagic, type SlotHeader } from './anchor-codec.ts'
import { type Anchor, SLOT_HEADER_ROOM_BYTES, slotPlaces } from './anchor-layout.ts'
import type { AnchorTarget } from './anchored-device.ts'

export { type Anchor, type AnchorLayout, planAnchor } from './anchor-layout.ts'
export { AnchoredDevice, type AnchorTarget, type CommittedSlot } from './anchored-device.ts'

/**
 * The anchor of a device, or undefined when it has none. An anchor that is damaged or cannot be read is made
 * up from the newest whole slot header, whose commit may have ended or not. Throws `unsupported` for metadata
 * of a newer version, and what reading fails with when neither the last block nor a slot could be read.
 */
export async function readAnchor(device: AnchorTarget): Promise<Anchor | undefined> {
  const { sizeBytes, logicalBlockBytes } = device.geometry
  if (sizeBytes < logicalBlockBytes) return undefined
  const block = allocateAligned(logicalBlockBytes)
  let failure: unknown
  try {
    await readAt(device, block, sizeBytes - logicalBlockBytes)
  } catch (error) {
    failure = error
  }
  if (failure === undefined) {
    if (!hasAnchorMagic(block.bytes)) return undefined
    const anchor = decodeAnchor(block.bytes, device.path)
    // Of another size: it belongs to a partition that ends here, or to a disk that this one is a copy of.
    if (anchor) return isOf(anchor, device) ? anchor : undefined
  }
  const newest = await newestHeader(device)
  if (newest || failure === undefined) return newest?.anchor
  throw failure
}

/** The header with the highest generation in the places where slots lie without an anchor that says so. */
async function newestHeader(device: AnchorTarget): Promise<SlotHeader | undefined> {
  const { sizeBytes, logicalBlockBytes } = device.geometry
  const block = allocateAligned(SLOT_HEADER_ROOM_BYTES)
  let newest: SlotHeader | undefined
  for (const place of slotPlaces(sizeBytes, logicalBlockBytes)) {
    try {
      await readAt(device, block, place.offset)
    } catch {
      // The other slot may be readable; without any, the caller reports the first failure.
      continue
    }
    const header = decodeSlotHeader(block.bytes, device.path)
    if (!header || !isOf(header.anchor, device)) continue
    if (header.anchor.slots[header.anchor.newestSlot].offset !== place.offset) continue
    if (!newest || header.generation > newest.generation) newest = header
  }
  return newest
}

function isOf(anchor: Anchor, device: AnchorTarget): boolean {
  const { sizeBytes, logicalBlockBytes } = device.geometry
  return anchor.mediaBytes === sizeBytes && anchor.blockBytes === logicalBlockBytes
}
