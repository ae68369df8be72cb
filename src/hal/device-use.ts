/**
 * Which device a path means, and who uses it already. Called by open-device.ts: when an exclusive open is
 * refused (EBUSY), people need to know by whom, and the kernel does not say. Everything here reads /proc
 * and /sys; nothing is opened or changed.
 */
import { readFileSync, readlinkSync, realpathSync, type Stats, statSync } from 'node:fs'
import { join } from 'node:path'
import { type ErrorKind, PlexusError } from '../base/errors.ts'
import {
  deviceNameOf,
  listDirectory,
  partitionDirsOf,
  readAttribute,
  splitDeviceNumber,
  sysfsDirOf,
} from './sysfs.ts'

export interface ResolvedDevice {
  /** The path without symbolic links. */
  readonly path: string
  readonly kind: 'block' | 'file'
  /** Of the device; of the file system's device for a regular file. */
  readonly major: number
  readonly minor: number
}

const KIND_OF_CODE: Readonly<Record<string, readonly [ErrorKind, string]>> = {
  ENOENT: [
    'not-found',
    'does not exist; is the disk connected, and the name right (ls /dev/disk/by-id)?',
  ],
  ENOTDIR: ['not-found', 'does not exist: a part of the path is no directory'],
  EACCES: ['permission', 'cannot be reached: permission denied'],
  ELOOP: ['invalid', 'is a symbolic link that leads back to itself'],
}

const REFUSED_TYPES: ReadonlyArray<readonly [(stats: Stats) => boolean, string]> = [
  [(stats) => stats.isDirectory(), 'a directory'],
  [(stats) => stats.isCharacterDevice(), 'a character device'],
  [(stats) => stats.isFIFO(), 'a named pipe'],
  [(stats) => stats.isSocket(), 'a socket'],
]

/**
 * The device or file that `path` leads to. Throws PlexusError: `not-found`, `permission`, or `invalid`
 * where it is neither a block device nor a regular file.
 */
export function resolveDevice(path: string): ResolvedDevice {
  const { real, stats } = statOf(path)
  const refused = REFUSED_TYPES.find(([is]) => is(stats))
  if (refused) {
    throw new PlexusError('invalid', {
      op: 'resolve',
      subject: path,
      message: `${path} is ${refused[1]}; give a block device or a regular file`,
    })
  }
  const isBlock = stats.isBlockDevice()
  const { major, minor } = splitDeviceNumber(isBlock ? stats.rdev : stats.dev)
  return { path: real, kind: isBlock ? 'block' : 'file', major, minor }
}

function statOf(path: string): { readonly real: string; readonly stats: Stats } {
  try {
    const real = realpathSync(path)
    return { real, stats: statSync(real) }
  } catch (error) {
    const code = String((error as { code?: string }).code)
    const [kind, text] = KIND_OF_CODE[code] ?? ['io', `cannot be examined: ${code}`]
    throw new PlexusError(kind, {
      op: 'resolve',
      subject: path,
      message: `${path} ${text}`,
      cause: error,
    })
  }
}

/**
 * Why the device or file at `path` is in use, as the end of a sentence ("/dev/sdb is in use: …"): mounts,
 * swap, holders (md, LVM, bcache …) of it or of a partition of it, a loop device over it; where there is
 * no such thing, the processes that have it open. Undefined: nobody is known, or the path leads nowhere.
 */
export function describeUse(
  path: string,
  { processes }: { readonly processes: boolean } = { processes: true },
): string | undefined {
  let device: ResolvedDevice
  try {
    device = resolveDevice(path)
  } catch {
    return undefined
  }
  const reasons = [...(device.kind === 'block' ? blockUses(device) : []), ...fileUses(device.path)]
  if (processes && reasons.length === 0) reasons.push(...processUses(device))
  return reasons.length > 0 ? reasons.join('; ') : undefined
}

// ---------------------------------------------------------------------------------- block devices

interface Mount {
  /** `8:1`; file systems of several devices have a number of their own. */
  readonly number: string
  readonly point: string
}

/** proc_pid_mountinfo(5): spaces and backslashes in paths are octal, as are those of /proc/swaps. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  )
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n')
  } catch {
    return []
  }
}

function mounts(): Mount[] {
  return linesOf('/proc/self/mountinfo').flatMap((line) => {
    const [, , number, , point] = line.split(' ')
    return number === undefined || point === undefined
      ? []
      : [{ number, point: unescapeOctal(point) }]
  })
}

function blockUses(device: ResolvedDevice): string[] {
  const dir = sysfsDirOf(device.major, device.minor)
  if (dir === undefined) return []
  const mounted = mounts()
  const uses = usesOfDir(dir, mounted)
  const ofPartitions = partitionDirsOf(dir).flatMap((partition) =>
    usesOfDir(partition, mounted).map(
      (use) => `its partition ${deviceNameOf(partition)} is ${use}`,
    ),
  )
  return [...uses, ...ofPartitions]
}

/** The uses of one device or partition, not of its partitions. */
function usesOfDir(dir: string, mounted: readonly Mount[]): string[] {
  const number = readAttribute(dir, 'dev')
  const name = deviceNameOf(dir)
  const points = mounted.filter((mount) => mount.number === number).map((mount) => mount.point)
  const uses: string[] = []
  if (points.length > 0) uses.push(`mounted at ${[...new Set(points)].join(', ')}`)
  if (isSwap((stats) => stats.isBlockDevice() && numberOf(stats.rdev) === number)) {
    uses.push('used as swap space')
  }
  if (isInBtrfs(name)) uses.push('part of a mounted btrfs')
  const holders = listDirectory(join(dir, 'holders')).map(describeHolder)
  if (holders.length > 0) uses.push(`held by ${holders.join(', ')}`)
  return uses
}

function numberOf(rdev: number): string {
  const { major, minor } = splitDeviceNumber(rdev)
  return `${major}:${minor}`
}

/** btrfs mounts have an anonymous device number; its members are listed in sysfs. */
function isInBtrfs(name: string): boolean {
  return listDirectory('/sys/fs/btrfs').some((id) =>
    listDirectory(join('/sys/fs/btrfs', id, 'devices')).includes(name),
  )
}

/** What the UUIDs of device-mapper devices begin with, by the program that made them. */
const DM_OWNERS: ReadonlyArray<readonly [string, string]> = [
  ['LVM-', 'LVM'],
  ['mpath-', 'multipath'],
  ['CRYPT-', 'dm-crypt'],
]

/** A holder's kernel name with what it is: `dm-3 (LVM vg0-home)`, `md0 (raid1)`. */
function describeHolder(name: string): string {
  const dir = join('/sys/class/block', name)
  const level = readAttribute(dir, 'md/level')
  if (level !== undefined) return `${name} (${level})`
  const mapped = readAttribute(dir, 'dm/name')
  if (mapped === undefined) return name
  const uuid = readAttribute(dir, 'dm/uuid') ?? ''
  const owner = DM_OWNERS.find(([prefix]) => uuid.startsWith(prefix))?.[1] ?? 'device mapper'
  return `${name} (${owner} ${mapped})`
}

// ------------------------------------------------------------------- block devices and files alike

/** Is there an active swap area that `matches`? */
function isSwap(matches: (stats: Stats) => boolean): boolean {
  return linesOf('/proc/swaps').some((line) => {
    const path = unescapeOctal(line.split(/\s+/)[0] ?? '')
    const stats = path.startsWith('/') ? statSync(path, { throwIfNoEntry: false }) : undefined
    return stats !== undefined && matches(stats)
  })
}

/** Loop devices over `path`, and a swap file there. */
function fileUses(path: string): string[] {
  const loops = listDirectory('/sys/block').filter(
    (name) =>
      name.startsWith('loop') &&
      readAttribute(join('/sys/block', name), 'loop/backing_file') === path,
  )
  const uses = loops.map((name) => `backing file of /dev/${name}`)
  const self = statSync(path, { throwIfNoEntry: false })
  const isSelf = (stats: Stats) => stats.ino === self?.ino && stats.dev === self.dev
  if (self?.isFile() && isSwap(isSelf)) uses.push('used as a swap file')
  return uses
}

/** Processes named in one message; more would not help anybody. */
const PROCESSES_NAMED = 3

/**
 * Processes with an open descriptor: best effort, since the kernel does not tell which of them is the
 * exclusive one, and processes of other users or in other namespaces may be hidden. This process is named
 * only when there is no other.
 */
function processUses(device: ResolvedDevice): string[] {
  const others: string[] = []
  let isOurs = false
  for (const pid of listDirectory('/proc')) {
    if (!/^\d+$/.test(pid) || !hasOpen(pid, device)) continue
    if (Number(pid) === process.pid) isOurs = true
    else others.push(`${pid} (${readAttribute(join('/proc', pid), 'comm') ?? '?'})`)
    if (others.length === PROCESSES_NAMED) break
  }
  if (others.length > 0) return [`open in process ${others.join(', ')}`]
  return isOurs ? [`open in this process, ${process.pid}`] : []
}

function hasOpen(pid: string, device: ResolvedDevice): boolean {
  const dir = join('/proc', pid, 'fd')
  return listDirectory(dir).some((fd) => {
    try {
      const target = readlinkSync(join(dir, fd))
      if (device.kind === 'file') return target === device.path
      // Only nodes below /dev are looked at: stat of anything else may hang on a lost network.
      if (!target.startsWith('/dev/')) return false
      const stats = statSync(join(dir, fd))
      return stats.isBlockDevice() && numberOf(stats.rdev) === `${device.major}:${device.minor}`
    } catch {
      return false
    }
  })
}
