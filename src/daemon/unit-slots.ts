/**
 * One slot for each provider that LUNs of the configuration lead to, a device or a volume: its logical unit, and
 * the consumer that holds the provider while there is one. A provider that is missing leaves its unit "not
 * ready"; when it appears the unit takes it. Used by appliance.ts.
 */
import type { Clock } from '../base/clock.ts'
import { toPlexusError } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import type { Consumer } from '../engine/geom/consumer.ts'
import type { Provider } from '../engine/geom/provider.ts'
import type { Topology } from '../engine/geom/topology.ts'
import type { BufferPool } from '../hal/block-device.ts'
import { BlockUnit } from '../target/scsi/logical-unit.ts'
import type { UnitIdentity } from '../target/scsi/types.ts'
import type { UnitConfig } from './config.ts'
import type { IdentityStore } from './identity-store.ts'

interface Slot {
  readonly config: UnitConfig
  unit: BlockUnit
  consumer: Consumer | undefined
}

export interface UnitSlotsOptions {
  readonly topology: Topology
  readonly pool: BufferPool
  readonly clock: Clock
  readonly log: Logger
  readonly identities: IdentityStore
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

  /** Makes the slots of `configs`; those whose providers are there are ready when it resolves. */
  async add(
    configs: readonly UnitConfig[],
    identities: ReadonlyMap<string, UnitIdentity>,
  ): Promise<void> {
    for (const config of configs) {
      const identity = identities.get(config.name) ?? this.#identify(config.name, undefined)
      const unit = this.#makeUnit(config, identity)
      this.#slots.set(config.name, { config, unit, consumer: undefined })
    }
    await Promise.all(configs.map(({ name }) => this.#attach(name)))
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
    const { topology, log } = this.#options
    return topology.change(async () => {
      const slot = this.#slots.get(name)
      const provider = topology.providers.get(name)
      if (!slot || slot.consumer || !provider || provider.error) return
      let consumer: Consumer | undefined
      try {
        const write = provider.features.readOnly ? 0 : 1
        const access = { read: 1, write, exclusive: 1 }
        consumer = topology.attach(provider, undefined, `logical unit ${name}`, access)
        const identity = this.#identify(name, provider)
        if (!identity.naa.equals(slot.unit.identity.naa)) {
          // Another disk than the one last seen under this name, or one that moved here: not the same unit.
          slot.unit = this.#makeUnit(slot.config, identity)
          this.#options.onUnitReplaced(name)
        }
        // Refuses a provider whose blocks do not fit those that initiators see.
        slot.unit.setDevice(consumer)
        slot.consumer = consumer
      } catch (error) {
        await consumer?.close()
        const { kind, message } = toPlexusError(error, 'attach', name)
        log.warn({ event: 'unit-not-ready', unit: name, kind }, `unit ${name}: ${message}`)
      }
    })
  }

  #lose(provider: Provider): void {
    for (const slot of this.#slots.values()) {
      if (slot.consumer?.provider === provider) void this.#detach(slot)
    }
  }

  async #detach(slot: Slot): Promise<void> {
    const { consumer } = slot
    slot.consumer = undefined
    slot.unit.setDevice(undefined)
    await consumer?.close()
  }
}
