/** The sets of one class by their UUID: how devices get into them, and what becomes of those that fail. */
import { operatingError } from '../../base/errors.ts'
import { SET_RETRY_MS } from '../../base/limits.ts'
import type { Anchor } from '../anchor/anchor-layout.ts'
import type { Provider } from '../geom/provider.ts'
import type { Topology } from '../geom/topology.ts'
import { tryAssemble } from './assembling.ts'
import type { DeviceSet } from './device-set.ts'
import type { SetModel } from './set-model.ts'

export class SetTable<M extends SetModel, S extends DeviceSet<M>> {
  readonly #make: (uuid: string, topology: Topology) => S
  readonly #sets = new Map<string, S>()
  /** By set: devices of one that has failed, until it is tried again. */
  readonly #letGo = new Map<string, readonly Provider[]>()

  constructor(make: (uuid: string, topology: Topology) => S) {
    this.#make = make
  }

  get all(): readonly S[] {
    return [...this.#sets.values()]
  }

  /** The set with this UUID; a new one that gathers where it is not known. */
  of(uuid: string, topology: Topology): S {
    const known = this.#sets.get(uuid)
    if (known) return known
    const set = this.#make(uuid, topology)
    this.#sets.set(uuid, set)
    topology.addGeom(set)
    return set
  }

  /** A device with a label. Resolves to whether its set holds it. */
  async join(provider: Provider, anchor: Anchor, topology: Topology): Promise<boolean> {
    const isTaken = await this.of(anchor.setUuid, topology).join(provider, anchor)
    this.#takeUp(anchor.setUuid, topology)
    return isTaken
  }

  /** For a set whose devices have been let go. */
  forget(set: S): void {
    set.topology.removeGeom(set)
    this.#sets.delete(set.uuid)
  }

  /**
   * A set that can commit no more goes back to where it was before it was assembled; one that did not last would
   * fail again at once, so it waits for a while, for a drive that comes, or for an operator.
   */
  failed(set: S): void {
    const { topology } = set
    const { lasted } = set
    const change = (work: () => Promise<void>): void => {
      topology.change(work).catch((error: unknown) => {
        set.log.error({ err: error }, 'a failed set could not be stopped')
      })
    }
    change(async () => {
      if (this.#sets.get(set.uuid) !== set) return
      const providers = set.consumers.map(({ provider }) => provider)
      await set.wither()
      this.forget(set)
      this.#letGo.set(set.uuid, providers)
      const again = async (): Promise<void> => {
        this.#takeUp(set.uuid, topology)
        await topology.tastePending()
      }
      if (lasted) await again()
      else {
        topology.clock.after(SET_RETRY_MS, () => {
          // Else a drive that came was the occasion, and what failed then has a timer of its own.
          if (this.#letGo.get(set.uuid) === providers) change(again)
        })
      }
    })
  }

  /** With the next tastePending: what a failed set has let go, all of it at once. Those that have the newest may be there. */
  #takeUp(uuid: string, topology: Topology): void {
    for (const provider of this.#letGo.get(uuid) ?? []) {
      if (provider.consumers.size === 0) topology.tasteAgain(provider)
    }
    this.#letGo.delete(uuid)
  }

  /** Everything that is there has been tasted. */
  async settled(topology: Topology): Promise<void> {
    for (const set of this.all) await tolerate(topology, () => tryAssemble(set))
  }
}

/** One set, or one drive, that cannot be used is no reason not to serve the others. It has said so itself. */
export async function tolerate(topology: Topology, work: () => Promise<unknown>): Promise<void> {
  try {
    await work()
  } catch (error) {
    const err = operatingError(error)
    topology.log.error({ err, event: 'assembly-failed' }, err.message)
  }
}
