/**
 * A discard or write-zeroes of a device of which something is lost. A whole chunk is cleared as ever, and what of it was lost
 * is zeroes then. A part of a chunk that is lost in part can only be written: a granule that is not valid means lost there,
 * not zeroes. So such a part, of which a request has one at each end at most, becomes writes of zeroes. Used by device-io.ts.
 */
import { alignDown, alignUp } from '../../../base/bytes.ts'
import type { PlexusError } from '../../../base/errors.ts'
import { allocateAligned } from '../../../hal/aligned-pool.ts'
import type { IoRequest } from '../../../hal/block-device.ts'
import type { VirstorIo } from './device-io.ts'

/** Begins the request; it need not touch anything that is lost. */
export function clearAroundLost(io: VirstorIo, request: IoRequest): void {
  const { map, runs } = io
  const { chunkBytes } = runs
  const { offset } = request
  const end = offset + request.length
  const first = Math.min(end, alignUp(offset, chunkBytes))
  const last = Math.max(first, alignDown(end, chunkBytes))
  const isLost = (from: number, to: number): boolean => from < to && map.isLost(runs.chunkOf(from))
  const from = isLost(offset, first) ? first : offset
  const to = isLost(last, end) ? last : end
  if (from === offset && to === end) io.change(request)
  else void clearInParts(io, request, from, to)
}

/** Clears `from` to `to`, and writes zeroes to what is before and behind. */
async function clearInParts(io: VirstorIo, request: IoRequest, from: number, to: number) {
  const end = request.offset + request.length
  let error = await writeZeroes(io, request, request.offset, from)
  if (from < to) error ??= await change(io, request, { offset: from, length: to - from })
  error ??= await writeZeroes(io, request, to, end)
  request.complete(error)
}

/** Granule by granule. */
async function writeZeroes(
  io: VirstorIo,
  request: IoRequest,
  from: number,
  to: number,
): Promise<PlexusError | undefined> {
  if (from === to) return undefined
  const { granuleBytes } = io.runs
  const data = allocateAligned(granuleBytes)
  for (let offset = from; offset < to; ) {
    const length = Math.min(to, alignDown(offset, granuleBytes) + granuleBytes) - offset
    const error = await change(io, request, { op: 'write', offset, length, data })
    if (error) return error
    offset += length
  }
  return undefined
}

/** Resolves when a part of the request has ended. */
function change(
  io: VirstorIo,
  { op, data, fua, cause }: IoRequest,
  part: Partial<IoRequest> & Pick<IoRequest, 'offset' | 'length'>,
): Promise<PlexusError | undefined> {
  return new Promise((complete) =>
    io.change({ op, data, dataOffset: 0, fua, cause, ...part, complete }),
  )
}
