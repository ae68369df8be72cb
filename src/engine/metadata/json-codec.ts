/**
 * Configurations as bytes: JSON, because a person with a hex dump must be able to read it when all else has failed. Keys
 * stand in the order of the table of the model, and undefined fields are left out, so that equal models are equal bytes. A
 * key that readers may ignore can be added under the same format; what they must understand raises `format`, and older
 * readers refuse it. Bytes in docs/on-disk-format.md.
 */
import { PlexusError, Refusals } from '../../base/errors.ts'
import { corrupt, type Reader, record, whole } from './fields.ts'
import type { Codec, SetModel } from './set-model.ts'

const refuse = new Refusals('decode')

interface JsonCodecOptions<M> {
  readonly className: string
  /** Version of the payload that this build writes, and the newest one that it reads. */
  readonly format: number
  readonly read: Reader<M>
  /** Throws `corrupt` that names the field where a configuration is not sound. */
  check(model: M): void
  stateRoomOf(model: M): number
}

export function jsonCodec<M extends SetModel>(options: JsonCodecOptions<M>): Codec<M> {
  const { className, format, read, check, stateRoomOf } = options
  return {
    stateRoomOf,
    encode: (model) => Buffer.from(JSON.stringify({ format, ...read(model, 'model') })),
    decode(bytes) {
      const value = parse(bytes, className)
      const { format: found } = record({ format: whole })(value, 'model')
      if (found > format)
        throw refuse.unsupported`${className} configuration: it has format ${found}, and this build knows ${format}; a newer Plexus has written it: use that one`
      if (found !== format) throw corrupt('model.format', `${found} does not exist`)
      const model = read(value, 'model')
      check(model)
      return model
    },
  }
}

function parse(bytes: Buffer, className: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    const message = `${className} configuration: ${bytes.length} bytes that are not JSON`
    throw new PlexusError('corrupt', { op: 'decode', subject: 'model', message, cause })
  }
}
