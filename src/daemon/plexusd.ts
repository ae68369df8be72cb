#!/usr/bin/env node
/**
 * plexusd, the daemon: command line, order of start and stop, signals, exit codes. `plexusd --config FILE`
 * serves until SIGTERM; `--check` looks at the configuration only.
 *
 *   start   config, log, limits, pool, I/O engine, identities, devices, units, targets, portals, READY=1
 *   SIGHUP  the configuration again: parse, check, diff, apply; on any error the old one runs on
 *   stop    STOPPING=1, initiators log out, flush, close; a second signal ends at once
 *   exit    0 done, 1 failed, 2 usage or configuration, 70 a defect: systemd restarts
 */
import { realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Command, CommanderError } from 'commander'
import { realClock } from '../base/clock.ts'
import { PlexusError } from '../base/errors.ts'
import { assertLimits } from '../base/limits.ts'
import { createLogger, type Logger } from '../base/log.ts'
import { systemRandom } from '../base/random.ts'
import { inTurns } from '../base/turns.ts'
import { plexusVersion } from '../base/version.ts'
import { CONTROL_DIR_DEFAULT } from '../control/protocol.ts'
import { createEngine } from '../engine/engine.ts'
import { objectsOf } from '../engine/geom/listing.ts'
import type { Provider } from '../engine/geom/provider.ts'
import { createAlignedPool } from '../hal/aligned-pool.ts'
import { createIoQueue } from '../hal/io-queue.ts'
import { Appliance } from './appliance.ts'
import { deviceWarnings } from './check-devices.ts'
import { labelWarnings } from './check-labels.ts'
import { type Config, ConfigError, loadConfig } from './config.ts'
import { configJsonSchema } from './config-schema.ts'
import { readConfig } from './config-thread.ts'
import { ControlServer } from './control-server.ts'
import { DeviceMemory } from './device-memory.ts'
import { EventHook, HOOK_CLOSE_MS } from './event-hook.ts'
import { EventStore } from './event-store.ts'
import { HealthWatch, STATE_EVENT } from './health-watch.ts'
import { IdentityStore } from './identity-store.ts'
import { KeptSets } from './kept-sets.ts'
import { machineId } from './machine-id.ts'
import { initiatorsOf } from './methods/facts.ts'
import { controlMethods } from './methods/table.ts'
import { describePlan } from './reconcile.ts'
import { Settings } from './settings.ts'
import { SHUTDOWN_MS, shutDown } from './shutdown.ts'
import { SystemdNotifier } from './systemd.ts'
import { WitnessFiles } from './witness-files.ts'

export const EXIT = { DONE: 0, FAILED: 1, USAGE: 2, DEFECT: 70 } as const

const CONFIG_DEFAULT = '/etc/plexus/plexus.yaml'
/** How often the status text is made anew. */
const STATUS_MS = 5_000
/** How soon after something has happened the states of objects are looked at. */
const HEALTH_LOOK_MS = 250
/**
 * A second signal this soon is the same Ctrl-C: a terminal signals the whole group, and npm passes its own
 * copy on.
 */
const SAME_SIGNAL_MS = 500

const EVENT_LEVEL = { info: 'info', warning: 'warn', critical: 'error' } as const

/** Where the control sockets are: as configured, as systemd says (RuntimeDirectory=), or where they usually are. */
function controlDir(config: Config): string {
  return config.controlDir ?? process.env['RUNTIME_DIRECTORY'] ?? CONTROL_DIR_DEFAULT
}

/** Loads the configuration, or says on stderr what is wrong with it. */
function loadOrExplain(file: string): Config | undefined {
  try {
    return loadConfig(file)
  } catch (error) {
    if (!(error instanceof PlexusError)) throw error
    process.stderr.write(`${error.message}\n`)
    return undefined
  }
}

async function check(file: string): Promise<number> {
  const config = loadOrExplain(file)
  if (!config) return EXIT.USAGE
  try {
    for (const warning of [...(await deviceWarnings(config)), ...(await labelWarnings(config))]) {
      process.stderr.write(`${config.file}: warning: ${warning}\n`)
    }
  } catch (error) {
    // The state directory, which is not everybody's to read.
    if (!(error instanceof PlexusError)) throw error
    process.stderr.write(`warning: labels were not looked at: ${error.message}\n`)
  }
  for (const { where, message } of config.warnings) {
    process.stderr.write(`${where}: warning: ${message}\n`)
  }
  process.stdout.write(
    `${config.file}: good; ${config.targets.length} targets, ${config.devices.length} devices\n`,
  )
  return EXIT.DONE
}

/** The running daemon. */
class Daemon {
  readonly #file: string
  readonly #log: Logger
  readonly #appliance: Appliance
  readonly #systemd: SystemdNotifier
  readonly #control: ControlServer
  readonly #closeQueue: () => Promise<void>
  readonly #ended: (code: number) => void
  readonly #store: EventStore
  readonly #hook: EventHook
  readonly #memory: DeviceMemory
  readonly #watch: HealthWatch
  #stoppingSinceMs: number | undefined
  #reloads: Promise<unknown> = Promise.resolve()
  #isLooking = false

  constructor(config: Config, log: Logger, ended: (code: number) => void) {
    this.#file = config.file
    this.#log = log
    this.#ended = ended
    this.#systemd = new SystemdNotifier({
      environment: process.env,
      pid: process.pid,
      log: log.child({ part: 'systemd' }),
    })
    assertLimits()
    const pool = createAlignedPool(config.limits.bufferPoolBytes)
    const queue = createIoQueue({ engine: config.engine, pool, log })
    this.#closeQueue = () => queue.close()
    const version = plexusVersion()
    const identities = IdentityStore.open({
      dir: config.stateDir,
      revision: version.split('.').slice(0, 2).join('.'),
      log,
      machine: machineId(),
    })
    const now = (): Date => new Date()
    const keptSets = new KeptSets({ dir: config.stateDir, lunNames: identities, log, now })
    const topology = createEngine({
      pool,
      clock: realClock,
      random: systemRandom,
      log: log.child({ part: 'engine' }),
      now,
      memory: keptSets,
      lunNames: identities,
      witness: new WitnessFiles(config.stateDir),
    })
    this.#appliance = new Appliance({
      config,
      pool,
      queue,
      topology,
      identities,
      clock: realClock,
      log,
    })
    const appliance = this.#appliance
    this.#store = new EventStore(config.stateDir, log)
    this.#hook = new EventHook({ clock: realClock, log: log.child({ part: 'hook' }) })
    this.#hook.use(config.onEvent)
    this.#memory = new DeviceMemory(config.stateDir, log)
    const settings = new Settings(config.stateDir, log)
    topology.events.restore(this.#store.history)
    topology.jobs.limitBytesPerSecond = settings.jobLimitBytesPerSecond
    this.#control = new ControlServer({
      methods: controlMethods(topology),
      context: {
        topology,
        keptSets,
        clock: realClock,
        log: log.child({ part: 'control' }),
        now,
        config: () => appliance.config,
        plan: (next) => appliance.plan(next),
        check: (next) => appliance.check(next),
        namesPeers: true,
        remembered: (name) => this.#memory.get(name),
        limitJobs: async (bytesPerSecond) => {
          await settings.keepJobLimit(bytesPerSecond)
          topology.jobs.limitBytesPerSecond = bytesPerSecond
        },
        devices: () => appliance.devices.report(),
        units: () => appliance.units.report(),
        sessions: () => appliance.server.sessions(),
        initiatorsOf: (target, lun) => initiatorsOf(appliance.server.sessions(), target, lun),
        targetLoad: () => appliance.server.load(),
        reload: () => this.reload(),
      },
    })
    this.#watch = new HealthWatch(topology.events, () => objectsOf(topology.classes))
    topology.events.onEvent((event) => {
      const { severity, object, message } = event
      this.#log[EVENT_LEVEL[severity]]({ part: 'event', event: event.event, object }, message)
      this.#store.add(event)
      this.#hook.tell(event)
      if (!STATE_EVENT.test(event.event)) this.#lookSoon()
    })
    topology.onProvider((provider, what) => {
      if (what !== 'gone') this.#remember(provider)
    })
  }

  async start(config: Config): Promise<void> {
    await this.#warnOf(config)
    await this.#appliance.apply(config)
    await this.#control.listen(controlDir(config))
    for (const { group, address, port } of this.#appliance.server.addresses()) {
      this.#log.info(
        { event: 'listening', portal: group, address, port },
        `portal ${group} is open`,
      )
    }
    this.#systemd.status(this.#appliance.status())
    this.#systemd.ready()
    this.#systemd.startWatchdog(realClock)
    realClock.every(STATUS_MS, () => {
      this.#systemd.status(this.#appliance.status())
      this.#lookSoon()
    })
    this.#appliance.topology.events.emit(
      'info',
      'started',
      'plexusd',
      `plexusd ${plexusVersion()} has started`,
    )
    this.#log.info({ event: 'ready', version: plexusVersion() }, this.#appliance.status())
  }

  /**
   * Reads the configuration again and applies it; one at a time. Resolves to what was done, in words. Rejects
   * with PlexusError, and then the old one runs on.
   */
  reload(): Promise<readonly string[]> {
    const work = this.#reloads.then(() => this.#reload())
    this.#reloads = work.catch(() => {})
    return work
  }

  async #reload(): Promise<readonly string[]> {
    if (this.#stoppingSinceMs !== undefined) return []
    this.#systemd.reloading()
    try {
      const config = await readConfig(this.#file)
      await this.#warnOf(config)
      const steps = describePlan(await this.#appliance.apply(config))
      this.#hook.use(config.onEvent)
      await inTurns(steps, (step) => this.#log.info({ event: 'reload-step' }, step))
      this.#log.info(
        { event: 'reloaded', steps: steps.length },
        steps.length > 0 ? 'the new configuration runs' : 'the configuration has not changed',
      )
      return steps
    } catch (error) {
      const problems = error instanceof ConfigError ? error.problems : []
      for (const { where, message } of problems) {
        this.#log.error({ event: 'config-problem', where }, `${where}: ${message}`)
      }
      this.#log.error(
        { event: 'reload-failed', ...(problems.length > 0 ? {} : { err: error }) },
        'the configuration was not reloaded; the old one runs on',
      )
      throw error
    } finally {
      this.#systemd.ready()
      this.#systemd.status(this.#appliance.status())
    }
  }

  /** SIGTERM and SIGINT. */
  async stop(signal: string): Promise<void> {
    const nowMs = realClock.nowMs()
    if (this.#stoppingSinceMs !== undefined) {
      if (nowMs - this.#stoppingSinceMs < SAME_SIGNAL_MS) return
      this.#log.warn({ signal }, 'a second signal: ending at once')
      endAtOnce()
    }
    this.#stoppingSinceMs = nowMs
    this.#log.info({ event: 'stopping', signal }, 'stopping')
    this.#appliance.topology.events.emit('info', 'stopping', 'plexusd', `plexusd stops: ${signal}`)
    this.#systemd.stopping(SHUTDOWN_MS + HOOK_CLOSE_MS)
    await this.#control.close()
    const { server } = this.#appliance
    const clean = await shutDown(
      {
        drain: (ms) => server.drain(ms),
        closeServer: () => server.close(),
        closeDevices: (ms) => this.#appliance.closeStorage(ms),
        closeQueue: this.#closeQueue,
      },
      realClock,
      this.#log,
    )
    await Promise.all([this.#store.settled(), this.#memory.settled(), this.#hook.close()])
    this.#systemd.stopWatchdog()
    this.#log.info({ event: 'stopped', clean }, 'stopped')
    // Threads that sit in a system call on a hung disk would keep an ordinary exit waiting for ever.
    if (!clean) endAtOnce()
    this.#ended(EXIT.DONE)
  }

  /** Several things that happen together are one look at the objects. */
  #lookSoon(): void {
    if (this.#isLooking || this.#stoppingSinceMs !== undefined) return
    this.#isLooking = true
    realClock.after(HEALTH_LOOK_MS, () => {
      this.#isLooking = false
      if (this.#stoppingSinceMs === undefined) this.#watch.look()
    })
  }

  #remember({ name, sizeBytes, blockBytes, identity }: Provider): void {
    const { devices, topology } = this.#appliance
    const config = devices.config(name)
    if (!config || !topology.device(name)) return
    const { wwid, serial, vendor, model } = identity
    const facts = { path: config.path, sizeBytes, blockBytes, wwid, serial, vendor, model }
    this.#memory.keep(name, facts, (one) => devices.config(one) !== undefined)
  }

  async #warnOf(config: Config): Promise<void> {
    await inTurns(config.warnings, ({ where, message }) => {
      this.#log.warn({ event: 'config-warning', where }, `${where}: ${message}`)
    })
    await inTurns(config.targets, (target) => {
      if (!target.auth.includes('none')) return
      this.#log.warn(
        { event: 'open-target', target: target.name },
        `target ${target.name} admits anybody (auth: none)`,
      )
    })
  }
}

/** Ends the process even where a thread hangs in the kernel; nothing runs after this. */
function endAtOnce(): never {
  process.kill(process.pid, 'SIGKILL')
  process.exit(EXIT.FAILED)
}

/** Serves the configuration in `file` until a signal ends it. Resolves to the exit code. */
export async function serve(file: string, onReady: () => void = () => {}): Promise<number> {
  const config = loadOrExplain(file)
  if (!config) return EXIT.USAGE
  const log = createLogger(config.log.level, config.log.format)
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, `a defect in plexusd: ${error.message}`)
    process.exit(EXIT.DEFECT)
  })
  return new Promise((resolve) => {
    const run = async (): Promise<void> => {
      const daemon = new Daemon(config, log, resolve)
      for (const signal of ['SIGTERM', 'SIGINT'] as const) {
        process.on(signal, () => void daemon.stop(signal))
      }
      process.on('SIGHUP', () => {
        daemon.reload().catch((error: unknown) => {
          // It has been logged.
          if (!(error instanceof PlexusError)) throw error
        })
      })
      await daemon.start(config)
      onReady()
    }
    run().catch((error: unknown) => {
      if (!(error instanceof PlexusError)) throw error
      log.fatal({ err: error }, `plexusd cannot start: ${error.message}`)
      resolve(EXIT.FAILED)
    })
  })
}

/** The command line. Resolves to the exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  const program = new Command('plexusd')
    .description('Serves block devices as iSCSI logical units.')
    .version(plexusVersion(), '--version', 'print the version')
    .option('--config <file>', 'the configuration', CONFIG_DEFAULT)
    .option('--check', 'check the configuration and end')
    .option('--schema', 'print the JSON schema of the configuration, for editors, and end')
    .helpOption('--help', 'print this help')
    .exitOverride()
  try {
    program.parse(argv, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    return error.exitCode === 0 ? EXIT.DONE : EXIT.USAGE
  }
  const options = program.opts<{ config: string; check?: true; schema?: true }>()
  if (options.schema) {
    process.stdout.write(`${JSON.stringify(configJsonSchema(), null, 2)}\n`)
    return EXIT.DONE
  }
  return options.check ? check(options.config) : serve(options.config)
}

function isMain(): boolean {
  const script = process.argv[1]
  return script !== undefined && realpathSync(script) === fileURLToPath(import.meta.url)
}

if (isMain()) process.exit(await main(process.argv.slice(2)))
