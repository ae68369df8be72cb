/**
 * Applies the table of state rules (state-table.ts) to a model: derivation from drive to subdisk to plex to volume
 * (docs/vinum.md, 5.1), states set by hand (5.2), and the questions about copies and health that others ask. Pure;
 * used by the set, the verbs and the reports.
 */
import { assert } from '../../../base/assert.ts'
import { type ErrorKind, PlexusError } from '../../../base/errors.ts'
import type { Health } from '../../../control/reports.ts'
import { uuidOf } from '../../metadata/lists.ts'
import { firstLost, firstUncovered, hasOtherCopy, hasPartElsewhere } from './coverage.ts'
import { isRedundant } from './map-slots.ts'
import {
  byUuid,
  DRIVE_STATES,
  type DriveRecord,
  findBy,
  holdsData,
  type MismatchRecord,
  type ModelObject,
  mapRecords,
  type ObjectType,
  PLEX_STATES,
  type PlexRecord,
  plexesOf,
  putRecord,
  type Records,
  replaceRecord,
  SUBDISK_STATES,
  type SubdiskRecord,
  type SubdiskState,
  sizeOfPlex,
  subdisksBelow,
  subdisksOf,
  type VinumModel,
  VOLUME_STATES,
  type VolumeRecord,
} from './model.ts'
import { hasParity } from './plex-kinds.ts'
import {
  type DerivedRule,
  DRIVE_RULES,
  PLEX_RULES,
  SET_RULES,
  type SetEffect,
  type SetFacts,
  SUBDISK_RULES,
  type SubdiskFacts,
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
  const facts = (one: DriveRecord) => ({ state: one.state, present: isPresent(one.uuid) })
  let next = decided(model, 'drives', DRIVE_RULES, facts)
  next = decided(next, 'subdisks', SUBDISK_RULES, subdiskFacts(next))
  next = decided(next, 'plexes', PLEX_RULES, (one) => plexFacts(next, one))
  return decided(next, 'volumes', VOLUME_RULES, (one) => ({
    plexes: plexesOf(next, one.uuid).length,
    covered: one.sizeBytes > 0 && firstUncovered(next, one) === undefined,
  }))
}

/** The model with the states of one list as its rules say. The same object when nothing changes. */
function decided<L extends keyof Records, F>(
  model: VinumModel,
  list: L,
  rules: readonly DerivedRule<F, Records[L]['state']>[],
  factsOf: (record: Records[L]) => F,
): VinumModel {
  return mapRecords(model, list, (one) => {
    const { state } = ruleFor(rules, factsOf(one))
    return state === one.state ? one : { ...one, state }
  })
}

/**
 * Subdisks whose drives are gone are judged with all of them away at once, so that it does not matter which of
 * them is looked at first: what went away together is complete together.
 */
function subdiskFacts(model: VinumModel): (one: SubdiskRecord) => SubdiskFacts {
  const without = new Set(
    model.subdisks.filter((one) => !hasDrive(model, one) || one.state !== 'up').map(uuidOf),
  )
  return (one) => {
    const { state } = one
    const driveUp = hasDrive(model, one)
    const asks = (!driveUp && state === 'up') || state === 'down'
    const otherCopy = asks && hasOtherCopy(model, one, { without, ownParity: true })
    const raid5 = hasParity(byUuid(model.plexes, one.plexUuid))
    return { state, driveUp, otherCopy, raid5 }
  }
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

const STATES: Readonly<Record<ObjectType, readonly string[]>> = {
  drive: DRIVE_STATES,
  subdisk: SUBDISK_STATES,
  plex: PLEX_STATES,
  volume: VOLUME_STATES,
}

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
  const { type, record: given } = targetOf(model, objectUuid)
  const refusal = (kind: ErrorKind, message: string): PlexusError =>
    new PlexusError(kind, { op: 'setstate', subject: given.name, message })
  if (!STATES[type].includes(state)) {
    const why = `there is no state "${state}"; a ${type} can be ${STATES[type].join(', ')}`
    throw refusal('invalid', `${type} ${given.name}: ${why}`)
  }
  const before = derive(model, options.isPresent)
  const target = targetOf(before, objectUuid)
  const facts = setFacts(before, target, options)
  if (target.record.state === state && !(facts.lost && facts.force)) return before
  const rule = SET_RULES.find((one) => one.of === type && one.to === state && one.when(facts))
  assert(rule, `there is a rule for ${type} to ${state}`)
  const { action } = rule
  if (typeof action !== 'string') {
    const stays = `${type} ${given.name} stays ${target.record.state}`
    throw refusal(action.refuse, `${stays}: ${action.because}; ${action.instead}`)
  }
  return derive(EFFECTS[action](before, target, state), options.isPresent)
}

function targetOf(model: VinumModel, uuid: string): ModelObject {
  const found = findBy(model, 'uuid', uuid)
  if (found) return found
  const message = `there is no object ${uuid} in the vinum configuration`
  throw new PlexusError('not-found', { op: 'setstate', subject: uuid, message })
}

/** The subdisks from which the state of the object follows. */
function subdisksUnder(model: VinumModel, { type, record }: ModelObject): readonly SubdiskRecord[] {
  if (type === 'drive') return model.subdisks.filter((one) => one.driveUuid === record.uuid)
  if (type === 'subdisk') return [record]
  if (type === 'plex') return subdisksOf(model, record.uuid)
  return subdisksBelow(model, record.uuid)
}

function setFacts(model: VinumModel, target: ModelObject, options: SetStateOptions): SetFacts {
  const { type, record } = target
  const { uuid } = record
  const subdisks = subdisksUnder(model, target)
  const plexes = new Set(subdisks.flatMap((one) => one.plexUuid ?? []))
  const above = [...plexes].map((one) => byUuid(model.plexes, one)?.volumeUuid)
  const volumes = new Set([type === 'volume' ? uuid : undefined, ...above])
  const without = new Set(subdisks.map(uuidOf))
  const [first] = subdisks
  const plex = byUuid(model.plexes, first?.plexUuid)
  const ownParity = type === 'subdisk'
  return {
    force: options.force,
    open: [...volumes].some((one) => one !== undefined && options.isOpen(one)),
    present:
      type === 'drive' ? options.isPresent(uuid) : first !== undefined && hasDrive(model, first),
    attached:
      (type === 'subdisk' && record.plexUuid !== undefined) ||
      (type === 'plex' && record.volumeUuid !== undefined),
    state: record.state,
    otherCopy:
      subdisks.length > 0 &&
      subdisks.every((one) => hasOtherCopy(model, one, { without, ownParity })),
    clashes: clashes(model, subdisks),
    lost: type !== 'subdisk' && lostPlexes(model, target).length > 0,
    redundant:
      hasParity(plex) ||
      (plex?.volumeUuid !== undefined && plexesOf(model, plex.volumeUuid).length > 1),
    busy: model.jobs.some(
      ({ kind, targetUuid }) =>
        (plexes.has(targetUuid) || targetUuid === uuid) &&
        ['sync', 'rebuild', 'initialise', 'grow'].includes(kind),
    ),
    raised: targetOf(derive(raise(model, subdisks), options.isPresent), uuid).record.state,
  }
}

/** What force takes as it is: subdisks that are not up and have their drives. */
function takeable(model: VinumModel, subdisks: readonly SubdiskRecord[]): readonly SubdiskRecord[] {
  return subdisks.filter((one) => one.state !== 'up' && hasDrive(model, one))
}

/**
 * Would these subdisks, taken as they are, serve beside valid copies of a part of what they hold? Of several plexes one is
 * taken: then only if each of them would.
 */
export function clashes(model: VinumModel, subdisks: readonly SubdiskRecord[]): boolean {
  const taken = takeable(model, subdisks)
  const clashing = new Set(
    taken.filter((one) => hasPartElsewhere(model, one)).map(({ plexUuid }) => plexUuid),
  )
  return taken.length > 0 && taken.every(({ plexUuid }) => clashing.has(plexUuid))
}

/** The plexes of an object of which a part is lost. */
export function lostPlexes(
  model: VinumModel,
  { record: { uuid } }: { readonly record: { readonly uuid: string } },
): readonly PlexRecord[] {
  return model.plexes.filter((one) => one.lost && (one.uuid === uuid || one.volumeUuid === uuid))
}

/** The model with these subdisks in that state; nothing that follows from it is derived. */
export function withStates(
  model: VinumModel,
  subdisks: readonly SubdiskRecord[],
  state: SubdiskState,
): VinumModel {
  return subdisks.reduce((next, one) => putRecord(next, 'subdisks', { ...one, state }), model)
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
  const taken = takeable(model, subdisks)
  const next = withStates(model, taken, 'up')
  const plex = byUuid(next.plexes, plexUuid)
  if (!plex || !hasParity(plex)) return next
  const columns = subdisksOf(next, plex.uuid)
  const whole = columns.every((one) => one.state === 'up')
  const disagree = whole && taken.some((one) => one.state !== 'down')
  const parityValidBytes = disagree ? 0 : sizeOfPlex(plex, columns)
  return putRecord(next, 'plexes', { ...plex, parityValidBytes, lost: undefined })
}

type Effect = (model: VinumModel, target: ModelObject, state: string) => VinumModel

const EFFECTS: Readonly<Record<SetEffect, Effect>> = {
  'drive-down': (model, { record }) => withDrive(model, record.uuid, 'down'),
  'drive-up': (model, target) =>
    raise(withDrive(model, target.record.uuid, 'up'), subdisksUnder(model, target)),
  'subdisk-state': (model, target, state) =>
    withStates(model, subdisksUnder(model, target), state as SubdiskState),
  'take-down': (model, target) => {
    const subdisks = subdisksUnder(model, target).filter((one) => one.state !== 'stale')
    return withStates(model, subdisks, 'down')
  },
  'take-lost': (model, target) => {
    const plexes = lostPlexes(model, target).map((one) => ({ ...one, lost: undefined }))
    return { ...model, plexes: plexes.reduce(replaceRecord<PlexRecord>, model.plexes) }
  },
  raise: (model, target) => raise(model, subdisksUnder(model, target)),
  accept: (model, target) => {
    if (target.type !== 'volume') {
      const subdisks = subdisksUnder(model, target)
      return accept(model, subdisks[0]?.plexUuid, subdisks)
    }
    // Of the plexes that may be taken the one with the most drives; the others are copied from it.
    const [best = []] = plexesOf(model, target.record.uuid)
      .map((plex) => subdisksOf(model, plex.uuid))
      .filter((all) => takeable(model, all).length > 0 && !clashes(model, all))
      .sort((a, b) => drivesUnder(model, b) - drivesUnder(model, a))
    return accept(model, best[0]?.plexUuid, best)
  },
}

function drivesUnder(model: VinumModel, subdisks: readonly SubdiskRecord[]): number {
  return subdisks.filter((one) => hasDrive(model, one)).length
}

function withDrive(model: VinumModel, uuid: string, state: DriveRecord['state']): VinumModel {
  return mapRecords(model, 'drives', (one) => (one.uuid === uuid ? { ...one, state } : one))
}
