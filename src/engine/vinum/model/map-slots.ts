/**
 * Where the intent maps of the volumes lie: pairs of blocks in the map areas of the drives, the same on each drive of a
 * volume (docs/on-disk-format.md). Pure; used at the end of every verb and of every growth.
 */
import { INTENT_REGION_BYTES_WANTED, KIB } from '../../../base/limits.ts'
import { ANCHOR_MEDIA_BYTES_MIN, MAP_PAIR_BYTES, planAnchor } from '../../anchor/anchor-layout.ts'
import { INTENT_BLOCK_REGIONS } from '../../intent/intent-bits.ts'
import {
  byUuid,
  type DriveRecord,
  mapRecords,
  plexesOf,
  subdisksBelow,
  type VinumModel,
  type VolumeRecord,
} from './model.ts'
import { hasParity } from './plex-kinds.ts'

/** Its pairs, by the index of the block of the map. */
export function mapSlotsOf({ mapSlot, moreMapSlots }: VolumeRecord): readonly number[] {
  return [mapSlot, ...(moreMapSlots ?? [])]
}

/** Has the volume copies or parity that may come to differ? Only then it has a map. */
export function isRedundant(model: VinumModel, volumeUuid: string): boolean {
  const plexes = plexesOf(model, volumeUuid)
  return plexes.length > 1 || plexes.some(hasParity)
}

/**
 * Gives each volume as many pairs as let its regions be small ({@link INTENT_REGION_BYTES_WANTED}), where its drives
 * have them: half of what is free stays for others. The same object when nothing changes.
 */
export function allotMapSlots(model: VinumModel): VinumModel {
  const taken = new Set(model.volumes.flatMap(mapSlotsOf))
  return mapRecords(model, 'volumes', (volume) => {
    const before = volume.moreMapSlots ?? []
    const wanted = isRedundant(model, volume.uuid)
      ? Math.ceil(volume.sizeBytes / (INTENT_REGION_BYTES_WANTED * INTENT_BLOCK_REGIONS)) - 1
      : 0
    if (wanted <= 0 && before.length === 0) return volume
    const pairs = mapPairsOf(model, volume)
    const slots = before.filter((slot) => slot < pairs).slice(0, Math.max(wanted, 0))
    const free: number[] = []
    for (let slot = 0; slot < pairs; slot++) if (!taken.has(slot)) free.push(slot)
    const most = Math.min(wanted, Math.floor((free.length + slots.length) / 2))
    for (const slot of free) if (slots.length < most) slots.push(slot)
    if (slots.length === before.length && slots.every((slot, n) => slot === before[n]))
      return volume
    for (const slot of before) taken.delete(slot)
    for (const slot of slots) taken.add(slot)
    return { ...volume, moreMapSlots: slots.length > 0 ? slots : undefined }
  })
}

/** The pairs that all drives of the volume have. One without any remembers nothing, and does not count. */
function mapPairsOf(model: VinumModel, volume: VolumeRecord): number {
  const subdisks = subdisksBelow(model, volume.uuid)
  const uuids = new Set(subdisks.flatMap(({ driveUuid, move }) => [driveUuid, move?.driveUuid]))
  const pairs = [...uuids].flatMap((uuid) => {
    const drive = byUuid(model.drives, uuid)
    return drive ? pairsOn(drive) : []
  })
  const some = pairs.filter((count) => count > 0)
  return some.length > 0 ? Math.min(...some) : 0
}

/** Pairs that a drive has, from where its data ends: a drive that was FreeBSD's may have a map of the least size, or none. */
export function pairsOn({ mediaBytes, blockBytes, dataEndBytes }: DriveRecord): number {
  // The place of a drive that is no more.
  if (mediaBytes < ANCHOR_MEDIA_BYTES_MIN) return 0
  const { map, journal } = planAnchor(mediaBytes, blockBytes)
  const bytes = map.offset + map.length - journal.length - dataEndBytes
  const least = 128 * KIB
  if (bytes >= least) return Math.floor(bytes / MAP_PAIR_BYTES)
  return dataEndBytes < mediaBytes - blockBytes ? least / MAP_PAIR_BYTES : 0
}
