/**
 * What an open device is: geometry, identity and abilities, by the ioctls of linux/fs.h and the queue
 * attributes of sysfs (Documentation/ABI/stable/sysfs-block). Called by open-device.ts after the open and
 * when the size has changed. Answers of the kernel are taken as they are; where it says nothing, the
 * careful answer is chosen: a write cache that may lose data, no discard, no zeroes.
 */
import { fstatSync, readFileSync, type Stats, statSync } from 'node:fs'
import { join } from 'node:path'
import { alignDown } from '../base/bytes.ts'
import { type ErrorKind, PlexusError } from '../base/errors.ts'
import { GIB, KIB, PAGE_BYTES } from '../base/limits.ts'
import type { DeviceFeatures, DeviceIdentity, Geometry } from './block-device.ts'
import { NO_IDENTITY, readIdentity } from './device-identity.ts'
import { ERRNO } from './errno.ts'
import { errorKindOf } from './io-errors.ts'
import { BLKGETSIZE64, FALLOC_PUNCH_HOLE, fallocate, ioctlU32, ioctlU64 } from './libc.ts'
import {
  deviceNameOf,
  diskDirOf,
  listDirectory,
  readAttribute,
  readNumber,
  splitDeviceNumber,
  sysfsDirOf,
  udevProperties,
} from './sysfs.ts'

export interface DeviceProbe {
  readonly geometry: Geometry
  readonly identity: DeviceIdentity
  readonly features: DeviceFeatures
  /** Directory of the device in sysfs; undefined for a regular file. It vanishes with the device. */
  readonly sysfsDir: string | undefined
}

// linux/fs.h
const BLKROGET = 0x125e
const BLKSSZGET = 0x1268
const BLKIOMIN = 0x1278
const BLKIOOPT = 0x1279
const BLKALIGNOFF = 0x127a
const BLKPBSZGET = 0x127b
const BLKROTATIONAL = 0x127e

/** BLKALIGNOFF is signed; -1 says that the stacked devices below do not agree on any alignment. */
const ALIGNMENT_UNKNOWN = 0xffffffff

const FILE_BLOCK_BYTES = 512
/** A file system's preferred block (st_blksize) up to here is a physical block; NFS says 1 MiB and means a transfer. */
const FILE_PHYSICAL_BLOCK_BYTES_MAX = 64 * KIB
/** One punched hole is no larger, so that a call does not hold its thread for long. */
const FILE_DISCARD_BYTES_MAX = 1 * GIB

/**
 * Probes the block device or regular file that is open as `fd`; `path` is for messages only. Throws
 * PlexusError: `gone` for a device that has left or has no medium, `invalid` for a file too small to hold
 * a block or a descriptor of another type, `unsupported` for buffers aligned beyond a page, `io` else.
 */
export function probeDevice(fd: number, path: string): DeviceProbe {
  try {
    const stats = fstatSync(fd)
    if (stats.isBlockDevice()) return probeBlockDevice(fd, path, stats)
    if (stats.isFile()) return probeFile(fd, path, stats)
  } catch (error) {
    if (error instanceof PlexusError) throw error
    // Node has negated error numbers, libc.ts has plain ones.
    const { errno } = error as { readonly errno?: number }
    const kind = errorKindOf(Math.abs(errno ?? ERRNO.EIO))
    const text = error instanceof Error ? error.message : String(error)
    throw problem(kind, path, `${path} cannot be probed: ${text}`, error)
  }
  throw problem('invalid', path, `${path} is neither a block device nor a regular file`)
}

function problem(kind: ErrorKind, path: string, message: string, cause?: unknown): PlexusError {
  return new PlexusError(kind, { op: 'probe', subject: path, message, cause })
}

// ---------------------------------------------------------------------------------- block devices

function probeBlockDevice(fd: number, path: string, stats: Stats): DeviceProbe {
  const { major, minor } = splitDeviceNumber(stats.rdev)
  const sysfsDir = sysfsDirOf(major, minor)
  if (sysfsDir === undefined) {
    throw problem('gone', path, `${path} (${major}:${minor}) is no longer known to the kernel`)
  }
  const sizeBytes = ioctlU64(fd, BLKGETSIZE64)
  if (sizeBytes === 0) {
    throw problem('gone', path, `${path} has size 0: no medium, or nothing attached to it`)
  }
  // A partition has no queue of its own.
  const diskDir = diskDirOf(sysfsDir)
  const queueDir = join(diskDir, 'queue')
  const dmaMask = readNumber(queueDir, 'dma_alignment') ?? 0
  if (dmaMask >= PAGE_BYTES) {
    throw problem(
      'unsupported',
      path,
      `${path} wants buffers aligned to ${dmaMask + 1} bytes; Plexus aligns to ${PAGE_BYTES}`,
    )
  }
  const alignmentOffset = ioctlU32(fd, BLKALIGNOFF)
  return {
    geometry: {
      sizeBytes,
      logicalBlockBytes: ioctlU32(fd, BLKSSZGET),
      physicalBlockBytes: ioctlU32(fd, BLKPBSZGET),
      alignmentOffsetBytes: alignmentOffset === ALIGNMENT_UNKNOWN ? 0 : alignmentOffset,
      ioMinBytes: ioctlU32(fd, BLKIOMIN),
      ioOptBytes: ioctlU32(fd, BLKIOOPT),
      maxTransferBytes:
        (readNumber(queueDir, 'max_sectors_kb') ?? readNumber(queueDir, 'max_hw_sectors_kb') ?? 0) *
        KIB,
    },
    identity: readIdentity(sysfsDir, udevProperties(major, minor)),
    features: {
      ...queueFeatures(diskDir),
      rotational: ioctlU32(fd, BLKROTATIONAL) !== 0,
      readOnly: ioctlU32(fd, BLKROGET) !== 0 || isOpenReadOnly(fd),
      // A partition has its own, relative to its own beginning.
      discardAlignmentBytes: readNumber(sysfsDir, 'discard_alignment') ?? 0,
    },
    sysfsDir,
  }
}

type QueueFeatures = Omit<DeviceFeatures, 'rotational' | 'readOnly' | 'discardAlignmentBytes'>

/** What the queue attributes of a disk's sysfs directory promise. Exported for its test. */
export function queueFeatures(diskDir: string): QueueFeatures {
  const queueDir = join(diskDir, 'queue')
  const discardMaxBytes = readNumber(queueDir, 'discard_max_bytes') ?? 0
  const writeZeroes = (readNumber(queueDir, 'write_zeroes_max_bytes') ?? 0) > 0
  return {
    // "write through" is a promise that flushes are not needed; everything else is not.
    volatileWriteCache: readAttribute(queueDir, 'write_cache') !== 'write through',
    discardGranularityBytes:
      discardMaxBytes > 0 ? (readNumber(queueDir, 'discard_granularity') ?? 0) : 0,
    discardMaxBytes,
    discardZeroes: discardMaxBytes > 0 && writeZeroes && zeroingFreesBlocks(diskDir),
    writeZeroes,
  }
}

/**
 * Does a zeroing that may unmap free the blocks of this device? docs/adr/0003-zeroes-after-unmap.md has
 * the reasoning. The kernel never says what a discard leaves behind (BLKDISCARDZEROES and
 * queue/discard_zeroes_data are always 0), but fallocate(PUNCH_HOLE) on a block device is a
 * write-zeroes that may unmap and never falls back to data: after it the blocks read as zeroes for
 * certain. It replaces discard, and LBPRZ may be 1, where it is known to free blocks as well:
 * - since Linux 6.17 the queue says so (NVMe with DEAC, SCSI with LBPRZ, what is stacked on them);
 * - the SCSI disk driver tells its way of zeroing on every kernel, WRITE SAME with UNMAP is the one;
 * - the loop driver punches a hole into its backing file.
 */
function zeroingFreesBlocks(diskDir: string): boolean {
  if ((readNumber(join(diskDir, 'queue'), 'write_zeroes_unmap_max_bytes') ?? 0) > 0) return true
  const scsiDir = join(diskDir, 'device/scsi_disk')
  const modes = listDirectory(scsiDir).map((name) =>
    readAttribute(join(scsiDir, name), 'zeroing_mode'),
  )
  if (modes.some((mode) => mode?.endsWith('_unmap'))) return true
  const backing = readAttribute(diskDir, 'loop/backing_file')
  return (
    deviceNameOf(diskDir).startsWith('loop') &&
    backing !== undefined &&
    (statSync(backing, { throwIfNoEntry: false })?.isFile() ?? false)
  )
}

const O_ACCMODE = 3

/** Was the descriptor opened O_RDONLY? proc(5): the flags in fdinfo are octal. */
function isOpenReadOnly(fd: number): boolean {
  const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1')
  const flags = /^flags:\s*([0-7]+)$/m.exec(info)?.[1] ?? '0'
  return (Number.parseInt(flags, 8) & O_ACCMODE) === 0
}

// ---------------------------------------------------------------------------------- regular files

function probeFile(fd: number, path: string, stats: Stats): DeviceProbe {
  const sizeBytes = alignDown(stats.size, FILE_BLOCK_BYTES)
  if (sizeBytes === 0) {
    throw problem(
      'invalid',
      path,
      `${path} has ${stats.size} bytes, less than a block; give it a size first (truncate -s 10G ${path})`,
    )
  }
  const { major, minor } = splitDeviceNumber(stats.dev)
  const holderDir = sysfsDirOf(major, minor)
  const holderQueueDir = holderDir === undefined ? undefined : join(diskDirOf(holderDir), 'queue')
  const isPowerOfTwo = Number.isInteger(Math.log2(stats.blksize))
  const physicalBlockBytes =
    isPowerOfTwo && stats.blksize <= FILE_PHYSICAL_BLOCK_BYTES_MAX
      ? Math.max(stats.blksize, FILE_BLOCK_BYTES)
      : PAGE_BYTES
  const readOnly = isOpenReadOnly(fd)
  // A hole behind the end of the file changes nothing, and tells whether the file system has holes.
  const punchesHoles =
    !readOnly && fallocate(fd, FALLOC_PUNCH_HOLE, stats.size, physicalBlockBytes) === 0
  return {
    geometry: {
      sizeBytes,
      logicalBlockBytes: FILE_BLOCK_BYTES,
      physicalBlockBytes,
      alignmentOffsetBytes: 0,
      ioMinBytes: physicalBlockBytes,
      ioOptBytes: 0,
      maxTransferBytes: 0,
    },
    identity: NO_IDENTITY,
    features: {
      // The page cache, or the cache of the disk below: only fdatasync makes it durable.
      volatileWriteCache: true,
      rotational: holderQueueDir !== undefined && readNumber(holderQueueDir, 'rotational') === 1,
      readOnly,
      discardGranularityBytes: punchesHoles ? physicalBlockBytes : 0,
      discardAlignmentBytes: 0,
      discardMaxBytes: punchesHoles ? FILE_DISCARD_BYTES_MAX : 0,
      // fallocate(2): within the hole, subsequent reads return zeroes.
      discardZeroes: punchesHoles,
      writeZeroes: punchesHoles,
    },
    sysfsDir: undefined,
  }
}
