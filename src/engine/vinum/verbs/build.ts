/**
 * Builds volumes, plexes and subdisks in a draft: sizes of columns, places on the drives, names, first states.
 * docs/vinum.md, 4; a new plex beside others is stale until a sync has filled it, so that two copies that
 * differ are never both up (8.2). Used by every verb that creates.
 */
import { alignDown, alignUp, formatSize } from '../../../base/bytes.ts'
import {
  BLOCK_BYTES_DEFAULT,
  PAGE_BYTES,
  PLEXES_PER_VOLUME,
  STRIPE_BYTES_MAX,
  STRIPE_BYTES_MIN,
  SUBDISKS_PER_PLEX,
} from '../../../base/limits.ts'
import { newUuid } from '../../../base/random.ts'
import { MAP_PAIR_BYTES, planAnchor } from '../../anchor/anchor-layout.ts'
import { alignedPart, alignmentOf, allocate, freeExtents } from '../model/allocation.ts'
import { mapSlotsOf } from '../model/map-slots.ts'
import type {
  DriveRecord,
  OriginRecord,
  ParityLayout,
  PlexRecord,
  SubdiskRecord,
  SubdiskState,
  VinumModel,
  VolumeRecord,
} from '../model/model.ts'
import {
  dataColumns,
  hasParity,
  isStriped,
  kindOf,
  type Organization,
} from '../model/plex-kinds.ts'
import type { Draft } from './draft.ts'
import { checkNewName, freeName } from './lookup.ts'

export interface PlexLayout {
  readonly organization: Organization
  /** 0 for concat. */
  readonly stripeBytes: number
  /** raid5 only. */
  readonly parityLayout: ParityLayout | undefined
  /** One subdisk on each, in this order. */
  readonly drives: readonly DriveRecord[]
}

export interface VolumeLayout {
  readonly name: string
  readonly plexes: readonly PlexLayout[]
  /** Default: as much as there is room for. */
  readonly sizeBytes?: number | undefined
}

/** Sizes and places on these drives are multiples of this. */
export function placeAlignment(drives: readonly DriveRecord[]): number {
  return Math.max(PAGE_BYTES, ...drives.map(alignmentOf))
}

/** The largest extent that is free on the drive, in whole multiples of `alignment`. */
export function largestFree(model: VinumModel, drive: DriveRecord, alignment: number): number {
  const free = freeExtents(model, drive).map((one) => alignedPart(one, alignment).length)
  return Math.max(0, ...free)
}

/** Throws `invalid` for a stripe unit that cannot be. */
export function checkStripe(
  draft: Draft,
  stripeBytes: number,
  drives: readonly DriveRecord[],
): void {
  const unit = Math.max(BLOCK_BYTES_DEFAULT, ...drives.map((one) => one.blockBytes))
  const fits = stripeBytes >= STRIPE_BYTES_MIN && stripeBytes <= STRIPE_BYTES_MAX
  if (fits && stripeBytes % unit === 0) return
  const why = `invalid stripe size ${formatSize(stripeBytes)}: it must be a multiple of ${formatSize(unit)}, at most ${formatSize(STRIPE_BYTES_MAX)}; 256KiB is usual`
  draft.fail('invalid', 'stripe', why)
}

/** Creates a volume whole: its plexes and subdisks, p0 up, the other copies stale. */
export function buildVolume(draft: Draft, layout: VolumeLayout): VolumeRecord {
  checkNewName(draft, 'volume', layout.name)
  const target = targetBytes(draft, layout)
  const sizes = layout.plexes.map((plex) => columnSizes(draft, plex, target))
  const sizeBytes = Math.min(...layout.plexes.map((plex, index) => bytesOf(plex, sizes[index])))
  const volume = newVolume(draft, layout.name, sizeBytes)
  layout.plexes.forEach((plex, index) => {
    buildPlex(draft, volume, plex, sizes[index] ?? [], index === 0 ? 'up' : 'stale')
  })
  return volume
}

/** Adds one more copy to a volume: stale, until a sync has filled it. */
export function buildCopy(draft: Draft, volume: VolumeRecord, layout: PlexLayout): PlexRecord {
  const sizes = columnSizes(draft, layout, volume.sizeBytes)
  return buildPlex(draft, volume, layout, sizes, 'stale')
}

/** What all plexes can hold, or what was asked for. Throws `no-space` where that is more. */
function targetBytes(draft: Draft, layout: VolumeLayout): number {
  const capacity = Math.min(...layout.plexes.map((plex) => capacityBytes(draft, plex)))
  if (layout.sizeBytes === undefined) return capacity
  if (layout.sizeBytes > capacity)
    throw draft.noSpace`${layout.name}: ${formatSize(layout.sizeBytes)} were asked for, but these drives have room for ${formatSize(capacity)}; add drives, or ask for less`
  return layout.sizeBytes
}

/** Bytes that a plex of this layout can hold. Throws `no-space` when a drive has no room at all. */
function capacityBytes(draft: Draft, plex: PlexLayout): number {
  const { stripeBytes, drives } = plex
  checkDrives(draft, plex)
  const alignment = placeAlignment(drives)
  const rooms = drives.map((drive) => {
    const room = largestFree(draft.model, drive, alignment)
    const usable = isStriped(plex) ? alignDown(room, stripeBytes) : room
    if (usable > 0) return usable
    throw draft.noSpace`drive ${drive.name} has no room: its largest free extent is ${formatSize(room)}; choose another drive, or remove a subdisk from it`
  })
  return bytesOf(plex, rooms)
}

function checkDrives(draft: Draft, plex: PlexLayout): void {
  const { organization, stripeBytes, drives } = plex
  const fewest = kindOf(plex).columnsMin
  if (drives.length < fewest)
    throw draft.invalid`${organization} needs at least ${fewest} drives, and ${drives.length} ${drives.length === 1 ? 'was' : 'were'} named; name more`
  checkSubdiskCount(draft, drives.length)
  const twice = drives.find(
    (one, index) => drives.findIndex((two) => two.uuid === one.uuid) < index,
  )
  if (twice) throw draft.invalid`drive ${twice.name} is named twice; a plex takes each drive once`
  if (isStriped(plex)) checkStripe(draft, stripeBytes, drives)
}

export function checkSubdiskCount(draft: Draft, count: number): void {
  if (count <= SUBDISKS_PER_PLEX) return
  const why = `a plex has at most ${SUBDISKS_PER_PLEX} subdisks, and this one would have ${count}; use fewer drives`
  draft.fail('exhausted', 'plex', why)
}

/** The size of each subdisk of a plex that holds `target` bytes at least. */
function columnSizes(draft: Draft, plex: PlexLayout, target: number): readonly number[] {
  const { organization, stripeBytes, drives } = plex
  const capacity = capacityBytes(draft, plex)
  if (capacity < target) {
    const why = `these drives have room for ${formatSize(capacity)} as ${organization}, and ${formatSize(target)} are needed; choose larger drives, or more of them`
    draft.fail('no-space', organization, why)
  }
  if (isStriped(plex)) {
    const size = alignUp(Math.ceil(target / dataColumns(plex, drives.length)), stripeBytes)
    return drives.map(() => size)
  }
  const alignment = placeAlignment(drives)
  let left = alignUp(target, alignment)
  return drives.map((drive) => {
    if (left === 0)
      throw draft.invalid`drive ${drive.name} would hold nothing: ${formatSize(target)} fit the drives before it; leave it out`
    const size = Math.min(left, largestFree(draft.model, drive, alignment))
    left -= size
    return size
  })
}

function bytesOf(plex: PlexLayout, sizes: readonly number[] = []): number {
  if (isStriped(plex)) return dataColumns(plex, sizes.length) * Math.min(...sizes)
  return sizes.reduce((sum, size) => sum + size, 0)
}

/** The lowest place in the map areas that no volume has, from `wanted` on. */
export function freeMapSlot({ volumes }: VinumModel, wanted = 0): number {
  const taken = new Set(volumes.flatMap(mapSlotsOf))
  let slot = wanted
  while (taken.has(slot)) slot++
  return slot
}

/** Adds the record of a volume without plexes; `sizeBytes` when it is known already. */
export function newVolume(draft: Draft, name: string, sizeBytes: number | undefined): VolumeRecord {
  const mapSlot = freeMapSlot(draft.model)
  const volume: VolumeRecord = {
    uuid: newUuid(draft.context.random),
    name,
    state: 'up',
    sizeBytes: sizeBytes ?? 0,
    readPolicy: 'round-robin',
    preferredPlexUuid: undefined,
    mapSlot,
    moreMapSlots: undefined,
    mismatches: undefined,
    sparePoolUuid: undefined,
  }
  draft.add('volumes', volume)
  const size = sizeBytes === undefined ? '' : `: ${formatSize(sizeBytes)}`
  draft.step`create volume ${name}${size}`
  return volume
}

/** Adds the record of a plex, and tells of it. */
export function newPlex(
  draft: Draft,
  plex: Omit<PlexRecord, 'uuid' | 'state' | 'parityValidBytes' | 'lost' | 'growth'>,
  columns: number,
): PlexRecord {
  const record: PlexRecord = {
    ...plex,
    uuid: newUuid(draft.context.random),
    state: 'down',
    parityValidBytes: 0,
    lost: undefined,
    growth: undefined,
  }
  draft.add('plexes', record)
  draft.step`create plex ${record.name}: ${layoutText(record, columns)}`
  return record
}

/** `raid5, 4 columns, 256 KiB stripe, left-symmetric`. */
export function layoutText(
  plex: Pick<PlexRecord, 'organization' | 'stripeBytes' | 'parityLayout'>,
  columns: number,
): string {
  const { organization, stripeBytes, parityLayout } = plex
  const parts = isStriped(plex)
    ? [`${columns} columns`, `${formatSize(stripeBytes)} stripe`]
    : [`${columns} ${columns === 1 ? 'subdisk' : 'subdisks'}`]
  return [organization, ...parts, ...(parityLayout === undefined ? [] : [parityLayout])].join(', ')
}

function buildPlex(
  draft: Draft,
  volume: VolumeRecord,
  layout: PlexLayout,
  sizes: readonly number[],
  state: SubdiskState,
): PlexRecord {
  checkOneMore(draft, volume, layout.organization)
  const name = childName(draft, 'plex', `${volume.name}.p`, draft.plexesOf(volume).length)
  const { organization, stripeBytes, parityLayout, drives } = layout
  const plex = newPlex(
    draft,
    { name, volumeUuid: volume.uuid, organization, stripeBytes, parityLayout },
    drives.length,
  )
  drives.forEach((drive, index) => {
    appendSubdisk(draft, plex, { drive, sizeBytes: sizes[index] ?? 0, state })
  })
  return plex
}

/** May the volume have one more plex, of this organisation? Throws `exhausted` or `unsupported`. */
export function checkOneMore(draft: Draft, volume: VolumeRecord, organization: Organization): void {
  const plexes = draft.plexesOf(volume)
  if (plexes.length >= PLEXES_PER_VOLUME)
    throw draft.exhausted`volume ${volume.name} has ${PLEXES_PER_VOLUME} plexes already, which is the most; remove one first`
  const growing = plexes.find(({ growth }) => growth)
  if (growing) {
    const [job] = draft.jobsOn(growing)
    const next = job
      ? `wait for job ${job.id}: plexus wait ${volume.name} --for grow`
      : `let that end first: plexus vinum start ${growing.name}`
    throw draft.inUse`volume ${volume.name} gets no other plex while its plex ${growing.name} grows; ${next}`
  }
  if (plexes.length === 0 || ![{ organization }, ...plexes].some(hasParity)) return
  throw draft.unsupported`volume ${volume.name} cannot have ${plexes.map(({ name }) => name).join(', ')} and a ${organization} plex: a raid5 plex is the only plex of its volume; for copies use mirrors (--mirror), for parity one raid5 plex`
}

/** The name that the default rule gives, or the next free number where that one is taken. */
export function childName(
  draft: Draft,
  type: 'drive' | 'plex' | 'subdisk',
  prefix: string,
  first: number,
): string {
  const name = freeName(draft.model, prefix, first)
  checkNewName(draft, type, name)
  return name
}

interface NewSubdisk {
  /** Default: the next one of its plex. */
  readonly name?: string
  readonly drive: DriveRecord
  readonly sizeBytes: number
  readonly state: SubdiskState
  /** Absolute on the device; default: the first place that is large enough. */
  readonly driveOffsetBytes?: number | undefined
  readonly origin?: OriginRecord | undefined
}

/** Adds a subdisk at the end of a plex: the next piece of concat, else the next column. Throws `no-space`. */
export function appendSubdisk(draft: Draft, plex: PlexRecord, init: NewSubdisk): SubdiskRecord {
  const columns = draft.subdisksOf(plex).length
  const plexOffsetBytes = isStriped(plex) ? columns * plex.stripeBytes : draft.plexBytes(plex)
  const name = init.name ?? childName(draft, 'subdisk', `${plex.name}.s`, columns)
  return placeSubdisk(draft, plex, { ...init, name, plexOffsetBytes })
}

/** Finds a place on the drive and adds the subdisk; without `plex` a detached one. Throws `no-space`. */
export function placeSubdisk(
  draft: Draft,
  plex: PlexRecord | undefined,
  init: NewSubdisk & Pick<SubdiskRecord, 'name' | 'plexOffsetBytes'>,
): SubdiskRecord {
  const { name, drive, sizeBytes, plexOffsetBytes, state } = init
  const volume = draft.volumeOf(plex)
  if (volume) checkMapSlot(draft, volume, drive)
  const record: SubdiskRecord = {
    uuid: newUuid(draft.context.random),
    name,
    driveUuid: drive.uuid,
    plexUuid: plex?.uuid,
    sizeBytes,
    driveOffsetBytes: allocate(draft.model, drive, sizeBytes, init.driveOffsetBytes),
    plexOffsetBytes,
    state,
    move: undefined,
    origin: init.origin,
  }
  draft.add('subdisks', record)
  draft.step`create subdisk ${name} on ${drive.name}: ${formatSize(sizeBytes)}`
  return record
}

/** A volume needs its place in the map area of each of its drives; small drives have few. Throws `exhausted`. */
export function checkMapSlot(draft: Draft, volume: VolumeRecord, drive: DriveRecord): void {
  const slots = Math.floor(
    planAnchor(drive.mediaBytes, drive.blockBytes).map.length / MAP_PAIR_BYTES,
  )
  if (volume.mapSlot < slots) return
  const why = `drive ${drive.name} has room for the maps of ${slots} volumes only; remove a volume first, or use larger drives`
  draft.fail('exhausted', volume.name, why)
}
