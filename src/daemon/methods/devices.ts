/** Devices: what is configured, and what is on each of them. The verbs that write are in labels.ts. */
import { PlexusError } from '../../base/errors.ts'
import { didYouMean } from '../../base/suggest.ts'
import type {
  DeviceContents,
  DeviceDetails,
  DeviceList,
  DeviceReport,
  ProbeList,
} from '../../control/daemon-reports.ts'
import { DEVICE_SPECS } from '../../control/daemon-verbs.ts'
import { type FoundLabel, findLabel } from '../../engine/anchor/anchor-find.ts'
import type { Consumer } from '../../engine/geom/consumer.ts'
import { objectsOf } from '../../engine/geom/listing.ts'
import type { Provider } from '../../engine/geom/provider.ts'
import { deviceContents, formatContents } from '../../hal/device-contents.ts'
import type { SlotReport } from '../device-slots.ts'
import type { ControlContext, Method } from './context.ts'

const READ_ONLY = { read: 1, write: 0, exclusive: 0 } as const

export function findSlot(context: ControlContext, name: string): SlotReport {
  const slots = context.devices()
  const slot = slots.find((one) => one.name === name)
  if (slot) return slot
  const near = didYouMean(
    name,
    slots.map((one) => one.name),
  )
  throw new PlexusError('not-found', {
    op: 'find',
    subject: name,
    message: `there is no device "${name}" in the configuration${near}; plexus device list shows all`,
  })
}

/** The provider of a device that is there. Throws `gone` with the reason when it is not. */
export function findReady(context: ControlContext, name: string): Provider {
  const slot = findSlot(context, name)
  const provider = context.topology.providers.get(name)
  if (provider && slot.ready) return provider
  throw new PlexusError('gone', {
    op: 'open',
    subject: name,
    message: `device ${name} (${slot.path}) is not ready: ${slot.reason ?? 'being opened'}`,
  })
}

export function openConsumers(provider: Provider | undefined): readonly Consumer[] {
  return [...(provider?.consumers ?? [])].filter(
    ({ access }) => access.read + access.write + access.exclusive > 0,
  )
}

function holdersOf(provider: Provider | undefined): string[] {
  return openConsumers(provider).map(({ holder }) => holder)
}

function problemOf(provider: Provider | undefined): string | undefined {
  const problem = provider?.label?.problem
  return problem && `${problem.text}. ${problem.action}`
}

function reportOf(context: ControlContext, slot: SlotReport): DeviceReport {
  const provider = context.topology.providers.get(slot.name)
  const facts = provider ?? context.remembered(slot.name)
  return {
    name: slot.name,
    path: slot.path,
    state: slot.ready ? 'ready' : 'missing',
    reason: slot.reason ?? problemOf(provider),
    sizeBytes: facts?.sizeBytes,
    blockBytes: facts?.blockBytes,
    holders: slot.ready ? holdersOf(provider) : missedBy(context, slot.name),
  }
}

/** Who would use a device that is not there. */
function missedBy(context: ControlContext, name: string): readonly string[] {
  const objects = objectsOf(context.topology.classes)
  const missing = objects.filter(({ device, lastDevice }) => !device && lastDevice === name)
  const units = context.units().filter((one) => one.name === name)
  return [
    ...missing.map((one) => `${one.className} ${one.type} ${one.name}`),
    ...units.map((unit) => `logical unit ${unit.name}`),
  ]
}

/** Reads through a consumer of its own; several readers do not hinder each other. */
async function examine(
  context: ControlContext,
  provider: Provider,
): Promise<{ readonly contents: string; readonly label: string }> {
  const consumer = context.topology.attach(provider, undefined, 'probe', READ_ONLY)
  try {
    const contents = formatContents(await deviceContents(consumer))
    return { contents, label: labelText(provider, await findLabel(consumer)) }
  } finally {
    await consumer.close()
  }
}

/** What the label says, and what is the matter with it. Empty: there is none. */
export function labelText({ label }: Provider, found: FoundLabel | undefined): string {
  if (!found) return ''
  const { className, setUuid, generation } = found.anchor
  const problem = found.problem ?? label?.problem
  const text = `${className}, set ${setUuid}, generation ${generation}`
  return problem ? `${text}: ${problem.text}` : text
}

const list: Method = {
  spec: DEVICE_SPECS.list,
  async run(_parameters, { context }): Promise<DeviceList> {
    return { devices: context.devices().map((slot) => reportOf(context, slot)) }
  },
}

const show: Method = {
  spec: DEVICE_SPECS.show,
  async run(parameters, { context }): Promise<DeviceDetails> {
    const slot = findSlot(context, String(parameters['name']))
    const provider = context.topology.providers.get(slot.name)
    const identity = provider?.identity ?? context.remembered(slot.name)
    const contents = provider && !provider.error ? await examine(context, provider) : undefined
    return {
      ...reportOf(context, slot),
      wwid: identity?.wwid,
      serial: identity?.serial,
      vendor: identity?.vendor,
      model: identity?.model,
      physicalBlockBytes: provider?.geometry.physicalBlockBytes,
      rotational: provider?.features.rotational,
      readOnly: provider?.features.readOnly,
      volatileWriteCache: provider?.features.volatileWriteCache,
      discard: provider && provider.features.discardGranularityBytes > 0,
      contents: contents && [contents.label, contents.contents].filter(Boolean).join(', '),
    }
  },
}

const probe: Method = {
  spec: DEVICE_SPECS.probe,
  async run(parameters, { context }): Promise<ProbeList> {
    const given = parameters['names']
    const all = context.devices().filter(({ ready }) => ready)
    const names = Array.isArray(given) ? given.map(String) : all.map(({ name }) => name)
    const devices: DeviceContents[] = []
    for (const name of names) {
      const provider = findReady(context, name)
      const holders = holdersOf(provider)
      const { contents, label } = await examine(context, provider)
      const { path } = findSlot(context, name)
      const free = holders.length === 0 && contents === '' && label === ''
      devices.push({ name, path, contents, label, holders, free })
    }
    return { devices }
  },
}

export const DEVICE_METHODS: readonly Method[] = [list, show, probe]
