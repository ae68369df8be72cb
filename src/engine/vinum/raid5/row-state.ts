/**
 * The state of a row of a RAID5 plex: what reads, writes, rebuild, resync, check and repair of the row decide by. A column
 * is a subdisk where the row lies (runtime.ts has what each of its states is good for); the sets have the numbers of columns:
 *
 *   (neither)    readable: up, or rebuilt here already
 *   unreadable   not rebuilt here yet: takes writes. Or a read of it has just failed (`failed`)
 *   unwritable   a part of the unreadable ones: stale, down, or its drive is gone. While it is in service all the same, what
 *                is written without it takes it out first
 *
 * The parity, and with it the data of an unreadable column:
 *
 *   right    relied upon: one unreadable column is computed from the others
 *   unknown  never computed (initialisation has not been here): every column speaks for itself; only while all are there
 *   doubt    a crash or a failed write may have left it wrong: every column speaks for itself. Before the next write the
 *            row is settled: parity is computed when all data can be read; else the missing column's data is lost
 *            (raid5/lost.ts), what parity says stands for it, and parity is right
 *
 * A column that is lost in places is like any other here: only reads of these places by initiators fail.
 */
import { parityColumn, type Raid5Layout, rowStart } from './layout.ts'
import type { Raid5Plex } from './plex-raid5.ts'

export interface RowState {
  readonly columns: number
  /** The column of the parity. */
  readonly parity: number
  readonly parityState: 'right' | 'unknown' | 'doubt'
  readonly unreadable: ReadonlySet<number>
  readonly failed: number | undefined
  readonly unwritable: ReadonlySet<number>
}

const none: ReadonlySet<number> = new Set()

/** The state of a row now; `failed` is a column that could not be read. */
export function rowState(
  plex: Raid5Plex,
  layout: Raid5Layout,
  row: number,
  failed?: number,
): RowState {
  let unreadable = none
  let unwritable = none
  for (let column = 0; column < layout.columns; column++) {
    if (column !== failed && plex.columnReadable(layout, row, column)) continue
    unreadable = new Set(unreadable).add(column)
    if (!plex.column(column).writable) unwritable = new Set(unwritable).add(column)
  }
  const parity = parityColumn(layout, row)
  const parityState = parityStateOf(plex, layout, row)
  return { columns: layout.columns, parity, parityState, unreadable, failed, unwritable }
}

function parityStateOf(plex: Raid5Plex, layout: Raid5Layout, row: number): RowState['parityState'] {
  const isComputed =
    plex.parityValidBytes >= plex.sizeBytes || rowStart(layout, row + 1) <= plex.parityValidBytes
  if (!isComputed) return 'unknown'
  return plex.doubt.touches(...plex.partOf(layout, row, 1)) ? 'doubt' : 'right'
}

/** A column that cannot be read, other than the one that is to be computed. */
export function lacking(
  { unreadable }: RowState,
  ...computed: readonly number[]
): number | undefined {
  for (const column of unreadable) if (!computed.includes(column)) return column
  return undefined
}

/** Can the content of a column be computed from the others? */
export function isComputable(state: RowState, column: number): boolean {
  return state.parityState === 'right' && lacking(state, column) === undefined
}
