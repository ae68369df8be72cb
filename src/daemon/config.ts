/**
 * Loads plexus.yaml: text, schema, checks and secrets, into one immutable {@link Config} with defaults
 * filled in, absolute paths and no references left to resolve by hand. Either everything is right, or a
 * {@link ConfigError} lists all that is wrong, each with file:line:column. Called by plexusd.ts at start,
 * by `--check` and by each reload.
 */
import { readFileSync } from 'node:fs'
import { isIPv4 } from 'node:net'
import { dirname, resolve } from 'node:path'
import { defined } from '../base/assert.ts'
import { PlexusError } from '../base/errors.ts'
import type { LogFormat, LogLevel } from '../base/log.ts'
import { CHAP_ALGORITHMS } from '../iscsi/chap.ts'
import { normalizeIscsiName } from '../iscsi/names.ts'
import type { DigestChoice } from '../iscsi/parameters.ts'
import { checkAuth } from './config-auth.ts'
import { checkConfig } from './config-checks.ts'
import { openToAll } from './config-files.ts'
import { reportIssue } from './config-issues.ts'
import {
  type ConfigInput,
  configSchema,
  type ListenAddress,
  parseAdvertise,
  parseListen,
  sizeBytes,
  timeoutMs,
} from './config-schema.ts'
import { readSecrets, type Secrets } from './config-secrets.ts'
import { ConfigSource, type Problem } from './config-source.ts'
import type { Origin } from './identity-draft.ts'

export interface PortalConfig {
  readonly name: string
  readonly listen: readonly ListenAddress[]
  /** What the portal agrees to, best first. */
  readonly digests: {
    readonly header: readonly DigestChoice[]
    readonly data: readonly DigestChoice[]
  }
  /** What discovery tells instead of `listen`. */
  readonly advertise: readonly ListenAddress[] | undefined
  /** Auth groups of discovery sessions, or `none` alone. */
  readonly discoveryAuth: readonly string[]
}

export interface CredentialsConfig {
  readonly user: string
  readonly secret: Buffer
  /** Numbers of the permitted CHAP algorithms; absent: all. */
  readonly algorithms?: readonly number[]
}

export interface AuthConfig {
  readonly name: string
  readonly chap: CredentialsConfig | undefined
  readonly mutual: CredentialsConfig | undefined
  readonly initiators: readonly string[] | undefined
}

export interface DeviceConfig {
  readonly name: string
  /** Absolute. */
  readonly path: string
  readonly readOnly: boolean
  /** A LUN leads to it as it is: what is on it is the initiators', and no class of the engine looks at it. */
  readonly exported: boolean
  /** `initiator`: a label of ours that it carries is an initiator's (export-guard.ts). */
  readonly label: 'initiator' | undefined
  /** It is called down when it answers no request for so long. */
  readonly timeoutMs: number
}

/** A provider that LUNs lead to: one logical unit, whichever targets map it. */
export interface UnitConfig {
  /** Name of the device or volume: providers have one space of names. */
  readonly name: string
  /** Logical block that initiators see; undefined: the provider's own. */
  readonly blockBytes: number | undefined
}

export interface LunConfig {
  readonly lun: number
  /** Name of the unit. */
  readonly unit: string
  readonly readOnly: boolean
}

export interface AccessRow {
  readonly lun: number
  readonly readOnly: boolean
}

export interface TargetConfig {
  /** Normal form: lower case (RFC 7143, 4.2.7.2). */
  readonly name: string
  readonly alias: string | undefined
  readonly portals: readonly string[]
  /** Auth groups, `none` alone, or none of them: nobody. */
  readonly auth: readonly string[]
  readonly luns: readonly LunConfig[]
  readonly access: ReadonlyMap<string, readonly AccessRow[]> | undefined
}

export interface Config {
  /** Absolute path of the file. */
  readonly file: string
  /** What the file said, for `plexus config dump`. It has no secrets: those are in files of their own. */
  readonly text: string
  readonly portals: readonly PortalConfig[]
  readonly auth: readonly AuthConfig[]
  readonly devices: readonly DeviceConfig[]
  readonly units: readonly UnitConfig[]
  readonly targets: readonly TargetConfig[]
  readonly limits: {
    readonly sessions: number
    readonly sessionsPerAddress: number
    readonly discoverySessions: number
    readonly pendingLogins: number
    readonly commandsPerSession: number
    readonly bufferPoolBytes: number
  }
  readonly log: { readonly level: LogLevel; readonly format: LogFormat }
  readonly engine: 'auto' | 'io_uring' | 'threads'
  /** Absolute. */
  readonly stateDir: string
  /** `state.movedFrom` and `copiedFrom`: what to do with identities that another machine has made. */
  readonly origin: Origin
  /** Program that each event is told to; absolute. */
  readonly onEvent: string | undefined
  /** Absolute; undefined: where systemd says, or the usual place. */
  readonly controlDir: string | undefined
  /** Doubts that do not keep the daemon from running. */
  readonly warnings: readonly Problem[]
}

/** Everything that is wrong with a configuration. The message has one line for each problem. */
export class ConfigError extends PlexusError {
  readonly problems: readonly Problem[]

  constructor(file: string, problems: readonly Problem[]) {
    super('invalid', {
      op: 'parse',
      subject: file,
      message: problems.map((one) => `${one.where}: ${one.message}`).join('\n'),
    })
    this.problems = problems
  }
}

/** Reads and checks the configuration in `file`. Throws {@link ConfigError}, or `not-found`. */
export function loadConfig(file: string): Config {
  const absolute = resolve(file)
  let text: string
  try {
    text = readFileSync(absolute, 'utf8')
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new PlexusError('not-found', {
      op: 'open',
      subject: absolute,
      message: `the configuration ${absolute} cannot be read: ${why}`,
      cause: error,
    })
  }
  return parseConfig(text, absolute)
}

/** As {@link loadConfig} with the text at hand. `file` names it; relative paths start at its folder. */
export function parseConfig(text: string, file: string): Config {
  const source = new ConfigSource(text, file)
  if (source.problems.length > 0) throw new ConfigError(file, source.problems)
  const parsed = configSchema.safeParse(source.value ?? {})
  for (const issue of parsed.error?.issues ?? []) reportIssue(source, issue)
  checkConfig(source)
  const secrets = readSecrets(source, dirname(file))
  checkAuth(source, secrets)
  const open = openToAll(file)
  if (open !== undefined) source.warning([], open)
  if (source.problems.length > 0 || !parsed.data) throw new ConfigError(file, source.problems)
  return { ...resolveConfig(parsed.data, secrets, file, source.warnings), text }
}

const DIGESTS_DEFAULT: readonly DigestChoice[] = ['CRC32C', 'None']

function digestList(
  given: DigestChoice | readonly DigestChoice[] | undefined,
): readonly DigestChoice[] {
  if (given === undefined || given === 'CRC32C') return DIGESTS_DEFAULT
  return typeof given === 'string' ? [given] : given
}

/** The comparison form of a name that the checks have accepted. */
function normalName(name: string): string {
  return defined(normalizeIscsiName(name), `the normal form of ${name}`)
}

function credentials(
  given: { user: string; algorithms?: readonly string[] | undefined } | undefined,
  secret: Buffer | undefined,
): CredentialsConfig | undefined {
  if (!given) return undefined
  const { user, algorithms } = given
  const permitted = CHAP_ALGORITHMS.filter(({ hash }) => algorithms?.includes(hash))
  return {
    user,
    secret: defined(secret, `the secret of ${user}`),
    ...(algorithms ? { algorithms: permitted.map(({ id }) => id) } : {}),
  }
}

/** One name or a list of them. */
function namesIn(given: string | readonly string[] | undefined): readonly string[] {
  return typeof given === 'string' ? [given] : (given ?? [])
}

/** The addresses of a portal; `[::]` takes IPv4, too, unless a portal listens on an IPv4 address with its port. */
function listenAddresses(
  texts: readonly string[],
  ipv4Ports: ReadonlySet<number>,
): readonly ListenAddress[] {
  return texts
    .flatMap((text) => parseListen(text) ?? [])
    .map((one) =>
      one.host === '::' && !ipv4Ports.has(one.port) ? { ...one, dualStack: true } : one,
    )
}

/** What a LUN leads to. The checks have seen that exactly one of the two stands there. */
function unitName(lun: { device?: string | undefined; volume?: string | undefined }): string {
  return defined(lun.device ?? lun.volume, 'device or volume of a lun')
}

function resolveConfig(
  data: ConfigInput,
  secrets: Secrets,
  file: string,
  warnings: readonly Problem[],
): Omit<Config, 'text'> {
  const base = dirname(file)
  const blockBytes = new Map(
    data.targets.flatMap(({ luns }) => luns.map((one) => [unitName(one), one.blockSize] as const)),
  )
  const ipv4Ports = new Set(
    data.portals.flatMap(({ listen }) =>
      listen.flatMap((text) => {
        const address = parseListen(text)
        return address && isIPv4(address.host) ? [address.port] : []
      }),
    ),
  )
  return {
    file,
    portals: data.portals.map((portal) => ({
      name: portal.name,
      listen: listenAddresses(portal.listen, ipv4Ports),
      advertise: portal.advertise?.flatMap((text) => parseAdvertise(text) ?? []),
      digests: {
        header: digestList(portal.digests?.header),
        data: digestList(portal.digests?.data),
      },
      discoveryAuth: namesIn(portal.discoveryAuth),
    })),
    auth: data.auth.map((group, index) => ({
      name: group.name,
      chap: credentials(group.chap, secrets.get(`${index}.chap`)),
      mutual: credentials(group.mutual, secrets.get(`${index}.mutual`)),
      initiators: group.initiators,
    })),
    devices: Object.entries(data.devices).map(([name, given]) => ({
      name,
      path: resolve(base, typeof given === 'string' ? given : given.path),
      readOnly: typeof given === 'string' ? false : given.readOnly,
      exported: blockBytes.has(name),
      label: typeof given === 'string' ? undefined : given.label,
      timeoutMs: timeoutMs(
        (typeof given === 'string' ? undefined : given.timeout) ?? data.hal.timeout,
      ),
    })),
    units: [...blockBytes].map(([name, bytes]) => ({ name, blockBytes: bytes })),
    targets: data.targets.map((target) => ({
      name: normalName(target.name),
      alias: target.alias,
      portals: target.portals,
      auth: namesIn(target.auth),
      luns: target.luns.map((one) => ({
        lun: one.lun,
        unit: unitName(one),
        readOnly: one.readOnly,
      })),
      access:
        target.access &&
        new Map(Object.entries(target.access).map(([name, rows]) => [normalName(name), rows])),
    })),
    limits: {
      sessions: data.limits.sessions,
      sessionsPerAddress: data.limits.sessionsPerAddress ?? data.limits.sessions,
      discoverySessions: data.limits.discoverySessions,
      pendingLogins: data.limits.pendingLogins,
      commandsPerSession: data.limits.commandsPerSession,
      bufferPoolBytes: sizeBytes(data.limits.bufferPool),
    },
    log: data.log,
    engine: data.hal.engine,
    stateDir: resolve(base, data.state.dir),
    origin: { movedFrom: data.state.movedFrom, copiedFrom: data.state.copiedFrom },
    onEvent: data.hooks.onEvent,
    controlDir: data.control.dir === undefined ? undefined : resolve(base, data.control.dir),
    warnings,
  }
}
