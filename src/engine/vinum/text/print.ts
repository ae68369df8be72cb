/**
 * Prints a model as vinum's text (docs/vinum.md, 2.1) for people and `vinum create`; text/config.ts reads it again.
 */
import {
  byUuid,
  type PlexRecord,
  type SubdiskRecord,
  type VinumModel,
  type VolumeRecord,
} from '../model/model.ts'
import { READ_POLICY_WORDS } from './words.ts'

/** The text, each line ended by a newline. Sizes in sectors of 512, of which every block is a multiple. */
export function printConfigText(model: VinumModel): string {
  return [
    ...model.drives.map(({ name, device }) => `drive ${name} device ${quoted(device)}`),
    ...model.volumes.map((one) => volumeLine(model, one)),
    ...model.plexes.map((one) => plexLine(model, one)),
    ...model.subdisks.map((one) => subdiskLine(model, one)),
  ]
    .map((line) => `${line}\n`)
    .join('')
}

function sectors(bytes: number): string {
  return `${bytes / 512}s`
}

/** Words with blanks or comments in them need quotes; the model allows no " in a device (model-check.ts). */
function quoted(device: string): string {
  const path = `/dev/${device}`
  return /[\s#']/.test(path) ? `"${path}"` : path
}

function volumeLine(model: VinumModel, volume: VolumeRecord): string {
  const plex = byUuid(model.plexes, volume.preferredPlexUuid)
  // Round robin is the only one that FreeBSD knows, and what nothing said means.
  if (volume.readPolicy === 'round-robin') return `volume ${volume.name}`
  const preferred = volume.readPolicy === 'prefer' && plex ? ` ${plex.name}` : ''
  return `volume ${volume.name} readpol ${READ_POLICY_WORDS[volume.readPolicy]}${preferred}`
}

function plexLine(model: VinumModel, plex: PlexRecord): string {
  const stripe = plex.organization === 'concat' ? '' : ` ${sectors(plex.stripeBytes)}`
  const volume = byUuid(model.volumes, plex.volumeUuid)
  const layout = plex.parityLayout ? ` ${plex.parityLayout}` : ''
  const parent = volume ? `vol ${volume.name}` : 'detached'
  return `plex name ${plex.name} org ${plex.organization}${stripe}${layout} ${parent}`
}

function subdiskLine(model: VinumModel, subdisk: SubdiskRecord): string {
  const drive = byUuid(model.drives, subdisk.driveUuid)
  const plex = byUuid(model.plexes, subdisk.plexUuid)
  const parent = plex
    ? `plex ${plex.name} plexoffset ${sectors(subdisk.plexOffsetBytes)}`
    : 'detached'
  const place = `len ${sectors(subdisk.sizeBytes)} driveoffset ${sectors(subdisk.driveOffsetBytes)}`
  return `sd name ${subdisk.name} drive ${drive?.name} ${place} ${parent}`
}
