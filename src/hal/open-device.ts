/**
 * The only way to open a device: a block device node with O_DIRECT and O_EXCL, so that nothing mounted,
 * swapped on or held by another volume manager is ever written to; a regular file with O_DIRECT where
 * its file system takes that, and an exclusive lock. Called by the engine and the daemon.
 */
import { close, constants, fstatSync, open, read, type Stats } from 'node:fs'
import { stat, statfs } from 'node:fs/promises'
import { promisify } from 'node:util'
import type { Clock } from '../base/clock.ts'
import { type ErrorKind, PlexusError } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import { allocateAligned } from './aligned-pool.ts'
import type { BlockDevice } from './block-device.ts'
import { probeDevice } from './device-probe.ts'
import { describeUse } from './device-use.ts'
import { DirectDevice } from './direct-device.ts'
import { ERRNO, errnoText } from './errno.ts'
import { errorKindOf } from './io-errors.ts'
import type { IoQueue } from './io-queue.ts'
import { flockExclusive } from './libc.ts'

const openFd = promisify(open)
const closeFd = promisify(close)
const readFd = promisify(read)

export interface OpenOptions {
  readonly queue: IoQueue
  readonly clock: Clock
  readonly log: Logger
  /** Opens for reading only; writes complete with `permission`. Default false. */
  readonly readOnly?: boolean
  /**
   * Refuses a device that somebody else holds, and keeps others out. Default true; false is for
   * looking at devices only.
   */
  readonly exclusive?: boolean
  /** Says who holds a device that is in use, which means a look at every process. Default true. */
  readonly explain?: boolean
}

/**
 * Opens a block device or a regular file. Throws `not-found`, `in-use` (with who holds it),
 * `permission`, `gone`, or `invalid` for any other kind of file and for one without a whole block.
 */
export async function openDevice(path: string, options: OpenOptions): Promise<BlockDevice> {
  const kind = kindOf(path, await statPath(path, options))
  const fd = await openKind(path, kind, options)
  try {
    // What the path named a moment ago need not be what was opened.
    if (kindOf(path, fstatSync(fd)) !== kind) throw refuse('invalid', path, 'it has just changed')
    if (kind === 'file' && options.exclusive !== false && !flockExclusive(fd)) {
      throw refuse('in-use', path, inUse(path, 'another process has locked it', options))
    }
    const { geometry, identity, features, sysfsDir } = probeDevice(fd, path)
    if (geometry.sizeBytes < geometry.logicalBlockBytes) {
      throw refuse('invalid', path, 'it is empty: no medium, or a file of no size')
    }
    const { queue, clock, log } = options
    const readOnly = options.readOnly ?? false
    const mayStall = kind === 'file' && !LOCAL_FILE_SYSTEMS.has((await statfs(path)).type)
    const init = { path, fd, kind, mayStall, readOnly, geometry, identity, features, sysfsDir }
    return new DirectDevice({ ...init, queue, clock, log, closeFd })
  } catch (error) {
    await closeFd(fd)
    throw error
  }
}

function refuse(kind: ErrorKind, path: string, why: string, cause?: unknown): PlexusError {
  return new PlexusError(kind, {
    op: 'open',
    subject: path,
    message: `${path}: cannot be opened: ${why}`,
    cause,
  })
}

function inUse(path: string, otherwise: string, { explain = true }: OpenOptions): string {
  const user = explain ? describeUse(path) : undefined
  return `${user ?? otherwise}; release it there first`
}

/** A failed open or stat as a PlexusError that says what to do. */
function openError(path: string, error: unknown, options: OpenOptions): PlexusError {
  const { errno } = error as NodeJS.ErrnoException
  const number = Math.abs(errno ?? ERRNO.EIO)
  if (number === ERRNO.EBUSY) {
    const why = inUse(path, 'somebody else holds it', options)
    return refuse('in-use', path, why, error)
  }
  const advice = ADVICE[number]
  const why = advice === undefined ? errnoText(number) : `${errnoText(number)}; ${advice}`
  return refuse(errorKindOf(number), path, why, error)
}

const ADVICE: Readonly<Record<number, string>> = {
  [ERRNO.ENOENT]: 'check the path, and whether the device is attached',
  [ERRNO.EACCES]: 'the service needs the group of the device, and a read-only device read-only use',
  [ERRNO.EPERM]: 'the service needs permission for the device (DeviceAllow=)',
  [ERRNO.EROFS]: 'it can be opened read-only',
  [ERRNO.ENXIO]: 'the device is gone; check its cabling and the kernel log',
}

async function statPath(path: string, options: OpenOptions): Promise<Stats> {
  try {
    return await stat(path)
  } catch (error) {
    throw openError(path, error, options)
  }
}

function kindOf(path: string, stats: Stats): 'block' | 'file' {
  if (stats.isBlockDevice()) return 'block'
  if (stats.isFile()) return 'file'
  throw refuse('invalid', path, 'it is neither a block device nor a regular file')
}

async function openKind(
  path: string,
  kind: 'block' | 'file',
  options: OpenOptions,
): Promise<number> {
  const access = options.readOnly ? constants.O_RDONLY : constants.O_RDWR
  const exclusive = kind === 'block' && options.exclusive !== false ? constants.O_EXCL : 0
  try {
    const fd = await openFd(path, access | exclusive | constants.O_DIRECT)
    if (kind === 'block' || (await takesBlocks(fd))) return fd
    await closeFd(fd)
  } catch (error) {
    const { errno } = error as NodeJS.ErrnoException
    if (kind === 'block' || errno !== -ERRNO.EINVAL) throw openError(path, error, options)
  }
  options.log.warn(
    { device: path },
    `${path}: its file system takes no direct I/O in blocks of ${FILE_BLOCK_BYTES}; using the page cache`,
  )
  try {
    return await openFd(path, access)
  } catch (error) {
    throw openError(path, error, options)
  }
}

/** Files are served in blocks of 512 bytes; a file system on 4096-byte blocks refuses those directly. */
const FILE_BLOCK_BYTES = 512

async function takesBlocks(fd: number): Promise<boolean> {
  const { bytes } = allocateAligned(FILE_BLOCK_BYTES)
  try {
    await readFd(fd, bytes, 0, bytes.length, FILE_BLOCK_BYTES)
  } catch (error) {
    return (error as NodeJS.ErrnoException).errno !== -ERRNO.EINVAL
  }
  return true
}

/** linux/magic.h. Any other one may wait for a server, on a network or in a process (NFS, CIFS, Ceph, 9P, FUSE). */
const LOCAL_FILE_SYSTEMS: ReadonlySet<number> = new Set([
  0xef53, // ext2 to ext4
  0x58465342, // XFS
  0x9123683e, // Btrfs
  0xf2f52010, // F2FS
  0xca451a4e, // bcachefs
  0x2fc12fc1, // ZFS
  0x01021994, // tmpfs
  0x794c7630, // overlayfs, of containers
])
