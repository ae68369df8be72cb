/**
 * The components of one device of FreeBSD's virstor that are connected, as a geom: assembled when all are here, as FreeBSD
 * does it, and served read-only. No byte is written on them here: they are open for reading, exclusively, so that nobody
 * else writes either. `virstor convert` makes a device of ours of them (convert.ts). Made by imports.ts.
 *
 *   waiting   a component is missing, they contradict each other, or the map cannot be right: see `problem`
 *   served    until one goes
 */
import { PlexusError } from '../../../base/errors.ts'
import type { Logger } from '../../../base/log.ts'
import type { Extent } from '../../../hal/block-device.ts'
import type { Bio } from '../../geom/bio.ts'
import type { Consumer } from '../../geom/consumer.ts'
import { isLentElsewhere } from '../../geom/names.ts'
import type { Provider } from '../../geom/provider.ts'
import type { Topology } from '../../geom/topology.ts'
import type { Geom } from '../../geom/types.ts'
import type { FreebsdLabel } from './label.ts'
import { readFreebsdMap } from './map.ts'
import type { ConversionRecord } from './record.ts'
import { ServedDevice } from './served.ts'

export interface ImportedComponent {
  readonly label: FreebsdLabel
  readonly consumer: Consumer
  /** It is component 0 of a device whose conversion has not ended. */
  readonly record: ConversionRecord | undefined
}

export class FreebsdDevice implements Geom {
  readonly className = 'virstor'
  readonly name: string
  readonly topology: Topology
  readonly log: Logger
  /** The name in its labels. */
  readonly label: string
  /** Why it is not served. */
  problem = 'its other components are being looked at'
  #components: readonly ImportedComponent[] = []
  #served: ServedDevice | undefined
  /** Components have come or gone since it was last assembled. */
  #changed = false
  /** Said last: said once. */
  #said = ''

  constructor(topology: Topology, { name, id }: FreebsdLabel) {
    this.topology = topology
    this.label = name
    this.name = `virstor-freebsd-${name}-${id.toString(16).padStart(8, '0')}`
    this.log = topology.log.child({ part: 'virstor', set: this.name })
  }

  get providers(): readonly Provider[] {
    return this.#served ? [this.#served.provider] : []
  }

  get consumers(): readonly Consumer[] {
    return this.#components.map(({ consumer }) => consumer)
  }

  /** Those that are here, in order. */
  get components(): readonly ImportedComponent[] {
    return this.#components
  }

  get served(): ServedDevice | undefined {
    return this.#served
  }

  /** Of a conversion that is decided on, and has not ended. */
  get record(): ConversionRecord | undefined {
    return this.#components.find(({ record }) => record)?.record
  }

  // Devices that come and go: inside a topology change.

  /** A device with a label of this one. True: it is held. */
  join(
    provider: Provider,
    { label, record }: Pick<ImportedComponent, 'label' | 'record'>,
  ): boolean {
    const before = this.#components.find((one) => one.label.index === label.index)
    if (this.#served && before) {
      const text =
        `${provider.name} carries component ${label.index} of FreeBSD's ${this.label}, which is present on ` +
        `${before.consumer.provider.name}: it is a copy, and is left alone`
      this.topology.events.emit('critical', 'duplicate-drive', provider.name, text)
      return false
    }
    const access = { read: 1, write: 0, exclusive: 1 }
    const holder = `component ${label.index} of FreeBSD's ${this.label}`
    const consumer = this.topology.attach(provider, this, holder, access)
    const all = [...this.#components, { label, consumer, record }]
    this.#components = all.sort((a, b) => a.label.index - b.label.index)
    this.#changed = true
    return true
  }

  /** Offers the device where it can be; else says why not. When components have come or gone since it was last asked. */
  async assemble(): Promise<void> {
    if (!this.#changed) return
    this.#changed = false
    try {
      if (!this.#served) await this.#assemble()
    } catch (error) {
      if (!(error instanceof PlexusError)) throw error
      this.waits(error.message)
    }
  }

  /** It is not served, for a reason that is told once. */
  waits(problem: string): void {
    this.problem = problem
    const text = `${this.label} on components of FreeBSD is not served: ${problem}`
    this.#say('set-incomplete', text)
  }

  async #assemble(): Promise<void> {
    const components = this.#components
    // imports.ts goes on with it.
    if (this.record) return
    const why = faultOf(components)
    if (why !== undefined) throw refusal(this.label, why)
    const labels = components.map(({ label }) => label)
    const [first] = components
    if (!first) return
    const table = await readFreebsdMap(first.consumer, labels)
    this.#served = new ServedDevice(this, this.#freeName(), components, table)
    this.problem = ''
    const text =
      `FreeBSD's ${this.label} is assembled: ${labels.length} components, read-only; ` +
      `to make it writable: plexus virstor convert ${this.#served.provider.name}`
    this.#say('set-assembled', text)
  }

  /** A device whose name is something else's is offered under another one. */
  #freeName(): string {
    const { topology } = this
    const name = [this.label, `${this.label}.freebsd`].find((one) => {
      return !topology.providers.has(one) && !isLentElsewhere(topology, one)
    })
    if (name !== undefined) return name
    throw refusal(this.label, `${this.label} and ${this.label}.freebsd are something else's names`)
  }

  /** Geom: one component is gone, and all of it goes: FreeBSD would not serve it either. */
  async orphan(consumer: Consumer, reason: PlexusError): Promise<void> {
    const gone = this.#components.find((one) => one.consumer === consumer)
    if (!gone) return
    this.#components = this.#components.filter((one) => one !== gone)
    this.#changed = true
    await this.end()
    consumer.close().catch((err: unknown) => {
      this.log.error({ err }, 'a consumer failed to close')
    })
    const { index } = gone.label
    const text = `component ${index} of FreeBSD's ${this.label} is gone: ${reason.message}`
    this.topology.events.emit('critical', 'drive-down', this.label, text)
    if (this.topology.complete) await this.assemble()
  }

  /** It is not served any more. */
  async end(): Promise<void> {
    const served = this.#served
    if (!served) return
    this.#served = undefined
    await this.topology.orphan(served.provider, endedError(served.provider.name))
    await served.stop()
  }

  // Geom.

  start(request: Bio, provider: Provider): void {
    if (this.#served?.provider === provider) this.#served.io.start(request)
    else queueMicrotask(() => request.complete(provider.error ?? endedError(provider.name)))
  }

  async extentAt(offset: number, length: number): Promise<Extent> {
    return this.#served?.extentAt(offset, length) ?? { allocated: true, length }
  }

  /** Components have our label now: whoever runs {@link Topology.tastePending} next looks at them. */
  async letGo(gone: readonly ImportedComponent[]): Promise<void> {
    this.#components = this.#components.filter((one) => !gone.includes(one))
    for (const { consumer } of gone) {
      await consumer.close()
      this.topology.tasteAgain(consumer.provider)
    }
  }

  /** Geom: orphans the device and lets its components go. */
  async wither(): Promise<void> {
    await this.end()
    for (const consumer of this.consumers) await consumer.close()
    this.#components = []
  }

  #say(event: 'set-assembled' | 'set-incomplete', message: string): void {
    if (this.#said === message) return
    this.#said = message
    const severity = event === 'set-assembled' ? 'info' : 'critical'
    this.topology.events.emit(severity, event, this.name, message)
  }
}

/** Why these components make no device; undefined: they do. */
function faultOf(components: readonly ImportedComponent[]): string | undefined {
  const [first] = components
  if (!first) return 'all of its components are missing'
  const { count } = first.label
  const missing = [...Array(count).keys()].filter((index) =>
    components.every(({ label }) => label.index !== index),
  )
  const contradiction = contradictionIn(components)
  if (contradiction !== undefined || missing.length === 0) return contradiction
  const which = missing.length === 1 ? `component ${missing[0]}` : `components ${listed(missing)}`
  return `${which} of ${count} ${missing.length === 1 ? 'is' : 'are'} missing; connect what FreeBSD had there`
}

/** Why these, in order, cannot all be of one device; undefined: they can. */
export function contradictionIn(components: readonly ImportedComponent[]): string | undefined {
  const nameOf = ({ consumer }: ImportedComponent): string => consumer.provider.name
  const [first] = components
  for (const [place, one] of components.entries()) {
    const { index } = one.label
    const next = components[place + 1]
    if (next?.label.index === index) {
      return `${nameOf(one)} and ${nameOf(next)} both carry component ${index}: disconnect the one that is a copy`
    }
    const what = first && differenceOf(one, first)
    if (what === undefined) continue
    return `components ${first?.label.index} (${first && nameOf(first)}) and ${index} (${nameOf(one)}) disagree: ${what}`
  }
  return undefined
}

/** More than anybody reads are only counted. */
function listed(numbers: readonly number[]): string {
  const shown = numbers.slice(0, 10).join(', ')
  return numbers.length > 10 ? `${shown} and ${numbers.length - 10} more` : shown
}

function differenceOf(
  { label, consumer }: ImportedComponent,
  first: ImportedComponent,
): string | undefined {
  const { label: other } = first
  const blocks = consumer.geometry.logicalBlockBytes
  const rows: readonly (readonly [number, number, string])[] = [
    [other.count, label.count, 'components'],
    [other.virtualBytes, label.virtualBytes, 'bytes of size'],
    [other.chunkBytes, label.chunkBytes, 'bytes of a chunk'],
    [first.consumer.geometry.logicalBlockBytes, blocks, 'bytes of a block'],
  ]
  const row = rows.find(([a, b]) => a !== b)
  return row && `${row[0]} and ${row[1]} ${row[2]}`
}

function refusal(subject: string, message: string): PlexusError {
  return new PlexusError('invalid', { op: 'assemble', subject, message })
}

function endedError(name: string): PlexusError {
  const message = `thin device ${name} of FreeBSD's is no more, or is about to come back in another form`
  return new PlexusError('gone', { op: 'use', subject: name, message })
}
