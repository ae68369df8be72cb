/**
 * Makes a part of a subdisk readable again from redundancy: what a move needs when the old place has a bad sector.
 * A concat or striped plex gets the range from the other plexes of its volume; a raid5 plex heals data by reading
 * it, and parity by computing it again.
 */
import type { ByteRange } from '../../../base/bytes.ts'
import { PlexusError } from '../../../base/errors.ts'
import { JOB_STEP_BYTES } from '../../../base/limits.ts'
import { withLease } from '../../jobs/slices.ts'
import { transfer, transferPlex } from '../io/transfers.ts'
import type { VolumeIo } from '../io/volume-io.ts'
import { isStriped } from '../model/plex-kinds.ts'
import { plexOffsetOf, rowStart } from '../raid5/layout.ts'
import { Raid5Plex } from '../raid5/plex-raid5.ts'
import { resyncStep } from '../raid5/row-jobs.ts'
import type { Plex, Subdisk, VinumHost } from '../runtime.ts'

type OtherPlexes = Pick<VolumeIo, 'readExcept'>

/**
 * The way to make [offset, offset + length) of `subdisk` readable: it rejects when there is no other good copy, or
 * it cannot be written. It takes the locks that it needs: the caller holds none.
 */
export function healThroughPlex(
  host: VinumHost,
  plex: Plex,
  others: OtherPlexes,
  subdisk: Subdisk,
): (offset: number, length: number) => Promise<void> {
  return async (offset, length) => {
    // Two layouts at once: the growth comes first, the move may be asked for again.
    if (plex.record.growth) throw growing(plex, subdisk)
    for (let at = offset; at < offset + length; ) {
      const piece = { offset: at, length: Math.min(pieceBytes(plex, at), offset + length - at) }
      if (plex instanceof Raid5Plex) await healRaid5(host, plex, subdisk, piece)
      else await healLinear(host, plex, others, subdisk, piece)
      at += piece.length
    }
  }
}

/** Bytes of column space from `offset` to the end of the stripe unit; in concat no more than a buffer. */
function pieceBytes({ record }: Plex, offset: number): number {
  if (!isStriped(record)) return JOB_STEP_BYTES
  return Math.min(record.stripeBytes - (offset % record.stripeBytes), JOB_STEP_BYTES)
}

async function healRaid5(
  host: VinumHost,
  plex: Raid5Plex,
  subdisk: Subdisk,
  { offset, length }: ByteRange,
): Promise<void> {
  const layout = plex.layoutAt(0)
  const at = plexOffsetOf(layout, plex.subdisks.indexOf(subdisk), offset)
  if (at === undefined) {
    const row = Math.floor(offset / layout.stripeBytes)
    await resyncStep(plex, rowStart(layout, row), layout.rowDataBytes)
  } else {
    await withLease(host.pool, length, (lease) => transferPlex('read', plex, at, lease))
  }
}

async function healLinear(
  host: VinumHost,
  plex: Plex,
  others: OtherPlexes,
  subdisk: Subdisk,
  { offset, length }: ByteRange,
): Promise<void> {
  const at = linearOffset(plex, subdisk, offset)
  const release = await host.lock(plex, at, length, 'writes')
  try {
    await withLease(host.pool, length, async (lease) => {
      await others.readExcept(plex, at, lease)
      await transfer('write', subdisk, offset, lease)
    })
  } finally {
    release()
  }
  host.noteRepair(subdisk, offset, length)
}

/** The byte of plex space that lies at `offset` of a subdisk of a concat or striped plex (docs/vinum.md, 7). */
function linearOffset({ record, subdisks }: Plex, subdisk: Subdisk, offset: number): number {
  if (!isStriped(record)) return subdisk.record.plexOffsetBytes + offset
  const row = Math.floor(offset / record.stripeBytes)
  const unit = row * subdisks.length + subdisks.indexOf(subdisk)
  return unit * record.stripeBytes + (offset % record.stripeBytes)
}

function growing({ record }: Plex, subdisk: Subdisk): PlexusError {
  const { name } = subdisk.record
  return new PlexusError('io', {
    op: 'move',
    subject: name,
    message: `a part of subdisk ${name} cannot be read, and plex ${record.name} is growing; move it when the growth has ended`,
  })
}
