/**
 * The interface between everything above and a raw block device. Implemented by direct-device.ts
 * (Linux, O_DIRECT), test/support/memory-device.ts and the simulator's disks. The way of one request:
 * the caller owns an {@link IoRequest} and its buffer, hands it to `submit`, keeps both untouched, and
 * owns them again when `complete` is called. Requests and completions are plain objects with one
 * method instead of promises: at 100,000 operations a second a promise per layer shows in the profile
 * (docs/adr/0002-request-objects.md). `io.ts` has promises for all code that is not the hot path.
 */
import type { PlexusError } from '../base/errors.ts'

/** Bytes at a known, page-aligned (for a lease) address that the kernel may read or write directly. */
export interface AlignedBuffer {
  readonly bytes: Buffer
  /** Address in this process; a multiple of {@link PAGE_BYTES} for a lease. */
  readonly address: number
}

/** A buffer borrowed from the pool. Exactly one owner; released exactly once, never with I/O in flight. */
export interface Lease extends AlignedBuffer {
  release(): void
}

/** What SCSI and the engine need of the buffer pool (hal/aligned-pool.ts). */
export interface BufferPool {
  /** All bytes that the pool manages. */
  readonly totalBytes: number
  /** Bytes in chunks or slots that a lease could have now. */
  readonly freeBytes: number
  /** Leases that are out, with those that a disk keeps. Zero when everything is at rest; tests check that. */
  readonly leased: number
  /** Bytes that were released and are not free, because a disk may still use them ({@link keep}). */
  readonly keptBytes: number
  /** A lease of at least `length` bytes (`bytes.length` is exactly `length`), or undefined when none is free. */
  lease(length: number): Lease | undefined
  /** As `lease`, but waits in order of arrival; `deliver` runs at once where one is free. Returns a cancel function. */
  leaseSoon(length: number, deliver: (lease: Lease) => void): () => void
  /**
   * A disk that does not answer may still read or write the memory of `data`, whoever releases it: it is lent to
   * nobody else until the function that this returns is called. Memory that is not the pool's is only remembered.
   */
  keep(data: AlignedBuffer): () => void
  /**
   * Is it memory that a disk keeps, or kept since it was leased? What it holds may change at any time: nothing may
   * be read into it any more, and nothing that was is to be used.
   */
  isKept(data: AlignedBuffer): boolean
}

export type IoOp = 'read' | 'write' | 'flush' | 'discard' | 'write-zeroes'
/** Who wants it: decides priority and statistics, never correctness. */
export type IoCause = 'initiator' | 'sync' | 'metadata'

export interface IoRequest {
  readonly op: IoOp
  /** First byte on the device; a multiple of the logical block. 0 for flush. */
  readonly offset: number
  /** Bytes; a multiple of the logical block. 0 for flush. */
  readonly length: number
  /** Source or destination of read and write, undefined otherwise. */
  readonly data: AlignedBuffer | undefined
  /** Where in `data` the transfer begins: a multiple of the logical block. */
  readonly dataOffset: number
  /** Write: durable before completion (force unit access). */
  readonly fua: boolean
  readonly cause: IoCause
  /** Called exactly once, never from within `submit`. The whole transfer is done, or `error` says why not. */
  complete(error: PlexusError | undefined): void
}

export interface Geometry {
  readonly sizeBytes: number
  readonly logicalBlockBytes: number
  readonly physicalBlockBytes: number
  /** Offset of the first naturally aligned physical block; 0 on all sane devices. */
  readonly alignmentOffsetBytes: number
  /** Preferred smallest and best transfer; 0 where the device says nothing. */
  readonly ioMinBytes: number
  readonly ioOptBytes: number
  /** Largest transfer that the kernel passes to the device unsplit; 0 = unknown. */
  readonly maxTransferBytes: number
}

export interface DeviceIdentity {
  /** World-wide name as the kernel prints it (`naa.5000…`, `eui.…`, `t10.…`), if it has one. */
  readonly wwid: string | undefined
  readonly serial: string | undefined
  readonly vendor: string | undefined
  readonly model: string | undefined
}

export interface DeviceFeatures {
  /** The device may lose acknowledged writes at power cut unless flushed: WCE = 1. */
  readonly volatileWriteCache: boolean
  readonly rotational: boolean
  readonly readOnly: boolean
  /** Discard works; granularity and most bytes per call (0 granularity = not supported). */
  readonly discardGranularityBytes: number
  readonly discardAlignmentBytes: number
  readonly discardMaxBytes: number
  /** Discarded blocks read as zeroes for certain (LBPRZ). */
  readonly discardZeroes: boolean
  /** The kernel or the device zeroes ranges without data transfer. */
  readonly writeZeroes: boolean
}

/** A run of bytes that are all allocated, or all not: then they read as zeroes. */
export interface Extent {
  readonly allocated: boolean
  /** Bytes from the offset that was asked about: at least 1. */
  readonly length: number
}

/** The space of a device that offers more than it has, in pieces as it is given. */
export interface Provisioning {
  readonly pieceBytes: number
  /** What can be given now. */
  readonly freePieces: number
  readonly usedPieces: number
  /** Space is low with so many free pieces, or fewer. */
  readonly lowPieces: number
}

/** `low`: space has become low, and was not. `watermark`: where it is low has changed. Both of a {@link Provisioning}. */
export type DeviceEvent = 'gone' | 'resized' | 'low' | 'watermark'

export interface BlockDevice {
  /** The path by which it was opened: what messages name. */
  readonly path: string
  readonly geometry: Geometry
  readonly identity: DeviceIdentity
  readonly features: DeviceFeatures
  /** Absent: it has all that it offers, or does not know. */
  readonly provisioning?: Provisioning | undefined
  /** Requests that are submitted and not complete. */
  readonly inFlight: number
  /** A file whose last name was removed: what it holds ends with its use. It counts as gone. */
  readonly deleted?: boolean
  /** Queues one request. Range, alignment and closed state are checked; a violation completes with `invalid` or `gone`. */
  submit(request: IoRequest): void
  /**
   * The state at byte `offset`, and how far it goes, up to `length`. Absent, or `allocated` for all, where nobody knows.
   * Throws PlexusError `gone`. For GET LBA STATUS.
   */
  extentAt?(offset: number, length: number): Promise<Extent>
  /** Registers for loss, change of size or of space; returns the way to stop. */
  onEvent(listener: (event: DeviceEvent) => void): () => void
  /**
   * It does not answer: from now on it counts as gone. Requests that wait here end at once; those that the kernel has
   * end when it returns them.
   */
  abandon?(): void
  /** Waits for what is in flight, then releases the device. New requests complete with `gone`. */
  close(): Promise<void>
}
