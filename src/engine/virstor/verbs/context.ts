/** What a verb of virstor is that changes the configuration: the rows of verbs.ts. */
import { type ErrorKind, PlexusError } from '../../../base/errors.ts'
import type { VerbSpec } from '../../../control/verb-spec.ts'
import type { VerbParameters } from '../../geom/types.ts'
import type { PlanContext, PlanningVerb } from '../../verbs/plan.ts'
import type { ComponentSpace } from '../io/space.ts'
import type { MapTable } from '../map/chunk-map.ts'
import type { VirstorModel } from '../model.ts'
import type { VirstorSet } from '../virstor-set.ts'

export interface VirstorContext extends PlanContext<VirstorModel> {
  /** Is the device open: a LUN is mapped, or something stands on it? */
  readonly isOpen: boolean
  /** What is in use on its components; undefined: it is not served. */
  readonly space: readonly ComponentSpace[] | undefined
  /** Its map; undefined: it is not served. */
  readonly map: MapTable | undefined
}

export interface VirstorVerb extends PlanningVerb<VirstorModel, VirstorContext> {
  /**
   * Carries the plan out: `next` is the model that it leads to, and `carryOut` commits it and lets it take effect. Absent:
   * there is nothing to do before that.
   */
  around?<T>(set: VirstorSet, next: VirstorModel, carryOut: () => Promise<T>): Promise<T>
}

export type Fail = (kind: ErrorKind, message: string) => never

export function failing({ name: op }: VerbSpec, subject: string): Fail {
  return (kind, message) => {
    throw new PlexusError(kind, { op, subject, message })
  }
}

/** Those that a verb of components names. */
export function devicesOf(parameters: VerbParameters): readonly string[] {
  const { devices } = parameters
  return Array.isArray(devices) ? devices : []
}

/** What is in use on the components. Refuses where the device is not served, and nothing can be moved. */
export function checkServed(
  name: string,
  space: VirstorContext['space'],
  fail: Fail,
): readonly ComponentSpace[] {
  const why = `${name} is not served, so that nothing can be moved; plexus status says what is missing`
  return space ?? fail('gone', why)
}

/** Refuses what cannot be begun while a job works on the chunks. */
export function checkNoJob({ name, job }: VirstorModel, fail: Fail): void {
  if (!job) return
  const what = { evacuate: 'components are being removed', rebalance: 'it is being rebalanced' }
  fail(
    'in-use',
    `${name}: ${what[job.kind]}; wait for that (plexus wait ${name}), or cancel it (plexus job list)`,
  )
}
