/**
 * Keeps peers from filling the log: so many lines in a period for each of them, and the number of those left out with
 * the first line of a later one. For events that a stranger can cause at will. Each peer, named by a key, has its own
 * allowance; peers beyond `peersMax` share one.
 */
import type { Clock } from './clock.ts'

interface Allowance {
  beganMs: number
  written: number
  omitted: number
}

export class LogLimit {
  readonly #clock: Clock
  readonly #lines: number
  readonly #periodMs: number
  readonly #peersMax: number
  /** In the order in which their periods began. */
  readonly #peers = new Map<string, Allowance>()
  readonly #rest: Allowance = { beganMs: Number.NEGATIVE_INFINITY, written: 0, omitted: 0 }

  /** At most `lines` lines in `periodMs` for a peer, and for all beyond `peersMax` together. */
  constructor(clock: Clock, lines: number, periodMs: number, peersMax = 1) {
    this.#clock = clock
    this.#lines = lines
    this.#periodMs = periodMs
    this.#peersMax = peersMax
  }

  /** Fields for a line that may be written (`omitted`, if any were), or undefined for one that may not. */
  take(peer = ''): { readonly omitted?: number } | undefined {
    const nowMs = this.#clock.nowMs()
    const allowance = this.#allowanceOf(peer, nowMs)
    if (allowance.written >= this.#lines) {
      allowance.omitted++
      return undefined
    }
    allowance.written++
    const { omitted } = allowance
    allowance.omitted = 0
    return omitted === 0 ? {} : { omitted }
  }

  #allowanceOf(peer: string, nowMs: number): Allowance {
    const isOver = ({ beganMs }: Allowance): boolean => nowMs - beganMs >= this.#periodMs
    const known = this.#peers.get(peer)
    if (known && !isOver(known)) return known
    this.#peers.delete(peer)
    let omitted = known?.omitted ?? 0
    const [oldest] = this.#peers
    if (this.#peers.size >= this.#peersMax && oldest && isOver(oldest[1])) {
      this.#peers.delete(oldest[0])
      omitted += oldest[1].omitted
    }
    if (this.#peers.size < this.#peersMax) {
      const allowance = { beganMs: nowMs, written: 0, omitted }
      this.#peers.set(peer, allowance)
      return allowance
    }
    const rest = this.#rest
    if (isOver(rest)) Object.assign(rest, { beganMs: nowMs, written: 0 })
    rest.omitted += omitted
    return rest
  }
}
