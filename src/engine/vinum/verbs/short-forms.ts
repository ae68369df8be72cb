/**
 * `vinum concat`, `stripe`, `mirror`, `raid5`: a whole volume in one line (spec/vinum.md, 6). All four are one
 * planner over a table row; `volume create` (volume-create.ts) uses it, too.
 */
import { STRIPE_BYTES_DEFAULT } from '../../../base/limits.ts'
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import type { VerbParameters } from '../../geom/types.ts'
import type { DriveRecord, ParityLayout } from '../model/model.ts'
import type { Plan, PlanContext, PlanningVerb } from '../plan.ts'
import { buildVolume, type PlexLayout } from './build.ts'
import { Draft } from './draft.ts'
import { resolveNames } from './drives.ts'
import { checkNewName, freeName, lookUp } from './lookup.ts'
import { flag, list, optionalSize, optionalText } from './parameters.ts'

/** What a form makes of its drives; throws for a number of drives that it cannot use. */
export type Arrange = (
  draft: Draft,
  drives: readonly DriveRecord[],
  parameters: VerbParameters,
) => readonly PlexLayout[]

export function concatOf(drives: readonly DriveRecord[]): PlexLayout {
  return { organization: 'concat', stripeBytes: 0, parityLayout: undefined, drives }
}

export function stripedOf(drives: readonly DriveRecord[], stripeBytes: number): PlexLayout {
  return { organization: 'striped', stripeBytes, parityLayout: undefined, drives }
}

/** Parameters `stripeSize` and its default. */
export function stripeOf(draft: Draft, parameters: VerbParameters): number {
  return optionalSize(parameters, 'stripeSize', draft.op) ?? STRIPE_BYTES_DEFAULT
}

export const arrangeConcat: Arrange = (_draft, drives) => [concatOf(drives)]

export const arrangeStripe: Arrange = (draft, drives, parameters) => [
  stripedOf(drives, stripeOf(draft, parameters)),
]

export const arrangeRaid5: Arrange = (draft, drives, parameters) => [
  {
    organization: 'raid5',
    stripeBytes: stripeOf(draft, parameters),
    parityLayout: (optionalText(parameters, 'parity') ?? 'left-symmetric') as ParityLayout,
    drives,
  },
]

/** Deals the drives to two copies in turn: the first to p0, the second to p1, and so on. */
const arrangeMirror: Arrange = (draft, drives, parameters) => {
  const striped = flag(parameters, 'striped')
  if (drives.length % 2 !== 0 || drives.length === 0) {
    draft.fail(
      'invalid',
      'mirror',
      `mirror needs an even number of drives, and ${drives.length} were named: half of them for each copy`,
    )
  }
  if (striped && drives.length < 4) {
    draft.fail(
      'invalid',
      'mirror',
      `a striped mirror needs at least 4 drives, 2 for each copy, and ${drives.length} were named; name more, or leave --striped out`,
    )
  }
  return [0, 1].map((copy) => {
    const own = drives.filter((_, index) => index % 2 === copy)
    return striped ? stripedOf(own, STRIPE_BYTES_DEFAULT) : concatOf(own)
  })
}

/**
 * Throws `invalid` or `exists`, the latter also when a device has the name: the volume becomes a provider beside
 * it. The verb must list the name among its `devices`, so that it is looked at.
 */
export function checkVolumeName(draft: Draft, name: string): void {
  checkNewName(draft.model, 'volume', name, draft.op)
  const device = draft.context.candidate(name)
  if (!device) return
  draft.fail(
    'exists',
    name,
    `${name} exists: it is the device ${device.path}; choose another name for the volume`,
  )
}

/** Resolves the devices and builds the volume; starts what it needs. */
export function createVolume(
  draft: Draft,
  name: string,
  devices: readonly string[],
  arrange: Arrange,
  parameters: VerbParameters,
): void {
  checkVolumeName(draft, name)
  const drives = resolveNames(draft, devices, parameters)
  const plexes = arrange(draft, drives, parameters)
  const sizeBytes = optionalSize(parameters, 'size', draft.op)
  const volume = buildVolume(draft, { name, plexes, sizeBytes })
  draft.startJobs(volume)
}

function shortForm(form: 'concat' | 'stripe' | 'mirror' | 'raid5', arrange: Arrange): PlanningVerb {
  return {
    spec: VINUM_SPECS[form],
    devices: (parameters) => [...list(parameters, 'devices'), ...list(parameters, 'name')],
    plan(context: PlanContext, parameters): Plan {
      const draft = new Draft(context, `vinum ${form}`)
      const asked = optionalText(parameters, 'name')
      const name = asked ?? freeName(draft.model, 'vinumvolume')
      const existing = lookUp(draft.model, name)
      if (existing?.type === 'volume' && flag(parameters, 'force')) {
        draft.warn(`${name} exists and is left as it is`)
        return draft.finish()
      }
      createVolume(draft, name, list(parameters, 'devices'), arrange, parameters)
      return draft.finish()
    },
  }
}

export const SHORT_FORMS: readonly PlanningVerb[] = [
  shortForm('concat', arrangeConcat),
  shortForm('stripe', arrangeStripe),
  shortForm('mirror', arrangeMirror),
  shortForm('raid5', arrangeRaid5),
]
