/**
 * Finds the label on a device: the anchor in its last block, or what the front copy says where the medium has another
 * size now or one end was overwritten (docs/adr/0012-anchor-at-both-ends.md). Only reads.
 */
import { formatSize } from '../../base/bytes.ts'
import { attempt } from '../../base/errors.ts'
import { allocateAligned } from '../../hal/aligned-pool.ts'
import { deviceContents, formatContents } from '../../hal/device-contents.ts'
import { readAt } from '../../hal/io.ts'
import { decodeAnchor, decodeFront, decodeSlotHeader, hasAnchorMagic } from './anchor-codec.ts'
import type { AnchorTarget } from './anchor-ends.ts'
import {
  type Anchor,
  endOf,
  FRONT_PLACES,
  frontOf,
  SLOT_HEADER_ROOM_BYTES,
} from './anchor-layout.ts'
import { isSameCommit } from './anchor-quorum.ts'

/** A label as it was found. */
export interface FoundLabel {
  /** What it says; with a problem, what is left of it. */
  readonly anchor: Anchor
  /** Why nothing may use it as it is: what is the matter, and what to do. */
  readonly problem: LabelProblem | undefined
}

export interface LabelProblem {
  /** As in `sdb …`: `carries a Plexus label for 1 GiB; the disk is 512 MiB now`. */
  readonly text: string
  /** A sentence for people; `NAME` stands for the device. */
  readonly action: string
  /** Everything is there to write the label again: `restore-label` does it. */
  readonly restorable: boolean
}

/**
 * The label on a device, wherever it is. An anchor that is damaged or cannot be read is made up from the newest whole
 * slot header, whose commit may have ended or not. Throws `unsupported` for metadata of a newer version, and what reading fails
 * with when neither end says anything and the last block cannot be read.
 */
export async function findLabel(device: AnchorTarget): Promise<FoundLabel | undefined> {
  const { sizeBytes, logicalBlockBytes } = device.geometry
  if (sizeBytes < logicalBlockBytes) return undefined
  let failure: unknown
  const last = await readBlock(device, sizeBytes - logicalBlockBytes).catch((error: unknown) => {
    failure = error
    return undefined
  })
  const end = last && decodeAnchor(last, device.path)
  // Of another size: it belongs to a partition that ends here.
  const isWhole = end?.mediaBytes === sizeBytes && end.blockBytes === logicalBlockBytes
  const front = await readFront(device)
  if (isWhole && front) return bothEnds(device, end, front)
  if (isWhole) return { anchor: end, problem: await overwritten(device, 'front') }
  if (!front) {
    if (failure !== undefined) throw failure
    return undefined
  }
  if (front.blockBytes !== logicalBlockBytes) return { anchor: front, problem: otherBlocks(front) }
  if (front.mediaBytes > sizeBytes) return { anchor: front, problem: shrunk(front, sizeBytes) }
  const anchor = (await anchorAt(device, front)) ?? (await fromSlots(device, front))
  if (!anchor) return { anchor: front, problem: NO_SLOT }
  const isOverwritten = front.mediaBytes === sizeBytes && last && !hasAnchorMagic(last)
  return { anchor, problem: isOverwritten ? await overwritten(device, 'end') : undefined }
}

/**
 * A label at each end. After a resize that was cut off they differ: the new end counts, unless what the front copy leads
 * to was committed to since. Anything else is a copy of one disk over another one.
 */
async function bothEnds(device: AnchorTarget, end: Anchor, front: Anchor): Promise<FoundLabel> {
  const isOneDrive = front.deviceUuid === end.deviceUuid && front.setUuid === end.setUuid
  if (isOneDrive && front.mediaBytes === end.mediaBytes) return { anchor: end, problem: undefined }
  const isGrown = front.mediaBytes < end.mediaBytes && front.blockBytes === end.blockBytes
  const old = isGrown ? await anchorAt(device, front) : undefined
  if (isOneDrive && isGrown) {
    if (!old || isSameCommit(old, end)) return { anchor: end, problem: undefined }
    if (old.generation > end.generation) return { anchor: old, problem: undefined }
  }
  const anchor = old ?? (isGrown ? await fromSlots(device, front) : undefined)
  return { anchor: anchor ?? front, problem: twoLabels(front, end, anchor !== undefined) }
}

/** The anchor where the front copy says that it is. */
async function anchorAt(device: AnchorTarget, front: Anchor): Promise<Anchor | undefined> {
  const block = await tryRead(device, endOf(front).offset)
  const anchor = block && decodeAnchor(block, device.path)
  return anchor && isOf(anchor, front) && anchor.mediaBytes === front.mediaBytes
    ? anchor
    : undefined
}

/** Made up from the header with the highest generation in its slots. */
async function fromSlots(device: AnchorTarget, front: Anchor): Promise<Anchor | undefined> {
  let newest: Anchor | undefined
  for (const [index, { offset }] of front.slots.entries()) {
    const room = await tryRead(device, offset, SLOT_HEADER_ROOM_BYTES)
    const header = room && decodeSlotHeader(room, device.path)?.anchor
    if (!header || !isOf(header, front) || header.newestSlot !== index) continue
    const { newestSlot, line, generation, payloadCrc } = header
    if (newest && generation <= newest.generation) continue
    newest = { ...front, newestSlot, line, generation, payloadCrc }
  }
  return newest
}

/** The front copy, if there is a whole one: also that of a drive whose logical blocks had another size. */
export async function readFront(device: AnchorTarget): Promise<Anchor | undefined> {
  const { sizeBytes, logicalBlockBytes } = device.geometry
  for (const offset of FRONT_PLACES) {
    if (offset + logicalBlockBytes > sizeBytes) continue
    const block = await tryRead(device, offset)
    const front = block && decodeFront(block, device.path)
    // Data of a volume may have the form of one.
    if (front && frontOf(front).offset === offset) return front
  }
  return undefined
}

function isOf(one: Anchor, { deviceUuid, setUuid }: Anchor): boolean {
  return one.deviceUuid === deviceUuid && one.setUuid === setUuid
}

async function readBlock(device: AnchorTarget, offset: number, length?: number): Promise<Buffer> {
  const block = allocateAligned(length ?? device.geometry.logicalBlockBytes)
  await readAt(device, block, offset)
  return block.bytes
}

/** What cannot be read is as good as damaged: the other places may do. */
async function tryRead(
  device: AnchorTarget,
  offset: number,
  length?: number,
): Promise<Buffer | undefined> {
  return attempt(() => readBlock(device, offset, length))
}

// What is the matter.

const REPLACE = 'replace the drive: plexus volume replace VOLUME DRIVE NEW-DEVICE'
const CLEAR = 'to give up what is on it: plexus device clear-label NAME'

/**
 * One end of the label is not there. Where something else is on the disk, nothing may use it until somebody has said
 * whose it is; else whoever takes the disk writes that end again.
 */
async function overwritten(
  device: AnchorTarget,
  end: 'front' | 'end',
): Promise<LabelProblem | undefined> {
  const found = await deviceContents(device).catch(() => [])
  // A header of FreeBSD's is that of a conversion that was cut off.
  const foreign = found.filter(({ kind, name }) => kind !== 'plexus' && name !== 'vinum')
  if (foreign.length === 0) return undefined
  return {
    text: `carries a Plexus label whose ${end} was overwritten (${formatContents(foreign)})`,
    action: `If the disk is still the drive that it was: plexus device restore-label NAME; ${CLEAR}`,
    restorable: true,
  }
}

/** Of a label that is used as it is, on a medium that has grown; undefined: it has not. */
export function grownNote(
  anchor: Anchor,
  sizeBytes: number,
): Omit<LabelProblem, 'restorable'> | undefined {
  if (anchor.mediaBytes >= sizeBytes) return undefined
  return {
    text: `carries ${labelFor(anchor)}; the disk is ${formatSize(sizeBytes)} now`,
    action: 'Its set uses the rest when it is in operation, or: plexus device resize NAME',
  }
}

/** `a Plexus label for 1 GiB`. */
function labelFor({ mediaBytes }: Pick<Anchor, 'mediaBytes'>): string {
  return `a Plexus label for ${formatSize(mediaBytes)}`
}

const NO_SLOT: LabelProblem = {
  text: 'carries a Plexus label whose end was overwritten, with all that its slots held',
  action: `${REPLACE}; ${CLEAR}`,
  restorable: false,
}

function otherBlocks(front: Anchor): LabelProblem {
  return {
    text: `carries ${labelFor(front)} with blocks of ${front.blockBytes} bytes, which this disk does not have`,
    action: `Connect it so that its blocks have ${front.blockBytes} bytes, as before; ${CLEAR}`,
    restorable: false,
  }
}

function shrunk(front: Anchor, sizeBytes: number): LabelProblem {
  return {
    text: `carries ${labelFor(front)}; the disk is ${formatSize(sizeBytes)} now, and what lay behind that is lost`,
    action: `Give it back its size of at least ${front.mediaBytes} bytes if that brings the data back, or ${REPLACE}; ${CLEAR}`,
    restorable: false,
  }
}

function twoLabels(front: Anchor, end: Anchor, restorable: boolean): LabelProblem {
  const restore = restorable ? 'plexus device restore-label NAME goes by the front; ' : ''
  return {
    text:
      `carries two Plexus labels: at the front that of drive ${front.deviceUuid} for ${formatSize(front.mediaBytes)}, at the ` +
      `end that of drive ${end.deviceUuid} for ${formatSize(end.mediaBytes)}; one disk was copied over another one`,
    action: `If the front is what counts, ${restore}${CLEAR}`,
    restorable,
  }
}
