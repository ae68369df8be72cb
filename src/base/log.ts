/**
 * Logging by pino. On a terminal one readable line per event; under systemd (JOURNAL_STREAM is set) the same with a
 * `<6>`-style priority; otherwise JSON lines. Info is for changes of state; single I/Os are never logged.
 * Fields used everywhere: session, target, lun, device, volume, event.
 */
import pino from 'pino'
import { printable } from './printable.ts'

export type Logger = pino.Logger
export type LogFormat = 'auto' | 'json' | 'journal' | 'text'
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

/** One JSON log line in words, after what `lead` makes of it: its level and time are not among them. */
function readableLine(json: string, lead: (entry: Record<string, unknown>) => string): string {
  let entry: Record<string, unknown>
  try {
    entry = JSON.parse(json) as Record<string, unknown>
  } catch {
    return json
  }
  const part = entry['part'] === undefined ? '' : `${entry['part']}: `
  const fields = Object.entries(entry)
    .filter(([key]) => !LEFT_OUT.has(key))
    .map(([key, value]) => `${key}=${typeof value === 'object' ? JSON.stringify(value) : value}`)
  const error = entry['err'] as { message?: string } | undefined
  const errorText =
    error?.message && !String(entry['msg']).includes(error.message) ? `: ${error.message}` : ''
  const tail = fields.length > 0 ? ` (${fields.join(' ')})` : ''
  return `${lead(entry)}${printable(`${part}${entry['msg'] ?? ''}${errorText}${tail}`)}\n`
}

/** One JSON log line as a line for the journal: `<6>session: esx1 logged in (target=iqn… tsih=3)`. */
export function journalLine(json: string): string {
  return readableLine(json, ({ level }) => {
    const priority = PRIORITIES.find(([from]) => Number(level) >= from)?.[1] ?? 6
    return `<${priority}>`
  })
}

/** One JSON log line as a line for a terminal: `11:03:17 warn: session: esx1 logged in (tsih=3)`. */
function textLine(json: string): string {
  return readableLine(json, ({ level, time }) => {
    const clock = new Date(String(time)).toTimeString().slice(0, 'HH:MM:SS'.length)
    return `${clock} ${pino.levels.labels[Number(level)] ?? level}: `
  })
}

/**
 * One JSON log line with each key once, the innermost one of a child's child, and without invisible characters: escaped,
 * they are the same for programs.
 */
function jsonLine(json: string): string {
  return `${printable(JSON.stringify(JSON.parse(json)))}\n`
}

const LINES: Readonly<Record<Exclude<LogFormat, 'auto'>, (json: string) => string>> = {
  json: jsonLine,
  journal: journalLine,
  text: textLine,
}

/** Terminals that were started by systemd have JOURNAL_STREAM, too. */
function formatOfStderr(): keyof typeof LINES {
  if (process.stderr.isTTY) return 'text'
  return process.env['JOURNAL_STREAM'] === undefined ? 'json' : 'journal'
}

/** The root logger. `part` of a child (`logger.child({ part: 'session' })`) leads a readable line. */
export function createLogger(
  level: LogLevel,
  format: LogFormat,
  write: (text: string) => void = (text) => {
    process.stderr.write(text)
  },
): Logger {
  const shape = format === 'auto' ? formatOfStderr() : format
  const line = LINES[shape]
  return pino(
    { level, base: null, timestamp: shape === 'journal' ? false : pino.stdTimeFunctions.isoTime },
    { write: (json: string) => write(line(json)) },
  )
}

/** A logger that says nothing, for tests. */
export function silentLogger(): Logger {
  return pino({ level: 'silent' })
}
