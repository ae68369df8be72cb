/**
 * Logging by pino. Under systemd (JOURNAL_STREAM is set) one readable line per event with a
 * `<6>`-style priority; otherwise JSON lines. Info is for changes of state; single I/Os are never logged.
 * Fields used everywhere: session, target, lun, device, volume, event.
 */
import pino from 'pino'
import { printable } from './printable.ts'

export type Logger = pino.Logger
export type LogFormat = 'auto' | 'json' | 'journal'
export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

/** syslog priorities for pino's numeric levels. */
const PRIORITIES: ReadonlyArray<readonly [number, number]> = [
  [60, 2],
  [50, 3],
  [40, 4],
  [30, 6],
  [0, 7],
]
const LEFT_OUT = new Set(['level', 'time', 'msg', 'part', 'err', 'v'])

/** One JSON log line as a line for the journal: `<6>session: esx1 logged in (target=iqn… tsih=3)`. */
export function journalLine(json: string): string {
  let entry: Record<string, unknown>
  try {
    entry = JSON.parse(json) as Record<string, unknown>
  } catch {
    return json
  }
  const level = Number(entry['level'])
  const priority = PRIORITIES.find(([from]) => level >= from)?.[1] ?? 6
  const part = entry['part'] === undefined ? '' : `${entry['part']}: `
  const fields = Object.entries(entry)
    .filter(([key]) => !LEFT_OUT.has(key))
    .map(([key, value]) => `${key}=${typeof value === 'object' ? JSON.stringify(value) : value}`)
  const error = entry['err'] as { message?: string } | undefined
  const errorText =
    error?.message && !String(entry['msg']).includes(error.message) ? `: ${error.message}` : ''
  const tail = fields.length > 0 ? ` (${fields.join(' ')})` : ''
  return `<${priority}>${printable(`${part}${entry['msg'] ?? ''}${errorText}${tail}`)}\n`
}

/**
 * One JSON log line with each key once, the innermost one of a child's child, and without invisible characters: escaped,
 * they are the same for programs.
 */
function jsonLine(json: string): string {
  return `${printable(JSON.stringify(JSON.parse(json)))}\n`
}

/** The root logger. `part` of a child (`logger.child({ part: 'session' })`) leads the journal's line. */
export function createLogger(
  level: LogLevel,
  format: LogFormat,
  write: (text: string) => void = (text) => {
    process.stderr.write(text)
  },
): Logger {
  const journal =
    format === 'journal' || (format === 'auto' && process.env['JOURNAL_STREAM'] !== undefined)
  return pino(
    { level, base: null, timestamp: journal ? false : pino.stdTimeFunctions.isoTime },
    { write: (text: string) => write(journal ? journalLine(text) : jsonLine(text)) },
  )
}

/** A logger that says nothing, for tests. */
export function silentLogger(): Logger {
  return pino({ level: 'silent' })
}
