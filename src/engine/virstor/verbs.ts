/**
 * The verbs of virstor that change its configuration, as plans (docs/adr/0007-verbs-are-plans.md). Each is about one
 * device; virstor-class.ts finds its set.
 */
import { alignDown, alignUp, formatSize, parseSize } from '../../base/bytes.ts'
import { GIB, MIB, VIRSTOR_CHUNKS } from '../../base/limits.ts'
import { newUuid } from '../../base/random.ts'
import type { PlanStep } from '../../control/reports.ts'
import { VIRSTOR_SPECS } from '../../control/virstor-verbs.ts'
import { planAnchor } from '../anchor/anchor-layout.ts'
import type { VerbParameters } from '../geom/types.ts'
import { nameFault, shown } from '../metadata/fields.ts'
import { byUuid } from '../metadata/lists.ts'
import { driveRecord, labelStep, lastName, usable, wipeWarnings } from '../verbs/new-drive.ts'
import type { NewDrive, Plan } from '../verbs/plan.ts'
import { BAD_COMPONENT } from './map/chunk-map.ts'
import { JOURNAL_BLOCK_BYTES } from './map/journal.ts'
import {
  CHUNK_BYTES,
  type ComponentRecord,
  chunksIn,
  MAP_COPIES,
  mapChunks,
  type VirstorModel,
} from './model.ts'
import {
  devicesOf,
  type Fail,
  failing,
  type VirstorContext,
  type VirstorVerb,
} from './verbs/context.ts'
import { GROW } from './verbs/grow.ts'
import { REBALANCE } from './verbs/rebalance.ts'
import { REMOVE } from './verbs/remove.ts'
import { SET, usualSettings, withSettings } from './verbs/settings.ts'

const DEFAULT_SIZE_BYTES = 2048 * GIB
const DEFAULT_CHUNK_BYTES = 4 * MIB
const COMPONENTS_MAX = BAD_COMPONENT - 1

const create: VirstorVerb = {
  spec: VIRSTOR_SPECS.create,
  devices: devicesOf,
  plan(context, parameters) {
    const name = String(parameters['name'])
    const fail = failing(VIRSTOR_SPECS.create, name)
    const fault = nameFault(name)
    if (fault !== undefined)
      fail('invalid', `${shown(name)} cannot be the name of a device: ${fault}`)
    const chunkBytes = alignUp(sizeOf(parameters, 'chunk', DEFAULT_CHUNK_BYTES), CHUNK_BYTES.unit)
    if (chunkBytes === 0 || chunkBytes > CHUNK_BYTES.max) {
      const { unit, max } = CHUNK_BYTES
      fail('invalid', `--chunk must be from ${formatSize(unit)} to ${formatSize(max)}`)
    }
    const virtualBytes = alignDown(sizeOf(parameters, 'size', DEFAULT_SIZE_BYTES), chunkBytes)
    if (virtualBytes === 0) {
      fail('invalid', `--size must be at least one chunk of ${formatSize(chunkBytes)}`)
    }
    if (virtualBytes / chunkBytes > VIRSTOR_CHUNKS)
      fail('invalid', 'larger chunks are needed for this size: --chunk')
    const uuid = newUuid(context.random)
    const settings = {
      name,
      uuid,
      virtualBytes,
      chunkBytes,
    }
    const added = addComponents({ ...context.model, ...settings }, context, parameters, fail)
    const blockBytes = Math.max(...added.model.drives.map((drive) => drive.blockBytes))
    const usual = { ...added.model, blockBytes, ...usualSettings(added.model) }
    const model = withCopies(withSettings(usual, parameters, fail).model, fail)
    const physicalBytes = bytesOf(model)
    const warnings =
      virtualBytes < physicalBytes
        ? [
            `the components have ${formatSize(physicalBytes)}, more than the device will have: that is not thin`,
          ]
        : []
    const step: PlanStep = {
      text:
        `create thin device ${name}: ${formatSize(virtualBytes)} in chunks of ${formatSize(chunkBytes)}, with ` +
        `${formatSize(physicalBytes)} of space`,
      object: name,
    }
    return {
      model,
      steps: [...added.steps, step],
      warnings: [...added.warnings, ...warnings],
      newDrives: added.newDrives,
      retired: [],
    }
  },
}

const add: VirstorVerb = {
  spec: VIRSTOR_SPECS.add,
  devices: devicesOf,
  plan(context, parameters) {
    const { name } = context.model
    const { model, steps, warnings, newDrives } = addComponents(
      context.model,
      context,
      parameters,
      failing(VIRSTOR_SPECS.add, name),
    )
    const text = `add ${formatSize(bytesOf(model) - bytesOf(context.model))} of space to ${name}`
    return { model, steps: [...steps, { text, object: name }], warnings, newDrives, retired: [] }
  },
}

const destroy: VirstorVerb = {
  spec: VIRSTOR_SPECS.destroy,
  plan({ model, isOpen }) {
    const { name, drives } = model
    if (isOpen) {
      const why = `virstor ${name} is in use; take it out of the configuration's LUNs first`
      failing(VIRSTOR_SPECS.destroy, name)('in-use', why)
    }
    const steps = [
      { text: `destroy thin device ${name} and all that is on it`, object: name },
      ...drives.map((drive) => ({ text: `remove label from ${drive.name}`, object: drive.name })),
    ]
    const gone = { drives: [], components: [], copies: [], job: undefined }
    const emptied = { ...model, ...gone, virtualBytes: 0 }
    return { model: emptied, steps, warnings: [], newDrives: [], retired: drives }
  },
}

export const VIRSTOR_VERBS: readonly VirstorVerb[] = [
  create,
  add,
  SET,
  REMOVE,
  REBALANCE,
  destroy,
  GROW,
]

function sizeOf(parameters: VerbParameters, key: string, usual: number): number {
  const text = parameters[key]
  return typeof text === 'string' ? parseSize(text) : usual
}

interface Added extends Pick<Plan<VirstorModel>, 'model' | 'steps' | 'warnings' | 'newDrives'> {}

function addComponents(
  before: VirstorModel,
  { candidate, random }: VirstorContext,
  parameters: VerbParameters,
  fail: Fail,
): Added {
  const wipes = parameters['wipeSignatures'] === true
  const made: NewDrive[] = []
  let model = before
  for (const device of devicesOf(parameters)) {
    if (made.some((one) => one.candidate.name === device))
      fail('invalid', `${device} is named twice`)
    const found = usable(candidate(device), { op: VIRSTOR_SPECS.add.name, name: device, wipes })
    // Initiators know the block size, and it must not change; who has smaller blocks takes larger ones.
    const { blockBytes: blocks } = before
    if (blocks > 0 && found.blockBytes > blocks) {
      fail(
        'invalid',
        `${found.path}: blocks of ${found.blockBytes} bytes, and ${before.name} has ${blocks}; use a device with smaller ones`,
      )
    }
    const record = driveRecord(found, nameFor(model, lastName(found)), random)
    const component: ComponentRecord = {
      id: model.nextComponent,
      driveUuid: record.uuid,
      startBytes: record.dataStartBytes,
      chunks: chunksIn(record, { startBytes: record.dataStartBytes }, model),
      leaving: false,
    }
    if (component.chunks === 0) {
      const room = formatSize(record.dataEndBytes - record.dataStartBytes)
      fail(
        'no-space',
        `${found.path}: ${room} are no chunk of ${formatSize(model.chunkBytes)}; use a larger device`,
      )
    }
    if (component.id > COMPONENTS_MAX)
      fail('no-space', `a device has ${COMPONENTS_MAX} components at most`)
    made.push({ candidate: found, record })
    model = {
      ...model,
      drives: [...model.drives, record],
      components: [...model.components, component],
      nextComponent: component.id + 1,
    }
  }
  return {
    model,
    steps: made.map(labelStep),
    warnings: made.flatMap(wipeWarnings),
    newDrives: made,
  }
}

/** A drive is named as its device, with a number where another one has that name. */
function nameFor({ drives }: VirstorModel, wanted: string): string {
  const isTaken = (name: string): boolean => drives.some((one) => one.name === name)
  for (let number = 1; ; number++) {
    const name = number === 1 ? wanted : `${wanted}-${number}`
    if (!isTaken(name)) return name
  }
}

/** Gives the map its places at the start of the first components that have room for it and more. */
function withCopies(model: VirstorModel, fail: Fail): VirstorModel {
  const { chunkBytes } = model
  const count = mapChunks(model)
  const carriers = model.components.filter(({ chunks }) => chunks > count).slice(0, MAP_COPIES)
  if (carriers.length === 0) {
    const need = formatSize((count + 1) * chunkBytes)
    fail(
      'no-space',
      `the map takes ${formatSize(count * chunkBytes)}: one component at least must have ${need}`,
    )
  }
  const journals = carriers.map(({ driveUuid }) => {
    const drive = byUuid(model.drives, driveUuid)
    return drive ? planAnchor(drive.mediaBytes, drive.blockBytes).journal.length : 0
  })
  return {
    ...model,
    copies: carriers.map(({ id }, index) => {
      return { component: id, epoch: index + 1, runs: [{ number: 0, count }] }
    }),
    nextEpoch: carriers.length + 1,
    journalBlocks: Math.floor(Math.min(...journals) / JOURNAL_BLOCK_BYTES),
  }
}

/** Space for data, bytes. */
export function bytesOf({ components, copies, chunkBytes }: VirstorModel): number {
  const chunks = components.reduce((sum, one) => sum + one.chunks, 0)
  const mapChunks = copies.flatMap(({ runs }) => runs).reduce((sum, { count }) => sum + count, 0)
  return (chunks - mapChunks) * chunkBytes
}
