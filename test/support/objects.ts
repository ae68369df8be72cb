/** The objects of the classes (src/control/reports.ts) as trees, with their facts beside the common fields: easier to look into. */
import { partsIn } from '../../src/control/objects.ts'
import type { ObjectReport } from '../../src/control/reports.ts'
import { objectsOf } from '../../src/engine/geom/listing.ts'
import type { Topology } from '../../src/engine/geom/topology.ts'

/** Plex, subdisk, component of a thin device. */
export interface PartView extends ObjectReport {
  readonly organization?: string
  readonly stripeBytes?: number
  readonly subdisks?: number
  readonly policy?: string
  readonly driveOffsetBytes?: number
  readonly children: readonly PartView[]
}

/** Volume, thin device. */
export interface VolumeView extends ObjectReport {
  readonly freeBytes?: number
  /** undefined: nothing is. */
  readonly doubt: { readonly bytes: number; readonly retrySeconds: number | undefined } | undefined
  readonly components: readonly PartView[]
}

export interface DriveView extends ObjectReport {
  readonly freeBytes?: number
  readonly format?: string
}

export function volumesIn({ classes }: Topology): readonly VolumeView[] {
  const objects = objectsOf(classes)
  const partsOf = partsIn(objects)
  const partView = (part: ObjectReport): PartView => ({
    ...part.facts,
    ...part,
    children: partsOf(part).map(partView),
  })
  return objects
    .filter(({ type, parent }) => (type === 'volume' || type === 'virstor') && parent === undefined)
    .map((one) => ({
      ...one.facts,
      ...one,
      doubt: doubtOf(one),
      components: partsOf(one).map(partView),
    }))
}

function doubtOf({ facts }: ObjectReport): VolumeView['doubt'] {
  const { doubtBytes, doubtRetrySeconds } = facts
  if (typeof doubtBytes !== 'number') return undefined
  const retrySeconds = typeof doubtRetrySeconds === 'number' ? doubtRetrySeconds : undefined
  return { bytes: doubtBytes, retrySeconds }
}

export function drivesIn({ classes }: Topology): readonly DriveView[] {
  const drives = objectsOf(classes).filter(({ type }) => type === 'drive')
  return drives.map((one) => ({ ...one.facts, ...one }))
}

/** Sets that are not served. */
export function absentIn({ classes }: Topology): readonly ObjectReport[] {
  return objectsOf(classes).filter(({ type }) => type === 'set')
}
