/**
 * A provider: a named linear range of blocks that a geom offers (GEOM). Disks, volumes and everything between
 * look the same from above. Made and taken away by topology.ts; used through consumers (consumer.ts).
 */
import type { PlexusError } from '../../base/errors.ts'
import type { DeviceFeatures, DeviceIdentity, Geometry } from '../../hal/block-device.ts'
import { grownNote } from '../anchor/anchor-find.ts'
import type { Anchor } from '../anchor/anchor-layout.ts'
import type { Consumer } from './consumer.ts'
import type { RequestWatch } from './request-watch.ts'
import { ProviderStatistics } from './statistics.ts'
import type { Geom } from './types.ts'

export interface ProviderInit {
  /** Unique among all providers; what configuration, messages and commands say. */
  readonly name: string
  readonly geometry: Geometry
  readonly identity: DeviceIdentity
  readonly features: DeviceFeatures
  /** What is on it is somebody else's: no class tastes it. Default: false. */
  readonly opaque?: boolean
  /** Of a disk, and of what stands for one: its requests are given up when they are not answered in time. */
  readonly watch?: RequestWatch | undefined
}

/** Whose a provider is, by its label. */
export interface ProviderLabel {
  readonly driveUuid: string
  /** Why it takes no part in its set, or not as it should: what is the matter, and what to do. */
  readonly problem?: { readonly text: string; readonly action: string } | undefined
}

export class Provider {
  name: string
  readonly geom: Geom
  readonly opaque: boolean
  readonly watch: RequestWatch | undefined
  readonly statistics = new ProviderStatistics()
  /** Who has attached. */
  readonly consumers = new Set<Consumer>()
  /** Sums over the consumers (GEOM's acr, acw, ace). */
  readonly access = { read: 0, write: 0, exclusive: 0 }
  /** The label that was found on it when it was last tasted. */
  label: ProviderLabel | undefined
  /** Why it serves no more; set once, when it is orphaned. */
  error: PlexusError | undefined
  /** These three change by {@link update} only. */
  geometry: Geometry
  identity: DeviceIdentity
  features: DeviceFeatures
  readonly #onReleased = new Set<() => void>()

  constructor(geom: Geom, init: ProviderInit) {
    this.name = init.name
    this.geom = geom
    this.opaque = init.opaque ?? false
    this.watch = init.watch
    this.geometry = init.geometry
    this.identity = init.identity
    this.features = init.features
  }

  /** 0 for a disk, else one more than the highest rank below (GEOM's rank). Topology keeps the graph free of cycles. */
  get rank(): number {
    return Math.max(-1, ...this.geom.consumers.map(({ provider }) => provider.rank)) + 1
  }

  get sizeBytes(): number {
    return this.geometry.sizeBytes
  }

  get blockBytes(): number {
    return this.geometry.logicalBlockBytes
  }

  get inFlight(): number {
    return this.statistics.inFlight
  }

  /** Hears when a consumer gives writing or exclusive use back; returns the way to stop. */
  onReleased(listener: () => void): () => void {
    this.#onReleased.add(listener)
    return () => this.#onReleased.delete(listener)
  }

  /** Only consumer.ts calls it. */
  tellReleased(): void {
    for (const listener of [...this.#onReleased]) listener()
  }

  /** Takes a new form; consumers hear of another size at once. The geom calls it, inside a topology change. */
  update(form: Partial<Pick<ProviderInit, 'geometry' | 'features' | 'identity'>>): void {
    const before = this.sizeBytes
    Object.assign(this, form)
    if (this.sizeBytes === before) return
    for (const consumer of [...this.consumers]) consumer.tell('resized')
  }
}

/** Keeps what was found on a provider: its label, and what is the matter with it, where `NAME` stands for the provider. */
export function noteLabel(
  provider: Provider,
  anchor: Anchor | undefined,
  problem?: { readonly text: string; readonly action: string },
): void {
  const told = problem ?? (anchor && grownNote(anchor, provider.sizeBytes))
  provider.label = anchor && {
    driveUuid: anchor.deviceUuid,
    problem: told && { text: told.text, action: told.action.replaceAll('NAME', provider.name) },
  }
}

/** Are these two paths of one disk? undefined: what the kernel knows of them does not tell. */
export function isSameMedium(one: Provider, two: Provider): boolean | undefined {
  const [a, b] = [one.identity, two.identity]
  if (a.wwid !== undefined && b.wwid !== undefined) return a.wwid === b.wwid
  if (a.serial === undefined || b.serial === undefined) return undefined
  return a.serial === b.serial && a.vendor === b.vendor && a.model === b.model
}
