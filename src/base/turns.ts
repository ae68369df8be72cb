/**
 * Long work cut into turns of the event loop, so that commands of initiators are answered in between. For work that
 * grows with the configuration or with the number of clients; used by the daemon.
 */
import { LONG_WORK_MS } from './limits.ts'

/** Resolves in a later turn of the event loop: whatever has arrived meanwhile is served first. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/** Calls `work` for each item, in order; a new turn begins whenever {@link LONG_WORK_MS} are used up. */
export async function inTurns<T>(items: Iterable<T>, work: (item: T) => void): Promise<void> {
  let beganMs = performance.now()
  for (const item of items) {
    work(item)
    if (performance.now() - beganMs < LONG_WORK_MS) continue
    await nextTurn()
    beganMs = performance.now()
  }
}

/** Calls `work` for each item, so many at once. Rejects with the first failure; what has begun goes on. */
export async function inLanes<T>(
  items: Iterable<T>,
  lanes: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const rest = items[Symbol.iterator]()
  const lane = async (): Promise<void> => {
    for (let next = rest.next(); !next.done; next = rest.next()) {
      await work(next.value)
      await nextTurn()
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane))
}
