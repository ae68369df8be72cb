/** `vinum rename` and `volume rename`: names are labels, identity is the UUID (spec/vinum.md, 6 and 8.21). */
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import { VOLUME_SPECS } from '../../../control/volume-verbs.ts'
import type { PlexRecord, VolumeRecord } from '../model/model.ts'
import type { PlanningVerb } from '../plan.ts'
import { Draft } from './draft.ts'
import { checkNewName, type FoundObject, findObject, findTyped } from './lookup.ts'
import { flag, list, text } from './parameters.ts'
import { checkVolumeName } from './short-forms.ts'

export const RENAME: PlanningVerb = {
  spec: VINUM_SPECS.rename,
  devices: (parameters) => list(parameters, 'to'),
  plan(context, parameters) {
    const draft = new Draft(context, 'vinum rename')
    const found = findObject(draft.model, text(parameters, 'from', draft.op), draft.op)
    rename(draft, found, text(parameters, 'to', draft.op), flag(parameters, 'recursive'))
    return draft.finish()
  },
}

export const VOLUME_RENAME: PlanningVerb = {
  spec: VOLUME_SPECS.rename,
  devices: (parameters) => list(parameters, 'to'),
  plan(context, parameters) {
    const draft = new Draft(context, 'volume rename')
    const record = findTyped(draft.model, 'volume', text(parameters, 'name', draft.op), draft.op)
    rename(draft, { type: 'volume', record }, text(parameters, 'to', draft.op), true)
    return draft.finish()
  },
}

/** Fewest dots in the names of each type: `V.pN`, `V.pN.sM`. */
const DOTS = { volume: 0, plex: 1, subdisk: 2, drive: 0 } as const

function rename(draft: Draft, found: FoundObject, to: string, recursive: boolean): void {
  const { type, record } = found
  if (record.name === to) {
    draft.warn(`${to} has that name already`)
    return
  }
  if (to.split('.').length - 1 < DOTS[type]) {
    const form = type === 'plex' ? 'VOLUME.pN' : 'VOLUME.pN.sM'
    draft.fail('invalid', to, `"${to}" cannot be the name of a ${type}; its form is ${form}`)
  }
  if (type === 'volume' && draft.context.isOpen(record.uuid)) {
    draft.fail(
      'in-use',
      record.name,
      `volume ${record.name} is in use under its name; take its LUN away first`,
    )
  }
  if (type === 'volume') renameVolume(draft, record, to, recursive)
  else if (type === 'plex') renamePlex(draft, record, to, recursive)
  else {
    give(draft, type, record.name, to)
    if (type === 'subdisk') draft.putSubdisk({ ...record, name: to })
    else draft.putDrive({ ...record, name: to })
  }
}

function give(draft: Draft, type: FoundObject['type'], from: string, to: string): void {
  checkNewName(draft.model, type, to, draft.op)
  draft.step(`rename ${type} ${from} to ${to}`, to)
}

function renameVolume(draft: Draft, volume: VolumeRecord, to: string, recursive: boolean): void {
  checkVolumeName(draft, to)
  give(draft, 'volume', volume.name, to)
  draft.putVolume({ ...volume, name: to })
  if (!recursive) return
  draft.plexesOf(volume).forEach((plex, index) => {
    renamePlex(draft, plex, `${to}.p${index}`, true)
  })
}

function renamePlex(draft: Draft, plex: PlexRecord, to: string, recursive: boolean): void {
  if (plex.name !== to) {
    give(draft, 'plex', plex.name, to)
    draft.putPlex({ ...plex, name: to })
  }
  if (!recursive) return
  draft.subdisksOf(plex).forEach((subdisk, index) => {
    const name = `${to}.s${index}`
    if (subdisk.name === name) return
    give(draft, 'subdisk', subdisk.name, name)
    draft.putSubdisk({ ...subdisk, name })
  })
}
