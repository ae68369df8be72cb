/** What virstor reports of its objects (control/reports.ts): thin devices and their components. */
import { formatSize } from '../../base/bytes.ts'
import {
  type ObjectReport,
  type ObjectType,
  SET_AND_UUID,
  SIZE,
  STATE,
  WATERMARKS,
} from '../../control/reports.ts'
import { choiceOf, describeIncomplete } from '../metadata/assembling.ts'
import { adviceOn } from '../metadata/members.ts'
import { absentSet, SET_TYPE } from '../metadata/set-report.ts'
import { freeText } from './device.ts'
import { type ComponentRecord, isUp } from './model.ts'
import type { VirstorSet } from './virstor-set.ts'

export const VIRSTOR_TYPES: readonly ObjectType[] = [
  {
    name: 'virstor',
    plural: 'thin devices',
    columns: [
      { label: 'name', key: 'name' },
      STATE,
      SIZE,
      { label: 'chunk', key: 'chunkBytes', kind: 'size' },
      { label: 'space', key: 'physicalBytes', kind: 'size' },
      { label: 'used', key: 'usedBytes', kind: 'size' },
      { label: 'free', key: 'freeBytes', kind: 'size' },
      { label: 'low', key: 'isLow' },
      { label: 'warn', key: 'warnBytes', kind: 'size', extra: true },
      { label: 'components', key: 'components', kind: 'number' },
      ...SET_AND_UUID,
    ],
  },
  {
    name: 'component',
    plural: 'components of thin devices',
    columns: [
      { label: 'component', key: 'name' },
      STATE,
      SIZE,
      { label: 'of', key: 'parent' },
      { label: 'device', key: 'lastDevice' },
      { label: 'used-chunks', key: 'usedChunks', kind: 'number' },
      { label: 'map', key: 'carriesMap' },
      ...SET_AND_UUID,
    ],
  },
  SET_TYPE,
]

/** Of one set: the device that is on it, or why that is not served. */
export function setObjects(set: VirstorSet): readonly ObjectReport[] {
  return set.hasDevice ? deviceReports(set) : set.assembled ? [] : waiting(set)
}

/** One that has gone is told as such before that is durable. */
function serves(set: VirstorSet, component: ComponentRecord): boolean {
  return isUp(set.model, component) && set.driveOf(component).present
}

function missingOf(set: VirstorSet): readonly string[] {
  return set.model.components
    .filter((component) => !serves(set, component))
    .map((component) => set.driveOf(component).record.name)
}

function stateOf(set: VirstorSet): 'UP' | 'DEGRADED' | 'DOWN' {
  if (!set.device) return 'DOWN'
  return missingOf(set).length > 0 ? 'DEGRADED' : 'UP'
}

/** The device, and its components. */
function deviceReports(set: VirstorSet): readonly ObjectReport[] {
  const { model, device, problem } = set
  const { name, uuid, virtualBytes, chunkBytes, components } = model
  const common = { className: 'virstor', set: set.name }
  const state = stateOf(set)
  const missing = missingOf(set)
  const { total = 0, used = 0, free = 0, lowMark = 0 } = device?.space ?? {}
  const isLow = device?.space.isLow('chunks') ?? false
  const away =
    missing.length > 0
      ? `Component ${missing.join(', ')} is missing: what lies there cannot be read or written.`
      : ''
  const lostChunks = device?.table.lostChunks ?? 0
  const lost =
    lostChunks > 0
      ? `${lostChunks} chunks of ${formatSize(chunkBytes)} were given up with their components, and cannot be read until they are written again or discarded.`
      : ''
  const runsOut =
    device?.space.free === 0
      ? 'All space is given away: writes to new places wait, and fail.'
      : device && isLow
        ? `Space runs out: ${freeText(device.space)}.`
        : ''
  const report: ObjectReport = {
    ...common,
    type: 'virstor',
    name,
    uuid,
    state,
    health:
      state === 'UP'
        ? isLow || lostChunks > 0
          ? 'DEGRADED'
          : 'HEALTHY'
        : state === 'DOWN'
          ? 'FAULTED'
          : state,
    sizeBytes: virtualBytes,
    note: device
      ? `thin, ${formatSize(used * chunkBytes)} of ${formatSize(total * chunkBytes)} used`
      : 'thin',
    status: [problem === undefined ? '' : `It is not served: ${problem}.`, away, lost, runsOut]
      .filter(Boolean)
      .join(' '),
    action: isLow
      ? `Add space: plexus virstor add ${name} DEVICE`
      : missing.length > 0
        ? `Connect ${missing.join(', ')}.`
        : lostChunks > 0
          ? 'Restore from a backup what was given up, or discard all of the device that is not in use.'
          : '',
    process: set.job.report ?? set.trim?.report(),
    facts: {
      chunkBytes,
      physicalBytes: total * chunkBytes,
      usedBytes: used * chunkBytes,
      freeBytes: free * chunkBytes,
      warnBytes: lowMark * chunkBytes,
      isLow,
      lostChunks,
      low: WATERMARKS.filter((one) => device?.space.isLow(one)).join(', '),
      components: components.length,
    },
  }
  const parts = components.map((component): ObjectReport => {
    const { record, present, consumer } = set.driveOf(component)
    const space = device?.space.components.find((one) => one.component.id === component.id)
    const carriesMap = model.copies.some((copy) => copy.component === component.id)
    const notes = [
      space ? `${space.used} of ${space.total} chunks used` : '',
      carriesMap ? 'carries the map' : '',
      component.leaving ? 'is being emptied' : '',
    ]
    return {
      ...common,
      type: 'component',
      name: record.name,
      uuid: record.uuid,
      parent: name,
      state: serves(set, component) ? 'UP' : 'DOWN',
      sizeBytes: component.chunks * chunkBytes,
      note: notes.filter(Boolean).join(', '),
      drive: record.name,
      device: present ? consumer?.provider.name : undefined,
      lastDevice: record.device,
      facts: { usedChunks: space?.used, carriesMap },
    }
  })
  return [report, ...parts]
}

function waiting(set: VirstorSet): readonly ObjectReport[] {
  const models = [...set.members.values()].flatMap(({ model }) => model ?? [])
  const [model] = models.sort((a, b) => b.generation - a.generation)
  if (!model || model.drives.length === 0) return []
  const { name, uuid } = set
  const status = `${name} with ${model.name} is not served: ${describeIncomplete(set)}.`
  const action = adviceOn(choiceOf(set), set)
  const part = { ...model, type: 'virstor', sizeBytes: model.virtualBytes }
  return absentSet({ className: 'virstor', name, uuid, status, action }, [part])
}
