/**
 * Prints a model as vinum's text (docs/vinum.md, 2.1): for people and `vinum create`, or as FreeBSD keeps it on its
 * drives. text/config.ts reads both again. Used by the verb printconfig and by images for tests.
 */
import {
  byUuid,
  type PlexRecord,
  type SubdiskRecord,
  type VinumModel,
  type VolumeRecord,
} from '../model/model.ts'

export interface PrintOptions {
  /** true: with drives and without states, as `printconfig` does. false: as on FreeBSD's drives. */
  readonly drives: boolean
}

/** The text, each line ended by a newline. Sizes in sectors of 512, of which every block is a multiple. */
export function printConfigText(model: VinumModel, { drives }: PrintOptions): string {
  const lines = [
    ...(drives
      ? model.drives.map(({ name, device }) => `drive ${name} device ${quoted(device)}`)
      : []),
    ...model.volumes.map((one) => volumeLine(model, one)),
    ...model.plexes.map((one) => plexLine(model, one, drives)),
    ...model.subdisks.map((one) => subdiskLine(model, one, drives)),
  ]
  const records = [...model.volumes, ...model.plexes, ...model.subdisks]
  const first = lines.length - records.length
  return lines
    .map((line, index) => {
      const record = records[index - first]
      return drives || !record ? `${line}\n` : `${line} state ${record.state}\n`
    })
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

const READ_POLICY = { 'round-robin': 'round', 'least-queue': 'least', prefer: 'prefer' } as const

function volumeLine(model: VinumModel, volume: VolumeRecord): string {
  const plex = byUuid(model.plexes, volume.preferredPlexUuid)
  // Round robin is the only one that FreeBSD knows, and what nothing said means.
  if (volume.readPolicy === 'round-robin') return `volume ${volume.name}`
  const preferred = volume.readPolicy === 'prefer' && plex ? ` ${plex.name}` : ''
  return `volume ${volume.name} readpol ${READ_POLICY[volume.readPolicy]}${preferred}`
}

function plexLine(model: VinumModel, plex: PlexRecord, people: boolean): string {
  const stripe = plex.organization === 'concat' ? '' : ` ${sectors(plex.stripeBytes)}`
  const volume = byUuid(model.volumes, plex.volumeUuid)
  const foreign = plex.parityLayout === 'left-symmetric'
  const layout = plex.parityLayout && (people || foreign) ? ` ${plex.parityLayout}` : ''
  const parent = volume ? ` vol ${volume.name}` : people ? ' detached' : ''
  return `plex name ${plex.name} org ${plex.organization}${stripe}${layout}${parent}`
}

function subdiskLine(model: VinumModel, subdisk: SubdiskRecord, people: boolean): string {
  const drive = byUuid(model.drives, subdisk.driveUuid)
  const plex = byUuid(model.plexes, subdisk.plexUuid)
  const parent = plex
    ? ` plex ${plex.name} plexoffset ${sectors(subdisk.plexOffsetBytes)}`
    : people
      ? ' detached'
      : ''
  const place = `len ${sectors(subdisk.sizeBytes)} driveoffset ${sectors(subdisk.driveOffsetBytes)}`
  return `sd name ${subdisk.name} drive ${drive?.name} ${place}${parent}`
}
