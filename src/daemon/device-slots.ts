/**
 * One slot for each device of the configuration: it opens the device and gives it to the topology, where classes
 * taste it and logical units find it. A device that is missing, busy or failing is tried again when its path
 * appears, and from time to time; the daemon lives on. Used by appliance.ts.
 */
import { formatSize } from '../base/bytes.ts'
import type { Clock, Timer } from '../base/clock.ts'
import { withinTime } from '../base/deadline.ts'
import { PlexusError, toPlexusError } from '../base/errors.ts'
import { DEVICE_CLOSE_MS, DEVICE_RETRY_MS, DEVICES_AT_ONCE, LABEL_READ_MS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { inLanes } from '../base/turns.ts'
import type { Topology } from '../engine/geom/topology.ts'
import type { BlockDevice } from '../hal/block-device.ts'
import { deviceContents, formatContents } from '../hal/device-contents.ts'
import { wwidAt } from '../hal/device-identity.ts'
import { ABSENT, type DeviceWatch, deviceAt, watchDevices } from '../hal/device-watch.ts'
import { flush } from '../hal/io.ts'
import type { IoQueue } from '../hal/io-queue.ts'
import { openDevice } from '../hal/open-device.ts'
import type { DeviceConfig } from './config.ts'
import type { ExportGuard } from './export-guard.ts'

interface Slot {
  config: DeviceConfig
  device: BlockDevice | undefined
  /** Ends the subscription to the device's events. */
  unsubscribe: () => void
  /** What was at the path when the device was opened ({@link deviceAt}). */
  seen: string | undefined
  /** The file that was served and that the path leads to no more: no other one takes its place by itself. */
  lost: string | undefined
  /** What is wrong with the path of a device that is served all the same. */
  warning: string | undefined
  /** Why there is no device; said once, not at every attempt. */
  reason: string | undefined
  /** A device that was lost, until all of its requests have returned: it is not opened a second time meanwhile. */
  leaving: BlockDevice | undefined
  /** The device is in use elsewhere. */
  inUse: boolean
  /** An attempt is under way: slots change one step at a time. */
  opening: Promise<void> | undefined
  removed: boolean
}

export interface DeviceSlotsOptions {
  readonly queue: IoQueue
  readonly topology: Topology
  readonly guard: ExportGuard
  readonly clock: Clock
  readonly log: Logger
}

/** What `plexus device list` says of a slot. */
export interface SlotReport {
  readonly name: string
  readonly path: string
  readonly ready: boolean
  /** Why it is not ready. */
  readonly reason: string | undefined
  /** What is wrong although it is ready. */
  readonly warning?: string | undefined
  /** Another file is at its path than the one that was served: a reload takes it. */
  readonly replaced?: boolean
}

/** Stands for a file that cannot come back. */
const DELETED = 'deleted'

export class DeviceSlots {
  readonly #options: DeviceSlotsOptions
  readonly #slots = new Map<string, Slot>()
  readonly #byPath = new Map<string, Set<Slot>>()
  #examined: Promise<void> = Promise.resolve()
  readonly #watch: DeviceWatch
  readonly #retry: Timer
  #closing = false

  constructor(options: DeviceSlotsOptions) {
    this.#options = options
    this.#watch = watchDevices(
      () => [...this.#byPath.keys()],
      options.clock,
      (path, found) => this.#pathChanged(path, found),
    )
    this.#retry = options.clock.every(DEVICE_RETRY_MS, () => this.#openAgain(this.#slots.values()))
  }

  get total(): number {
    return this.#slots.size
  }

  /** All slots, in the order of the configuration. */
  report(): readonly SlotReport[] {
    return [...this.#slots.values()].map(({ config, device, reason, leaving, warning, lost }) => ({
      name: config.name,
      path: config.path,
      ready: device !== undefined,
      reason: device ? undefined : `${reason ?? 'being opened'}${stillOut(leaving)}`,
      warning,
      replaced: lost !== undefined,
    }))
  }

  /** Devices whose file was deleted or replaced. */
  get replaced(): ReadonlySet<string> {
    const lost = [...this.#slots].filter(([, slot]) => slot.lost !== undefined)
    return new Set(lost.map(([name]) => name))
  }

  /** The configuration of a slot; undefined: there is no slot of that name. */
  config(name: string): DeviceConfig | undefined {
    return this.#slots.get(name)?.config
  }

  /** Devices that are not there, with the reasons. */
  get missing(): readonly { readonly name: string; readonly reason: string }[] {
    return this.report().flatMap(({ name, reason }) =>
      reason === undefined ? [] : [{ name, reason }],
    )
  }

  /** Devices that are open. */
  get open(): readonly BlockDevice[] {
    return [...this.#slots.values()].flatMap((slot) => slot.device ?? [])
  }

  /** A device that is open stays so under a configuration that asks nothing else of it. */
  keep(config: DeviceConfig): void {
    const slot = this.#slots.get(config.name)
    if (slot) slot.config = config
    const watch = this.#options.topology.providers.get(config.name)?.watch
    if (watch) watch.limitMs = config.timeoutMs
  }

  /** Makes the slots of `configs` and tries each device once; one that cannot be opened is no error. */
  async add(configs: readonly DeviceConfig[]): Promise<void> {
    for (const config of configs) {
      const slot: Slot = {
        config,
        device: undefined,
        unsubscribe: () => {},
        seen: undefined,
        lost: undefined,
        warning: undefined,
        reason: undefined,
        leaving: undefined,
        inUse: false,
        opening: undefined,
        removed: false,
      }
      this.#slots.set(config.name, slot)
      const same = this.#byPath.get(config.path)
      if (same) same.add(slot)
      else this.#byPath.set(config.path, new Set([slot]))
    }
    // Those for LUNs come last: by then it is known which sets this machine has.
    for (const exported of [false, true]) {
      const now = configs.filter((config) => config.exported === exported)
      await inLanes(now, DEVICES_AT_ONCE, (config) => this.#tryOpen(config.name))
    }
  }

  /**
   * Takes devices away; what stands on them is orphaned. Waits for what is in flight, in bounded time; after
   * that a device that hangs closes whenever it can.
   */
  async remove(names: readonly string[]): Promise<void> {
    const { clock, log, topology } = this.#options
    const closing = names.map(async (name) => {
      const slot = this.#slots.get(name)
      if (!slot) return
      this.#slots.delete(name)
      slot.removed = true
      const same = this.#byPath.get(slot.config.path)
      same?.delete(slot)
      if (same?.size === 0) this.#byPath.delete(slot.config.path)
      await slot.opening
      const { device } = slot
      this.#detach(slot, 'removed from the configuration')
      if (!device) return
      const work = topology.removeDevice(name, removedError(name)).then(() => device.close())
      if (!(await withinTime(clock, work, DEVICE_CLOSE_MS))) {
        log.warn(
          { device: name },
          `${device.path} still has I/O in flight; it closes when that ends`,
        )
      }
    })
    for (const result of await Promise.allSettled(closing)) {
      if (result.status === 'rejected')
        log.error({ err: result.reason }, 'a device failed to close')
    }
  }

  /**
   * Makes everything durable and closes all devices. Resolves to the paths that failed or did not answer
   * within `timeoutMs`, with the reasons.
   */
  async close(timeoutMs: number): Promise<readonly string[]> {
    this.#closing = true
    this.#watch.stop()
    this.#retry.cancel()
    const failures: string[] = []
    await Promise.all(
      this.open.map(async (device) => {
        const work = flush(device).then(
          () => device.close(),
          (error: unknown) => {
            failures.push(
              `${device.path}: flush: ${toPlexusError(error, 'flush', device.path).message}`,
            )
            return device.close()
          },
        )
        const inTime = await withinTime(this.#options.clock, work, timeoutMs).catch(
          (error: unknown) => {
            failures.push(toPlexusError(error, 'close', device.path).message)
            return true
          },
        )
        if (!inTime) failures.push(`${device.path} did not answer within ${timeoutMs / 1000} s`)
      }),
    )
    return failures
  }

  #openAgain(slots: Iterable<Slot>): void {
    const isMissing = ({ device, opening, leaving }: Slot) => !device && !opening && !leaving
    inLanes([...slots].filter(isMissing), DEVICES_AT_ONCE, async (slot) => {
      const { config } = slot
      if (isMissing(slot)) await this.#tryOpen(config.name)
    }).catch((error: unknown) => {
      this.#options.log.error({ err: error }, 'opening failed unexpectedly')
    })
  }

  /** The path leads to `found` now: a device that is missing may have come, one that is open may have been replaced. */
  #pathChanged(path: string, found: string): void {
    const slots = [...(this.#byPath.get(path) ?? [])]
    if (found !== ABSENT) this.#openAgain(slots)
    for (const slot of slots) {
      if (slot.device && slot.seen !== undefined && !slot.opening) this.#compare(slot, found)
    }
  }

  #compare(slot: Slot, found: string): void {
    const { device, config } = slot
    if (!device) return
    const { topology } = this.#options
    const { name, path } = config
    slot.warning = undefined
    if (found === slot.seen) return
    if (slot.seen?.startsWith('file ')) {
      slot.lost = device.deleted ? DELETED : slot.seen
      const why =
        found === ABSENT
          ? `${path} was deleted or renamed`
          : `another file has taken the place of ${path}`
      void topology.removeDevice(name, removedError(name, why))
      this.#lost(slot, device, why)
      return
    }
    const wwid = device.identity.wwid
    if (wwid !== undefined && found !== ABSENT && wwidAt(path) === wwid) return
    slot.warning =
      found === ABSENT
        ? `nothing is at ${path} any more; the device that was there at the start is served on`
        : `${path} leads to another device now; the one that was there at the start is served on`
    topology.events.emit('warning', 'device-path', name, `device ${name}: ${slot.warning}`)
  }

  #tryOpen(name: string): Promise<void> {
    const slot = this.#slots.get(name)
    if (!slot) return Promise.resolve()
    slot.opening = this.#open(slot).finally(() => {
      slot.opening = undefined
    })
    return slot.opening
  }

  async #open(slot: Slot): Promise<void> {
    const { queue, clock, log } = this.#options
    const { name, path, readOnly } = slot.config
    const found = await deviceAt(path)
    if (slot.lost !== undefined && found !== slot.lost) return this.#awaitReload(slot, found)
    let device: BlockDevice
    try {
      device = await openDevice(path, { queue, clock, log, readOnly, explain: !slot.inUse })
    } catch (error) {
      this.#notReady(slot, toPlexusError(error, 'open', path))
      return
    }
    try {
      slot.lost = undefined
      slot.seen = await deviceAt(path)
      if (slot.seen !== found) throw changed(path)
      if (slot.removed) await device.close()
      else await this.#attach(slot, device)
    } catch (error) {
      // A name that a volume has, for example: without this the slot would never be tried again.
      this.#detach(slot, undefined)
      await device.close()
      this.#notReady(slot, toPlexusError(error, 'attach', name))
    }
  }

  async #attach(slot: Slot, device: BlockDevice): Promise<void> {
    const { topology, guard, log } = this.#options
    const { name, exported } = slot.config
    const { logicalBlockBytes, sizeBytes } = device.geometry
    if (!exported) await guard.takeBack(slot.config, device.identity)
    const opaque = exported && !(await guard.belongsHere(slot.config, device))
    log.info(
      { event: 'device-ready', device: name },
      `device ${name} is ready: ${device.path}, ${formatSize(sizeBytes)}, blocks of ${logicalBlockBytes} bytes`,
    )
    slot.unsubscribe = device.onEvent((event) => {
      if (event !== 'gone' || slot.device !== device) return
      if (device.deleted) slot.lost = DELETED
      const why = topology.providers.get(name)?.error?.message
      this.#lost(slot, device, device.deleted ? `${device.path} was deleted` : why)
    })
    slot.device = device
    slot.reason = undefined
    slot.inUse = false
    await topology.addDevice(name, device, { opaque, timeoutMs: slot.config.timeoutMs })
    this.#sayContents(name, device)
  }

  /**
   * Says what is on a device that has just become ready. Initiators write all of these themselves, so nothing is
   * refused; but a member of this machine's own RAID or volume group, not started yet, is worth a warning.
   */
  #sayContents(name: string, device: BlockDevice): void {
    const { log, clock } = this.#options
    const say = async (): Promise<void> => {
      const found = await deviceContents(device)
      if (found.length === 0) return
      const contents = formatContents(found)
      const member = found.some(({ kind }) => kind === 'raid' || kind === 'volume-manager')
      const fields = { event: 'device-contents', device: name, contents }
      if (!member) log.info(fields, `device ${name} carries ${contents}`)
      else {
        log.warn(
          fields,
          `device ${name} carries ${contents}: make sure that it belongs to an initiator, not to this machine`,
        )
      }
    }
    // One after the other: each takes memory and a part of the event loop.
    this.#examined = this.#examined
      .then(() => withinTime(clock, say(), LABEL_READ_MS))
      .then(
        () => {},
        (error: unknown) => {
          const text = `the contents of device ${name} could not be examined`
          log.warn({ err: error, device: name }, text)
        },
      )
  }

  #notReady(slot: Slot, error: PlexusError): void {
    const isInUse = error.kind === 'in-use'
    // Who holds it is found out once: that means a look at every process.
    if (slot.reason === error.message || (slot.inUse && isInUse)) return
    slot.inUse = isInUse
    slot.reason = error.message
    this.#options.log.warn(
      { event: 'device-not-ready', device: slot.config.name, kind: error.kind },
      `device ${slot.config.name} is not ready: ${error.message}; it is tried again when it appears`,
    )
  }

  /** The file at the path is not the one that was served: initiators would find other data. */
  #awaitReload(slot: Slot, found: string | undefined): void {
    if (found === ABSENT || found === undefined) return
    const { path } = slot.config
    this.#notReady(
      slot,
      new PlexusError('foreign', {
        op: 'open',
        subject: path,
        message: `${path} is another file than the one that was served; plexus config apply takes it`,
      }),
    )
  }

  #lost(slot: Slot, device: BlockDevice, why = `${device.path} is gone`): void {
    const { log, topology } = this.#options
    const { name } = slot.config
    this.#detach(slot, why)
    topology.events.emit('critical', 'device-gone', name, `device ${name} is not served: ${why}`)
    slot.leaving = device
    const leave = async (): Promise<void> => {
      // A device that comes back under this name must find the old one out of the graph, and a late request on the
      // medium of one that did not answer.
      await topology.quiet()
      const hangs = device.inFlight > 0
      await device.close()
      slot.leaving = undefined
      if (hangs && !this.#closing) this.#openAgain([slot])
    }
    leave().catch((error: unknown) => {
      slot.leaving = undefined
      log.warn({ err: error, device: name }, 'closing the lost device failed')
    })
  }

  #detach(slot: Slot, reason: string | undefined): void {
    slot.unsubscribe()
    slot.unsubscribe = () => {}
    slot.device = undefined
    slot.warning = undefined
    slot.reason = reason
  }
}

function stillOut(leaving: BlockDevice | undefined): string {
  const count = leaving?.inFlight ?? 0
  return count === 0 ? '' : `; it has not returned ${count} request${count === 1 ? '' : 's'} yet`
}

function removedError(name: string, why = 'it was taken out of the configuration'): PlexusError {
  return new PlexusError('gone', {
    op: 'use',
    subject: name,
    message: `device ${name} is not there: ${why}`,
  })
}

function changed(path: string): PlexusError {
  return new PlexusError('gone', {
    op: 'open',
    subject: path,
    message: `${path} was replaced while it was opened`,
  })
}
