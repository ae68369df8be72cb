/**
 * Where the metadata of the native classes lies on a medium (docs/on-disk-format.md). Pure arithmetic, used by
 * anchored-device.ts and the import of FreeBSD's drives.
 *
 *   0                 dataStart                     dataEnd                              media end
 *   | ... front copy  | data of the class ...       | journal | map | slot A | slot B | anchor |
 *
 * The anchor is in the last logical block, so that it is found without any other knowledge; the front copy says the
 * same of a medium that has another size now (docs/adr/0012-anchor-at-both-ends.md). Data does not begin at 0, so that
 * a file system inside a volume is never taken for one on the disk itself.
 */
import { assert } from '../../base/assert.ts'
import { alignDown, type ByteRange, formatSize } from '../../base/bytes.ts'
import { PlexusError } from '../../base/errors.ts'
import { KIB, MIB } from '../../base/limits.ts'

/** All places are multiples of it, so that a medium with 4096-byte blocks needs no other layout. */
export const ANCHOR_ALIGNMENT_BYTES = 4 * KIB
/** The anchor itself; the rest of its block is zero. */
export const ANCHOR_BYTES = 512
/** The header of a slot has as much room; the payload follows it. */
export const SLOT_HEADER_ROOM_BYTES = 4 * KIB
/** A block of the map area: what one write of it covers. */
export const MAP_BLOCK_BYTES = 4 * KIB
/** A pair of blocks, written in turn. */
export const MAP_PAIR_BYTES = 2 * MAP_BLOCK_BYTES
/** The smallest medium that can carry an anchor and still be of use. */
export const ANCHOR_MEDIA_BYTES_MIN = 1 * MIB

/** The area of FreeBSD's two config copies (4608 to 135680), as far as it is aligned: two slots fit there. */
export const HEAD_SLOTS: readonly [ByteRange, ByteRange] = [
  { offset: 8 * KIB, length: 60 * KIB },
  { offset: 72 * KIB, length: 60 * KIB },
]

/**
 * Where the front copy lies: behind what a partition table takes (34 blocks of 512 bytes, 6 of 4096), and behind
 * {@link HEAD_SLOTS} where the data begins late enough, which is also where FreeBSD's data begins.
 */
export const FRONT_PLACES: readonly [number, number] = [60 * KIB, 132 * KIB]

const ROUND_BYTES = 64 * KIB
const SLOT_BYTES = { min: 64 * KIB, max: 1 * MIB, share: 1024 }
const MAP_BYTES = { min: 128 * KIB, max: 16 * MIB, share: 512 }
const JOURNAL_BYTES = { min: 256 * KIB, max: 64 * MIB, share: 256 }
/** From this size on the data begins at 1 MiB, as partitions do; before it 64 KiB must do. */
const LARGE_MEDIA_BYTES = 64 * MIB

export interface AnchorLayout {
  readonly blockBytes: number
  readonly mediaBytes: number
  /** Data of the class lies in [dataStartBytes, dataEndBytes). */
  readonly dataStartBytes: number
  readonly dataEndBytes: number
  /** A and B: two places for the configuration, written in turn. */
  readonly slots: readonly [ByteRange, ByteRange]
  /** For the class: raid5's log, the backup of a growth. Length 0: there is none. */
  readonly journal: ByteRange
  /** Pairs of 4 KiB blocks for dirty regions. Length 0: there is none. */
  readonly map: ByteRange
}

/** What the last sector of a disk of ours says. */
export interface Anchor extends AnchorLayout {
  readonly version: number
  readonly deviceUuid: string
  readonly setUuid: string
  /** The class that the data belongs to: `vinum`. */
  readonly className: string
  /** The slot that the last commit has written. */
  readonly newestSlot: 0 | 1
  /** Of that commit; 0: none yet. */
  readonly generation: number
  /** Of the newest slot's payload: with generation and line, the commit (anchor-quorum.ts). */
  readonly payloadCrc: number
  /** UUID of the line that the commit belongs to. */
  readonly line: string
}

/**
 * The layout of a medium of `mediaBytes` with logical blocks of `blockBytes`. Throws `no-space` when it is
 * smaller than {@link ANCHOR_MEDIA_BYTES_MIN}, `unsupported` for blocks larger than 4 KiB.
 */
export function planAnchor(mediaBytes: number, blockBytes: number): AnchorLayout {
  checkMedium(mediaBytes, blockBytes)
  const slotBytes = share(mediaBytes, SLOT_BYTES)
  const mapBytes = share(mediaBytes, MAP_BYTES)
  const journalBytes = share(mediaBytes, JOURNAL_BYTES)
  const tailEnd = alignDown(mediaBytes - ANCHOR_ALIGNMENT_BYTES, ANCHOR_ALIGNMENT_BYTES)
  const slotB = { offset: tailEnd - slotBytes, length: slotBytes }
  const slotA = { offset: slotB.offset - slotBytes, length: slotBytes }
  const map = { offset: slotA.offset - mapBytes, length: mapBytes }
  const journal = { offset: map.offset - journalBytes, length: journalBytes }
  const dataStartBytes = mediaBytes >= LARGE_MEDIA_BYTES ? 1 * MIB : 64 * KIB
  const dataEndBytes = journal.offset
  assert(dataStartBytes < dataEndBytes, 'the smallest medium has room for data')
  return {
    blockBytes,
    mediaBytes,
    dataStartBytes,
    dataEndBytes,
    slots: [slotA, slotB],
    journal,
    map,
  }
}

/**
 * The layout of a medium whose bytes [keptStartBytes, keptEndBytes) hold data that must stay, with everything
 * in front of them free but for 8 KiB: how a drive of FreeBSD's becomes native in place. Tries in turn
 * 1. the usual layout, where the data ends early enough;
 * 2. slots in the area of the old config copies ({@link HEAD_SLOTS}), journal and map of the least size;
 * 3. the same without journal and map: only the last block must be free.
 * Throws `no-space` when that one is not free either.
 */
export function planAnchorAround(
  mediaBytes: number,
  blockBytes: number,
  kept: { readonly startBytes: number; readonly endBytes: number },
): AnchorLayout {
  const usual = planAnchor(mediaBytes, blockBytes)
  const dataStartBytes = kept.startBytes
  if (kept.endBytes <= usual.dataEndBytes) return { ...usual, dataStartBytes }
  const headEnd = HEAD_SLOTS[1].offset + HEAD_SLOTS[1].length
  assert(headEnd <= kept.startBytes, 'the slots in the head lie before the data')
  const tailEnd = alignDown(mediaBytes - ANCHOR_ALIGNMENT_BYTES, ANCHOR_ALIGNMENT_BYTES)
  const map = { offset: tailEnd - MAP_BYTES.min, length: MAP_BYTES.min }
  const journal = { offset: map.offset - JOURNAL_BYTES.min, length: JOURNAL_BYTES.min }
  const common = { blockBytes, mediaBytes, dataStartBytes, slots: HEAD_SLOTS }
  if (kept.endBytes <= journal.offset) {
    return { ...common, dataEndBytes: journal.offset, journal, map }
  }
  const dataEndBytes = mediaBytes - blockBytes
  if (kept.endBytes <= dataEndBytes) {
    const none = { offset: 0, length: 0 }
    return { ...common, dataEndBytes, journal: none, map: none }
  }
  const message =
    `the data reaches to byte ${kept.endBytes} of ${mediaBytes}: the last block must be free for the ` +
    'anchor; copy the data to a new volume instead'
  throw new PlexusError('no-space', { op: 'plan', subject: 'layout', message })
}

/** Bytes of configuration that a slot holds. */
export function payloadRoom(slot: ByteRange): number {
  return slot.length - SLOT_HEADER_ROOM_BYTES
}

/** The block of the front copy. */
export function frontOf({ dataStartBytes, blockBytes }: AnchorLayout): ByteRange {
  const [small, usual] = FRONT_PLACES
  const fits = dataStartBytes >= usual + blockBytes
  return { offset: fits ? usual : small, length: blockBytes }
}

/** The block of the anchor. */
export function endOf({ mediaBytes, blockBytes }: AnchorLayout): ByteRange {
  return { offset: mediaBytes - blockBytes, length: blockBytes }
}

/**
 * The layout of a medium that has grown to `mediaBytes`. What moves goes behind the old end, so that the old places
 * stay whole until the new anchor is there; where the medium has not grown enough for that, only the anchor moves.
 */
export function planResize(layout: AnchorLayout, mediaBytes: number): AnchorLayout {
  const { dataStartBytes, blockBytes } = layout
  const next = { ...planAnchor(mediaBytes, blockBytes), dataStartBytes }
  return next.dataEndBytes >= layout.mediaBytes ? next : { ...layout, mediaBytes }
}

function checkMedium(mediaBytes: number, blockBytes: number): void {
  assert(mediaBytes % blockBytes === 0, 'a medium has whole blocks')
  if (blockBytes > ANCHOR_ALIGNMENT_BYTES || ANCHOR_ALIGNMENT_BYTES % blockBytes !== 0) {
    const message = `logical blocks of ${blockBytes} bytes cannot be used; 512 to 4096 can`
    throw new PlexusError('unsupported', { op: 'plan', subject: 'layout', message })
  }
  if (mediaBytes >= ANCHOR_MEDIA_BYTES_MIN) return
  const message =
    `${formatSize(mediaBytes)} is too small for a disk with metadata and data; ` +
    `use one of ${formatSize(ANCHOR_MEDIA_BYTES_MIN)} or more`
  throw new PlexusError('no-space', { op: 'plan', subject: 'layout', message })
}

function share(mediaBytes: number, rule: { min: number; max: number; share: number }): number {
  const wanted = alignDown(Math.floor(mediaBytes / rule.share), ROUND_BYTES)
  return Math.min(rule.max, Math.max(rule.min, wanted))
}
