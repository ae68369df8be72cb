/**
 * `vinum concat`, `stripe`, `mirror`, `raid5`: a whole volume in one line (docs/vinum.md, 6). All four are one
 * planner over a table row; `volume create` (volume-create.ts) uses it, too.
 */
import { STRIPE_BYTES_DEFAULT } from '../../../base/limits.ts'
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import type { DriveRecord, ParityLayout } from '../model/model.ts'
import type { PlanningVerb } from '../plan.ts'
import { buildVolume, type PlexLayout } from './build.ts'
import { type Draft, planning } from './draft.ts'
import { resolveDrives } from './drives.ts'
import { checkNewName, freeName, lookUp } from './lookup.ts'

/** What a form makes of its drives; throws for a number of drives that it cannot use. */
export type Arrange = (draft: Draft, drives: readonly DriveRecord[]) => readonly PlexLayout[]

export function concatOf(drives: readonly DriveRecord[]): PlexLayout {
  return { organization: 'concat', stripeBytes: 0, parityLayout: undefined, drives }
}

export function stripedOf(drives: readonly DriveRecord[], stripeBytes: number): PlexLayout {
  return { organization: 'striped', stripeBytes, parityLayout: undefined, drives }
}

/** Parameter `stripeSize` and its default. */
function stripeOf(draft: Draft): number {
  return draft.optionalSize('stripeSize') ?? STRIPE_BYTES_DEFAULT
}

export const arrangeConcat: Arrange = (_draft, drives) => [concatOf(drives)]

export const arrangeStripe: Arrange = (draft, drives) => [stripedOf(drives, stripeOf(draft))]

export const arrangeRaid5: Arrange = (draft, drives) => [
  {
    organization: 'raid5',
    stripeBytes: stripeOf(draft),
    parityLayout: (draft.optionalText('parity') ?? 'left-symmetric') as ParityLayout,
    drives,
  },
]

/** Deals the drives to two copies in turn: the first to p0, the second to p1, and so on. */
const arrangeMirror: Arrange = (draft, drives) => {
  const striped = draft.flag('striped')
  if (drives.length % 2 !== 0 || drives.length === 0) {
    const why = `mirror needs an even number of drives, and ${drives.length} were named: half of them for each copy`
    draft.fail('invalid', 'mirror', why)
  }
  if (striped && drives.length < 4) {
    const why = `a striped mirror needs at least 4 drives, 2 for each copy, and ${drives.length} were named; name more, or leave --striped out`
    draft.fail('invalid', 'mirror', why)
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
  checkNewName(draft, 'volume', name)
  const device = draft.context.candidate(name)
  if (!device) return
  const why = `${name} exists: it is the device ${device.path}; choose another name for the volume`
  draft.fail('exists', name, why)
}

/** Resolves the devices and builds the volume; starts what it needs. */
export function createVolume(
  draft: Draft,
  name: string,
  devices: readonly string[],
  arrange: Arrange,
): void {
  checkVolumeName(draft, name)
  const drives = resolveDrives(draft, devices)
  const plexes = arrange(draft, drives)
  const sizeBytes = draft.optionalSize('size')
  const volume = buildVolume(draft, { name, plexes, sizeBytes })
  draft.startJobs(volume)
}

function shortForm(form: 'concat' | 'stripe' | 'mirror' | 'raid5', arrange: Arrange): PlanningVerb {
  return planning(VINUM_SPECS[form], ['devices', 'name'], (draft) => {
    const name = draft.optionalText('name') ?? freeName(draft.model, 'vinumvolume')
    if (lookUp(draft.model, name)?.type === 'volume' && draft.flag('force')) {
      draft.warn(`${name} exists and is left as it is`)
    } else createVolume(draft, name, draft.list('devices'), arrange)
  })
}

export const SHORT_FORMS: readonly PlanningVerb[] = [
  shortForm('concat', arrangeConcat),
  shortForm('stripe', arrangeStripe),
  shortForm('mirror', arrangeMirror),
  shortForm('raid5', arrangeRaid5),
]
