/** Named events with a severity (as mdadm's monitor has them): a bounded history for `plexus events`, and listeners. */
import { EVENT_HISTORY } from '../../base/limits.ts'
import type { EventReport } from '../../control/reports.ts'

export type Severity = EventReport['severity']

export class EventLog {
  readonly #now: () => Date
  readonly #listeners = new Set<(event: EventReport) => void>()
  readonly #history: EventReport[] = []
  #sequence = 0

  /** `now` gives wall-clock time for people; nothing is decided by it. */
  constructor(now: () => Date) {
    this.#now = now
  }

  /** What happened before the daemon was started: numbers go on from there. */
  restore(events: readonly EventReport[]): void {
    this.#history.push(...events)
    this.#sequence = events.at(-1)?.sequence ?? 0
  }

  /** Now, as events have it. */
  get time(): string {
    return this.#now().toISOString()
  }

  emit(severity: Severity, event: string, object: string, message: string): EventReport {
    const sequence = ++this.#sequence
    const report = { time: this.time, sequence, event, severity, object, message }
    this.#history.push(report)
    if (this.#history.length > EVENT_HISTORY) this.#history.shift()
    for (const listener of [...this.#listeners]) listener(report)
    return report
  }

  /** The newest events, oldest first: at most the last {@link EVENT_HISTORY}. */
  get history(): readonly EventReport[] {
    return this.#history
  }

  /** Calls `listener` at each event from now on; returns the way to stop. */
  onEvent(listener: (event: EventReport) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
