/**
 * `vinum concat`, `stripe`, `mirror`, `raid5` (docs/vinum.md, 6) and `volume create NAME --concat|--stripe|--mirror|--raid5
 * DEVICE…` (docs/cli.md): a whole volume in one line. All are one planner over a table row.
 */
import { STRIPE_BYTES_DEFAULT } from '../../../base/limits.ts'
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import { VOLUME_SPECS } from '../../../control/volume-verbs.ts'
import type { VerbParameters } from '../../geom/types.ts'
import { listOf } from '../../verbs/parameters.ts'
import type { DriveRecord, ParityLayout } from '../model/model.ts'
import type { PlanningVerb } from '../plan.ts'
import { buildVolume, type PlexLayout } from './build.ts'
import { type CrashPolicy, setPolicy } from './crash-policy.ts'
import { type Draft, planning } from './draft.ts'
import { resolveDrives } from './drives.ts'
import { checkNewName, freeName, lookUp } from './lookup.ts'

/** What a form makes of its drives; throws for a number of drives that it cannot use. */
type Arrange = (draft: Draft, drives: readonly DriveRecord[]) => readonly PlexLayout[]

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

const arrangeConcat: Arrange = (_draft, drives) => [concatOf(drives)]

const arrangeStripe: Arrange = (draft, drives) => [stripedOf(drives, stripeOf(draft))]

const arrangeRaid5: Arrange = (draft, drives) => [
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
  throw draft.exists`${name} exists: it is the device ${device.path}; choose another name for the volume`
}

/** Resolves the devices and builds the volume; starts what it needs. */
function createVolume(
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
  const policy = draft.optionalText('policy')
  if (policy !== undefined) {
    for (const plex of draft.plexesOf(volume)) {
      setPolicy(draft, plex, policy as CrashPolicy, { isNew: true })
    }
  }
  draft.startJobs(volume)
}

function shortForm(form: 'concat' | 'stripe' | 'mirror' | 'raid5', arrange: Arrange): PlanningVerb {
  return planning(VINUM_SPECS[form], ['devices', 'name'], (draft) => {
    const name = draft.optionalText('name') ?? freeName(draft.model, 'vinumvolume')
    if (lookUp(draft.model, name)?.type === 'volume' && draft.flag('force')) {
      draft.warn`${name} exists and is left as it is`
    } else createVolume(draft, name, draft.list('devices'), arrange)
  })
}

export const SHORT_FORMS: readonly PlanningVerb[] = [
  shortForm('concat', arrangeConcat),
  shortForm('stripe', arrangeStripe),
  shortForm('mirror', arrangeMirror),
  shortForm('raid5', arrangeRaid5),
]

/** A full copy on each drive. */
const arrangeCopies: Arrange = (draft, drives) => {
  if (drives.length < 2) {
    const why = 'a mirror needs at least 2 devices, one for each copy; name more'
    draft.fail('invalid', 'mirror', why)
  }
  return drives.map((drive) => concatOf([drive]))
}

/** The layouts by option; `takes`: options that only some of them have. */
const LAYOUTS: Readonly<
  Record<string, { readonly arrange: Arrange; readonly takes: readonly string[] }>
> = {
  concat: { arrange: arrangeConcat, takes: [] },
  stripe: { arrange: arrangeStripe, takes: ['stripeSize'] },
  mirror: { arrange: arrangeCopies, takes: [] },
  raid5: { arrange: arrangeRaid5, takes: ['stripeSize', 'parity', 'policy'] },
}
const DEPENDENT: Readonly<Record<string, string>> = {
  stripeSize: '--stripe-size',
  parity: '--parity',
  policy: '--policy',
}

/** The options of a layout that were given; one is what the verb wants. */
function layoutsIn(parameters: VerbParameters): readonly string[] {
  return Object.keys(LAYOUTS).filter((one) => listOf(parameters, one).length > 0)
}

export const VOLUME_CREATE: PlanningVerb = {
  ...planning(VOLUME_SPECS.create, [], (draft) => {
    const name = draft.text('name')
    const [layout = '', another] = layoutsIn(draft.parameters)
    const row = LAYOUTS[layout]
    if (!row || another !== undefined)
      throw draft.invalid`volume create: say how the devices make ${name}, with exactly one of --concat, --stripe, --mirror, --raid5 and its devices`
    for (const [option, typed] of Object.entries(DEPENDENT)) {
      if (draft.parameters[option] === undefined || row.takes.includes(option)) continue
      throw draft.invalid`volume create: ${typed} does not go with --${layout}; leave it out`
    }
    createVolume(draft, name, draft.list(layout), row.arrange)
  }),
  devices: (parameters) =>
    [...layoutsIn(parameters), 'name'].flatMap((option) => listOf(parameters, option)),
}
