/**
 * Starts and ends the targets that are compared, each a process of its own with its own target on the
 * same device: plexusd, tgtd (by its aio or its rdwr store) and istgt. Called by bench.ts and soak.ts.
 *
 * tgtd's aio store opens the device with O_DIRECT by itself and refuses --bsoflags; rdwr wants
 * `--bsoflags direct`. istgt knows no O_DIRECT: its figures are those of the page cache.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, openSync, readFileSync, statSync } from 'node:fs'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { PlexusError } from '../src/base/errors.ts'
import { KIB, MIB } from '../src/base/limits.ts'
import { findProgram, freePort, projectRoot, run, type Teardown } from './environment.ts'

export interface Server {
  readonly name: string
  readonly url: string
  readonly pid: number
  readonly version: string
  /** Of Plexus: its configuration, which is JSON, and the directory of its sockets. */
  readonly configPath?: string
  readonly controlDir?: string
}

export interface ServerOptions {
  readonly device: string
  /** For configurations, logs and sockets; exists. */
  readonly directory: string
  readonly teardown: Teardown
  readonly signal: AbortSignal
  /** I/O engine of Plexus; absent: its own choice. */
  readonly engine?: string
  /** Targets that Plexus has beside the one that is measured. */
  readonly moreTargets?: readonly PlexusTarget[]
}

/** A target without authentication in the configuration of Plexus. */
export interface PlexusTarget {
  readonly name: string
  readonly luns: readonly { readonly lun: number; readonly device: string }[]
}

/** The configuration of Plexus, as far as a benchmark changes it while it runs. */
export interface PlexusConfig {
  readonly devices: Readonly<Record<string, string>>
  readonly targets: readonly object[]
}

/** {@link PlexusTarget} as the file has it. */
export function targetConfig({ name, luns }: PlexusTarget): object {
  return { name: `${IQN}:${name}`, portals: ['bench'], auth: 'none', luns }
}

const IQN = 'iqn.2026-01.io.plexus.bench'
const START_TIMEOUT_MS = 60_000
const STOP_TIMEOUT_MS = 10_000
/** Threads of tgtd's rdwr store: as many as requests of the deepest usual case can use. */
const TGT_IO_THREADS = 16

function failed(name: string, why: string, logPath: string): PlexusError {
  const tail = existsSync(logPath) ? readFileSync(logPath, 'utf8').trim().slice(-1500) : ''
  return new PlexusError('io', {
    op: 'start',
    subject: name,
    message: `${name} ${why}; its last words: ${tail === '' ? '(none)' : tail}`,
  })
}

function exited(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null
}

async function stop(child: ChildProcess, signals: readonly NodeJS.Signals[]): Promise<void> {
  for (const signal of signals) {
    if (exited(child)) return
    child.kill(signal)
    for (let waitedMs = 0; waitedMs < STOP_TIMEOUT_MS && !exited(child); waitedMs += 50) {
      await sleep(50)
    }
  }
}

async function accepts(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    const end = (answer: boolean): void => {
      socket.destroy()
      resolve(answer)
    }
    socket.once('connect', () => end(true))
    socket.once('error', () => end(false))
  })
}

interface Daemon {
  readonly name: string
  readonly command: readonly string[]
  readonly port: number
  readonly env?: NodeJS.ProcessEnv
  /** Tried one after the other; the last one is SIGKILL for those that ignore the others. */
  readonly stopSignals: readonly NodeJS.Signals[]
}

/** Spawns the daemon and waits for its port. It dies with us, even when we are killed. */
async function startDaemon(daemon: Daemon, options: ServerOptions): Promise<ChildProcess> {
  const logPath = join(options.directory, `${daemon.name}.log`)
  const log = openSync(logPath, 'a')
  const child = spawn(
    findProgram('setpriv') ?? 'setpriv',
    ['--pdeathsig', 'KILL', ...daemon.command],
    // Its own process group: Ctrl-C reaches only us, and we end it in good order.
    { stdio: ['ignore', log, log], env: { ...process.env, ...daemon.env }, detached: true },
  )
  options.teardown.add(`stopping ${daemon.name}`, () => stop(child, daemon.stopSignals))
  let spawnError: Error | undefined
  child.once('error', (error) => {
    spawnError = error
  })
  for (let waitedMs = 0; waitedMs < START_TIMEOUT_MS; waitedMs += 100) {
    options.signal.throwIfAborted()
    if (spawnError) throw failed(daemon.name, `did not start: ${spawnError.message}`, logPath)
    if (exited(child)) throw failed(daemon.name, `exited with ${child.exitCode}`, logPath)
    if (await accepts(daemon.port)) return child
    await sleep(100)
  }
  throw failed(daemon.name, `did not listen on port ${daemon.port} in time`, logPath)
}

async function packageVersion(name: string): Promise<string> {
  const dpkg = findProgram('dpkg-query')
  if (!dpkg) return 'unknown version'
  return await run(dpkg, ['-W', '-f', '$' + '{Version}', name]).catch(() => 'unknown version')
}

/** Must it be built before it can be measured? */
async function isOlderThanSources(built: string, sources: string): Promise<boolean> {
  if (!existsSync(built)) return true
  const builtMs = statSync(built).mtimeMs
  const files = await readdir(sources, { recursive: true })
  return files.some(
    (file) => file.endsWith('.ts') && statSync(join(sources, file)).mtimeMs > builtMs,
  )
}

async function startPlexus(options: ServerOptions): Promise<Server> {
  const root = projectRoot()
  const main = join(root, 'dist', 'daemon', 'plexusd.js')
  if (await isOlderThanSources(main, join(root, 'src'))) {
    process.stderr.write('bench: dist/ is missing or older than src/: npm run build\n')
    await run('npm', ['run', '-s', 'build', '--prefix', root], { signal: options.signal })
  }
  const port = await freePort()
  const state = join(options.directory, 'plexus-state')
  await mkdir(state)
  // JSON is YAML, too.
  const config = {
    version: 1,
    portals: [{ name: 'bench', listen: [`127.0.0.1:${port}`] }],
    devices: { disk: options.device },
    targets: [
      { name: 'plexus', luns: [{ lun: 0, device: 'disk' }] },
      ...(options.moreTargets ?? []),
    ].map(targetConfig),
    hal: { engine: options.engine ?? 'auto' },
    log: { level: 'info', format: 'json' },
    state: { dir: state },
    control: { dir: state },
  }
  const path = join(options.directory, 'plexus.yaml')
  await writeFile(path, `${JSON.stringify(config, undefined, 2)}\n`)
  const child = await startDaemon(
    {
      name: 'plexus',
      command: [process.execPath, main, '--config', path],
      port,
      stopSignals: ['SIGTERM', 'SIGKILL'],
    },
    options,
  )
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    version: string
  }
  const git = await run('git', ['-C', root, 'rev-parse', '--short', 'HEAD']).catch(() => '')
  const commit = git === '' ? '' : ` commit ${git.trim()}`
  return {
    name: 'plexus',
    url: `iscsi://127.0.0.1:${port}/${IQN}:plexus/0`,
    pid: child.pid ?? 0,
    version: `Plexus ${version}${commit}, engine ${options.engine ?? 'auto'}`,
    configPath: path,
    controlDir: state,
  }
}

function tgtStarter(store: 'aio' | 'rdwr'): (options: ServerOptions) => Promise<Server> {
  return async (options) => {
    const name = `tgt-${store}`
    const port = await freePort()
    const env = { TGT_IPC_SOCKET: join(options.directory, `${name}.socket`) }
    const tgtd = findProgram('tgtd') ?? 'tgtd'
    const child = await startDaemon(
      {
        name,
        command: [
          tgtd,
          '-f',
          '-C',
          '1',
          '-t',
          `${TGT_IO_THREADS}`,
          '--iscsi',
          `portal=127.0.0.1:${port}`,
        ],
        port,
        env,
        stopSignals: ['SIGKILL'], // it answers SIGTERM only once it has no targets
      },
      options,
    )
    const tgtadm = async (...args: string[]): Promise<void> => {
      await run(findProgram('tgtadm') ?? 'tgtadm', ['-C', '1', '--lld', 'iscsi', ...args], {
        env: { ...process.env, ...env },
        signal: options.signal,
      })
    }
    const target = ['--mode', 'target', '--tid', '1']
    const flags = store === 'rdwr' ? ['--bsoflags', 'direct'] : []
    await tgtadm('--op', 'new', ...target, '-T', `${IQN}:${name}`)
    await tgtadm(
      ...['--op', 'new', '--mode', 'logicalunit', '--tid', '1', '--lun', '1'],
      ...['-b', options.device, '--bstype', store, ...flags],
    )
    await tgtadm('--op', 'bind', ...target, '-I', 'ALL')
    return {
      name,
      url: `iscsi://127.0.0.1:${port}/${IQN}:${name}/1`,
      pid: child.pid ?? 0,
      version: `tgt ${await packageVersion('tgt')}, store ${store}`,
    }
  }
}

/** istgt.conf: one target without authentication; the burst lengths of its own example. */
function istgtConfig(directory: string, port: number, controlPort: number, luns: string): string {
  return `[Global]
  Comment "benchmark"
  NodeBase "${IQN}"
  PidFile ${directory}/istgt.pid
  AuthFile ${directory}/istgt-auth.conf
  MediaDirectory ${directory}
  LogFacility "local7"
  Timeout 30
  NopInInterval 20
  DiscoveryAuthMethod None
  MaxSessions 32
  MaxConnections 4
  MaxR2T 32
  MaxOutstandingR2T 16
  DefaultTime2Wait 2
  DefaultTime2Retain 60
  FirstBurstLength ${256 * KIB}
  MaxBurstLength ${MIB}
  MaxRecvDataSegmentLength ${256 * KIB}
  InitialR2T Yes
  ImmediateData Yes
  DataPDUInOrder Yes
  DataSequenceInOrder Yes
  ErrorRecoveryLevel 0
[UnitControl]
  Comment "control"
  AuthMethod None
  AuthGroup None
  Portal UC1 127.0.0.1:${controlPort}
  Netmask 127.0.0.1
[PortalGroup1]
  Comment "portal"
  Portal DA1 127.0.0.1:${port}
[InitiatorGroup1]
  Comment "initiators"
  InitiatorName "ALL"
  Netmask 127.0.0.0/8
[LogicalUnit1]
  TargetName istgt
  TargetAlias "benchmark"
  Mapping PortalGroup1 InitiatorGroup1
  AuthMethod None
  AuthGroup None
  UseDigest Auto
  UnitType Disk
  QueueDepth 64
  LUN0 Storage ${luns}
`
}

async function startIstgt(options: ServerOptions): Promise<Server> {
  const port = await freePort()
  const controlPort = await freePort()
  const bytes = Number(
    await run(findProgram('blockdev') ?? 'blockdev', ['--getsize64', options.device]),
  )
  const config = join(options.directory, 'istgt.conf')
  const storage = `${options.device} ${Math.floor(bytes / MIB)}MB`
  await writeFile(config, istgtConfig(options.directory, port, controlPort, storage))
  await writeFile(join(options.directory, 'istgt-auth.conf'), '', { mode: 0o600 })
  const child = await startDaemon(
    {
      name: 'istgt',
      command: [findProgram('istgt') ?? 'istgt', '-c', config, '-D'],
      port,
      stopSignals: ['SIGTERM', 'SIGKILL'],
    },
    options,
  )
  return {
    name: 'istgt',
    url: `iscsi://127.0.0.1:${port}/${IQN}:istgt/0`,
    pid: child.pid ?? 0,
    version: `istgt ${await packageVersion('istgt')} (page cache, no O_DIRECT)`,
  }
}

export interface Peer {
  readonly start: (options: ServerOptions) => Promise<Server>
  /** Programs it needs, by name. */
  readonly programs: readonly string[]
  /** It writes through the page cache: what it leaves there is written out before others go on. */
  readonly buffered: boolean
}

/** Every target that can be compared, by the name that --targets takes. */
export const PEERS: Readonly<Record<string, Peer>> = {
  plexus: { start: startPlexus, programs: ['setpriv'], buffered: false },
  'tgt-aio': { start: tgtStarter('aio'), programs: ['tgtd', 'tgtadm', 'setpriv'], buffered: false },
  'tgt-rdwr': {
    start: tgtStarter('rdwr'),
    programs: ['tgtd', 'tgtadm', 'setpriv'],
    buffered: false,
  },
  istgt: { start: startIstgt, programs: ['istgt', 'blockdev', 'setpriv'], buffered: true },
}

export interface MemoryUse {
  readonly residentBytes: number
  readonly peakBytes: number
}

/** Resident memory of a process now and at its highest, from /proc/PID/status. */
export function memoryOf(pid: number): MemoryUse {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const bytes = (key: string): number =>
    Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) * KIB
  return { residentBytes: bytes('VmRSS'), peakBytes: bytes('VmHWM') }
}
