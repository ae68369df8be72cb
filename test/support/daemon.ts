/**
 * Starts and stops a real plexusd for tests, fuzzing, conformance and the lab: its own state directory,
 * a generated configuration, a port of its own on loopback, and everything it logs.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { ROOT } from './root.ts'

/** Configuration as plexusd reads it (YAML is a superset of JSON); portals are filled in. */
export interface DaemonConfig {
  readonly auth?: readonly object[]
  /** Default: one, `test`, on the daemon's own address and port. */
  readonly portals?: readonly object[]
  readonly devices: Readonly<Record<string, unknown>>
  readonly targets: readonly object[]
  readonly limits?: object
  readonly hal?: object
  readonly hooks?: object
}

export interface DaemonOptions {
  readonly config: DaemonConfig
  readonly host?: string
  /** Default: a free one. */
  readonly port?: number
  /** One choice, or a list of what alone is accepted. */
  readonly digests?: { readonly header: string | string[]; readonly data: string | string[] }
  /** Hears each log line. */
  readonly onLog?: (line: string) => void
  readonly startTimeoutMs?: number
}

export const TARGET = 'iqn.2026-11.test.plexus:disk'
const LOG_LINES_KEPT = 5000

/** One target without authentication, LUN 0 on the device `path`. */
export function oneDisk(path: string, name = TARGET): DaemonConfig {
  return {
    devices: { disk: path },
    targets: [{ name, portals: ['test'], auth: 'none', luns: [{ lun: 0, device: 'disk' }] }],
  }
}

/** A TCP port on loopback that was free a moment ago. */
export function freePort(host = '127.0.0.1'): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, host, () => {
      const address = server.address()
      server.close(() => {
        if (address && typeof address === 'object') resolve(address.port)
        else reject(new Error('no port'))
      })
    })
  })
}

/** The command line that runs a program of ours, of the same build as the tests. */
export function programCommand(program: string): string[] {
  return [process.execPath, join(ROOT, `build/src/${program}.js`)]
}

/** The command line that runs plexusd: PLEXUS_DAEMON, or that of {@link programCommand}. */
export function daemonCommand(): string[] {
  const override = process.env['PLEXUS_DAEMON']
  return override ? [process.execPath, override] : programCommand('daemon/plexusd')
}

/** How a run of `plexus` ended, and what it said. */
export interface CommandResult {
  readonly exit: number
  readonly out: string
  readonly err: string
}

/** Runs `plexus` as a process of its own. Rejects when it ends by a signal or takes longer than a minute. */
export function runPlexus(args: readonly string[]): Promise<CommandResult> {
  const [command = process.execPath, ...first] = programCommand('cli/plexus')
  return new Promise((resolve, reject) => {
    execFile(command, [...first, ...args], { timeout: 60_000 }, (error, out, err) => {
      const exit = error ? error.code : 0
      if (typeof exit === 'number') resolve({ exit, out, err })
      else reject(error)
    })
  })
}

export class Daemon {
  readonly host: string
  readonly port: number
  readonly dir: string
  readonly configPath: string
  readonly log: string[] = []
  #child: ChildProcess | undefined
  #exit: Promise<{ code: number | null; signal: string | null }> | undefined
  readonly #options: DaemonOptions

  private constructor(options: DaemonOptions, port: number) {
    this.#options = options
    this.host = options.host ?? '127.0.0.1'
    this.port = port
    this.dir = mkdtempSync(join(tmpdir(), 'plexus-test-'))
    this.configPath = join(this.dir, 'plexus.yaml')
    this.configure(options.config)
  }

  /** Starts plexusd and waits until it is ready. A port of its own choice may be taken meanwhile: then another. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    for (let tries = 0; ; tries++) {
      const daemon = new Daemon(options, options.port ?? (await freePort(options.host)))
      try {
        await daemon.spawn()
        return daemon
      } catch (error) {
        await daemon.stop()
        if (options.port !== undefined || tries === 2) throw error
      }
    }
  }

  get pid(): number {
    const pid = this.#child?.pid
    if (pid === undefined) throw new Error('plexusd does not run')
    return pid
  }

  /** False once the process has ended, for whatever reason. */
  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && !this.#child.signalCode
  }

  /** Where its control sockets are. */
  get controlDir(): string {
    return join(this.dir, 'run')
  }

  /** Runs `plexus` against this daemon. */
  plexus(args: readonly string[]): Promise<CommandResult> {
    return runPlexus([...args, '--socket', this.controlDir])
  }

  /** Resident memory in bytes. */
  get residentBytes(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8')
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024
  }

  /** Writes the configuration file; a running daemon reads it at the next SIGHUP. */
  configure(config: DaemonConfig): void {
    const { digests } = this.#options
    const address = this.host.includes(':') ? `[${this.host}]` : this.host
    const whole = {
      version: 1,
      portals: [
        { name: 'test', listen: [`${address}:${this.port}`], ...(digests ? { digests } : {}) },
      ],
      state: { dir: join(this.dir, 'state') },
      control: { dir: this.controlDir },
      log: { level: 'info', format: 'json' },
      ...config,
    }
    writeFileSync(this.configPath, `${JSON.stringify(whole, null, 2)}\n`)
  }

  /** Writes a CHAP secret where only root reads it; the path for `secretFile`. */
  secretFile(name: string, secret: string): string {
    const path = join(this.dir, name)
    writeFileSync(path, `${secret}\n`)
    chmodSync(path, 0o600)
    return path
  }

  /** Starts the process again after `kill` or `stop`; for recovery tests. */
  async spawn(): Promise<void> {
    const [command = process.execPath, ...args] = daemonCommand()
    const child = spawn(command, [...args, '--config', this.configPath], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#child = child
    // A test that dies takes its daemon with it.
    const killWithUs = () => {
      child.kill('SIGKILL')
      rmSync(this.dir, { recursive: true, force: true })
    }
    process.once('exit', killWithUs)
    this.#exit = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        process.off('exit', killWithUs)
        resolve({ code, signal })
      })
      child.once('error', () => resolve({ code: 127, signal: null }))
    })
    let ready = false
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        this.log.push(line)
        if (this.log.length > LOG_LINES_KEPT) this.log.shift()
        ready ||= line.includes('"event":"ready","version"')
        this.#options.onLog?.(line)
      })
    }
    const deadline = Date.now() + (this.#options.startTimeoutMs ?? 20_000)
    while (!ready) {
      if (!this.running || Date.now() > deadline) {
        throw new Error(`plexusd did not start:\n${this.log.slice(-20).join('\n')}`)
      }
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  /** Sends a signal to the process. */
  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal)
  }

  /** SIGKILL, and waits for the end: a crash as initiators see it. */
  async kill(): Promise<void> {
    this.signal('SIGKILL')
    await this.#exit
  }

  /** SIGTERM, SIGKILL when that takes too long; removes the temporary directory. Its exit code. */
  async stop(timeoutMs = 15_000): Promise<number | null> {
    let code: number | null = null
    if (this.running && this.#exit) {
      this.signal('SIGTERM')
      const timer = setTimeout(() => this.signal('SIGKILL'), timeoutMs)
      code = (await this.#exit).code
      clearTimeout(timer)
    } else {
      code = this.#child?.exitCode ?? null
    }
    rmSync(this.dir, { recursive: true, force: true })
    return code
  }
}
