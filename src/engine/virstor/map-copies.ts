/**
 * Copies of the map of a device in operation: a new one on another component where one has gone, and longer ones for a
 * device that grows. Under load; every step is durable before the next. Part of virstor-set.ts.
 */
import { formatSize } from '../../base/bytes.ts'
import { operatingError, PlexusError } from '../../base/errors.ts'
import type { VirstorDevice } from './device.ts'
import { JOURNAL_BLOCK_BYTES } from './map/journal.ts'
import { lengthOf } from './map/layout.ts'
import {
  type ComponentRecord,
  type CopyRecord,
  isUp,
  MAP_COPIES,
  mapChunks,
  type VirstorModel,
} from './model.ts'
import type { VirstorSet } from './virstor-set.ts'

export class MapCopies {
  readonly #set: VirstorSet
  /** The component to which the map is being copied. */
  #copyingTo: number | undefined
  /** Resolves when the copy that is being made has ended. */
  #copying: Promise<void> = Promise.resolve()
  /** The map grows: no copy begins by itself. */
  #isGrowing = false
  /** Components that could not take a copy, until the configuration has another shape. */
  readonly #refused = new Set<number>()

  constructor(set: VirstorSet) {
    this.#set = set
  }

  get #model(): VirstorModel {
    return this.#set.model
  }

  /** A commit is durable. */
  committed(): void {
    this.#leaveUnnamed()
    void this.make()
  }

  /** A copy that the configuration names no more is written to no more, or it would disturb a new one in its place. */
  #leaveUnnamed(): void {
    const { store } = this.#set.device ?? {}
    for (const id of store?.carriers ?? []) {
      const isNamed = this.#model.copies.some(({ component }) => component === id)
      if (!isNamed && id !== this.#copyingTo) store?.leave(id)
    }
  }

  /** Components have come or have room again: all may be asked. */
  reshaped(): void {
    this.#refused.clear()
  }

  /** Where the map has fewer copies than it should, makes one on a component that has room, under load. */
  async make(): Promise<void> {
    const { device, failure, log } = this.#set
    if (!device || failure || this.#copyingTo !== undefined || this.#isGrowing) return
    const component = this.#lacking()
    if (!component) return
    try {
      await this.#copyTo(device, component, mapChunks(this.#model))
    } catch (error) {
      log.error({ err: operatingError(error) }, 'a copy of the map could not be made')
    }
    void this.make()
  }

  /** Resolves when there are as many copies as can be made now. The map must not grow meanwhile. */
  async complete(): Promise<void> {
    for (;;) {
      await this.#copying
      const { device, failure } = this.#set
      if (!device || failure || !this.#lacking()) return
      await this.make()
    }
  }

  /** A component that should have a copy of the map: copies on those that are leaving do not count. */
  #lacking(): ComponentRecord | undefined {
    const { copies, components } = this.#model
    const leaving = components.filter((one) => one.leaving)
    const staying = copies.filter(({ component }) => leaving.every(({ id }) => id !== component))
    return staying.length < MAP_COPIES ? this.#nextCarrier() : undefined
  }

  /**
   * Gives the map room and pages for so many virtual chunks, durably, then runs `work`, which makes the device as large.
   * No other copy of the map begins before that has ended. A carrier without room gives its copy to another component.
   * Throws `gone` where the device is not served, `no-space` where there is no room.
   */
  async grow<T>(chunks: number, work: () => Promise<T>): Promise<T> {
    this.#isGrowing = true
    try {
      await this.#copying
      const device = this.#set.served('grow')
      const { chunkBytes } = this.#model
      const count = mapChunks({ virtualBytes: chunks * chunkBytes, chunkBytes })
      for (let short = this.#shorter(count); short; short = this.#shorter(count)) {
        await this.#lengthen(device, short, count)
      }
      const carriers = this.#model.copies.map((copy) => this.#set.carrier(copy))
      await device.store.extend(chunks, carriers)
      return await work()
    } finally {
      this.#isGrowing = false
      void this.make()
    }
  }

  /** A copy of the map that has fewer physical chunks. */
  #shorter(count: number): CopyRecord | undefined {
    return this.#model.copies.find(({ runs }) => lengthOf(runs) < count)
  }

  /** Makes a copy of the map so long, or makes another one in its stead. */
  async #lengthen(device: VirstorDevice, copy: CopyRecord, count: number): Promise<void> {
    const { component: id } = copy
    const runs = device.takeRuns(id, count)
    if (!runs) await this.#copyElsewhere(device, id, count)
    await this.#set.commit((now) => {
      const copies = now.copies.flatMap((one) => {
        if (one.component !== id) return one
        return runs ? { ...one, runs } : []
      })
      // What was made instead may have gone meanwhile.
      return copies.length === 0 ? now : { ...now, copies }
    })
  }

  /** Another component gets a copy of the map of so many physical chunks, for which this one has no room. */
  async #copyElsewhere(device: VirstorDevice, id: number, chunks: number): Promise<void> {
    for (let other = this.#nextCarrier(); other; other = this.#nextCarrier()) {
      const err = await this.#copyTo(device, other, chunks).catch(operatingError)
      if (!err) return
    }
    const { name, chunkBytes } = this.#model
    const size = formatSize(chunks * chunkBytes)
    const message =
      `${name}: each copy of its map takes ${size} then, and neither component ${id}, which has one, nor any other has ` +
      `so much free in one piece; add one first: plexus virstor add ${name} DEVICE`
    throw new PlexusError('no-space', { op: 'grow', subject: name, message })
  }

  /** A component that could have a copy of the map, and has none. */
  #nextCarrier(): ComponentRecord | undefined {
    const { copies, components } = this.#model
    return components.find((component) => {
      const { id, leaving } = component
      const isFree = copies.every((copy) => copy.component !== id) && !this.#refused.has(id)
      return isFree && !leaving && isUp(this.#model, component) && this.#hasRing(component)
    })
  }

  /** Has its label a journal that is as long as those of the other carriers? */
  #hasRing(component: ComponentRecord): boolean {
    const { label } = this.#set.driveOf(component)
    return (label?.journalBytes ?? 0) >= this.#model.journalBlocks * JOURNAL_BLOCK_BYTES
  }

  /** Makes a copy of the map in so many physical chunks. Where that fails, the component is not asked again. */
  async #copyTo(device: VirstorDevice, { id }: ComponentRecord, chunks: number): Promise<void> {
    this.#copyingTo = id
    const made = this.#makeCopy(device, id, chunks)
    this.#copying = made.catch(() => {})
    try {
      await made
    } catch (error) {
      this.#refused.add(id)
      throw error
    } finally {
      this.#copyingTo = undefined
      this.#leaveUnnamed()
    }
  }

  async #makeCopy(device: VirstorDevice, id: number, chunks: number): Promise<void> {
    const { nextEpoch, name } = this.#model
    const runs = device.takeRuns(id, chunks)
    const refusal = new PlexusError('no-space', {
      op: 'write',
      subject: name,
      message: `${name}: component ${id} has no room for a copy of the map, or did not take it`,
    })
    // The device may end while this waits, and the set with it; or it is being destroyed.
    const mustRun = (): void => {
      const runs =
        this.#set.device === device && this.#model.components.some((one) => one.id === id)
      if (!runs) throw refusal
    }
    if (!runs) throw refusal
    const copy = { component: id, epoch: nextEpoch, runs }
    // Whatever becomes of this one, its epoch is never used again.
    await this.#set.commit((now) => ({ ...now, nextEpoch: now.nextEpoch + 1 }))
    mustRun()
    await device.store.join(this.#set.carrier(copy))
    mustRun()
    const { copies: named } = await this.#set.commit((now) => {
      const { carriers } = device.store
      // It has failed since, or another start reads the map: then it lacks something itself.
      if (this.#set.device !== device || !carriers.includes(id)) return now
      // One that has failed meanwhile lacks something.
      const others = now.copies.filter((one) => carriers.includes(one.component))
      return { ...now, copies: [...others, copy] }
    })
    if (!named.some(({ component }) => component === id)) throw refusal
  }
}
