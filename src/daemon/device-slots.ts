/**
 * One slot for each device of the configuration: its logical unit, and the device behind it while there is
 * one. A device that is missing, busy or failing leaves its unit "not ready" and is tried again when its
 * path appears, and from time to time; the daemon lives on. Used by appliance.ts.
 */

import { defined } from '../base/assert.ts'
import { formatSize } from '../base/bytes.ts'
import type { Clock, Timer } from '../base/clock.ts'
import { withinTime } from '../base/deadline.ts'
import { type PlexusError, toPlexusError } from '../base/errors.ts'
import { DEVICE_CLOSE_MS, DEVICE_RETRY_MS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { BlockDevice, BufferPool } from '../hal/block-device.ts'
import { deviceContents, formatContents } from '../hal/device-contents.ts'
import { type DeviceWatch, watchDevices } from '../hal/device-watch.ts'
import { flush } from '../hal/io.ts'
import type { IoQueue } from '../hal/io-queue.ts'
import { openDevice } from '../hal/open-device.ts'
import { BlockUnit } from '../target/scsi/logical-unit.ts'
import type { UnitIdentity } from '../target/scsi/types.ts'
import type { DeviceConfig } from './config.ts'
import type { IdentityStore } from './identity-store.ts'

interface Slot {
  readonly config: DeviceConfig
  unit: BlockUnit
  device: BlockDevice | undefined
  /** Ends the subscription to the device's events. */
  unsubscribe: () => void
  /** Why there is no device; said once, not at every attempt. */
  reason: string | undefined
  /** An attempt is under way: slots change one step at a time. */
  opening: Promise<void> | undefined
  removed: boolean
}

export interface DeviceSlotsOptions {
  readonly queue: IoQueue
  readonly pool: BufferPool
  readonly clock: Clock
  readonly log: Logger
  readonly identities: IdentityStore
  /** The unit behind a name is another object now: LUN maps must be made anew. */
  readonly onUnitReplaced: (name: string) => void
}

export class DeviceSlots {
  readonly #options: DeviceSlotsOptions
  readonly #slots = new Map<string, Slot>()
  readonly #watch: DeviceWatch
  readonly #retry: Timer

  constructor(options: DeviceSlotsOptions) {
    this.#options = options
    this.#watch = watchDevices(
      () => [...this.#slots.values()].map((slot) => slot.config.path),
      options.clock,
      (path, event) => {
        if (event === 'arrived') this.#retryWhere((slot) => slot.config.path === path)
      },
    )
    this.#retry = options.clock.every(DEVICE_RETRY_MS, () => this.#retryWhere(() => true))
  }

  /** The logical unit of a device, undefined where there is no slot of that name. */
  unit(name: string): BlockUnit | undefined {
    return this.#slots.get(name)?.unit
  }

  get total(): number {
    return this.#slots.size
  }

  /** Devices that are not there, with the reasons. */
  get missing(): readonly { readonly name: string; readonly reason: string }[] {
    return [...this.#slots.values()].flatMap((slot) =>
      slot.device ? [] : [{ name: slot.config.name, reason: slot.reason ?? 'being opened' }],
    )
  }

  /** Devices that are open. */
  get open(): readonly BlockDevice[] {
    return [...this.#slots.values()].flatMap((slot) => slot.device ?? [])
  }

  /**
   * Makes the slots of `configs` and tries each device once. `identities` are those of the missing devices,
   * from {@link IdentityStore.identify}; a device that cannot be opened is no error.
   */
  async add(
    configs: readonly DeviceConfig[],
    identities: ReadonlyMap<string, UnitIdentity>,
  ): Promise<void> {
    for (const config of configs) {
      const identity = defined(identities.get(config.name), `the identity of ${config.name}`)
      this.#slots.set(config.name, {
        config,
        unit: this.#makeUnit(config, identity),
        device: undefined,
        unsubscribe: () => {},
        reason: undefined,
        opening: undefined,
        removed: false,
      })
    }
    await Promise.all(configs.map((config) => this.#tryOpen(config.name)))
  }

  /**
   * Takes devices away: their units answer "not ready" at once. Waits for what is in flight, in bounded time;
   * after that a device that hangs closes whenever it can.
   */
  async remove(names: readonly string[]): Promise<void> {
    const { clock, log } = this.#options
    const closing = names.map(async (name) => {
      const slot = this.#slots.get(name)
      if (!slot) return
      this.#slots.delete(name)
      slot.removed = true
      await slot.opening
      const { device } = slot
      this.#detach(slot, 'removed from the configuration')
      if (device && !(await withinTime(clock, device.close(), DEVICE_CLOSE_MS))) {
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

  #makeUnit(config: DeviceConfig, identity: UnitIdentity): BlockUnit {
    const { pool, clock, log } = this.#options
    return new BlockUnit({
      name: config.name,
      identity,
      device: undefined,
      ...(config.blockBytes === undefined ? {} : { blockBytes: config.blockBytes }),
      pool,
      clock,
      log,
    })
  }

  #retryWhere(wanted: (slot: Slot) => boolean): void {
    for (const [name, slot] of this.#slots) {
      if (slot.device || slot.opening || !wanted(slot)) continue
      this.#tryOpen(name).catch((error: unknown) => {
        this.#options.log.error({ err: error, device: name }, 'opening failed unexpectedly')
      })
    }
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
    let device: BlockDevice
    try {
      device = await openDevice(path, { queue, clock, log, readOnly })
    } catch (error) {
      this.#notReady(slot, toPlexusError(error, 'open', path))
      return
    }
    try {
      if (slot.removed) await device.close()
      else this.#attach(slot, device)
    } catch (error) {
      await device.close()
      this.#notReady(slot, toPlexusError(error, 'attach', name))
    }
  }

  #attach(slot: Slot, device: BlockDevice): void {
    const { identities, log } = this.#options
    const { name } = slot.config
    const { logicalBlockBytes, sizeBytes } = device.geometry
    const identity = identities.identify(name, device.identity, new Set(this.#slots.keys()))
    if (!identity.naa.equals(slot.unit.identity.naa)) {
      // Another disk than the one last seen under this name, or one that moved here: not the same unit.
      slot.unit = this.#makeUnit(slot.config, identity)
      this.#options.onUnitReplaced(name)
    }
    // Refuses a device whose blocks do not fit those that initiators see.
    slot.unit.setDevice(device)
    slot.device = device
    slot.reason = undefined
    slot.unsubscribe = device.onEvent((event) => {
      if (event === 'gone' && slot.device === device) this.#lost(slot, device)
    })
    log.info(
      { event: 'device-ready', device: name, naa: identity.naa.toString('hex') },
      `device ${name} is ready: ${device.path}, ${formatSize(sizeBytes)}, blocks of ${logicalBlockBytes} bytes`,
    )
    this.#sayContents(name, device)
  }

  /**
   * Says what is on a device that has just become ready. Initiators write all of these themselves, so nothing is
   * refused; but a member of this machine's own RAID or volume group, not started yet, is worth a warning.
   */
  #sayContents(name: string, device: BlockDevice): void {
    const { log } = this.#options
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
    say().catch((error: unknown) => {
      log.warn({ err: error, device: name }, `the contents of device ${name} could not be examined`)
    })
  }

  #notReady(slot: Slot, error: PlexusError): void {
    if (slot.reason === error.message) return
    slot.reason = error.message
    this.#options.log.warn(
      { event: 'device-not-ready', device: slot.config.name, kind: error.kind },
      `device ${slot.config.name} is not ready: ${error.message}; its LUNs answer "not ready" until it can be opened`,
    )
  }

  #lost(slot: Slot, device: BlockDevice): void {
    const { log } = this.#options
    const { name } = slot.config
    this.#detach(slot, `${device.path} is gone`)
    log.error({ event: 'device-gone', device: name }, `device ${name} is gone: ${device.path}`)
    device.close().catch((error: unknown) => {
      log.warn({ err: error, device: name }, 'closing the lost device failed')
    })
  }

  #detach(slot: Slot, reason: string): void {
    slot.unsubscribe()
    slot.unsubscribe = () => {}
    slot.device = undefined
    slot.reason = reason
    slot.unit.setDevice(undefined)
  }
}
