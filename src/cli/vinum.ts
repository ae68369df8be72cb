/** Lists of vinum's objects: `vinum list` and its kin, `volume list`, `volume show`. Rows: control/vinum-rows.ts. */
import type {
  DriveRow,
  PlexRow,
  SubdiskRow,
  VinumListing,
  VolumeRow,
} from '../control/vinum-rows.ts'
import { type Column, renderTable, type TableOptions } from './render.ts'

type ProcessRow = PlexRow['process']

function processText(process: ProcessRow): string | undefined {
  if (!process) return undefined
  const { kind, paused, doneBytes, totalBytes } = process
  const percent = totalBytes > 0 ? Math.floor((doneBytes / totalBytes) * 100) : 100
  return `${kind} ${percent}%${paused ? ' paused' : ''}`
}

export const DRIVE_COLUMNS: readonly Column<DriveRow>[] = [
  { name: 'drive', value: (row) => row.name },
  { name: 'state', value: (row) => row.state.toUpperCase(), kind: 'state' },
  { name: 'device', value: (row) => row.device },
  { name: 'free', value: (row) => row.freeBytes, kind: 'size' },
  { name: 'size', value: (row) => row.sizeBytes, kind: 'size' },
  {
    name: 'free%',
    value: (row) => (row.sizeBytes > 0 ? Math.floor((row.freeBytes / row.sizeBytes) * 100) : 0),
    kind: 'number',
  },
  { name: 'subdisks', value: (row) => row.subdisks, kind: 'number' },
  { name: 'present', value: (row) => row.present, extra: true },
  { name: 'media', value: (row) => row.mediaBytes, kind: 'size', extra: true },
  { name: 'block', value: (row) => row.blockBytes, kind: 'number', extra: true },
  { name: 'set', value: (row) => row.set, extra: true },
  { name: 'uuid', value: (row) => row.uuid, extra: true },
]

export const VOLUME_COLUMNS: readonly Column<VolumeRow>[] = [
  { name: 'volume', value: (row) => row.name },
  { name: 'state', value: (row) => row.state.toUpperCase(), kind: 'state' },
  { name: 'health', value: (row) => row.health, kind: 'state' },
  { name: 'plexes', value: (row) => row.plexes, kind: 'number' },
  { name: 'size', value: (row) => row.sizeBytes, kind: 'size' },
  { name: 'open', value: (row) => row.open },
  {
    name: 'read-policy',
    value: (row) =>
      row.preferredPlex === undefined ? row.readPolicy : `${row.readPolicy} ${row.preferredPlex}`,
    extra: true,
  },
  { name: 'set', value: (row) => row.set, extra: true },
  { name: 'uuid', value: (row) => row.uuid, extra: true },
]

export const PLEX_COLUMNS: readonly Column<PlexRow>[] = [
  { name: 'plex', value: (row) => row.name },
  { name: 'organization', value: (row) => row.organization },
  { name: 'state', value: (row) => row.state.toUpperCase(), kind: 'state' },
  { name: 'subdisks', value: (row) => row.subdisks, kind: 'number' },
  { name: 'size', value: (row) => row.sizeBytes, kind: 'size' },
  { name: 'volume', value: (row) => row.volume },
  { name: 'process', value: (row) => processText(row.process) },
  { name: 'stripe', value: (row) => row.stripeBytes || undefined, kind: 'size', extra: true },
  { name: 'parity', value: (row) => row.parityLayout, extra: true },
  { name: 'set', value: (row) => row.set, extra: true },
  { name: 'uuid', value: (row) => row.uuid, extra: true },
]

export const SUBDISK_COLUMNS: readonly Column<SubdiskRow>[] = [
  { name: 'subdisk', value: (row) => row.name },
  { name: 'state', value: (row) => row.state.toUpperCase(), kind: 'state' },
  { name: 'drive', value: (row) => row.drive },
  { name: 'size', value: (row) => row.sizeBytes, kind: 'size' },
  { name: 'plex', value: (row) => row.plex },
  { name: 'process', value: (row) => processText(row.process) },
  { name: 'moving-to', value: (row) => row.movingTo, extra: true },
  { name: 'plex-offset', value: (row) => row.plexOffsetBytes, kind: 'size', extra: true },
  { name: 'drive-offset', value: (row) => row.driveOffsetBytes, kind: 'size', extra: true },
  { name: 'set', value: (row) => row.set, extra: true },
  { name: 'uuid', value: (row) => row.uuid, extra: true },
]

interface FreeRow {
  readonly drive: string
  readonly offset: number
  readonly length: number
}

const FREE_COLUMNS: readonly Column<FreeRow>[] = [
  { name: 'drive', value: (row) => row.drive },
  { name: 'free-offset', value: (row) => row.offset, kind: 'size' },
  { name: 'free-length', value: (row) => row.length, kind: 'size' },
]

/** All four tables, those without lines left out: each has its own columns, so -o and --sort do not apply. */
export function renderListing(listing: VinumListing, options: TableOptions): string {
  const plain = { ...options, output: undefined, sort: undefined }
  const free = listing.drives.flatMap((drive) =>
    (drive.freeList ?? []).map(({ offset, length }) => ({ drive: drive.name, offset, length })),
  )
  const tables = [
    listing.drives.length > 0 ? renderTable(DRIVE_COLUMNS, listing.drives, plain) : '',
    free.length > 0 ? renderTable(FREE_COLUMNS, free, plain) : '',
    listing.volumes.length > 0 ? renderTable(VOLUME_COLUMNS, listing.volumes, plain) : '',
    listing.plexes.length > 0 ? renderTable(PLEX_COLUMNS, listing.plexes, plain) : '',
    listing.subdisks.length > 0 ? renderTable(SUBDISK_COLUMNS, listing.subdisks, plain) : '',
  ].filter((one) => one !== '')
  return tables.length > 0 ? tables.join('\n') : 'vinum has no objects\n'
}
