/**
 * One native set of drives as a geom: it gathers labelled devices, assembles when a majority of the voters is
 * there (geom/anchor-quorum.ts), serves the volumes, and keeps the configuration true: whatever changes a
 * state is durable before a write that depends on it is acknowledged. spec/vinum.md, 3 and 9.
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
import { SET_RETRY_MS, WITNESS_PROBE_MS } from '../../../base/limits.ts'
import type { Logger } from '../../../base/log.ts'
import { newUuid } from '../../../base/random.ts'
import type { Anchor } from '../../geom/anchor.ts'
import { type Base, baseOf, type Choice, type Chosen, choose } from '../../geom/anchor-quorum.ts'
import type { Bio } from '../../geom/bio.ts'
import type { Consumer } from '../../geom/consumer.ts'
import type { Provider } from '../../geom/provider.ts'
import type { Topology } from '../../geom/topology.ts'
import type { Geom } from '../../geom/types.ts'
import { demoteSubdisks, loseDrives, returnDrives } from '../model/membership.ts'
import {
  byUuid,
  type DriveRecord,
  emptyModel,
  type VinumModel,
  type VolumeRecord,
} from '../model/model.ts'
import { setName } from '../naming.ts'
import type { NewDrive } from '../plan.ts'
import type { Lost } from '../raid5/lost.ts'
import type { Plex, Subdisk, TroubleCounts, VinumHost } from '../runtime.ts'
import {
  fillOutdated,
  loseDevice,
  openMember,
  returnMember,
  tellAssembled,
  tellFailed,
  tellIncomplete,
  tellWitnessLost,
  witherError,
} from './arrivals.ts'
import { type Change, ConfigStore, type Voter } from './config-store.ts'
import { Copies } from './copies.ts'
import { Demotions } from './demotions.ts'
import { type Member, reacquireAccess, SetDrive, settleLabel } from './drive.ts'
import { LostRanges } from './lost-ranges.ts'
import { copyOf, describeChoice, hopeless, modelOf } from './members.ts'
import { SetObjects } from './objects.ts'
import { fitDrives, sizeChanged } from './sizes.ts'
import { noteError, noteRepair } from './trouble.ts'
import { SetWitness, type WitnessStore } from './witness.ts'

export interface SetOptions {
  readonly onFailed: (set: VinumSet) => void
  /** The name under which a volume is offered: its own, or SET/NAME where that is somebody else's. */
  readonly nameFor: (set: VinumSet, volume: VolumeRecord) => string
  /** The least region of intent maps, bytes (io/intent-bits.ts); undefined: the usual one. */
  readonly intentRegionBytes: number | undefined
  /** undefined: sets have no witness. */
  readonly witness: WitnessStore | undefined
  /** Flushes that volumes of sets that have failed owe (VolumeIo.owed), by UUID: paid when they are assembled again. */
  readonly owed: Map<string, PlexusError>
}

export class VinumSet implements Geom, VinumHost {
  readonly className = 'vinum'
  readonly uuid: string
  readonly options: SetOptions
  readonly topology: Topology
  readonly log: Logger
  /** Devices with a label of this set, by drive UUID: all of them until it is assembled, then the former ones. */
  readonly members = new Map<string, Member>()
  readonly #drives = new Map<string, SetDrive>()
  #store: ConfigStore | undefined
  #objects: SetObjects | undefined
  readonly #demotions: Demotions
  #witness: SetWitness | undefined
  readonly lost: LostRanges
  /** Devices that carry the label of one drive together. */
  readonly copies = new Copies(this)
  /** Why nothing can be committed any more. */
  #failure: PlexusError | undefined
  /** Before it is assembled: never. */
  #assembledMs = Number.POSITIVE_INFINITY
  /** How many drives have come back since it was assembled. */
  arrivals = 0
  /** What was said last of an incomplete set: said once. */
  #said: string | undefined

  constructor(uuid: string, topology: Topology, options: SetOptions) {
    this.uuid = uuid
    this.options = options
    this.topology = topology
    this.log = topology.log.child({ part: 'vinum', set: uuid.slice(0, 8) })
    this.#demotions = new Demotions(this)
    this.lost = new LostRanges(this)
  }

  get name(): string {
    return setName(this.uuid)
  }

  get pool() {
    return this.topology.pool
  }

  get kernels() {
    return this.topology.kernels
  }

  get clock() {
    return this.topology.clock
  }

  get providers(): readonly Provider[] {
    return this.#objects?.providers ?? []
  }

  get consumers(): readonly Consumer[] {
    return [
      ...[...this.#drives.values()].flatMap(({ consumer }) => consumer ?? []),
      ...[...this.members.values()].map(({ consumer }) => consumer),
      ...this.copies.consumers,
    ]
  }

  get assembled(): boolean {
    return this.#store !== undefined
  }

  get drives(): ReadonlyMap<string, SetDrive> {
    return this.#drives
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

  offeredAs(volumeUuid: string): string | undefined {
    return this.#objects?.volumes.get(volumeUuid)?.provider.name
  }

  /** As the configuration will be when what memory knows already is durable. */
  get present(): VinumModel {
    return this.withLosses(demoteSubdisks(this.model, this.#demotions.pending))
  }

  /** With every drive down that is not there. */
  withLosses(model: VinumModel): VinumModel {
    const lost = [...this.#drives.values()].filter(({ present }) => !present)
    return loseDrives(
      model,
      lost.map(({ record }) => record.uuid),
    )
  }

  // Devices that come and go: inside a topology change.

  /** A device with a label of this set. True when the set holds it from now on. */
  async join(provider: Provider, anchor: Anchor): Promise<boolean> {
    const member = await openMember(this, provider, anchor)
    if (!member) return false
    await this.#openWitness()
    if (this.#store) await returnMember(this, member)
    else {
      this.members.set(member.uuid, member)
      await this.tryAssemble()
    }
    return true
  }

  /** Assembles when everything is there that will come, copies of drives too, and the quorum allows it. */
  async tryAssemble(): Promise<void> {
    if (this.#store || !this.topology.complete) return
    const choice = this.#choice
    if (choice.kind === 'serve') await this.#assemble(choice)
    else this.#said = tellIncomplete(this, choice, this.#said)
  }

  /** An operator's decision to go on with what is there. Throws `corrupt` or `invalid` when nothing can be. */
  async assembleByForce(): Promise<void> {
    assert(!this.#store, 'only a set that gathers is assembled')
    const choice = this.#choice
    if (choice.kind === 'none' || choice.kind === 'split' || choice.members.length === 0) {
      throw hopeless(choice, this.name, this.describeIncomplete())
    }
    await this.#assemble(
      choice,
      choice.kind === 'serve' ? undefined : newUuid(this.topology.random),
    )
  }

  /**
   * An operator's word that the set is right as this drive has it, whatever the others have: they are filled from it.
   * Where the set runs from that drive already, drives that were used apart from it come back that way.
   */
  async assembleFrom(uuid: string): Promise<void> {
    if (!this.#store) {
      const member = defined(this.members.get(uuid), 'the drive that the operator has named')
      const choice = choose([copyOf(member)])
      if (choice.kind === 'none' || choice.kind === 'split' || choice.members.length === 0) {
        throw hopeless({ kind: 'none' }, this.name, '')
      }
      await this.#assemble(choice, newUuid(this.topology.random))
    }
    for (const member of [...this.members.values()]) {
      if (!this.#drives.has(member.uuid) || !reacquireAccess(member)) continue
      this.members.delete(member.uuid)
      await returnMember(this, member, { isWord: true })
    }
  }

  get #choice(): Choice {
    const copies = [...this.members.values()].map(copyOf)
    return choose([...copies, ...(this.#witness?.copies ?? [])])
  }

  /** In words, why it is not assembled. */
  describeIncomplete(): string {
    return describeChoice(this.#choice, this.members)
  }

  /** `newLine`: by an operator's word. */
  async #assemble(choice: Chosen, newLine?: string): Promise<void> {
    const { current, nextGeneration } = choice
    const chosen = defined(modelOf(this.members, choice.commit), 'the model of a chosen member')
    // Somebody else may have one by now.
    const here = [...this.members.values()].filter(
      (member) => reacquireAccess(member) || this.closeSoon(member.consumer),
    )
    this.members.clear()
    for (const member of here) await settleLabel(this.log, member)
    for (const record of chosen.drives) this.#drives.set(record.uuid, new SetDrive(record))
    const late: Member[] = []
    for (const member of here) {
      const drive = this.#drives.get(member.uuid)
      if (drive && current.has(member.uuid)) drive.take(member.consumer, member.label)
      else late.push(member)
    }
    this.#openStore(chosen, baseOf(choice, newLine), nextGeneration)
    this.#objects = new SetObjects(this)
    const outdated = await this.#objects.loadMaps(chosen)
    // Who is missing is out of service durably before anything is served. There is a commit in any case, so that a copy
    // of a drive from before is older from now on (geom/anchor-quorum.ts, rule S).
    await this.commit((model) => {
      const next = { ...model }
      const present = [...this.#drives.values()].filter((drive) => drive.present)
      const devices = new Map(present.map((drive) => [drive.record.uuid, drive.device]))
      const served = fillOutdated(this, returnDrives(this.withLosses(next), devices), outdated)
      // By force some have left before this commit.
      return this.lost.taken(chosen, served)
    })
    await this.objects.reshape()
    for (const member of late) await returnMember(this, member)
    // What assembling has written may have failed on too many drives, without its having thrown.
    if (this.#failure) throw this.#failure
    this.lost.committed(this.model)
    this.objects.startJobs(this.model)
    await fitDrives(this)
    await this.probeWitness()
    this.#assembledMs = this.clock.nowMs()
    tellAssembled(this)
  }

  #openStore(model: VinumModel, base: Base, nextGeneration: number): void {
    this.#store = new ConfigStore({
      model,
      base,
      nextGeneration,
      voter: (uuid) => this.#voter(uuid),
      witness: () => (this.#witness?.failure ? undefined : this.#witness?.id),
      loseDrives: (before, uuids) => this.lost.taken(before, loseDrives(before, uuids)),
      loseWitness: (error) => tellWitnessLost(this, error),
      onCommit: (next, failed) => this.#committed(next, failed),
    })
  }

  #voter(uuid: string): Voter | undefined {
    if (uuid === this.#witness?.id) return this.#witness.failure ? undefined : this.#witness
    const drive = this.#drives.get(uuid)
    return drive?.present ? drive.label : undefined
  }

  async #openWitness(): Promise<void> {
    const { witness } = this.options
    if (witness) this.#witness ??= await SetWitness.open(witness, this.uuid, this.topology)
  }

  /**
   * Looks, now and then, whether the witness can be written, before it is needed. One that comes back votes from the next
   * commit on, which is made.
   */
  async probeWitness(): Promise<void> {
    const witness = this.#witness
    if (!witness || !this.#store || this.#failure) return
    this.clock.after(WITNESS_PROBE_MS, () => {
      this.probeWitness().catch((error: unknown) => {
        this.log.error({ err: error }, 'the witness could not be looked at')
      })
    })
    const had = witness.failure
    try {
      await witness.probe()
      if (had) await this.commit((model) => ({ ...model }))
    } catch (error) {
      if (!(error instanceof PlexusError)) throw error
      if (!had) tellWitnessLost(this, error)
      if (this.model.witness !== undefined) await this.commit((model) => ({ ...model }))
    }
  }

  /** A new set, for the first drive that a verb labels. */
  begin(): void {
    assert(!this.#store && this.members.size === 0, 'a new set has nothing')
    const { uuid: line } = this
    const base = { line, ancestors: [], before: [], follows: undefined, relied: undefined }
    this.#openStore(emptyModel(this.uuid), base, 1)
    this.#objects = new SetObjects(this)
    this.#assembledMs = this.clock.nowMs()
  }

  /** Geom: the provider below one of the drives serves no more. */
  async orphan(consumer: Consumer, reason: PlexusError): Promise<void> {
    this.spoil(consumer)
    for (const drive of this.#drives.values()) {
      if (drive.consumer === consumer) await loseDevice(this, drive, reason)
    }
  }

  /** Geom: somebody writes on a former drive, which is not opened here any more: to clear its label, or to use it. */
  spoil(consumer: Consumer): void {
    if (this.forget(consumer)) this.closeSoon(consumer)
    this.copies.leave(consumer)
  }

  /** Geom: a member that waits for others, or a former drive, may be used otherwise. */
  async release(consumer: Consumer, dryRun: boolean): Promise<boolean> {
    const isMember = this.forget(consumer, dryRun)
    if (isMember && !dryRun) await consumer.close()
    return isMember
  }

  /** True: it is that of a member, which is none any more. */
  forget(consumer: Consumer, dryRun = false): boolean {
    const member = [...this.members.values()].find((one) => one.consumer === consumer)
    if (member && !dryRun) this.members.delete(member.uuid)
    return member !== undefined
  }

  /** Geom: the disk below one of the drives has grown or shrunk. */
  resized(consumer: Consumer): void {
    this.soon('a change of size', () => sizeChanged(this, consumer))
  }

  /** Waits for what is in flight on a device that is gone; nobody else has to. */
  closeSoon(consumer: Consumer): void {
    consumer.close().catch((error: unknown) => {
      this.log.error({ err: error }, 'a consumer failed to close')
    })
  }

  // The configuration.

  /**
   * Queues a change of the configuration; resolves to it when it is durable and known to all running objects.
   * Only states and cursors may change here: what changes the shape calls `objects.reshape` after it. `keepsRoom`: see
   * ConfigStore.
   */
  async commit(change: Change, options?: { readonly keepsRoom: boolean }): Promise<VinumModel> {
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

  #committed(model: VinumModel, failed: ReadonlyMap<string, PlexusError>): void {
    for (const [uuid, error] of failed) tellFailed(this, uuid, error)
    this.refresh()
    this.lost.committed(model)
    this.#sayChanges(model)
  }

  #sayChanges(model: VinumModel): void {
    for (const record of model.drives) {
      const drive = this.#drives.get(record.uuid)
      if (drive) drive.record = record
    }
    for (const [uuid, drive] of this.#drives) {
      // Forgotten while it was away. One that is here is new, or its label is still to be cleared.
      if (!drive.present && !byUuid(model.drives, uuid)) this.#drives.delete(uuid)
    }
  }

  /** Gives all running objects their newest records. */
  refresh(): void {
    if (this.#store) this.#objects?.refresh(this.present)
  }

  /** Labels a new drive; it takes part from the commit of the plan that makes it. */
  async label({ record, candidate }: NewDrive): Promise<void> {
    if (!this.#witness) {
      await this.#openWitness()
      await this.probeWitness()
    }
    const drive = new SetDrive(record)
    await drive.format(this, this.topology.find(candidate.name))
    this.#drives.set(record.uuid, drive)
  }

  /** Takes the label off a drive that is no member any more, and lets its device go. */
  async unlabel({ uuid }: DriveRecord): Promise<void> {
    const drive = this.#drives.get(uuid)
    this.#drives.delete(uuid)
    await drive?.clear()
  }

  // VinumHost.

  demote(subdisks: readonly Subdisk[], error: PlexusError): Promise<void> {
    return this.#failure ? Promise.reject(this.#failure) : this.#demotions.demote(subdisks, error)
  }

  noteError(subdisk: Subdisk, op: keyof TroubleCounts, error: PlexusError | undefined): void {
    noteError(this.log, subdisk, op, error)
  }

  changeLost(plex: Plex, change: (lost: Lost) => Lost): Promise<void> {
    return this.lost.change(plex, change)
  }

  putInDoubt(plex: Plex, offset: number, length: number, why: string): Promise<void> {
    return this.lost.putInDoubt(plex, offset, length, why)
  }

  noteRepair(subdisk: Subdisk, offset: number, length: number): void {
    noteRepair(this.topology.events, subdisk, offset, length)
  }

  lock(plex: Plex, offset: number, length: number, mode: 'writes' | 'all'): Promise<() => void> {
    const { volumeUuid } = plex.record
    const volume = volumeUuid === undefined ? undefined : this.objects.volumes.get(volumeUuid)
    if (!volume) return Promise.resolve(() => {})
    return volume.io.lock(offset, length, mode)
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
    return this.#store !== undefined && this.clock.nowMs() - this.#assembledMs >= SET_RETRY_MS
  }

  get failure(): PlexusError | undefined {
    return this.#failure
  }

  /** For the end of the daemon: volumes at rest and clean, consumers closed. Jobs are parked already. */
  async stop(): Promise<void> {
    if (this.#objects && !this.#failure) await this.#objects.stop()
    await this.#store?.idle()
    await this.#letGo()
  }

  async #letGo(): Promise<void> {
    for (const drive of this.#drives.values()) await drive.drop()?.close()
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
    this.#drives.clear()
    this.#objects = undefined
    this.#store = undefined
  }

  async #orphanVolumes(reason: PlexusError): Promise<void> {
    for (const provider of this.providers) await this.topology.orphan(provider, reason)
    await this.#objects?.abandonJobs()
  }
}
