/**
 * Applies the table of state rules (state-table.ts) to a model: derivation from drive to subdisk to plex to volume
 * (docs/vinum.md, 5.1), states set by hand (5.2), and the questions about copies and health that others ask. Pure;
 * used by the set, the verbs and the reports.
 */
import { assert } from '../../../base/assert.ts'
import { PlexusError } from '../../../base/errors.ts'
import type { Health } from '../../../control/reports.ts'
import { firstLost, firstUncovered, hasOtherCopy } from './coverage.ts'
import { isRedundant } from './map-slots.ts'
import {
  byUuid,
  DRIVE_STATES,
  type DriveRecord,
  holdsData,
  type MismatchRecord,
  PLEX_STATES,
  type PlexRecord,
  plexesOf,
  replaceRecord,
  SUBDISK_STATES,
  type SubdiskRecord,
  type SubdiskState,
  sizeOfPlex,
  subdisksOf,
  type VinumModel,
  VOLUME_STATES,
  type VolumeRecord,
} from './model.ts'
import {
  type DerivedRule,
  DRIVE_RULES,
  PLEX_RULES,
  SET_RULES,
  type SetEffect,
  type SetFacts,
  SUBDISK_RULES,
  VOLUME_RULES,
} from './state-table.ts'

/** Is the device of the drive with this UUID there? */
export type Presence = (driveUuid: string) => boolean

const everywhere: Presence = () => true

/** The first row that fits. */
export function ruleFor<F, S>(rules: readonly DerivedRule<F, S>[], facts: F): DerivedRule<F, S> {
  const rule = rules.find((one) => one.when(facts))
  assert(rule, 'the last row of every type fits always')
  return rule
}

/**
 * The model with all states as the rules say. Without `isPresent` every drive is taken to be as its record says.
 * The same object when nothing changes.
 */
export function derive(model: VinumModel, isPresent: Presence = everywhere): VinumModel {
  const drives = sameOr(model.drives, (one) => {
    const { state } = ruleFor(DRIVE_RULES, { state: one.state, present: isPresent(one.uuid) })
    return state === one.state ? one : { ...one, state }
  })
  let next = drives === model.drives ? model : { ...model, drives }
  next = deriveSubdisks(next)
  const plexes = sameOr(next.plexes, (one) => {
    const { state } = ruleFor(PLEX_RULES, plexFacts(next, one))
    return state === one.state ? one : { ...one, state }
  })
  if (plexes !== next.plexes) next = { ...next, plexes }
  const volumes = sameOr(next.volumes, (one) => {
    const covered = one.sizeBytes > 0 && firstUncovered(next, one) === undefined
    const facts = { plexes: plexesOf(next, one.uuid).length, covered }
    const { state } = ruleFor(VOLUME_RULES, facts)
    return state === one.state ? one : { ...one, state }
  })
  return volumes === next.volumes ? next : { ...next, volumes }
}

/** Applies `change` to all; the same list when no element changes. */
function sameOr<T>(list: readonly T[], change: (one: T) => T): readonly T[] {
  const changed = list.map(change)
  return changed.every((one, index) => one === list[index]) ? list : changed
}

/**
 * Subdisks whose drives are gone are judged with all of them away at once, so that it does not matter which of
 * them is looked at first: what went away together is complete together.
 */
function deriveSubdisks(model: VinumModel): VinumModel {
  const isUp = (one: SubdiskRecord) => byUuid(model.drives, one.driveUuid)?.state === 'up'
  const without = new Set(
    model.subdisks.filter((one) => !isUp(one) || one.state !== 'up').map((one) => one.uuid),
  )
  const subdisks = sameOr(model.subdisks, (one) => {
    const driveUp = isUp(one)
    const asks = (!driveUp && one.state === 'up') || one.state === 'down'
    const otherCopy = asks && hasOtherCopy(model, one, { without, ownParity: true })
    const raid5 = byUuid(model.plexes, one.plexUuid)?.organization === 'raid5'
    const { state } = ruleFor(SUBDISK_RULES, { state: one.state, driveUp, otherCopy, raid5 })
    return state === one.state ? one : { ...one, state }
  })
  return subdisks === model.subdisks ? model : { ...model, subdisks }
}

function plexFacts(model: VinumModel, plex: PlexRecord) {
  const subdisks = subdisksOf(model, plex.uuid)
  const { growth } = plex
  // One that holds nothing yet is not missed, whatever its state.
  const holding = subdisks.filter((_, column) => !growth || holdsData(growth, column))
  const count = (...states: SubdiskState[]) =>
    holding.filter((one) => states.includes(one.state)).length
  return {
    organization: plex.organization,
    subdisks: subdisks.length,
    up: count('up') + subdisks.length - holding.length,
    copying: count('reviving', 'initializing'),
    out: count('down', 'stale'),
    parityValid: plex.parityValidBytes >= sizeOfPlex(plex, subdisks),
    growing: plex.growth !== undefined,
    mirrored: plex.volumeUuid !== undefined && plexesOf(model, plex.volumeUuid).length > 1,
    jobRuns: model.jobs.some(
      (job) => job.targetUuid === plex.uuid && (job.kind === 'sync' || job.kind === 'rebuild'),
    ),
  }
}

/**
 * Would taking these subdisks out of service leave a part of some volume without a valid copy that has one now?
 * Names volume and place if so. Conservative: reviving counts as nothing, raid5 bears one column while parity is valid.
 */
export function lastCopyLost(
  model: VinumModel,
  subdiskUuids: readonly string[],
): string | undefined {
  const without = new Set(subdiskUuids)
  for (const volume of model.volumes) {
    const offset = firstLost(model, volume, without)
    if (offset !== undefined) return `volume ${volume.name}, from offset ${offset}`
  }
  return undefined
}

/** What a check of the volume found and nobody has made right yet; without copies or parity it means nothing. */
export function mismatchesOf(model: VinumModel, volume: VolumeRecord): MismatchRecord | undefined {
  return isRedundant(model, volume.uuid) ? volume.mismatches : undefined
}

/**
 * HEALTHY: everything serves and is redundant as configured, which copies `inDoubt` are not: they may not agree. Nor is
 * it where a part is lost, or where a check found that copies do not agree.
 * FAULTED: a part of the volume has no valid copy.
 */
export function healthOf(model: VinumModel, volumeUuid: string, inDoubt = false): Health {
  const volume = byUuid(model.volumes, volumeUuid)
  if (volume?.state !== 'up') return 'FAULTED'
  const whole = plexesOf(model, volumeUuid).every(
    (one) => !one.lost && (one.state === 'up' || one.state === 'growable'),
  )
  return whole && !inDoubt && !mismatchesOf(model, volume) ? 'HEALTHY' : 'DEGRADED'
}

export interface SetStateOptions {
  readonly force: boolean
  isOpen(volumeUuid: string): boolean
  readonly isPresent: Presence
}

type Target =
  | { readonly of: 'drive'; readonly record: DriveRecord }
  | { readonly of: 'subdisk'; readonly record: SubdiskRecord }
  | { readonly of: 'plex'; readonly record: PlexRecord }
  | { readonly of: 'volume'; readonly record: VolumeRecord }

const STATES = {
  drive: DRIVE_STATES,
  subdisk: SUBDISK_STATES,
  plex: PLEX_STATES,
  volume: VOLUME_STATES,
} as const

/**
 * The model with the object in that state, and all that follows from it. Throws `not-found` for an unknown object,
 * `invalid`, `in-use` or `gone` with the reason when the rules refuse. The same object when it has the state.
 */
export function setState(
  model: VinumModel,
  objectUuid: string,
  state: string,
  options: SetStateOptions,
): VinumModel {
  const given = targetOf(model, objectUuid)
  const states: readonly string[] = STATES[given.of]
  if (!states.includes(state)) {
    const message = `${given.of} ${given.record.name}: there is no state "${state}"; a ${given.of} can be ${states.join(', ')}`
    throw new PlexusError('invalid', { op: 'setstate', subject: given.record.name, message })
  }
  const before = derive(model, options.isPresent)
  const target = targetOf(before, objectUuid)
  const facts = setFacts(before, target, options)
  if (target.record.state === state && !(facts.lost && facts.force)) return before
  const rule = SET_RULES.find((one) => one.of === target.of && one.to === state && one.when(facts))
  assert(rule, `there is a rule for ${target.of} to ${state}`)
  if (typeof rule.action !== 'string') {
    const message = `${target.of} ${target.record.name} stays ${target.record.state}: ${rule.action.because}; ${rule.action.instead}`
    throw new PlexusError(rule.action.refuse, {
      op: 'setstate',
      subject: target.record.name,
      message,
    })
  }
  return derive(EFFECTS[rule.action](before, target, state), options.isPresent)
}

function targetOf(model: VinumModel, uuid: string): Target {
  const drive = byUuid(model.drives, uuid)
  if (drive) return { of: 'drive', record: drive }
  const subdisk = byUuid(model.subdisks, uuid)
  if (subdisk) return { of: 'subdisk', record: subdisk }
  const plex = byUuid(model.plexes, uuid)
  if (plex) return { of: 'plex', record: plex }
  const volume = byUuid(model.volumes, uuid)
  if (volume) return { of: 'volume', record: volume }
  const message = `there is no object ${uuid} in the vinum configuration`
  throw new PlexusError('not-found', { op: 'setstate', subject: uuid, message })
}

/** The subdisks from which the state of the object follows. */
function subdisksUnder(model: VinumModel, target: Target): readonly SubdiskRecord[] {
  const { of, record } = target
  if (of === 'drive') return model.subdisks.filter((one) => one.driveUuid === record.uuid)
  if (of === 'subdisk') return [record]
  if (of === 'plex') return subdisksOf(model, record.uuid)
  return plexesOf(model, record.uuid).flatMap((one) => subdisksOf(model, one.uuid))
}

function setFacts(model: VinumModel, target: Target, options: SetStateOptions): SetFacts {
  const subdisks = subdisksUnder(model, target)
  const plexes = new Set(subdisks.flatMap((one) => one.plexUuid ?? []))
  const volumes = new Set(
    target.of === 'volume'
      ? [target.record.uuid]
      : [...plexes].flatMap((one) => byUuid(model.plexes, one)?.volumeUuid ?? []),
  )
  const without = new Set(subdisks.map((one) => one.uuid))
  const [first] = subdisks
  const plex = byUuid(model.plexes, first?.plexUuid)
  const attached =
    target.of === 'subdisk'
      ? target.record.plexUuid !== undefined
      : target.of === 'plex' && target.record.volumeUuid !== undefined
  return {
    force: options.force,
    open: [...volumes].some((one) => options.isOpen(one)),
    present:
      target.of === 'drive'
        ? options.isPresent(target.record.uuid)
        : byUuid(model.drives, first?.driveUuid)?.state === 'up',
    attached,
    state: target.record.state,
    otherCopy:
      subdisks.length > 0 &&
      subdisks.every((one) =>
        hasOtherCopy(model, one, { without, ownParity: target.of === 'subdisk' }),
      ),
    lost: target.of !== 'subdisk' && lostPlexes(model, target).length > 0,
    redundant:
      plex?.organization === 'raid5' ||
      (plex?.volumeUuid !== undefined && plexesOf(model, plex.volumeUuid).length > 1),
    busy: model.jobs.some(
      (job) =>
        (plexes.has(job.targetUuid) || job.targetUuid === target.record.uuid) &&
        ['sync', 'rebuild', 'initialise', 'grow'].includes(job.kind),
    ),
    raised: targetOf(derive(raise(model, subdisks), options.isPresent), target.record.uuid).record
      .state,
  }
}

/** The plexes of an object of which a part is lost. */
export function lostPlexes(
  model: VinumModel,
  { record: { uuid } }: { readonly record: { readonly uuid: string } },
): readonly PlexRecord[] {
  return model.plexes.filter((one) => one.lost && (one.uuid === uuid || one.volumeUuid === uuid))
}

function withStates(
  model: VinumModel,
  subdisks: readonly SubdiskRecord[],
  state: SubdiskState,
): VinumModel {
  let records = model.subdisks
  for (const one of subdisks) records = replaceRecord(records, { ...one, state })
  return { ...model, subdisks: records }
}

function hasDrive(model: VinumModel, subdisk: SubdiskRecord): boolean {
  return byUuid(model.drives, subdisk.driveUuid)?.state === 'up'
}

/** Subdisks that are down and have their drives go up: they have missed nothing. */
function raise(model: VinumModel, subdisks: readonly SubdiskRecord[]): VinumModel {
  const down = subdisks.filter((one) => one.state === 'down' && hasDrive(model, one))
  return withStates(model, down, 'up')
}

/**
 * By force: subdisks count as valid that have a drive. Columns of raid5 that come as they are need not agree with
 * the parity, which must be computed again; with a column still missing there is nothing but the parity to go by.
 */
function accept(
  model: VinumModel,
  plexUuid: string | undefined,
  subdisks: readonly SubdiskRecord[],
): VinumModel {
  const taken = subdisks.filter((one) => one.state !== 'up' && hasDrive(model, one))
  const next = withStates(model, taken, 'up')
  const plex = byUuid(next.plexes, plexUuid)
  if (plex?.organization !== 'raid5') return next
  const columns = subdisksOf(next, plex.uuid)
  const whole = columns.every((one) => one.state === 'up')
  const disagree = whole && taken.some((one) => one.state !== 'down')
  const parityValidBytes = disagree ? 0 : sizeOfPlex(plex, columns)
  const record = { ...plex, parityValidBytes, lost: undefined }
  return { ...next, plexes: replaceRecord(next.plexes, record) }
}

const EFFECTS: Readonly<
  Record<SetEffect, (model: VinumModel, target: Target, state: string) => VinumModel>
> = {
  'drive-down': (model, { record }) => withDrive(model, record.uuid, 'down'),
  'drive-up': (model, target) => {
    const next = withDrive(model, target.record.uuid, 'up')
    return raise(next, subdisksUnder(next, target))
  },
  'subdisk-state': (model, target, state) =>
    withStates(model, subdisksUnder(model, target), state as SubdiskState),
  'take-down': (model, target) =>
    withStates(
      model,
      subdisksUnder(model, target).filter((one) => one.state !== 'stale'),
      'down',
    ),
  'take-lost': (model, target) => {
    const plexes = lostPlexes(model, target).map((one) => ({ ...one, lost: undefined }))
    return { ...model, plexes: plexes.reduce(replaceRecord<PlexRecord>, model.plexes) }
  },
  raise: (model, target) => raise(model, subdisksUnder(model, target)),
  accept: (model, target) => {
    if (target.of === 'subdisk') return accept(model, target.record.plexUuid, [target.record])
    if (target.of === 'plex') return accept(model, target.record.uuid, subdisksUnder(model, target))
    // The plex with the most drives is taken; the others are copied from it.
    const [best] = plexesOf(model, target.record.uuid)
      .map((plex) => subdisksOf(model, plex.uuid))
      .sort(
        (a, b) =>
          b.filter((one) => hasDrive(model, one)).length -
          a.filter((one) => hasDrive(model, one)).length,
      )
    return accept(model, best?.[0]?.plexUuid, best ?? [])
  },
}

function withDrive(model: VinumModel, uuid: string, state: DriveRecord['state']): VinumModel {
  const drives = model.drives.map((one) => (one.uuid === uuid ? { ...one, state } : one))
  return { ...model, drives }
}
