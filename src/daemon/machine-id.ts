/**
 * A name for this machine that its state folder can be compared with (docs/adr/0010-state-of-another-machine.md).
 * Called by plexusd.ts.
 */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const HEX_DIGITS = 12

/**
 * A short hash of machine-id(5), which must not be shown itself. undefined where the machine has none that lasts:
 * containers without one, an image before its first boot, and a read-only /etc, where systemd makes one for each boot and
 * keeps it in /run/machine-id. `root` is for tests.
 */
export function machineId(root = '/'): string | undefined {
  if (existsSync(join(root, 'run/machine-id'))) return undefined
  let text: string
  try {
    text = readFileSync(join(root, 'etc/machine-id'), 'latin1').trim()
  } catch {
    return undefined
  }
  if (!/^[0-9a-f]{32}$/.test(text)) return undefined
  return createHash('sha256').update(`plexus ${text}`).digest('hex').slice(0, HEX_DIGITS)
}
