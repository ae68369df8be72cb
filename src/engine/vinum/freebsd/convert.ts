/**
 * How FreeBSD's drives become native ones in place: what must hold, where the metadata goes, and the writes.
 * Called by vinum-class.ts (verb convert) inside a topology change; the native set assembles afterwards from what was
 * written. No byte of a subdisk is written or moved.
 *
 * The order of writes, each durable before the next, keeps the configuration readable at any moment:
 *   1. on every drive an anchor of generation 0 (AnchoredDevice.format with `keepSlots`);
 *   2. on every drive a commit of generation 1. It goes to slot B, and where that lies in the head of the disk, over
 *      FreeBSD's second copy; the first one stays whole until the next commit;
 *   3. on every drive the removed magic (freebsd/format.ts), once ALL have generation 1.
 * Who finds a valid FreeBSD header therefore takes the drive for FreeBSD's, whatever its anchor says, unless
 * another drive of the anchor's set has the removed magic: then step 2 had ended everywhere, and it is native.
 */
import { defined } from '../../../base/assert.ts'
import { PlexusError, toPlexusError } from '../../../base/errors.ts'
import { type AnchorLayout, payloadRoom, planAnchorAround } from '../../anchor/anchor-layout.ts'
import { AnchoredDevice } from '../../anchor/anchored-device.ts'
import type { Consumer } from '../../geom/consumer.ts'
import { encodeModel } from '../model/codec.ts'
import { type DriveRecord, plexesOf, subdisksOf, type VinumModel } from '../model/model.ts'
import { checkModel } from '../model/model-check.ts'
import { hasParity } from '../model/plex-kinds.ts'
import { FREEBSD_DATA_OFFSET_BYTES } from '../text/config.ts'
import { markFreebsdRemoved } from './format.ts'
import type { FreebsdSet } from './set.ts'

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
    const names = missing.join(', ')
    throw refusal('gone', names, `drive ${names} is missing: connect all drives before converting`)
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

export interface Conversion {
  readonly plan: ConversionPlan
  /** Generation 1 of the native set. */
  readonly model: VinumModel
  readonly payload: Buffer
}

/**
 * What a conversion would write. Throws when drives are missing or are not of one set, when something is not up or
 * not sound, when a volume is open, and when there is no room; then nothing may be written.
 */
export function prepareConversion(set: FreebsdSet, setUuid: string): Conversion {
  const { strangers } = set
  if (strangers.length > 0) {
    const why =
      `drive ${strangers.join(', ')} carries subdisks that the newest configuration does not have, and that ` +
      'would be lost; disconnect it, then convert again'
    throw refusal('invalid', strangers.join(', '), why)
  }
  const plan = planConversion(set.model)
  checkClean(set.model)
  for (const { name, consumers } of set.providers) {
    if (consumers.size === 0) continue
    throw refusal('in-use', name, `volume ${name} is in use; take its LUNs away first`)
  }
  const model = { ...plan.model, setUuid, line: setUuid, generation: 1 }
  checkModel(model)
  const payload = encodeModel(model)
  for (const [uuid, { slots }] of plan.layouts) {
    if (payload.length <= Math.min(...slots.map(payloadRoom))) continue
    const { name } = defined(set.drives.get(uuid), 'the drive of a layout').record
    const why = `drive ${name} has no room for a configuration of ${payload.length} bytes; copy the data to new volumes instead`
    throw refusal('no-space', name, why)
  }
  return { plan, model, payload }
}

/** A copy that is not up now would become a native one that is not; FreeBSD can still mend it, or it is copied off. */
function checkClean(model: VinumModel): void {
  for (const volume of model.volumes) {
    const plexes = plexesOf(model, volume.uuid)
    const raid5 = plexes.find(hasParity)
    if (raid5 && plexes.length > 1) {
      const why =
        `volume ${volume.name} has the raid5 plex ${raid5.name} and other plexes, which no native volume has; let FreeBSD remove ` +
        'them, or copy the volume to a new one'
      throw refusal('unsupported', volume.name, why)
    }
    const parts = plexes.flatMap((plex) => [
      { type: 'plex', ...plex },
      ...subdisksOf(model, plex.uuid).map((one) => ({ type: 'subdisk', ...one })),
    ])
    const bad = [...parts, { type: 'volume', ...volume }].find(({ state }) => state !== 'up')
    if (!bad) continue
    const why =
      `${bad.type} ${bad.name} is ${bad.state}: convert only what is whole; let FreeBSD bring it up to date, or ` +
      `copy volume ${volume.name} to a new one`
    throw refusal('invalid', bad.name, why)
  }
}

/**
 * Writes it. Resolves to what went wrong without harm. Rejects when not even one drive could be marked at the end:
 * then the drives are FreeBSD's as before, and it may be tried again.
 */
export async function writeConversion(
  set: FreebsdSet,
  { plan, model, payload }: Conversion,
): Promise<readonly string[]> {
  const drives = [...plan.layouts].map(([uuid, layout]) => {
    const { consumer, record } = defined(set.drives.get(uuid), 'a drive that is converted')
    return { uuid, layout, record, consumer: defined(consumer, `the device of ${record.name}`) }
  })
  for (const [index, { consumer }] of drives.entries()) {
    try {
      consumer.changeAccess({ read: 0, write: 1, exclusive: 0 })
    } catch (error) {
      for (const one of drives.slice(0, index)) closeForWriting(one.consumer)
      throw error
    }
  }
  try {
    const identity = { setUuid: model.setUuid, className: set.className }
    const labels = await all(
      drives.map(({ consumer, uuid, layout }) => {
        const options = { ...identity, deviceUuid: uuid, layout, keepSlots: true }
        return AnchoredDevice.format(consumer, options)
      }),
    )
    await all(labels.map((label) => label.commit(model.generation, payload)))
    const failed: { readonly name: string; readonly error: PlexusError }[] = []
    for (const { consumer, record } of drives) {
      try {
        await markFreebsdRemoved(consumer)
      } catch (error) {
        failed.push({ name: record.name, error: toPlexusError(error, 'convert', record.name) })
      }
    }
    const [first] = failed
    if (first && failed.length === drives.length) throw first.error
    // One mark is enough: whoever finds it knows that the others were to follow (vinum-class.ts).
    return failed.map(
      ({ name, error }) => `drive ${name} still has FreeBSD's header: ${error.message}`,
    )
  } finally {
    for (const { consumer } of drives) closeForWriting(consumer)
  }
}

/** When all have ended: what they gave, or the first error. Nothing is under way any more in either case. */
async function all<T>(work: readonly Promise<T>[]): Promise<readonly T[]> {
  const results = await Promise.allSettled(work)
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason
    return result.value
  })
}

function closeForWriting(consumer: Consumer): void {
  consumer.changeAccess({ read: 0, write: -1, exclusive: 0 })
}

function refusal(
  kind: ConstructorParameters<typeof PlexusError>[0],
  subject: string,
  message: string,
): PlexusError {
  return new PlexusError(kind, { op: 'convert', subject, message })
}
