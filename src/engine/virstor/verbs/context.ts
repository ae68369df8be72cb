/** What the verbs of virstor have in common. */
import { type ErrorKind, PlexusError } from '../../../base/errors.ts'
import type { VerbSpec } from '../../../control/verb-spec.ts'
import type { VerbParameters } from '../../geom/types.ts'
import type { PlanContext, PlanningVerb } from '../../verbs/plan.ts'
import type { ComponentSpace } from '../io/space.ts'
import type { VirstorModel } from '../model.ts'

export interface VirstorContext extends PlanContext<VirstorModel> {
  /** Is the device open: a LUN is mapped, or something stands on it? */
  readonly isOpen: boolean
  /** What is in use on its components; undefined: it is not served. */
  readonly space: readonly ComponentSpace[] | undefined
}

export type VirstorVerb = PlanningVerb<VirstorModel, VirstorContext>

export type Fail = (kind: ErrorKind, message: string) => never

/** Refuses what a verb was to do with `subject`. */
export function failing({ name: op }: VerbSpec, subject: string): Fail {
  return (kind, message) => {
    throw new PlexusError(kind, { op, subject, message })
  }
}

/** The devices that a verb names. */
export function devicesOf({ devices }: VerbParameters): readonly string[] {
  return Array.isArray(devices) ? devices : []
}

/** Refuses what cannot be begun while a job works on the chunks. */
export function checkNoJob({ name, job }: VirstorModel, fail: Fail): void {
  if (!job) return
  fail(
    'in-use',
    `${name}: components are being removed; wait for that (plexus wait ${name}), or cancel it (plexus job list)`,
  )
}
