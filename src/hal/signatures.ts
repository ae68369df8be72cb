/**
 * Finds data of other owners on a device before Plexus takes it: file systems, partition tables, RAID
 * members and so on. Walks the tables of signature-own.ts, signature-volumes.ts and signature-filesystems.ts; a format is
 * added there, as a row. To be called before a device is given to an initiator or to a volume.
 *
 * A false alarm costs the user one option; a miss costs the data. So the checks beside the magic numbers
 * are few, and only where the magic alone is too short to mean anything.
 */
import { assert } from '../base/assert.ts'
import { alignDown, alignUp } from '../base/bytes.ts'
import { PlexusError } from '../base/errors.ts'
import { KIB } from '../base/limits.ts'
import type { DiskShape, SignatureKind, SignatureRow } from './signature-fields.ts'
import { FILESYSTEM_ROWS } from './signature-filesystems.ts'
import { OWN_ROWS } from './signature-own.ts'
import { VOLUME_ROWS } from './signature-volumes.ts'

export type { SignatureKind } from './signature-fields.ts'

export interface Signature {
  readonly kind: SignatureKind
  /** The format, as people write it: `ext4`, `md 1.2`, `GPT`. */
  readonly name: string
  /** Name that the format's owner gave, cleaned of control characters. */
  readonly label: string | undefined
  /** Identity in the format's own notation. */
  readonly uuid: string | undefined
  /** Byte at which the structure begins. Formats with copies are reported once, at the first one found. */
  readonly offset: number
}

/** `length` bytes from byte `offset`, both multiples of the logical block. Errors go to the caller. */
export type ReadBytes = (offset: number, length: number) => Promise<Buffer> | Buffer

export const SIGNATURE_ROWS: readonly SignatureRow[] = [
  ...OWN_ROWS,
  ...VOLUME_ROWS,
  ...FILESYSTEM_ROWS,
]

/** Most formats live in these two pieces, which are read whole; the rest costs one read each. */
const HEAD_BYTES = 512 * KIB
const TAIL_BYTES = 832 * KIB
const READ_ALIGNMENT_BYTES = 4 * KIB

interface Piece {
  readonly offset: number
  readonly bytes: Buffer
}

/**
 * The signatures on a device of `sizeBytes`, in the order of the tables; empty where nothing is known.
 * Reads 1.3 MiB and about ten single blocks, never more than 1 MiB at once, never beyond the last whole
 * block. Whatever the bytes are, it does not fail; an error of `read` and a short read (`io`) do, since a
 * device that could not be examined must not pass for an empty one.
 */
export async function findSignatures(
  read: ReadBytes,
  sizeBytes: number,
  logicalBlockBytes: number,
): Promise<Signature[]> {
  assert(
    Number.isInteger(Math.log2(logicalBlockBytes)) && logicalBlockBytes >= 512,
    `the logical block is a power of two from 512: ${logicalBlockBytes}`,
  )
  const disk = { sizeBytes: alignDown(sizeBytes, logicalBlockBytes), blockBytes: logicalBlockBytes }
  const area = new Area(read, disk)
  await area.load(0, HEAD_BYTES)
  await area.load(disk.sizeBytes - TAIL_BYTES, TAIL_BYTES)
  const found: Signature[] = []
  for (const row of SIGNATURE_ROWS) {
    const signature = await match(row, disk, area)
    if (signature) found.push(signature)
  }
  return found
}

async function match(
  row: SignatureRow,
  disk: DiskShape,
  area: Area,
): Promise<Signature | undefined> {
  const offsets = typeof row.at === 'function' ? row.at(disk) : row.at
  for (const offset of offsets) {
    if (offset < 0 || offset + row.length > disk.sizeBytes) continue
    const bytes = await area.bytes(offset, row.length)
    const isThere = row.magic.some(
      ([at, magic]) => bytes.compare(magic, 0, magic.length, at, at + magic.length) === 0,
    )
    if (!isThere) continue
    const detail = row.detail ? row.detail(bytes, offset, disk) : {}
    if (!detail) continue
    const { name = row.name, label, uuid } = detail
    return { kind: row.kind, name, label, uuid, offset }
  }
  return undefined
}

/** The pieces of the device that were read so far. */
class Area {
  readonly #read: ReadBytes
  readonly #disk: DiskShape
  readonly #pieces: Piece[] = []

  constructor(read: ReadBytes, disk: DiskShape) {
    this.#read = read
    this.#disk = disk
  }

  /** Reads what lies of the range on the device, widened to whole blocks. */
  async load(offset: number, length: number): Promise<Piece> {
    const alignment = Math.max(READ_ALIGNMENT_BYTES, this.#disk.blockBytes)
    const from = alignDown(Math.max(0, offset), alignment)
    const to = Math.min(this.#disk.sizeBytes, alignUp(Math.max(0, offset + length), alignment))
    const bytes = to > from ? await this.#read(from, to - from) : Buffer.alloc(0)
    if (bytes.length < to - from) {
      throw new PlexusError('io', {
        op: 'read',
        subject: `bytes ${from} to ${to}`,
        message: `only ${bytes.length} of ${to - from} bytes at ${from} could be read while looking for signatures`,
      })
    }
    const piece = { offset: from, bytes }
    this.#pieces.push(piece)
    return piece
  }

  /** The bytes of a range that lies on the device. */
  async bytes(offset: number, length: number): Promise<Buffer> {
    const known = this.#pieces.find(
      (piece) => offset >= piece.offset && offset + length <= piece.offset + piece.bytes.length,
    )
    const piece = known ?? (await this.load(offset, length))
    return piece.bytes.subarray(offset - piece.offset, offset - piece.offset + length)
  }
}
