/** Durations and times as people write and read them: `30s`, `1h 28m`, `2026-11-29 21:13:12 +01:00`. Used by the daemon and the command line. */
import { PlexusError } from '../base/errors.ts'

const UNIT_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

/** Milliseconds of `1h`, `1.5h`, `1h 30m`, `90` (seconds). Throws `invalid` for anything else. */
export function parseDuration(text: string): number {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*/gy)]
  const length = parts.reduce((sum, [all]) => sum + all.length, 0)
  if (parts.length === 0 || length !== text.length) {
    throw new PlexusError('invalid', {
      op: 'parse',
      subject: text,
      message: `"${text}" is not a duration; write a number with s, m, h or d, such as 90s or 1h30m`,
    })
  }
  return parts.reduce(
    (sum, [, number, unit]) => sum + Number(number) * (UNIT_MS[unit ?? 's'] ?? 0),
    0,
  )
}

/** Two units at most: `45s`, `12m 5s`, `1h 28m`, `3d 4h`. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  const pieces: [number, string][] = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3_600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'm'],
    [whole % 60, 's'],
  ]
  const first = pieces.findIndex(([value]) => value > 0)
  if (first < 0) return '0s'
  return pieces
    .slice(first, first + 2)
    .filter(([value]) => value > 0)
    .map(([value, unit]) => `${value}${unit}`)
    .join(' ')
}

/** The time of an ISO 8601 text in the zone of this machine, with the zone: `2026-11-29 21:13:12 +01:00`. */
export function formatTime(iso: string): string {
  const time = new Date(iso)
  const offset = -time.getTimezoneOffset()
  const local = new Date(time.getTime() + offset * 60_000).toISOString()
  const two = (value: number): string => String(Math.floor(Math.abs(value))).padStart(2, '0')
  const zone = `${offset < 0 ? '-' : '+'}${two(offset / 60)}:${two(offset % 60)}`
  return `${local.slice(0, 10)} ${local.slice(11, 19)} ${zone}`
}
