/**
 * A set of drives as a geom, whatever its class: it gathers labelled devices, is assembled when a majority of the voters is
 * there (anchor/anchor-quorum.ts), and keeps its configuration true: whatever changes a state is durable before a write
 * that depends on it is acknowledged. docs/vinum.md, 3 and 9.
 *
 *   gathering   devices come (join); nothing is served
 *   assembled   the store has the configuration and its commits; drives come and go
 *   failed      fewer than half of the voters could be written: everything is orphaned, the devices are tasted
 *               again, and the set is where it was before it was assembled
 *
 * A class extends it by what its configuration means: the methods without a body.
 */
import { assert, defined } from '../../base/assert.ts'
import type { Clock } from '../../base/clock.ts'
import { operatingError, PlexusError } from '../../base/errors.ts'
import { SET_RETRY_MS } from '../../base/limits.ts'
import type { Logger } from '../../base/log.ts'
import { flush } from '../../hal/io.ts'
import type { Anchor } from '../anchor/anchor-layout.ts'
import type { Base } from '../anchor/anchor-quorum.ts'
import type { Bio } from '../geom/bio.ts'
import type { Consumer } from '../geom/consumer.ts'
import type { Provider } from '../geom/provider.ts'
import type { Topology } from '../geom/topology.ts'
import type { Geom } from '../geom/types.ts'
import { loseDevice, openMember, returnMember, tellFailed } from './arrivals.ts'
import { tryAssemble } from './assembling.ts'
import { type Change, ConfigStore } from './config-store.ts'
import { Copies } from './copies.ts'
import { byUuid } from './lists.ts'
import { type Member, SetDrive } from './set-drive.ts'
import { type Codec, type DriveRecord, type SetModel, setName } from './set-model.ts'
import { sizeChanged } from './sizes.ts'
import { SetWitness, type WitnessStore } from './witness.ts'

/** What all sets of a class have in common. */
export interface SetClass<M extends SetModel> {
  readonly className: string
  readonly codec: Codec<M>
  /** undefined: sets have no witness. */
  readonly witness: WitnessStore | undefined
}

/** Of whatever class. */
export type AnySet = DeviceSet<SetModel>

export abstract class DeviceSet<M extends SetModel> implements Geom {
  readonly uuid: string
  readonly className: string
  readonly codec: Codec<M>
  readonly topology: Topology
  readonly log: Logger
  /** Of the model, by UUID: with or without a device. */
  readonly drives = new Map<string, SetDrive>()
  /** Devices with a label of this set, by drive UUID: all of them until it is assembled, then the former ones. */
  readonly members = new Map<string, Member<M>>()
  /** The vote of the machine; undefined: sets have none. */
  readonly witness: SetWitness<M> | undefined
  /** Devices that carry the label of one drive together. */
  readonly copies = new Copies(this)
  /** How many drives have come back since it was assembled. */
  arrivals = 0
  /** Why it waits, as it was told last: told once. */
  told: string | undefined
  #store: ConfigStore<M> | undefined
  /** Why nothing can be committed any more. */
  #failure: PlexusError | undefined
  #openedMs = 0

  constructor(uuid: string, topology: Topology, { className, codec, witness }: SetClass<M>) {
    this.uuid = uuid
    this.topology = topology
    this.className = className
    this.codec = codec
    this.log = topology.log.child({ part: className, set: uuid.slice(0, 8) })
    this.witness = witness && new SetWitness(this, witness)
  }

  // What a class does with its configuration and what runs by it.

  /** The drives are down, and what else is by that. */
  abstract withoutDrives(model: M, uuids: Iterable<string>): M
  /** Drives are back with their old content, on the devices that `devices` names by UUID. */
  abstract withDrives(model: M, devices: ReadonlyMap<string, string>): M
  /** One that comes back to a set in operation; `older`: nobody knows what it missed. */
  abstract withMember(model: M, uuid: string, device: string, isOlder: boolean): M
  /** What else `after` says, because of what it takes out of `before`. */
  abstract consequences(before: M, after: M): M
  /** What `after` has to say otherwise, as it is committed on `before` and drives may have been lost meanwhile. */
  abstract amend(before: M, after: M): M
  /** The first commit is about to be made on `chosen`. Reads what drives remember beside it. */
  abstract prepare(chosen: M): Promise<void>
  /**
   * The first commit: `served` is `chosen` with the drives that are here. `lossy`: those whose caches may have lost writes
   * that were acknowledged before, by UUID.
   */
  abstract atStart(chosen: M, served: M, lossy: ReadonlyMap<string, PlexusError>): M
  /** The first commit is durable, and what runs has been made. */
  abstract started(): void
  /** A drive is about to be used again: what it may have lost while it was away must be decided by then. */
  abstract beforeReturn(): Promise<void>
  /** An older copy comes back; `next`: the configuration to be. What must be durable before it. */
  abstract beforeOlder(next: M, uuid: string): Promise<void>
  /** For people: what becomes of an older copy of a drive. */
  abstract readonly olderText: string
  /** For people: what it serves. */
  abstract readonly contents: string
  /** A commit is durable; gives all that runs the newest records. */
  abstract committed(model: M): void
  /** Gives all that runs the newest records, with what memory knows already. */
  abstract refresh(): void
  /** Makes what runs that of the configuration. */
  abstract reshape(): Promise<void>
  abstract endJobs(next: M): Promise<void>
  abstract startJobs(): void
  abstract readonly jobIds: readonly string[]
  /** A drive is gone, with its cache. */
  abstract loseCache(drive: SetDrive): void
  /** Throws `in-use` where the areas of a drive must not move now. */
  abstract checkResize(drive: SetDrive): void
  /** It can commit no more. */
  abstract failed(error: PlexusError): void
  abstract start(request: Bio, provider: Provider): void
  abstract readonly providers: readonly Provider[]
  /** From now on it has a configuration; and from now on it has none, and nothing runs. */
  protected abstract opened(): void
  protected abstract closed(): void
  /** Ends what runs, before the devices are let go: in peace, or with all that was orphaned. */
  protected abstract end(how: 'stop' | 'orphan'): Promise<void>

  get name(): string {
    return setName(this.className, this.uuid)
  }

  get clock(): Clock {
    return this.topology.clock
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

  get failure(): PlexusError | undefined {
    return this.#failure
  }

  /** Has it been in operation for a while? One that fails at once would fail again at once. */
  get lasted(): boolean {
    return this.#store !== undefined && this.clock.nowMs() - this.#openedMs >= SET_RETRY_MS
  }

  /** Generations up to this one are never used: a drive has it, of a commit that failed. */
  skipTo(generation: number): void {
    this.#store?.skipTo(generation)
  }

  /** The newest durable configuration. Only of an assembled set. */
  get model(): M {
    return defined(this.#store, 'the configuration of an assembled set').model
  }

  /** With every drive down that is not there. */
  withLosses(model: M): M {
    const lost = [...this.drives].filter(([, { present }]) => !present)
    return this.withoutDrives(model, new Map(lost).keys())
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
  open(model: M, base: Base, nextGeneration: number): void {
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
      loseDrives: (before, uuids) => this.consequences(before, this.withoutDrives(before, uuids)),
      amend: (before, after) => this.amend(before, after),
      onCommit: (next, failed) => this.#committed(next, failed),
    })
    this.#openedMs = this.clock.nowMs()
    this.opened()
  }

  /** A new set, for the first drive that a verb labels. */
  begin(empty: M): void {
    assert(!this.#store && this.members.size === 0, 'a new set has nothing')
    const { uuid: line } = this
    const base = { line, ancestors: [], before: [], follows: undefined, relied: undefined }
    this.open(empty, base, 1)
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

  /** Waits for what is in flight on a device that is gone; nobody else has to. */
  closeSoon(consumer: Consumer): void {
    consumer.close().catch((error: unknown) => {
      this.log.error({ err: error }, 'a consumer failed to close')
    })
  }

  // The configuration.

  /**
   * Queues a change of the configuration; resolves to it when it is durable and known to all that runs.
   * Only states and cursors may change here: what changes the shape calls {@link reshape} after it. `keepsRoom`: see
   * ConfigStore.
   */
  async commit(change: Change<M>, options?: { readonly keepsRoom: boolean }): Promise<M> {
    if (this.#failure) throw this.#failure
    const store = defined(this.#store, 'the configuration of an assembled set')
    try {
      return await store.commit((model) => this.consequences(model, change(model)), options)
    } catch (error) {
      if (error instanceof PlexusError && error.op === 'commit' && error.kind === 'io') {
        this.fail(error)
      }
      throw error
    }
  }

  /** Resolves when no commit is under way, nor the second copies of one. */
  async idle(): Promise<void> {
    await this.#store?.idle()
  }

  /**
   * Resolves when it is known for certain, whatever is cut off from now on, that the newest commit counts: its second
   * copies are durable on all drives that can be flushed. Before voters that it does without lose what they have of it.
   */
  async certain(): Promise<void> {
    await this.idle()
    const present = [...this.drives.values()].flatMap((drive) =>
      drive.present ? (drive.consumer ?? []) : [],
    )
    // One that fails now fails the next commit, too.
    await Promise.all(present.map((consumer) => flush(consumer).catch(operatingError)))
  }

  #committed(model: M, failed: ReadonlyMap<string, PlexusError>): void {
    for (const [uuid, error] of failed) tellFailed(this, uuid, error)
    this.committed(model)
    for (const [uuid, drive] of this.drives) {
      const record = byUuid(model.drives, uuid)
      if (record) drive.record = record
      // Forgotten while it was away. One that is here is new, or its label is still to be cleared.
      else if (!drive.present) this.drives.delete(uuid)
    }
  }

  /** Labels a new drive on the provider `device`; it takes part from the commit of the plan that makes it. */
  async label(record: DriveRecord, device: string): Promise<void> {
    if (this.drives.size === 0) await this.witness?.watch()
    const drive = new SetDrive(record)
    await drive.format(this, this.topology.find(device))
    this.drives.set(record.uuid, drive)
  }

  /** Takes the label off a drive that is no member any more, and lets its device go. */
  async unlabel({ uuid }: DriveRecord): Promise<void> {
    await this.certain()
    const drive = this.drives.get(uuid)
    this.drives.delete(uuid)
    await drive?.clear()
  }

  /** Runs a change of the graph when it is its turn, unless the set has ended by then. */
  soon(what: string, work: () => Promise<void>): void {
    this.topology
      .change(async () => {
        if (this.#store && !this.#failure) await work()
      })
      .catch((error: unknown) => {
        this.log.error({ err: error }, `${what} failed`)
      })
  }

  /** Too few drives can be written: what cannot be written down must not be served. It is assembled again by that. */
  fail(error: PlexusError): void {
    if (this.#failure) return
    this.#failure = error
    const text = `${this.name} is not served any more: ${error.message}`
    this.topology.events.emit('critical', 'set-failed', this.name, text)
    for (const provider of this.providers) provider.error ??= error
    this.failed(error)
  }

  /** For the end of the daemon: all at rest and clean, consumers closed. Jobs are parked already. */
  async stop(): Promise<void> {
    if (this.#store && !this.#failure) await this.end('stop')
    await this.idle()
    await this.#letGo()
  }

  /** An operator wants it to rest: as {@link stop}, with its jobs at a checkpoint and its providers gone. */
  async halt(): Promise<void> {
    await this.end('orphan')
    await this.stop()
    this.#close()
  }

  /** Geom: orphans the providers and lets the devices go. */
  async wither(): Promise<void> {
    await this.end('orphan')
    await this.#letGo()
    this.drives.clear()
    this.#close()
  }

  #close(): void {
    this.#store = undefined
    this.closed()
  }

  async #letGo(): Promise<void> {
    for (const drive of this.drives.values()) await drive.drop()?.close()
    for (const member of this.members.values()) await member.consumer.close()
    await this.copies.close()
    this.members.clear()
  }
}
