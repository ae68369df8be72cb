/**
 * The daemon's side of sd_notify(3): readiness, status text, watchdog. Without NOTIFY_SOCKET in the
 * environment every call does nothing. Used by plexusd.ts.
 */
import type { Clock, Timer } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import { unixDatagram } from '../hal/libc.ts'

export class SystemdNotifier {
  readonly #socket: string | undefined
  readonly #watchdogMs: number | undefined
  readonly #log: Logger
  readonly #send: (socket: string, text: string) => void
  #status = ''
  #watchdog: Timer | undefined

  /**
   * Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID from `environment`. `send` is replaced by tests.
   */
  constructor(options: {
    environment: NodeJS.ProcessEnv
    pid: number
    log: Logger
    send?: (socket: string, text: string) => void
  }) {
    const { environment, pid } = options
    this.#socket = environment['NOTIFY_SOCKET'] || undefined
    const watchdogPid = environment['WATCHDOG_PID']
    const watchdogUsec = Number(environment['WATCHDOG_USEC'] ?? 0)
    const ours = watchdogPid === undefined || Number(watchdogPid) === pid
    this.#watchdogMs = ours && watchdogUsec > 0 ? watchdogUsec / 1000 : undefined
    this.#log = options.log
    this.#send = options.send ?? unixDatagram
  }

  /** Serving. */
  ready(): void {
    this.#notify('READY=1')
  }

  /** A reload begins; `ready` ends it. systemd wants the time of CLOCK_MONOTONIC with it. */
  reloading(): void {
    this.#notify(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`)
  }

  /** The end begins and may take `timeoutMs`. */
  stopping(timeoutMs: number): void {
    this.#notify(`STOPPING=1\nEXTEND_TIMEOUT_USEC=${Math.ceil(timeoutMs * 1000)}`)
  }

  /** The line that `systemctl status` shows; sent only when it changed. */
  status(text: string): void {
    if (text === this.#status) return
    this.#status = text
    this.#notify(`STATUS=${text.replaceAll('\n', ' ')}`)
  }

  /**
   * Feeds the watchdog at half its period, from the event loop: a stuck loop is what it must catch.
   * Nothing without WATCHDOG_USEC.
   */
  startWatchdog(clock: Clock): void {
    if (this.#watchdogMs === undefined || this.#socket === undefined) return
    this.#watchdog = clock.every(this.#watchdogMs / 2, () => this.#notify('WATCHDOG=1'))
  }

  stopWatchdog(): void {
    this.#watchdog?.cancel()
  }

  #notify(text: string): void {
    if (this.#socket === undefined) return
    try {
      this.#send(this.#socket, text)
    } catch (error) {
      this.#log.warn({ err: error }, 'systemd cannot be told')
    }
  }
}
