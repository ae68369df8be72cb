/**
 * A plex of organisation raid5 (spec/vinum.md, 7): data and parity in rows over all subdisks, so that one of them
 * may be lost. This file knows where things lie and what is valid there; the work is in raid5/requests.ts
 * (requests), raid5/row-write.ts and raid5/row-read.ts (rows) and raid5/jobs.ts. Called by volume-io.ts and the
 * jobs; made by set/objects.ts.
 *
 *   row       a write holds the lock of its row; a healthy read takes none
 *   valid     a column is read where it is up, or where its rebuild has been
 *   trusted   parity is relied upon below the mark of the initialisation, except where a crash left doubt: until
 *             that is resolved, writes there compute it from all data, and a bad sector is not computed from it
 */
import { assert, defined } from '../../../base/assert.ts'
import { type ErrorKind, PlexusError, toPlexusError } from '../../../base/errors.ts'
import { RAID5_COLUMNS } from '../../../base/limits.ts'
import type { IoOp, IoRequest } from '../../../hal/block-device.ts'
import type { GrowingValidity } from '../io/validity.ts'
import { type PlexRecord, sizeOfPlex } from '../model/model.ts'
import type { Plex, Subdisk, VinumHost } from '../runtime.ts'
import {
  createLayout,
  dataColumn,
  parityColumn,
  type Raid5Layout,
  rowOf,
  rowStart,
} from './layout.ts'
import { RowLocks } from './locks.ts'
import { ChangeRequest, FlushRequest, type OnMissed, startRead } from './requests.ts'
import type { RowState } from './row-plan.ts'
import { Scratch } from './scratch.ts'

export type Raid5Host = Pick<
  VinumHost,
  'pool' | 'kernels' | 'log' | 'demote' | 'noteError' | 'noteRepair'
>

export interface Raid5PlexOptions {
  readonly host: Raid5Host
  readonly record: PlexRecord
  /** In order of the columns (subdisksOf). */
  readonly subdisks: readonly Subdisk[]
}

export class Raid5Plex implements Plex {
  readonly host: Raid5Host
  readonly subdisks: readonly Subdisk[]
  readonly locks = new RowLocks()
  readonly scratch: Scratch
  /**
   * Where parity may be wrong since a crash, in plex space: everything that is not covered. The owner sets it at
   * the start from the intent map; {@link import('./jobs.ts').resyncStep} makes it grow.
   */
  doubt: GrowingValidity | undefined
  /** The other plexes of its volume. The owner sets them. */
  others: readonly Plex[] = []
  #record: PlexRecord
  #sizeBytes: number
  #parityValidBytes: number
  /** Below the cursor of a growth, or everywhere. */
  #layout: Raid5Layout
  /** From the cursor on. */
  #layoutBefore: Raid5Layout

  constructor({ host, record, subdisks }: Raid5PlexOptions) {
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

  /** Up, with its drive: all of it may be read. */
  isUp(subdisk: Subdisk): boolean {
    return subdisk.record.state === 'up' && subdisk.writable
  }

  columnReadable(layout: Raid5Layout, row: number, column: number): boolean {
    const subdisk = this.column(column)
    if (!subdisk.writable) return false
    if (subdisk.record.state === 'up') return true
    return subdisk.validity?.covers(rowStart(layout, row), layout.rowDataBytes) ?? false
  }

  /**
   * Is the parity of `rows` rows relied upon? Doubt counts while all columns are there: then their data are known, and
   * parity is computed from them. When one is missing, what parity says is the best that there is, unless another plex
   * has all.
   */
  spanTrusted(layout: Raid5Layout, row: number, rows: number): boolean {
    if (!this.spanComputed(layout, row, rows)) return false
    if (this.doubt?.covers(rowStart(layout, row), rows * layout.rowDataBytes) ?? true) return true
    return !this.isSureElsewhere() && !this.columnsOf(layout).every((subdisk) => this.isUp(subdisk))
  }

  /** Has another plex of the volume all of its content for certain? */
  isSureElsewhere(): boolean {
    return this.others.some(({ subdisks }) =>
      subdisks.every(({ record, writable }) => record.state === 'up' && writable),
    )
  }

  /** Has the parity of `rows` rows ever been computed? Then the loss of a column may be accepted. */
  spanComputed(layout: Raid5Layout, row: number, rows: number): boolean {
    const mark = this.#parityValidBytes
    return mark >= this.#sizeBytes || rowStart(layout, row + rows) <= mark
  }

  /** Has all parity been computed? */
  get computed(): boolean {
    return this.#parityValidBytes >= this.#sizeBytes
  }

  /** Is all data known of the row at a byte of plex space, so that its parity may be computed? */
  isRowKnown(offset: number): boolean {
    const layout = this.layoutAt(offset)
    const { unreadable, parity } = this.rowState(layout, rowOf(layout, offset), undefined)
    return unreadable.size === 0 || (unreadable.size === 1 && unreadable.has(parity))
  }

  /** Is nothing in the row at a byte of plex space that could be read? */
  hasNothing(offset: number): boolean {
    const layout = this.layoutAt(offset)
    return (
      this.rowState(layout, rowOf(layout, offset), undefined).unreadable.size === layout.columns
    )
  }

  /** Is the parity of the row at a byte of plex space relied upon? */
  isTrusted(offset: number): boolean {
    const layout = this.layoutAt(offset)
    return this.spanTrusted(layout, rowOf(layout, offset), 1)
  }

  /** Nothing is missing in the row, or parity makes up for it. */
  isWhole(layout: Raid5Layout, row: number): boolean {
    const { unreadable, trusted } = this.rowState(layout, row, undefined)
    return unreadable.size === 0 || trusted
  }

  /** The state of a row now; `failed` is a column that could not be read. */
  rowState(layout: Raid5Layout, row: number, failed: number | undefined): RowState {
    let unreadable = none
    let unwritable = none
    let away = false
    for (let column = 0; column < layout.columns; column++) {
      if (column !== failed && this.columnReadable(layout, row, column)) continue
      unreadable = new Set(unreadable).add(column)
      const { writable, record } = this.column(column)
      if (!writable) unwritable = new Set(unwritable).add(column)
      // Up: its drive has gone, and nobody has said so yet.
      if (!writable && (record.state === 'down' || record.state === 'up')) away = true
    }
    const trusted = this.spanTrusted(layout, row, 1)
    return {
      columns: layout.columns,
      parity: parityColumn(layout, row),
      unreadable,
      failed,
      unwritable,
      awaited: away && trusted && unreadable.size > 1,
      trusted,
    }
  }

  readable(offset: number, length: number): boolean {
    if (offset + length > this.sizeBytes) return false
    if (this.#allUp()) return true
    return this.#everyRow(offset, length, (layout, row, touched) => {
      const { unreadable, trusted } = this.rowState(layout, row, undefined)
      // What is in doubt comes from the other plex as a whole: each block must always come from the same one.
      if (unreadable.size > 0 && !trusted && this.isSureElsewhere()) return false
      return (unreadable.size <= 1 && trusted) || !touched.some((one) => unreadable.has(one))
    })
  }

  storable(offset: number, length: number): 'full' | 'partial' | 'none' {
    if (offset + length > this.sizeBytes) return 'none'
    if (this.#allUp()) return 'full'
    const all = this.#everyRow(offset, length, (layout, row, touched) => {
      const { unreadable, unwritable, awaited, parity, trusted } = this.rowState(
        layout,
        row,
        undefined,
      )
      if (awaited && [parity, ...touched].some((one) => unreadable.has(one))) return false
      if (unwritable.size !== 1 || unwritable.has(parity)) return unwritable.size <= 1
      // What belongs on the missing column lives in parity alone: then that must count.
      return trusted || !touched.some((one) => unwritable.has(one))
    })
    return all ? 'full' : 'none'
  }

  #allUp(): boolean {
    for (const subdisk of this.subdisks) if (!this.isUp(subdisk)) return false
    return true
  }

  #everyRow(
    offset: number,
    length: number,
    test: (layout: Raid5Layout, row: number, touched: readonly number[]) => boolean,
  ): boolean {
    const end = offset + length
    for (let at = offset; at < end; ) {
      const layout = this.layoutAt(at)
      const row = rowOf(layout, at)
      const to = Math.min(end, this.pieceEnd(at))
      const start = rowStart(layout, row)
      const first = Math.floor((at - start) / layout.stripeBytes)
      const last = Math.floor((to - 1 - start) / layout.stripeBytes)
      const touched = Array.from({ length: last - first + 1 }, (_, index) =>
        dataColumn(layout, row, first + index),
      )
      if (!test(layout, row, touched)) return false
      at = to
    }
    return true
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
    trusted: boolean,
    kind: ErrorKind = 'io',
  ): PlexusError {
    const why = trusted ? 'another subdisk is missing too' : 'parity is not known to be right there'
    const { name } = this.column(column).record
    return this.#error(
      kind,
      'read',
      `${this.#record.name}: row ${row} (byte ${rowStart(layout, row)}) cannot be read without subdisk ` +
        `${name}: ${why}; bring the subdisk back (plexus vinum list)`,
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

const none: ReadonlySet<number> = new Set()
