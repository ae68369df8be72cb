/**
 * Discards towards the components: an SSD, or a thin array below, gets back what the device has no use for. Only of places
 * that are free for certain: the record of their release is durable, and nobody works on them any more. They are taken out
 * of the pool for as long as the discard lasts, so that nobody gets one of them meanwhile; what was given out before its
 * turn came is left alone. One discard of a component at a time, merged from neighbours, and as long a pause after it; none
 * takes what writes could miss. What has not been discarded at the end of the device stays so. Used by device-io.ts.
 */
import type { Clock } from '../../../base/clock.ts'
import { operatingError, type PlexusError } from '../../../base/errors.ts'
import { VIRSTOR_TRIM_BYTES } from '../../../base/limits.ts'
import { discard } from '../../../hal/io.ts'
import type { Run } from '../map/layout.ts'
import type { Place } from '../runtime.ts'
import type { Space } from './space.ts'

export interface TrimmerOptions {
  readonly space: Space
  readonly chunkBytes: number
  readonly clock: Clock
  /** A component has refused one: it gets no more until the next start. */
  readonly onFailed: (id: number, error: PlexusError) => void
}

/** Numbers of places of one component. */
interface Pending {
  fresh: number[]
  /** The lowest is at the end. */
  sorted: number[]
}

export class Trimmer {
  /** Does it discard at all? */
  isOn: boolean
  readonly #options: TrimmerOptions
  readonly #pending = new Map<number, Pending>()
  /** Components with a discard under way, or in the pause after it. */
  readonly #busy = new Set<number>()
  /** By component. */
  readonly #underWay = new Map<number, { readonly run: Run; readonly ended: Promise<void> }>()
  readonly #unable = new Set<number>()

  constructor(options: TrimmerOptions, isOn: boolean) {
    this.#options = options
    this.isOn = isOn
  }

  /** They are free since now. */
  add(places: readonly Place[]): void {
    if (!this.isOn) return
    for (const { component, number } of places) {
      if (!this.#canDiscard(component)) continue
      const there = this.#pending.get(component)
      if (there) there.fresh.push(number)
      else this.#pending.set(component, { fresh: [number], sorted: [] })
    }
    for (const id of this.#pending.keys()) this.#next(id)
  }

  stop(): void {
    this.isOn = false
    this.#pending.clear()
  }

  #canDiscard(id: number): boolean {
    const features = this.#options.space.component(id)?.consumer?.features
    return (features?.discardGranularityBytes ?? 0) > 0 && !this.#unable.has(id)
  }

  #next(id: number): void {
    if (this.#busy.has(id) || !this.isOn) return
    const run = this.#takeRun(id)
    if (!run) return
    this.#busy.add(id)
    this.#underWay.set(id, { run, ended: this.#discard(id, run) })
  }

  /** Is it out of the pool because it is being discarded? */
  holds({ component, number }: Place): boolean {
    const { run } = this.#underWay.get(component) ?? {}
    return run !== undefined && number >= run.number && number < run.number + run.count
  }

  /** Resolves when the discards have ended that are under way now, and their places are free. */
  async ended(): Promise<void> {
    await Promise.all([...this.#underWay.values()].map(({ ended }) => ended))
  }

  /** The lowest neighbours that are still free, out of the pool; undefined: there are none, or space is too short. */
  #takeRun(id: number): Run | undefined {
    const { space, chunkBytes } = this.#options
    const pending = this.#pending.get(id)
    if (!pending || !space.takes(id)) return undefined
    const spare = Math.floor((space.free - space.lowMark) / 2)
    const most = Math.min(spare, Math.max(1, Math.floor(VIRSTOR_TRIM_BYTES / chunkBytes)))
    if (most < 1) return undefined
    if (pending.sorted.length === 0) {
      pending.sorted = [...Uint32Array.from(pending.fresh).sort()].reverse()
      pending.fresh = []
    }
    const { sorted } = pending
    let first = 0
    let count = 0
    for (let number = sorted.at(-1); number !== undefined && count < most; number = sorted.at(-1)) {
      const isFree = space.isFree({ component: id, number })
      if (count > 0 && isFree && number !== first + count) break
      sorted.pop()
      if (!isFree) continue
      if (count === 0) first = number
      space.claim({ component: id, number })
      count++
    }
    if (sorted.length + pending.fresh.length === 0) this.#pending.delete(id)
    return count > 0 ? { number: first, count } : undefined
  }

  async #discard(id: number, { number, count }: Run): Promise<void> {
    const { space, chunkBytes, clock, onFailed } = this.#options
    const startedMs = clock.nowMs()
    const component = space.component(id)
    const consumer = component?.consumer
    if (component && consumer) {
      const range = {
        offset: component.startBytes + number * chunkBytes,
        length: count * chunkBytes,
      }
      const error = await discard(consumer, range).then(() => undefined, operatingError)
      // One that has gone is asked again when it is back.
      if (error && error.kind !== 'gone') {
        this.#unable.add(id)
        this.#pending.delete(id)
        onFailed(id, error)
      }
    } else this.#pending.delete(id)
    for (let at = number; at < number + count; at++) space.give({ component: id, number: at })
    this.#underWay.delete(id)
    const go = (): void => {
      this.#busy.delete(id)
      this.#next(id)
    }
    const tookMs = clock.nowMs() - startedMs
    if (tookMs > 0) clock.after(tookMs, go)
    else go()
  }
}
