/**
 * The vinum configuration as bytes: the payload of an anchor's slot (geom/anchored-device.ts protects it with its
 * CRC32C). JSON, because a person with a hex dump must be able to read it when all else has failed:
 *
 *   {"format":2,"setUuid":"…","generation":7,"line":"…","ancestors":[…],"votersBefore":[[…]],"drives":[{…}],"subdisks":[…],"plexes":[…],"volumes":[…],"jobs":[…]}
 *
 * Keys stand in the order of the tables below, and undefined fields are left out, so that equal models are
 * equal bytes. A key that readers may ignore can be added under the same format; what they must understand
 * raises `format`, and older readers refuse it. Called by vinum-set.ts; bytes in docs/on-disk-format.md.
 */
import { PlexusError } from '../../../base/errors.ts'
import type { JobKind } from '../../../control/reports.ts'
import type { CommitId, LineEnd } from '../../geom/anchor-quorum.ts'
import {
  DRIVE_STATES,
  type DriveRecord,
  type GrowthRecord,
  type JobRecord,
  type LostRange,
  type MoveRecord,
  ORGANIZATIONS,
  PARITY_LAYOUTS,
  PLEX_STATES,
  type PlexRecord,
  READ_POLICIES,
  SUBDISK_STATES,
  type SubdiskRecord,
  type VinumModel,
  VOLUME_STATES,
  type VolumeRecord,
} from './model.ts'
import { checkModel, JOB_TARGETS } from './model-check.ts'

/** Version of the payload that this build writes, and the newest one that it reads. */
export const MODEL_FORMAT = 2

/** What one object may grow by. A drive: its UUID among the voters before, too; the others: a job of 260 bytes. */
const STATE_BYTES = { set: 256, drive: 160 + 3 * 39, subdisk: 280, plex: 400, volume: 360 }

/** Reads one value at a path such as `subdisks[3].sizeBytes`; throws `corrupt`. */
type Reader<T> = (value: unknown, path: string) => T
/** A reader for each field, in the order in which they are written. */
type Shape<T> = { readonly [K in keyof T]-?: Reader<T[K]> }

function corrupt(path: string, problem: string): PlexusError {
  const message = `vinum configuration: ${path}: ${problem}`
  return new PlexusError('corrupt', { op: 'decode', subject: path, message })
}

const text: Reader<string> = (value, path) => {
  if (typeof value !== 'string') throw corrupt(path, 'it is not text')
  return value
}

const whole: Reader<number> = (value, path) => {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw corrupt(path, `${JSON.stringify(value)} is not a whole number from 0 to 2^53 - 1`)
}

const flag: Reader<boolean> = (value, path) => {
  if (typeof value !== 'boolean') throw corrupt(path, 'it is neither true nor false')
  return value
}

function oneOf<T extends string>(choices: readonly T[]): Reader<T> {
  return (value, path) => {
    const found = choices.find((one) => one === value)
    if (found === undefined) {
      throw corrupt(path, `${JSON.stringify(value)} is none of ${choices.join(', ')}`)
    }
    return found
  }
}

function maybe<T>(reader: Reader<T>): Reader<T | undefined> {
  return (value, path) => (value === undefined ? undefined : reader(value, path))
}

function list<T>(reader: Reader<T>): Reader<readonly T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) throw corrupt(path, 'it is not a list')
    return value.map((one, index) => reader(one, `${path}[${index}]`))
  }
}

function record<T>(shape: Shape<T>): Reader<T> {
  return (value, path) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw corrupt(path, 'it is not an object')
    }
    const given = value as Readonly<Record<string, unknown>>
    const label = typeof given['name'] === 'string' ? `${path} (${given['name']})` : path
    const entries = Object.entries<Reader<unknown>>(shape).map(([key, reader]) => [
      key,
      reader(Object.hasOwn(given, key) ? given[key] : undefined, `${label}.${key}`),
    ])
    return Object.fromEntries(entries) as T
  }
}

const commit: Shape<CommitId> = { line: text, generation: whole, payloadCrc: whole }

const drive: Shape<DriveRecord> = {
  uuid: text,
  name: text,
  state: oneOf(DRIVE_STATES),
  device: text,
  mediaBytes: whole,
  blockBytes: whole,
  dataStartBytes: whole,
  dataEndBytes: whole,
  last: maybe(record(commit)),
}

const move: Shape<MoveRecord> = { driveUuid: text, driveOffsetBytes: whole }

const subdisk: Shape<SubdiskRecord> = {
  uuid: text,
  name: text,
  driveUuid: text,
  plexUuid: maybe(text),
  sizeBytes: whole,
  driveOffsetBytes: whole,
  plexOffsetBytes: whole,
  state: oneOf(SUBDISK_STATES),
  move: maybe(record(move)),
}

const backup: Shape<NonNullable<GrowthRecord['backup']>> = {
  offsetBytes: whole,
  lengthBytes: whole,
  driveUuids: list(text),
  crc32c: whole,
}

const growth: Shape<GrowthRecord> = {
  columnsBefore: whole,
  cursorBytes: whole,
  backup: maybe(record(backup)),
}

const lost: Shape<LostRange> = {
  column: whole,
  offsetBytes: whole,
  lengthBytes: whole,
  keptBy: maybe(text),
}

const plex: Shape<PlexRecord> = {
  uuid: text,
  name: text,
  volumeUuid: maybe(text),
  organization: oneOf(ORGANIZATIONS),
  stripeBytes: whole,
  parityLayout: maybe(oneOf(PARITY_LAYOUTS)),
  state: oneOf(PLEX_STATES),
  parityValidBytes: whole,
  growth: maybe(record(growth)),
  lost: maybe(list(record(lost))),
}

const volume: Shape<VolumeRecord> = {
  uuid: text,
  name: text,
  state: oneOf(VOLUME_STATES),
  sizeBytes: whole,
  readPolicy: oneOf(READ_POLICIES),
  preferredPlexUuid: maybe(text),
  mapSlot: whole,
  moreMapSlots: maybe(list(whole)),
  mismatches: maybe(record({ count: whole, time: text })),
}

const job: Shape<JobRecord> = {
  id: text,
  kind: oneOf(Object.keys(JOB_TARGETS) as JobKind[]),
  targetUuid: text,
  cursorBytes: whole,
  scope: oneOf(['all', 'dirty'] as const),
  paused: flag,
  limitBytesPerSecond: maybe(whole),
  mismatches: whole,
}

const model: Shape<VinumModel> = {
  setUuid: text,
  generation: whole,
  line: text,
  ancestors: list(record<LineEnd>({ line: text, generation: whole })),
  votersBefore: list(list(text)),
  witness: maybe(text),
  drives: list(record(drive)),
  subdisks: list(record(subdisk)),
  plexes: list(record(plex)),
  volumes: list(record(volume)),
  jobs: list(record(job)),
}

/** The model with its keys in order; every reader copies in the order of its table. */
const readModel = record(model)

/** The bytes of a model; equal models give equal bytes. The model must be sound (model-check.ts). */
export function encodeModel(source: VinumModel): Buffer {
  return Buffer.from(JSON.stringify({ format: MODEL_FORMAT, ...readModel(source, 'model') }))
}

/**
 * The model of these bytes. Throws `corrupt` that names object and field when anything does not hold, and
 * `unsupported` for a format that a newer Plexus has written.
 */
export function decodeModel(bytes: Buffer): VinumModel {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    const message = `vinum configuration: ${bytes.length} bytes that are not JSON`
    throw new PlexusError('corrupt', { op: 'decode', subject: 'model', message, cause: error })
  }
  const { format } = record<{ format: number }>({ format: whole })(value, 'model')
  if (format > MODEL_FORMAT) {
    const message =
      `vinum configuration: it has format ${format}, and this build knows ${MODEL_FORMAT}; ` +
      'a newer Plexus has written it: use that one'
    throw new PlexusError('unsupported', { op: 'decode', subject: 'model', message })
  }
  if (format !== MODEL_FORMAT) throw corrupt('model.format', `${format} does not exist`)
  const decoded = readModel(value, 'model')
  checkModel(decoded)
  return decoded
}

/**
 * Bytes that changes of state may add to a configuration at most: every drive down with its last commit, longer words
 * for every state, a job with a long number on every object. Verbs leave them free, so that the loss of a disk fits.
 */
export function stateRoomOf({ drives, subdisks, plexes, volumes }: VinumModel): number {
  const { drive, subdisk, plex, volume } = STATE_BYTES
  return (
    drives.length * drive +
    subdisks.length * subdisk +
    plexes.length * plex +
    volumes.length * volume +
    STATE_BYTES.set
  )
}
