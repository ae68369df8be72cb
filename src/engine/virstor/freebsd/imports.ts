/**
 * The devices of FreeBSD's virstor that are connected: how components get into them (import.ts), and how a conversion that
 * was cut off goes on (convert.ts). Part of virstor-class.ts; everything runs inside topology changes.
 *
 * Components belong together that have one name and one id: those of one name with another id are left over from an older
 * device, and wait for the rest of it.
 */

import { formatSize } from '../../../base/bytes.ts'
import { operatingError, PlexusError } from '../../../base/errors.ts'
import type { PlanReport, PlanStep } from '../../../control/reports.ts'
import type { AnchorTarget } from '../../anchor/anchor-ends.ts'
import { READ_ACCESS } from '../../geom/consumer.ts'
import type { Label } from '../../geom/label.ts'
import type { Provider } from '../../geom/provider.ts'
import type { Topology } from '../../geom/topology.ts'
import type { VerbParameters } from '../../geom/types.ts'
import { beginConversion, finishConversion } from './convert.ts'
import { type ConversionPlan, planConversion } from './convert-plan.ts'
import { contradictionIn, FreebsdDevice } from './import.ts'
import { type Found, findFreebsdLabel } from './label.ts'
import type { ConversionRecord } from './record.ts'

export class FreebsdImports {
  readonly #devices = new Map<string, FreebsdDevice>()

  get all(): readonly FreebsdDevice[] {
    return [...this.#devices.values()]
  }

  /** A provider without a label of ours. Resolves to whether it is held from now on. */
  async taste(provider: Provider, topology: Topology): Promise<boolean> {
    const found = await labelOn(provider, topology)
    if (!found) return false
    if ('problem' in found) {
      const text = `${provider.name} ${found.problem}`
      topology.events.emit('warning', 'foreign-drive', provider.name, text)
      return false
    }
    const { name, id } = found.label
    const key = `${name}/${id}`
    const known = this.#devices.get(key)
    const device = known ?? new FreebsdDevice(topology, found.label)
    if (!known) {
      this.#devices.set(key, device)
      topology.addGeom(device)
    }
    return device.join(provider, found)
  }

  /** Everything that is there has been tasted. `isNative`: has a drive of this set, by their UUIDs, our label? */
  async settled(isNative: (setUuid: string, driveUuid: string) => boolean): Promise<void> {
    for (const device of this.all) {
      if (device.record) await this.#goOn(device, device.record, isNative)
      else await device.assemble()
    }
  }

  /** The record counts: what is here gets our label. */
  async #goOn(
    device: FreebsdDevice,
    record: ConversionRecord,
    isNative: (setUuid: string, driveUuid: string) => boolean,
  ): Promise<void> {
    const contradiction = contradictionIn(device.components)
    if (contradiction !== undefined) {
      device.waits(contradiction)
      return
    }
    try {
      const ours = (uuid: string): boolean => isNative(record.setUuid, uuid)
      const missing = await finishConversion(device, record, ours)
      if (missing.length === 0) await this.dissolve(device)
      else {
        await device.letGo(device.components.slice(1))
        const which = missing.join(', ')
        device.waits(`its conversion goes on when component ${which} is here, too; connect it`)
      }
    } catch (error) {
      device.waits(`its conversion could not go on: ${operatingError(error).message}`)
    }
  }

  /** `virstor convert`. */
  async convert(parameters: VerbParameters, topology: Topology): Promise<PlanReport> {
    const name = String(parameters['name'])
    const device = this.all.find((one) => one.served?.provider.name === name)
    if (!device?.served) throw notServed(name, this.all)
    const { components, served } = device
    if (served.provider.consumers.size > 0) {
      const message = `virstor ${name} is in use; take it out of the configuration's LUNs first`
      throw new PlexusError('in-use', { op: 'convert', subject: name, message })
    }
    const locked = components.find(({ consumer }) => consumer.features.readOnly)
    if (locked) {
      const message = `${locked.consumer.provider.name} is read-only; make it writable before converting`
      throw new PlexusError('permission', { op: 'convert', subject: name, message })
    }
    const plan = planConversion(name, components, served.table, topology.random)
    const steps = stepsOf(plan)
    const { warnings } = plan
    if (parameters['dryRun'] === true) return { dryRun: true, steps, warnings, jobs: [] }
    try {
      await beginConversion(device, served.table, plan)
    } finally {
      // Whatever has become of it, what is on the disks says so.
      await this.dissolve(device)
      await topology.tastePending()
    }
    const isServed = topology.providers.get(name)?.features.readOnly === false
    const text = `thin device ${name} has our format now, on ${components.length} components`
    topology.events.emit('info', 'virstor-convert', name, text)
    const trouble = isServed ? [] : [`${name} is not served yet; plexus status says why`]
    return { dryRun: false, steps, warnings: [...warnings, ...trouble], jobs: [] }
  }

  async stop(): Promise<void> {
    for (const device of this.all) await device.wither()
  }

  /** Lets the components of a device go; whoever runs {@link Topology.tastePending} next looks at them again. */
  async dissolve(device: FreebsdDevice): Promise<void> {
    const { components } = device
    // Who has it open must not keep them.
    await device.end()
    await device.letGo(components)
    device.topology.removeGeom(device)
    for (const [key, one] of this.#devices) if (one === device) this.#devices.delete(key)
  }
}

/** What the label of FreeBSD's virstor on a device says; undefined: there is none. */
export async function readFreebsdLabel(device: AnchorTarget): Promise<Label | undefined> {
  const found = await findFreebsdLabel(device)
  if (!found) return undefined
  if ('problem' in found) {
    const text = "a component of FreeBSD's virstor"
    return { text, volumes: [], known: false }
  }
  const { name, index } = found.label
  const text = `component ${index} of ${name} of FreeBSD's virstor`
  return { text, volumes: [name], known: false }
}

/** Where the last block cannot be read, there is none. */
async function labelOn(provider: Provider, topology: Topology): Promise<Found | undefined> {
  try {
    return await topology.using(provider, 'taste', READ_ACCESS, findFreebsdLabel)
  } catch (error) {
    if (!(error instanceof PlexusError)) throw error
    const err = operatingError(error)
    topology.log.warn({ err, provider: provider.name }, 'the end of a device is unreadable')
    return undefined
  }
}

function stepsOf({ model, moves }: ConversionPlan): readonly PlanStep[] {
  const { name, drives, components, copies, chunkBytes } = model
  const carriers = copies.map(({ component }) => {
    const on = components.find(({ id }) => id === component)
    return drives.find(({ uuid }) => uuid === on?.driveUuid)?.name
  })
  const size = formatSize(moves.length * chunkBytes)
  const copied = `copy ${moves.length} chunks (${size}) out of the way of the labels`
  return [
    ...(moves.length > 0 ? [{ text: copied, object: name }] : []),
    { text: `write the map on ${carriers.join(' and ')}`, object: name },
    ...drives.map((drive) => ({
      text: `write label on ${drive.name} (${drive.device}), in place of FreeBSD's`,
      object: drive.name,
    })),
  ]
}

function notServed(name: string, devices: readonly FreebsdDevice[]): PlexusError {
  const waiting = devices.find(({ label, served }) => label === name && !served)
  const message = waiting
    ? `${name} is not served: ${waiting.problem}`
    : `there is no thin device "${name}" with FreeBSD's format; plexus virstor list shows all`
  const kind = waiting ? 'invalid' : 'not-found'
  return new PlexusError(kind, { op: 'convert', subject: name, message })
}
