/** What is reported of a set of drives that is not served, for every class: the set, and what would be on it. */
import type { Health, ObjectReport, ObjectType } from '../../control/reports.ts'
import { SET_AND_UUID, STATE } from '../../control/reports.ts'

export const SET_TYPE: ObjectType = {
  name: 'set',
  plural: 'sets of drives that are not served',
  columns: [
    { label: 'name', key: 'name' },
    STATE,
    { label: 'class', key: 'className' },
    { label: 'status', key: 'status' },
    ...SET_AND_UUID.slice(1),
  ],
}

const FAULTED: Health = 'FAULTED'

/** The set with its parts, as one object for `plexus status`; they are named, so that nothing new takes their names. */
export function absentSet(
  set: Pick<ObjectReport, 'className' | 'name' | 'uuid'> & {
    readonly status: string
    readonly action: string
  },
  parts: readonly Pick<ObjectReport, 'type' | 'name' | 'uuid' | 'sizeBytes'>[],
): readonly ObjectReport[] {
  const { className, name } = set
  const common = { className, set: name, state: 'DOWN', note: '', facts: {} }
  const sizeBytes = parts.reduce((sum, one) => sum + one.sizeBytes, 0)
  return [
    { ...common, ...set, type: SET_TYPE.name, health: FAULTED, sizeBytes },
    ...parts.map((part) => ({ ...common, ...part, parent: name })),
  ]
}
