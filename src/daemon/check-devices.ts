/**
 * What `plexus config check` says of the paths of devices: that nothing usable is there, that two names mean one disk, that
 * this machine uses it, or that a LUN would give initiators a disk with data of this machine's on it. These are warnings:
 * a disk may be connected later, and initiators write file systems, too. Looks only. Called by plexusd.ts.
 */
import { type Stats, statSync } from 'node:fs'
import { realClock } from '../base/clock.ts'
import { PlexusError } from '../base/errors.ts'
import { POOL_BYTES_MIN } from '../base/limits.ts'
import { silentLogger } from '../base/log.ts'
import { createAlignedPool } from '../hal/aligned-pool.ts'
import { deviceContents, formatContents } from '../hal/device-contents.ts'
import { describeUse, resolveDevice } from '../hal/device-use.ts'
import { createIoQueue, type IoQueue } from '../hal/io-queue.ts'
import { openDevice } from '../hal/open-device.ts'
import type { Config, DeviceConfig } from './config.ts'

/** Sentences, in the order of the configuration. */
export async function deviceWarnings({ devices, engine }: Config): Promise<readonly string[]> {
  const pool = createAlignedPool(POOL_BYTES_MIN)
  const queue = createIoQueue({ engine, pool, log: silentLogger() })
  /** The first name of each disk or file. */
  const seen = new Map<string, string>()
  try {
    const warnings: string[] = []
    for (const device of devices) {
      const { name } = device
      const found = [...problemsAt(device, seen), ...(await foreignContents(device, queue))]
      warnings.push(...found.map((text) => `device "${name}": ${text}`))
    }
    return warnings
  } finally {
    await queue.close()
  }
}

function problemsAt({ name, path }: DeviceConfig, seen: Map<string, string>): readonly string[] {
  try {
    resolveDevice(path)
  } catch (error) {
    if (!(error instanceof PlexusError)) throw error
    return [error.message]
  }
  const disk = diskOf(statSync(path))
  const other = seen.get(disk)
  if (other !== undefined) return [`${path} is the same disk as device "${other}"`]
  seen.set(disk, name)
  // A disk that only a process has open is one that plexusd serves.
  const use = describeUse(path, { processes: false })
  return use === undefined ? [] : [`${path} is in use: ${use}`]
}

/** What tells one disk, or one file, from another by whatever path. */
function diskOf(stats: Stats): string {
  return stats.isBlockDevice() ? `block ${stats.rdev}` : `file ${stats.dev}:${stats.ino}`
}

/** Only for a LUN: a disk for volumes is refused by `volume create` while something is on it. */
async function foreignContents(
  { path, exported }: DeviceConfig,
  queue: IoQueue,
): Promise<readonly string[]> {
  if (!exported) return []
  const options = { queue, clock: realClock, log: silentLogger(), readOnly: true, exclusive: false }
  try {
    const device = await openDevice(path, options)
    const found = await deviceContents(device).finally(() => device.close())
    // A label of ours is judged by labelWarnings.
    const contents = formatContents(found.filter(({ kind }) => kind !== 'plexus'))
    if (contents === '') return []
    return [
      `a LUN gives initiators ${path}, which carries ${contents}; make sure that it is theirs and not this machine's`,
    ]
  } catch (error) {
    // One that is not there, or not ours to read, has been named, or is the business of `plexus status`.
    if (error instanceof PlexusError) return []
    throw error
  }
}
