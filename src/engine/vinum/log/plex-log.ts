/**
 * The log of a raid5 plex in operation (docs/adr/0016-raid5-log.md): an entry is what one update of a row writes, a part of it
 * for each column, in the ring of that column. It is durable before the first write in place, and stays until all of it
 * is in place, durably.
 */
import { PlexusError, toPlexusError } from '../../../base/errors.ts'
import { type LogPiece, LogRing, type RingRegion } from './ring.ts'

/** What the log needs of the plex and its set. */
export interface LogHost {
  /** The ring of a column, the same object as long as its drive stays; undefined: its drive is missing. */
  regionOf(column: number): RingRegion | undefined
  /** UUID of the subdisk, 16 bytes. */
  uuidOf(column: number): Buffer
  /** Commits the next run of the log; resolves to its number when that is durable. */
  beginRun(): Promise<number>
  /** Commits that the plex's rows in doubt are in doubt after a start. */
  keepDoubt(): Promise<void>
  /** Flushes the drives of all columns that are here. Rejects where one that stays in service has failed it. */
  flush(): Promise<void>
}

interface ColumnLog {
  /** undefined: it could not be opened. */
  readonly region: RingRegion | undefined
  readonly ring: LogRing
  /** undefined: it is open. */
  opening: Promise<void> | undefined
}

/** Columns whose ring could not take their part, and why. */
export type LogFailures = ReadonlyMap<number, PlexusError>
const NONE: LogFailures = new Map()

export class PlexLog {
  readonly #host: LogHost
  readonly #columns = new Map<number, ColumnLog>()
  /** Rings that were opened. */
  #opened = 0
  #run: number | undefined
  #starting: Promise<void> | undefined
  /** That rows are in doubt becomes durable. */
  #doubted: Promise<void> = Promise.resolve()
  #next = 1
  /** Entries that are not in place yet, oldest first. */
  readonly #underWay = new Set<number>()
  /** The newest entry of each row that a checkpoint has not passed. */
  readonly #rows = new Map<number, number>()
  /** Entries before it are in no ring. */
  #passed = 1
  #isWanted = false
  #checkpointing: Promise<void> | undefined
  #waiters: (() => void)[] = []

  constructor(host: LogHost) {
    this.#host = host
  }

  /** The number of the next entry, over these rows. It is under way until {@link ended}. */
  begin(firstRow: number, rows: number): number {
    const entry = this.#next++
    this.#underWay.add(entry)
    for (let row = firstRow; row < firstRow + rows; row++) this.#rows.set(row, entry)
    return entry
  }

  /** Is it ready to take entries for these columns? Else {@link open} makes it so. */
  isOpenFor(columns: Iterable<number>): boolean {
    if (this.#run === undefined) return false
    for (const column of columns) {
      const region = this.#host.regionOf(column)
      const now = this.#columns.get(column)
      if (region && (now?.region !== region || now.opening)) return false
    }
    return true
  }

  /**
   * Begins a run, and rings of columns whose drive has come back. Rejects where the run cannot be made durable; a ring
   * that cannot be opened fails its column when the part is appended.
   */
  async open(columns: Iterable<number>): Promise<void> {
    if (this.#run === undefined) {
      this.#starting ??= this.#start().finally(() => {
        this.#starting = undefined
      })
      await this.#starting
    }
    await Promise.allSettled([...columns].map((column) => this.#openColumn(column)))
  }

  /**
   * A column is about to be filled: what its ring has from before it was out of service must never be written there again.
   * Rejects where the ring cannot be begun anew.
   */
  async takeBack(column: number): Promise<void> {
    if (this.isOpenFor([column])) return
    await this.open([column])
    if (this.#run !== undefined && !this.isOpenFor([column])) throw goneError(column)
  }

  /**
   * Rows are in doubt, and must be so after a start, too: no entry goes before that is durable. Rejects where it cannot be made
   * so.
   */
  doubted(): Promise<void> {
    this.#doubted = this.#host.keepDoubt()
    this.#doubted.catch(() => {})
    return this.#doubted
  }

  /** What the last run has logged is in place: only when that is durable a new one may begin. */
  async #start(): Promise<void> {
    while (this.#underWay.size > 0) await this.#entryEnded()
    await this.#host.flush()
    const run = await this.#host.beginRun()
    this.#columns.clear()
    this.#run = run
  }

  /** Has a run begun that goes on? */
  get isRunning(): boolean {
    return this.#run !== undefined
  }

  /** A new run begins, after the entries under way: rings have another place from then on. */
  renew(): void {
    this.#run = undefined
    // Who writes next meets the error, if there is one.
    this.open([]).catch(() => {})
  }

  #entryEnded(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve))
  }

  async #openColumn(column: number): Promise<void> {
    const region = this.#host.regionOf(column)
    if (!region) return
    let now = this.#columns.get(column)
    if (now?.region !== region) {
      now?.ring.fail(goneError(column))
      now = this.#openRing(column, region, now !== undefined)
      this.#columns.set(column, now)
    }
    await now.opening
  }

  #openRing(column: number, region: RingRegion, isBack: boolean): ColumnLog {
    // Above all that the ring of this column has had in this run: an entry is in one block at most.
    const firstSequence = this.#next + ++this.#opened
    const ring = new LogRing(region, this.#host.uuidOf(column), firstSequence, () => this.#want())
    const log: ColumnLog = { region, ring, opening: undefined }
    const open = async (): Promise<void> => {
      // The new ring lacks the parts of entries that others still have: these must not look as if they had never begun.
      if (isBack) await this.empty()
      await ring.open(this.#run ?? 0)
      log.opening = undefined
    }
    log.opening = open()
    // Who waits is told, and the next attempt begins anew.
    log.opening.catch(() => {
      if (this.#columns.get(column) === log) {
        this.#columns.set(column, { ring, region: undefined, opening: undefined })
      }
    })
    return log
  }

  /**
   * Takes the parts of an entry; `done` when all that could be taken are durable, never from within. The log is open for these
   * columns; one whose drive has gone since fails.
   */
  append(
    parts: ReadonlyMap<number, readonly LogPiece[]>,
    gone: (column: number) => PlexusError,
    done: (failures: LogFailures) => void,
  ): void {
    let pending = parts.size
    let failures: Map<number, PlexusError> | undefined
    for (const [column, pieces] of parts) {
      const ended = (error: PlexusError | undefined): void => {
        if (error) {
          failures ??= new Map()
          failures.set(column, error)
        }
        if (--pending === 0) done(failures ?? NONE)
      }
      const now = this.#columns.get(column)
      if (now && this.#host.regionOf(column) === now.region) now.ring.append(pieces, ended)
      else queueMicrotask(() => ended(gone(column)))
    }
  }

  /** All of the entry is in place, or will never be. */
  ended(entry: number): void {
    this.#underWay.delete(entry)
    if (this.#isWanted) this.#checkpointSoon()
    for (const waiter of this.#waiters.splice(0)) waiter()
  }

  /**
   * Resolves when no ring has an entry of these rows any more: something else may write them. The caller keeps new entries of
   * these rows away.
   */
  async retire(firstRow: number, rows: number): Promise<void> {
    let newest = 0
    for (let row = firstRow; row < firstRow + rows; row++) {
      newest = Math.max(newest, this.#rows.get(row) ?? 0)
    }
    await this.#passTo(newest + 1)
  }

  /** As {@link retire} for all rows: nothing is left that a replay would write. */
  async empty(): Promise<void> {
    await this.#passTo(this.#next)
  }

  async #passTo(entry: number): Promise<void> {
    while (this.#passed < entry) {
      if (this.#oldest > this.#passed) await this.#checkpoint()
      else await this.#entryEnded()
    }
  }

  get #oldest(): number {
    const [first] = this.#underWay
    return first ?? this.#next
  }

  /** Parts that wait in rings of columns out of service fail: no checkpoint makes room there any more. */
  failGone(): void {
    for (const [column, { ring, region }] of this.#columns) {
      if (this.#host.regionOf(column) !== region) ring.fail(goneError(column))
    }
  }

  #want(): void {
    this.#isWanted = true
    this.#checkpointSoon()
  }

  #checkpointSoon(): void {
    if (this.#checkpointing || this.#oldest === this.#passed) return
    this.#isWanted = false
    this.#checkpoint().catch((failure: unknown) => {
      const error = toPlexusError(failure, 'write', 'the log')
      for (const { ring } of this.#columns.values()) ring.fail(error)
    })
  }

  /** One at a time: who comes meanwhile waits for its end, and looks again. */
  #checkpoint(): Promise<void> {
    this.#checkpointing ??= this.#passOldest().finally(() => {
      this.#checkpointing = undefined
      if (this.#isWanted) this.#checkpointSoon()
    })
    return this.#checkpointing
  }

  async #passOldest(): Promise<void> {
    const oldest = this.#oldest
    await this.#doubted
    await this.#host.flush()
    this.failGone()
    await Promise.all(
      [...this.#columns].map(async ([column, { ring, region, opening }]) => {
        if (opening || this.#host.regionOf(column) !== region) return
        // One that fails keeps what it has, and its column fails what waits for room there.
        await ring.passed(oldest).catch((failure: unknown) => {
          ring.fail(toPlexusError(failure, 'write', 'the log'))
        })
      }),
    )
    this.#passed = oldest
    for (const [row, entry] of this.#rows) if (entry < oldest) this.#rows.delete(row)
  }
}

/** Of a part that waits in a ring whose column is out of service, or back with another one. */
function goneError(column: number): PlexusError {
  const message = `column ${column} went out of service before its part of the log was written`
  return new PlexusError('gone', { op: 'write', subject: 'the log', message })
}
