/** Finds files of the configuration that others may change. Called by config.ts, its parts, and event-hook.ts. */
import { accessSync, constants, lstatSync, realpathSync } from 'node:fs'
import { dirname } from 'node:path'

const OTHERS_WRITE = 0o002
const GROUP_WRITE = 0o020
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

export interface Program {
  /** Without symbolic links: what is at `path` is what was looked at. */
  readonly path: string
  /** Why it must not or cannot be run, and what to do, as a sentence. */
  readonly fault: string | undefined
}

/**
 * Looks at a program that plexusd is to run with its own rights. It is not to be run where another user than root (and
 * plexusd's) could change it or put another one in its place: who may change the configuration is not root for that.
 */
export function lookAtProgram(file: string): Program {
  let path = file
  try {
    path = realpathSync(file)
    if (!lstatSync(path).isFile()) return { path, fault: `${file} is not a file` }
    return { path, fault: othersWrite(path) ?? notExecutable(path) }
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    return { path, fault: `${file} cannot be looked at: ${why}` }
  }
}

function othersWrite(path: string): string | undefined {
  const owners = [0, process.geteuid?.()]
  for (let at = path; ; at = dirname(at)) {
    const { mode, uid, gid } = lstatSync(at)
    const isSticky = at !== path && (mode & STICKY) !== 0
    const isShared = (mode & OTHERS_WRITE) !== 0 || ((mode & GROUP_WRITE) !== 0 && gid !== 0)
    if (!owners.includes(uid) || (isShared && !isSticky)) {
      return `other users than root may write to ${at}, and so run what they like; run: chown root:root ${at}; chmod go-w ${at}`
    }
    if (at === dirname(at)) return undefined
  }
}

function notExecutable(path: string): string | undefined {
  try {
    accessSync(path, constants.X_OK)
    return undefined
  } catch {
    return `${path} is not executable; run: chmod 755 ${path}`
  }
}
