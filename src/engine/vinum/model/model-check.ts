/**
 * What a sound vinum configuration is: names, references, extents, columns, growth, jobs. codec.ts applies it
 * to everything that comes from a disk; tests apply it to whatever a verb has made. The rules follow
 * docs/vinum.md, 1 and 4, and the comments of model.ts.
 */
import { isAligned } from '../../../base/bytes.ts'
import { PlexusError } from '../../../base/errors.ts'
import { NAME_BYTES } from '../../../base/limits.ts'
import { isUuid } from '../../../base/random.ts'
import type { VinumJobKind } from '../../../control/reports.ts'
import { usedExtents } from './allocation.ts'
import { mapSlotsOf } from './map-slots.ts'
import {
  byUuid,
  type DriveRecord,
  findBy,
  type JobRecord,
  type ObjectType,
  objectsOf,
  type PlexRecord,
  plexesOf,
  type SubdiskRecord,
  sizeOfPlex,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
} from './model.ts'
import { dataColumns, hasParity, isStriped } from './plex-kinds.ts'

/** Why a text cannot be the name of an object, or undefined when it can. */
export function nameFault(name: string): string | undefined {
  if (name === '') return 'a name must not be empty'
  if (Buffer.byteLength(name) > NAME_BYTES) return `a name has at most ${NAME_BYTES} bytes`
  if (!/^[^\s\p{C}#'"/\\]+$/u.test(name)) {
    return 'a name has no blanks, control characters, quotes, slashes or #'
  }
  return name.startsWith('-') ? 'a name does not begin with -' : undefined
}

/** What a job of each kind works on. */
export const JOB_TARGETS: Readonly<Record<VinumJobKind, readonly ObjectType[]>> = {
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
  if (!isUuid(model.setUuid)) throw fault('the set', 'setUuid', `"${model.setUuid}" is not a UUID`)
  if (!isUuid(model.line)) throw fault('the set', 'line', `"${model.line}" is not a UUID`)
  for (const one of model.votersBefore.flat()) {
    if (!isUuid(one)) throw fault('the set', 'votersBefore', `"${one}" is not a UUID`)
  }
  checkIdentities(model)
  for (const one of model.drives) checkDrive(one)
  for (const one of model.drives) checkExtents(model, one)
  for (const one of model.subdisks) checkSubdisk(model, one)
  for (const one of model.plexes) checkPlex(model, one)
  for (const one of model.volumes) checkVolume(model, one)
  checkJobs(model)
}

function fault(object: string, field: string, problem: string): PlexusError {
  const message = `vinum configuration: ${object}, ${field}: ${problem}`
  return new PlexusError('corrupt', { op: 'check', subject: object, message })
}

function checkIdentities(model: VinumModel): void {
  const uuids = new Map<string, string>()
  const names = new Map<string, string>()
  for (const { type, uuid, name } of objectsOf(model)) {
    const object = `${type} ${name}`
    if (!isUuid(uuid)) throw fault(object, 'uuid', `"${uuid}" is not a UUID`)
    const twin = uuids.get(uuid)
    if (twin) throw fault(object, 'uuid', `${uuid} is that of ${twin}, too`)
    uuids.set(uuid, object)
    const problem = nameFault(name)
    if (problem) throw fault(object, 'name', problem)
    const namesake = names.get(name)
    if (namesake) throw fault(object, 'name', `${namesake} has the same name`)
    names.set(name, object)
  }
}

function checkDrive(drive: DriveRecord): void {
  const object = `drive ${drive.name}`
  const { blockBytes, mediaBytes, dataStartBytes, dataEndBytes } = drive
  if (blockBytes < 512 || (blockBytes & (blockBytes - 1)) !== 0) {
    throw fault(object, 'blockBytes', `${blockBytes} is not a power of two of at least 512`)
  }
  for (const field of ['mediaBytes', 'dataStartBytes', 'dataEndBytes'] as const) {
    if (!isAligned(drive[field], blockBytes)) {
      throw fault(object, field, `${drive[field]} is not a multiple of the block, ${blockBytes}`)
    }
  }
  if (dataStartBytes > dataEndBytes || dataEndBytes > mediaBytes) {
    const area = `${dataStartBytes} to ${dataEndBytes}`
    throw fault(object, 'dataEndBytes', `the data area, ${area}, is not inside ${mediaBytes} bytes`)
  }
  if (/[\p{C}"]/u.test(drive.device)) {
    throw fault(object, 'device', 'it has a control character or a quote')
  }
}

function checkExtents(model: VinumModel, drive: DriveRecord): void {
  let end = drive.dataStartBytes
  let before = 'the data area'
  for (const one of usedExtents(model, drive.uuid)) {
    const object = `subdisk ${one.subdisk}`
    const extent = `${one.offset} to ${one.offset + one.length} on drive ${drive.name}`
    if (one.offset < drive.dataStartBytes || one.offset + one.length > drive.dataEndBytes) {
      const area = `${drive.dataStartBytes} to ${drive.dataEndBytes}`
      throw fault(object, 'driveOffsetBytes', `${extent} is outside the data area, ${area}`)
    }
    if (one.offset < end) throw fault(object, 'driveOffsetBytes', `${extent} overlaps ${before}`)
    if (!isAligned(one.offset, drive.blockBytes) || !isAligned(one.length, drive.blockBytes)) {
      const block = `the block, ${drive.blockBytes}`
      throw fault(object, 'driveOffsetBytes', `${extent} are not multiples of ${block}`)
    }
    end = one.offset + one.length
    before = object
  }
}

function checkSubdisk(model: VinumModel, subdisk: SubdiskRecord): void {
  const object = `subdisk ${subdisk.name}`
  if (subdisk.sizeBytes === 0) throw fault(object, 'sizeBytes', 'it is 0')
  if (!byUuid(model.drives, subdisk.driveUuid)) {
    throw fault(object, 'driveUuid', `there is no drive ${subdisk.driveUuid}`)
  }
  if (subdisk.plexUuid !== undefined && !byUuid(model.plexes, subdisk.plexUuid)) {
    throw fault(object, 'plexUuid', `there is no plex ${subdisk.plexUuid}`)
  }
  if (subdisk.move && !byUuid(model.drives, subdisk.move.driveUuid)) {
    throw fault(object, 'move.driveUuid', `there is no drive ${subdisk.move.driveUuid}`)
  }
}

/** The largest block of the drives under these subdisks. */
function largestBlock(model: VinumModel, subdisks: readonly SubdiskRecord[]): number {
  const blocks = subdisks.map((one) => byUuid(model.drives, one.driveUuid)?.blockBytes ?? 512)
  return Math.max(512, ...blocks)
}

function checkPlex(model: VinumModel, plex: PlexRecord): void {
  const object = `plex ${plex.name}`
  const subdisks = subdisksOf(model, plex.uuid)
  const block = largestBlock(model, subdisks)
  if (plex.volumeUuid !== undefined && !byUuid(model.volumes, plex.volumeUuid)) {
    throw fault(object, 'volumeUuid', `there is no volume ${plex.volumeUuid}`)
  }
  if (hasParity(plex) !== (plex.parityLayout !== undefined)) {
    const layout = plex.parityLayout ?? 'no layout'
    throw fault(object, 'parityLayout', `${layout} does not go with ${plex.organization}`)
  }
  if (!isStriped(plex)) {
    if (plex.stripeBytes !== 0) throw fault(object, 'stripeBytes', 'a concat plex has no stripe')
    if (plex.growth) throw fault(object, 'growth', 'a concat plex has no columns')
    checkPieces(object, subdisks, block)
    return
  }
  if (plex.stripeBytes === 0 || !isAligned(plex.stripeBytes, block)) {
    throw fault(
      object,
      'stripeBytes',
      `${plex.stripeBytes} is not a multiple of the block, ${block}`,
    )
  }
  checkColumns(plex, subdisks)
  if (plex.growth) checkGrowth(model, plex, subdisks)
}

/** concat: pieces that do not overlap. Gaps are sound: what was there has been detached. */
function checkPieces(object: string, subdisks: readonly SubdiskRecord[], block: number): void {
  let end = 0
  for (const one of subdisks) {
    const name = `subdisk ${one.name}`
    const start = one.plexOffsetBytes
    if (start < end) throw fault(name, 'plexOffsetBytes', `${start} overlaps in ${object}`)
    if (!isAligned(start, block) || !isAligned(one.sizeBytes, block)) {
      throw fault(
        name,
        'plexOffsetBytes',
        `place and size in ${object} are not multiples of ${block}`,
      )
    }
    end = start + one.sizeBytes
  }
}

/**
 * striped, raid5: columns 0, 1, 2 … without a gap, of one size. A gap would be closed silently by everybody who
 * counts columns, and the data be read from the wrong ones.
 */
function checkColumns(plex: PlexRecord, subdisks: readonly SubdiskRecord[]): void {
  const sizeBytes = subdisks[0]?.sizeBytes ?? 0
  for (const [column, one] of subdisks.entries()) {
    const object = `subdisk ${one.name}`
    if (one.plexOffsetBytes !== column * plex.stripeBytes) {
      const expected = `column ${column} of plex ${plex.name} is at ${column * plex.stripeBytes}`
      throw fault(object, 'plexOffsetBytes', `${one.plexOffsetBytes}, but ${expected}`)
    }
    if (one.sizeBytes !== sizeBytes) {
      const others = `the columns of plex ${plex.name} have ${sizeBytes}`
      throw fault(object, 'sizeBytes', `${one.sizeBytes}, but ${others}`)
    }
    if (!isAligned(one.sizeBytes, plex.stripeBytes)) {
      const stripe = `the stripe, ${plex.stripeBytes}`
      throw fault(object, 'sizeBytes', `${one.sizeBytes} is not a multiple of ${stripe}`)
    }
  }
}

function checkGrowth(
  model: VinumModel,
  plex: PlexRecord,
  subdisks: readonly SubdiskRecord[],
): void {
  const object = `plex ${plex.name}`
  const { growth } = plex
  if (!growth) return
  const { columnsBefore, cursorBytes, backup } = growth
  if (dataColumns(plex, columnsBefore) < 1 || columnsBefore >= subdisks.length) {
    const now = `there are ${subdisks.length} columns now`
    throw fault(object, 'growth.columnsBefore', `${columnsBefore}, but ${now}`)
  }
  const rowBytes = dataColumns(plex, subdisks.length) * plex.stripeBytes
  const endBytes = sizeOfPlex({ ...plex, growth: undefined }, subdisks)
  if (!isAligned(cursorBytes, rowBytes) || cursorBytes > endBytes) {
    const expected = `a multiple of the row, ${rowBytes}, up to ${endBytes}`
    throw fault(object, 'growth.cursorBytes', `${cursorBytes} is not ${expected}`)
  }
  if (!backup) return
  if (backup.lengthBytes === 0 || backup.offsetBytes + backup.lengthBytes > endBytes) {
    throw fault(object, 'growth.backup', 'its range is not inside the plex')
  }
  if (backup.driveUuids.length === 0) throw fault(object, 'growth.backup', 'it lies on no drive')
  for (const uuid of backup.driveUuids) {
    if (!byUuid(model.drives, uuid)) {
      throw fault(object, 'growth.backup.driveUuids', `there is no drive ${uuid}`)
    }
  }
}

function checkVolume(model: VinumModel, volume: VolumeRecord): void {
  const object = `volume ${volume.name}`
  const plexes = plexesOf(model, volume.uuid)
  const block = largestBlock(
    model,
    plexes.flatMap((one) => subdisksOf(model, one.uuid)),
  )
  if (!isAligned(volume.sizeBytes, block)) {
    throw fault(object, 'sizeBytes', `${volume.sizeBytes} is not a multiple of the block, ${block}`)
  }
  const preferred = volume.preferredPlexUuid
  if (preferred !== undefined && byUuid(model.plexes, preferred)?.volumeUuid !== volume.uuid) {
    throw fault(object, 'preferredPlexUuid', `${preferred} is not one of its plexes`)
  }
  if (volume.readPolicy === 'prefer' && preferred === undefined) {
    throw fault(object, 'preferredPlexUuid', 'the read policy is prefer, and no plex is named')
  }
  const slots = new Set(mapSlotsOf(volume))
  const twin = model.volumes.find(
    (one) => one.uuid !== volume.uuid && mapSlotsOf(one).some((slot) => slots.has(slot)),
  )
  if (twin) throw fault(object, 'mapSlot', `${volume.mapSlot} is that of volume ${twin.name}, too`)
}

function checkJobs(model: VinumModel): void {
  const seen = new Set<string>()
  for (const job of model.jobs) {
    const object = `job ${job.id}`
    const problem = nameFault(job.id)
    if (problem) throw fault(object, 'id', problem)
    if (seen.has(job.id)) throw fault(object, 'id', 'another job has the same')
    const work = `${job.kind} ${job.targetUuid}`
    if (seen.has(work)) throw fault(object, 'targetUuid', `there is a second job ${job.kind} on it`)
    seen.add(job.id).add(work)
    if (job.limitBytesPerSecond === 0) throw fault(object, 'limitBytesPerSecond', 'it is 0')
    checkJobTarget(model, job)
  }
}

function checkJobTarget(model: VinumModel, job: JobRecord): void {
  const object = `job ${job.id}`
  const found = findBy(model, 'uuid', job.targetUuid)
  if (!found) throw fault(object, 'targetUuid', `there is no object ${job.targetUuid}`)
  const { type, record } = found
  if (!JOB_TARGETS[job.kind].includes(type)) {
    throw fault(object, 'targetUuid', `${job.kind} does not work on a ${type}`)
  }
  const plex = type === 'plex' ? record : undefined
  const subdisk = type === 'subdisk' ? record : undefined
  if (job.kind === 'grow' && !plex?.growth) {
    throw fault(object, 'kind', `plex ${plex?.name} is not growing`)
  }
  if (job.kind === 'move' && !subdisk?.move) {
    throw fault(object, 'kind', `subdisk ${subdisk?.name} is not moving`)
  }
  const raid5 = job.kind === 'rebuild' || job.kind === 'initialise'
  if (raid5 && !hasParity(plex)) {
    throw fault(object, 'kind', `plex ${plex?.name} is not raid5`)
  }
}
