/**
 * Reading sysfs and udev's database (Documentation/ABI/stable/sysfs-block of the Linux kernel). An
 * attribute that does not exist, or that the driver refuses to answer, is undefined: kernels differ, and
 * no single attribute is worth failing for. Used by device-probe.ts, device-use.ts and device-watch.ts.
 */
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'

/** Major and minor number of a device number as stat(2) gives it (glibc's makedev). */
export function splitDeviceNumber(rdev: number): {
  readonly major: number
  readonly minor: number
} {
  const number = BigInt(rdev)
  return {
    major: Number(((number >> 8n) & 0xfffn) | ((number >> 32n) & 0xfffff000n)),
    minor: Number((number & 0xffn) | ((number >> 12n) & 0xffffff00n)),
  }
}

/** The real directory of a block device in sysfs; undefined when the kernel has none such (any more). */
export function sysfsDirOf(major: number, minor: number): string | undefined {
  try {
    return realpathSync(`/sys/dev/block/${major}:${minor}`)
  } catch {
    return undefined
  }
}

/** The directory of the disk that a partition belongs to; the directory itself for a disk. */
export function diskDirOf(dir: string): string {
  return existsSync(join(dir, 'partition')) ? dirname(dir) : dir
}

/** Directories of the partitions of a disk. */
export function partitionDirsOf(dir: string): string[] {
  return listDirectory(dir)
    .map((name) => join(dir, name))
    .filter((path) => existsSync(join(path, 'partition')))
}

/** The names in a directory; none where it cannot be read. */
export function listDirectory(dir: string): string[] {
  try {
    return readdirSync(dir)
  } catch {
    return []
  }
}

/** The kernel's name of a device directory: `sda1`. A `!` stands for the slash of names such as `cciss/c0d0`. */
export function deviceNameOf(dir: string): string {
  return basename(dir).replaceAll('!', '/')
}

/** The raw bytes of an attribute. */
export function readAttributeBytes(dir: string, name: string): Buffer | undefined {
  try {
    return readFileSync(join(dir, name))
  } catch {
    return undefined
  }
}

/** The text of an attribute without blanks around it; undefined where it is missing or empty. */
export function readAttribute(dir: string, name: string): string | undefined {
  const text = readAttributeBytes(dir, name)?.toString('utf8').replaceAll('\0', '').trim()
  return text === '' ? undefined : text
}

/** A decimal attribute; undefined where it is missing or no number. */
export function readNumber(dir: string, name: string): number | undefined {
  const text = readAttribute(dir, name)
  const value = text === undefined ? Number.NaN : Number(text)
  return Number.isFinite(value) ? value : undefined
}

/** What udev stored about a block device: its `E:` lines by key. Empty without udev. */
export function udevProperties(
  major: number,
  minor: number,
  database = '/run/udev/data',
): ReadonlyMap<string, string> {
  const properties = new Map<string, string>()
  const text = readAttribute(database, `b${major}:${minor}`) ?? ''
  for (const line of text.split('\n')) {
    const match = /^E:([^=]+)=(.*)$/.exec(line)
    if (match?.[1] !== undefined && match[2] !== undefined) properties.set(match[1], match[2])
  }
  return properties
}
