/**
 * The graph of geoms, providers and consumers (GEOM's g_topology): devices come and go, classes taste what
 * appears, orphans wither. One change at a time; I/O runs outside. The daemon makes one and feeds it devices;
 * classes and logical units attach to what it offers.
 */
import { assert } from '../../base/assert.ts'
import { formatSize } from '../../base/bytes.ts'
import type { Clock } from '../../base/clock.ts'
import { operatingError, PlexusError } from '../../base/errors.ts'
import type { Kernels } from '../../base/kernels.ts'
import type { Logger } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import { didYouMean } from '../../base/suggest.ts'
import type { GeomReport } from '../../control/reports.ts'
import type { BlockDevice, BufferPool } from '../../hal/block-device.ts'
import { findLabel, type LabelProblem } from '../anchor/anchor-find.ts'
import type { Anchor } from '../anchor/anchor-layout.ts'
import type { JobManager } from '../jobs/job.ts'
import { Consumer, READ_ACCESS } from './consumer.ts'
import { DiskGeom } from './disk-geom.ts'
import type { EventLog } from './events.ts'
import { type LunNames, NO_LUN_NAMES } from './names.ts'
import { noteLabel, Provider, type ProviderInit } from './provider.ts'
import { RequestWatch } from './request-watch.ts'
import type { AccessCounts, Geom, GeomClass } from './types.ts'

export type TopologyOptions = Pick<
  Topology,
  'classes' | 'pool' | 'kernels' | 'clock' | 'random' | 'log' | 'events' | 'jobs'
> &
  Partial<Pick<Topology, 'lunNames'>>

/** Something appeared under a name or went; logical units listen. */
type ProviderListener = (provider: Provider, event: 'arrived' | 'gone') => void

export class Topology {
  readonly classes: readonly GeomClass[]
  readonly pool: BufferPool
  readonly kernels: Kernels
  readonly clock: Clock
  readonly random: Random
  readonly log: Logger
  readonly events: EventLog
  readonly jobs: JobManager
  readonly lunNames: LunNames
  readonly #providers = new Map<string, Provider>()
  readonly #geoms = new Set<Geom>()
  readonly #disks = new Map<string, DiskGeom>()
  readonly #listeners = new Set<ProviderListener>()
  #changes: Promise<unknown> = Promise.resolve()
  #settled = false

  constructor(options: TopologyOptions) {
    this.classes = options.classes
    this.pool = options.pool
    this.kernels = options.kernels
    this.clock = options.clock
    this.random = options.random
    this.log = options.log
    this.events = options.events
    this.jobs = options.jobs
    this.lunNames = options.lunNames ?? NO_LUN_NAMES
  }

  get providers(): ReadonlyMap<string, Provider> {
    return this.#providers
  }

  get geoms(): ReadonlySet<Geom> {
    return this.#geoms
  }

  /** Runs one change of the graph; the next one waits. Everything that adds or removes edges runs inside. */
  change<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#changes.then(work)
    this.#changes = result.catch(() => {})
    return result
  }

  /** Waits until no change is under way or queued. */
  async quiet(): Promise<void> {
    await this.#changes
  }

  /** The provider of a name. Throws `not-found` with the nearest name. */
  find(name: string): Provider {
    const provider = this.#providers.get(name)
    if (provider) return provider
    const message = `there is no provider "${name}"${didYouMean(name, [...this.#providers.keys()])}; plexus tree shows all`
    throw new PlexusError('not-found', { op: 'find', subject: name, message })
  }

  /**
   * A device that opened: becomes a disk geom, and every class tastes it, unless it is `opaque`: its content is
   * somebody else's. One that does not answer a request within `timeoutMs` is taken away; undefined: never.
   * The device stays the caller's to close. Throws `exists`, and `gone` when the device went before its turn came.
   */
  addDevice(
    name: string,
    device: BlockDevice,
    { opaque = false, timeoutMs }: { readonly opaque?: boolean; readonly timeoutMs?: number } = {},
  ): Promise<Provider> {
    const geom = new DiskGeom(name, device)
    const overdue = (reason: PlexusError): void => {
      void this.#removeDisk(geom, reason)
      watch?.giveUp(reason)
      device.abandon?.()
    }
    const watch =
      timeoutMs === undefined ? undefined : new RequestWatch(timeoutMs, name, this, overdue)
    // From now on, not from its turn on: a device may come and go while other changes run.
    geom.unsubscribe = device.onEvent((event) => {
      if (event === 'resized') void this.change(() => this.#resized(geom))
      else {
        const subject = device.path
        const message = `${subject} is gone; connect it again`
        void this.#removeDisk(geom, new PlexusError('gone', { op: 'use', subject, message }))
      }
    })
    if (!this.#disks.has(name) || this.#disks.get(name)?.removed) this.#disks.set(name, geom)
    return this.change(async () => {
      try {
        if (geom.removed) throw geom.removed
        const { geometry, identity, features } = device
        const form = { name, geometry, identity, features, opaque, watch }
        geom.provider = this.makeProvider(geom, form)
      } catch (error) {
        this.#forgetDisk(geom)
        throw error
      }
      this.#disks.set(name, geom)
      this.#geoms.add(geom)
      await this.tastePending()
      return geom.provider
    })
  }

  /** A disk has another size: who holds it hears of it; what nobody holds may carry a label that can be used now. */
  async #resized(geom: DiskGeom): Promise<void> {
    if (!this.#geoms.has(geom)) return
    const { name, sizeBytes: before, consumers } = geom.provider
    geom.resized()
    const { sizeBytes } = geom.provider
    if (sizeBytes === before) return
    const sizes = `${formatSize(before)} before, ${formatSize(sizeBytes)} now`
    this.events.emit('warning', 'device-resized', name, `device ${name} has another size: ${sizes}`)
    if (consumers.size > 0) return
    this.tasteAgain(geom.provider)
    await this.tastePending()
  }

  /** The device is gone, or is taken away on purpose: whatever stands on it is orphaned. Resolves when done. */
  removeDevice(name: string, reason: PlexusError): Promise<void> {
    const geom = this.#disks.get(name)
    return geom ? this.#removeDisk(geom, reason) : this.quiet()
  }

  #removeDisk(geom: DiskGeom, reason: PlexusError): Promise<void> {
    // What is in flight and what comes must fail now, not when other changes have ended.
    geom.remove(reason)
    return this.change(async () => {
      this.#forgetDisk(geom)
      if (!this.#geoms.has(geom)) return
      await this.orphan(geom.provider, reason)
      this.removeGeom(geom)
    })
  }

  /** What the device tells later is about nobody: another one may have the name by then. */
  #forgetDisk(geom: DiskGeom): void {
    geom.unsubscribe()
    if (this.#disks.get(geom.name) === geom) this.#disks.delete(geom.name)
  }

  /** The device behind a disk provider, for probing. */
  device(name: string): BlockDevice | undefined {
    return this.#disks.get(name)?.device
  }

  /** All devices of the start have been added or are known to be missing. Later arrivals come one by one. */
  settle(): Promise<void> {
    return this.change(async () => {
      this.#settled = true
      await this.#tellSettled()
      await this.tastePending()
    })
  }

  get settled(): boolean {
    return this.#settled
  }

  /** Is everything known that is there: the start is over, and nothing waits to be tasted? */
  get complete(): boolean {
    return this.#settled && this.#untasted.size === 0
  }

  // The rest is for classes, inside a change.

  addGeom(geom: Geom): void {
    this.#geoms.add(geom)
  }

  /** Forgets a geom whose providers are orphaned and whose consumers are closed. */
  removeGeom(geom: Geom): void {
    assert(geom.consumers.length === 0, `${geom.name} has closed its consumers`)
    for (const provider of geom.providers) this.#forget(provider)
    this.#geoms.delete(geom)
  }

  /**
   * A new provider of `geom`. It is tasted when the class calls {@link tastePending} (topology.ts does so at
   * the end of its own changes). Throws `exists` when the name is taken.
   */
  makeProvider(geom: Geom, init: ProviderInit): Provider {
    this.#checkFree(init.name)
    const provider = new Provider(geom, init)
    this.#providers.set(init.name, provider)
    this.#untasted.add(provider)
    for (const listener of [...this.#listeners]) listener(provider, 'arrived')
    return provider
  }

  #checkFree(name: string): void {
    if (!this.#providers.has(name)) return
    const message = `a provider named "${name}" exists already; choose another name`
    throw new PlexusError('exists', { op: 'create', subject: name, message })
  }

  /** Same provider under another name. Throws `exists`. Who holds it keeps it. */
  renameProvider(provider: Provider, name: string): void {
    this.#checkFree(name)
    for (const listener of [...this.#listeners]) listener(provider, 'gone')
    this.#providers.delete(provider.name)
    provider.name = name
    this.#providers.set(name, provider)
    for (const listener of [...this.#listeners]) listener(provider, 'arrived')
  }

  readonly #untasted = new Set<Provider>()

  /** Offers every provider that is new to every class, lowest first, until nothing new appears. */
  async tastePending(): Promise<void> {
    // One that is tasted may add others, or itself.
    for (const next of this.#untasted) {
      this.#untasted.delete(next)
      if (!next.error) await this.#taste(next)
      if (this.complete) await this.#tellSettled()
    }
  }

  async #tellSettled(): Promise<void> {
    // What stands on others comes after them: it waits for what they offer now.
    for (const one of [...this.classes].reverse()) {
      try {
        await one.settled?.(this)
      } catch (error) {
        // As in #taste: what fails for one class, or one set of disks, is no reason to serve nothing at all.
        const err = operatingError(error)
        this.log.error({ err, class: one.name, event: 'settle-failed' }, err.message)
      }
    }
  }

  /** Offers a provider to the classes once more, with the next {@link tastePending}: its holder has let it go. */
  tasteAgain(provider: Provider): void {
    if (!provider.error) this.#untasted.add(provider)
  }

  async #taste(provider: Provider): Promise<void> {
    if (provider.opaque) return
    try {
      const found = await this.using(provider, 'taste', READ_ACCESS, findLabel)
      noteLabel(provider, found?.anchor, found?.problem)
      if (found?.problem) return this.labelProblem(provider, found.anchor, found.problem)
      const anchor = found?.anchor
      for (const one of this.classes) {
        if (one.name === provider.geom.className) continue
        if (anchor && anchor.className !== one.name) continue
        if (await this.#tasteBy(one, provider, anchor)) return
      }
    } catch (error) {
      this.#tasteFailed(provider, error)
    }
  }

  /** A class that fails does not keep the others from looking. */
  async #tasteBy(one: GeomClass, provider: Provider, anchor: Anchor | undefined): Promise<boolean> {
    try {
      return await one.taste(provider, anchor, this)
    } catch (error) {
      this.#tasteFailed(provider, error)
      return false
    }
  }

  #tasteFailed(provider: Provider, error: unknown): void {
    // A disk that fails while it is looked at is there all the same; a defect is not passed over.
    const err = operatingError(error)
    const { name } = provider
    const text = `${name} could not be tasted: ${err.message}`
    this.log.warn({ err, provider: name, event: 'taste-failed' }, text)
  }

  /** Says that a provider with a label is not used; `NAME` in the action stands for it. Kept until it is tasted again. */
  labelProblem(
    provider: Provider,
    anchor: Anchor,
    problem: Pick<LabelProblem, 'text' | 'action'>,
  ): void {
    const { name } = provider
    noteLabel(provider, anchor, problem)
    const message = `${name} is not used: it ${problem.text}. ${provider.label?.problem?.action}`
    this.events.emit('critical', 'label-problem', name, message)
  }

  /**
   * Attaches to a provider and opens it. Throws `invalid` when that would make a cycle, and what
   * {@link Consumer.changeAccess} throws.
   */
  attach(
    provider: Provider,
    owner: Geom | undefined,
    holder: string,
    access: AccessCounts,
  ): Consumer {
    if (owner && standsOn(provider, owner)) {
      const message = `${holder} cannot use ${provider.name}: it would stand on itself, or on what is above it`
      throw new PlexusError('invalid', { op: 'attach', subject: provider.name, message })
    }
    const consumer = new Consumer(provider, owner, holder, this)
    try {
      consumer.changeAccess(access)
    } catch (error) {
      provider.consumers.delete(consumer)
      throw error
    }
    return consumer
  }

  /** Attached for the time of `work`. Throws as {@link attach}, and as `work` does. */
  async using<T>(
    provider: Provider,
    holder: string,
    access: AccessCounts,
    work: (consumer: Consumer) => Promise<T>,
  ): Promise<T> {
    const consumer = this.attach(provider, undefined, holder, access)
    try {
      return await work(consumer)
    } finally {
      await consumer.close()
    }
  }

  /** `provider` serves no more: its consumers' owners hear it, units get `gone`; its name is free at once. */
  async orphan(provider: Provider, reason: PlexusError): Promise<void> {
    provider.error ??= reason
    this.#forget(provider)
    for (const consumer of [...provider.consumers]) {
      // What one of them does may have closed another.
      if (!consumer.attached) continue
      consumer.tell('gone')
      await consumer.owner?.orphan(consumer, reason)
    }
  }

  #forget(provider: Provider): void {
    this.#untasted.delete(provider)
    if (this.#providers.get(provider.name) !== provider) return
    this.#providers.delete(provider.name)
    for (const listener of [...this.#listeners]) listener(provider, 'gone')
  }

  /** Hears of every provider that comes and goes; returns the way to stop. */
  onProvider(listener: ProviderListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Stops all classes: everything durable, nothing above the devices open. */
  stop(): Promise<void> {
    return this.change(async () => {
      await this.jobs.stop()
      for (const one of this.classes) await one.stop?.()
    })
  }

  report(): readonly GeomReport[] {
    return [...this.#geoms].map((geom) => ({
      className: geom.className,
      name: geom.name,
      consumers: geom.consumers.map(({ provider }) => provider.name),
      providers: geom.providers.map(({ name }) => name),
      state: geom.providers.some(({ error }) => error) ? 'orphaned' : 'up',
    }))
  }
}

/** Is `geom` the one that offers `provider`, or anywhere below it? */
function standsOn(provider: Provider, geom: Geom): boolean {
  return (
    provider.geom === geom ||
    provider.geom.consumers.some((consumer) => standsOn(consumer.provider, geom))
  )
}
