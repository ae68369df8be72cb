/**
 * `virstor grow`: a larger virtual size, while the device is in use. The map gets room and pages for it first
 * (MapCopies.grow), each step durable before the next: runs that are longer than the map needs are a sound
 * configuration, and pages behind its end are none. Then one commit says the new size.
 */
import { alignDown, formatSize, parseSize } from '../../../base/bytes.ts'
import { VIRSTOR_CHUNKS } from '../../../base/limits.ts'
import { VIRSTOR_SPECS } from '../../../control/virstor-verbs.ts'
import { mapChunks } from '../model.ts'
import { checkNoJob, type Fail, failing, type VirstorVerb } from './context.ts'

export const GROW: VirstorVerb = {
  spec: VIRSTOR_SPECS.grow,
  plan({ model }, parameters) {
    const { name, chunkBytes, virtualBytes: before } = model
    const fail: Fail = failing(VIRSTOR_SPECS.grow, name)
    checkNoJob(model, fail)
    const virtualBytes = alignDown(parseSize(String(parameters['size'])), chunkBytes)
    const [now, wanted] = [formatSize(before), formatSize(virtualBytes)]
    if (virtualBytes < before) {
      fail(
        'invalid',
        `${name} has ${now}, and cannot shrink to ${wanted}: what lies behind the new end would be lost. To have the space back, ` +
          'discard what is not needed (fstrim, or UNMAP)',
      )
    }
    if (virtualBytes === before) {
      fail('invalid', `${name} has ${now} already; it grows in chunks of ${formatSize(chunkBytes)}`)
    }
    if (virtualBytes / chunkBytes > VIRSTOR_CHUNKS) {
      const most = formatSize(VIRSTOR_CHUNKS * chunkBytes)
      fail('invalid', `${name} can have ${most} at most, with chunks of ${formatSize(chunkBytes)}`)
    }
    const next = { ...model, virtualBytes }
    const more = mapChunks(next) - mapChunks(model)
    const map = more > 0 ? `; its map takes ${formatSize(more * chunkBytes)} more on each copy` : ''
    const step = { text: `grow ${name} from ${now} to ${wanted}${map}`, object: name }
    return { model: next, steps: [step], warnings: [], newDrives: [], retired: [] }
  },
  around: (set, { virtualBytes, chunkBytes }, carryOut) =>
    set.mapCopies.grow(virtualBytes / chunkBytes, carryOut),
}
