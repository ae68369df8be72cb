/**
 * The events of `plexus events`, kept over restarts of the daemon in the state folder: one line of JSON for each, the
 * newest {@link EVENT_HISTORY} at least. What is not `info` is durable soon after it happened; the rest when the system
 * writes it. A file that cannot be written costs the history, not the service. Used by plexusd.ts.
 */
import { readFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { EVENT_HISTORY } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { EventReport } from '../control/reports.ts'
import { replaceStateFile } from './state-file.ts'

const FILE_NAME = 'events.jsonl'

export class EventStore {
  readonly #path: string
  readonly #log: Logger
  #events: EventReport[] = []
  /** Lines in the file, with those that are too old. Infinite: it must be written anew. */
  #lines = 0
  readonly #waiting: EventReport[] = []
  #writing: Promise<void> | undefined
  #failed = false

  constructor(dir: string, log: Logger) {
    this.#path = join(dir, FILE_NAME)
    this.#log = log
    this.#read()
  }

  /** What happened before, oldest first. */
  get history(): readonly EventReport[] {
    return this.#events
  }

  /** Keeps an event. */
  add(event: EventReport): void {
    this.#events.push(event)
    if (this.#events.length > EVENT_HISTORY) this.#events.shift()
    this.#waiting.push(event)
    this.#writing ??= this.#writeAll()
  }

  /** Resolves when everything so far is in the file. */
  async settled(): Promise<void> {
    await this.#writing
  }

  async #writeAll(): Promise<void> {
    // What happens in one turn goes together.
    await Promise.resolve()
    while (this.#waiting.length > 0) {
      const events = this.#waiting.splice(0)
      try {
        await this.#write(events)
        this.#failed = false
      } catch (error) {
        this.#lines = Number.POSITIVE_INFINITY
        if (!this.#failed) this.#log.warn({ err: error }, `${this.#path} cannot be written`)
        this.#failed = true
      }
    }
    this.#writing = undefined
  }

  async #write(events: readonly EventReport[]): Promise<void> {
    if (this.#lines + events.length > 2 * EVENT_HISTORY) {
      await replaceStateFile(this.#path, linesOf(this.#events))
      this.#lines = this.#events.length
      return
    }
    const file = await open(this.#path, 'a', 0o640)
    try {
      await file.appendFile(linesOf(events))
      if (events.some(({ severity }) => severity !== 'info')) await file.datasync()
    } finally {
      await file.close()
    }
    this.#lines += events.length
  }

  #read(): void {
    let text: string
    try {
      text = readFileSync(this.#path, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
      this.#log.warn({ err: error }, `${this.#path} cannot be read, and begins anew`)
      this.#lines = Number.POSITIVE_INFINITY
      return
    }
    const lines = text.split('\n').filter((line) => line !== '')
    const events = lines.flatMap(eventOf)
    // A line that a crash has cut off must not get the next one behind it.
    const isWhole = events.length === lines.length && (text === '' || text.endsWith('\n'))
    this.#lines = isWhole ? lines.length : Number.POSITIVE_INFINITY
    this.#events = events.slice(-EVENT_HISTORY)
  }
}

function linesOf(events: readonly EventReport[]): string {
  return events.map((event) => `${JSON.stringify(event)}\n`).join('')
}

const TEXTS = ['time', 'event', 'severity', 'object', 'message'] as const

function eventOf(line: string): EventReport[] {
  try {
    const value = JSON.parse(line) as Readonly<Record<string, unknown>>
    const isEvent =
      TEXTS.every((key) => typeof value[key] === 'string') && Number.isInteger(value['sequence'])
    return isEvent ? [value as unknown as EventReport] : []
  } catch {
    return []
  }
}
