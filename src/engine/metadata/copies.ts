/**
 * Devices that carry the label of one and the same drive: copies of it, or paths to it. Which one is right nobody can
 * tell, so that none of them is used, until only one is left. Inside topology changes.
 */

import type { Anchor } from '../anchor/anchor-layout.ts'
import { type Consumer, NO_ACCESS } from '../geom/consumer.ts'
import type { Provider } from '../geom/provider.ts'
import type { Topology } from '../geom/topology.ts'
import type { Geom } from '../geom/types.ts'
import { byUuid } from './lists.ts'
import type { Member, SetDrive } from './set-drive.ts'
import type { SetModel } from './set-model.ts'

/** What this asks of its set. */
interface Host extends Geom {
  readonly topology: Topology
  readonly drives: ReadonlyMap<string, SetDrive>
  readonly members: Map<string, Member<SetModel>>
  closeSoon(consumer: Consumer): void
}

export class Copies {
  readonly #set: Host
  /** Attached, but not opened: to hear when one goes, or when somebody clears its label. */
  #known: readonly { readonly uuid: string; readonly consumer: Consumer }[] = []

  constructor(set: Host) {
    this.#set = set
  }

  get consumers(): readonly Consumer[] {
    return this.#known.map(({ consumer }) => consumer)
  }

  /**
   * Is the label on `provider` that of a drive which another device carries, too? One that is in use stays so; one that
   * is not is given up as well.
   */
  async sort(provider: Provider, anchor: Anchor): Promise<boolean> {
    const { topology, members, drives } = this.#set
    const uuid = anchor.deviceUuid
    const drive = drives.get(uuid)
    if (drive?.present) {
      const text = `carries the label of drive ${drive.record.name}, which is in use on ${drive.device}: it is a copy, or another path to it`
      topology.labelProblem(provider, anchor, { text, action: NEXT })
      return true
    }
    const member = members.get(uuid)
    const others = this.#known.filter((one) => one.uuid === uuid)
    if (!member && others.length === 0) return false
    const record = drive?.record ?? (member?.model && byUuid(member.model.drives, uuid))
    const name = record?.name ?? uuid
    members.delete(uuid)
    await member?.consumer.close()
    const fresh = member ? [member.consumer.provider, provider] : [provider]
    const all = [...others.map(({ consumer }) => consumer.provider), ...fresh]
    for (const one of fresh) {
      const consumer = topology.attach(one, this.#set, `a copy of drive ${name}`, NO_ACCESS)
      this.#known = [...this.#known, { uuid, consumer }]
    }
    for (const one of all) {
      const rest = all.filter((other) => other !== one).map((other) => other.name)
      const text = `carries the label of drive ${name}, and so does ${rest.join(', ')}: copies, or paths to one disk`
      topology.labelProblem(one, anchor, { text, action: `None of them is used. ${NEXT}` })
    }
    return true
  }

  /** A device has gone, or somebody writes on it: the only one that is left is the drive. */
  leave(consumer: Consumer): void {
    const left = this.#known.find((one) => one.consumer === consumer)
    if (!left) return
    this.#known = this.#known.filter((one) => one !== left)
    this.#set.closeSoon(consumer)
    const [last, second] = this.#known.filter(({ uuid }) => uuid === left.uuid)
    if (!last || second) return
    this.#known = this.#known.filter((one) => one !== last)
    this.#set.closeSoon(last.consumer)
    const { topology } = this.#set
    void topology.change(() => {
      topology.tasteAgain(last.consumer.provider)
      return topology.tastePending()
    })
  }

  async close(): Promise<void> {
    for (const { consumer } of this.#known) await consumer.close()
    this.#known = []
  }
}

const NEXT =
  'Disconnect the one that is not wanted, or take it out of the configuration; if it is a copy, plexus device clear-label ' +
  'NAME frees it. Several paths to one disk cannot be used together yet'
