/**
 * Makes an event of every change in the state of an object that has a health, which the engine derives from many things
 * and does not announce itself. Looks when something else has happened, and from time to time. Used by plexusd.ts.
 */
import type { Health, ObjectReport } from '../control/reports.ts'
import type { EventLog } from '../engine/geom/events.ts'

const SEVERITY = {
  HEALTHY: 'info',
  DEGRADED: 'warning',
  FAULTED: 'critical',
} as const satisfies Record<Health, string>

/** `volume-state`, `virstor-state`: the event of a type ends with it. */
export const STATE_EVENT = /-state$/

export class HealthWatch {
  readonly #events: Pick<EventLog, 'emit'>
  readonly #objects: () => readonly ObjectReport[]
  readonly #states = new Map<string, string>()

  constructor(events: Pick<EventLog, 'emit'>, objects: () => readonly ObjectReport[]) {
    this.#events = events
    this.#objects = objects
  }

  /** Compares with the last look. What is seen for the first time and is healthy is no news. */
  look(): void {
    const there = new Set<string>()
    for (const { type, name, uuid, set, state, health, status } of this.#objects()) {
      if (health === undefined) continue
      // Two labels may claim one UUID: without the set each look would find two changes.
      const key = JSON.stringify([type, set, uuid || name])
      there.add(key)
      const before = this.#states.get(key)
      this.#states.set(key, state)
      if (before === state || (before === undefined && health === 'HEALTHY')) continue
      const was = before === undefined ? '' : `, was ${before}`
      const why = status ? `: ${status}` : ''
      const text = `${type} ${name} is ${state}${was}${why}`
      this.#events.emit(SEVERITY[health], `${type}-state`, name, text)
    }
    for (const key of [...this.#states.keys()]) if (!there.has(key)) this.#states.delete(key)
  }
}
