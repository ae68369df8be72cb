/**
 * What a sound vinum configuration is: names, references, extents, columns, growth, jobs. codec.ts applies it
 * to everything that comes from a disk; tests apply it to whatever a verb has made. The rules follow
 * docs/vinum.md, 1 and 4, and the comments of model.ts.
 */
import { isAligned } from '../../../base/bytes.ts'
import { SPARE_DELAY_S_MAX } from '../../../base/limits.ts'
import { isUuid } from '../../../base/random.ts'
import type { VinumJobKind } from '../../../control/reports.ts'
import { type Check, checksOf, nameFault } from '../../metadata/fields.ts'
import { checkSet } from '../../metadata/set-model.ts'
import { usedExtents } from './allocation.ts'
import { mapSlotsOf } from './map-slots.ts'
import {
  byUuid,
  type DriveRecord,
  findBy,
  type GrowthRecord,
  type ObjectType,
  objectsOf,
  type PlexRecord,
  type SubdiskRecord,
  sizeOfPlex,
  subdisksBelow,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
} from './model.ts'
import { dataColumns, hasParity, isStriped } from './plex-kinds.ts'
import { poolOf, poolsOf, poolsWith, sparesOf } from './spares.ts'

/** What a job of each kind works on. */
const JOB_TARGETS: Readonly<Record<VinumJobKind, readonly ObjectType[]>> = {
  sync: ['plex'],
  resync: ['volume'],
  rebuild: ['plex'],
  initialise: ['plex'],
  check: ['plex', 'volume'],
  repair: ['plex', 'volume'],
  grow: ['plex'],
  move: ['subdisk'],
}

/** Throws `corrupt` that names object and field when the model is not sound. */
export function checkModel(model: VinumModel): void {
  checkSet(model)
  checkIdentities(model)
  for (const one of model.drives) checkExtents(model, one)
  for (const one of model.subdisks) checkSubdisk(model, one)
  for (const one of model.plexes) checkPlex(model, one)
  for (const one of model.volumes) checkVolume(model, one)
  checkJobs(model)
  checkSpares(model)
}

/** Each spare is in a pool, and each drive of a pool is a spare. */
function checkSpares(model: VinumModel): void {
  const { drives } = model
  const seen = new Set<string>()
  for (const { driveUuid } of sparesOf(model)) {
    const check = checksOf(`spare ${driveUuid}`)
    check('driveUuid', byUuid(drives, driveUuid), 'there is no such drive')
    check('driveUuid', !seen.has(driveUuid), 'it is a spare twice')
    check('driveUuid', poolsWith(model, driveUuid).length > 0, 'it is in no pool')
    seen.add(driveUuid)
  }
  const names = new Set<string>()
  for (const { uuid, name, driveUuids, delaySeconds } of poolsOf(model)) {
    const check = checksOf(`pool ${name}`)
    check('uuid', isUuid(uuid), `"${uuid}" is not a UUID`)
    checkName(check, 'name', name)
    check('name', !names.has(name), 'another pool has the same')
    names.add(name)
    const isBounded = delaySeconds <= SPARE_DELAY_S_MAX
    check('delaySeconds', isBounded, `${delaySeconds} is more than ${SPARE_DELAY_S_MAX}`)
    check('driveUuids', new Set(driveUuids).size === driveUuids.length, 'one stands twice')
    for (const one of driveUuids) check('driveUuids', seen.has(one), `${one} is no spare`)
  }
}

function checkIdentities(model: VinumModel): void {
  const uuids = new Map<string, string>()
  const names = new Map<string, string>()
  for (const { type, uuid, name } of objectsOf(model)) {
    const object = `${type} ${name}`
    const check = checksOf(object)
    check('uuid', isUuid(uuid), `"${uuid}" is not a UUID`)
    check('uuid', !uuids.has(uuid), `${uuid} is that of ${uuids.get(uuid)}, too`)
    uuids.set(uuid, object)
    checkName(check, 'name', name)
    check('name', !names.has(name), `${names.get(name)} has the same name`)
    names.set(name, object)
  }
}

function checkName(check: Check, field: string, name: string): void {
  const problem = nameFault(name)
  check(field, problem === undefined, problem ?? '')
}

function checkExtents(model: VinumModel, drive: DriveRecord): void {
  const { dataStartBytes, dataEndBytes, blockBytes } = drive
  let end = dataStartBytes
  let before = 'the data area'
  for (const { subdisk, offset, length } of usedExtents(model, drive.uuid)) {
    const object = `subdisk ${subdisk}`
    const check = checksOf(object)
    const extent = `${offset} to ${offset + length} on drive ${drive.name}`
    const isInside = offset >= dataStartBytes && offset + length <= dataEndBytes
    const area = `${dataStartBytes} to ${dataEndBytes}`
    check('driveOffsetBytes', isInside, `${extent} is outside the data area, ${area}`)
    check('driveOffsetBytes', offset >= end, `${extent} overlaps ${before}`)
    const areWhole = isAligned(offset, blockBytes) && isAligned(length, blockBytes)
    check('driveOffsetBytes', areWhole, `${extent} are not multiples of the block, ${blockBytes}`)
    end = offset + length
    before = object
  }
}

function checkSubdisk({ drives, plexes }: VinumModel, subdisk: SubdiskRecord): void {
  const check = checksOf(`subdisk ${subdisk.name}`)
  const { sizeBytes, driveUuid, plexUuid, move, origin } = subdisk
  check('sizeBytes', sizeBytes !== 0, 'it is 0')
  check('driveUuid', byUuid(drives, driveUuid), `there is no drive ${driveUuid}`)
  const hasPlex = plexUuid === undefined || byUuid(plexes, plexUuid)
  check('plexUuid', hasPlex, `there is no plex ${plexUuid}`)
  const hasPlace = !move || byUuid(drives, move.driveUuid)
  check('move.driveUuid', hasPlace, `there is no drive ${move?.driveUuid}`)
  const isKnown = !origin || byUuid(drives, origin.driveUuid)
  check('origin.driveUuid', isKnown, `there is no drive ${origin?.driveUuid}`)
}

/** The largest block of the drives under these subdisks. */
function largestBlock(model: VinumModel, subdisks: readonly SubdiskRecord[]): number {
  const blocks = subdisks.map((one) => byUuid(model.drives, one.driveUuid)?.blockBytes ?? 512)
  return Math.max(512, ...blocks)
}

function checkPlex(model: VinumModel, plex: PlexRecord): void {
  const object = `plex ${plex.name}`
  const check = checksOf(object)
  const { volumeUuid, stripeBytes, parityLayout, organization, growth } = plex
  const subdisks = subdisksOf(model, plex.uuid)
  const block = largestBlock(model, subdisks)
  const hasVolume = volumeUuid === undefined || byUuid(model.volumes, volumeUuid)
  check('volumeUuid', hasVolume, `there is no volume ${volumeUuid}`)
  const fits = hasParity(plex) === (parityLayout !== undefined)
  check('parityLayout', fits, `${parityLayout ?? 'no layout'} does not go with ${organization}`)
  if (!isStriped(plex)) {
    check('stripeBytes', stripeBytes === 0, 'a concat plex has no stripe')
    check('growth', !growth, 'a concat plex has no columns')
    checkPieces(object, subdisks, block)
    return
  }
  const isWhole = stripeBytes !== 0 && isAligned(stripeBytes, block)
  check('stripeBytes', isWhole, `${stripeBytes} is not a multiple of the block, ${block}`)
  checkColumns(plex, subdisks)
  if (growth) checkGrowth(model, plex, growth, subdisks)
}

/** concat: pieces that do not overlap. Gaps are sound: what was there has been detached. */
function checkPieces(plex: string, subdisks: readonly SubdiskRecord[], block: number): void {
  let end = 0
  for (const { name, plexOffsetBytes: start, sizeBytes } of subdisks) {
    const check = checksOf(`subdisk ${name}`)
    check('plexOffsetBytes', start >= end, `${start} overlaps in ${plex}`)
    const areWhole = isAligned(start, block) && isAligned(sizeBytes, block)
    check('plexOffsetBytes', areWhole, `place and size in ${plex} are not multiples of ${block}`)
    end = start + sizeBytes
  }
}

/**
 * striped, raid5: columns 0, 1, 2 … without a gap, of one size. A gap would be closed silently by everybody who
 * counts columns, and the data be read from the wrong ones.
 */
function checkColumns({ name, stripeBytes }: PlexRecord, subdisks: readonly SubdiskRecord[]): void {
  const size = subdisks[0]?.sizeBytes ?? 0
  for (const [column, one] of subdisks.entries()) {
    const check = checksOf(`subdisk ${one.name}`)
    const { plexOffsetBytes, sizeBytes } = one
    const place = column * stripeBytes
    const expected = `column ${column} of plex ${name} is at ${place}`
    check('plexOffsetBytes', plexOffsetBytes === place, `${plexOffsetBytes}, but ${expected}`)
    const others = `the columns of plex ${name} have ${size}`
    check('sizeBytes', sizeBytes === size, `${sizeBytes}, but ${others}`)
    const isWhole = isAligned(sizeBytes, stripeBytes)
    check('sizeBytes', isWhole, `${sizeBytes} is not a multiple of the stripe, ${stripeBytes}`)
  }
}

function checkGrowth(
  model: VinumModel,
  plex: PlexRecord,
  { columnsBefore, cursorBytes, backup }: GrowthRecord,
  subdisks: readonly SubdiskRecord[],
): void {
  const check = checksOf(`plex ${plex.name}`)
  const isLess = dataColumns(plex, columnsBefore) >= 1 && columnsBefore < subdisks.length
  const now = `there are ${subdisks.length} columns now`
  check('growth.columnsBefore', isLess, `${columnsBefore}, but ${now}`)
  const rowBytes = dataColumns(plex, subdisks.length) * plex.stripeBytes
  const endBytes = sizeOfPlex({ ...plex, growth: undefined }, subdisks)
  const isPlace = isAligned(cursorBytes, rowBytes) && cursorBytes <= endBytes
  const expected = `a multiple of the row, ${rowBytes}, up to ${endBytes}`
  check('growth.cursorBytes', isPlace, `${cursorBytes} is not ${expected}`)
  if (!backup) return
  const { offsetBytes, lengthBytes, driveUuids } = backup
  const isInside = lengthBytes !== 0 && offsetBytes + lengthBytes <= endBytes
  check('growth.backup', isInside, 'its range is not inside the plex')
  check('growth.backup', driveUuids.length > 0, 'it lies on no drive')
  for (const uuid of driveUuids) {
    check('growth.backup.driveUuids', byUuid(model.drives, uuid), `there is no drive ${uuid}`)
  }
}

function checkVolume(model: VinumModel, volume: VolumeRecord): void {
  const check = checksOf(`volume ${volume.name}`)
  const { uuid, sizeBytes, readPolicy, preferredPlexUuid: preferred, mapSlot } = volume
  const block = largestBlock(model, subdisksBelow(model, uuid))
  const isWhole = isAligned(sizeBytes, block)
  check('sizeBytes', isWhole, `${sizeBytes} is not a multiple of the block, ${block}`)
  const isOwn = preferred === undefined || byUuid(model.plexes, preferred)?.volumeUuid === uuid
  check('preferredPlexUuid', isOwn, `${preferred} is not one of its plexes`)
  const isNamed = readPolicy !== 'prefer' || preferred !== undefined
  check('preferredPlexUuid', isNamed, 'the read policy is prefer, and no plex is named')
  const { sparePoolUuid } = volume
  const hasPool = sparePoolUuid === undefined || poolOf(model, volume)
  check('sparePoolUuid', hasPool, `there is no pool ${sparePoolUuid}`)
  const slots = new Set(mapSlotsOf(volume))
  const twin = model.volumes.find(
    (one) => one.uuid !== uuid && mapSlotsOf(one).some((slot) => slots.has(slot)),
  )
  check('mapSlot', !twin, `${mapSlot} is that of volume ${twin?.name}, too`)
}

function checkJobs(model: VinumModel): void {
  const seen = new Set<string>()
  for (const job of model.jobs) {
    const { id, kind, targetUuid, limitBytesPerSecond } = job
    const check = checksOf(`job ${id}`)
    checkName(check, 'id', id)
    check('id', !seen.has(id), 'another job has the same')
    const work = `${kind} ${targetUuid}`
    check('targetUuid', !seen.has(work), `there is a second job ${kind} on it`)
    seen.add(id).add(work)
    check('limitBytesPerSecond', limitBytesPerSecond !== 0, 'it is 0')
    const found = findBy(model, 'uuid', targetUuid)
    const type = found?.type ?? 'plex'
    check('targetUuid', found, `there is no object ${targetUuid}`)
    check('targetUuid', JOB_TARGETS[kind].includes(type), `${kind} does not work on a ${type}`)
    const plex = found?.type === 'plex' ? found.record : undefined
    const subdisk = found?.type === 'subdisk' ? found.record : undefined
    check('kind', kind !== 'grow' || plex?.growth, `plex ${plex?.name} is not growing`)
    check('kind', kind !== 'move' || subdisk?.move, `subdisk ${subdisk?.name} is not moving`)
    const raid5 = kind === 'rebuild' || kind === 'initialise'
    check('kind', !raid5 || hasParity(plex), `plex ${plex?.name} is not raid5`)
  }
}
