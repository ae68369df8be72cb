/**
 * The one list of the verbs of vinum and `volume`; vinum-class.ts carries them out. `convert` and `assemble`
 * work on sets that are not assembled yet, so their rows are vinum-class.ts's own.
 */
import type { VinumVerb } from '../plan.ts'
import { ATTACH } from './attach.ts'
import { CREATE } from './create.ts'
import { DETACH } from './detach.ts'
import { MOVE } from './move.ts'
import { RM, VOLUME_DESTROY } from './remove.ts'
import { RENAME, VOLUME_RENAME } from './rename.ts'
import { PRINTCONFIG, RESETCONFIG, SAVECONFIG, STOP } from './set-verbs.ts'
import { SHORT_FORMS, VOLUME_CREATE } from './short-forms.ts'
import { SPARE_VERBS } from './spares.ts'
import { PARITY_VERBS, SETSTATE, START, VOLUME_SCRUB } from './states.ts'
import { VOLUME_UNDELETE } from './undelete.ts'
import {
  GROW,
  VOLUME_ADD_MIRROR,
  VOLUME_GROW,
  VOLUME_REMOVE_MIRROR,
  VOLUME_REPLACE,
  VOLUME_SET,
} from './volume-change.ts'

export const VINUM_VERBS: readonly VinumVerb[] = [
  CREATE,
  ...SHORT_FORMS,
  GROW,
  ATTACH,
  DETACH,
  MOVE,
  RENAME,
  RM,
  RESETCONFIG,
  SAVECONFIG,
  PRINTCONFIG,
  SETSTATE,
  START,
  STOP,
  ...PARITY_VERBS,
  ...SPARE_VERBS,
  VOLUME_CREATE,
  VOLUME_GROW,
  VOLUME_DESTROY,
  VOLUME_RENAME,
  VOLUME_REPLACE,
  VOLUME_ADD_MIRROR,
  VOLUME_REMOVE_MIRROR,
  VOLUME_SET,
  VOLUME_SCRUB,
  VOLUME_UNDELETE,
]
