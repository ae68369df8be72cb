/**
 * The running objects of vinum as they see each other: drive, subdisk, plex, volume and the set that hosts
 * them. vinum-set.ts builds them from the model; the I/O path is volume-io.ts -> plex-linear.ts or
 * plex-raid5.ts -> subdisk.ts -> Consumer.forward.
 *
 * States live in the records; a running object has the newest record. Three rules hold everywhere:
 * 1. A write is acknowledged only when every copy that missed it is out of service durably (`demote`).
 * 2. The last good copy is never taken out of service: then the error goes up instead.
 * 3. What is not valid is not read (`readable`): a reviving subdisk is valid where its job has been.
 */
import type { Clock } from '../../base/clock.ts'
import type { PlexusError } from '../../base/errors.ts'
import type { Kernels } from '../../base/kernels.ts'
import type { Logger } from '../../base/log.ts'
import type { RangeSet } from '../../base/range-set.ts'
import type { BufferPool, IoRequest } from '../../hal/block-device.ts'
import type { IoParent } from '../geom/bio.ts'
import type { Consumer } from '../geom/consumer.ts'
import type { TroubleCounts } from '../metadata/set-drive.ts'
import type { LogHost, PlexLog } from './log/plex-log.ts'
import type { DriveRecord, PlexRecord, SubdiskRecord } from './model/model.ts'

/** A drive with the consumer that holds its provider, or without one while it is missing. */
export interface Drive {
  record: DriveRecord
  consumer: Consumer | undefined
  readonly errors: TroubleCounts
}

/**
 * A subdisk in operation (subdisk.ts). Addresses are in subdisk space, 0 to record.sizeBytes. What it is good for:
 *
 *   state         drive    readable              writable   inService
 *   up            there    all                   yes        yes
 *   reviving      there    where its job was     yes        yes
 *   up, reviving  missing  no                    no         yes: the next write without it takes it out durably
 *   down          any      no                    no         yes: it may come back as it is, until a write misses it
 *   the others    any      no                    no         no: what it misses matters no more
 */
export interface Subdisk {
  record: SubdiskRecord
  drive: Drive
  readonly errors: TroubleCounts
  /** While `reviving`: what its job has still to fill, in PLEX space. Undefined: no job has it yet, all is missing. */
  missing: RangeSet | undefined
  /** Writes go here. */
  readonly writable: boolean
  /** How often it went out of service. */
  readonly departures: number
  /** Does the configuration count on its content, or on what it may return with? */
  readonly inService: boolean
  /** Is all that it has of a range of PLEX space valid, and there? */
  readable(plexOffset: number, length: number): boolean
  /**
   * Sends the part [offset, offset + length) of this subdisk down, with parent's buffer from dataOffset. The
   * parent's `complete` gets the result, never from within. A missing drive answers `gone`. Follows a move.
   */
  forward(parent: IoParent, offset: number, length: number, dataOffset: number): void
}

/** A plex in operation. Addresses are in plex space, which is the volume's: 0 to sizeBytes. */
export interface Plex {
  record: PlexRecord
  /** In order (subdisksOf). */
  readonly subdisks: readonly Subdisk[]
  readonly sizeBytes: number
  /**
   * Where parity may be wrong since a crash or a failed write, in plex space. Settled row by row, by the resync or by the
   * first write to a row. undefined: it has no parity.
   */
  doubt: RangeSet | undefined
  /** Of raid5 with policy `log`. */
  readonly log?: PlexLog | undefined
  /** Of raid5 with policy `log`: serves nothing before it is replayed (set/replay.ts), for which too much is missing. */
  awaitsReplay?: boolean
  /** May the range be read here: valid, directly or through parity? */
  readable(offset: number, length: number): boolean
  /**
   * Will a write of the range be stored completely here: `full`; by some of its subdisks only: `partial`; not
   * at all: `none`. raid5 is `full` with one column missing.
   */
  storable(offset: number, length: number): 'full' | 'partial' | 'none'
  /** End of the piece around `offset` that lies in one subdisk (raid5: one row), so that it is not `partial`. */
  pieceEnd(offset: number): number
  /**
   * Carries out read, write, discard, write-zeroes or flush. Completes once, never from within. A failed write
   * names the subdisks that missed it through `onMissed` before completing: the volume decides on their fate.
   * raid5 demotes a single failing column itself and completes without error.
   */
  start(request: IoRequest, onMissed: (subdisk: Subdisk, error: PlexusError) => void): void
}

/** What the parts of a set may ask of it (vinum-set.ts). */
export interface VinumHost {
  readonly pool: BufferPool
  /** For parity: `createKernels(pool.memory)`, or without a slab `createKernels()`. */
  readonly kernels: Kernels
  readonly clock: Clock
  readonly log: Logger
  /**
   * Takes subdisks out of service (stale): at once in memory, and resolves when that is durable on the set's
   * drives, so that the write that they missed may be acknowledged. Concurrent calls share one commit.
   * Rejects with PlexusError `io` when it would take the last good copy of any part of a volume, or when the
   * set cannot commit: the write must fail then.
   */
  demote(subdisks: readonly Subdisk[], error: PlexusError): Promise<void>
  /** Counts trouble, and tells of it once in a while. */
  noteError(subdisk: Subdisk, op: keyof TroubleCounts, error: PlexusError | undefined): void
  /**
   * Changes what is lost of a raid5 plex ({@link PlexRecord.lost}); durable, and told of, when it resolves. Rejects when the
   * set cannot commit.
   */
  changeLost(plex: Plex, change: (lost: PlexRecord['lost']) => PlexRecord['lost']): Promise<void>
  /** Is a commit under way that adds to what is lost of a raid5 plex? A change after it sees what it has added. */
  isLosing(plex: Plex): boolean
  /** The parity of a part of a raid5 plex is not right from now on; marked durably when it resolves. `why` is told. */
  putInDoubt(plex: Plex, offset: number, length: number, why: string): Promise<void>
  /** What the log of a raid5 plex needs: only of plexes that have one. */
  logHost(plex: Plex): LogHost
  /** A bad sector was written again from good data. */
  noteRepair(subdisk: Subdisk, offset: number, length: number): void
  /**
   * Keeps writes (`writes`) or all requests (`all`) of the volume above off a range of plex space, waits for
   * those in flight, and resolves to the way to let go. At once for a detached plex.
   */
  lock(plex: Plex, offset: number, length: number, mode: 'writes' | 'all'): Promise<() => void>
}

/** What a plex is made from. */
export interface PlexOptions {
  readonly host: VinumHost
  readonly record: PlexRecord
  /** In order (subdisksOf): of raid5 and striped, the columns. */
  readonly subdisks: readonly Subdisk[]
}
