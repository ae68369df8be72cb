/**
 * Whose disk is it: what the label of one of our classes on a device says, for people, and whether its set is one of
 * this machine. Only reads, and takes nothing. The daemon asks before it lets initiators write to a device as it is.
 */
import type { AnchorTarget } from '../anchor/anchor-ends.ts'
import { findLabel } from '../anchor/anchor-find.ts'
import type { GeomClass } from './types.ts'

/** What a label says. */
export interface Label {
  /** `drive d2 of vinum set 6f0c…`. */
  readonly text: string
  /** The command that takes the device out of its set, where the class has one. */
  readonly takeOut?: string
  /** The volumes that have parts on it. */
  readonly volumes: readonly string[]
  /** Its set is known to the class from other devices of this machine: in operation, or waiting for drives. */
  readonly known: boolean
}

/**
 * The label on a device; undefined: it carries none of ours. Throws what reading fails with: a device that could not be
 * looked at must not pass for a blank one.
 */
export async function readLabel(
  device: AnchorTarget,
  classes: readonly GeomClass[],
): Promise<Label | undefined> {
  // Whatever is the matter with it, somebody has put it there.
  const anchor = (await findLabel(device))?.anchor
  for (const one of classes) {
    if (anchor && anchor.className !== one.name) continue
    const label = await one.readLabel?.(device, anchor)
    if (label) return label
  }
  if (!anchor) return undefined
  const text = `a disk of class ${anchor.className}, set ${anchor.setUuid}`
  return { text, volumes: [], known: false }
}
