/** The configuration of a virstor device as bytes (metadata/json-codec.ts), and what a sound one is. */
import {
  VIRSTOR_CHUNKS,
  VIRSTOR_COMMIT_BLOCKS,
  VIRSTOR_FULL_WAIT_MS_MAX,
} from '../../base/limits.ts'
import { isUuid } from '../../base/random.ts'
import { corrupt, nameFault, record, shown } from '../metadata/fields.ts'
import { jsonCodec } from '../metadata/json-codec.ts'
import { checkSet } from '../metadata/set-model.ts'
import { BAD_COMPONENT } from './map/chunk-map.ts'
import { CHUNK_BYTES, mapChunks, VIRSTOR, type VirstorModel } from './model.ts'

/**
 * What a drive and the set may grow by when states change: the last commit, its UUID among the voters before; the limit of
 * the job, and the copy of the map that follows it.
 */
const STATE_BYTES = { set: 512, drive: 160 + 3 * 39 }

export const VIRSTOR_CODEC = jsonCodec<VirstorModel>({
  className: 'virstor',
  format: 1,
  read: record(VIRSTOR),
  check: checkVirstor,
  stateRoomOf: ({ drives }) => STATE_BYTES.set + drives.length * STATE_BYTES.drive,
})

/** Throws `corrupt` that names the field where a configuration is not sound. */
function checkVirstor(model: VirstorModel): void {
  const must = (holds: boolean, path: string, problem: string): void => {
    if (!holds) throw corrupt(path, problem)
  }
  const { uuid, components, copies, chunkBytes, virtualBytes, journalBlocks } = model
  checkSet(model)
  // Of a set that is about to end, or has just begun.
  if (components.length === 0) return
  must(isUuid(uuid), 'model.uuid', `${shown(uuid)} is not a UUID`)
  const fault = nameFault(model.name)
  must(fault === undefined, 'model.name', `${fault}`)
  must(model.fullWaitMs <= VIRSTOR_FULL_WAIT_MS_MAX, 'model.fullWaitMs', 'it is too long')
  must(model.nextEpoch <= 0xffff_ffff, 'model.nextEpoch', 'there is none left')
  const { unit, max } = CHUNK_BYTES
  const isChunk = chunkBytes > 0 && chunkBytes % unit === 0 && chunkBytes <= max
  must(isChunk, 'model.chunkBytes', `${chunkBytes} is no size of a chunk`)
  const chunks = virtualBytes / chunkBytes
  const isSize = Number.isInteger(chunks) && chunks > 0 && chunks <= VIRSTOR_CHUNKS
  must(isSize, 'model.virtualBytes', `${virtualBytes} bytes are no number of chunks`)
  const { blockBytes, job } = model
  const isBlock = blockBytes >= 512 && blockBytes <= unit && unit % blockBytes === 0
  must(isBlock, 'model.blockBytes', `${blockBytes} is no size of a block`)
  const leaving = components.filter((one) => one.leaving)
  must(leaving.length < components.length, 'model.components', 'all of them are leaving')
  const isWanted = leaving.length > 0 === (job?.kind === 'evacuate')
  must(isWanted, 'model.job', 'it does not agree with the components that are leaving')
  must(job?.limitBytesPerSecond !== 0, 'model.job', 'its limit is 0')
  must(copies.length > 0, 'model.copies', 'there is none')
  const isRing = journalBlocks >= VIRSTOR_COMMIT_BLOCKS + 2 && journalBlocks <= VIRSTOR_CHUNKS
  must(isRing, 'model.journalBlocks', `${journalBlocks} blocks are no journal`)
  const drives = new Set(model.drives.map((drive) => drive.uuid))
  const seen = new Set<number>()
  for (const { id, driveUuid, startBytes, chunks: places } of components) {
    const path = `components (${id})`
    const isOwn = id >= 1 && id < model.nextComponent && id < BAD_COMPONENT && !seen.has(id)
    must(isOwn, path, 'its id is not its own')
    seen.add(id)
    const drive = model.drives.find((one) => one.uuid === driveUuid)
    if (!drive || !drives.delete(driveUuid))
      throw corrupt(path, `drive ${driveUuid} is not its own`)
    const isAligned = drive.blockBytes <= blockBytes
    must(isAligned, path, `its drive has blocks of ${drive.blockBytes}, and blockBytes is smaller`)
    const fits =
      places <= VIRSTOR_CHUNKS &&
      startBytes % drive.blockBytes === 0 &&
      startBytes >= drive.dataStartBytes &&
      startBytes + places * chunkBytes <= drive.dataEndBytes
    must(fits, path, `${places} chunks from byte ${startBytes} on do not fit its drive`)
  }
  for (const id of model.lost) {
    const isGone = id >= 1 && id < model.nextComponent && id < BAD_COMPONENT && !seen.has(id)
    must(isGone, 'model.lost', `${id} is no component that was given up`)
    seen.add(id)
  }
  const carriers = new Set(copies.map(({ component }) => component))
  must(carriers.size === copies.length, 'model.copies', 'two are on one component')
  for (const [index, { component, epoch, runs }] of copies.entries()) {
    const path = `copies[${index}]`
    const on = components.find(({ id }) => id === component)
    if (!on) throw corrupt(path, `there is no component ${component}`)
    must(epoch < model.nextEpoch, path, `epoch ${epoch} was never given`)
    let end = 0
    let length = 0
    for (const { number, count } of [...runs].sort((a, b) => a.number - b.number)) {
      must(
        number >= end && number + count <= on.chunks,
        path,
        'its runs are not places of their own',
      )
      end = number + count
      length += count
    }
    const need = mapChunks(model)
    must(length >= need, path, `its runs have ${length} chunks, and the map takes ${need}`)
  }
}
