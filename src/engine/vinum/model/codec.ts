/**
 * The vinum configuration as bytes (metadata/json-codec.ts):
 *
 *   {"format":2,"setUuid":"…","generation":7,"line":"…","ancestors":[…],"votersBefore":[[…]],"drives":[{…}],"subdisks":[…],"plexes":[…],"volumes":[…],"jobs":[…],"spares":[…],"pools":[…]}
 */
import { record } from '../../metadata/fields.ts'
import { jsonCodec } from '../../metadata/json-codec.ts'
import { MODEL, type VinumModel } from './model.ts'
import { checkModel } from './model-check.ts'

/** What one object may grow by. A drive: its UUID among the voters before, too; the others: a job of 260 bytes; a spare: a reason. */
const STATE_BYTES = {
  set: 256,
  drive: 160 + 3 * 39,
  subdisk: 280,
  plex: 400,
  volume: 360,
  spare: 400,
}

export const VINUM_CODEC = jsonCodec<VinumModel>({
  className: 'vinum',
  format: 2,
  read: record(MODEL),
  check: checkModel,
  /** Every drive down with its last commit, longer words for every state, a job with a long number on every object. */
  stateRoomOf: ({ drives, subdisks, plexes, volumes, spares = [] }) =>
    STATE_BYTES.set +
    drives.length * STATE_BYTES.drive +
    subdisks.length * STATE_BYTES.subdisk +
    plexes.length * STATE_BYTES.plex +
    volumes.length * STATE_BYTES.volume +
    spares.length * STATE_BYTES.spare,
})

/** `encodeModel` wants a sound model (model-check.ts). */
export const { encode: encodeModel, decode: decodeModel } = VINUM_CODEC
