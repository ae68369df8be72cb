/**
 * `vinum list` and its kin, `printconfig`, `volume list` and `volume show`: the model as rows for the command
 * line (control/vinum-rows.ts). docs/vinum.md, 6, "List columns".
 */

import type { VerbSpec } from '../../../control/verb-spec.ts'
import type {
  ConfigText,
  DriveRow,
  PlexRow,
  ProcessRow,
  SubdiskRow,
  VinumListing,
  VolumeRow,
} from '../../../control/vinum-rows.ts'
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import { VOLUME_SPECS } from '../../../control/volume-verbs.ts'
import type { VerbParameters } from '../../geom/types.ts'
import { listOf } from '../../verbs/parameters.ts'
import { freeExtents, totalBytes } from '../model/allocation.ts'
import {
  byUuid,
  type DriveRecord,
  type ObjectType,
  type PlexRecord,
  plexesOf,
  recordsOf,
  type SubdiskRecord,
  sizeOfPlex,
  subdisksOf,
  type VolumeRecord,
} from '../model/model.ts'
import { healthOf } from '../model/state-rules.ts'
import type { PlanContext, ShowingVerb } from '../plan.ts'
import { printConfigText } from '../text/print.ts'
import { isPlaceholder } from './draft.ts'
import { findObject, findTyped } from './lookup.ts'

function driveRow(context: PlanContext, drive: DriveRecord, withFreeList: boolean): DriveRow {
  const freeList = freeExtents(context.model, drive)
  return {
    type: 'drive',
    name: drive.name,
    uuid: drive.uuid,
    set: context.setOf(drive.uuid),
    state: drive.state,
    device: isPlaceholder(drive) ? '???' : drive.device,
    present: context.isPresent(drive.uuid),
    sizeBytes: drive.dataEndBytes - drive.dataStartBytes,
    freeBytes: totalBytes(freeList),
    mediaBytes: drive.mediaBytes,
    blockBytes: drive.blockBytes,
    subdisks: context.model.subdisks.filter((one) => one.driveUuid === drive.uuid).length,
    ...(withFreeList ? { freeList } : {}),
  }
}

function volumeRow(context: PlanContext, volume: VolumeRecord): VolumeRow {
  return {
    type: 'volume',
    name: volume.name,
    uuid: volume.uuid,
    set: context.setOf(volume.uuid),
    state: volume.state,
    health: healthOf(context.model, volume.uuid, context.inDoubt(volume.uuid)),
    plexes: plexesOf(context.model, volume.uuid).length,
    sizeBytes: volume.sizeBytes,
    readPolicy: volume.readPolicy,
    preferredPlex: byUuid(context.model.plexes, volume.preferredPlexUuid)?.name,
    open: context.isOpen(volume.uuid),
  }
}

function processRow(
  context: PlanContext,
  targetUuid: string,
  totalBytes: number,
): ProcessRow | undefined {
  const job = context.model.jobs.find((one) => one.targetUuid === targetUuid)
  if (!job) return undefined
  const { id, kind, paused, cursorBytes } = job
  return { id, kind, paused, doneBytes: Math.min(cursorBytes, totalBytes), totalBytes }
}

function plexRow(context: PlanContext, plex: PlexRecord): PlexRow {
  const subdisks = subdisksOf(context.model, plex.uuid)
  const sizeBytes = sizeOfPlex(plex, subdisks)
  return {
    type: 'plex',
    name: plex.name,
    uuid: plex.uuid,
    set: context.setOf(plex.uuid),
    volume: byUuid(context.model.volumes, plex.volumeUuid)?.name,
    organization: plex.organization,
    stripeBytes: plex.stripeBytes,
    parityLayout: plex.parityLayout,
    state: plex.state,
    subdisks: subdisks.length,
    sizeBytes,
    // A growth moves the data over the columns of the larger plex.
    process: processRow(
      context,
      plex.uuid,
      plex.growth ? sizeOfPlex({ ...plex, growth: undefined }, subdisks) : sizeBytes,
    ),
  }
}

function subdiskRow(context: PlanContext, subdisk: SubdiskRecord): SubdiskRow {
  const { drives, plexes } = context.model
  return {
    type: 'subdisk',
    name: subdisk.name,
    uuid: subdisk.uuid,
    set: context.setOf(subdisk.uuid),
    plex: byUuid(plexes, subdisk.plexUuid)?.name,
    drive: byUuid(drives, subdisk.driveUuid)?.name ?? '???',
    state: subdisk.state,
    sizeBytes: subdisk.sizeBytes,
    plexOffsetBytes: subdisk.plexOffsetBytes,
    driveOffsetBytes: subdisk.driveOffsetBytes,
    movingTo: byUuid(drives, subdisk.move?.driveUuid)?.name,
    process: processRow(context, subdisk.uuid, subdisk.sizeBytes),
  }
}

/** UUIDs of the objects to list, with what is below them where that was asked for. */
function wanted(context: PlanContext, names: readonly string[], recursive: boolean): Set<string> {
  const { model } = context
  const uuids = new Set<string>()
  for (const name of names) uuids.add(findObject(model, name).record.uuid)
  if (!recursive) return uuids
  for (const one of model.plexes) if (uuids.has(one.volumeUuid ?? '')) uuids.add(one.uuid)
  for (const one of model.subdisks) if (uuids.has(one.plexUuid ?? '')) uuids.add(one.uuid)
  // Below a subdisk is its drive; a drive that was named is what its subdisks stand on.
  for (const one of model.subdisks) if (uuids.has(one.uuid)) uuids.add(one.driveUuid)
  return uuids
}

/**
 * The rows of the objects that were named, or of all. `type`: the kind that the verb lists; with `recursive`
 * what is below comes with it.
 */
function listing(
  context: PlanContext,
  parameters: VerbParameters,
  type: ObjectType | undefined,
): VinumListing {
  const { model } = context
  const names = listOf(parameters, 'objects')
  const recursive = parameters['recursive'] === true
  for (const name of names) if (type) findTyped(model, type, name)
  const roots = names.length > 0 || !type ? names : recordsOf(model, type).map((one) => one.name)
  const uuids = wanted(context, roots, recursive)
  const all = names.length === 0 && !type
  const shown = <T extends { readonly uuid: string }>(records: readonly T[]): readonly T[] =>
    all ? records : records.filter((one) => uuids.has(one.uuid))
  const withFreeList = parameters['freeList'] === true
  return {
    drives: shown(model.drives).map((one) => driveRow(context, one, withFreeList)),
    volumes: shown(model.volumes).map((one) => volumeRow(context, one)),
    plexes: shown(model.plexes).map((one) => plexRow(context, one)),
    subdisks: shown(model.subdisks).map((one) => subdiskRow(context, one)),
  }
}

function listVerb(spec: VerbSpec, type: ObjectType | undefined): ShowingVerb {
  return { spec, show: (context, parameters) => listing(context, parameters, type) }
}

export const LISTS: readonly ShowingVerb[] = [
  listVerb(VINUM_SPECS.list, undefined),
  listVerb(VINUM_SPECS.ld, 'drive'),
  listVerb(VINUM_SPECS.lv, 'volume'),
  listVerb(VINUM_SPECS.lp, 'plex'),
  listVerb(VINUM_SPECS.ls, 'subdisk'),
  listVerb(VOLUME_SPECS.list, 'volume'),
]

export const PRINTCONFIG: ShowingVerb = {
  spec: VINUM_SPECS.printconfig,
  show: (context): ConfigText => ({ text: printConfigText(context.model) }),
}

export const VOLUME_SHOW: ShowingVerb = {
  spec: VOLUME_SPECS.show,
  show(context, parameters): VinumListing {
    const objects = listOf(parameters, 'name')
    for (const name of objects) findTyped(context.model, 'volume', name)
    return listing(context, { objects, recursive: true }, undefined)
  },
}
