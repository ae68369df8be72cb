/**
 * One native set of drives of vinum: what its configuration means (metadata/device-set.ts has how it is kept), and the
 * volumes that it serves.
 */
import { defined } from '../../../base/assert.ts'
import { type PlexusError, Refusals } from '../../../base/errors.ts'
import type { Bio } from '../../geom/bio.ts'
import type { Provider } from '../../geom/provider.ts'
import type { Topology } from '../../geom/topology.ts'
import { DeviceSet } from '../../metadata/device-set.ts'
import type { SetDrive } from '../../metadata/set-drive.ts'
import type { WitnessStore } from '../../metadata/witness.ts'
import { VINUM_CODEC } from '../model/codec.ts'
import { demoteSubdisks, keepOldPlaces, loseDrives, returnDrives } from '../model/membership.ts'
import type { VinumModel, VolumeRecord } from '../model/model.ts'
import type { Subdisk, VinumHost } from '../runtime.ts'
import { Demotions } from './demotions.ts'
import { hostOf } from './host.ts'
import { startNeededJobs } from './jobs.ts'
import { LostRanges } from './lost-ranges.ts'
import { SetObjects } from './objects.ts'
import { fillLossy, fillOutdated, markUnfilled, oldSubdisks } from './older-copies.ts'
import type { RunningVolume } from './volume.ts'

const refuse = new Refusals('resize')

export interface SetOptions {
  readonly onFailed: (set: VinumSet) => void
  /** A commit is durable, or the set has come into operation. */
  readonly onChanged: (set: VinumSet) => void
  /** The name under which a volume is offered: its own, or SET/NAME where that is somebody else's. */
  readonly nameFor: (set: VinumSet, volume: VolumeRecord) => string
  /** The least region of intent maps, bytes (intent/intent-bits.ts); undefined: the usual one. */
  readonly intentRegionBytes: number | undefined
  /** undefined: sets have no witness. */
  readonly witness: WitnessStore | undefined
  /** Flushes that volumes of sets that have failed owe (VolumeIo.owed), by UUID: paid when they are assembled again. */
  readonly owed: Map<string, PlexusError>
}

export class VinumSet extends DeviceSet<VinumModel> {
  readonly options: SetOptions
  readonly lost: LostRanges
  readonly host: VinumHost
  readonly olderText =
    'an older copy of it, which is filled as a whole from good copies; what has none is out of service'
  readonly #demotions: Demotions
  #objects: SetObjects | undefined
  /** Subdisks of an older time than the others, as the set is about to be assembled. */
  #outdated: readonly string[] = []

  constructor(uuid: string, topology: Topology, options: SetOptions) {
    super(uuid, topology, { className: 'vinum', codec: VINUM_CODEC, witness: options.witness })
    this.options = options
    this.#demotions = new Demotions(this)
    this.lost = new LostRanges(this)
    this.host = hostOf(this, {
      demote: (subdisks, error) => this.demote(subdisks, error),
      changeLost: (plex, change) => this.lost.change(plex, change),
      isLosing: (plex) => this.lost.isLosing(plex),
      putInDoubt: (plex, offset, length, why) => this.lost.putInDoubt(plex, offset, length, why),
    })
  }

  get providers(): readonly Provider[] {
    return this.#objects?.providers ?? []
  }

  /** What runs. Only of an assembled set. */
  get objects(): SetObjects {
    return defined(this.#objects, 'the objects of an assembled set')
  }

  volumeOf(uuid: string | undefined): RunningVolume | undefined {
    return this.#objects?.volumes.get(uuid ?? '')
  }

  /** The name under which a volume is offered; undefined while it is not. */
  offeredAs(volumeUuid: string): string | undefined {
    return this.volumeOf(volumeUuid)?.provider.name
  }

  /** VinumHost. */
  demote(subdisks: readonly Subdisk[], error: PlexusError): Promise<void> {
    return this.failure ? Promise.reject(this.failure) : this.#demotions.demote(subdisks, error)
  }

  /** As the configuration will be when what memory knows already is durable. */
  get present(): VinumModel {
    return this.withLosses(demoteSubdisks(this.model, this.#demotions.pending))
  }

  // What the configuration means.

  withoutDrives(model: VinumModel, uuids: Iterable<string>): VinumModel {
    return loseDrives(model, uuids)
  }

  withDrives(model: VinumModel, devices: ReadonlyMap<string, string>): VinumModel {
    return returnDrives(model, devices)
  }

  withMember(model: VinumModel, uuid: string, device: string, isOlder: boolean): VinumModel {
    const old = isOlder ? oldSubdisks(model, uuid) : []
    this.lost.distrust(old)
    const back = returnDrives(demoteSubdisks(model, old), new Map([[uuid, device]]))
    return startNeededJobs(back, this.topology.random, new Set(old))
  }

  consequences(before: VinumModel, after: VinumModel): VinumModel {
    return this.lost.taken(before, after)
  }

  amend(before: VinumModel, after: VinumModel): VinumModel {
    return keepOldPlaces(before, after)
  }

  async prepare(chosen: VinumModel): Promise<void> {
    this.#outdated = await this.objects.loadMaps(chosen)
  }

  atStart(
    chosen: VinumModel,
    served: VinumModel,
    lossy: ReadonlyMap<string, PlexusError>,
  ): VinumModel {
    const filled = fillLossy(this, fillOutdated(this, served, this.#outdated), lossy)
    // By force some have left before this commit.
    return this.lost.taken(chosen, filled)
  }

  started(): void {
    this.lost.committed(this.model)
    this.startJobs()
    this.options.onChanged(this)
  }

  async beforeReturn(): Promise<void> {}

  beforeOlder(next: VinumModel, uuid: string): Promise<void> {
    return markUnfilled(this, next, uuid)
  }

  get contents(): string {
    return `${this.model.volumes.length} volumes`
  }

  // What runs.

  protected opened(): void {
    this.#objects = new SetObjects(this)
  }

  protected closed(): void {
    this.#objects = undefined
  }

  committed(model: VinumModel): void {
    this.refresh()
    this.lost.committed(model)
    this.options.onChanged(this)
  }

  refresh(): void {
    if (this.assembled) this.#objects?.refresh(this.present)
  }

  reshape(): Promise<void> {
    return this.objects.reshape()
  }

  get jobIds(): readonly string[] {
    return this.model.jobs.map(({ id }) => id)
  }

  endJobs(next: VinumModel): Promise<void> {
    return this.objects.jobs.endBefore(next)
  }

  startJobs(): void {
    this.objects.jobs.start(this.model)
  }

  loseCache(drive: SetDrive): void {
    this.objects.loseCache(drive)
  }

  checkResize({ record, device }: SetDrive): void {
    const growing = this.model.plexes.find(({ growth }) => growth !== undefined)
    if (!growing) return
    throw refuse.inUse`drive ${record.name}: its disk has grown; that cannot be used while plex ${growing.name} grows, which keeps data in the journals of the drives. When it has ended: plexus device resize ${device}`
  }

  start(request: Bio, provider: Provider): void {
    this.objects.start(request, provider)
  }

  failed(): void {
    // Nobody knows what becomes of the drives' caches from here on.
    for (const [uuid, { io }] of this.#objects?.volumes ?? []) {
      io.loseCache()
      if (io.owed) this.options.owed.set(uuid, io.owed)
    }
    this.options.onFailed(this)
  }

  protected async end(how: 'stop' | 'orphan'): Promise<void> {
    if (how === 'stop') return this.#objects?.stop()
    const reason =
      this.failure ??
      new Refusals('use').gone`${this.name} is stopped; it is back when its drives are`
    for (const provider of this.providers) await this.topology.orphan(provider, reason)
    await this.#objects?.jobs.park()
  }
}
