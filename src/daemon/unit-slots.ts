/**
 * One slot for each provider that LUNs of the configuration lead to, a device or a volume: its logical unit, and
 * the consumer that holds the provider while there is one. A provider that is missing, in use, or not to be exported
 * (export-guard.ts) leaves its unit "not ready"; when it appears or becomes free the unit takes it. Used by appliance.ts.
 */
import type { Clock, Timer } from '../base/clock.ts'
import { type PlexusError, toPlexusError } from '../base/errors.ts'
import { LABEL_RETRY_MS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { Consumer } from '../engine/geom/consumer.ts'
import type { Provider } from '../engine/geom/provider.ts'
import type { Topology } from '../engine/geom/topology.ts'
import type { BufferPool } from '../hal/block-device.ts'
import { BlockUnit } from '../target/scsi/logical-unit.ts'
import type { UnitIdentity } from '../target/scsi/types.ts'
import type { DeviceConfig, UnitConfig } from './config.ts'
import { type ExportGuard, ExportRefused } from './export-guard.ts'
import type { IdentityStore } from './identity-store.ts'

interface Slot {
  readonly config: UnitConfig
  unit: BlockUnit
  consumer: Consumer | undefined
  /** Why the provider, which is there, was not taken; said once, not at every attempt. */
  failure: PlexusError | undefined
  /** Ends the waiting for another attempt. */
  stopWaiting: () => void
}

/** What `plexus status` says of a slot. */
export interface UnitReport {
  readonly name: string
  readonly ready: boolean
  /** Why the provider, which is there, is not served. */
  readonly reason: string | undefined
  /** What to do about it, where that is known. */
  readonly action: string | undefined
}

export interface UnitSlotsOptions {
  readonly topology: Topology
  readonly pool: BufferPool
  readonly clock: Clock
  readonly log: Logger
  readonly identities: IdentityStore
  readonly guard: Pick<ExportGuard, 'check' | 'lend'>
  /** The configuration of a device; undefined for the name of a volume. */
  readonly device: (name: string) => DeviceConfig | undefined
  /** The unit behind a name is another object now: LUN maps must be made anew. */
  readonly onUnitReplaced: (name: string) => void
}

export class UnitSlots {
  readonly #options: UnitSlotsOptions
  readonly #slots = new Map<string, Slot>()

  constructor(options: UnitSlotsOptions) {
    this.#options = options
    options.topology.onProvider((provider, event) => {
      if (event === 'gone') this.#lose(provider)
      else if (this.#slots.has(provider.name)) void this.#attach(provider.name)
    })
  }

  /** The logical unit of a provider's name, undefined where there is no slot of that name. */
  unit(name: string): BlockUnit | undefined {
    return this.#slots.get(name)?.unit
  }

  /** Names of the units that have no provider. */
  get missing(): readonly string[] {
    return [...this.#slots.values()].flatMap(({ config, consumer }) =>
      consumer ? [] : [config.name],
    )
  }

  report(): readonly UnitReport[] {
    return [...this.#slots.values()].map(({ config, consumer, failure }) => ({
      name: config.name,
      ready: consumer !== undefined,
      reason: failure?.message,
      action: failure instanceof ExportRefused ? failure.action : undefined,
    }))
  }

  /** Makes the slots of `configs`; those whose providers are there are ready when it resolves. */
  async add(
    configs: readonly UnitConfig[],
    identities: ReadonlyMap<string, UnitIdentity>,
  ): Promise<void> {
    for (const config of configs) {
      const identity = identities.get(config.name) ?? this.#identify(config.name, undefined)
      const unit = this.#makeUnit(config, identity)
      this.#slots.set(config.name, {
        config,
        unit,
        consumer: undefined,
        failure: undefined,
        stopWaiting: () => {},
      })
    }
    await Promise.all(configs.map(({ name }) => this.#attach(name)))
  }

  /** Looks again at providers that were refused: what the configuration says of them has changed. */
  async retry(names: readonly string[]): Promise<void> {
    await Promise.all(names.map((name) => this.#attach(name)))
  }

  /** Lets providers go: their units answer "not ready" at once. Resolves when nothing of theirs is in flight. */
  async remove(names: readonly string[]): Promise<void> {
    await Promise.all(
      names.map(async (name) => {
        const slot = this.#slots.get(name)
        this.#slots.delete(name)
        if (slot) await this.#detach(slot)
      }),
    )
  }

  /** Lets all providers go, for the end. */
  close(): Promise<void> {
    return this.remove([...this.#slots.keys()])
  }

  #makeUnit(config: UnitConfig, identity: UnitIdentity): BlockUnit {
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

  #identify(name: string, provider: Provider | undefined): UnitIdentity {
    const known = new Set([...this.#slots.keys(), name])
    return this.#options.identities.identify(name, provider?.identity, known)
  }

  #attach(name: string): Promise<void> {
    const { topology } = this.#options
    return topology.change(async () => {
      const slot = this.#slots.get(name)
      const provider = topology.providers.get(name)
      if (!slot || slot.consumer || !provider || provider.error) return
      const device = this.#options.device(name)
      // Until the reload that maps a device has opened it anew, it is not the initiators'.
      if (device && !device.exported) return
      slot.stopWaiting()
      try {
        await this.#take(slot, provider, device)
        slot.failure = undefined
      } catch (error) {
        this.#refuse(slot, provider, toPlexusError(error, 'attach', name))
      }
    })
  }

  async #take(slot: Slot, provider: Provider, device: DeviceConfig | undefined): Promise<void> {
    const { topology, guard } = this.#options
    const { name } = slot.config
    const disk = topology.device(name)
    const isBlank = device && disk ? await guard.check(device, disk) : false
    const write = provider.features.readOnly ? 0 : 1
    const access = { read: 1, write, exclusive: 1 }
    const consumer = topology.attach(provider, undefined, `logical unit ${name}`, access)
    try {
      const identity = this.#identify(name, provider)
      if (!identity.naa.equals(slot.unit.identity.naa)) {
        // Another disk than the one last seen under this name, or one that moved here: not the same unit.
        slot.unit = this.#makeUnit(slot.config, identity)
        this.#options.onUnitReplaced(name)
      }
      // Refuses a provider whose blocks do not fit those that initiators see.
      slot.unit.setDevice(consumer)
      slot.consumer = consumer
      // In the same turn: on disk before an initiator can write a label.
      if (device && isBlank) guard.lend(device, provider.identity)
    } catch (error) {
      await consumer.close()
      throw error
    }
  }

  /** Says why, and waits: for whoever has the provider to let it go, and for time to pass where it could not be read. */
  #refuse(slot: Slot, provider: Provider, error: PlexusError): void {
    const { topology, clock, log } = this.#options
    const { name } = slot.config
    const again = (): void => void this.#attach(name)
    const stopHearing = provider.onReleased(again)
    const timer: Timer | undefined = error.cause ? clock.after(LABEL_RETRY_MS, again) : undefined
    slot.stopWaiting = () => {
      stopHearing()
      timer?.cancel()
    }
    if (slot.failure?.message === error.message) return
    slot.failure = error
    if (error instanceof ExportRefused) {
      const text = `${error.message}. ${error.action}`
      topology.events.emit('critical', 'export-refused', name, text)
    } else {
      const { kind, message } = error
      log.warn({ event: 'unit-not-ready', unit: name, kind }, `unit ${name}: ${message}`)
    }
  }

  #lose(provider: Provider): void {
    const slot = this.#slots.get(provider.name)
    if (!slot) return
    this.#forgetFailure(slot)
    for (const one of this.#slots.values()) {
      if (one.consumer?.provider === provider) void this.#detach(one)
    }
  }

  #forgetFailure(slot: Slot): void {
    slot.stopWaiting()
    slot.failure = undefined
  }

  async #detach(slot: Slot): Promise<void> {
    const { consumer } = slot
    this.#forgetFailure(slot)
    slot.consumer = undefined
    slot.unit.setDevice(undefined)
    await consumer?.close()
  }
}
