/** What a label says, for tests of what is on a device. */
import type { AnchorTarget } from '../../src/engine/anchor/anchor-ends.ts'
import { findLabel } from '../../src/engine/anchor/anchor-find.ts'
import type { Anchor } from '../../src/engine/anchor/anchor-layout.ts'

/** The anchor of a device that may be used, or undefined when it has none. Throws as findLabel. */
export async function readAnchor(device: AnchorTarget): Promise<Anchor | undefined> {
  const found = await findLabel(device)
  return found?.problem ? undefined : found?.anchor
}
