/**
 * The configuration: what runs against what the file says, applying it, backups. The daemon writes the file only
 * when `config apply` brings a new one, whole and after a backup of the old one.
 */
import {
  closeSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { type ErrorKind, PlexusError } from '../../base/errors.ts'
import { CONFIG_BACKUPS } from '../../base/limits.ts'
import type {
  BackupList,
  DiffReport,
  PlanReport,
  TextReport,
} from '../../control/daemon-reports.ts'
import { CONFIG_SPECS } from '../../control/daemon-verbs.ts'
import type { Config } from '../config.ts'
import { readConfig } from '../config-thread.ts'
import { lunsTaken } from '../luns-taken.ts'
import { describePlan } from '../reconcile.ts'
import type { ControlContext, Method } from './context.ts'

const BACKUP_DIR = 'config-backups'

/**
 * How the file differs from what runs, for `plexus status`: cheap enough for everybody to ask, since the file is
 * only read. undefined: it does not. What `config diff` says is what would be done about it.
 */
export function configDrift(context: ControlContext): readonly string[] {
  const { file, text } = context.config()
  let now: string
  try {
    now = readFileSync(file, 'utf8')
  } catch (error) {
    return [`${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`]
  }
  return now === text ? [] : [`${file} has changed since it was applied`]
}

const diff: Method = {
  spec: CONFIG_SPECS.diff,
  async run(_parameters, { context }): Promise<DiffReport> {
    const { file } = context.config()
    return { file, steps: describePlan(await context.plan(await readConfig(file))) }
  },
}

function fileError(op: string, path: string, error: unknown): PlexusError {
  const { code, message } = error as NodeJS.ErrnoException
  const kind: ErrorKind =
    code === 'EACCES' || code === 'EROFS' || code === 'EPERM' ? 'permission' : 'io'
  const hint =
    code === 'EROFS' ? ' (under systemd: add the folder to ReadWritePaths= of plexusd.service)' : ''
  return new PlexusError(kind, {
    op,
    subject: path,
    message: `${path}: ${message}${hint}; nothing was changed`,
    cause: error,
  })
}

/** Whole and durable, or as it was before; owner, group and mode stay, and a link leads to the new text. */
function replaceFile(path: string, text: string): void {
  let temporary: string | undefined
  try {
    const real = realpathSync(path)
    temporary = `${real}.new`
    const { mode, uid, gid } = statSync(real)
    rmSync(temporary, { force: true })
    const file = openSync(temporary, 'wx', 0o600)
    try {
      writeFileSync(file, text)
      const made = fstatSync(file)
      if (made.uid !== uid || made.gid !== gid) fchownSync(file, uid, gid)
      fchmodSync(file, mode & 0o777)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(temporary, real)
    const folder = openSync(dirname(real), 'r')
    try {
      fsyncSync(folder)
    } finally {
      closeSync(folder)
    }
  } catch (error) {
    if (temporary !== undefined) rmSync(temporary, { force: true })
    throw fileError('write', path, error)
  }
}

/** Keeps the text that the file has now, dated; the oldest beyond {@link CONFIG_BACKUPS} go. */
function backUp(running: Config, now: Date): string {
  const dir = join(running.stateDir, BACKUP_DIR)
  const stamp = now.toISOString().replaceAll(/[:.]/g, '-')
  const path = join(dir, `${basename(running.file)}.${stamp}`)
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    writeFileSync(path, readFileSync(running.file), { mode: 0o600, flush: true })
    const old = backups(running).slice(CONFIG_BACKUPS)
    for (const one of old) rmSync(one.path, { force: true })
  } catch (error) {
    throw fileError('back up', path, error)
  }
  return path
}

/** Newest first. */
function backups(running: Config): BackupList['backups'] {
  const dir = join(running.stateDir, BACKUP_DIR)
  let names: string[]
  try {
    names = readdirSync(dir)
  } catch {
    return []
  }
  const found = names.map((name) => {
    const path = join(dir, name)
    const { mtime, size } = statSync(path)
    return { path, time: mtime.toISOString(), sizeBytes: size }
  })
  // The stamp in the name sorts as time does.
  return found.sort((a, b) => (a.path < b.path ? 1 : -1))
}

function planReport(
  dryRun: boolean,
  steps: readonly string[],
  next: Config,
  trouble: readonly string[] = [],
): PlanReport {
  return {
    dryRun,
    steps: steps.map((text) => ({ text, object: next.file })),
    warnings: [...next.warnings.map(({ where, message }) => `${where}: ${message}`), ...trouble],
    jobs: [],
  }
}

/** What does not work now that the configuration runs. */
async function refusals(context: ControlContext): Promise<readonly string[]> {
  await context.topology.quiet()
  return context
    .units()
    .flatMap(({ reason, action }) =>
      reason === undefined ? [] : [[reason, action].filter(Boolean).join('. ')],
    )
}

function takesLuns(file: string, taken: readonly string[]): PlexusError {
  return new PlexusError('in-use', {
    op: 'apply',
    subject: file,
    message: `this would ${taken.join('; ')}. Log out there first, or repeat with --force; nothing was changed`,
  })
}

const apply: Method = {
  spec: CONFIG_SPECS.apply,
  async run(parameters, { context }): Promise<PlanReport> {
    const running = context.config()
    const given = parameters['file']
    const dryRun = parameters['dryRun'] === true
    const next = await readConfig(running.file, typeof given === 'string' ? given : undefined)
    const plan = await context.check(next)
    const taken = [...lunsTaken(running, next, context.sessions()), ...plan.drops]
    if (dryRun) {
      const warnings = taken.map((one) => `it would ${one}, and wants --force`)
      return planReport(true, describePlan(plan), next, warnings)
    }
    if (taken.length > 0 && parameters['force'] !== true) throw takesLuns(running.file, taken)
    if (typeof given !== 'string') {
      const steps = await context.reload()
      return planReport(false, steps, next, await refusals(context))
    }
    const before = readFileSync(running.file, 'utf8')
    const backup = backUp(running, context.now())
    replaceFile(running.file, given)
    try {
      const steps = await context.reload()
      const all = [`keep the old file as ${backup}`, ...steps]
      return planReport(false, all, next, await refusals(context))
    } catch (error) {
      // What could not be applied must not be what the next start finds.
      replaceFile(running.file, before)
      throw error
    }
  },
}

const dump: Method = {
  spec: CONFIG_SPECS.dump,
  async run(_parameters, { context }): Promise<TextReport> {
    return { text: context.config().text }
  },
}

const listBackups: Method = {
  spec: CONFIG_SPECS.backups,
  async run(_parameters, { context }): Promise<BackupList> {
    return { backups: backups(context.config()) }
  },
}

export const CONFIG_METHODS: readonly Method[] = [diff, apply, dump, listBackups]
