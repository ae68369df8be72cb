/**
 * Connections that have not logged in yet. Their number is bounded, and each has a deadline. When their places are taken a
 * newcomer gets that of the oldest from the network that has most of them: a flood from some networks costs only their own
 * connections, and an honest login takes too little time to become the oldest. Owned by portal.ts.
 */
import type { Clock, Timer } from '../../base/clock.ts'
import { LOGIN_TIMEOUT_MS } from '../../base/limits.ts'

/** What is needed of a connection. */
export interface PendingLogin {
  /** Where it comes from (base/network.ts). */
  readonly network: string
  /** Ends it. */
  fail(reason: string): void
}

export class PendingLogins<T extends PendingLogin> {
  readonly #clock: Clock
  readonly #places: number
  /** Oldest first. */
  readonly #pending = new Map<T, Timer>()

  constructor(clock: Clock, places: number) {
    this.#clock = clock
    this.#places = places
  }

  get size(): number {
    return this.#pending.size
  }

  /** Takes a connection in, and ends another one where there are too many. */
  add(connection: T): void {
    const timer = this.#clock.after(LOGIN_TIMEOUT_MS, () => {
      connection.fail('the login took too long')
    })
    this.#pending.set(connection, timer)
    if (this.#pending.size <= this.#places) return
    const victim = oldestOfLargest([...this.#pending.keys()])
    this.delete(victim)
    victim.fail(`${this.#places} connections wait for their login; this one made room for another`)
  }

  /** The login of a connection is over. */
  delete(connection: T): void {
    this.#pending.get(connection)?.cancel()
    this.#pending.delete(connection)
  }
}

/** The first in the list that comes from the network which has most in it. The list is not empty. */
export function oldestOfLargest<T extends { readonly network: string }>(
  oldestFirst: readonly T[],
): T {
  const counts = new Map<string, number>()
  for (const { network } of oldestFirst) counts.set(network, (counts.get(network) ?? 0) + 1)
  const most = Math.max(...counts.values())
  return oldestFirst.find(({ network }) => counts.get(network) === most) as T
}
