/**
 * A nop geom: one provider over one consumer, handing every request through unless its fault plan says
 * otherwise (GEOM's NOP class). Made by nop-class.ts. The geom to copy for a new class with one disk below.
 */
import { defined } from '../../base/assert.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import { PlexusError } from '../../base/errors.ts'
import type { NopFailKind } from '../../control/nop-verbs.ts'
import type { ObjectReport } from '../../control/reports.ts'
import type { IoRequest } from '../../hal/block-device.ts'
import type { Bio } from '../geom/bio.ts'
import type { Consumer } from '../geom/consumer.ts'
import type { Provider } from '../geom/provider.ts'
import { RequestWatch } from '../geom/request-watch.ts'
import type { Topology } from '../geom/topology.ts'
import type { Geom } from '../geom/types.ts'
import { FaultPlan } from './fault-plan.ts'

/** A request that is held back; without a timer until clear. */
interface Held {
  readonly act: () => void
  timer: Timer | undefined
}

export class NopGeom implements Geom {
  readonly className = 'nop'
  readonly name: string
  readonly faults: FaultPlan
  readonly #topology: Topology
  readonly #clock: Clock
  readonly #onEnd: () => void
  readonly #held = new Set<Held>()
  #consumer: Consumer | undefined
  #provider: Provider | undefined

  /** `onEnd` is called once, when the geom is gone. */
  constructor(name: string, topology: Topology, onEnd: () => void) {
    this.name = name
    this.faults = new FaultPlan(topology.random)
    this.#topology = topology
    this.#clock = topology.clock
    this.#onEnd = onEnd
  }

  /**
   * Attaches to `below` and offers the provider. Throws what attaching throws (`in-use`, `gone`, `invalid`) and
   * `exists` for a name that is taken; then nothing has changed.
   */
  async open(below: Provider): Promise<void> {
    const write = below.features.readOnly ? 0 : 1
    const access = { read: 1, write, exclusive: write }
    const consumer = this.#topology.attach(below, this, `nop ${this.name}`, access)
    this.#consumer = consumer
    try {
      this.#offer(below)
    } catch (error) {
      this.#consumer = undefined
      await consumer.close()
      throw error
    }
    this.#topology.addGeom(this)
  }

  #offer({ geometry, identity, features, watch: below }: Provider): void {
    const { name } = this
    // It stands for the disk below: it is called down after the same time.
    const overdue = (reason: PlexusError): void => {
      this.provider.error ??= reason
      watch?.giveUp(reason)
      void this.#topology.change(() => this.#topology.orphan(this.provider, reason))
    }
    const watch = below && new RequestWatch(below.limitMs, name, this.#topology, overdue)
    const form = { name, geometry, identity, features, watch }
    this.#provider = this.#topology.makeProvider(this, form)
  }

  /** Ends all faults; what was held back goes on. If it was called down it comes back, as a disk that is plugged in. */
  async clear(): Promise<void> {
    this.faults.clear()
    this.#letGo()
    await this.#topology.change(async () => {
      const consumer = this.#consumer
      if (!consumer || !this.provider.error) return
      await consumer.idle()
      this.#offer(consumer.provider)
      await this.#topology.tastePending()
    })
  }

  #letGo(): void {
    for (const { act, timer } of this.#held) {
      timer?.cancel()
      act()
    }
    this.#held.clear()
  }

  get providers(): readonly Provider[] {
    return this.#provider ? [this.#provider] : []
  }

  get consumers(): readonly Consumer[] {
    return this.#consumer ? [this.#consumer] : []
  }

  get provider(): Provider {
    return defined(this.#provider, `the provider of ${this.name}`)
  }

  /** DOWN: it has not answered for the time that its device has, until clear. */
  report(): ObjectReport {
    const { name, className, provider, faults } = this
    const device = this.#consumer?.provider.name
    const isDown = provider.error !== undefined
    return {
      type: 'nop',
      className,
      name,
      uuid: '',
      state: isDown ? 'DOWN' : 'UP',
      health: isDown ? 'FAULTED' : 'HEALTHY',
      sizeBytes: provider.sizeBytes,
      note: `over ${device}`,
      status: isDown ? 'It has not answered in time.' : '',
      action: isDown ? `To let it answer again: plexus nop clear ${name}` : '',
      device,
      facts: { ...faults.facts, held: this.#held.size },
    }
  }

  start(request: Bio, provider: Provider): void {
    const { op, length } = request
    const { delayMs, fail, storedBytes, isSilent } = this.faults.judge(
      op,
      length,
      provider.blockBytes,
    )
    const act = () => {
      if (fail) this.#end(request, this.#error(request, fail, 'injected fault'))
      else if (storedBytes === undefined) this.#pass(request, length)
      else this.#tear(request, storedBytes, isSilent)
    }
    if (delayMs === 0) act()
    else this.#hold(delayMs, act)
  }

  #hold(delayMs: number, act: () => void): void {
    const held: Held = { act, timer: undefined }
    this.#held.add(held)
    if (delayMs === Number.POSITIVE_INFINITY) return
    held.timer = this.#clock.after(delayMs, () => {
      this.#held.delete(held)
      act()
    })
  }

  #pass(request: IoRequest, length: number): void {
    const consumer = this.#consumer
    if (consumer) consumer.forward(request, request.offset, length, request.dataOffset)
    // It was held back until the geom was gone.
    else this.#end(request, this.#error(request, 'gone', 'it was taken away'))
  }

  #tear(request: Bio, storedBytes: number, isSilent: boolean): void {
    const why = `injected fault, ${storedBytes} bytes were stored`
    const ending = isSilent ? undefined : this.#error(request, 'io', why)
    if (storedBytes === 0) {
      this.#end(request, ending)
      return
    }
    const { op, offset, length, data, dataOffset, fua, cause } = request
    const complete = (error: PlexusError | undefined) => request.complete(error ?? ending)
    const torn = { op, offset, length, data, dataOffset, fua, cause, complete }
    this.#pass(torn, storedBytes)
  }

  /** Completions never come from within `start`. */
  #end(request: IoRequest, error: PlexusError | undefined): void {
    queueMicrotask(() => request.complete(error))
  }

  #error(request: IoRequest, kind: NopFailKind, why: string): PlexusError {
    const { op, offset, length } = request
    const message = `${this.name}: ${op} of ${length} bytes at offset ${offset} failed: ${why}`
    return new PlexusError(kind, { op, subject: this.name, message })
  }

  async orphan(_consumer: Consumer, reason: PlexusError): Promise<void> {
    await this.#close(reason)
  }

  resized(consumer: Consumer): void {
    this.provider.update({ geometry: consumer.geometry })
  }

  async wither(): Promise<void> {
    await this.#close(this.#gone())
  }

  #gone(): PlexusError {
    const message = `${this.name} was destroyed; create it again with plexus nop create PROVIDER`
    return new PlexusError('gone', { op: 'use', subject: this.name, message })
  }

  async #close(reason: PlexusError): Promise<void> {
    const consumer = this.#consumer
    if (!consumer) return
    this.provider.error ??= reason
    // First, so that what is held back ends, and nobody above waits for it.
    this.#consumer = undefined
    this.#letGo()
    await this.#topology.orphan(this.provider, reason)
    await consumer.close()
    this.#topology.removeGeom(this)
    this.#onEnd()
  }
}
