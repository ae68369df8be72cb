/**
 * What goes on beside the cases: reloads of the configuration, valid and broken, and a disk of the victim that is
 * slow, hangs for a while, or fails (a nop provider, told so over control.sock).
 */
import { readFileSync, writeFileSync } from 'node:fs'
import type { RpcClient } from '../../src/control/rpc-client.ts'
import type { Daemon, DaemonConfig } from '../support/daemon.ts'
import { sleep } from './attack-context.ts'
import type { Random } from './random.ts'

const EVENT_MS = 1000
/** A disk hangs so long at most: the end of a round waits for it. */
export const HANG_MS = 1500
const RELOAD_MS = 20_000
/** The name of the nop provider over the device of the victim. */
export const SLOW_DISK = 'slow'

export interface SurroundingsOptions {
  readonly daemon: Daemon
  readonly config: DaemonConfig
  /** A device that no LUN has yet, by name and path. */
  readonly spare: { readonly name: string; readonly path: string }
  /** The target that gets and loses a LUN. */
  readonly victim: string
  readonly random: Random
  readonly fault: (text: string) => void
}

export class Surroundings {
  readonly counts = new Map<string, number>()
  readonly #options: SurroundingsOptions
  readonly #control: RpcClient
  #pause = true
  #over = false
  /** Nothing has happened since the last {@link calm}. */
  #calm = false
  #running: Promise<void> = Promise.resolve()

  private constructor(options: SurroundingsOptions, control: RpcClient) {
    this.#options = options
    this.#control = control
  }

  /** Puts the nop provider over the device `below`, and waits for the events to be begun by {@link resume}. */
  static async start(options: SurroundingsOptions, below: string, control: RpcClient) {
    await control.call('nop.create', { provider: below, name: SLOW_DISK })
    const surroundings = new Surroundings(options, control)
    surroundings.#running = surroundings.#run()
    return surroundings
  }

  resume(): void {
    this.#pause = false
  }

  /** Ends the events, and undoes what they have done. */
  async calm(): Promise<void> {
    this.#pause = true
    await this.#event
    if (this.#calm) return
    this.#calm = true
    await this.#control.call('nop.clear', { name: SLOW_DISK })
    this.#options.daemon.configure(this.#options.config)
    await this.#apply(true)
  }

  async stop(): Promise<void> {
    this.#over = true
    await this.#running
  }

  #event: Promise<void> = Promise.resolve()

  async #run(): Promise<void> {
    const { random, fault } = this.#options
    const names = Object.keys(this.#events)
    while (!this.#over) {
      await sleep(this.#pause ? 50 : random.between(EVENT_MS / 2, (EVENT_MS * 3) / 2))
      if (this.#pause || this.#over) continue
      const name = random.pick(names)
      this.#calm = false
      this.counts.set(name, (this.counts.get(name) ?? 0) + 1)
      this.#event = (this.#events[name]?.() ?? Promise.resolve()).catch((error: unknown) =>
        fault(`${name}: ${error instanceof Error ? error.message : error}`),
      )
      await this.#event
    }
  }

  /** Wants the file to be taken, or refused. */
  async #apply(valid: boolean): Promise<void> {
    const answer = await this.#control
      .call('config.apply', { force: true }, { timeoutMs: RELOAD_MS })
      .then(() => undefined)
      .catch((error: Error) => error)
    if (valid && answer) throw new Error(`a sound configuration is refused: ${answer.message}`)
    if (!valid && !answer) throw new Error('a broken configuration is taken')
  }

  #write(change: (config: DaemonConfig) => DaemonConfig): void {
    this.#options.daemon.configure(change(this.#options.config))
  }

  async #nop(verb: string, parameters: object): Promise<void> {
    await this.#control.call(`nop.${verb}`, { name: SLOW_DISK, ...parameters })
  }

  readonly #events: Readonly<Record<string, () => Promise<void>>> = {
    'reload: the same text': async () => {
      const { daemon } = this.#options
      writeFileSync(daemon.configPath, readFileSync(daemon.configPath))
      await this.#apply(true)
    },
    'reload: another target': async () => {
      const name = `iqn.2026-11.test.plexus:extra-${this.#options.random.below(4)}`
      this.#write((config) => ({
        ...config,
        targets: [...config.targets, { name, portals: ['test'], auth: 'none', luns: [] }],
      }))
      await this.#apply(true)
    },
    'reload: another device and LUN': async () => {
      const { spare, victim } = this.#options
      this.#write((config) => ({
        ...config,
        devices: { ...config.devices, [spare.name]: spare.path },
        targets: config.targets.map((target) =>
          (target as { name: string }).name === victim
            ? {
                ...target,
                luns: [...(target as { luns: object[] }).luns, { lun: 1, device: spare.name }],
              }
            : target,
        ),
      }))
      await this.#apply(true)
    },
    'reload: as at the start': async () => {
      this.#write((config) => config)
      await this.#apply(true)
    },
    'reload: a broken file': async () => {
      const { daemon, random } = this.#options
      const text = readFileSync(daemon.configPath, 'utf8')
      const broken = random.pick([text.slice(0, text.length / 2), text.replace('"none"', '7'), '{'])
      writeFileSync(daemon.configPath, broken)
      await this.#apply(false)
      writeFileSync(daemon.configPath, text)
    },
    'reload: SIGHUP': async () => {
      this.#options.daemon.signal('SIGHUP')
    },
    'disk: slow': () =>
      this.#nop('delay', { read: String(this.#options.random.below(60)), write: '30' }),
    'disk: hangs': async () => {
      await this.#nop('delay', { read: String(HANG_MS), write: String(HANG_MS) })
      await sleep(500)
      await this.#nop('clear', {})
    },
    'disk: fails': () => {
      const { random } = this.#options
      return this.#nop('fail', { op: random.pick(['read', 'write', 'flush']), probability: '0.2' })
    },
    'disk: quick again': () => this.#nop('clear', {}),
  }
}
