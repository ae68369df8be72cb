/** `volume create NAME --concat|--stripe|--mirror|--raid5 DEVICE…`: a volume in one line (docs/cli.md). */
import { VOLUME_SPECS } from '../../../control/volume-verbs.ts'
import type { VerbParameters } from '../../geom/types.ts'
import type { PlanningVerb } from '../plan.ts'
import { listOf, planning } from './draft.ts'
import {
  type Arrange,
  arrangeConcat,
  arrangeRaid5,
  arrangeStripe,
  concatOf,
  createVolume,
} from './short-forms.ts'

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
  raid5: { arrange: arrangeRaid5, takes: ['stripeSize', 'parity'] },
}
const DEPENDENT: Readonly<Record<string, string>> = {
  stripeSize: '--stripe-size',
  parity: '--parity',
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
    if (!row || another !== undefined) {
      const why = `volume create: say how the devices make ${name}, with exactly one of --concat, --stripe, --mirror, --raid5 and its devices`
      return draft.fail('invalid', name, why)
    }
    for (const [option, typed] of Object.entries(DEPENDENT)) {
      if (draft.parameters[option] === undefined || row.takes.includes(option)) continue
      const why = `volume create: ${typed} does not go with --${layout}; leave it out`
      draft.fail('invalid', typed, why)
    }
    createVolume(draft, name, draft.list(layout), row.arrange)
  }),
  devices: (parameters) =>
    [...layoutsIn(parameters), 'name'].flatMap((option) => listOf(parameters, option)),
}
