/**
 * Names under which LUNs lead to providers. Every class asks here before it gives a name to something new: what has it,
 * what had it and is not served now, and what LUNs of it have led to. The daemon remembers the last of these
 * (daemon/identity-store.ts).
 */
import { PlexusError, toPlexusError } from '../../base/errors.ts'
import { NAME_BYTES } from '../../base/limits.ts'
import { topOf } from '../../control/objects.ts'
import { objectsOf } from './listing.ts'
import type { Topology } from './topology.ts'

/** Why a text cannot be the name of an object, or undefined when it can. */
export function nameFault(name: string): string | undefined {
  if (name === '') return 'a name must not be empty'
  if (Buffer.byteLength(name) > NAME_BYTES) return `a name has at most ${NAME_BYTES} bytes`
  if (!/^[^\s\p{C}#'"/\\]+$/u.test(name)) {
    return 'a name has no blanks, control characters, quotes, slashes or #'
  }
  return name.startsWith('-') ? 'a name does not begin with -' : undefined
}

/** What LUNs have led to, also before the last start. */
export interface LunNames {
  /** UUID of the volume or thin device to which LUNs of this name have led; undefined: none, or a device. */
  ledTo(name: string): string | undefined
  /** These names lead to nothing any more. Durable when it resolves. */
  release(names: readonly string[]): Promise<void>
}

/** No LUN has led anywhere. */
export const NO_LUN_NAMES: LunNames = { ledTo: () => undefined, release: async () => {} }

/** As the WWID of the provider of what has this UUID says it. */
export function wwidOf(uuid: string): string {
  return `uuid.${uuid}`
}

/** Have LUNs of this name led to something else than `uuid` that is not served now? They must find nothing in its place. */
export function isLentElsewhere(topology: Topology, name: string, uuid?: string): boolean {
  const holder = topology.lunNames.ledTo(name)
  if (holder === undefined || holder === uuid) return false
  return [...topology.providers.values()].every(({ identity }) => identity.wwid !== wwidOf(holder))
}

/** What LUNs have led to was destroyed: its name is free. Returns a warning where that could not be written. */
export async function releaseName(
  { lunNames }: Topology,
  name: string,
  uuid: string,
): Promise<readonly string[]> {
  if (lunNames.ledTo(name) !== uuid) return []
  try {
    await lunNames.release([name])
    return []
  } catch (error) {
    const { message } = toPlexusError(error, 'release', name)
    return [`LUNs of ${name} still mean what was destroyed, its name is not free: ${message}`]
  }
}

/** Throws `exists` when something has the name, of whatever class. */
export function checkNameFree(topology: Topology, name: string): void {
  const holder = topology.providers.get(name)
  if (holder) refuse(name, `${name} is a ${holder.geom.className} already; choose another name`)
  checkNameNotAway(topology, name)
}

/** Throws `exists` when what has the name, or what LUNs of it have led to, is not served now. */
export function checkNameNotAway(topology: Topology, name: string): void {
  const objects = objectsOf(topology.classes)
  const holder = objects.find((one) => one.name === name && topOf(one, objects).type === 'set')
  if (holder) {
    const hint = 'plexus status says what there is to do. Until then choose another name'
    refuse(name, `${name} exists already on ${holder.set}, which is not served now: ${hint}`)
  }
  if (!isLentElsewhere(topology, name)) return
  refuse(
    name,
    `${name} exists already: LUNs have led to it, and its drives are not here. Connect them, or choose another name; ` +
      `if it is not to come back: plexus vinum forget ${name}`,
  )
}

function refuse(name: string, message: string): never {
  throw new PlexusError('exists', { op: 'create', subject: name, message })
}
