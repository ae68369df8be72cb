/**
 * The organisations of plexes, one row for each: code asks what a plex has and needs, not what it is called (docs/vinum.md, 1
 * and 4). What runs for each: set/make-plex.ts.
 */
interface PlexKind {
  /** Fewest subdisks with which it serves. */
  readonly columnsMin: number
  /** Columns of one size that take turns, stripe by stripe; else pieces one behind the other. */
  readonly isStriped: boolean
  /** Columns of each row that hold parity: so many may be missing. */
  readonly parityColumns: number
}

const KINDS = {
  concat: { columnsMin: 1, isStriped: false, parityColumns: 0 },
  striped: { columnsMin: 2, isStriped: true, parityColumns: 0 },
  raid5: { columnsMin: 3, isStriped: true, parityColumns: 1 },
} as const satisfies Readonly<Record<string, PlexKind>>

export type Organization = keyof typeof KINDS
export const ORGANIZATIONS = Object.keys(KINDS) as readonly Organization[]

type Organized = { readonly organization: Organization }

export function kindOf({ organization }: Organized): PlexKind {
  return KINDS[organization]
}

export function isStriped(plex: Organized): boolean {
  return kindOf(plex).isStriped
}

export function hasParity(plex: Organized | undefined): boolean {
  return plex !== undefined && kindOf(plex).parityColumns > 0
}

/** How many of so many columns of a plex hold data. */
export function dataColumns(plex: Organized, columns: number): number {
  return columns - kindOf(plex).parityColumns
}
