/**
 * A plex of organisation raid5: data and parity in rows over all subdisks, so that one of them may be lost. It is the only
 * plex of its volume. This file knows where things lie and what is valid there (raid5/row-state.ts). A write
 * holds the lock of its row; a healthy read takes none.
 */
import { assert, defined } from '../../../base/assert.ts'
import type { ByteRange } from '../../../base/bytes.ts'
import { type ErrorKind, PlexusError, toPlexusError } from '../../../base/errors.ts'
import { LOG_RING_BYTES_MIN, RAID5_COLUMNS } from '../../../base/limits.ts'
import { RangeSet } from '../../../base/range-set.ts'
import type { IoOp, IoRequest } from '../../../hal/block-device.ts'
import { PlexLog } from '../log/plex-log.ts'
import { partBytesMax } from '../log/ring.ts'
import { hasLog } from '../model/log-rings.ts'
import { type PlexRecord, sizeOfPlex } from '../model/model.ts'
import type { Plex, PlexOptions, Subdisk, VinumHost } from '../runtime.ts'
import { createLayout, locate, type Raid5Layout, rowOf, rowStart } from './layout.ts'
import { RowLocks } from './locks.ts'
import { type ColumnRange, dataOf, touchesLost, withLost, withoutLost } from './lost.ts'
import { ChangeRequest, FlushRequest, type OnMissed } from './requests.ts'
import { startRead } from './row-read.ts'
import { type RowState, rowState } from './row-state.ts'
import { Scratch } from './scratch.ts'

export class Raid5Plex implements Plex {
  readonly host: VinumHost
  readonly subdisks: readonly Subdisk[]
  readonly locks = new RowLocks()
  readonly scratch: Scratch
  readonly #log: PlexLog | undefined
  /** The longest part of an entry of the log. */
  readonly logPartBytes: number
  doubt = new RangeSet()
  awaitsReplay = false
  #record: PlexRecord
  #sizeBytes: number
  #parityValidBytes: number
  /** Below the cursor of a growth, or everywhere. */
  #layout: Raid5Layout
  /** From the cursor on. */
  #layoutBefore: Raid5Layout

  constructor({ host, record, subdisks }: PlexOptions) {
    const count = subdisks.length
    assert(count >= 2 && count <= RAID5_COLUMNS, `${record.name} has 2 to ${RAID5_COLUMNS} columns`)
    this.host = host
    this.subdisks = subdisks
    this.scratch = new Scratch(host.pool)
    this.#record = record
    this.#sizeBytes = this.#sizeFor(record)
    this.#parityValidBytes = record.parityValidBytes
    this.#layout = this.#layoutOf(record, count)
    this.#layoutBefore = this.#layoutFor(record)
    this.#log = hasLog(record) ? new PlexLog(host.logHost(this)) : undefined
    const rings = subdisks.map((one) => one.record.ring?.lengthBytes ?? LOG_RING_BYTES_MIN)
    this.logPartBytes = this.#log ? partBytesMax(Math.min(...rings)) : Number.POSITIVE_INFINITY
  }

  get record(): PlexRecord {
    return this.#record
  }

  /** A new record, for example with another growth cursor: requests are kept off what it moves. */
  set record(record: PlexRecord) {
    const before = this.#record.parityValidBytes
    this.#record = record
    this.#sizeBytes = this.#sizeFor(record)
    // The mark in memory is ahead of the durable one, unless that was taken back.
    if (record.parityValidBytes < before) this.#parityValidBytes = record.parityValidBytes
    else this.#parityValidBytes = Math.max(this.#parityValidBytes, record.parityValidBytes)
    if (this.#layoutBefore.columns !== (record.growth?.columnsBefore ?? this.subdisks.length)) {
      this.#layoutBefore = this.#layoutFor(record)
    }
  }

  /** undefined: its policy is `intent`, also while the plex is about to be made anew. */
  get log(): PlexLog | undefined {
    return hasLog(this.#record) ? this.#log : undefined
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  /** Parity is right in rows wholly below it; it is written down with the job's checkpoints. */
  get parityValidBytes(): number {
    return this.#parityValidBytes
  }

  /** The rows that begin at `offset` have right parity now. Moves the mark when it reaches them. */
  markParity(offset: number, length: number): void {
    if (offset <= this.#parityValidBytes) {
      this.#parityValidBytes = Math.max(this.#parityValidBytes, offset + length)
    }
  }

  // Where things lie.

  /** The layout at a byte of plex space. */
  layoutAt(offset: number): Raid5Layout {
    const { growth } = this.#record
    return growth && offset >= growth.cursorBytes ? this.#layoutBefore : this.#layout
  }

  /** undefined: a growth is under way, and there are two. */
  get onlyLayout(): Raid5Layout | undefined {
    return this.#record.growth ? undefined : this.#layout
  }

  /** Where the layout at `offset` ends: the cursor of a growth, or the size. */
  layoutEnd(offset: number): number {
    const { growth } = this.#record
    return growth && offset < growth.cursorBytes ? growth.cursorBytes : this.sizeBytes
  }

  /** End of the stripe unit around `offset`. */
  unitEnd(offset: number): number {
    const layout = this.layoutAt(offset)
    const start = rowStart(layout, rowOf(layout, offset))
    const { stripeBytes } = layout
    const unit = Math.floor((offset - start) / stripeBytes)
    const end = start + (unit + 1) * stripeBytes
    const { growth } = this.#record
    return growth && offset < growth.cursorBytes ? Math.min(end, growth.cursorBytes) : end
  }

  /** End of the row around `offset`. */
  pieceEnd(offset: number): number {
    const layout = this.layoutAt(offset)
    const end = rowStart(layout, rowOf(layout, offset) + 1)
    return Math.min(end, this.layoutEnd(offset))
  }

  column(index: number): Subdisk {
    return defined(this.subdisks[index], 'a column of the plex')
  }

  /** The subdisks of a layout. */
  columnsOf({ columns }: Raid5Layout): readonly Subdisk[] {
    return columns === this.subdisks.length ? this.subdisks : this.subdisks.slice(0, columns)
  }

  // What is valid there.

  columnReadable(layout: Raid5Layout, row: number, column: number): boolean {
    return this.column(column).readable(rowStart(layout, row), layout.rowDataBytes)
  }

  /**
   * Offset and length of rows in plex space. Of the row of the old layout that the cursor of a growth cuts only what lies
   * behind it: the rest has other rows, with a parity of their own.
   */
  partOf(layout: Raid5Layout, row: number, rows: number): readonly [number, number] {
    const end = rowStart(layout, row + rows)
    const isOld = layout.columns < this.subdisks.length
    const cursor = isOld ? (this.#record.growth?.cursorBytes ?? 0) : 0
    const start = Math.max(rowStart(layout, row), Math.min(cursor, end))
    return [start, end - start]
  }

  /** A write of these rows has failed: nobody knows what it has reached. */
  tear(layout: Raid5Layout, row: number, rows: number): void {
    this.doubt.add(...this.partOf(layout, row, rows))
  }

  /** The parity of these rows is right. */
  settled(layout: Raid5Layout, row: number, rows: number): void {
    this.doubt.remove(...this.partOf(layout, row, rows))
  }

  /**
   * Takes the doubt off a row that lacks a column: its data there is lost, durably, and what parity says stands for it.
   * A column that could have come back as it is has missed something from here on. The caller holds the row. Rejects when
   * more is missing.
   */
  async settleWithout(layout: Raid5Layout, row: number): Promise<void> {
    const { unreadable, parity } = rowState(this, layout, row)
    const [column] = unreadable
    if (column === undefined) return
    if (unreadable.size > 1) throw this.cannotStore(layout, row, undefined)
    const subdisk = this.column(column)
    // Gone, and nothing has been written without it yet.
    if (subdisk.inService && !subdisk.writable) {
      await this.host.demote([subdisk], this.driveGone(subdisk))
    }
    if (column !== parity) {
      await this.host.changeLost(this, (lost) =>
        withLost(lost, column, dataOf(layout, column, row, 1), undefined),
      )
    }
    this.settled(layout, row, 1)
  }

  // More than one column away: the plex serves nothing.

  readable(offset: number, length: number): boolean {
    if (this.awaitsReplay) return false
    if (offset + length > this.sizeBytes) return false
    let away = 0
    const { columns } = this.layoutAt(offset)
    for (let column = 0; column < columns; column++) if (!this.column(column).writable) away++
    return away <= 1
  }

  storable(offset: number, length: number): 'full' | 'partial' | 'none' {
    return this.readable(offset, length) ? 'full' : 'none'
  }

  // What is lost.

  /** Is anything lost, or taken to be lost by a commit that is under way? */
  get hasLost(): boolean {
    return this.#record.lost !== undefined || this.host.isLosing(this)
  }

  /**
   * Ranges of plex space have been written: nothing of them is lost any more, durably when `then` is called. The caller
   * holds the rows until then: who looks at what is lost meanwhile would take what a column had before for the data.
   */
  regain(written: readonly ByteRange[], then: (error: PlexusError | undefined) => void): void {
    const { lost, name } = this.#record
    if (!this.hasLost) {
      then(undefined)
      return
    }
    const known: ColumnRange[] = []
    for (const { offset, length } of written) {
      for (let at = offset; at < offset + length; ) {
        const end = Math.min(offset + length, this.unitEnd(at))
        const { column, columnOffset } = locate(this.layoutAt(at), at)
        known.push({ column, offset: columnOffset, length: end - at })
        at = end
      }
    }
    const isLost = known.some((one) => touchesLost(lost, one))
    if (!isLost && !this.host.isLosing(this)) then(undefined)
    else {
      // After the commit under way, which counts blocks in that were written since it began.
      this.host
        .changeLost(this, (now) => withoutLost(now, known, this.onlyLayout))
        .then(
          () => then(undefined),
          (failure: unknown) => then(toPlexusError(failure, 'write', name)),
        )
    }
  }

  // Requests.

  start(request: IoRequest, onMissed: OnMissed): void {
    if (request.op === 'flush') new FlushRequest(this, request, onMissed).start()
    else if (request.length === 0) queueMicrotask(() => request.complete(undefined))
    else if (request.op === 'read') startRead(this, request)
    else new ChangeRequest(this, request, onMissed).start()
  }

  /**
   * Columns have missed a write that the others have. `redundant`: parity holds what they lack. Then they go out of
   * service, and `done` comes without an error when that is durable; otherwise the write has failed.
   */
  resolveMissed(
    missed: ReadonlyMap<Subdisk, PlexusError>,
    redundant: boolean,
    done: (error: PlexusError | undefined) => void,
  ): void {
    const [first] = missed.values()
    if (!first || !redundant) {
      done(first)
      return
    }
    this.host.demote([...missed.keys()], first).then(
      () => done(undefined),
      (failure: unknown) => done(toPlexusError(failure, 'demote', this.#record.name)),
    )
  }

  // Errors.

  driveGone(subdisk: Subdisk): PlexusError {
    const { name, device } = subdisk.drive.record
    return this.#error(
      'gone',
      'write',
      `subdisk ${subdisk.record.name} missed a write: its drive ${name} (${device}) is missing`,
    )
  }

  cannotWork(): PlexusError {
    const { name } = this.#record
    return this.#error(
      'gone',
      'read',
      `${name} waits for the replay of its log, for which a subdisk is missing; bring it back (plexus vinum list)`,
    )
  }

  cannotStore(layout: Raid5Layout, row: number, cause: PlexusError | undefined): PlexusError {
    const where = `${this.#record.name}: row ${row} (byte ${rowStart(layout, row)})`
    return this.#error(
      'io',
      'write',
      `${where} cannot store this: a subdisk is missing, and the parity that would hold its data is ` +
        'not known to be right; bring the subdisk back (plexus vinum list)',
      cause,
    )
  }

  cannotReconstruct(
    layout: Raid5Layout,
    row: number,
    column: number,
    parityState: RowState['parityState'],
    kind: ErrorKind = 'io',
  ): PlexusError {
    const { name } = this.column(column).record
    return this.#error(
      kind,
      'read',
      `${this.#record.name}: row ${row} (byte ${rowStart(layout, row)}) cannot be read without subdisk ` +
        `${name}: ${WHY_NOT[parityState]}; bring the subdisk back (plexus vinum list)`,
    )
  }

  isLostError(column: number, offset: number, length: number): PlexusError {
    const { name } = this.#record
    return this.#error(
      'io',
      'read',
      `${name}: ${length} bytes at ${offset} of subdisk ${this.column(column).record.name} are lost in part: write them ` +
        `again, or take what the disks say: plexus vinum setstate --force up ${name}`,
    )
  }

  #error(kind: ErrorKind, op: IoOp, message: string, cause?: unknown): PlexusError {
    return new PlexusError(kind, { op, subject: this.#record.name, message, cause })
  }

  #sizeFor(record: PlexRecord): number {
    return sizeOfPlex(
      record,
      this.subdisks.map((one) => one.record),
    )
  }

  #layoutFor(record: PlexRecord): Raid5Layout {
    const count = record.growth?.columnsBefore ?? this.subdisks.length
    return count === this.subdisks.length ? this.#layout : this.#layoutOf(record, count)
  }

  #layoutOf({ stripeBytes, parityLayout, name }: PlexRecord, columns: number): Raid5Layout {
    return createLayout(columns, stripeBytes, defined(parityLayout, `the parity layout of ${name}`))
  }
}

const WHY_NOT: Readonly<Record<RowState['parityState'], string>> = {
  right: 'another subdisk is missing too',
  unknown: 'parity is not known to be right there, since it was never computed',
  doubt: 'parity is not known to be right there since a crash or a failed write',
}
