/**
 * The vinum configuration as bytes. JSON, because a person with a hex dump must be able to read it when all else has failed:
 *
 *   {"format":2,"setUuid":"…","generation":7,"line":"…","ancestors":[…],"votersBefore":[[…]],"drives":[{…}],"subdisks":[…],"plexes":[…],"volumes":[…],"jobs":[…]}
 *
 * Keys stand in the order of the tables in model.ts, and undefined fields are left out, so that equal models are
 * equal bytes. A key that readers may ignore can be added under the same format; what they must understand
 * raises `format`, and older readers refuse it. Called by vinum-set.ts; bytes in docs/on-disk-format.md.
 */
import { PlexusError } from '../../../base/errors.ts'
import { corrupt, record, whole } from '../../metadata/fields.ts'
import type { Codec } from '../../metadata/set-model.ts'
import { MODEL, type VinumModel } from './model.ts'
import { checkModel } from './model-check.ts'

/** Version of the payload that this build writes, and the newest one that it reads. */
export const MODEL_FORMAT = 2

/** What one object may grow by. A drive: its UUID among the voters before, too; the others: a job of 260 bytes. */
const STATE_BYTES = { set: 256, drive: 160 + 3 * 39, subdisk: 280, plex: 400, volume: 360 }

/** The model with its keys in order; every reader copies in the order of its table. */
const readModel = record(MODEL)

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
  const { format } = record({ format: whole })(value, 'model')
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

export const VINUM_CODEC: Codec<VinumModel> = {
  encode: encodeModel,
  decode: decodeModel,
  stateRoomOf,
}
