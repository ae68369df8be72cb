/** Devices: what is configured, what is on each of them, and the removal of our own label. */
import { PlexusError } from '../../base/errors.ts'
import { didYouMean } from '../../base/suggest.ts'
import type {
  DeviceContents,
  DeviceDetails,
  DeviceList,
  DeviceReport,
  PlanReport,
  ProbeList,
} from '../../control/daemon-reports.ts'
import { DEVICE_SPECS } from '../../control/daemon-verbs.ts'
import { type Anchor, AnchoredDevice, readAnchor } from '../../engine/geom/anchor.ts'
import type { Provider } from '../../engine/geom/provider.ts'
import { deviceContents, formatContents } from '../../hal/device-contents.ts'
import type { SlotReport } from '../device-slots.ts'
import type { ControlContext, Method } from './context.ts'
import { classReports } from './facts.ts'

const READ_ONLY = { read: 1, write: 0, exclusive: 0 } as const
const EXCLUSIVE = { read: 1, write: 1, exclusive: 1 } as const

function findSlot(context: ControlContext, name: string): SlotReport {
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
function findReady(context: ControlContext, name: string): Provider {
  const slot = findSlot(context, name)
  const provider = context.topology.providers.get(name)
  if (provider && slot.ready) return provider
  throw new PlexusError('gone', {
    op: 'open',
    subject: name,
    message: `device ${name} (${slot.path}) is not ready: ${slot.reason ?? 'being opened'}`,
  })
}

function holdersOf(provider: Provider | undefined): string[] {
  const open = [...(provider?.consumers ?? [])].filter(
    ({ access }) => access.read + access.write + access.exclusive > 0,
  )
  return open.map(({ holder }) => holder)
}

function reportOf(context: ControlContext, slot: SlotReport): DeviceReport {
  const provider = context.topology.providers.get(slot.name)
  const facts = provider ?? context.remembered(slot.name)
  return {
    name: slot.name,
    path: slot.path,
    state: slot.ready ? 'ready' : 'missing',
    reason: slot.reason,
    sizeBytes: facts?.sizeBytes,
    blockBytes: facts?.blockBytes,
    holders: slot.ready ? holdersOf(provider) : missedBy(context, slot.name),
  }
}

/** Who would use a device that is not there. */
function missedBy(context: ControlContext, name: string): readonly string[] {
  const { drives } = classReports(context)
  const missing = drives.filter(({ device, lastDevice }) => !device && lastDevice === name)
  const units = context.units().filter((one) => one.name === name)
  return [
    ...missing.map((drive) => `vinum drive ${drive.name}`),
    ...units.map((unit) => `logical unit ${unit.name}`),
  ]
}

/** Reads through a consumer of its own; several readers do not hinder each other. */
async function examine(
  context: ControlContext,
  provider: Provider,
): Promise<{ readonly contents: string; readonly anchor: Anchor | undefined }> {
  const consumer = context.topology.attach(provider, undefined, 'probe', READ_ONLY)
  try {
    const contents = formatContents(await deviceContents(consumer))
    return { contents, anchor: await readAnchor(consumer) }
  } finally {
    await consumer.close()
  }
}

function labelText(anchor: Anchor | undefined): string {
  return anchor ? `${anchor.className}, set ${anchor.setUuid}, generation ${anchor.generation}` : ''
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
      contents:
        contents && [labelText(contents.anchor), contents.contents].filter(Boolean).join(', '),
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
      const { contents, anchor } = await examine(context, provider)
      const { path } = findSlot(context, name)
      const label = labelText(anchor)
      const free = holders.length === 0 && contents === '' && label === ''
      devices.push({ name, path, contents, label, holders, free })
    }
    return { devices }
  },
}

function noLabel(name: string): PlexusError {
  return new PlexusError('not-found', {
    op: 'clear-label',
    subject: name,
    message: `device ${name} carries no label of Plexus; plexus device probe ${name} shows what it carries`,
  })
}

const clearLabel: Method = {
  spec: DEVICE_SPECS['clear-label'],
  run(parameters, { context }): Promise<PlanReport> {
    const name = String(parameters['name'])
    const dryRun = parameters['dryRun'] === true
    const { topology } = context
    return topology.change(async () => {
      const provider = findReady(context, name)
      const access = dryRun ? READ_ONLY : EXCLUSIVE
      const [holder] = holdersOf(provider)
      if (holder !== undefined) {
        throw new PlexusError('in-use', {
          op: 'clear-label',
          subject: name,
          message: `device ${name} is in use by ${holder}; take it out of there first`,
        })
      }
      const consumer = topology.attach(provider, undefined, 'clear-label', access)
      try {
        const anchor = await readAnchor(consumer)
        if (!anchor) throw noLabel(name)
        if (!dryRun) await AnchoredDevice.open(consumer, anchor).clear()
        const text = `remove the label from ${name} (${findSlot(context, name).path}: ${labelText(anchor)})`
        return { dryRun, steps: [{ text, object: name }], warnings: [], jobs: [] }
      } finally {
        await consumer.close()
      }
    })
  },
}

export const DEVICE_METHODS: readonly Method[] = [list, show, probe, clearLabel]
