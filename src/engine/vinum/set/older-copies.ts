/**
 * Drives that carry an older time than the others of their set: returned after nobody knows what, copied, put back from
 * a copy, or without what their caches had. Part of a set (vinum-set.ts).
 */
import { defined } from '../../../base/assert.ts'
import { operatingError, type PlexusError } from '../../../base/errors.ts'
import { lostError } from '../io/volume-io.ts'
import { demoteSubdisks } from '../model/membership.ts'
import { byUuid, type VinumModel, volumeAbove } from '../model/model.ts'
import { hasParity } from '../model/plex-kinds.ts'
import { lastCopyLost } from '../model/state-rules.ts'
import { startNeededJobs } from './jobs.ts'
import type { VinumSet } from './vinum-set.ts'

/**
 * Subdisks of a drive of which nobody knows what they missed. Also those that are the only copy: beside newer content of
 * other drives the old one serves by an operator's word alone.
 */
export function oldSubdisks({ subdisks }: VinumModel, driveUuid: string): readonly string[] {
  return subdisks.filter((one) => one.driveUuid === driveUuid).map(({ uuid }) => uuid)
}

/**
 * An older copy that no job fills yet, for want of a source, lacks what no mark tells of: all of it is marked, before the
 * configuration calls its drive up, and nobody knows any more that it is older.
 */
export async function markUnfilled(
  set: VinumSet,
  next: VinumModel,
  driveUuid: string,
): Promise<void> {
  for (const { driveUuid: on, state, plexUuid } of next.subdisks) {
    const map = on === driveUuid && state === 'stale' && set.objects.volumeAbove(plexUuid)?.map
    // Without a drive of the volume that is up: then the next start takes all of it for marked.
    if (map) await map.mark(0, map.sizeBytes).catch(operatingError)
  }
}

/**
 * The model with these subdisks out of service, and filled anew in full: their drives were copied, or put back from a
 * copy, and have missed writes. Where another good copy is lacking they stay, and the event says so.
 */
export function fillOutdated(
  set: VinumSet,
  model: VinumModel,
  outdated: readonly string[],
): VinumModel {
  const out: string[] = []
  for (const uuid of outdated) {
    const isOut = lastCopyLost(model, [...out, uuid]) === undefined
    if (isOut) out.push(uuid)
    const subdisk = defined(byUuid(model.subdisks, uuid), `subdisk ${uuid}`)
    const drive = set.drives.get(subdisk.driveUuid)?.record.name ?? subdisk.name
    const what = `drive ${drive} has an older state of subdisk ${subdisk.name} than the other drives, as a copy or a restored image has`
    const next = isOut
      ? 'it is filled anew from them'
      : 'no other copy is good: put back the right disk, or check the data'
    set.topology.events.emit('critical', 'drive-outdated', drive, `${what}: ${next}`)
  }
  if (out.length === 0) return model
  set.lost.distrust(out)
  return startNeededJobs(demoteSubdisks(model, out), set.topology.random, new Set(out))
}

/**
 * The model with the copies on drives that have failed a flush at the start out of service, before old content of theirs
 * is taken for the right one, and filled: what was not flushed is marked. What has no other copy stays, and so does a column
 * of raid5, which lacks nothing but in rows in doubt: the next flush of their volumes has the error. `settled`: plexes whose logs
 * had all that was not flushed, and were replayed since: they have lost nothing.
 */
export function fillLossy(
  set: VinumSet,
  model: VinumModel,
  lossy: ReadonlyMap<string, PlexusError>,
  settled: ReadonlySet<string>,
): VinumModel {
  const out: string[] = []
  for (const subdisk of model.subdisks) {
    const { uuid, name, driveUuid, plexUuid, state } = subdisk
    const error = lossy.get(driveUuid)
    const volume = volumeAbove(model, subdisk)
    if (!error || !volume || state !== 'up') continue
    if (plexUuid !== undefined && settled.has(plexUuid)) continue
    if (
      hasParity(byUuid(model.plexes, plexUuid)) ||
      lastCopyLost(model, [...out, uuid]) !== undefined
    ) {
      set.options.owed.set(volume.uuid, lostError(volume.name))
      continue
    }
    out.push(uuid)
    const text = `subdisk ${name} may have lost writes and is filled anew: ${error.message}`
    set.topology.events.emit('critical', 'subdisk-stale', name, text)
  }
  return out.length === 0 ? model : startNeededJobs(demoteSubdisks(model, out), set.topology.random)
}
