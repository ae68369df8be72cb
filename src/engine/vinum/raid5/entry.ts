/**
 * One entry of the log of a RAID5 plex, over the life of an update of rows: what is about to be written in its columns is
 * durable there before the first write in place (log/plex-log.ts). A column whose ring cannot take its part has missed the
 * update, durably, before the others are written.
 */
import { type PlexusError, toPlexusError } from '../../../base/errors.ts'
import { memberBits } from '../log/block.ts'
import type { LogFailures, PlexLog } from '../log/plex-log.ts'
import type { LogPiece } from '../log/ring.ts'
import type { Subdisk } from '../runtime.ts'
import type { Raid5Layout } from './layout.ts'
import type { Raid5Plex } from './plex-raid5.ts'
import { settleRow } from './row-jobs.ts'

/** What is written in a column, without what all pieces of an entry have alike. */
export type EntryPiece = Pick<LogPiece, 'offset' | 'length' | 'data' | 'dataOffset'>

export interface EntryInit {
  readonly layout: Raid5Layout
  readonly firstRow: number
  readonly rows: number
  /** By column. None is empty. */
  readonly pieces: ReadonlyMap<number, readonly EntryPiece[]>
}

export class LogEntry {
  readonly #plex: Raid5Plex
  readonly #log: PlexLog
  readonly #init: EntryInit
  #entry = 0

  constructor(plex: Raid5Plex, log: PlexLog, init: EntryInit) {
    this.#plex = plex
    this.#log = log
    this.#init = init
  }

  /** `then`, never from within: the columns that could not be logged; or the error with which nothing was. */
  write(then: (missed: ReadonlyMap<Subdisk, PlexusError>, error?: PlexusError) => void): void {
    const columns = this.#init.pieces.keys()
    if (this.#log.isOpenFor(columns)) this.#append(then)
    else {
      this.#log.open(this.#init.pieces.keys()).then(
        () => {
          // The policy may have been changed meanwhile.
          if (!this.#plex.log) then(NONE)
          else if (this.#log.isRunning) this.#append(then)
          else this.write(then)
        },
        (failure: unknown) => then(NONE, toPlexusError(failure, 'write', this.#plex.record.name)),
      )
    }
  }

  #append(then: (missed: ReadonlyMap<Subdisk, PlexusError>) => void): void {
    const { firstRow, rows, pieces } = this.#init
    const entry = this.#log.begin(firstRow, rows)
    this.#entry = entry
    const members = memberBits(pieces.keys())
    const parts = new Map<number, readonly LogPiece[]>()
    for (const [column, list] of pieces) {
      parts.set(
        column,
        list.map((piece) => ({ ...piece, entry, members, isZeroes: piece.data === undefined })),
      )
    }
    const gone = (column: number) => this.#plex.driveGone(this.#plex.column(column))
    this.#log.append(parts, gone, (failures) => then(this.#subdisks(failures)))
  }

  #subdisks(failures: LogFailures): ReadonlyMap<Subdisk, PlexusError> {
    if (failures.size === 0) return NONE
    return new Map([...failures].map(([column, error]) => [this.#plex.column(column), error]))
  }

  /** All of it is in place, or nothing of it was begun. */
  ended(): void {
    if (this.#entry !== 0) this.#log.ended(this.#entry)
  }

  /**
   * Nobody knows what of it is in place: its rows are settled, or in doubt durably. Where neither can be, it stays in the log,
   * and the next start writes it again.
   */
  async torn(): Promise<void> {
    const { layout, firstRow, rows } = this.#init
    try {
      for (let row = firstRow; row < firstRow + rows; row++) {
        await settleRow(this.#plex, layout, row)
      }
    } catch {
      await this.#log.doubted()
    }
    this.ended()
  }
}

const NONE: ReadonlyMap<Subdisk, PlexusError> = new Map()
