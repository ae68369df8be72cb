/** Bounded waits: nothing in the daemon waits for a disk or a peer for ever. */
import type { Clock } from './clock.ts'

/**
 * Waits for `work`, at most `timeoutMs`. True: it ended in time; a rejection is passed on. False: the time
 * is over; `work` goes on, and what becomes of it later is ignored. Keeps the process alive meanwhile only
 * if `work` does.
 */
export function withinTime(
  clock: Clock,
  work: Promise<unknown>,
  timeoutMs: number,
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const timer = clock.after(timeoutMs, () => resolve(false))
    work.then(
      () => {
        timer.cancel()
        resolve(true)
      },
      (error: unknown) => {
        timer.cancel()
        reject(error)
      },
    )
  })
}
