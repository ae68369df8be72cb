/** The lowest geom: a block device of the HAL as a provider (GEOM's DISK class), made by topology.ts. */
import { defined } from '../../base/assert.ts'
import type { PlexusError } from '../../base/errors.ts'
import type { BlockDevice, Extent } from '../../hal/block-device.ts'
import type { Bio } from './bio.ts'
import type { Provider } from './provider.ts'
import type { Geom } from './types.ts'

export class DiskGeom implements Geom {
  readonly className = 'disk'
  readonly consumers = []
  readonly name: string
  readonly device: BlockDevice
  /** Ends the subscription to the device's events. */
  unsubscribe: () => void = () => {}
  /** Why it is being taken away, perhaps before it has its provider. */
  removed: PlexusError | undefined
  #provider: Provider | undefined

  constructor(name: string, device: BlockDevice) {
    this.name = name
    this.device = device
  }

  get provider(): Provider {
    return defined(this.#provider, `the provider of ${this.name}`)
  }

  set provider(provider: Provider) {
    this.#provider = provider
  }

  get providers(): readonly Provider[] {
    return this.#provider ? [this.#provider] : []
  }

  /** Nothing is served from now on. */
  remove(reason: PlexusError): void {
    this.removed ??= reason
    if (this.#provider) this.#provider.error ??= this.removed
  }

  /** The device has another size. */
  resized(): void {
    this.#provider?.update({ geometry: this.device.geometry })
  }

  start(request: Bio): void {
    this.device.submit(request)
  }

  async extentAt(offset: number, length: number): Promise<Extent> {
    return (await this.device.extentAt?.(offset, length)) ?? { allocated: true, length }
  }

  /** There is nothing below that could be orphaned. */
  orphan(): void {}

  /** The device stays whose it was: the daemon closes it. */
  async wither(): Promise<void> {}
}
