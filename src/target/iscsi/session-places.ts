/**
 * Places for sessions: how many there may be in all, from one address and for discovery, and who makes room when they are
 * taken. The dead sessions of a host that has started again must not keep it out, and no living one ever gives way to
 * another: only a session that was asked and does not answer. Owned by portal.ts.
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

/** What a login finds: a place, one that `evict` makes, hope that one comes free soon, or neither. */
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
    // It has said what it wanted in a moment, and is held open by mistake or malice.
    const isFull = rivals.length >= limits.discoverySessions
    return isFull ? { evict: oldestOfLargest(rivals) } : 'free'
  }
  const neighbours = rivals.filter((one) => one.address === newcomer.address)
  if (neighbours.length >= limits.sessionsPerAddress) return placeOfTheDead(neighbours, nowMs)
  return rivals.length >= limits.sessions ? placeOfTheDead(rivals, nowMs) : 'free'
}

function placeOfTheDead<T extends PlaceHolder>(holders: readonly T[], nowMs: number): Claim<T> {
  const unanswered = (one: T): number => one.unansweredMs(nowMs) ?? 0
  const [longest] = holders.toSorted((a, b) => unanswered(b) - unanswered(a))
  if (longest && unanswered(longest) >= DEAD_SESSION_MS) return { evict: longest }
  for (const one of holders) if (one.silentMs(nowMs) >= SILENT_SESSION_MS) one.ping(nowMs)
  return holders.some((one) => one.unansweredMs(nowMs) !== undefined) ? 'later' : 'none'
}
