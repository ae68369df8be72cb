/**
 * Tells each event to the program that `hooks.onEvent` of plexus.yaml names, as mdadm --monitor --program does:
 * `PROGRAM EVENT SEVERITY OBJECT`, with the text, the time and the number of the event in the environment. One call at a
 * time, in the order of the events, without a shell. A program that is slow, hangs or fails costs events that it is told,
 * and nothing else. Made by plexusd.ts.
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import type { Readable } from 'node:stream'
import type { Clock } from '../base/clock.ts'
import { withinTime } from '../base/deadline.ts'
import {
  HOOK_END_MS,
  HOOK_EVENTS,
  HOOK_KILL_MS,
  HOOK_MS,
  HOOK_REST_MS,
  HOOK_TEXT_CHARS,
} from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { printable } from '../base/printable.ts'
import { nextTurn } from '../base/turns.ts'
import type { EventReport } from '../control/reports.ts'
import { lookAtProgram } from './config-files.ts'

/** For the end of a call after SIGKILL. */
const MARGIN_MS = 1_000
/** {@link EventHook.close} takes no longer. */
export const HOOK_CLOSE_MS = HOOK_END_MS + HOOK_KILL_MS + MARGIN_MS

export class EventHook {
  readonly #clock: Clock
  readonly #log: Logger
  #program: string | undefined
  readonly #waiting: EventReport[] = []
  #working: Promise<void> | undefined
  #call: HookCall | undefined
  /** Events that found no place: since the last call, and since the log was told. */
  #missed = 0
  #missedInAll = 0
  #isEnding = false
  /** Ends the rest between two calls. */
  #wake = (): void => {}
  /** Why the program is not run, as the log has it already. */
  #fault: string | undefined

  constructor({ clock, log }: { clock: Clock; log: Logger }) {
    this.#clock = clock
    this.#log = log
  }

  /** From now on `program`, an absolute path, is told what happens; undefined: nobody. */
  use(program: string | undefined): void {
    this.#program = program
    this.#fault = undefined
    if (program === undefined) this.#waiting.length = 0
  }

  /** The program will be told of `event`, unless too many wait. */
  tell(event: EventReport): void {
    if (this.#program === undefined) return
    if (this.#waiting.length < HOOK_EVENTS || this.#makeRoom(event)) this.#waiting.push(event)
    this.#working ??= this.#work()
  }

  /**
   * For the end of plexusd: what waits is told if that takes no longer than {@link HOOK_END_MS}, else dropped, and a call
   * that runs is ended.
   */
  async close(): Promise<void> {
    this.#isEnding = true
    this.#wake()
    const working = this.#working ?? Promise.resolve()
    if (await withinTime(this.#clock, working, HOOK_END_MS)) return
    const events = this.#waiting.length
    if (events > 0) {
      const text = `plexusd ends: ${this.#program} is not told of ${events} events`
      this.#log.warn({ event: 'hook-dropped', events }, text)
    }
    this.use(undefined)
    this.#call?.end(this.#clock)
    await withinTime(this.#clock, working, HOOK_KILL_MS + MARGIN_MS)
  }

  /** Counts an event that is left out: this one, or for one that matters the oldest that does not. */
  #makeRoom({ severity }: EventReport): boolean {
    this.#missed++
    if (this.#missedInAll++ === 0) {
      const text = `${this.#program} does not keep up with the events: some are not told to it`
      this.#log.warn({ event: 'hook-slow' }, `${text}; plexus events has all of them`)
    }
    const info = this.#waiting.findIndex((one) => one.severity === 'info')
    if (severity === 'info' || info < 0) return false
    this.#waiting.splice(info, 1)
    return true
  }

  async #work(): Promise<void> {
    // Whatever has arrived with the event is served first.
    await nextTurn()
    for (let event = this.#waiting.shift(); event; event = this.#waiting.shift()) {
      if (this.#program !== undefined) await this.#run(this.#program, event)
      await this.#rest()
    }
    this.#working = undefined
    if (this.#missedInAll === 0) return
    const text = `the hook has caught up; ${this.#missedInAll} events were not told to it`
    this.#log.warn({ event: 'hook-missed', events: this.#missedInAll }, text)
    this.#missedInAll = 0
  }

  #rest(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
      if (this.#isEnding) resolve()
      else this.#clock.after(HOOK_REST_MS, resolve)
    })
  }

  async #run(program: string, event: EventReport): Promise<void> {
    const { path, fault } = lookAtProgram(program)
    const isNews = fault !== this.#fault
    this.#fault = fault
    if (fault !== undefined) {
      if (isNews) this.#log.error({ event: 'hook-fault' }, `no event is told: ${fault}`)
      return
    }
    const words = [event.event, event.severity, printable(event.object)]
    const title = `${program} ${words.join(' ')}`
    const environment = { ...environmentOf(event), PLEXUS_MISSED: String(this.#missed) }
    this.#missed = 0
    const call = new HookCall()
    this.#call = call
    const timer = this.#clock.after(HOOK_MS, () => {
      const text = `${title} has run for ${HOOK_MS / 1000} s, and is ended`
      this.#log.warn({ event: 'hook-hangs' }, text)
      call.end(this.#clock)
    })
    const failure = await call.run(path, words, { argv0: program, env: environment })
    timer.cancel()
    this.#call = undefined
    const said = call.output === '' ? '' : `: ${call.output}`
    if (failure !== undefined) {
      this.#log.warn({ event: 'hook-failed' }, `${title} ${failure}${said}`)
    } else if (said !== '') {
      this.#log.info({ event: 'hook-output' }, `${title}${said}`)
    }
  }
}

/** All that the program gets beside what was missed: the environment of plexusd has sockets of systemd and options of Node. */
function environmentOf({ message, time, sequence }: EventReport): Readonly<Record<string, string>> {
  return {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    PLEXUS_TEXT: printable(message).slice(0, HOOK_TEXT_CHARS),
    PLEXUS_TIME: time,
    PLEXUS_SEQUENCE: String(sequence),
  }
}

/** One call of the program, with all that it starts. */
class HookCall {
  #child: ChildProcess | undefined
  #output = ''
  #cut = false

  /** What it has written, in one line. */
  get output(): string {
    const lines = this.#output.split('\n').map((line) => line.trim())
    return lines.filter((line) => line !== '').join(' | ') + (this.#cut ? ' …' : '')
  }

  /**
   * Resolves when the program has ended and nobody has its output open any more: to what went wrong, in words that follow
   * the command, or undefined.
   */
  run(
    path: string,
    words: readonly string[],
    options: Pick<SpawnOptions, 'argv0' | 'env'>,
  ): Promise<string | undefined> {
    return new Promise((resolve) => {
      const refuse = (error: unknown): void => {
        const why = error instanceof Error ? error.message : String(error)
        resolve(
          `could not be run: ${why}; a script names in its first line what reads it: #!/bin/sh`,
        )
      }
      try {
        // A group of its own, so that what it starts ends with it.
        const stdio = ['ignore', 'pipe', 'pipe'] as ['ignore', 'pipe', 'pipe']
        const child = spawn(path, words, { ...options, cwd: '/', detached: true, stdio })
        this.#child = child
        for (const stream of [child.stdout, child.stderr]) this.#listen(stream)
        child.once('error', refuse)
        child.once('close', (code, signal) => {
          this.#child = undefined
          if (signal !== null) resolve(`ended by ${signal}`)
          else resolve(code === 0 ? undefined : `ended with exit status ${code}`)
        })
      } catch (error) {
        refuse(error)
      }
    })
  }

  /** SIGTERM for it and all that it has started, and after {@link HOOK_KILL_MS} SIGKILL for what is left of them. */
  end(clock: Clock): void {
    this.#signal('SIGTERM')
    clock.after(HOOK_KILL_MS, () => {
      this.#signal('SIGKILL')
      // Held by a process that has left the group.
      this.#child?.stdout?.destroy()
      this.#child?.stderr?.destroy()
    })
  }

  #listen(stream: Readable): void {
    stream.setEncoding('utf8')
    // What is too much is read all the same: the program must not wait for us.
    stream.on('data', (text: string) => {
      const room = HOOK_TEXT_CHARS - this.#output.length
      this.#cut ||= text.length > room
      this.#output += text.slice(0, room)
    })
    stream.on('error', () => {})
  }

  #signal(signal: NodeJS.Signals): void {
    const pid = this.#child?.pid
    if (pid === undefined) return
    try {
      process.kill(-pid, signal)
    } catch {
      // Nothing of the group is left.
    }
  }
}
