/**
 * One native set of drives as a geom: it gathers labelled devices, assembles when a majority of the voters is
 * there (anchor/anchor-quorum.ts), serves the volumes, and keeps the configuration true: whatever changes a
 * state is durable before a write that depends on it is acknowledged. docs/vinum.md, 3 and 9.
 *
 *   gathering   devices come (join); nothing is served
 *   assembled   store = the configuration and its commits, objects = what runs; drives come and go
 *   failed      fewer than half of the voters could be written: everything is orphaned, the devices are tasted
 *               again, and the set is where it was before it was assembled
 *
 * Made by vinum-class.ts. The host of its subdisks, plexes and volumes (runtime.ts).
 */
import { assert, defined } from '../../../base/assert.ts'
import { PlexusError } from '../../../base/errors.ts'
import { SET_RETRY_MS } from '../../../base/limits.ts'
import type { Anchor } from '../../anchor/anchor-layout.ts'
import type { Base } from '../../anchor/anchor-quorum.ts'
import type { Bio } from '../../geom/bio.ts'
import type { Consumer } from '../../geom/consumer.ts'
import type { Provider } from '../../geom/provider.ts'
import type { Topology } from '../../geom/topology.ts'
import type { Geom } from '../../geom/types.ts'
import { type Change, ConfigStore } from '../../metadata/config-store.ts'
import { Copies } from '../../metadata/copies.ts'
import { type Member, SetDrive } from '../../metadata/set-drive.ts'
import { SetWitness, type WitnessStore } from '../../metadata/witness.ts'
import type { PlannedSet } from '../../verbs/carry-out.ts'
import type { NewDrive } from '../../verbs/plan.ts'
import { VINUM_CODEC } from '../model/codec.ts'
import { demoteSubdisks, keepOldPlaces, loseDrives } from '../model/membership.ts'
import {
  byUuid,
  type DriveRecord,
  emptyModel,
  type VinumModel,
  type VolumeRecord,
} from '../model/model.ts'
import { setName } from '../naming.ts'
import type { Lost } from '../raid5/lost.ts'
import type { Plex, Subdisk, VinumHost } from '../runtime.ts'
import { loseDevice, openMember, returnMember, tellFailed, witherError } from './arrivals.ts'
import { tryAssemble } from './assembling.ts'
import { Demotions } from './demotions.ts'
import { SetHost } from './host.ts'
import { LostRanges } from './lost-ranges.ts'
import { SetObjects } from './objects.ts'
import { sizeChanged } from './sizes.ts'
import type { RunningVolume } from './volume.ts'

export interface SetOptions {
  readonly onFailed: (set: VinumSet) => void
  /** The name under which a volume is offered: its own, or SET/NAME where that is somebody else's. */
  readonly nameFor: (set: VinumSet, volume: VolumeRecord) => string
  /** The least region of intent maps, bytes (intent/intent-bits.ts); undefined: the usual one. */
  readonly intentRegionBytes: number | undefined
  /** undefined: sets have no witness. */
  readonly witness: WitnessStore | undefined
  /** Flushes that volumes of sets that have failed owe (VolumeIo.owed), by UUID: paid when they are assembled again. */
  readonly owed: Map<string, PlexusError>
}

export class VinumSet extends SetHost implements Geom, VinumHost, PlannedSet<VinumModel> {
  readonly codec = VINUM_CODEC
  readonly uuid: string
  readonly options: SetOptions
  /** Devices with a label of this set, by drive UUID: all of them until it is assembled, then the former ones. */
  readonly members = new Map<string, Member<VinumModel>>()
  /** The vote of the machine; undefined: sets have none. */
  readonly witness: SetWitness<VinumModel> | undefined
  #store: ConfigStore<VinumModel> | undefined
  #objects: SetObjects | undefined
  readonly #demotions: Demotions
  readonly lost: LostRanges
  /** Devices that carry the label of one drive together. */
  readonly copies = new Copies(this)
  /** Why nothing can be committed any more. */
  #failure: PlexusError | undefined
  #openedMs = 0
  /** How many drives have come back since it was assembled. */
  arrivals = 0
  /** Why it waits, as it was told last: told once. */
  told: string | undefined

  constructor(uuid: string, topology: Topology, options: SetOptions) {
    super(topology, uuid.slice(0, 8))
    this.uuid = uuid
    this.options = options
    this.#demotions = new Demotions(this)
    this.lost = new LostRanges(this)
    this.witness = options.witness && new SetWitness(this, options.witness)
  }

  get name(): string {
    return setName(this.uuid)
  }

  get providers(): readonly Provider[] {
    return this.#objects?.providers ?? []
  }

  get consumers(): readonly Consumer[] {
    return [
      ...[...this.drives.values()].flatMap(({ consumer }) => consumer ?? []),
      ...[...this.members.values()].map(({ consumer }) => consumer),
      ...this.copies.consumers,
    ]
  }

  get assembled(): boolean {
    return this.#store !== undefined
  }

  /** Generations up to this one are never used: a drive has it, of a commit that failed. */
  skipTo(generation: number): void {
    this.#store?.skipTo(generation)
  }

  /** The newest durable configuration. Only of an assembled set. */
  get model(): VinumModel {
    return defined(this.#store, 'the configuration of an assembled set').model
  }

  /** What runs. Only of an assembled set. */
  get objects(): SetObjects {
    return defined(this.#objects, 'the objects of an assembled set')
  }

  volumeOf(uuid: string | undefined): RunningVolume | undefined {
    return this.#objects?.volumes.get(uuid ?? '')
  }

  /** As the configuration will be when what memory knows already is durable. */
  get present(): VinumModel {
    return this.withLosses(demoteSubdisks(this.model, this.#demotions.pending))
  }

  // Devices that come and go: inside a topology change.

  /** A device with a label of this set. True when the set holds it from now on. */
  async join(provider: Provider, anchor: Anchor): Promise<boolean> {
    const member = await openMember(this, provider, anchor)
    if (!member) return false
    await this.witness?.read()
    if (this.#store) await returnMember(this, member)
    else {
      this.members.set(member.uuid, member)
      await tryAssemble(this)
    }
    return true
  }

  /** From now on it commits; nothing runs yet. Its first commit is built on `base`. */
  open(model: VinumModel, base: Base, nextGeneration: number): void {
    const { witness } = this
    this.#store = new ConfigStore({
      name: this.name,
      codec: this.codec,
      model,
      base,
      nextGeneration,
      voter: (uuid) => {
        if (uuid === witness?.id) return witness.failure ? undefined : witness
        const drive = this.drives.get(uuid)
        return drive?.present ? drive.label : undefined
      },
      witness: () => (witness?.failure ? undefined : witness?.id),
      loseDrives: (before, uuids) => this.lost.taken(before, loseDrives(before, uuids)),
      amend: keepOldPlaces,
      onCommit: (next, failed) => this.#committed(next, failed),
    })
    this.#objects = new SetObjects(this)
    this.#openedMs = this.clock.nowMs()
  }

  /** A new set, for the first drive that a verb labels. */
  begin(): void {
    assert(!this.#store && this.members.size === 0, 'a new set has nothing')
    const { uuid: line } = this
    const base = { line, ancestors: [], before: [], follows: undefined, relied: undefined }
    this.open(emptyModel(this.uuid), base, 1)
  }

  /** Geom: the provider below one of the drives serves no more. */
  async orphan(consumer: Consumer, reason: PlexusError): Promise<void> {
    this.spoil(consumer)
    for (const drive of this.drives.values()) {
      if (drive.consumer === consumer) await loseDevice(this, drive, reason)
    }
  }

  /** Geom: somebody writes on a former drive, which is not opened here any more: to clear its label, or to use it. */
  spoil(consumer: Consumer): void {
    if (this.#forget(consumer)) this.closeSoon(consumer)
    this.copies.leave(consumer)
  }

  /** Geom: a member that waits for others, or a former drive, may be used otherwise. */
  async release(consumer: Consumer, dryRun: boolean): Promise<boolean> {
    if (dryRun) return [...this.members.values()].some((one) => one.consumer === consumer)
    const isMember = this.#forget(consumer)
    if (isMember) await consumer.close()
    return isMember
  }

  /** True: it was that of a member, which is none any more. */
  #forget(consumer: Consumer): boolean {
    const member = [...this.members.values()].find((one) => one.consumer === consumer)
    return member !== undefined && this.members.delete(member.uuid)
  }

  /** Geom: the disk below one of the drives has grown or shrunk. */
  resized(consumer: Consumer): void {
    this.soon('a change of size', () => sizeChanged(this, consumer))
  }

  // The configuration.

  /**
   * Queues a change of the configuration; resolves to it when it is durable and known to all running objects.
   * Only states and cursors may change here: what changes the shape calls `objects.reshape` after it. `keepsRoom`: see
   * ConfigStore.
   */
  async commit(
    change: Change<VinumModel>,
    options?: { readonly keepsRoom: boolean },
  ): Promise<VinumModel> {
    if (this.#failure) throw this.#failure
    const store = defined(this.#store, 'the configuration of an assembled set')
    try {
      return await store.commit((model) => this.lost.taken(model, change(model)), options)
    } catch (error) {
      if (error instanceof PlexusError && error.op === 'commit' && error.kind === 'io') {
        this.#fail(error)
      }
      throw error
    }
  }

  /** Resolves when no commit is under way, nor the second copies of one. */
  async idle(): Promise<void> {
    await this.#store?.idle()
  }

  #committed(model: VinumModel, failed: ReadonlyMap<string, PlexusError>): void {
    for (const [uuid, error] of failed) tellFailed(this, uuid, error)
    this.refresh()
    this.lost.committed(model)
    for (const [uuid, drive] of this.drives) {
      const record = byUuid(model.drives, uuid)
      if (record) drive.record = record
      // Forgotten while it was away. One that is here is new, or its label is still to be cleared.
      else if (!drive.present) this.drives.delete(uuid)
    }
  }

  /** Gives all running objects their newest records. */
  refresh(): void {
    if (this.#store) this.#objects?.refresh(this.present)
  }

  /** Labels a new drive; it takes part from the commit of the plan that makes it. */
  async label({ record, candidate }: NewDrive): Promise<void> {
    if (this.drives.size === 0) await this.witness?.watch()
    const drive = new SetDrive(record)
    await drive.format(this, this.topology.find(candidate.name))
    this.drives.set(record.uuid, drive)
  }

  /** Takes the label off a drive that is no member any more, and lets its device go. */
  async unlabel({ uuid }: DriveRecord): Promise<void> {
    const drive = this.drives.get(uuid)
    this.drives.delete(uuid)
    await drive?.clear()
  }

  // PlannedSet.

  get jobIds(): readonly string[] {
    return this.model.jobs.map(({ id }) => id)
  }

  endJobs(next: VinumModel): Promise<void> {
    return this.objects.jobs.endBefore(next)
  }

  startJobs(): void {
    this.objects.jobs.start(this.model)
  }

  reshape(): Promise<void> {
    return this.objects.reshape()
  }

  // VinumHost.

  demote(subdisks: readonly Subdisk[], error: PlexusError): Promise<void> {
    return this.#failure ? Promise.reject(this.#failure) : this.#demotions.demote(subdisks, error)
  }

  changeLost(plex: Plex, change: (lost: Lost) => Lost): Promise<void> {
    return this.lost.change(plex, change)
  }

  isLosing(plex: Plex): boolean {
    return this.lost.isLosing(plex)
  }

  putInDoubt(plex: Plex, offset: number, length: number, why: string): Promise<void> {
    return this.lost.putInDoubt(plex, offset, length, why)
  }

  /** Runs a change of the graph when it is its turn, unless the set has ended by then. */
  soon(what: string, work: () => Promise<void>): void {
    this.topology
      .change(async () => {
        if (this.#objects && !this.#failure) await work()
      })
      .catch((error: unknown) => {
        this.log.error({ err: error }, `${what} failed`)
      })
  }

  // Geom.

  start(request: Bio, provider: Provider): void {
    this.objects.start(request, provider)
  }

  /** Too few drives can be written: what cannot be written down must not be served. */
  #fail(error: PlexusError): void {
    if (this.#failure) return
    this.#failure = error
    this.topology.events.emit(
      'critical',
      'set-failed',
      this.name,
      `${this.name} is not served any more: ${error.message}`,
    )
    for (const provider of this.providers) provider.error ??= error
    // Nobody knows what becomes of the drives' caches from here on.
    for (const [uuid, { io }] of this.#objects?.volumes ?? []) {
      io.loseCache()
      if (io.owed) this.options.owed.set(uuid, io.owed)
    }
    this.options.onFailed(this)
  }

  /** Has it been in operation for a while? One that fails at once would fail again at once. */
  get lasted(): boolean {
    return this.#store !== undefined && this.clock.nowMs() - this.#openedMs >= SET_RETRY_MS
  }

  get failure(): PlexusError | undefined {
    return this.#failure
  }

  /** For the end of the daemon: volumes at rest and clean, consumers closed. Jobs are parked already. */
  async stop(): Promise<void> {
    if (this.#objects && !this.#failure) await this.#objects.stop()
    await this.idle()
    await this.#letGo()
  }

  async #letGo(): Promise<void> {
    for (const drive of this.drives.values()) await drive.drop()?.close()
    for (const member of this.members.values()) await member.consumer.close()
    await this.copies.close()
    this.members.clear()
  }

  /** An operator wants it to rest: as {@link stop}, with its jobs at a checkpoint and its volumes gone. */
  async halt(): Promise<void> {
    await this.#orphanVolumes(witherError(this.name))
    await this.stop()
    this.#objects = undefined
    this.#store = undefined
  }

  /** Geom: orphans the volumes and lets the devices go. */
  async wither(): Promise<void> {
    await this.#orphanVolumes(this.#failure ?? witherError(this.name))
    await this.#letGo()
    this.drives.clear()
    this.#objects = undefined
    this.#store = undefined
  }

  async #orphanVolumes(reason: PlexusError): Promise<void> {
    for (const provider of this.providers) await this.topology.orphan(provider, reason)
    await this.#objects?.jobs.park()
  }
}
