/**
 * A consumer: the end at which a geom, a logical unit or a tool holds a provider (GEOM). All requests pass
 * here: the one central check of state, access, range and alignment (g_io_check), so that no class checks
 * again, and the count of what is in flight. It is a BlockDevice, so whoever can use a disk can use any provider.
 */
import { assert } from '../../base/assert.ts'
import type { Clock } from '../../base/clock.ts'
import { type ErrorKind, PlexusError } from '../../base/errors.ts'
import type {
  BlockDevice,
  BufferPool,
  DeviceEvent,
  DeviceFeatures,
  DeviceIdentity,
  Extent,
  Geometry,
  IoRequest,
  Provisioning,
} from '../../hal/block-device.ts'
import { Bio } from './bio.ts'
import type { Provider } from './provider.ts'
import type { AccessCounts, Geom } from './types.ts'

/** Attached, but not opened. */
export const NO_ACCESS: AccessCounts = { read: 0, write: 0, exclusive: 0 }
/** Only looks. */
export const READ_ACCESS: AccessCounts = { read: 1, write: 0, exclusive: 0 }
/** Nobody else may write. */
export const EXCLUSIVE_ACCESS: AccessCounts = { read: 1, write: 1, exclusive: 1 }

export class Consumer implements BlockDevice {
  readonly provider: Provider
  /** The geom above, or undefined for a logical unit or a tool. */
  readonly owner: Geom | undefined
  /** Who holds it, for messages: `vinum drive d1`, `lun`. */
  readonly holder: string
  readonly access = { read: 0, write: 0, exclusive: 0 }
  /** Requests from here that have not ended. */
  inFlight = 0
  /** Hears of a flush that failed, before who asked for it does: the cache below may have lost any write. */
  onFlushFailed: ((error: PlexusError) => void) | undefined
  readonly #clock: Clock
  readonly #pool: BufferPool
  readonly #listeners = new Set<(event: DeviceEvent) => void>()
  #attached = true
  #closing = false
  #onIdle: (() => void)[] = []

  /** Only topology.ts makes one. */
  constructor(
    provider: Provider,
    owner: Geom | undefined,
    holder: string,
    { clock, pool }: { readonly clock: Clock; readonly pool: BufferPool },
  ) {
    this.provider = provider
    this.owner = owner
    this.holder = holder
    this.#clock = clock
    this.#pool = pool
    provider.consumers.add(this)
  }

  get path(): string {
    return this.provider.name
  }

  get geometry(): Geometry {
    return this.provider.geometry
  }

  get identity(): DeviceIdentity {
    return this.provider.identity
  }

  get features(): DeviceFeatures {
    return this.provider.features
  }

  get provisioning(): Provisioning | undefined {
    return this.provider.geom.provisioning
  }

  get attached(): boolean {
    return this.#attached
  }

  /**
   * Changes the access counts (GEOM's g_access). Throws PlexusError `gone` when the provider is orphaned,
   * `in-use` when somebody else's exclusive use forbids it or ours would forbid theirs, `permission` for
   * writing to a read-only provider.
   */
  changeAccess(delta: AccessCounts): void {
    const { provider, access } = this
    const after = {
      read: access.read + delta.read,
      write: access.write + delta.write,
      exclusive: access.exclusive + delta.exclusive,
    }
    assert(
      after.read >= 0 && after.write >= 0 && after.exclusive >= 0,
      `${this.holder}: access to ${provider.name} never becomes negative`,
    )
    const opens = delta.read > 0 || delta.write > 0 || delta.exclusive > 0
    assert(this.#attached || !opens, `${this.holder}: what is closed is not opened again`)
    if (opens) this.#checkAccess(delta)
    Object.assign(access, after)
    provider.access.read += delta.read
    provider.access.write += delta.write
    provider.access.exclusive += delta.exclusive
    if (delta.write < 0 || delta.exclusive < 0) provider.tellReleased()
    if (delta.write > 0 && !this.owner) {
      // Somebody may change what a class has read from here without opening it.
      for (const other of [...provider.consumers]) {
        if (other === this || other.access.read > 0 || other.access.write > 0) continue
        other.owner?.spoil?.(other)
      }
    }
  }

  #checkAccess(delta: AccessCounts): void {
    const { provider } = this
    if (provider.error) throw provider.error
    if (delta.write > 0 && provider.features.readOnly) {
      throw this.#error('permission', 'open', `${provider.name} is read-only`)
    }
    for (const other of provider.consumers) {
      if (other === this) continue
      const conflict =
        (delta.exclusive > 0 && (other.access.write > 0 || other.access.exclusive > 0)) ||
        (delta.write > 0 && other.access.exclusive > 0)
      if (conflict) {
        throw this.#error('in-use', 'open', `${provider.name} is in use by ${other.holder}`)
      }
    }
  }

  /** BlockDevice: a request in the provider's address space. */
  submit(request: IoRequest): void {
    this.forward(request, request.offset, request.length, request.dataOffset)
  }

  /**
   * Clones `parent` for a part of its buffer and another address (g_clone_bio) and sends the clone down.
   * `parent.complete` gets the result; a parent that is split counts its children itself.
   */
  forward(parent: IoRequest, offset: number, length: number, dataOffset: number): void {
    const { provider } = this
    const bio = new Bio(this, parent, offset, length, dataOffset, this.#clock.nowMs())
    this.inFlight++
    provider.statistics.inFlight++
    const error = this.#check(bio)
    provider.watch?.add(bio)
    if (error) queueMicrotask(() => bio.complete(error))
    else provider.geom.start(bio, provider)
  }

  /** The end of a clone; only Bio calls it. Returns what its parent is told. */
  settle(bio: Bio, result: PlexusError | undefined): PlexusError | undefined {
    const { statistics, watch } = this.provider
    // Computed from other disks, into the memory that one which does not answer may still write to.
    const isLost = !result && !this.owner && bio.op === 'read' && this.#isKept(bio)
    const error = isLost ? this.#keptError(bio) : result
    watch?.remove(bio)
    statistics.inFlight--
    statistics[bio.op].count(bio.length, this.#clock.nowMs() - bio.startedMs, error !== undefined)
    if (error && bio.op === 'flush') this.onFlushFailed?.(error)
    this.inFlight--
    if (this.inFlight === 0 && this.#onIdle.length > 0) {
      for (const resolve of this.#onIdle.splice(0)) resolve()
    }
    return error
  }

  #isKept({ data }: Bio): boolean {
    return data !== undefined && this.#pool.isKept(data)
  }

  #keptError(bio: Bio): PlexusError {
    return this.#refusal(bio, WHY_KEPT, 'aborted')
  }

  /** BlockDevice: asks the geom below; a class that does not know answers for all of it. */
  async extentAt(offset: number, length: number): Promise<Extent> {
    const { provider } = this
    if (provider.error) throw provider.error
    return (await provider.geom.extentAt?.(offset, length)) ?? { allocated: true, length }
  }

  onEvent(listener: (event: DeviceEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Passes an event of the provider on; provider.ts and topology.ts call it. */
  tell(event: DeviceEvent): void {
    if (event === 'resized') this.owner?.resized?.(this)
    for (const listener of [...this.#listeners]) listener(event)
  }

  /** Resolves when nothing from here is in flight. */
  async idle(): Promise<void> {
    if (this.inFlight === 0) return
    await new Promise<void>((resolve) => this.#onIdle.push(resolve))
  }

  /** BlockDevice: waits for what is in flight, gives all access back and detaches. */
  async close(): Promise<void> {
    this.#closing = true
    await this.idle()
    if (!this.#attached) return
    this.#attached = false
    const { read, write, exclusive } = this.access
    this.changeAccess({ read: -read, write: -write, exclusive: -exclusive })
    this.provider.consumers.delete(this)
    this.#listeners.clear()
  }

  #check(bio: Bio): PlexusError | undefined {
    const { provider } = this
    if (provider.error) return provider.error
    if (!this.#attached || this.#closing) {
      return this.#error('gone', bio.op, `${provider.name}: ${this.holder} has closed it`)
    }
    const isRead = bio.op === 'read'
    if (isRead ? this.access.read === 0 : this.access.write === 0 && bio.op !== 'flush') {
      const right = isRead ? 'reading' : 'writing'
      return this.#error(
        'permission',
        bio.op,
        `${provider.name}: ${this.holder} has not opened it for ${right}`,
      )
    }
    if (bio.op === 'flush') return undefined
    const { sizeBytes, logicalBlockBytes } = provider.geometry
    const { offset, length, data, dataOffset } = bio
    if (!(offset >= 0 && length >= 0 && offset + length <= sizeBytes)) {
      return this.#refusal(bio, `is outside its ${sizeBytes} bytes`)
    }
    if (offset % logicalBlockBytes !== 0 || length % logicalBlockBytes !== 0) {
      return this.#refusal(bio, `is not whole blocks of ${logicalBlockBytes} bytes`)
    }
    if (!isRead && bio.op !== 'write') return undefined
    if (!data || !(dataOffset >= 0) || dataOffset + length > data.bytes.length) {
      return this.#refusal(bio, 'has a buffer that is too short')
    }
    return isRead && provider.watch && this.#isKept(bio) ? this.#keptError(bio) : undefined
  }

  /** Apart from the check, which every request passes: the text is made for those that are refused only. */
  #refusal({ op, offset, length }: Bio, why: string, kind: ErrorKind = 'invalid'): PlexusError {
    const where = `${this.provider.name}: ${op} of ${length} bytes at offset ${offset}`
    return this.#error(kind, op, `${where} ${why}`)
  }

  #error(kind: ErrorKind, op: string, message: string): PlexusError {
    return new PlexusError(kind, { op, subject: this.provider.name, message })
  }
}

const WHY_KEPT =
  'failed: a disk that does not answer may still write to its memory; it is to be repeated'
