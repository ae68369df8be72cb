/**
 * The labels of Plexus itself, and FreeBSD's vinum and GEOM labels: rows of the table of signatures.ts, and the magics that
 * src/engine writes. Sources: docs/on-disk-format.md, FreeBSD's sys/geom.
 */
import { formatSize } from '../base/bytes.ts'
import { KIB } from '../base/limits.ts'
import {
  ascii,
  type DiskShape,
  lastSector,
  type SignatureDetail,
  type SignatureRow,
  text,
} from './signature-fields.ts'

/** What begins the last sector of a disk that belongs to a Plexus volume; the class and a version follow. */
export const PLEXUS_MAGIC = ascii('PLEXUS::')
/** The copy of it in the first MiB; and what a conversion of virstor begins with that has not ended (docs/on-disk-format.md). */
export const PLEXUS_FRONT_MAGIC = ascii('PLEXHEAD')
export const CONVERSION_MAGIC = ascii('PLEXCONV')
const PLEXUS_FRONT_PLACES = [60 * KIB, 132 * KIB]

/** Classes whose metadata is magic[16], version, name[16]. */
const GEOM_NAMED = new Set(['CONCAT', 'LABEL', 'MIRROR', 'RAID3', 'SHSEC', 'STRIPE', 'VIRSTOR'])
const GEOM_OWN_ROW = new Set(['GEOM::MULTIPATH', 'GEOM::VIRSTOR'])

function geomDetail(bytes: Buffer): SignatureDetail | undefined {
  const name = text(bytes, 0, 16) ?? 'GEOM::'
  if (GEOM_OWN_ROW.has(name)) return undefined
  return { name, label: GEOM_NAMED.has(name.slice(6)) ? text(bytes, 20, 16) : undefined }
}

/** A label that was made for another size: the disk has grown, has shrunk, or is a copy. */
function plexusDetail(bytes: Buffer, _offset: number, disk: DiskShape): SignatureDetail {
  const mediaBytes = Number(bytes.readBigUInt64LE(72))
  const sizes = `for ${formatSize(mediaBytes)} (the disk is ${formatSize(disk.sizeBytes)} now)`
  return mediaBytes === disk.sizeBytes ? {} : { name: `Plexus label ${sizes}` }
}

export const OWN_ROWS: readonly SignatureRow[] = [
  {
    kind: 'plexus',
    name: 'Plexus',
    at: (disk) => [...lastSector(disk), ...PLEXUS_FRONT_PLACES],
    length: 512,
    magic: [PLEXUS_MAGIC, PLEXUS_FRONT_MAGIC].map((magic) => [0, magic] as const),
    detail: plexusDetail,
  },
  {
    kind: 'freebsd',
    name: 'vinum',
    at: [4 * KIB],
    length: 512,
    // VINUM-1 (big endian, since FreeBSD 8); IN VINO (in the byte order of the machine) before.
    magic: [
      [0, ascii('VINUM-1\0')],
      [0, ascii('IN VINO\0')],
      [0, ascii('\0ONIV NI')],
    ],
    // A 32-bit legacy header has its host name at 12 and its drive name at 44, all others at 16 and 48.
    detail: (b) => ({ label: text(b, b.readUInt32LE(12) !== 0 && b[0] !== 0x56 ? 44 : 48, 32) }),
  },
  {
    kind: 'freebsd',
    name: 'GEOM::MULTIPATH',
    at: lastSector,
    length: 512,
    magic: [[0, ascii('GEOM::MULTIPATH\0')]],
    detail: (b) => ({ label: text(b, 56, 16), uuid: text(b, 16, 40) }),
  },
  {
    kind: 'freebsd',
    name: 'GEOM::VIRSTOR',
    at: lastSector,
    length: 512,
    magic: [ascii('GEOM::VIRSTOR\0'), CONVERSION_MAGIC].map((magic) => [0, magic] as const),
    detail: (b) => ({ label: text(b, b[0] === CONVERSION_MAGIC[0] ? 84 : 20, 16) }),
  },
  {
    kind: 'freebsd',
    name: 'GEOM',
    at: lastSector,
    length: 512,
    magic: [[0, ascii('GEOM::')]],
    detail: geomDetail,
  },
]
