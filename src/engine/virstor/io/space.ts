/**
 * Which physical chunks are free, and who gets which (docs/adr/0015-virstor.md): the components of a device in the order
 * of its list, with a policy. Filled at the start from the map; a place that a discard has released comes back when
 * device-io.ts says that nobody uses it any more.
 */
import { assert, defined } from '../../../base/assert.ts'
import type { Watermark } from '../../../control/reports.ts'
import type { Component, Place } from '../runtime.ts'
import { FreeBits } from './free-bits.ts'

/** `sequential`: the first component of the list that has one. `round-robin`: one component after the other. */
export type SpacePolicy = 'sequential' | 'round-robin'

/** Where space is low: with so much of it, or less. */
export interface Watermarks {
  /** Free chunks. The higher one of this and `percentWatermark` counts. */
  readonly chunkWatermark: number
  /** Free chunks, in percent of all. */
  readonly percentWatermark: number
  /** Components that are still empty, with `sequential` only; fewer where there are three of them or less. */
  readonly componentWatermark: number
}

export interface SpaceOptions extends Watermarks {
  readonly components: readonly Component[]
  readonly policy: SpacePolicy
  /** Space has become low, or is not low any more. Must not take or give. */
  readonly onWatermark: (watermark: Watermark, isLow: boolean) => void
}

export interface ComponentSpace {
  readonly component: Component
  /** In chunks. */
  readonly total: number
  readonly free: number
  /** Data, and the map. */
  readonly used: number
  /** Of these, those of the map. */
  readonly reserved: number
  /** It gets nothing new: its content is moved away. */
  readonly emptying: boolean
  /** {@link free}, counted anew. */
  countFree(): number
}

/** Space is low no more with an eighth above the mark, so that chunks that come and go make no events. */
const RISE_PART = 8

class Slot implements ComponentSpace {
  readonly component: Component
  readonly bits: FreeBits
  /** Chunks of the map. */
  reserved = 0
  emptying = false

  constructor(component: Component) {
    this.component = component
    this.bits = new FreeBits(component.chunks)
  }

  get total(): number {
    return this.bits.chunks
  }

  get free(): number {
    return this.bits.free
  }

  get used(): number {
    return this.total - this.free
  }

  countFree(): number {
    return this.bits.count()
  }

  get takes(): boolean {
    const { consumer } = this.component
    return consumer !== undefined && !consumer.provider.error && !this.emptying
  }
}

export class Space {
  /** Somebody who waits for space may try again. device-io.ts sets it. */
  onFree: () => void = () => {}
  policy: SpacePolicy
  /** A chunk is being moved to it, one at a time (moves/chunk-mover.ts): neither free nor in the map until then. */
  moving: Place | undefined
  readonly #options: SpaceOptions
  #watermarks: Watermarks
  #slots: Slot[]
  /** By id. */
  readonly #byId: (Slot | undefined)[] = []
  /** By id; apart, since every request looks here. */
  readonly #components: (Component | undefined)[] = []
  #turn = 0
  readonly #low: Record<Watermark, boolean> = { chunks: false, components: false }

  constructor(options: SpaceOptions) {
    this.#options = options
    this.policy = options.policy
    this.#watermarks = options
    this.#slots = []
    for (const component of options.components) this.#enter(component)
  }

  component(id: number): Component | undefined {
    return this.#components[id]
  }

  /** In the order of the list. */
  get components(): readonly ComponentSpace[] {
    return this.#slots
  }

  /** Chunks of all components. */
  get total(): number {
    return this.#slots.reduce((sum, { total }) => sum + total, 0)
  }

  get used(): number {
    return this.#slots.reduce((sum, { used }) => sum + used, 0)
  }

  /** What {@link take} could give now: nothing of a component that is away or being emptied. */
  get free(): number {
    return this.#slots.reduce((sum, slot) => sum + (slot.takes ? slot.free : 0), 0)
  }

  /** With so many free chunks space is low. */
  get lowMark(): number {
    const { chunkWatermark, percentWatermark } = this.#watermarks
    return Math.max(chunkWatermark, Math.floor((this.total * percentWatermark) / 100))
  }

  set watermarks(watermarks: Watermarks) {
    this.#watermarks = watermarks
    // Somebody has said so: without the distance.
    this.#set('chunks', this.free <= this.lowMark)
    this.#look()
  }

  isLow(watermark: Watermark): boolean {
    return this.#low[watermark]
  }

  /** At the end of the list; what is in use on it is claimed afterwards. */
  add(component: Component): void {
    this.#enter(component)
    this.changed()
  }

  /** Its disk has grown: it has so many physical chunks. */
  grow(id: number, chunks: number): void {
    const { bits, component } = this.#slot(id)
    component.chunks = chunks
    bits.grow(chunks)
    this.changed()
  }

  /** It has gone from the device; nothing of it is in use, or it was given up. */
  remove(id: number): void {
    const slot = this.#slot(id)
    assert(slot.used === slot.reserved || !slot.takes, `component ${id} holds no data when it goes`)
    this.#slots = this.#slots.filter((other) => other !== slot)
    this.#byId[id] = undefined
    this.#components[id] = undefined
    this.changed()
  }

  /** Does it get nothing new because its content is moved away? */
  setEmptying(id: number, emptying: boolean): void {
    this.#slot(id).emptying = emptying
    this.changed()
  }

  /** May somebody have a place of the component? */
  takes(id: number): boolean {
    return this.#byId[id]?.takes ?? false
  }

  isFree({ component, number }: Place): boolean {
    return this.#slot(component).bits.isFree(number)
  }

  /** What the map found in use at the start. `forMap`: the map itself lies there. */
  claim({ component, number }: Place, forMap = false): void {
    const slot = this.#slot(component)
    slot.bits.claim(number)
    if (forMap) slot.reserved++
  }

  /** So many places, or undefined and nothing is taken. */
  take(count: number): readonly Place[] | undefined {
    if (this.free < count) return undefined
    const places: Place[] = []
    while (places.length < count) {
      const slot = this.#choose()
      places.push({ component: slot.component.id, number: slot.bits.take() })
    }
    this.#look()
    return places
  }

  /** A place of this component; undefined: it has none to give. */
  takeOn(id: number): Place | undefined {
    const slot = this.#byId[id]
    if (!slot?.takes || slot.free === 0) return undefined
    const number = slot.bits.take()
    this.#look()
    return { component: id, number }
  }

  /** Nobody uses it any more. */
  give({ component, number }: Place): void {
    const slot = this.#byId[component]
    // It has gone from the device meanwhile.
    if (!slot) return
    slot.bits.give(number)
    this.changed()
  }

  /** A component has come, has gone away or has come back, or the map has claimed what is in use. */
  changed(): void {
    this.#look()
    this.onFree()
  }

  #enter(component: Component): void {
    assert(!this.#byId[component.id], `component ${component.id} is there once`)
    const slot = new Slot(component)
    this.#slots.push(slot)
    this.#byId[component.id] = slot
    this.#components[component.id] = component
  }

  #slot(id: number): Slot {
    return defined(this.#byId[id], `component ${id}`)
  }

  #choose(): Slot {
    const { length } = this.#slots
    const first = this.policy === 'sequential' ? 0 : this.#turn
    for (let step = 0; step < length; step++) {
      const index = (first + step) % length
      const slot = this.#slots[index] as Slot
      if (!slot.takes || slot.free === 0) continue
      this.#turn = index + 1
      return slot
    }
    throw new Error('somebody has looked that there is one')
  }

  #look(): void {
    const { free, lowMark } = this
    const rise = this.#low.chunks ? Math.ceil(lowMark / RISE_PART) : 0
    this.#set('chunks', free <= lowMark + rise)
    this.#set('components', this.policy === 'sequential' && this.#fewAreEmpty())
  }

  #fewAreEmpty(): boolean {
    let empty = 0
    let begun = 0
    let room = 0
    for (const { takes, used, reserved, free, total } of this.#slots) {
      if (!takes) continue
      if (used === reserved) empty++
      else {
        begun += total
        room += free
      }
    }
    // Of one component, and of two, none is left over to be empty while the first is filled.
    const few = Math.min(this.#watermarks.componentWatermark, this.#slots.length - 2)
    // One that is empty again while the others are full is soon begun again.
    const isBarely = empty === few + 1 && room < begun / RISE_PART
    return empty <= few || (this.#low.components && isBarely)
  }

  #set(watermark: Watermark, isLow: boolean): void {
    if (this.#low[watermark] === isLow) return
    this.#low[watermark] = isLow
    this.#options.onWatermark(watermark, isLow)
  }
}
