/**
 * The end of the daemon, in bounded time whatever disks and initiators do: ask initiators to log out, drop
 * those who stay, make everything durable, close. Called by plexusd.ts on SIGTERM and SIGINT.
 */
import type { Clock } from '../base/clock.ts'
import { withinTime } from '../base/deadline.ts'
import { DRAIN_IO_MS, DRAIN_LOGOUT_MS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'

/** What has to end. Each part is optional in time: one that hangs does not keep the others. */
export interface ShutdownParts {
  /** Asynchronous logout request to all, stop accepting, wait at most `logoutMs`. */
  drain(logoutMs: number): Promise<void>
  /** Drops what is left. */
  closeServer(): Promise<void>
  /** Flushes and closes all devices; resolves to what failed, in words. */
  closeDevices(timeoutMs: number): Promise<readonly string[]>
  /** Ends the I/O engine; only when no device hangs. */
  closeQueue(): Promise<void>
}

/** Spare time of the two bounded waits before they are given up: messages travel, timers are late. */
const MARGIN_MS = 1_000

export const SHUTDOWN_MS = DRAIN_LOGOUT_MS + DRAIN_IO_MS + 2 * MARGIN_MS

/**
 * Ends everything. True: every device said that all data is durable. False: something failed or did not
 * answer, and was logged.
 */
export async function shutDown(parts: ShutdownParts, clock: Clock, log: Logger): Promise<boolean> {
  const network = async (): Promise<void> => {
    await parts.drain(DRAIN_LOGOUT_MS)
    await parts.closeServer()
  }
  try {
    if (!(await withinTime(clock, network(), DRAIN_LOGOUT_MS + MARGIN_MS))) {
      log.warn('connections did not close in time')
    }
  } catch (error) {
    log.error({ err: error }, 'closing the connections failed')
  }
  const failures = await parts.closeDevices(DRAIN_IO_MS)
  for (const failure of failures) {
    log.error({ event: 'flush-failed' }, `${failure}; its last writes may not be durable`)
  }
  if (failures.length > 0) return false
  try {
    if (await withinTime(clock, parts.closeQueue(), MARGIN_MS)) return true
    log.warn('the I/O engine did not end in time')
  } catch (error) {
    log.error({ err: error }, 'ending the I/O engine failed')
  }
  return true
}
