/** Promises over {@link Plex.start}, for the ways of a volume that are not the hot one. Used by volume-*.ts. */
import type { PlexusError } from '../../../base/errors.ts'
import type { AlignedBuffer, IoOp } from '../../../hal/block-device.ts'
import type { Subdisk } from '../runtime.ts'
import type { PlexSlot } from './volume-io.ts'

export interface PlexCallRange {
  readonly offset: number
  readonly length: number
  readonly data: AlignedBuffer | undefined
  readonly dataOffset: number
  readonly fua?: boolean
}

export interface PlexAnswer {
  readonly error: PlexusError | undefined
  /** The subdisks that it named. */
  readonly missed: readonly Subdisk[]
}

/** Sends one request to one plex and waits for its end. Never rejects. */
export function callPlex(slot: PlexSlot, op: IoOp, range: PlexCallRange): Promise<PlexAnswer> {
  return new Promise((resolve) => {
    const missed: Subdisk[] = []
    slot.inFlight++
    slot.plex.start(
      {
        op,
        offset: range.offset,
        length: range.length,
        data: range.data,
        dataOffset: range.dataOffset,
        fua: range.fua ?? false,
        cause: 'initiator',
        complete(error) {
          slot.inFlight--
          resolve({ error, missed })
        },
      },
      (subdisk) => missed.push(subdisk),
    )
  })
}
