/**
 * The devices of FreeBSD's virstor that are connected: how components get into them (import.ts), and how a conversion that
 * was cut off goes on (convert.ts). Part of virstor-class.ts; everything runs inside topology changes.
 *
 * Components belong together that have one name and one id: those of one name with another id are left over from an older
 * device, and wait for the rest of it.
 */
import { operatingError, PlexusError } from '../../../base/errors.ts'
import type { AnchorTarget } from '../../anchor/anchor-ends.ts'
import { READ_ACCESS } from '../../geom/consumer.ts'
import type { Label } from '../../geom/label.ts'
import type { Provider } from '../../geom/provider.ts'
import type { Topology } from '../../geom/topology.ts'
import { FreebsdDevice } from './import.ts'
import { type Found, findFreebsdLabel } from './label.ts'

export class FreebsdImports {
  readonly #devices = new Map<string, FreebsdDevice>()

  get all(): readonly FreebsdDevice[] {
    return [...this.#devices.values()]
  }

  /** The one that is served under a name. */
  named(name: string): FreebsdDevice | undefined {
    return this.all.find((one) => one.served?.provider.name === name)
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

  /** Everything that is there has been tasted. */
  async settled(): Promise<void> {
    for (const device of this.all) await device.assemble()
  }

  async stop(): Promise<void> {
    for (const device of this.all) await device.wither()
  }

  /** Lets the components of a device go; whoever runs {@link Topology.tastePending} next looks at them again. */
  async dissolve(device: FreebsdDevice): Promise<void> {
    const { topology, consumers } = device
    const providers = consumers.map(({ provider }) => provider)
    await device.wither()
    topology.removeGeom(device)
    for (const [key, one] of this.#devices) if (one === device) this.#devices.delete(key)
    for (const provider of providers) topology.tasteAgain(provider)
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
