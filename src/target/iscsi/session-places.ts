/**
 * Places for sessions: how many there may be in all, from one address and for discovery, and who makes room when they are
 * taken. The dead sessions of a host that has started again must not keep it out. Only a session that does not answer a
 * NOP-In gives up its place. Owned by portal.ts.
 */
import { DEAD_SESSION_MS, SILENT_SESSION_MS } from '../../base/limits.ts'
import { oldestOfLargest } from './pending-logins.ts'

export interface SessionLimits {
  /** Sessions with a target. */
  readonly sessions: number
  /** Of them, those from one address. */
  readonly sessionsPerAddress: number
  readonly discoverySessions: number
}

/** What is needed of a connection with a session. */
export interface PlaceHolder {
  readonly address: string
  /** As base/network.ts has it. */
  readonly network: string
  readonly isDiscovery: boolean
  /** Time since anything came from the initiator. */
  silentMs(nowMs: number): number
  /** Asks the initiator for a sign of life, unless it is being asked or has answers to take first. */
  ping(nowMs: number): void
  /** Time since it was asked and has not answered, 0 where it is about to leave; undefined: neither. */
  unansweredMs(nowMs: number): number | undefined
}

/** What a login finds: a place, or one that `evict` makes. 'later': a place may become free. */
export type Claim<T> = 'free' | { readonly evict: T } | 'later' | 'none'

/** Looks for a place for one more session from `address`. `holders` are the others, oldest first. */
export function claimPlace<T extends PlaceHolder>(
  newcomer: { readonly address: string; readonly isDiscovery: boolean },
  holders: readonly T[],
  limits: SessionLimits,
  nowMs: number,
): Claim<T> {
  const rivals = holders.filter((one) => one.isDiscovery === newcomer.isDiscovery)
  if (newcomer.isDiscovery) {
    // A discovery session needs its place only for a moment.
    const isFull = rivals.length >= limits.discoverySessions
    return isFull ? { evict: oldestOfLargest(rivals) } : 'free'
  }
  const neighbours = rivals.filter((one) => one.address === newcomer.address)
  if (neighbours.length >= limits.sessionsPerAddress) return placeOfUnanswering(neighbours, nowMs)
  return rivals.length >= limits.sessions ? placeOfUnanswering(rivals, nowMs) : 'free'
}

function placeOfUnanswering<T extends PlaceHolder>(holders: readonly T[], nowMs: number): Claim<T> {
  const unanswered = (one: T): number => one.unansweredMs(nowMs) ?? 0
  const [longest] = holders.toSorted((a, b) => unanswered(b) - unanswered(a))
  if (longest && unanswered(longest) >= DEAD_SESSION_MS) return { evict: longest }
  for (const one of holders) if (one.silentMs(nowMs) >= SILENT_SESSION_MS) one.ping(nowMs)
  return holders.some((one) => one.unansweredMs(nowMs) !== undefined) ? 'later' : 'none'
}
