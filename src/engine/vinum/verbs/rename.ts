/** `vinum rename` and `volume rename`: names are labels, identity is the UUID (docs/vinum.md, 6 and 8.21). */
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import { VOLUME_SPECS } from '../../../control/volume-verbs.ts'
import type { ModelObject, ObjectType, PlexRecord, VolumeRecord } from '../model/model.ts'
import { type Draft, planning } from './draft.ts'
import { checkNewName, findObject, findTyped } from './lookup.ts'
import { checkVolumeName } from './short-forms.ts'

export const RENAME = planning(VINUM_SPECS.rename, ['to'], (draft) => {
  const found = findObject(draft.model, draft.text('from'))
  rename(draft, found, draft.text('to'), draft.flag('recursive'))
})

export const VOLUME_RENAME = planning(VOLUME_SPECS.rename, ['to'], (draft) => {
  const record = findTyped(draft.model, 'volume', draft.text('name'))
  rename(draft, { type: 'volume', record }, draft.text('to'), true)
})

/** Fewest dots in the names of each type: `V.pN`, `V.pN.sM`. */
const DOTS = { volume: 0, plex: 1, subdisk: 2, drive: 0 } as const

function rename(draft: Draft, found: ModelObject, to: string, recursive: boolean): void {
  const { type, record } = found
  if (record.name === to) {
    draft.warn`${to} has that name already`
    return
  }
  if (to.split('.').length - 1 < DOTS[type]) {
    const form = type === 'plex' ? 'VOLUME.pN' : 'VOLUME.pN.sM'
    throw draft.invalid`"${to}" cannot be the name of a ${type}; its form is ${form}`
  }
  if (type === 'volume' && draft.context.isOpen(record.uuid))
    throw draft.inUse`volume ${record.name} is in use under its name; take its LUN away first`
  if (type === 'volume') renameVolume(draft, record, to, recursive)
  else if (type === 'plex') renamePlex(draft, record, to, recursive)
  else {
    give(draft, type, record.name, to)
    if (type === 'subdisk') draft.put('subdisks', { ...record, name: to })
    else draft.put('drives', { ...record, name: to })
  }
}

function give(draft: Draft, type: ObjectType, from: string, to: string): void {
  checkNewName(draft, type, to)
  draft.stepOn(to, `rename ${type} ${from} to ${to}`)
}

function renameVolume(draft: Draft, volume: VolumeRecord, to: string, recursive: boolean): void {
  checkVolumeName(draft, to)
  give(draft, 'volume', volume.name, to)
  draft.put('volumes', { ...volume, name: to })
  if (!recursive) return
  draft.plexesOf(volume).forEach((plex, index) => {
    renamePlex(draft, plex, `${to}.p${index}`, true)
  })
}

function renamePlex(draft: Draft, plex: PlexRecord, to: string, recursive: boolean): void {
  if (plex.name !== to) {
    give(draft, 'plex', plex.name, to)
    draft.put('plexes', { ...plex, name: to })
  }
  if (!recursive) return
  draft.subdisksOf(plex).forEach((subdisk, index) => {
    const name = `${to}.s${index}`
    if (subdisk.name === name) return
    give(draft, 'subdisk', subdisk.name, name)
    draft.put('subdisks', { ...subdisk, name })
  })
}
