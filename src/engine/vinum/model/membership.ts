/**
 * What the coming and going of drives and the failure of subdisks do to the model: pure. A subdisk that leaves
 * is `down` when no copy went on without it (it is complete and may go up when it returns: vinum's CANGOUP),
 * and `stale` when another copy may have taken writes that it missed. docs/vinum.md, 3.6 and 5.1; used by
 * vinum-set.ts and config-store.ts.
 */
import { uuidOf } from '../../metadata/lists.ts'
import { byUuid, type DriveRecord, mapRecords, putRecord, type VinumModel } from './model.ts'
import { derive } from './state-rules.ts'

/**
 * Drives are gone or failing: they vote no more, their subdisks are out of service, moves to them end. Those that
 * are named in one call went together: nobody can have written what only they had, so that it is complete on each.
 */
export function loseDrives(model: VinumModel, driveUuids: Iterable<string>): VinumModel {
  const named = new Set(driveUuids)
  const isUp = ({ state }: DriveRecord): boolean => state === 'up'
  const lost = new Set(
    model.drives
      .filter(isUp)
      .map(uuidOf)
      .filter((uuid) => named.has(uuid)),
  )
  if (lost.size === 0) return model
  const down = mapRecords(model, 'drives', (one) =>
    lost.has(one.uuid) ? { ...one, state: 'down' } : one,
  )
  const halted = model.subdisks.filter(({ move }) => move && lost.has(move.driveUuid)).map(uuidOf)
  const next = mapRecords(down, 'subdisks', (one) =>
    halted.includes(one.uuid) ? { ...one, move: undefined } : one,
  )
  const jobs = model.jobs.filter((job) => job.kind !== 'move' || !halted.includes(job.targetUuid))
  return derive({ ...next, jobs })
}

/**
 * Drives are back with their old content, on the devices that `devices` names by UUID: complete subdisks serve
 * again, the others wait for their jobs. Those that are named in one call return together.
 */
export function returnDrives(model: VinumModel, devices: ReadonlyMap<string, string>): VinumModel {
  const back = new Set<string>()
  const next = mapRecords(model, 'drives', (one) => {
    const device = devices.get(one.uuid)
    if (device === undefined || (one.state === 'up' && one.device === device)) return one
    if (one.state === 'down') back.add(one.uuid)
    return { ...one, state: 'up', device }
  })
  if (next === model) return model
  const raised = mapRecords(next, 'subdisks', (one) =>
    back.has(one.driveUuid) && one.state === 'down' ? { ...one, state: 'up' } : one,
  )
  return derive(raised)
}

/** Subdisks that missed a write are stale: also those that were complete when their drive was lost. */
export function demoteSubdisks(model: VinumModel, uuids: readonly string[]): VinumModel {
  const missed = new Set(uuids)
  const next = mapRecords(model, 'subdisks', (one) =>
    missed.has(one.uuid) && one.state !== 'stale' ? { ...one, state: 'stale' } : one,
  )
  return next === model ? model : derive(next)
}

/**
 * A move that ends in a commit which also loses the new place has not taken place: the old one was written to until
 * now and is complete, so the subdisk stays there. `before` is the configuration before the commit.
 */
export function keepOldPlaces(before: VinumModel, after: VinumModel): VinumModel {
  const isUp = (uuid: string): boolean => byUuid(after.drives, uuid)?.state === 'up'
  let next = after
  for (const subdisk of after.subdisks) {
    const old = byUuid(before.subdisks, subdisk.uuid)
    if (!old?.move || old.driveUuid === subdisk.driveUuid) continue
    if (isUp(subdisk.driveUuid) || !isUp(old.driveUuid)) continue
    const { driveUuid, driveOffsetBytes, state, origin } = old
    const kept = { ...subdisk, driveUuid, driveOffsetBytes, state, origin, move: undefined }
    next = putRecord(next, 'subdisks', kept)
  }
  return next === after ? after : derive(next)
}
