/**
 * The copies of the map of a thin device: where there are fewer than there should be, or one is on a component that is
 * leaving, another one is made under load. virstor-set.ts owns it.
 */
import { operatingError, PlexusError } from '../../base/errors.ts'
import { lengthOf, type VirstorDevice } from './device.ts'
import { JOURNAL_BLOCK_BYTES } from './map/journal.ts'
import {
  type ComponentRecord,
  type CopyRecord,
  isUp,
  MAP_COPIES,
  type VirstorModel,
} from './model.ts'
import type { VirstorSet } from './virstor-set.ts'

export class MapCopies {
  readonly #set: VirstorSet
  /** The component to which the map is being copied. */
  #copyingTo: number | undefined
  #work: Promise<void> | undefined
  /** Components that could not take a copy, until the configuration has another shape. */
  readonly #refused = new Set<number>()

  constructor(set: VirstorSet) {
    this.#set = set
  }

  /** A commit is durable. */
  committed(): void {
    this.#leaveUnnamed()
    void this.make()
  }

  /** Components have come. */
  reshaped(): void {
    this.#refused.clear()
    void this.make()
  }

  /** Makes what is missing; resolves when nothing more can be made now. */
  make(): Promise<void> {
    this.#work ??= this.#make()
    return this.#work
  }

  async #make(): Promise<void> {
    // So that who calls has the promise.
    await undefined
    try {
      for (;;) {
        const { device, failure } = this.#set
        const component = device && !failure ? this.#nextCarrier() : undefined
        if (!device || !component) return
        this.#copyingTo = component.id
        try {
          await this.#copyTo(device, component)
        } catch (error) {
          this.#refused.add(component.id)
          const err = operatingError(error)
          this.#set.log.error({ err }, 'a copy of the map could not be made')
        } finally {
          this.#copyingTo = undefined
          this.#leaveUnnamed()
        }
      }
    } finally {
      this.#work = undefined
    }
  }

  /** A copy that the configuration names no more is written to no more, or it would disturb a new one in its place. */
  #leaveUnnamed(): void {
    const { device, model } = this.#set
    for (const id of device?.store.carriers ?? []) {
      const isNamed = model.copies.some(({ component }) => component === id)
      if (!isNamed && id !== this.#copyingTo) device?.store.leave(id)
    }
  }

  /** A component that should have a copy of the map and has none. */
  #nextCarrier(): ComponentRecord | undefined {
    const { model } = this.#set
    if (stayingCopies(model).length >= MAP_COPIES) return undefined
    return model.components.find((component) => {
      const { id, leaving } = component
      const isFree = model.copies.every((copy) => copy.component !== id) && !this.#refused.has(id)
      return isFree && !leaving && isUp(model, component) && this.#hasRing(component)
    })
  }

  async #copyTo(device: VirstorDevice, { id }: ComponentRecord): Promise<void> {
    const set = this.#set
    const { copies, nextEpoch, name } = set.model
    const runs = device.takeRuns(id, lengthOf(copies[0]?.runs ?? []))
    const refusal = new PlexusError('no-space', {
      op: 'write',
      subject: name,
      message: `${name}: component ${id} has no room for a copy of the map, or did not take it`,
    })
    if (!runs) throw refusal
    const copy = { component: id, epoch: nextEpoch, runs }
    // Whatever becomes of this one, its epoch is never used again.
    await set.commit((now) => ({ ...now, nextEpoch: now.nextEpoch + 1 }))
    await device.store.join(set.carrier(copy))
    const { copies: named } = await set.commit((now) => {
      const { carriers } = device.store
      // It has failed since, or another start reads the map: then it lacks something itself.
      if (set.device !== device || !carriers.includes(id)) return now
      // One that has failed meanwhile lacks something.
      const others = now.copies.filter((one) => carriers.includes(one.component))
      return { ...now, copies: [...others, copy] }
    })
    if (!named.some(({ component }) => component === id)) throw refusal
  }

  /** Has its label a journal that is as long as those of the other carriers? */
  #hasRing(component: ComponentRecord): boolean {
    const { label } = this.#set.driveOf(component)
    return (label?.journalBytes ?? 0) >= this.#set.model.journalBlocks * JOURNAL_BLOCK_BYTES
  }
}

/** The copies that are on no component that is leaving. */
function stayingCopies({ copies, components }: VirstorModel): readonly CopyRecord[] {
  return copies.filter(({ component }) =>
    components.some(({ id, leaving }) => id === component && !leaving),
  )
}

/**
 * The copies that count with a device in operation: one that is away misses the next commit of it, unless none is here; of
 * those that stay there are {@link MAP_COPIES} at most.
 */
export function countingCopies(model: VirstorModel): readonly CopyRecord[] {
  const here = model.copies.filter((copy) => {
    const component = model.components.find(({ id }) => id === copy.component)
    return component !== undefined && isUp(model, component)
  })
  const spare = new Set(stayingCopies({ ...model, copies: here }).slice(MAP_COPIES))
  const left = here.filter((copy) => !spare.has(copy))
  return left.length === 0 || left.length === model.copies.length ? model.copies : left
}
