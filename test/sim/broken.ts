/**
 * Builds that are broken on purpose, for the test of the test: what stands between the engine and its disks, or the log of
 * raid5, does not keep a promise that data depends on. The simulator must find each of them. Used by sim.test.ts.
 */
import { AnchoredDevice } from '../../src/engine/anchor/anchored-device.ts'
import { PlexLog } from '../../src/engine/vinum/log/plex-log.ts'
import { LogRing } from '../../src/engine/vinum/log/ring.ts'
import { VinumSet } from '../../src/engine/vinum/set/vinum-set.ts'
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

/** Breaks the log of raid5; returns the way to mend it. */
type BrokenLog = () => () => void

export const BROKEN_LOGS = {
  'it is switched off'() {
    const { append } = LogRing.prototype
    LogRing.prototype.append = (_pieces, done) => queueMicrotask(() => done(undefined))
    return () => {
      LogRing.prototype.append = append
    }
  },
  'it is written without FUA'() {
    const { writeJournal } = AnchoredDevice.prototype
    AnchoredDevice.prototype.writeJournal = function (offset, from) {
      return writeJournal.call(this, offset, from, { fua: false })
    }
    return () => {
      AnchoredDevice.prototype.writeJournal = writeJournal
    }
  },
  'it forgets entries without a flush of the drives'() {
    const opened = VinumSet.prototype['opened']
    VinumSet.prototype['opened'] = function (this: VinumSet) {
      const { host } = this
      const { logHost } = host
      host.logHost = (plex) => ({ ...logHost(plex), flush: async () => {} })
      opened.call(this)
    }
    return () => {
      VinumSet.prototype['opened'] = opened
    }
  },
  'writes in place do not wait for it'() {
    const { append } = PlexLog.prototype
    PlexLog.prototype.append = function (parts, gone, done) {
      append.call(this, parts, gone, () => {})
      queueMicrotask(() => done(new Map()))
    }
    return () => {
      PlexLog.prototype.append = append
    }
  },
} as const satisfies Readonly<Record<string, BrokenLog>>
