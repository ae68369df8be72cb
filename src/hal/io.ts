/** Promises over {@link BlockDevice.submit}, for start-up, metadata and tests: everything but the hot path. */
import type { ByteRange } from '../base/bytes.ts'
import type { PlexusError } from '../base/errors.ts'
import type { AlignedBuffer, BlockDevice, IoCause, IoOp, IoRequest } from './block-device.ts'

interface IoOptions {
  readonly fua?: boolean
  readonly cause?: IoCause
}

/** Anything that takes requests: a device, later a provider or a consumer. */
export type Submitter = Pick<BlockDevice, 'submit'>

/** A request as a promise: `send` gets it once and sees to its completion. */
export function requested(
  op: IoOp,
  range: ByteRange,
  data: AlignedBuffer | undefined,
  options: IoOptions,
  send: (request: IoRequest) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    send({
      op,
      offset: range.offset,
      length: range.length,
      data,
      dataOffset: 0,
      fua: options.fua ?? false,
      cause: options.cause ?? 'metadata',
      complete(error: PlexusError | undefined) {
        if (error) reject(error)
        else resolve()
      },
    })
  })
}

function run(
  target: Submitter,
  op: IoOp,
  range: ByteRange,
  data: AlignedBuffer | undefined,
  options: IoOptions,
): Promise<void> {
  return requested(op, range, data, options, (request) => target.submit(request))
}

/** Fills the whole of `into` from byte `offset`. */
export function readAt(
  target: Submitter,
  into: AlignedBuffer,
  offset: number,
  options: IoOptions = {},
): Promise<void> {
  return run(target, 'read', { offset, length: into.bytes.length }, into, options)
}

/** Writes the whole of `from` to byte `offset`. */
export function writeAt(
  target: Submitter,
  from: AlignedBuffer,
  offset: number,
  options: IoOptions = {},
): Promise<void> {
  return run(target, 'write', { offset, length: from.bytes.length }, from, options)
}

/** Everything acknowledged so far is durable when this resolves. */
export function flush(target: Submitter): Promise<void> {
  return run(target, 'flush', { offset: 0, length: 0 }, undefined, {})
}

export function discard(target: Submitter, range: ByteRange): Promise<void> {
  return run(target, 'discard', range, undefined, {})
}

export function writeZeroes(target: Submitter, range: ByteRange): Promise<void> {
  return run(target, 'write-zeroes', range, undefined, {})
}
