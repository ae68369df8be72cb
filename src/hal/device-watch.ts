/**
 * Notices that backing devices arrive and leave, by looking at their paths every two seconds: it needs no
 * netlink socket, no udev, and works for links, files and loop devices alike. Called by the daemon, which
 * opens a LUN's missing device when it comes and reports one that went.
 */
import { readFile, stat } from 'node:fs/promises'
import type { Clock } from '../base/clock.ts'
import { splitDeviceNumber } from './sysfs.ts'

export type WatchEvent = 'arrived' | 'left'

export interface DeviceWatch {
  /** No event follows. */
  stop(): void
}

/** What `device` stands for while nothing usable is at the path. */
const ABSENT = ''

interface Seen {
  /** What was there at the last look; undefined before the first one has ended. */
  device: string | undefined
  isBusy: boolean
}

/**
 * Watches the paths that `paths()` returns at each look (the list may change). The listener gets the
 * state of a path when it is first seen, whichever it is, so that nothing is lost between an open that
 * failed and the first look; after that every change. A device that was replaced by another one leaves
 * and arrives. A block device of size 0 (an empty drive, a detached loop device) counts as absent.
 */
export function watchDevices(
  paths: () => readonly string[],
  clock: Clock,
  listener: (path: string, event: WatchEvent) => void,
  periodMs = 2000,
): DeviceWatch {
  let isStopped = false
  const seen = new Map<string, Seen>()

  const look = (): void => {
    const wanted = new Set(paths())
    for (const path of seen.keys()) {
      if (!wanted.has(path)) seen.delete(path)
    }
    for (const path of wanted) {
      const state = seen.get(path) ?? { device: undefined, isBusy: false }
      seen.set(path, state)
      // A path on a dead file server may take minutes: one look at a time, and no other path waits.
      if (!state.isBusy) void lookAt(path, state)
    }
  }
  const lookAt = async (path: string, state: Seen): Promise<void> => {
    state.isBusy = true
    const device = await deviceAt(path)
    const last = state.device
    state.isBusy = false
    state.device = device
    if (device === last) return
    if (device === ABSENT || (last !== undefined && last !== ABSENT)) tell(path, state, 'left')
    if (device !== ABSENT) tell(path, state, 'arrived')
  }
  const tell = (path: string, state: Seen, event: WatchEvent): void => {
    if (!isStopped && seen.get(path) === state) listener(path, event)
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
 * Which device is at a path, so that another one under the same name is told apart: the device number and
 * the kernel's sequence number, which grows whenever a medium or a backing file is attached (Linux 5.15).
 */
async function deviceAt(path: string): Promise<string> {
  try {
    const stats = await stat(path)
    if (stats.isFile()) return `file ${stats.dev}:${stats.ino}`
    if (!stats.isBlockDevice()) return ABSENT
    const { major, minor } = splitDeviceNumber(stats.rdev)
    const dir = `/sys/dev/block/${major}:${minor}`
    const sectors = await readFile(`${dir}/size`, 'latin1')
    if (Number(sectors) === 0) return ABSENT
    // A partition has the sequence number of its disk, one directory up.
    const sequence = await Promise.any(
      ['diskseq', '../diskseq'].map((name) => readFile(`${dir}/${name}`, 'latin1')),
    ).catch(() => '')
    return `block ${major}:${minor} ${stats.ino} ${sequence.trim()}`
  } catch {
    return ABSENT
  }
}
