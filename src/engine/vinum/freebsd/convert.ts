/**
 * How FreeBSD's drives become native ones in place: what must hold, and where the metadata goes. Pure; the set
 * carries it out (vinum-class.ts, verb convert). No byte of a subdisk is written or moved.
 *
 * The order of writes, each durable before the next, keeps the configuration readable at any moment:
 *   1. on every drive an anchor of generation 0 (AnchoredDevice.format with `keepSlots`);
 *   2. on every drive a commit of generation 1. It goes to slot B, and where that lies in the head of the disk, over
 *      FreeBSD's second copy; the first one stays whole until the next commit;
 *   3. on every drive the removed magic (freebsd/format.ts), once ALL have generation 1.
 * Who finds a valid FreeBSD header therefore takes the drive for FreeBSD's, whatever its anchor says, unless
 * another drive of the anchor's set has the removed magic: then step 2 had ended everywhere, and it is native.
 */
import { PlexusError } from '../../../base/errors.ts'
import { type AnchorLayout, planAnchorAround } from '../../geom/anchor-layout.ts'
import type { DriveRecord, VinumModel } from '../model/model.ts'
import { FREEBSD_DATA_OFFSET_BYTES } from './header.ts'

export interface ConversionPlan {
  /** With the drives' new bounds. States and everything else as before. */
  readonly model: VinumModel
  readonly layouts: ReadonlyMap<string, AnchorLayout>
  /** What is given up on which drive, in words. */
  readonly warnings: readonly string[]
}

/**
 * Where anchor, slots, journal and map go on a drive whose subdisks end at `usedEndBytes`. Throws `no-space` when
 * not even the last block is free.
 */
export function convertLayout(mediaBytes: number, usedEndBytes: number): AnchorLayout {
  const kept = { startBytes: FREEBSD_DATA_OFFSET_BYTES, endBytes: usedEndBytes }
  return planAnchorAround(mediaBytes, 512, kept)
}

/**
 * The conversion of a set that assembleFreebsd made. Throws `gone` when a drive is missing, `no-space` for the
 * drives that have no room; then nothing may be written.
 */
export function planConversion(model: VinumModel): ConversionPlan {
  const missing = model.drives.filter(({ state }) => state !== 'up').map(({ name }) => name)
  if (missing.length > 0) {
    const message = `drive ${missing.join(', ')} is missing: connect all drives before converting`
    throw new PlexusError('gone', { op: 'convert', subject: missing.join(', '), message })
  }
  const layouts = new Map(model.drives.map((drive) => [drive.uuid, layoutOf(model, drive)]))
  const drives = model.drives.map((drive): DriveRecord => {
    const layout = layouts.get(drive.uuid)
    if (!layout) return drive
    const { dataStartBytes, dataEndBytes } = layout
    return { ...drive, dataStartBytes, dataEndBytes }
  })
  const warnings = drives
    .filter(({ uuid }) => layouts.get(uuid)?.journal.length === 0)
    .map(
      ({ name }) =>
        `drive ${name} has no room for a journal and a map: at every start its mirrors are copied whole, ` +
        'and its raid5 plexes cannot grow; move its subdisks to a larger drive later',
    )
  return { model: { ...model, drives }, layouts, warnings }
}

function layoutOf(model: VinumModel, drive: DriveRecord): AnchorLayout {
  const ends = model.subdisks
    .filter(({ driveUuid }) => driveUuid === drive.uuid)
    .map(({ driveOffsetBytes, sizeBytes }) => driveOffsetBytes + sizeBytes)
  try {
    return convertLayout(drive.mediaBytes, Math.max(FREEBSD_DATA_OFFSET_BYTES, ...ends))
  } catch (error) {
    if (!(error instanceof PlexusError)) throw error
    const message = `drive ${drive.name} on ${drive.device}: ${error.message}`
    throw new PlexusError(error.kind, { op: 'convert', subject: drive.name, message, cause: error })
  }
}
