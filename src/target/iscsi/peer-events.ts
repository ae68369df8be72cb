/**
 * What initiators do, as events for people: logins, ends of sessions, refused logins. Bounded, since a host can log in and
 * out, or fail to, as often as it likes, and must not push everything else out of the history. Used by portal.ts.
 */
import type { Clock } from '../../base/clock.ts'
import {
  REFUSED_EVENT_PERIOD_MS,
  SESSION_EVENT_PERIOD_MS,
  SESSION_EVENTS,
  STRANGER_LOG_PEERS,
} from '../../base/limits.ts'
import { LogLimit } from '../../base/log-limit.ts'

/** Emits an event: `object` is the target, or the initiator where there is none. */
export type EmitEvent = (
  severity: 'info' | 'warning',
  event: string,
  object: string,
  message: string,
) => void

/** Who is meant, as far as it is known. */
export interface Peer {
  readonly initiator: string | undefined
  readonly target: string | undefined
  readonly address: string
}

export class PeerEvents {
  readonly #emit: EmitEvent
  readonly #sessions: LogLimit
  readonly #refusals: LogLimit

  constructor(clock: Clock, emit: EmitEvent) {
    this.#emit = emit
    const peers = STRANGER_LOG_PEERS
    this.#sessions = new LogLimit(clock, SESSION_EVENTS, SESSION_EVENT_PERIOD_MS, peers)
    this.#refusals = new LogLimit(clock, 1, REFUSED_EVENT_PERIOD_MS, peers)
  }

  /** A session of a target has begun or ended. */
  session(event: 'login' | 'logout', { initiator, target, address }: Peer): void {
    if (target === undefined) return
    const allowed = this.#sessions.take(`${initiator} ${target}`)
    if (!allowed) return
    const what = event === 'login' ? 'has logged in to' : 'has left'
    this.#emit('info', event, target, `${initiator} (${address}) ${what} ${target}${more(allowed)}`)
  }

  /** A login was refused: a host that tries the same again and again is told once an hour. */
  refused({ initiator, target, address }: Peer, reason: string): void {
    const allowed = this.#refusals.take(`${address} ${initiator} ${target} ${reason}`)
    if (!allowed) return
    const who = initiator ?? 'a peer that gave no name'
    const message = `a login of ${who} from ${address} was refused: ${reason}${more(allowed)}`
    this.#emit('warning', 'login-refused', target ?? initiator ?? address, message)
  }
}

function more({ omitted }: { readonly omitted?: number }): string {
  return omitted === undefined ? '' : ` (and ${omitted} more such events before)`
}
