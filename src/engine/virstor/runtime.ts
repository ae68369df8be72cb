/**
 * The running parts of a virstor device as they see each other (docs/adr/0015-virstor.md): the chunk map in memory, the
 * space that it is filled from, and the commit that makes changes of both durable.
 *
 * chunk: a piece of the virtual device. place: a physical chunk of a component. granule: a part of a chunk that is valid
 * or not as a whole; what is not valid reads as zeroes.
 */
import type { Consumer } from '../geom/consumer.ts'

/** A physical chunk: id of the component (from 1), and the number on it. */
export interface Place {
  readonly component: number
  readonly number: number
}

/** One entry of the map, as it is written. Unallocated: component 0, and nothing valid. */
export interface MapRecord extends Place {
  readonly chunk: number
  /** Bits of the valid granules: 0 to 31, and 32 to 63. */
  readonly validLow: number
  readonly validHigh: number
  /** What is not valid is lost, instead of zeroes: all of the chunk where it is unallocated. */
  readonly lost: boolean
}

/** What a commit makes durable. */
export interface ChangeSet {
  readonly records: readonly MapRecord[]
  /** Nobody may get them before the records are durable. */
  readonly released: readonly Place[]
}

/** As requests see it: what counts now, durable or not. No I/O. */
export interface ChunkMap {
  /** Of the virtual device. */
  readonly chunks: number
  /** Of a chunk: 1 to 64. */
  readonly granules: number
  /** Is anything changed that no commit has taken yet? */
  readonly isChanged: boolean
  /** Id of the component that has the chunk; 0: it is unallocated. Allocates nothing. */
  componentOf(chunk: number): number
  /** Number of its physical chunk there. */
  numberOf(chunk: number): number
  /** Are granules `first` to `last`, both included, valid? */
  isValid(chunk: number, first: number, last: number): boolean
  /** The first granule behind `from` that is not as `from` is; {@link granules} where there is none. */
  runEnd(chunk: number, from: number): number
  /** Chunks of which something is lost. */
  readonly lostChunks: number
  /** Is lost what is not valid of the chunk? It was on a component that was given up. */
  isLost(chunk: number): boolean
  /** An unallocated chunk gets a place that is not in use; nothing of it is valid yet. */
  assign(chunk: number, place: Place): void
  markValid(chunk: number, first: number, last: number): void
  /** True: nothing of the chunk is valid any more. Of one that is lost in part all goes, or nothing: the rest is not lost then. */
  markInvalid(chunk: number, first: number, last: number): boolean
  /** The chunk is unallocated; its place is in use until the change is committed. */
  release(chunk: number): void
  /** The content is also at `place`, which is not in use, and counts there; the old place as in {@link release}. */
  move(chunk: number, place: Place): void
  /** The chunk that has a place; -1: it is free; -2: the map itself lies there. */
  ownerOf(place: Place): number
}

/** Makes durable what has changed in the map and the data behind it. */
export interface Committer {
  /**
   * Resolves when all that was acknowledged or changed before the call is durable: data first, then the map. Rejects with
   * PlexusError when it is not, or when acknowledged writes were lost since the last call.
   */
  commit(): Promise<void>
}

/** A component in operation. */
export interface Component {
  readonly id: number
  /** Physical chunks that it has: more where its disk has grown (Space.grow). */
  chunks: number
  /** Where number 0 begins, absolute on its provider. */
  readonly startBytes: number
  /** undefined: it is away, or out of service. */
  readonly consumer: Consumer | undefined
}
