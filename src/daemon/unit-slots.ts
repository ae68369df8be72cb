/**
 * One slot for each provider that LUNs of the configuration lead to, a device or a volume: its logical unit, and
 * the consumer that holds the provider while there is one. A provider that is missing, in use, or not to be exported
 * (export-guard.ts) leaves its unit "not ready"; when it appears or becomes free the unit takes it. Used by appliance.ts.
 */
import { defined } from '../base/assert.ts'
import type { Clock, Timer } from '../base/clock.ts'
import { PlexusError, toPlexusError } from '../base/errors.ts'
import { DEVICES_AT_ONCE, LABEL_RETRY_MS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { inLanes, inTurns } from '../base/turns.ts'
import type { Consumer } from '../engine/geom/consumer.ts'
import type { Provider } from '../engine/geom/provider.ts'
import type { Topology } from '../engine/geom/topology.ts'
import type { BufferPool } from '../hal/block-device.ts'
import { BlockUnit } from '../target/scsi/logical-unit.ts'
import type { UnitIdentity } from '../target/scsi/types.ts'
import type { DeviceConfig, UnitConfig } from './config.ts'
import { type ExportGuard, ExportRefused } from './export-guard.ts'
import { ForeignIdentity, type IdentityDraft, type Origin } from './identity-draft.ts'
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

/** A provider that a slot holds and does not serve yet. */
interface Held {
  readonly slot: Slot
  readonly provider: Provider
  readonly consumer: Consumer
  /** The configuration of a device that is exported without a label from now on. */
  readonly blank: DeviceConfig | undefined
}

/** What `plexus status` says of a slot. */
export interface UnitReport {
  readonly name: string
  readonly ready: boolean
  /** Why the provider, which is there, is not served. */
  readonly reason: string | undefined
  /** What to do about it, where that is known. */
  readonly action: string | undefined
  readonly identity: Pick<UnitIdentity, 'naa' | 'serial'>
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
  /** `state.movedFrom` and `copiedFrom`: what to do with identities that another machine has made. */
  readonly origin: () => Origin
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
      else if (this.#slots.has(provider.name)) void this.#attach([provider.name])
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
    return [...this.#slots.values()].map(({ config, unit, consumer, failure }) => ({
      name: config.name,
      ready: consumer !== undefined,
      reason: failure?.message,
      action: failure && actionOf(failure),
      identity: unit.identity,
    }))
  }

  /**
   * Makes the slots of `configs`; those whose providers are there are ready when it resolves. `identities` has that of
   * each, durable.
   */
  async add(
    configs: readonly UnitConfig[],
    identities: ReadonlyMap<string, UnitIdentity>,
  ): Promise<void> {
    await inTurns(configs, (config) => {
      const identity = defined(identities.get(config.name), `the identity of ${config.name}`)
      this.#slots.set(config.name, {
        config,
        unit: this.#makeUnit(config, identity),
        consumer: undefined,
        failure: undefined,
        stopWaiting: () => {},
      })
    })
    await this.#attach(configs.map(({ name }) => name))
  }

  /** Looks again at providers that were refused: what the configuration says of them may have changed. */
  async retry(names: readonly string[]): Promise<void> {
    await this.#attach(names)
  }

  /** Lets providers go: their units answer "not ready" at once. Resolves when nothing of theirs is in flight. */
  async remove(names: readonly string[]): Promise<void> {
    const ended: Promise<void>[] = []
    await inTurns(names, (name) => {
      const slot = this.#slots.get(name)
      this.#slots.delete(name)
      slot?.unit.takeAway()
      if (slot) ended.push(this.#detach(slot))
    })
    await Promise.all(ended)
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

  /** Takes the providers of these names that are there, with one durable write for all of them. */
  #attach(names: readonly string[]): Promise<void> {
    return this.#options.topology.change(async () => {
      const held: Held[] = []
      await inLanes(names, DEVICES_AT_ONCE, async (name) => {
        const one = await this.#hold(name)
        if (one) held.push(one)
      })
      const identities = await this.#identify(held)
      const refused: (readonly [Held, PlexusError])[] = []
      await inTurns(held, (one) => {
        const identity = identities.get(one)
        const error = this.#serve(one, defined(identity, `the identity of ${one.provider.name}`))
        if (error) refused.push([one, error])
      })
      for (const [{ slot, provider, consumer }, error] of refused) {
        // First, so that its own release is not taken for somebody else's.
        await consumer.close()
        if (this.#slots.get(slot.config.name) === slot) this.#refuse(slot, provider, error)
      }
    })
  }

  async #hold(name: string): Promise<Held | undefined> {
    const { topology, guard } = this.#options
    const slot = this.#slots.get(name)
    const provider = topology.providers.get(name)
    if (!slot || slot.consumer || !provider || provider.error) return undefined
    const device = this.#options.device(name)
    // Until the reload that maps a device has opened it anew, it is not the initiators'.
    if (device && !device.exported) return undefined
    slot.stopWaiting()
    try {
      const disk = topology.device(name)
      const isBlank = device && disk ? await guard.check(device, disk) : false
      const write = provider.features.readOnly ? 0 : 1
      const access = { read: 1, write, exclusive: 1 }
      const consumer = topology.attach(provider, undefined, `logical unit ${name}`, access)
      return { slot, provider, consumer, blank: isBlank ? device : undefined }
    } catch (error) {
      this.#refuse(slot, provider, toPlexusError(error, 'attach', name))
      return undefined
    }
  }

  /** The identities of providers, on disk before an initiator can see them or write a label. */
  async #identify(held: readonly Held[]): Promise<ReadonlyMap<Held, UnitIdentity | PlexusError>> {
    const { identities, guard, log, origin } = this.#options
    const identify = (
      draft: IdentityDraft,
      { slot, provider }: Held,
    ): UnitIdentity | PlexusError => {
      try {
        return draft.identify(slot.config.name, provider.identity, this.#slots, origin())
      } catch (error) {
        return toPlexusError(error, 'identify', slot.config.name)
      }
    }
    try {
      return await identities.change((draft) => {
        const found = held.map((one) => [one, identify(draft, one)] as const)
        for (const { blank, provider } of held) {
          if (blank) guard.lend(draft, blank, provider.identity)
        }
        return new Map(found)
      })
    } catch (error) {
      // Those whose identity is on disk can be served all the same. Without the note that a disk was blank, a label that
      // an initiator writes keeps the LUN from being served after a restart.
      const failure = toPlexusError(error, 'write', 'identities')
      log.warn({ err: failure, event: 'identities-failed' }, failure.message)
      const alone = held.map(async (one) => {
        const known = identities.change((draft) => identify(draft, one))
        return [one, await known.catch(() => failure)] as const
      })
      return new Map(await Promise.all(alone))
    }
  }

  /** Returns why it cannot be served. */
  #serve({ slot, consumer }: Held, identity: UnitIdentity | PlexusError): PlexusError | undefined {
    const { name } = slot.config
    if (identity instanceof PlexusError) return identity
    try {
      if (this.#slots.get(name) !== slot) return removed(name)
      if (!identity.naa.equals(slot.unit.identity.naa)) {
        // Another disk than the one last seen under this name, or one that moved here: not the same unit.
        slot.unit = this.#makeUnit(slot.config, identity)
        this.#options.onUnitReplaced(name)
      }
      // Refuses a provider whose blocks do not fit those that initiators see.
      slot.unit.setDevice(consumer)
      slot.consumer = consumer
      slot.failure = undefined
      return undefined
    } catch (error) {
      return toPlexusError(error, 'attach', name)
    }
  }

  /** Says why, and waits: for whoever has the provider to let it go, and for time to pass where it could not be read. */
  #refuse(slot: Slot, provider: Provider, error: PlexusError): void {
    const { topology, clock, log } = this.#options
    const { name } = slot.config
    const again = (): void => void this.#attach([name])
    const stopHearing = provider.onReleased(again)
    const timer: Timer | undefined = error.cause ? clock.after(LABEL_RETRY_MS, again) : undefined
    slot.stopWaiting = () => {
      stopHearing()
      timer?.cancel()
    }
    if (slot.failure?.message === error.message) return
    slot.failure = error
    const action = actionOf(error)
    if (action !== undefined) {
      const text = `${error.message}. ${action}`
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

function removed(name: string): PlexusError {
  return new PlexusError('gone', {
    op: 'attach',
    subject: name,
    message: `unit ${name} has been taken out of the configuration`,
  })
}

/** What to type about a refusal, where that is known. */
function actionOf(error: PlexusError): string | undefined {
  return error instanceof ExportRefused || error instanceof ForeignIdentity
    ? error.action
    : undefined
}
