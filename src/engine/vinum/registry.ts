/**
 * The sets of vinum and how devices get into them: labelled drives into native sets (vinum-set.ts), drives of FreeBSD
 * into a read-only one (freebsd/set.ts). docs/vinum.md, 3. Part of vinum-class.ts; everything runs inside topology
 * changes.
 *
 * A drive with both a label and a valid header of FreeBSD's comes from a conversion that was cut off. It is FreeBSD's
 * unless another drive of its native set carries the removed header: the rule at the head of freebsd/convert.ts.
 */
import { operatingError, PlexusError, toPlexusError } from '../../base/errors.ts'
import { newUuid } from '../../base/random.ts'
import type { Anchor } from '../anchor/anchor-layout.ts'
import { EXCLUSIVE_ACCESS, READ_ACCESS } from '../geom/consumer.ts'
import type { Provider } from '../geom/provider.ts'
import type { Topology } from '../geom/topology.ts'
import { SetTable, tolerate } from '../metadata/set-table.ts'
import { type FreebsdDrive, freebsdDrive, markFreebsdRemoved } from './freebsd/format.ts'
import { FreebsdSet } from './freebsd/set.ts'
import { byUuid, emptyModel, type VinumModel, type VolumeRecord } from './model/model.ts'
import type { KeptConfiguration, SetMemory } from './set/memory.ts'
import { type SetOptions, VinumSet } from './set/vinum-set.ts'

export interface RegistryOptions
  extends Pick<SetOptions, 'intentRegionBytes' | 'witness' | 'onChanged'> {
  readonly memory: SetMemory | undefined
}

export class SetRegistry {
  readonly #sets: SetTable<VinumModel, VinumSet>
  #imported: FreebsdSet | undefined
  /** Native sets of conversions that have ended on at least one drive. */
  readonly #converted = new Set<string>()
  /** With a label and a header of FreeBSD's, until everything that is there has been tasted. */
  readonly #undecided = new Map<
    Provider,
    { readonly anchor: Anchor; readonly drive: FreebsdDrive }
  >()
  /** `vinum stop` was the last word: drives are left alone but for those of sets that were made since. */
  #resting = false
  /** Sets that verbs have made. */
  readonly #made = new Set<string>()

  readonly #memory: SetMemory | undefined

  constructor({ intentRegionBytes, memory, witness, onChanged }: RegistryOptions) {
    this.#memory = memory
    const options: SetOptions = {
      intentRegionBytes,
      witness,
      owed: new Map(),
      onChanged,
      onFailed: (failed) => this.#sets.failed(failed),
      nameFor: (set, volume) => this.#nameFor(set, volume),
    }
    this.#sets = new SetTable((uuid, topology) => new VinumSet(uuid, topology, options))
  }

  get native(): readonly VinumSet[] {
    return this.#sets.all
  }

  /** The drives of FreeBSD, if there are any. */
  get imported(): FreebsdSet | undefined {
    return this.#imported
  }

  /**
   * The sets that verbs work on, in the order in which a bare name is looked for: as this machine came to know them. The
   * first one is the default set, to which new drives go.
   */
  get assembled(): readonly VinumSet[] {
    const known = this.known.map(({ model }) => model.setUuid)
    const sets = this.native.filter((set) => set.assembled && !set.failure)
    const rank = ({ uuid }: VinumSet): number => known.indexOf(uuid) + 1 || Number.MAX_VALUE
    return sets.sort((a, b) => rank(a) - rank(b))
  }

  /** The sets that are served, in that order. */
  get served(): readonly (VinumSet | FreebsdSet)[] {
    return [...this.assembled, ...(this.#imported?.assembled ? [this.#imported] : [])]
  }

  /** Configurations that are remembered, in that order, too. */
  get known(): readonly KeptConfiguration[] {
    return this.#memory?.known ?? []
  }

  /** `vinum stop` was the last word. */
  get resting(): boolean {
    return this.#resting
  }

  /** Nothing yet of what is kept; undefined where nothing is. */
  get keeps(): readonly KeptConfiguration[] | undefined {
    return this.#memory && []
  }

  /** All that is kept of a set, the newest first; undefined where nothing is remembered. */
  async history({ uuid }: VinumSet): Promise<readonly KeptConfiguration[] | undefined> {
    return this.#memory?.history(uuid)
  }

  /** Keeps the configuration of a set beside its drives. Returns a warning where that fails: they have it. */
  async remember(set: VinumSet): Promise<readonly string[]> {
    try {
      if (set.assembled) await this.#memory?.keep(set.model, describeDrives(set))
      return []
    } catch (error) {
      const { message } = toPlexusError(error, 'keep', set.name)
      set.log.warn({ err: error }, 'a configuration could not be kept')
      return [`the configuration could not be kept in the state folder: ${message}`]
    }
  }

  /** A name belongs to the volume that LUNs have led to, else to that of the set known longest. */
  #nameFor(set: VinumSet, { uuid, name }: VolumeRecord): string {
    const volumes = this.known.flatMap(({ model }) => model.volumes)
    const known = volumes.find((one) => one.name === name)?.uuid
    const holder = set.topology.lunNames.ledTo(name) ?? known
    const isElsewhere = holder !== undefined && holder !== uuid && !this.#isServed(holder)
    return isElsewhere || set.topology.providers.has(name) ? `${set.name}/${name}` : name
  }

  #isServed(volumeUuid: string): boolean {
    return this.served.some((set) => set.offeredAs(volumeUuid) !== undefined)
  }

  /** A new set, for a verb that labels the first drives. */
  create(topology: Topology): VinumSet {
    const set = this.#sets.of(newUuid(topology.random), topology)
    set.begin(emptyModel(set.uuid))
    this.#made.add(set.uuid)
    return set
  }

  /** The set that a device, or a drive by its name, belongs to. Throws `not-found`. */
  driveNamed(name: string): { readonly set: VinumSet; readonly uuid: string } {
    for (const set of this.native) {
      for (const { uuid, consumer, model } of set.assembled ? [] : set.members.values()) {
        if (consumer.provider.name === name || byUuid(model?.drives ?? [], uuid)?.name === name) {
          return { set, uuid }
        }
      }
      for (const [uuid, drive] of set.drives) {
        if (drive.present && (drive.device === name || drive.record.name === name)) {
          return { set, uuid }
        }
      }
    }
    const message = `${name} is no drive of a set that is in operation or waits; plexus vinum ld shows the drives`
    throw new PlexusError('not-found', { op: 'assemble', subject: name, message })
  }

  // Devices.

  async taste(
    provider: Provider,
    anchor: Anchor | undefined,
    topology: Topology,
  ): Promise<boolean> {
    if (this.#resting && !(anchor && this.#made.has(anchor.setUuid))) return false
    const drive = await headerOn(provider, topology)
    if (!anchor) {
      return (
        drive !== undefined && !drive.removed && this.#import(provider, drive, undefined, topology)
      )
    }
    const { setUuid } = anchor
    if (drive?.removed) await this.#learnConverted(setUuid, topology)
    else if (drive && !this.#converted.has(setUuid)) {
      this.#undecided.set(provider, { anchor, drive })
      return true
    } else if (drive && !(await endConversion(provider, topology))) return false
    const isTaken = await this.#sets.join(provider, anchor, topology)
    await this.remember(this.#sets.of(setUuid, topology))
    return isTaken
  }

  async #import(
    provider: Provider,
    drive: FreebsdDrive,
    nativeSet: string | undefined,
    topology: Topology,
  ): Promise<boolean> {
    if (!this.#imported) {
      this.#imported = new FreebsdSet(topology)
      topology.addGeom(this.#imported)
    }
    return this.#imported.join(provider, drive, nativeSet)
  }

  /** The conversion to this set has ended: its drives that were taken for FreeBSD's are looked at again. */
  async #learnConverted(setUuid: string, topology: Topology): Promise<void> {
    this.#converted.add(setUuid)
    for (const [provider, { anchor }] of this.#undecided) {
      if (anchor.setUuid !== setUuid) continue
      this.#undecided.delete(provider)
      topology.tasteAgain(provider)
    }
    const waits = this.#imported?.known.some((one) => one.consumer && one.nativeSet === setUuid)
    if (waits) await this.dissolveImported(topology)
  }

  /** Lets the drives of FreeBSD go; whoever runs {@link Topology.tastePending} next looks at them again. */
  async dissolveImported(topology: Topology): Promise<void> {
    const set = this.#imported
    if (!set) return
    this.#imported = undefined
    const providers = set.consumers.map(({ provider }) => provider)
    await set.wither()
    topology.removeGeom(set)
    for (const provider of providers) topology.tasteAgain(provider)
  }

  /** Everything that is there has been tasted. */
  async settled(topology: Topology): Promise<void> {
    const undecided = [...this.#undecided]
    this.#undecided.clear()
    for (const [provider, { anchor, drive }] of undecided) {
      if (provider.error) continue
      await tolerate(topology, () => this.#import(provider, drive, anchor.setUuid, topology))
    }
    await this.#sets.settled(topology)
    for (const set of this.native) await this.remember(set)
    await this.#imported?.assemble()
  }

  async stop(): Promise<void> {
    this.#resting = true
    for (const set of this.native) await set.stop()
    await this.#imported?.wither()
  }

  /** All sets rest and let their devices go, until {@link retaste} or the next start. */
  async halt(topology: Topology): Promise<void> {
    this.#resting = true
    this.#made.clear()
    for (const set of this.native) {
      await set.halt()
      this.forget(set)
    }
    await this.dissolveImported(topology)
    // Nobody takes them here now, but the other classes may.
    await topology.tastePending()
  }

  /** For a set whose devices have been let go. */
  forget(set: VinumSet): void {
    this.#sets.forget(set)
  }

  /** Tastes what nobody holds once more. */
  async retaste(topology: Topology): Promise<void> {
    this.#resting = false
    for (const provider of freeProviders(topology)) topology.tasteAgain(provider)
    await topology.tastePending()
  }
}

/** What each drive is, for people: by its UUID. */
function describeDrives({ drives, topology }: VinumSet): Readonly<Record<string, string>> {
  const texts = [...drives].flatMap(([uuid, { consumer }]) => {
    if (!consumer) return []
    const { name, identity } = consumer.provider
    const { vendor, model, serial } = identity
    const make = [vendor, model].filter(Boolean).join(' ')
    const text = serial ? `${make} serial ${serial}`.trim() : (topology.device(name)?.path ?? name)
    return [[uuid, text] as const]
  })
  return Object.fromEntries(texts)
}

/** Whom nobody has attached to. */
export function freeProviders(topology: Topology): readonly Provider[] {
  return [...topology.providers.values()].filter(({ consumers }) => consumers.size === 0)
}

/** The drive of FreeBSD on a provider. Where its head cannot be read, there is none. */
async function headerOn(provider: Provider, topology: Topology): Promise<FreebsdDrive | undefined> {
  try {
    return await topology.using(provider, 'taste', READ_ACCESS, freebsdDrive)
  } catch (error) {
    const err = operatingError(error)
    topology.log.warn({ err, provider: provider.name }, 'the head of a device is unreadable')
    return undefined
  }
}

/** The last step of a conversion that was cut off: every drive of it is native from then on, by itself. */
async function endConversion(provider: Provider, topology: Topology): Promise<boolean> {
  try {
    const holder = 'the end of a conversion'
    await topology.using(provider, holder, EXCLUSIVE_ACCESS, markFreebsdRemoved)
    return true
  } catch (error) {
    const { message } = operatingError(error)
    const text = `${provider.name} is not used: its conversion could not be ended: ${message}`
    topology.events.emit('critical', 'drive-down', provider.name, text)
    return false
  }
}
