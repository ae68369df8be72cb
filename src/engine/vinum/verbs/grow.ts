/** `vinum grow PLEX DEVICE…`: more room in a plex (docs/vinum.md, 6). */
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import { planning } from './draft.ts'
import { resolveDrives } from './drives.ts'
import { growPlex } from './growth.ts'
import { findTyped } from './lookup.ts'

export const GROW = planning(VINUM_SPECS.grow, ['devices'], (draft) => {
  const plex = findTyped(draft.model, 'plex', draft.text('plex'))
  growPlex(draft, plex, resolveDrives(draft, draft.list('devices')))
})
