/** `vinum grow PLEX DEVICE…`: more room in a plex (spec/vinum.md, 6). */
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import type { PlanningVerb } from '../plan.ts'
import { Draft } from './draft.ts'
import { resolveDrives } from './drives.ts'
import { growPlex } from './growth.ts'
import { findTyped } from './lookup.ts'
import { list, text } from './parameters.ts'

export const GROW: PlanningVerb = {
  spec: VINUM_SPECS.grow,
  devices: (parameters) => list(parameters, 'devices'),
  plan(context, parameters) {
    const draft = new Draft(context, 'vinum grow')
    const plex = findTyped(draft.model, 'plex', text(parameters, 'plex', draft.op), draft.op)
    growPlex(draft, plex, resolveDrives(draft, parameters))
    return draft.finish()
  },
}
