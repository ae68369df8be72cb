/**
 * Sets that are not served now: those that wait for drives, and those of which the machine remembers that it had them. What
 * `plexus status` says of them. Used by reports.ts.
 */
import type { ObjectReport } from '../../control/reports.ts'
import { choiceOf, describeIncomplete } from '../metadata/assembling.ts'
import { adviceOn } from '../metadata/members.ts'
import { absentSet } from '../metadata/set-report.ts'
import { loseDrives } from './model/membership.ts'
import type { VinumModel } from './model/model.ts'
import { healthOf } from './model/state-rules.ts'
import { setName } from './naming.ts'
import type { SetRegistry } from './registry.ts'
import type { VinumSet } from './set/vinum-set.ts'

interface Absent {
  readonly name: string
  readonly model: VinumModel
  /** undefined: none of its drives is here. */
  readonly set: VinumSet | undefined
  /** What each drive was, by UUID. */
  readonly drives: Readonly<Record<string, string>>
}

/** Sets with drives that are not served, those that wait first. */
function unserved({ native, known }: SetRegistry): readonly Absent[] {
  const waiting = native.flatMap((set): Absent[] => {
    if (set.assembled) return []
    const models = [...set.members.values()].flatMap(({ model }) => model ?? [])
    const [model] = models.sort((a, b) => b.generation - a.generation)
    const kept = known.find((one) => one.model.setUuid === set.uuid)
    const isEmpty = (model ?? kept?.model)?.drives.length === 0
    const found = isEmpty ? undefined : (model ?? kept?.model)
    return found ? [{ name: set.name, model: found, set, drives: kept?.drives ?? {} }] : []
  })
  const away = known.filter(({ model }) => native.every(({ uuid }) => uuid !== model.setUuid))
  return [
    ...waiting,
    ...away.map(({ model, drives }) => {
      return { name: setName(model.setUuid), model, set: undefined, drives }
    }),
  ]
}

/** What `plexus status` says of them, with both ways to go on, and what is on them. */
export function absentSets(registry: SetRegistry): readonly ObjectReport[] {
  return unserved(registry).flatMap((absent) => {
    const { name, model } = absent
    const volumes = model.volumes.map((one) => one.name).join(', ')
    const { why, action } = trouble(absent, registry)
    const status = `${name}${volumes && ` with ${volumes}`} is not served: ${why}.`
    const set = { className: 'vinum', name, uuid: model.setUuid, status, action }
    return absentSet(
      set,
      model.volumes.map((one) => ({ ...one, type: 'volume' })),
    )
  })
}

function trouble(
  absent: Absent,
  { resting }: SetRegistry,
): { readonly why: string; readonly action: string } {
  const { name, model, set } = absent
  if (set) return { why: describeIncomplete(set), action: waysOn(absent, set) }
  if (resting) {
    return { why: 'vinum was stopped', action: 'To serve it again: plexus vinum assemble' }
  }
  return {
    why: `none of its ${model.drives.length} drives is here`,
    action:
      `Connect ${driveTexts(absent, model.drives)}. Or, if it is not to come back: ` +
      `plexus vinum forget ${name}; its names are free then.`,
  }
}

function driveTexts({ drives }: Absent, of: VinumModel['drives']): string {
  return of.map(({ uuid, name, device }) => `${name} (${drives[uuid] ?? device})`).join(', ')
}

/** Connect what is missing, or go on without it, and what that costs. */
function waysOn(absent: Absent, set: VinumSet): string {
  const { name, model } = absent
  const missing = model.drives.filter(({ uuid, state }) => state === 'up' && !set.members.has(uuid))
  const force = `plexus vinum assemble --force ${name}`
  const choice = choiceOf(set)
  if (choice.kind === 'split') return adviceOn(choice, set)
  if (missing.length === 0) return `To go on with what is here: ${force}`
  const without = loseDrives(
    model,
    missing.map(({ uuid }) => uuid),
  )
  const costs = model.volumes.flatMap((volume) => {
    const health = healthOf(without, volume.uuid)
    return health === 'HEALTHY' ? [] : `${volume.name} is ${health}`
  })
  const cost = costs.length > 0 ? `, and ${costs.join(', ')}` : ''
  return (
    `Connect ${driveTexts(absent, missing)}. Or go on without: ${force}; what only missing drives have is lost ` +
    `then${cost}.`
  )
}
