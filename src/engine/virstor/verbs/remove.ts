/**
 * `virstor remove NAME DEVICE...`: components leave. The plan only says so; a job moves what they hold (moves/set-job.ts), and
 * takes them out when they are empty. What is lost for good: give-up.ts.
 */
import { formatSize } from '../../../base/bytes.ts'
import type { PlanStep } from '../../../control/reports.ts'
import { VIRSTOR_SPECS } from '../../../control/virstor-verbs.ts'
import { planAnchor } from '../../anchor/anchor-layout.ts'
import type { ComponentSpace } from '../io/space.ts'
import { JOURNAL_BLOCK_BYTES } from '../map/journal.ts'
import { type ComponentRecord, driveOf, isUp, mapChunks, type VirstorModel } from '../model.ts'
import {
  checkNoJob,
  checkServed,
  devicesOf,
  type Fail,
  failing,
  type VirstorVerb,
} from './context.ts'
import { giveUp, labelWarning, lossOf } from './give-up.ts'

export const REMOVE: VirstorVerb = {
  spec: VIRSTOR_SPECS.remove,
  plan(context, parameters) {
    const { model, isPresent } = context
    const { name } = model
    const fail: Fail = failing(VIRSTOR_SPECS.remove, name)
    checkNoJob(model, fail)
    const gone = new Set(
      devicesOf(parameters).map((typed) => componentNamed(model, typed, isPresent, fail)),
    )
    if (gone.size === model.components.length) {
      fail(
        'invalid',
        `${name}: that is all it has, and one component stays; plexus virstor destroy ${name} ends it`,
      )
    }
    const space = checkServed(name, context.space, fail)
    if (parameters['force'] === true) return giveUp(context, [...gone], fail)
    const leaving = [...gone].map((component) => ({
      component,
      drive: nameOf(model, component),
      chunks: dataOf(space, component),
    }))
    for (const { component, drive, chunks } of leaving) {
      if (chunks === 0 || isUp(model, component)) continue
      fail(
        'gone',
        `${name}: component ${drive} is missing and holds ${lossOf(context, [component]).text}; connect it, then repeat. If it ` +
          `never comes back, plexus virstor remove ${name} ${drive} --force gives that up, and the rest goes on`,
      )
    }
    checkRoom(model, space, gone, fail)
    const steps = leaving.flatMap(({ component, drive, chunks }): PlanStep[] => [
      {
        text: `move ${formatSize(chunks * model.chunkBytes)} from ${drive} to the other components, while in use`,
        object: drive,
      },
      ...(model.copies.some((copy) => copy.component === component.id)
        ? [{ text: `have another component carry the map instead of ${drive}`, object: drive }]
        : []),
      { text: `remove component ${drive} from ${name}, and its label`, object: name },
    ])
    const away = leaving.filter(({ component }) => !isPresent(component.driveUuid))
    return {
      model: {
        ...model,
        components: model.components.map((one) =>
          gone.has(one) ? { ...one, leaving: true } : one,
        ),
        job: { kind: 'evacuate', paused: false, limitBytesPerSecond: undefined },
      },
      steps,
      warnings: away.map(({ component }) => labelWarning(model, component)),
      newDrives: [],
      retired: [],
    }
  },
}

/** A component by the name of its drive, or of the device that carries it. */
function componentNamed(
  model: VirstorModel,
  typed: string,
  isPresent: (driveUuid: string) => boolean,
  fail: Fail,
): ComponentRecord {
  const drive =
    model.drives.find(({ name }) => name === typed) ??
    model.drives.find(({ device, uuid }) => device === typed && isPresent(uuid))
  const found = drive && model.components.find(({ driveUuid }) => driveUuid === drive.uuid)
  if (found) return found
  const names = model.components.map((component) => nameOf(model, component))
  return fail('not-found', `${model.name} has no component "${typed}"; it has ${names.join(', ')}`)
}

function nameOf(model: VirstorModel, component: ComponentRecord): string {
  return driveOf(model, component)?.name ?? ''
}

/** Chunks that lie on a component. */
function dataOf(space: readonly ComponentSpace[], { id }: ComponentRecord): number {
  const found = space.find(({ component }) => component.id === id)
  return found ? found.used - found.reserved : 0
}

/** The others must have room for all that leaves, and for a copy of the map where all copies leave. */
function checkRoom(
  model: VirstorModel,
  space: readonly ComponentSpace[],
  gone: ReadonlySet<ComponentRecord>,
  fail: Fail,
): void {
  const { name, chunkBytes } = model
  const data = [...gone].reduce((sum, component) => sum + dataOf(space, component), 0)
  const stays = model.components.filter((one) => !gone.has(one) && isUp(model, one))
  const freeOf = ({ id }: ComponentRecord): number =>
    space.find(({ component }) => component.id === id)?.free ?? 0
  const free = stays.reduce((sum, component) => sum + freeOf(component), 0)
  const isCarried = model.copies.some(({ component }) => stays.some(({ id }) => id === component))
  const map = isCarried ? 0 : mapChunks(model)
  const missing = data + map - free
  if (missing > 0) {
    const size = (chunks: number): string => formatSize(chunks * chunkBytes)
    fail(
      'no-space',
      `${name}: ${size(data + map)} must go to the other components, and they have ${size(free)} free: ${size(missing)} are ` +
        `missing; plexus virstor add ${name} DEVICE adds some`,
    )
  }
  if (isCarried || stays.some((one) => freeOf(one) >= map && canCarry(model, one))) return
  const need = formatSize(map * chunkBytes)
  fail(
    'no-space',
    `${name}: none of the other components can carry the map, which takes ${need} on one of them and a journal as long as it ` +
      `has now; plexus virstor add ${name} DEVICE with a larger device`,
  )
}

function canCarry(model: VirstorModel, component: ComponentRecord): boolean {
  const drive = driveOf(model, component)
  if (!drive) return false
  const { journal } = planAnchor(drive.mediaBytes, drive.blockBytes)
  return journal.length >= model.journalBlocks * JOURNAL_BLOCK_BYTES
}
