/** The plexusd that the fuzzer attacks: its targets, and the disks behind them. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Daemon, type DaemonConfig } from '../support/daemon.ts'
import { SLOW_DISK } from './surroundings.ts'

/** Whose data is verified, and whose data nobody needs. */
export const HONEST = 'iqn.2026-11.test.plexus:honest'
export const VICTIM = 'iqn.2026-11.test.plexus:victim'
/** The device below the victim's slow disk. */
export const VICTIM_DISK = 'disk'

const DISK_BYTES = 64 * 1024 * 1024
/** Targets without LUNs, which SendTargets lists. */
const OTHER_TARGETS = 300
/** The smallest pool, so that attackers who hold buffers are felt at once. */
const POOL = '32MiB'

export interface World {
  readonly daemon: Daemon
  readonly config: DaemonConfig
  /** A device for a LUN that comes and goes. */
  readonly spare: { readonly name: string; readonly path: string }
}

/** Starts it; its images are removed when this process ends. */
export async function startWorld(): Promise<World> {
  const dir = mkdtempSync(join(tmpdir(), 'plexus-fuzz-'))
  process.once('exit', () => rmSync(dir, { recursive: true, force: true }))
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
  const image = (name: string): string => {
    const path = join(dir, name)
    writeFileSync(path, '')
    truncateSync(path, DISK_BYTES)
    return path
  }
  const target = (name: string, luns: readonly object[]) => ({
    name,
    portals: ['test'],
    auth: 'none',
    luns,
  })
  const config = {
    devices: { honest: image('honest'), [VICTIM_DISK]: image('victim') },
    targets: [
      target(HONEST, [{ lun: 0, device: 'honest' }]),
      target(VICTIM, [{ lun: 0, volume: SLOW_DISK }]),
      ...Array.from({ length: OTHER_TARGETS }, (_, i) =>
        target(`iqn.2026-11.test.plexus:other-${i}`, []),
      ),
    ],
    limits: { sessions: 256, bufferPool: POOL },
  }
  const spare = { name: 'spare', path: image('spare') }
  return { daemon: await Daemon.start({ config }), config, spare }
}
