/**
 * Makes an event of every change in the state of a volume, which the engine derives from many things and does not announce
 * itself. Looks when something else has happened, and from time to time. Used by plexusd.ts.
 */
import type { Health, VolumeReport } from '../control/reports.ts'
import type { EventLog } from '../engine/geom/events.ts'

const SEVERITY = {
  HEALTHY: 'info',
  DEGRADED: 'warning',
  FAULTED: 'critical',
} as const satisfies Record<Health, string>

export const VOLUME_STATE = 'volume-state'

export class VolumeWatch {
  readonly #events: Pick<EventLog, 'emit'>
  readonly #volumes: () => readonly VolumeReport[]
  readonly #states = new Map<string, string>()

  constructor(events: Pick<EventLog, 'emit'>, volumes: () => readonly VolumeReport[]) {
    this.#events = events
    this.#volumes = volumes
  }

  /** Compares with the last look. A volume that is seen for the first time and is healthy is no news. */
  look(): void {
    const volumes = this.#volumes()
    for (const { name, uuid, state, health, status } of volumes) {
      const before = this.#states.get(uuid)
      this.#states.set(uuid, state)
      if (before === state || (before === undefined && health === 'HEALTHY')) continue
      const was = before === undefined ? '' : `, was ${before}`
      const why = status === '' ? '' : `: ${status}`
      this.#events.emit(
        SEVERITY[health],
        VOLUME_STATE,
        name,
        `volume ${name} is ${state}${was}${why}`,
      )
    }
    const there = new Set(volumes.map(({ uuid }) => uuid))
    for (const uuid of [...this.#states.keys()]) if (!there.has(uuid)) this.#states.delete(uuid)
  }
}
