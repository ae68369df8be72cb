/**
 * Notices that backing devices arrive, leave and are replaced, by looking at their paths every two seconds: it needs no
 * netlink socket, no udev, and works for links, files and loop devices alike. Called by the daemon, which
 * opens a LUN's missing device when it comes and looks after one that its path does not lead to any more.
 */
import { readFile, stat } from 'node:fs/promises'
import type { Clock } from '../base/clock.ts'
import { inTurns } from '../base/turns.ts'
import { splitDeviceNumber } from './sysfs.ts'

export interface DeviceWatch {
  /** No event follows. */
  stop(): void
}

/** What is at a path while nothing usable is there. */
export const ABSENT = ''

interface Seen {
  /** What was there at the last look; undefined before the first one has ended. */
  device: string | undefined
  isBusy: boolean
}

/**
 * Watches the paths that `paths()` returns at each look (the list may change). The listener gets what is at a path
 * ({@link deviceAt}) when it is first seen, so that nothing is lost between an open that failed and the first look, and
 * after that at every change.
 */
export function watchDevices(
  paths: () => readonly string[],
  clock: Clock,
  listener: (path: string, device: string) => void,
  periodMs = 2000,
): DeviceWatch {
  let isStopped = false
  const seen = new Map<string, Seen>()

  const look = (): void => {
    const wanted = new Set(paths())
    for (const path of seen.keys()) {
      if (!wanted.has(path)) seen.delete(path)
    }
    void inTurns(wanted, (path) => {
      const state = seen.get(path) ?? { device: undefined, isBusy: false }
      seen.set(path, state)
      // A path on a dead file server may take minutes: one look at a time, and no other path waits.
      if (!state.isBusy) void lookAt(path, state)
    })
  }
  const lookAt = async (path: string, state: Seen): Promise<void> => {
    state.isBusy = true
    const device = await deviceAt(path)
    state.isBusy = false
    if (device === undefined || device === state.device) return
    state.device = device
    if (!isStopped && seen.get(path) === state) listener(path, device)
  }

  look()
  const timer = clock.every(periodMs, look)
  return {
    stop() {
      isStopped = true
      timer.cancel()
    },
  }
}

/**
 * Which device is at a path, so that another one under the same name is told apart: device and inode number of a file; of
 * a block device its number and the kernel's sequence number, which grows whenever a medium or a backing file is attached
 * (Linux 5.15). A block device of size 0 (an empty drive, a detached loop device) counts as absent. undefined: it cannot
 * be seen now, on a file server that does not answer, for example, which says nothing of the device.
 */
export async function deviceAt(path: string): Promise<string | undefined> {
  try {
    const stats = await stat(path)
    if (stats.isFile()) return `file ${stats.dev}:${stats.ino}`
    if (!stats.isBlockDevice()) return ABSENT
    return await blockDeviceAt(stats.rdev)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'ENOENT' || code === 'ENOTDIR' ? ABSENT : undefined
  }
}

async function blockDeviceAt(rdev: number): Promise<string> {
  const { major, minor } = splitDeviceNumber(rdev)
  const dir = `/sys/dev/block/${major}:${minor}`
  const sectors = await readFile(`${dir}/size`, 'latin1').catch(() => '0')
  if (Number(sectors) === 0) return ABSENT
  // A partition has the sequence number of its disk, one directory up.
  const sequence = await Promise.any(
    ['diskseq', '../diskseq'].map((name) => readFile(`${dir}/${name}`, 'latin1')),
  ).catch(() => '')
  return `block ${major}:${minor} ${sequence.trim()}`
}
