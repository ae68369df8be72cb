/**
 * Thin devices that `virstor stop` has taken out of service: their components are left alone until `virstor assemble`, or the
 * next start. Nothing on disk says so. Part of virstor-class.ts.
 */
import type { ObjectReport, PlanStep } from '../../control/reports.ts'
import type { Topology } from '../geom/topology.ts'
import { absentSet } from '../metadata/set-report.ts'
import type { VirstorSet } from './virstor-set.ts'

interface Stopped {
  /** Of the set. */
  readonly setName: string
  /** Of the device. */
  readonly name: string
  readonly uuid: string
  readonly sizeBytes: number
}

export class StoppedSets {
  /** By the UUID of the set. */
  readonly #sets = new Map<string, Stopped>()

  /** The device of a set that is stopped; undefined: it is not. */
  nameOf(setUuid: string): string | undefined {
    return this.#sets.get(setUuid)?.name
  }

  /** A set that is about to be halted. */
  add({ uuid: setUuid, name: setName, model }: VirstorSet): void {
    const { name, uuid, virtualBytes: sizeBytes } = model
    this.#sets.set(setUuid, { setName, name, uuid, sizeBytes })
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

  objects(): readonly ObjectReport[] {
    return [...this.#sets].flatMap(([setUuid, { setName, ...part }]) => {
      const status = `${part.name} is not served: it was stopped.`
      const action = `To serve it again: plexus virstor assemble ${part.name}`
      const set = { className: 'virstor', name: setName, uuid: setUuid, status, action }
      return absentSet(set, [{ ...part, type: 'virstor' }])
    })
  }
}
