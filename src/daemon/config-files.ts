/** Finds configuration files that every user may change. Called by config.ts and config-secrets.ts. */
import { lstatSync, realpathSync } from 'node:fs'
import { dirname } from 'node:path'

const OTHERS_WRITE = 0o002
/** In such a folder only the owner of a file may replace it. */
const STICKY = 0o1000

/**
 * A sentence where any user of the system could change `file` or put another one in its place: it, or a folder that leads
 * to it, is writable for everybody. undefined: it is not, or there is no such file.
 */
export function openToAll(file: string): string | undefined {
  let path: string
  try {
    path = realpathSync(file)
  } catch {
    return undefined
  }
  for (let at = path; ; at = dirname(at)) {
    const mode = lstatSync(at, { throwIfNoEntry: false })?.mode ?? 0
    if ((mode & OTHERS_WRITE) !== 0 && (at === path || (mode & STICKY) === 0)) {
      return `every user may write to ${at}, and so decide what is served to whom; run: chmod o-w ${at}`
    }
    if (at === dirname(at)) return undefined
  }
}
