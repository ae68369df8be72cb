/** `volume create NAME --concat|--stripe|--mirror|--raid5 DEVICE…`: a volume in one line (design/surface.md). */
import { PlexusError } from '../../../base/errors.ts'
import { VOLUME_SPECS } from '../../../control/volume-verbs.ts'
import type { VerbParameters } from '../../geom/types.ts'
import type { PlanningVerb } from '../plan.ts'
import { Draft } from './draft.ts'
import { list, text } from './parameters.ts'
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
    draft.fail(
      'invalid',
      'mirror',
      'a mirror needs at least 2 devices, one for each copy; name more',
    )
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

function chosen(parameters: VerbParameters): string | undefined {
  const given = Object.keys(LAYOUTS).filter((one) => list(parameters, one).length > 0)
  return given.length === 1 ? given[0] : undefined
}

function devicesOf(parameters: VerbParameters): readonly string[] {
  const layout = chosen(parameters)
  return layout === undefined ? [] : list(parameters, layout)
}

export const VOLUME_CREATE: PlanningVerb = {
  spec: VOLUME_SPECS.create,
  devices: (parameters) => [...devicesOf(parameters), ...list(parameters, 'name')],
  plan(context, parameters) {
    const draft = new Draft(context, 'volume create')
    const name = text(parameters, 'name', draft.op)
    const layout = chosen(parameters)
    const row = layout === undefined ? undefined : LAYOUTS[layout]
    if (!row) {
      throw new PlexusError('invalid', {
        op: draft.op,
        subject: name,
        message: `volume create: say how the devices make ${name}, with exactly one of --concat, --stripe, --mirror, --raid5 and its devices`,
      })
    }
    for (const [option, typed] of Object.entries(DEPENDENT)) {
      if (parameters[option] === undefined || row.takes.includes(option)) continue
      draft.fail(
        'invalid',
        typed,
        `volume create: ${typed} does not go with --${layout}; leave it out`,
      )
    }
    createVolume(draft, name, devicesOf(parameters), row.arrange, parameters)
    return draft.finish()
  },
}
