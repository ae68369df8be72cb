/**
 * The configuration of a virstor device as bytes, as vinum's is (vinum/model/codec.ts): JSON with its keys in the order of
 * model.ts. What is not sound is refused with the field that is not. Bytes in docs/on-disk-format.md.
 */
import { PlexusError } from '../../base/errors.ts'
import { isUuid } from '../../base/random.ts'
import { corrupt, record, whole } from '../metadata/fields.ts'
import type { Codec } from '../metadata/set-model.ts'
import { VIRSTOR, type VirstorModel } from './model.ts'

/** Version of the payload that this build writes, and the newest one that it reads. */
const FORMAT = 1
/** What a drive and the set may grow by when states change: the last commit, its UUID among the voters before. */
const STATE_BYTES = { set: 256, drive: 160 + 3 * 39 }

const readModel = record(VIRSTOR)

function encode(model: VirstorModel): Buffer {
  return Buffer.from(JSON.stringify({ format: FORMAT, ...readModel(model, 'model') }))
}

function decode(bytes: Buffer): VirstorModel {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    const message = `virstor configuration: ${bytes.length} bytes that are not JSON`
    throw new PlexusError('corrupt', { op: 'decode', subject: 'model', message, cause })
  }
  const { format } = record({ format: whole })(value, 'model')
  if (format > FORMAT) {
    const message = `virstor configuration: it has format ${format}, and this build knows ${FORMAT}; use the newer Plexus`
    throw new PlexusError('unsupported', { op: 'decode', subject: 'model', message })
  }
  if (format !== FORMAT) throw corrupt('model.format', `${format} does not exist`)
  const model = readModel(value, 'model')
  checkVirstor(model)
  return model
}

export const VIRSTOR_CODEC: Codec<VirstorModel> = {
  encode,
  decode,
  stateRoomOf: ({ drives }) => STATE_BYTES.set + drives.length * STATE_BYTES.drive,
}

/** Throws `corrupt` that names the field where a configuration is not sound. */
export function checkVirstor(model: VirstorModel): void {
  if (!isUuid(model.setUuid)) throw corrupt('model.setUuid', `"${model.setUuid}" is not a UUID`)
  const drives = new Set(model.drives.map(({ uuid }) => uuid))
  const seen = new Set<number>()
  for (const { id, driveUuid, startBytes, chunks } of model.components) {
    const path = `components (${id})`
    if (id < 1 || id > 0xffff || seen.has(id)) throw corrupt(path, 'its id is not its own')
    seen.add(id)
    const drive = model.drives.find(({ uuid }) => uuid === driveUuid)
    if (!drive || !drives.delete(driveUuid))
      throw corrupt(path, `drive ${driveUuid} is not its own`)
    if (
      startBytes < drive.dataStartBytes ||
      startBytes + chunks * model.chunkBytes > drive.dataEndBytes
    )
      throw corrupt(path, `${chunks} chunks do not fit its drive`)
  }
  for (const [index, { component, runs }] of model.copies.entries()) {
    const path = `copies[${index}]`
    const on = model.components.find(({ id }) => id === component)
    if (!on) throw corrupt(path, `there is no component ${component}`)
    if (runs.some(({ number, count }) => number + count > on.chunks))
      throw corrupt(path, `its runs are outside the ${on.chunks} chunks of component ${component}`)
  }
  if (
    model.components.length > 0 &&
    (model.chunkBytes === 0 || model.virtualBytes % model.chunkBytes !== 0)
  )
    throw corrupt('virtualBytes', `${model.virtualBytes} bytes are not whole chunks`)
}
