/**
 * A control server in this process, on a topology with a class made for it and devices in memory; and a terminal
 * that keeps what is written to it. For the tests of the control sockets and of the command line.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { realClock } from '../../src/base/clock.ts'
import type { PlexusError } from '../../src/base/errors.ts'
import { createKernels } from '../../src/base/kernels.ts'
import { MIB } from '../../src/base/limits.ts'
import { silentLogger } from '../../src/base/log.ts'
import { systemRandom } from '../../src/base/random.ts'
import { runCli } from '../../src/cli/plexus.ts'
import type { Terminal } from '../../src/cli/terminal.ts'
import { socketPaths } from '../../src/control/protocol.ts'
import {
  type JobReport,
  type ObjectReport,
  type ObjectType,
  SIZE,
  STATE,
} from '../../src/control/reports.ts'
import { type Config, parseConfig } from '../../src/daemon/config.ts'
import { ControlServer } from '../../src/daemon/control-server.ts'
import type { DeviceFacts } from '../../src/daemon/device-memory.ts'
import type { ControlContext } from '../../src/daemon/methods/context.ts'
import { initiatorsOf } from '../../src/daemon/methods/facts.ts'
import { controlMethods } from '../../src/daemon/methods/table.ts'
import { planChanges } from '../../src/daemon/reconcile.ts'
import type { UnitReport } from '../../src/daemon/unit-slots.ts'
import { EventLog } from '../../src/engine/geom/events.ts'
import { Topology } from '../../src/engine/geom/topology.ts'
import type { GeomClass, Verb, VerbParameters } from '../../src/engine/geom/types.ts'
import { JobManager } from '../../src/engine/jobs/job.ts'
import { createAlignedPool } from '../../src/hal/aligned-pool.ts'
import type { SessionInfo } from '../../src/target/iscsi/session.ts'
import { MemoryDevice } from './memory-device.ts'

export const NO_ERRORS = { read: 0, write: 0, parity: 0 } as const

export function aJob(over: Partial<JobReport> = {}): JobReport {
  return {
    id: 'j1',
    kind: 'rebuild',
    object: 'db.p0',
    parent: 'db',
    state: 'running',
    doneBytes: 824633720832,
    totalBytes: 2000398934016,
    bytesPerSecond: 222298112,
    etaSeconds: 5289,
    limitBytesPerSecond: undefined,
    error: undefined,
    mismatches: 0,
    ...over,
  }
}

export function aVolume(over: Partial<ObjectReport> = {}): ObjectReport {
  return {
    type: 'volume',
    name: 'db',
    uuid: '00000000-0000-4000-8000-000000000001',
    className: 'vinum',
    set: 'vinum-00000000',
    state: 'UP',
    health: 'HEALTHY',
    sizeBytes: 6001196802048,
    note: 'raid5 over 4 drives of 1.82 TiB',
    status: '',
    action: '',
    errors: NO_ERRORS,
    facts: {},
    ...over,
  }
}

export const VOLUME_TYPE: ObjectType = {
  name: 'volume',
  plural: 'volumes',
  columns: [{ label: 'volume', key: 'name' }, STATE, SIZE],
}

/** The class of the rig: objects as it is told, verbs that say how they were called. */
export class FakeClass implements GeomClass {
  readonly name: string
  types: readonly ObjectType[] = [VOLUME_TYPE]
  readonly calls: { readonly name: string; readonly parameters: VerbParameters }[] = []
  objects: readonly ObjectReport[] = []
  error: PlexusError | undefined
  /** What every verb answers. */
  answer: object = { dryRun: false, steps: [], warnings: [], jobs: [] }

  readonly verbs: readonly Verb[]

  constructor(specs: readonly Verb['spec'][], name = 'vinum') {
    this.name = name
    this.verbs = specs.map((spec) => ({
      spec,
      run: async (parameters) => {
        this.calls.push({ name: `${spec.noun}.${spec.name}`, parameters })
        if (this.error) throw this.error
        const { dryRun } = parameters
        return dryRun ? { ...this.answer, dryRun } : this.answer
      },
    }))
  }

  async taste(): Promise<boolean> {
    return false
  }

  report(): readonly ObjectReport[] {
    return this.objects
  }
}

const NOW = new Date('2026-11-21T12:00:00Z')

const CONFIG = `version: 1
devices:
  d1: /dev/d1
  d2: /dev/d2
  d3: /dev/d3
targets:
  - name: iqn.2026-01.lab.plexus:db
    portals: [san]
    auth: none
    luns:
      - { lun: 0, volume: db }
portals:
  - name: san
    listen: ["127.0.0.1:3260"]
`

export class ControlRig {
  readonly dir = mkdtempSync(join(tmpdir(), 'plexus-control-'))
  readonly fake: FakeClass
  readonly topology: Topology
  server: ControlServer
  readonly #context: ControlContext
  readonly device = new MemoryDevice({ sizeBytes: 16 * MIB, path: '/dev/d1' })
  readonly configFile = join(this.dir, 'plexus.yaml')
  sessions: SessionInfo[] = []
  units: readonly UnitReport[] = []
  reloads = 0
  readonly remembered = new Map<string, DeviceFacts>()
  failReload: PlexusError | undefined
  config: Config
  readonly #sockets: Socket[] = []

  constructor(specs: readonly Verb['spec'][], className = 'vinum') {
    this.fake = new FakeClass(specs, className)
    const [clock, log] = [realClock, silentLogger()]
    const events = new EventLog(() => NOW)
    this.topology = new Topology({
      classes: [this.fake],
      pool: createAlignedPool(32 * MIB),
      kernels: createKernels(),
      clock,
      random: systemRandom,
      log,
      events,
      jobs: new JobManager({ clock, log, events }),
    })
    const text = `${CONFIG}state: { dir: ${join(this.dir, 'state')} }\n`
    mkdirSync(this.dir, { recursive: true })
    writeFileSync(this.configFile, text)
    this.config = parseConfig(text, this.configFile)
    const context: ControlContext = {
      topology: this.topology,
      clock,
      log,
      keptSets: { known: [], forget: async () => {} },
      now: () => NOW,
      config: () => this.config,
      plan: (next) => planChanges(this.config, next),
      check: async (next) => {
        if (this.failReload) throw this.failReload
        return planChanges(this.config, next)
      },
      namesPeers: true,
      remembered: (name) => this.remembered.get(name),
      limitJobs: async (bytesPerSecond) => {
        this.topology.jobs.limitBytesPerSecond = bytesPerSecond
      },
      devices: () => [
        { name: 'd1', path: '/dev/d1', ready: true, reason: undefined },
        { name: 'd2', path: '/dev/d2', ready: false, reason: 'no such file' },
      ],
      units: () => this.units,
      sessions: () => this.sessions,
      initiatorsOf: (target, lun) => initiatorsOf(this.sessions, target, lun),
      targetLoad: () => ({
        pool: { totalBytes: 0, freeBytes: 0, keptBytes: 0, leased: 0 },
        connections: 0,
        sessions: this.sessions.length,
        sendQueueBytes: 0,
      }),
      reload: async () => {
        if (this.failReload) throw this.failReload
        this.reloads++
        return ['change target iqn.2026-01.lab.plexus:db']
      },
    }
    this.#context = context
    this.server = this.#newServer()
  }

  async start(): Promise<this> {
    await this.topology.addDevice('d1', this.device)
    await this.server.listen(this.dir)
    return this
  }

  #newServer(): ControlServer {
    return new ControlServer({
      context: this.#context,
      methods: controlMethods(this.topology),
    })
  }

  /** The daemon ends and comes again, as clients see it. */
  async restart(): Promise<void> {
    await this.server.close()
    this.server = this.#newServer()
    await this.server.listen(this.dir)
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await this.server.close()
    rmSync(this.dir, { recursive: true, force: true })
  }

  get paths() {
    return socketPaths(this.dir)
  }

  /** A raw connection: lines out, parsed lines in. */
  async raw(path: string): Promise<RawClient> {
    const socket = createConnection({ path })
    socket.on('error', () => {})
    this.#sockets.push(socket)
    await new Promise((resolve) => socket.once('connect', resolve))
    return new RawClient(socket)
  }

  /** Runs a command line against this server. */
  cli(argv: readonly string[], terminal: TestTerminal = new TestTerminal()): Promise<CliResult> {
    return runTerminal([...argv, '--socket', this.dir], terminal)
  }
}

// biome-ignore lint/suspicious/noExplicitAny: an answer of any form; tests look into it
export type Message = any

export class RawClient {
  readonly socket: Socket
  readonly ended: Promise<void>
  readonly #messages: Message[] = []
  #waiting: ((message: Message) => void)[] = []

  constructor(socket: Socket) {
    this.socket = socket
    this.ended = new Promise((resolve) => socket.once('close', () => resolve()))
    createInterface({ input: socket }).on('line', (line) => {
      let message: Message
      try {
        message = JSON.parse(line)
      } catch {
        // Cut off in the middle of a line: the server has dropped us.
        return
      }
      const next = this.#waiting.shift()
      if (next) next(message)
      else this.#messages.push(message)
    })
  }

  send(text: string): void {
    this.socket.write(text)
  }

  request(id: number, method: string, params: object = {}): void {
    this.send(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`)
  }

  next(): Promise<Message> {
    const message = this.#messages.shift()
    if (message) return Promise.resolve(message)
    return new Promise((resolve) => this.#waiting.push(resolve))
  }
}

export interface CliResult {
  readonly exit: number
  readonly out: string
  readonly err: string
}

export class TestTerminal implements Terminal {
  outText = ''
  errText = ''
  readonly outIsTty = false
  readonly errIsTty = false
  readonly colour = false
  readonly files = new Map<string, string>()
  readonly questions: string[] = []
  readonly #answers: string[] | undefined

  /** `answers`: what is typed when it is asked; none: nobody can be asked. */
  constructor(answers?: readonly string[]) {
    this.#answers = answers && [...answers]
    this.rested = new Promise((resolve) => {
      this.#rest = resolve
    })
  }

  get canAsk(): boolean {
    return this.#answers !== undefined
  }

  out(text: string): void {
    this.outText += text
  }

  err(text: string): void {
    this.errText += text
  }

  async ask(question: string): Promise<string> {
    this.questions.push(question)
    return this.#answers?.shift() ?? ''
  }

  readFile(path: string): string {
    const text = this.files.get(path)
    if (text !== undefined) return text
    throw Object.assign(new Error('no such file'), { code: 'ENOENT' })
  }

  /** Resolves when a command rests for the first time, having asked the daemon. */
  readonly rested: Promise<void>
  #rest: () => void = () => {}

  sleep(): Promise<void> {
    this.#rest()
    if (this.interrupted) throw new Error('interrupted')
    return new Promise((resolve) => setTimeout(resolve, 5))
  }

  /** As Ctrl-C: a command that goes on for ever ends at its next rest. */
  interrupted = false

  nowMs(): number {
    return performance.now()
  }
}

export async function runTerminal(
  argv: readonly string[],
  terminal: TestTerminal,
): Promise<CliResult> {
  const exit = await runCli(argv, terminal)
  return { exit, out: terminal.outText, err: terminal.errText }
}
