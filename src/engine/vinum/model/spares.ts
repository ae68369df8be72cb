/**
 * Spares and their pools as the configuration has them (docs/vinum.md, 10): which state a spare is in, which one suits a
 * subdisk, and what befalls its record. A spare is a drive of the set; what it is used for follows from the subdisks that lie
 * on it. Pure.
 */
import { formatSize } from '../../../base/bytes.ts'
import { SPARE_REASON_CHARS } from '../../../base/limits.ts'
import { alignedPart, alignmentOf, freeExtents } from './allocation.ts'
import { pairsOn } from './map-slots.ts'
import {
  byUuid,
  type DriveRecord,
  type OriginRecord,
  type PoolRecord,
  type SpareRecord,
  type SubdiskRecord,
  subdisksBelow,
  type VinumModel,
  type VolumeRecord,
  volumeAbove,
} from './model.ts'

export type SpareState = 'available' | 'reserved' | 'broken'

export function sparesOf({ spares = [] }: VinumModel): readonly SpareRecord[] {
  return spares
}

export function poolsOf({ pools = [] }: VinumModel): readonly PoolRecord[] {
  return pools
}

export function spareOf(model: VinumModel, driveUuid: string): SpareRecord | undefined {
  return model.spares?.find((one) => one.driveUuid === driveUuid)
}

/** The pools that a spare is in. */
export function poolsWith(model: VinumModel, driveUuid: string): readonly PoolRecord[] {
  return poolsOf(model).filter(({ driveUuids }) => driveUuids.includes(driveUuid))
}

/** The pool of the volume of a subdisk. */
export function poolAbove(model: VinumModel, subdisk: SubdiskRecord): PoolRecord | undefined {
  return poolOf(model, volumeAbove(model, subdisk))
}

export function poolOf(
  model: VinumModel,
  volume: Pick<VolumeRecord, 'sparePoolUuid'> | undefined,
): PoolRecord | undefined {
  return byUuid(poolsOf(model), volume?.sparePoolUuid)
}

/** The volumes that take spares from a pool. */
export function volumesUsing(model: VinumModel, { uuid }: PoolRecord): readonly VolumeRecord[] {
  return model.volumes.filter(({ sparePoolUuid }) => sparePoolUuid === uuid)
}

/** What lies on a drive, or is on its way to it. */
export function usersOf(model: VinumModel, driveUuid: string): readonly SubdiskRecord[] {
  return model.subdisks.filter(
    (one) => one.driveUuid === driveUuid || one.move?.driveUuid === driveUuid,
  )
}

/** Subdisks of a volume that lie on spares, or are on their way to one. */
export function sparedOf(model: VinumModel, volume: VolumeRecord): readonly SubdiskRecord[] {
  const isSpare = (uuid: string | undefined): boolean =>
    uuid !== undefined && spareOf(model, uuid) !== undefined
  return subdisksBelow(model, volume.uuid).filter(
    ({ driveUuid, move }) => isSpare(driveUuid) || isSpare(move?.driveUuid),
  )
}

/** One that is recorded as broken, or whose drive is out of service, is broken also where something still lies on it. */
export function spareStateOf(model: VinumModel, { driveUuid, broken }: SpareRecord): SpareState {
  if (broken !== undefined || byUuid(model.drives, driveUuid)?.state !== 'up') return 'broken'
  return usersOf(model, driveUuid).length > 0 ? 'reserved' : 'available'
}

/** The model in which that spare must not be used any more; the same object for a drive that is no spare, or is broken. */
export function withBroken(model: VinumModel, driveUuid: string, reason: string): VinumModel {
  const spare = spareOf(model, driveUuid)
  if (!spare || spare.broken !== undefined) return model
  return putSpare(model, { driveUuid, broken: reason.slice(0, SPARE_REASON_CHARS) })
}

export function putSpare(model: VinumModel, spare: SpareRecord): VinumModel {
  const spares = sparesOf(model).map((one) => (one.driveUuid === spare.driveUuid ? spare : one))
  return { ...model, spares }
}

/** Without spares that no pool has. */
export function dropLooseSpares(model: VinumModel): VinumModel {
  const kept = sparesOf(model).filter(({ driveUuid }) => poolsWith(model, driveUuid).length > 0)
  if (kept.length === sparesOf(model).length) return model
  return { ...model, spares: kept.length > 0 ? kept : undefined }
}

/** The model without what names these drives: they leave the set. */
export function forgetDrives(model: VinumModel, gone: ReadonlySet<string>): VinumModel {
  const { pools, subdisks } = model
  const leaves = ({ origin }: SubdiskRecord): boolean =>
    origin !== undefined && gone.has(origin.driveUuid)
  const isNamed = pools?.some(({ driveUuids }) => driveUuids.some((uuid) => gone.has(uuid)))
  if (!isNamed && !subdisks.some(leaves)) return model
  return dropLooseSpares({
    ...model,
    subdisks: subdisks.map((one) => (leaves(one) ? { ...one, origin: undefined } : one)),
    pools: pools?.map((pool) => ({
      ...pool,
      driveUuids: pool.driveUuids.filter((uuid) => !gone.has(uuid)),
    })),
  })
}

/** The place that a subdisk comes from when it has come to `driveUuid` by a move. */
export function originAfterMove(
  model: VinumModel,
  subdisk: SubdiskRecord,
  driveUuid: string,
): OriginRecord | undefined {
  if (!spareOf(model, driveUuid)) return undefined
  if (spareOf(model, subdisk.driveUuid)) return subdisk.origin
  const { driveOffsetBytes } = subdisk
  return { driveUuid: subdisk.driveUuid, driveOffsetBytes, copyBack: 'held' }
}

/** What is known of drives beside the configuration. */
export interface SpareFacts {
  isPresent(driveUuid: string): boolean
  /** undefined: it is not here, so that nobody can tell. */
  isRotational(driveUuid: string): boolean | undefined
}

export type SpareChoice = { readonly drive: DriveRecord } | { readonly why: string }

/**
 * The spare that takes the place of a subdisk: of those in the pool of its volume that are available and large enough, first
 * one of the kind of its drive (rotating or not), then the smallest, then the oldest.
 */
export function spareFor(
  model: VinumModel,
  subdisk: SubdiskRecord,
  facts: SpareFacts,
): SpareChoice {
  const volume = volumeAbove(model, subdisk)
  const pool = poolOf(model, volume)
  if (!volume || !pool) return { why: `${volume?.name ?? subdisk.name} has no pool of spares` }
  const free = pool.driveUuids.flatMap((uuid) => {
    const spare = spareOf(model, uuid)
    const drive = byUuid(model.drives, uuid)
    const isFree = spare && spareStateOf(model, spare) === 'available' && facts.isPresent(uuid)
    return drive && isFree ? [drive] : []
  })
  if (free.length === 0) {
    const why = pool.driveUuids.length === 0 ? 'has no spares' : 'has no spare that is available'
    return { why: `pool ${pool.name} ${why}` }
  }
  const fitting = free.filter((drive) => fits(model, volume, subdisk, drive))
  const kind = kindWanted(model, volume, subdisk, facts)
  const rank = ({ uuid, dataStartBytes, dataEndBytes }: DriveRecord): readonly number[] => [
    kind === undefined || facts.isRotational(uuid) === kind ? 0 : 1,
    dataEndBytes - dataStartBytes,
  ]
  const [best] = [...fitting].sort((a, b) => compare(rank(a), rank(b)))
  if (best) return { drive: best }
  const size = formatSize(subdisk.sizeBytes)
  return { why: `no available spare of pool ${pool.name} can take the ${size} of ${subdisk.name}` }
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (const [index, value] of a.entries()) {
    const difference = value - (b[index] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}

/** Is there room for the subdisk, and for the map of its volume, and does its block suit the volume's? */
function fits(
  model: VinumModel,
  volume: VolumeRecord,
  { sizeBytes }: SubdiskRecord,
  drive: DriveRecord,
): boolean {
  const blocks = subdisksBelow(model, volume.uuid).map(
    ({ driveUuid }) => byUuid(model.drives, driveUuid)?.blockBytes ?? 0,
  )
  const rooms = freeExtents(model, drive).map((one) => alignedPart(one, alignmentOf(drive)).length)
  return (
    drive.blockBytes <= Math.max(...blocks) &&
    volume.mapSlot < pairsOn(drive) &&
    rooms.some((room) => room >= sizeBytes)
  )
}

/** Rotating or not: as its own drive is, else as most of the drives beside it are. undefined: nobody knows. */
function kindWanted(
  model: VinumModel,
  volume: VolumeRecord,
  subdisk: SubdiskRecord,
  { isRotational }: SpareFacts,
): boolean | undefined {
  const own = isRotational(subdisk.driveUuid)
  if (own !== undefined && !spareOf(model, subdisk.driveUuid)) return own
  const kinds = subdisksBelow(model, volume.uuid).flatMap(
    ({ driveUuid }) => isRotational(driveUuid) ?? [],
  )
  const turning = kinds.filter(Boolean).length
  return kinds.length === 0 ? undefined : turning * 2 >= kinds.length
}
