/**
 * Writes the two ends of a label, the anchor in the last block and the front copy, and takes a label off. Every function
 * is durable when it resolves, and throws as the device does. Used by anchored-device.ts and the verbs of devices.
 */
import { isDeepStrictEqual } from 'node:util'
import type { ByteRange } from '../../base/bytes.ts'
import { KIB, RESIZE_COPY_BYTES } from '../../base/limits.ts'
import { allocateAligned } from '../../hal/aligned-pool.ts'
import type { BlockDevice } from '../../hal/block-device.ts'
import { flush, readAt, writeAt, writeZeroes } from '../../hal/io.ts'
import { decodeAnchor, encodeAnchor, encodeFront, hasOurMagic } from './anchor-codec.ts'
import { readFront } from './anchor-find.ts'
import {
  type Anchor,
  type AnchorLayout,
  endOf,
  frontOf,
  SLOT_HEADER_ROOM_BYTES,
} from './anchor-layout.ts'

/** What an anchor can be on: a device, a consumer. */
export type AnchorTarget = Pick<BlockDevice, 'submit' | 'geometry' | 'path'>

/** The anchor in its block: what it says counts from then on. */
export function writeAnchor(device: AnchorTarget, anchor: Anchor): Promise<void> {
  return writeBlock(device, endOf(anchor), (block) => encodeAnchor(anchor, block))
}

export function writeFront(device: AnchorTarget, anchor: Anchor): Promise<void> {
  return writeBlock(device, frontOf(anchor), (block) => encodeFront(anchor, block))
}

/** Both ends zero: the device has no label from then on. */
export async function wipeEnds(device: AnchorTarget, layout: AnchorLayout): Promise<void> {
  for (const end of [frontOf(layout), endOf(layout)]) await writeBlock(device, end, () => {})
}

async function writeBlock(
  device: AnchorTarget,
  { offset, length }: ByteRange,
  fill: (block: Buffer) => void,
): Promise<void> {
  const block = allocateAligned(length)
  fill(block.bytes)
  await writeAt(device, block, offset)
  await flush(device)
}

/**
 * Makes the front copy say what the anchor says: after a resize that was cut off, or where the copy is damaged. The old
 * anchor is wiped also where the front copy cannot be written.
 */
export async function settleEnds(device: AnchorTarget, anchor: Anchor): Promise<void> {
  const front = await readFront(device)
  if (front && saysTheSame(front, anchor)) return
  try {
    await writeFront(device, anchor)
  } finally {
    if (front && front.mediaBytes < anchor.mediaBytes) await wipeOldEnd(device, front)
  }
}

function saysTheSame(front: Anchor, anchor: Anchor): boolean {
  const { newestSlot, line, generation, payloadCrc } = front
  return isDeepStrictEqual(front, { ...anchor, newestSlot, line, generation, payloadCrc })
}

/** The anchor of before a resize, if it is still there: by now there may be data. */
async function wipeOldEnd(device: AnchorTarget, front: Anchor): Promise<void> {
  const place = endOf(front)
  const block = allocateAligned(place.length)
  await readAt(device, block, place.offset)
  const old = decodeAnchor(block.bytes, device.path)
  if (old?.deviceUuid === front.deviceUuid) await writeBlock(device, place, () => {})
}

/** Copies an area to a place that does not overlap with it; not flushed. */
export async function copyArea(
  device: AnchorTarget,
  from: ByteRange,
  to: ByteRange,
): Promise<void> {
  for (let at = 0; at < from.length; at += RESIZE_COPY_BYTES) {
    const piece = allocateAligned(Math.min(RESIZE_COPY_BYTES, from.length - at))
    await readAt(device, piece, from.offset + at)
    await writeAt(device, piece, to.offset + at)
  }
}

/**
 * Takes a label off, in whatever state it is: after it findLabel finds nothing. Only what is ours is written over; there
 * may be a partition table in its place.
 */
export async function wipeLabel(device: AnchorTarget, anchor: Anchor): Promise<void> {
  const { sizeBytes, logicalBlockBytes } = device.geometry
  const last = { offset: sizeBytes - logicalBlockBytes, length: logicalBlockBytes }
  const headers = anchor.slots.map(({ offset }) => ({ offset, length: SLOT_HEADER_ROOM_BYTES }))
  // The end last: the label is whole until then. Slots without one mean nothing.
  for (const place of [frontOf(anchor), endOf(anchor), last, ...headers]) {
    if (place.offset % logicalBlockBytes !== 0 || place.offset + place.length > sizeBytes) continue
    const block = allocateAligned(Math.max(place.length, logicalBlockBytes))
    await readAt(device, block, place.offset)
    if (!hasOurMagic(block.bytes)) continue
    await writeZeroes(device, { offset: place.offset, length: block.bytes.length })
    await flush(device)
  }
}

/**
 * Writes both ends of a label again, of which one was overwritten; `anchor` is what findLabel has made of the rest. A
 * partition table or file system at the very beginning of the disk goes, or it would be found again.
 */
export async function restoreLabel(device: AnchorTarget, anchor: Anchor): Promise<void> {
  const { logicalBlockBytes: blockBytes, sizeBytes } = device.geometry
  await writeZeroes(device, { offset: 0, length: Math.max(4 * KIB, 2 * blockBytes) })
  for (const end of new Set([sizeBytes, anchor.mediaBytes])) {
    const isOurs = end === anchor.mediaBytes
    const place = { offset: end - blockBytes, length: blockBytes }
    await writeBlock(device, place, (block) => isOurs && encodeAnchor(anchor, block))
  }
  await writeFront(device, anchor)
}
