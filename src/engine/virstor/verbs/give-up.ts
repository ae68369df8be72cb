/**
 * `virstor remove NAME DEVICE... --force`: components that are missing for good are given up. One commit takes them out and
 * says that what the map has there is lost (`lost` of the configuration); its entries follow (VirstorDevice.giveUp). What is lost
 * fails with a medium error until it is written again or discarded.
 */
import { formatSize } from '../../../base/bytes.ts'
import type { Plan } from '../../verbs/plan.ts'
import { type ComponentRecord, driveOf, isUp, type VirstorModel } from '../model.ts'
import type { Fail, VirstorContext } from './context.ts'

/** Ranges that are listed; the others are counted. */
const RANGES_SHOWN = 3

/** Refuses components that are here. A device that is served has a copy of its map on one that stays. */
export function giveUp(
  context: VirstorContext,
  gone: readonly ComponentRecord[],
  fail: Fail,
): Plan<VirstorModel> {
  const { model } = context
  const { name } = model
  const here = gone.find((one) => isUp(model, one))
  if (here) {
    const drive = driveOf(model, here)?.name
    const how = `plexus virstor remove ${name} ${drive} moves what it holds to the others`
    fail('invalid', `${name}: component ${drive} is here, and nothing of it need be lost: ${how}`)
  }
  const drives = gone.flatMap((one) => driveOf(model, one) ?? [])
  const { chunks, text } = lossOf(context, gone)
  const warnings =
    chunks > 0
      ? ['what is given up cannot be read until it is written again or discarded: a medium error']
      : []
  const isAway = (one: ComponentRecord): boolean => !context.isPresent(one.driveUuid)
  return {
    model: {
      ...model,
      drives: model.drives.filter((drive) => !drives.includes(drive)),
      components: model.components.filter((one) => !gone.includes(one)),
      copies: model.copies.filter(({ component }) => gone.every(({ id }) => id !== component)),
      lost: [...model.lost, ...gone.map(({ id }) => id)],
    },
    steps: [
      { text: `give up ${text}, on ${drives.map((drive) => drive.name).join(', ')}`, object: name },
      ...drives.map((drive) => ({
        text: `remove component ${drive.name} from ${name}`,
        object: name,
      })),
    ],
    warnings: [...warnings, ...gone.filter(isAway).map((one) => labelWarning(model, one))],
    newDrives: [],
    retired: drives.filter((drive) => context.isPresent(drive.uuid)),
  }
}

/** What goes with components: chunks of the device, and in words. */
export function lossOf(
  { model, map }: VirstorContext,
  gone: readonly ComponentRecord[],
): { readonly chunks: number; readonly text: string } {
  const { chunkBytes } = model
  const chunks = Uint32Array.from(gone.flatMap(({ id }) => [...(map?.chunksOn(id) ?? [])])).sort()
  const ranges: string[] = []
  let more = 0
  for (let first = 0, next = 0; first < chunks.length; first = next) {
    const chunk = chunks[first] as number
    for (next = first + 1; chunks[next] === chunk + next - first; ) next++
    const end = (chunk + next - first) * chunkBytes - 1
    if (ranges.length < RANGES_SHOWN) ranges.push(`${chunk * chunkBytes} to ${end}`)
    else more++
  }
  const where = ranges.length > 0 ? `, bytes ${ranges.join(', ')}` : ''
  const rest = more > 0 ? ` and ${more} more ranges` : ''
  return {
    chunks: chunks.length,
    text: `${chunks.length} chunks of ${formatSize(chunkBytes)}${where}${rest}`,
  }
}

/** Its label says that it belongs to the device. */
export function labelWarning(model: VirstorModel, component: ComponentRecord): string {
  const { name, device } = driveOf(model, component) ?? { name: '', device: '' }
  return `the label on component ${name} stays: its device is not here; if it comes back: plexus device clear-label ${device}`
}
