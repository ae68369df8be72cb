/**
 * Where subdisks lie on drives: free extents, allocation, and the common size of columns (docs/vinum.md, 4). Pure:
 * the free space is always computed from the model, so that there is no free list that could disagree with it.
 * Called by the verbs that make subdisks, by reports and by model-check.ts.
 */
import { alignDown, alignUp, type ByteRange, formatSize, isAligned } from '../../../base/bytes.ts'
import { Refusals } from '../../../base/errors.ts'
import { PAGE_BYTES } from '../../../base/limits.ts'
import { having } from '../../metadata/lists.ts'
import type { DriveRecord, SubdiskRecord, VinumModel } from './model.ts'

const refuse = new Refusals('allocate')

/** A part of a drive that is taken, and by whom. */
export interface UsedExtent extends ByteRange {
  /** Name of the subdisk that lies there or is moving there. */
  readonly subdisk: string
}

/** What offsets and sizes of new subdisks on this drive are multiples of, in bytes. */
export function alignmentOf(drive: DriveRecord): number {
  return Math.max(PAGE_BYTES, drive.blockBytes)
}

/**
 * Extents of a drive in use, by offset: its subdisks, the places to which subdisks are moving, and those that are kept for
 * subdisks on spares.
 */
export function usedExtents(model: VinumModel, driveUuid: string): readonly UsedExtent[] {
  const here = having(model.subdisks, 'driveUuid', driveUuid)
  const used: UsedExtent[] = here.map((one) => extentOf(one, one.driveOffsetBytes))
  for (const one of model.subdisks) {
    const { move, origin } = one
    if (move?.driveUuid === driveUuid) used.push(extentOf(one, move.driveOffsetBytes))
    if (origin?.driveUuid === driveUuid && !isSamePlace(origin, move)) {
      used.push(extentOf(one, origin.driveOffsetBytes))
    }
  }
  return used.sort((a, b) => a.offset - b.offset)
}

type Place = Pick<SubdiskRecord, 'driveUuid' | 'driveOffsetBytes'>

export function isSamePlace(a: Place | undefined, b: Place | undefined): boolean {
  return a?.driveUuid === b?.driveUuid && a?.driveOffsetBytes === b?.driveOffsetBytes
}

function extentOf(subdisk: SubdiskRecord, offset: number): UsedExtent {
  return { offset, length: subdisk.sizeBytes, subdisk: subdisk.name }
}

/**
 * Free extents of a drive's data area, by offset. What is contiguous is one extent, as every gap between two
 * neighbours is (docs/vinum.md, 8.22).
 */
export function freeExtents(model: VinumModel, drive: DriveRecord): readonly ByteRange[] {
  const free: ByteRange[] = []
  let at = drive.dataStartBytes
  for (const one of usedExtents(model, drive.uuid)) {
    if (one.offset > at) free.push({ offset: at, length: one.offset - at })
    at = Math.max(at, one.offset + one.length)
  }
  if (drive.dataEndBytes > at) free.push({ offset: at, length: drive.dataEndBytes - at })
  return free
}

/** Bytes of all these extents together. */
export function totalBytes(extents: readonly ByteRange[]): number {
  return extents.reduce((sum, one) => sum + one.length, 0)
}

/**
 * A place for a subdisk of `sizeBytes`, in bytes from the begin of the device: `offsetBytes`, or the first extent that
 * is large enough. Throws `invalid` for a size or an offset that is not aligned or outside the data area, and
 * `no-space` with what is free.
 */
export function allocate(
  model: VinumModel,
  drive: DriveRecord,
  sizeBytes: number,
  offsetBytes?: number,
): number {
  checkAligned(drive, 'size', sizeBytes, drive.blockBytes)
  if (offsetBytes !== undefined) {
    checkPlace(model, drive, { offset: offsetBytes, length: sizeBytes })
    return offsetBytes
  }
  const found = freeExtents(model, drive)
    .map((one) => alignedPart(one, alignmentOf(drive)))
    .find((one) => one.length >= sizeBytes)
  if (found) return found.offset
  throw refuse.noSpace`drive ${drive.name}: no extent of ${formatSize(sizeBytes)} (${sizeBytes} bytes) is free; ${freeText(model, drive)}`
}

/** Throws when a place that somebody has chosen is not aligned, outside the data area, or taken. */
function checkPlace(model: VinumModel, drive: DriveRecord, place: ByteRange): void {
  checkAligned(drive, 'offset', place.offset, alignmentOf(drive))
  const end = place.offset + place.length
  if (place.offset < drive.dataStartBytes || place.offset >= drive.dataEndBytes) {
    throw refuse.invalid`drive ${drive.name}: offset ${place.offset} is outside the data area, which goes from ${drive.dataStartBytes} to ${drive.dataEndBytes}; choose one inside, or leave it out`
  }
  const taken = usedExtents(model, drive.uuid).find(
    (one) => one.offset < end && place.offset < one.offset + one.length,
  )
  if (!taken && end <= drive.dataEndBytes) return
  const cause = taken
    ? `subdisk ${taken.subdisk} lies from ${taken.offset} to ${taken.offset + taken.length}`
    : `the data area ends at ${drive.dataEndBytes}`
  throw refuse.noSpace`drive ${drive.name}: ${formatSize(place.length)} (${place.length} bytes) do not fit at offset ${place.offset}: ${cause}; ${freeText(model, drive)}`
}

/** The aligned part of an extent; length 0 when there is none. */
export function alignedPart(extent: ByteRange, alignment: number): ByteRange {
  const offset = alignUp(extent.offset, alignment)
  const length = alignDown(extent.offset + extent.length - offset, alignment)
  return { offset, length: Math.max(0, length) }
}

function checkAligned(drive: DriveRecord, what: string, value: number, alignment: number): void {
  if (Number.isSafeInteger(value) && value >= (what === 'size' ? 1 : 0)) {
    if (isAligned(value, alignment)) return
  }
  throw refuse.invalid`drive ${drive.name}: ${what} ${value} is not a multiple of ${formatSize(alignment)}`
}

function freeText(model: VinumModel, drive: DriveRecord): string {
  const free = freeExtents(model, drive)
  if (free.length === 0) return 'it is full'
  const largest = Math.max(...free.map((one) => one.length))
  const total = totalBytes(free)
  return free.length === 1
    ? `free: ${formatSize(total)} (${total} bytes)`
    : `free: ${formatSize(total)} (${total} bytes) in ${free.length} extents, the largest ` +
        `${formatSize(largest)} (${largest} bytes)`
}
