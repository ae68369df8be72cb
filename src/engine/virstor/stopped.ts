/**
 * Thin devices that `virstor stop` has taken out of service: their components are left alone until `virstor assemble`, or the
 * next start. Nothing on disk says so. Part of virstor-class.ts.
 */
import type { PlanStep, ProblemReport } from '../../control/reports.ts'
import type { Topology } from '../geom/topology.ts'
import type { VirstorSet } from './virstor-set.ts'

interface Stopped {
  /** Of the set. */
  readonly setName: string
  /** Of the device. */
  readonly name: string
}

export class StoppedSets {
  /** By the UUID of the set. */
  readonly #sets = new Map<string, Stopped>()

  /** The device of a set that is stopped; undefined: it is not. */
  nameOf(setUuid: string): string | undefined {
    return this.#sets.get(setUuid)?.name
  }

  /** A set that is about to be halted. */
  add({ uuid, name: setName, model }: VirstorSet): void {
    this.#sets.set(uuid, { setName, name: model.name })
  }

  /** Sets of this name, or with a device of this name; all where none is said. */
  matching(only: unknown): readonly string[] {
    return [...this.#sets].flatMap(([uuid, { setName, name }]) => {
      return only === undefined || only === setName || only === name ? uuid : []
    })
  }

  stepsOf(uuids: readonly string[]): readonly PlanStep[] {
    return uuids.flatMap((uuid) => {
      const name = this.nameOf(uuid)
      return name === undefined ? [] : { text: `assemble ${name}, which was stopped`, object: name }
    })
  }

  /** Has what nobody holds tasted again: the sets assemble as at a start. */
  async release(uuids: readonly string[], topology: Topology): Promise<void> {
    if (uuids.length === 0) return
    for (const uuid of uuids) this.#sets.delete(uuid)
    for (const provider of topology.providers.values()) {
      if (provider.consumers.size === 0) topology.tasteAgain(provider)
    }
    await topology.tastePending()
  }

  problems(): readonly ProblemReport[] {
    return [...this.#sets.values()].map(({ setName, name }) => ({
      object: setName,
      health: 'FAULTED',
      message: `${name} is not served: it was stopped.`,
      action: `To serve it again: plexus virstor assemble ${name}`,
      volumes: [name],
    }))
  }
}
