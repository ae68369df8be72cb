/**
 * Reads of a volume with a choice of plexes: one of them by policy; when it fails, another one, and then what
 * could not be read is written again from the good copy, so that the drive can give the sector another place
 * (spec/vinum.md, 8.7 and 9). The good way is one recycled object; the bad way uses promises. Called by
 * volume-io.ts.
 */
import { defined } from '../../../base/assert.ts'
import { type PlexusError, toPlexusError } from '../../../base/errors.ts'
import type { AlignedBuffer, IoCause, IoOp, IoRequest } from '../../../hal/block-device.ts'
import { callPlex } from './plex-call.ts'
import { LinearPlex } from './plex-linear.ts'
import { LockEntry } from './range-lock.ts'
import type { PlexSlot, VolumeIo } from './volume-io.ts'

/** Errors of the medium, that writing may mend. A drive that is gone or refuses is not mended so. */
export const MENDABLE: ReadonlySet<string> = new Set(['io', 'corrupt', 'timeout'])
/** Parts of one request that are read at the same time when no plex has all of it. */
const PIECES_AT_ONCE = 32

interface ReadRange {
  readonly offset: number
  readonly length: number
  readonly data: AlignedBuffer | undefined
  readonly dataOffset: number
}

/** A plex that could not read, and why. */
interface Failure {
  readonly slot: PlexSlot
  readonly error: PlexusError
}

const nobodyMissed = (): void => {}

export class ReadTask extends LockEntry implements IoRequest {
  readonly op: IoOp = 'read'
  offset = 0
  length = 0
  data: AlignedBuffer | undefined = undefined
  dataOffset = 0
  readonly fua = false
  cause: IoCause = 'initiator'
  readonly #volume: VolumeIo
  #request: IoRequest | undefined = undefined
  #slot: PlexSlot | undefined = undefined

  constructor(volume: VolumeIo) {
    super()
    this.#volume = volume
  }

  take(request: IoRequest): void {
    this.offset = request.offset
    this.length = request.length
    this.data = request.data
    this.dataOffset = request.dataOffset
    this.cause = request.cause
    this.#request = request
  }

  granted(): void {
    this.#volume.admit(this)
  }

  run(): void {
    if (this.#volume.isUnpropagated(this.offset, this.length)) {
      void this.#readAlone((volume) => tell(volume, this))
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
      const failed = error && { slot, error }
      void this.#readAlone((volume) => readPieces(volume, volume.slots, this, failed))
    } else {
      this.#volume.leaveRange(this)
      this.#end(error)
    }
  }

  /** No plex has all of it, but together they may. */
  async #readPieces(): Promise<void> {
    let error: PlexusError | undefined
    try {
      await eachPiece(this.#volume.slots, this, async (at, length) => {
        const range = part(this, at, length)
        const { failures, found } = await readFirst(this.#volume.slots, range, [])
        // Mending needs the writes kept off.
        const first = failures[0]
        if (first) throw first.error
        if (!found) throw this.#volume.noCopy('read', at, length)
      })
    } catch (failure) {
      error = toPlexusError(failure, 'read', this.#volume.name)
    }
    if (error && this.#volume.slots.length > 1) {
      await this.#readAlone((volume) => readPieces(volume, volume.slots, this, undefined))
    } else {
      this.#volume.leaveRange(this)
      this.#end(error)
    }
  }

  /** Reads in a way that may write what it has read. Changes are kept off, or that could undo one. */
  async #readAlone(read: (volume: VolumeIo) => Promise<void>): Promise<void> {
    const volume = this.#volume
    // Going in with two entries at once could wait for itself: an `all` may stand between them.
    volume.leaveRange(this)
    const entry = await volume.reenter(this.offset, this.length)
    let error: PlexusError | undefined
    try {
      await read(volume)
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
 * Reads a range in which the copies may differ. What it answers must stay the truth, also when the copy that gave it
 * fails before the resync gets there: so all others have it durably before. Once is enough.
 */
async function tell(volume: VolumeIo, range: ReadRange): Promise<void> {
  await readPieces(volume, volume.slots, range, undefined)
  const { offset, length } = range
  // Undefined: parts of it come from several.
  const source = volume.choose(offset, length)
  const others = volume.slots.filter((slot) => slot !== source)
  const all = await Promise.all(others.map((slot) => bringUpToDate(volume, slot, range)))
  if (all.every((done) => done)) volume.map?.markPropagated(offset, length)
}

/** Writes what one copy has to another one that may differ. Who does not take it goes out of service. */
async function bringUpToDate(volume: VolumeIo, slot: PlexSlot, range: ReadRange): Promise<boolean> {
  if (slot.plex.storable(range.offset, range.length) === 'none') return true
  const { error, missed } = await callPlex(slot, 'write', {
    ...part(range, range.offset, range.length),
    fua: true,
  })
  if (!error) return true
  const serving = missed.filter(({ writable }) => writable)
  try {
    if (serving.length > 0) await volume.demote(serving, error)
    return missed.length > 0
  } catch {
    // It has the last copy of something else, or the set cannot commit: it stays, and the read is served all the same.
    return false
  }
}

/**
 * Reads a range from any of the plexes, piece by piece, and writes again where a plex could not read and
 * another one could. The caller keeps writes off the range. `failed`: a plex that has just failed for some
 * of it. Rejects with the first error when a piece cannot be read anywhere.
 */
export async function readPieces(
  volume: VolumeIo,
  slots: readonly PlexSlot[],
  range: ReadRange,
  failed: Failure | undefined,
): Promise<void> {
  // A pause may have swapped the plexes since.
  const current = failed && slots.includes(failed.slot) ? failed : undefined
  // A drive that was gone may be back since, and be the only one that is left by now.
  const known = current && MENDABLE.has(current.error.kind) ? current : undefined
  const isHeld = volume.isUnsynced(range.offset, range.length)
  const order =
    known && !isHeld ? [known.slot, ...slots.filter((slot) => slot !== known.slot)] : slots
  await eachPiece(slots, range, async (at, length) => {
    const piece = part(range, at, length)
    // Of one piece it is known that it cannot be read there; of several, reading tells which.
    const whole = known && at === range.offset && length === range.length ? [known] : []
    await readAndMend(volume, order, piece, whole)
  })
}

/**
 * Reads one piece, and mends it where it could not be read. Half by half, down to a block, where only the part that
 * is really bad may come from another plex: where copies may differ, and where each plex has bad blocks of its own.
 */
async function readAndMend(
  volume: VolumeIo,
  order: readonly PlexSlot[],
  piece: ReadRange,
  known: readonly Failure[],
): Promise<void> {
  const { offset, length } = piece
  const { failures, found } = await readFirst(order, piece, known)
  const isBad = failures.some(({ error }) => MENDABLE.has(error.kind))
  const isDoubtful = found ? volume.isUnsynced(offset, length) : failures.length > 1
  const blocks = Math.floor(length / volume.blockBytes)
  if (isBad && isDoubtful && blocks > 1) {
    const half = Math.floor(blocks / 2) * volume.blockBytes
    await readAndMend(volume, order, part(piece, offset, half), [])
    await readAndMend(volume, order, part(piece, offset + half, length - half), [])
    return
  }
  if (found === undefined) throw failures[0]?.error ?? volume.noCopy('read', offset, length)
  for (const failure of failures) await repair(volume, failure, piece)
}

/** Calls `work` for each part of the range that lies in one piece of every plex, several at a time. */
async function eachPiece(
  slots: readonly PlexSlot[],
  range: ReadRange,
  work: (at: number, length: number) => Promise<void>,
): Promise<void> {
  const end = range.offset + range.length
  for (let at = range.offset; at < end; ) {
    const batch: Promise<void>[] = []
    while (at < end && batch.length < PIECES_AT_ONCE) {
      const to = Math.min(end, ...slots.map(({ plex }) => plex.pieceEnd(at)))
      batch.push(work(at, to - at))
      at = to
    }
    const results = await Promise.allSettled(batch)
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }
}

/** The first plex that can, if any (`found`), and what failed before it, beginning with `known`. */
async function readFirst(
  order: readonly PlexSlot[],
  piece: ReadRange,
  known: readonly Failure[],
): Promise<{ readonly failures: readonly Failure[]; readonly found: PlexSlot | undefined }> {
  const failures = [...known]
  for (const slot of order) {
    if (failures.some((one) => one.slot === slot)) continue
    if (!slot.plex.readable(piece.offset, piece.length)) continue
    const { error } = await callPlex(slot, 'read', piece)
    if (error) failures.push({ slot, error })
    // Else it went out of service meanwhile, and what it gave may be old.
    else if (slot.plex.readable(piece.offset, piece.length)) return { failures, found: slot }
  }
  return { failures, found: undefined }
}

/** Writes good data where a read failed. A drive that refuses keeps a bad sector: the copy stays, others make up for it. */
async function repair(volume: VolumeIo, failure: Failure, piece: ReadRange): Promise<void> {
  if (!MENDABLE.has(failure.error.kind)) return
  const { error, missed } = await callPlex(failure.slot, 'write', piece)
  const { plex } = failure.slot
  const place = plex instanceof LinearPlex ? plex.placeOf(piece.offset) : undefined
  if (place && !error) volume.host.noteRepair(place.subdisk, place.offset, piece.length)
  // Where copies may differ it must not answer later, with something else than what was told from another one.
  if (!error || missed.length === 0 || !volume.isUnsynced(piece.offset, piece.length)) return
  try {
    await volume.demote(missed, error)
  } catch {
    // It has the last copy of something else, or the set cannot commit: it stays, and the read is served all the same.
  }
}

function part(range: ReadRange, at: number, length: number): ReadRange {
  const dataOffset = range.dataOffset + at - range.offset
  return { offset: at, length, data: range.data, dataOffset }
}
