/**
 * Builds that are broken on purpose, for the test of the test: what stands between the engine and its disks
 * does not keep a promise that data depends on. The simulator must find each of them. Used by sim.test.ts.
 */
import type { BlockDevice, IoRequest } from '../../src/hal/block-device.ts'
import type { Scheduler } from './clock.ts'

type Cheat = (request: IoRequest, device: BlockDevice, scheduler: Scheduler) => void

/** A request that answers at once, and then goes its way unseen. */
function answerFirst(request: IoRequest, device: BlockDevice, scheduler: Scheduler): void {
  const data = request.data && {
    bytes: Buffer.from(request.data.bytes),
    address: request.data.address,
  }
  device.submit({ ...request, data, complete: () => {} })
  scheduler.after(0, () => request.complete(undefined))
}

export const CHEATS = {
  /** A flush is acknowledged and goes nowhere. */
  'flush is a lie'(request, device, scheduler) {
    if (request.op === 'flush') scheduler.after(0.1, () => request.complete(undefined))
    else device.submit(request)
  },
  /** A flush is acknowledged before it has reached the disk. */
  'acknowledged before the flush'(request, device, scheduler) {
    if (request.op === 'flush') answerFirst(request, device, scheduler)
    else device.submit(request)
  },
  /** FUA is taken for a normal write. */
  'FUA is forgotten'(request, device) {
    if (request.fua) device.submit(withoutFua(request))
    else device.submit(request)
  },
  /** A write is acknowledged when it is sent. */
  'acknowledged before the write'(request, device, scheduler) {
    if (request.op === 'write') answerFirst(request, device, scheduler)
    else device.submit(request)
  },
} as const satisfies Readonly<Record<string, Cheat>>

function withoutFua(request: IoRequest): IoRequest {
  return {
    op: request.op,
    offset: request.offset,
    length: request.length,
    data: request.data,
    dataOffset: request.dataOffset,
    fua: false,
    cause: request.cause,
    complete: (error) => request.complete(error),
  }
}

/** A device that cheats. */
export function cheating(cheat: Cheat): (device: BlockDevice, scheduler: Scheduler) => BlockDevice {
  return (device, scheduler) => ({
    path: device.path,
    geometry: device.geometry,
    identity: device.identity,
    features: device.features,
    get inFlight() {
      return device.inFlight
    },
    submit: (request) => cheat(request, device, scheduler),
    onEvent: (listener) => device.onEvent(listener),
    close: () => device.close(),
  })
}
