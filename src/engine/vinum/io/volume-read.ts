/**
 * Reads of a volume with a choice of plexes: one of them by policy; when it fails, another one, and then what
 * could not be read is written again from the good copy, so that the drive can give the sector another place
 * (docs/vinum.md). The good way is one recycled object; the bad way uses promises.
 */
import { defined } from '../../../base/assert.ts'
import { operatingError, PlexusError, toPlexusError } from '../../../base/errors.ts'
import type { IoRequest } from '../../../hal/block-device.ts'
import { CallbackEntry } from '../../geom/range-lock.ts'
import type { Plex } from '../runtime.ts'
import {
  type Copies,
  type CopyRange,
  callPlex,
  type Failure,
  MENDABLE,
  readCopies,
  writeCopy,
} from './first-copy.ts'
import { LinearPlex } from './plex-linear.ts'
import { RequestPart } from './request-part.ts'
import type { PlexSlot, VolumeIo } from './volume-io.ts'

const nobodyMissed = (): void => {}

export class ReadTask extends RequestPart {
  readonly entry: CallbackEntry
  readonly #volume: VolumeIo
  #request: IoRequest | undefined = undefined
  #slot: PlexSlot | undefined = undefined

  constructor(volume: VolumeIo) {
    super()
    this.#volume = volume
    this.entry = new CallbackEntry(() => volume.admit(this))
  }

  take(request: IoRequest): void {
    this.copy(request)
    this.#request = request
  }

  run(): void {
    if (this.#volume.isUnpropagated(this.offset, this.length)) {
      void this.#readAlone()
      return
    }
    const slot = this.#volume.choose(this.offset, this.length)
    if (!slot) {
      void this.#readPieces()
      return
    }
    this.#slot = slot
    slot.inFlight++
    slot.plex.start(this, nobodyMissed)
  }

  complete(error: PlexusError | undefined): void {
    const slot = defined(this.#slot, 'the plex')
    slot.inFlight--
    this.#slot = undefined
    // Out of service meanwhile: a drive whose cache is lost gives old content, and does not say so.
    const isOut = !error && !slot.plex.readable(this.offset, this.length)
    if ((error || isOut) && this.#volume.slots.length > 1) {
      const failed = error && { plex: slot.plex, error }
      void this.#readAlone(failed)
    } else {
      this.#volume.leaveRange(this)
      this.#end(error)
    }
  }

  /** No plex has all of it, but together they may. */
  async #readPieces(): Promise<void> {
    const volume = this.#volume
    let error: PlexusError | undefined
    try {
      // Mending needs the writes kept off.
      const mend = (failure: Failure): Promise<void> => Promise.reject(failure.error)
      await readCopies({ ...copiesOf(volume, volume.plexes), mend }, this)
    } catch (failure) {
      error = toPlexusError(failure, 'read', volume.name)
    }
    if (error && volume.slots.length > 1) {
      await this.#readAlone()
    } else {
      volume.leaveRange(this)
      this.#end(error)
    }
  }

  /** Reads in a way that may write what it has read. Changes are kept off, or that could undo one. */
  async #readAlone(failed?: Failure): Promise<void> {
    const volume = this.#volume
    // Going in with two entries at once could wait for itself: an `all` may stand between them.
    volume.leaveRange(this)
    const entry = await volume.reenter(this.offset, this.length)
    let error: PlexusError | undefined
    try {
      const source = await readAndMend(volume, volume.plexes, this, failed)
      await propagate(volume, source, this)
    } catch (failure) {
      error = toPlexusError(failure, 'read', volume.name)
    }
    volume.locks.leave(entry)
    this.#end(error)
  }

  #end(error: PlexusError | undefined): void {
    const request = defined(this.#request, 'the request')
    this.#request = undefined
    this.data = undefined
    this.#volume.endRead(this)
    request.complete(error)
  }
}

/**
 * What a reader gets of a range in which the copies may differ must stay the truth, also when the copy that gave it fails
 * before the resync gets there, or another one comes back: so all others have it durably before, or are out of service, as
 * after a write. Once is enough. Rejects when that cannot be: then nobody gets it.
 */
async function propagate(
  volume: VolumeIo,
  source: Plex | undefined,
  { offset, length, data, dataOffset, cause }: CopyRange,
): Promise<void> {
  // Also when they have come to differ since it was begun to be read.
  if (!volume.isUnpropagated(offset, length)) return
  const durably = { offset, length, data, dataOffset, fua: true, cause }
  const others = volume.plexes.filter((plex) => plex !== source)
  const written = await Promise.allSettled(others.map((plex) => writeCopy(volume, plex, durably)))
  for (const result of written) {
    if (result.status === 'fulfilled') continue
    const error = operatingError(result.reason)
    throw new PlexusError('gone', {
      op: 'read',
      subject: volume.name,
      message: `volume ${volume.name}: the copies of ${length} bytes at offset ${offset} may differ, and one of them cannot be made equal: ${error.message}`,
      cause: error,
    })
  }
  volume.map?.markPropagated(offset, length)
}

/**
 * {@link readCopies}, which writes again where a plex could not read and another one could. The caller keeps writes off
 * the range. `failed`: a plex that has just failed for some of it.
 */
export function readAndMend(
  volume: VolumeIo,
  plexes: readonly Plex[],
  range: CopyRange,
  failed?: Failure,
): Promise<Plex | undefined> {
  // A pause may have swapped the plexes since; a drive that was gone may be back, and be the only one that is left.
  const known =
    failed && plexes.includes(failed.plex) && MENDABLE.has(failed.error.kind) ? failed : undefined
  const isFirst = known && !volume.isUnsynced(range.offset, range.length)
  const order = isFirst ? [known.plex, ...plexes.filter((plex) => plex !== known.plex)] : plexes
  return readCopies(copiesOf(volume, order), range, known)
}

function copiesOf(volume: VolumeIo, plexes: readonly Plex[]): Copies {
  return {
    name: volume.name,
    plexes,
    isUnsynced: (offset, length) => volume.isUnsynced(offset, length),
    mend: (failure, range) => mend(volume, failure, range),
  }
}

/** Writes good data where a read failed. A drive that refuses keeps a bad sector: the copy stays, others make up for it. */
async function mend(volume: VolumeIo, failure: Failure, piece: CopyRange): Promise<void> {
  if (!MENDABLE.has(failure.error.kind)) return
  const { plex } = failure
  const { error } = await callPlex(plex, 'write', piece)
  const place = plex instanceof LinearPlex ? plex.placeOf(piece.offset) : undefined
  if (place && !error) volume.host.noteRepair(place.subdisk, place.offset, piece.length)
}
