/**
 * One virstor device and its components: what their configuration means (metadata/device-set.ts has how it is kept).
 * A component that is away takes its chunks with it, and the others serve; copies of the map are made anew on others.
 */
import { defined } from '../../base/assert.ts'
import { operatingError, PlexusError } from '../../base/errors.ts'
import type { Extent, Provisioning } from '../../hal/block-device.ts'
import type { Bio } from '../geom/bio.ts'
import { isLentElsewhere } from '../geom/names.ts'
import type { Provider } from '../geom/provider.ts'
import type { Topology } from '../geom/topology.ts'
import type { Job } from '../jobs/job.ts'
import { loseDevice } from '../metadata/arrivals.ts'
import { DeviceSet } from '../metadata/device-set.ts'
import type { SetDrive } from '../metadata/set-drive.ts'
import type { DriveRecord } from '../metadata/set-model.ts'
import type { WitnessStore } from '../metadata/witness.ts'
import { VIRSTOR_CODEC } from './codec.ts'
import { VirstorDevice } from './device.ts'
import { DiskCarrier } from './disk-carrier.ts'
import { MapCopies } from './map-copies.ts'
import { type ComponentRecord, type CopyRecord, isUp, type VirstorModel } from './model.ts'
import { drivesDown, drivesUp, withGrownDrives, withoutCopiesAway } from './model-changes.ts'
import { SetJob, withoutLeaving } from './moves/set-job.ts'
import { trimPlan } from './trim.ts'

export interface VirstorSetOptions {
  readonly witness: WitnessStore | undefined
  readonly onFailed: (set: VirstorSet) => void
  /** Flushes that devices owe which have ended (GroupCommitter.owes), by the UUID of their set: paid when they are served again. */
  readonly owed: Map<string, PlexusError>
}

export class VirstorSet extends DeviceSet<VirstorModel> {
  readonly olderText =
    'it has an older state than the others, and is not used; connect the right disk, or take it out'
  readonly mapCopies = new MapCopies(this)
  readonly job = new SetJob(this)
  readonly #options: VirstorSetOptions
  #device: VirstorDevice | undefined
  /** Something else has the name of the device: it is offered when that goes. */
  #hasClash = false
  /** While an operator starts it with force. */
  #mayLoseMap = false
  #unsubscribe = (): void => {}
  #trim: Job | undefined
  /** Why the device is not offered. */
  problem: string | undefined

  constructor(uuid: string, topology: Topology, options: VirstorSetOptions) {
    const { witness } = options
    super(uuid, topology, { className: 'virstor', codec: VIRSTOR_CODEC, witness })
    this.#options = options
  }

  /** What runs; undefined: it is not offered, see {@link problem}. */
  get device(): VirstorDevice | undefined {
    return this.#device
  }

  /** Has it a device by its configuration? One that was destroyed has labels until they are cleared. */
  get hasDevice(): boolean {
    return this.assembled && this.model.components.length > 0
  }

  get providers(): readonly Provider[] {
    return this.#device ? [this.#device.provider] : []
  }

  get contents(): string {
    return `thin device ${this.model.name}`
  }

  driveOf({ driveUuid }: ComponentRecord): SetDrive {
    return defined(this.drives.get(driveUuid), `drive ${driveUuid} of the model`)
  }

  /** What a copy of the map is written through. */
  carrier(copy: CopyRecord, model = this.model): DiskCarrier {
    const component = defined(
      model.components.find(({ id }) => id === copy.component),
      `component ${copy.component} of a copy of the map`,
    )
    return new DiskCarrier(model, copy, component, this.driveOf(component))
  }

  /** Is one of the copies of the map here? */
  get #hasMap(): boolean {
    return this.model.copies.some((copy) => this.carrier(copy).isPresent)
  }

  /** Why the device cannot be served; undefined: it can. */
  get #lack(): PlexusError | undefined {
    const { model } = this
    if (!this.#hasMap) return mapAwayError(model)
    if (model.onMissing === 'chunks') return undefined
    const away = model.components.find((one) => !isUp(model, one) || !this.driveOf(one).present)
    return away && componentAwayError(model, this.driveOf(away).record.name)
  }

  // What the configuration means.

  withoutDrives(model: VirstorModel, uuids: Iterable<string>): VirstorModel {
    return drivesDown(model, new Set(uuids))
  }

  withDrives(model: VirstorModel, devices: ReadonlyMap<string, string>): VirstorModel {
    return drivesUp(model, devices)
  }

  /** Nothing could fill an older copy of a component: it stays out. */
  withMember(model: VirstorModel, uuid: string, device: string, isOlder: boolean): VirstorModel {
    return isOlder ? model : drivesUp(model, new Map([[uuid, device]]))
  }

  consequences(before: VirstorModel, after: VirstorModel): VirstorModel {
    return withGrownDrives(before, after)
  }

  /**
   * A copy of the map that is away while the device runs misses the next commit of it: it counts no more, unless none is
   * here. At a start the map is read first (map/map-load.ts).
   */
  amend(_before: VirstorModel, after: VirstorModel): VirstorModel {
    return this.#device ? withoutCopiesAway(after) : after
  }

  async prepare(): Promise<void> {}

  /** What was acknowledged before a crash may be in a cache that was lost, or that no flush reaches. */
  atStart(
    chosen: VirstorModel,
    served: VirstorModel,
    lossy: ReadonlyMap<string, PlexusError>,
  ): VirstorModel {
    const away = chosen.drives.find(({ uuid, state }) => {
      return state === 'up' && !this.drives.get(uuid)?.present
    })
    const [error = away && missingError(away.name)] = lossy.values()
    if (error) this.#options.owed.set(this.uuid, error)
    return served
  }

  /** Throws `gone` where the device is not served; `op` is the verb. */
  served(op: string): VirstorDevice {
    if (this.#device) return this.#device
    const { name } = this.model
    const message = `${name} is not served: ${this.problem ?? 'its drives are being looked at'}`
    throw new PlexusError('gone', { op, subject: name, message })
  }

  /** An operator goes on without the newest part of the journal of the map: the next flush says that writes may be lost. */
  oweMap(): void {
    const message = 'the newest part of the journal of its map could not be read on any disk'
    const error = new PlexusError('io', { op: 'load', subject: this.model.name, message })
    this.#options.owed.set(this.uuid, error)
  }

  /** Why the next flush of the device fails; asked once. */
  takeOwed(): PlexusError | undefined {
    const owed = this.#options.owed.get(this.uuid)
    this.#options.owed.delete(this.uuid)
    return owed
  }

  started(): void {
    this.startJobs()
  }

  async beforeOlder(): Promise<void> {}

  async beforeReturn(): Promise<void> {
    await this.#device?.committer.pass()
  }

  // What runs.

  protected opened(): void {
    this.#unsubscribe = this.topology.onProvider(({ name }, event) => {
      const isOver = this.#hasClash && event === 'gone' && name === this.model.name
      if (isOver) this.soon('a start under a name that is free now', () => this.restart())
    })
  }

  protected closed(): void {
    this.#unsubscribe()
    this.#device?.io.stop()
    void this.#device?.committer.stop()
    void this.#device?.store.end()
    this.#forgetDevice()
  }

  #forgetDevice(): void {
    const owes = this.#device?.committer.owes
    if (owes) this.#options.owed.set(this.uuid, owes)
    this.#device = undefined
  }

  committed(model: VirstorModel): void {
    this.#device?.follow(model)
    this.mapCopies.committed()
  }

  /** A drive has gone. Without the map nothing can be kept: it is read again when it is back. */
  refresh(): void {
    this.#device?.lose()
    if (!this.#device || !this.#lack) return
    this.soon('the end of a device that lacks a drive', () => this.#endLacking())
  }

  /** Ends the device if it cannot be served still. */
  async #endLacking(): Promise<void> {
    const lack = this.#lack
    if (!this.#device || !lack) return
    this.#tellNotServed(lack)
    await this.#endDevice()
  }

  async reshape(): Promise<void> {
    const { model } = this
    this.mapCopies.reshaped()
    if (model.components.length === 0) return this.#endDevice()
    await this.#endLacking()
    await this.#device?.giveUp(model)
    if (this.#device) this.#device.reshape(model)
    else await this.#openDevice(model)
    void this.mapCopies.make()
  }

  async #openDevice(model: VirstorModel): Promise<void> {
    try {
      const lack = this.#lack
      if (lack) throw lack
      this.#hasClash = this.topology.providers.has(model.name)
      if (this.#hasClash) throw clashError(model)
      if (isLentElsewhere(this.topology, model.name, model.uuid)) throw nameLentError(model)
      this.#device = await VirstorDevice.open(this, model, this.#mayLoseMap)
      this.problem = undefined
      await this.#device.giveUp(model)
    } catch (error) {
      this.#tellNotServed(operatingError(error))
    }
  }

  #tellNotServed({ message }: PlexusError): void {
    if (this.problem === message) return
    this.problem = message
    const { name } = this.model
    const text = `${name} is not served: ${message}`
    this.topology.events.emit('critical', 'volume-not-served', name, text)
  }

  /** Tries once more to offer the device; `mayLose`: MapStore.load. Inside a topology change. */
  async restart(mayLose = false): Promise<void> {
    this.#mayLoseMap = mayLose
    try {
      await this.reshape()
    } finally {
      this.#mayLoseMap = false
    }
    this.startJobs()
    await this.topology.tastePending()
  }

  async #endDevice(): Promise<void> {
    await this.end('orphan')
    await this.#device?.stop()
    this.#forgetDevice()
  }

  /** The configuration does without a copy that could not be written. */
  async loseCopy(id: number, error: PlexusError): Promise<void> {
    // A device that has ended may still hear from its disks.
    if (!this.assembled) throw error
    this.log.error({ err: error, component: id }, 'a copy of the map is given up')
    await this.commit((model) => {
      const copies = model.copies.filter(({ component }) => component !== id)
      return copies.length === 0 ? model : { ...model, copies }
    })
    void this.mapCopies.make()
  }

  /** A component has failed a flush: out of service, durably. */
  async loseComponent(id: number, error: PlexusError): Promise<void> {
    if (!this.assembled) throw error
    const component = this.model.components.find((one) => one.id === id)
    if (component) await loseDevice(this, this.driveOf(component), error)
  }

  /** All chunks have left the components that are leaving: they go, durably; then their labels, in the background. */
  async dropLeaving(): Promise<void> {
    const { components, drives } = this.model
    const uuids = components.filter(({ leaving }) => leaving).map(({ driveUuid }) => driveUuid)
    await this.commit(withoutLeaving)
    this.soon('the end of a removal', async () => {
      await this.reshape()
      for (const record of drives.filter(({ uuid }) => uuids.includes(uuid))) {
        await this.#release(record)
      }
      await this.topology.tastePending()
    })
  }

  async #release(record: DriveRecord): Promise<void> {
    const { name } = this.model
    const isHere = this.drives.get(record.uuid)?.present ?? false
    const failure = await this.unlabel(record).catch(operatingError)
    const label =
      isHere && !failure
        ? 'its label is cleared'
        : `its label may still be there: plexus device clear-label ${record.device}`
    const text = `component ${record.name} has left ${name}; ${label}`
    this.topology.events.emit('info', 'component-removed', name, text)
  }

  get jobIds(): readonly string[] {
    return this.job.id === undefined ? [] : [this.job.id]
  }

  async endJobs(next: VirstorModel): Promise<void> {
    await this.job.endBefore(next)
    if (next.components.length === 0) await this.#trim?.park()
  }

  startJobs(): void {
    this.job.start()
  }

  /** {@link refresh} has seen to it. */
  loseCache(): void {}

  checkResize(): void {}

  start(request: Bio, provider: Provider): void {
    if (this.#device) this.#device.io.start(request)
    else queueMicrotask(() => request.complete(provider.error ?? mapAwayError(this.model)))
  }

  async extentAt(offset: number, length: number): Promise<Extent> {
    return this.#device?.extentAt(offset, length) ?? { allocated: true, length }
  }

  get provisioning(): Provisioning | undefined {
    return this.#device?.provisioning
  }

  failed(): void {
    this.#options.onFailed(this)
  }

  /** The job of `virstor trim`; undefined: none is at work. */
  get trim(): Job | undefined {
    return this.#trim
  }

  /** Throws as {@link trimPlan} and the job manager do. */
  startTrim(): Job {
    const job = this.topology.jobs.start(trimPlan(this))
    this.#trim = job
    void job.ended.then(() => {
      this.#trim = undefined
    })
    return job
  }

  protected async end(how: 'stop' | 'orphan'): Promise<void> {
    // Before the device pauses: its reads would wait for ever.
    await this.#trim?.park()
    if (this.job.report) await this.job.park()
    if (how === 'stop') {
      await this.#device?.stop()
      return
    }
    const message = `${this.name} is stopped; it is back when its drives are`
    const reason =
      this.failure ?? new PlexusError('gone', { op: 'use', subject: this.name, message })
    for (const provider of this.providers) await this.topology.orphan(provider, reason)
    this.#device?.io.stop()
  }
}

function nameLentError({ name }: VirstorModel): PlexusError {
  const message =
    `LUNs of this name have led to something else, which is not here. Connect that; or, if it is not to come back: plexus ` +
    `vinum forget ${name}, and start plexusd again`
  return new PlexusError('exists', { op: 'use', subject: name, message })
}

function missingError(name: string): PlexusError {
  const message = `drive ${name} is missing, with what was in its cache`
  return new PlexusError('gone', { op: 'flush', subject: name, message })
}

function componentAwayError({ name: device }: VirstorModel, name: string): PlexusError {
  const message = `component ${name} is missing, and the device is not to be used without it; connect it, or: plexus virstor set ${device} --on-missing=chunks`
  return new PlexusError('gone', { op: 'use', subject: device, message })
}

function clashError({ name }: VirstorModel): PlexusError {
  const message = `something else is named ${name}; this is served when it goes, or is renamed`
  return new PlexusError('exists', { op: 'create', subject: name, message })
}

function mapAwayError({ name, copies, components, drives }: VirstorModel): PlexusError {
  const names = copies.flatMap(({ component }) => {
    const on = components.find(({ id }) => id === component)
    return drives.find(({ uuid }) => uuid === on?.driveUuid)?.name ?? []
  })
  const message = `its map is on ${names.join(' and ')}, which ${names.length === 1 ? 'is' : 'are'} missing; connect one of them`
  return new PlexusError('gone', { op: 'use', subject: name, message })
}
