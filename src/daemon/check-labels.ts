/**
 * What `plexus config check` says of the devices that LUNs export as they are: those that plexusd would not serve because of
 * the label on them (export-guard.ts). Looks at devices that are there and may be read, beside a daemon that holds them;
 * changes nothing. Called by plexusd.ts.
 */
import { existsSync } from 'node:fs'
import { realClock } from '../base/clock.ts'
import { PlexusError } from '../base/errors.ts'
import { POOL_BYTES_MIN } from '../base/limits.ts'
import { silentLogger } from '../base/log.ts'
import { systemRandom } from '../base/random.ts'
import { createEngine } from '../engine/engine.ts'
import { createAlignedPool } from '../hal/aligned-pool.ts'
import { createIoQueue } from '../hal/io-queue.ts'
import { openDevice } from '../hal/open-device.ts'
import type { Config } from './config.ts'
import { ExportGuard, ExportRefused } from './export-guard.ts'
import { IdentityStore } from './identity-store.ts'
import { machineId } from './machine-id.ts'

/** Sentences, one for each device that would not be served. */
export async function labelWarnings(config: Config): Promise<readonly string[]> {
  const exported = config.devices.filter((one) => one.exported)
  if (exported.length === 0) return []
  const [clock, log] = [realClock, silentLogger()]
  const pool = createAlignedPool(POOL_BYTES_MIN)
  const queue = createIoQueue({ engine: config.engine, pool, log })
  const now = (): Date => new Date()
  const { classes } = createEngine({ pool, clock, random: systemRandom, log, now })
  try {
    const guard = new ExportGuard({ classes, identities: evidence(config), clock, log })
    const warnings: string[] = []
    for (const one of exported) {
      try {
        const device = await openDevice(one.path, {
          queue,
          clock,
          log,
          readOnly: true,
          exclusive: false,
        })
        await guard.check(one, device).finally(() => device.close())
      } catch (error) {
        if (!(error instanceof PlexusError)) throw error
        // One that is not there, or not ours to read, is the business of `plexus status`.
        if (error instanceof ExportRefused) warnings.push(`${error.message}. ${error.action}`)
      }
    }
    return warnings
  } finally {
    await queue.close()
  }
}

/** What the daemon remembers of disks. Where it has never run there is nothing, and nothing is made. */
function evidence({ stateDir }: Config): Pick<IdentityStore, 'isLent' | 'change'> {
  if (existsSync(stateDir)) {
    return IdentityStore.open({
      dir: stateDir,
      revision: '',
      log: silentLogger(),
      machine: machineId(),
    })
  }
  return { isLent: () => false, change: () => Promise.reject(new Error('nothing is changed')) }
}
