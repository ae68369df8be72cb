/**
 * One TCP connection of the test initiator: bytes out, PDUs in, every wait bounded. Knows nothing of
 * sessions; the hostile tests and the fuzzer use it bare, test/support/initiator.ts builds on it.
 */
import { connect, type Socket } from 'node:net'
import { encodePdu, type Pdu, PduCutter } from './initiator-pdu.ts'

export interface WireOptions {
  readonly host?: string
  readonly port: number
  /** Source address, for limits by address. */
  readonly localAddress?: string
  readonly timeoutMs?: number
}

interface Waiter {
  readonly resolve: (pdu: Pdu) => void
  readonly reject: (error: Error) => void
  readonly timer: NodeJS.Timeout
}

export const WIRE_TIMEOUT_MS = 10_000

export class Wire {
  readonly socket: Socket
  readonly cutter = new PduCutter()
  /** Resolves when the connection is gone, however that came. */
  readonly closed: Promise<void>
  /** The target ended or reset the connection. */
  ended = false
  #waiter: Waiter | undefined
  #pump: ((pdu: Pdu) => void) | undefined
  #failed: ((error: Error) => void) | undefined
  #error: Error | undefined

  private constructor(socket: Socket) {
    this.socket = socket
    socket.setNoDelay(true)
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.#end(new Error('the target closed the connection'))
        resolve()
      })
    })
    socket.on('error', (error) => this.#end(error))
    socket.on('end', () => this.#end(new Error('the target closed the connection')))
    socket.on('data', (chunk) => {
      this.cutter.push(chunk)
      this.#cut()
    })
  }

  static connect(options: WireOptions): Promise<Wire> {
    const { host = '127.0.0.1', port, timeoutMs = WIRE_TIMEOUT_MS } = options
    return new Promise((resolve, reject) => {
      const { localAddress } = options
      const socket = connect({ host, port, ...(localAddress ? { localAddress } : {}) })
      const timer = setTimeout(() => {
        socket.destroy()
        reject(new Error(`no connection to ${host}:${port} within ${timeoutMs} ms`))
      }, timeoutMs)
      socket.once('error', (error) => {
        clearTimeout(timer)
        reject(error)
      })
      socket.once('connect', () => {
        clearTimeout(timer)
        socket.removeAllListeners('error')
        resolve(new Wire(socket))
      })
    })
  }

  /** Sends bytes as they are. A connection that has ended takes them and drops them. */
  write(bytes: Buffer): void {
    if (!this.socket.destroyed && this.socket.writable) this.socket.write(bytes)
  }

  /** Sends a PDU; lengths and the digests in use are filled in. */
  send(header: Buffer, data?: Buffer): void {
    this.write(encodePdu(header, data, this.cutter.digests))
  }

  /**
   * The next PDU. Bytes behind it stay uncut until it is asked for, so that a login can change the digests
   * in between. Rejects when nothing comes in time, and when the connection ends.
   */
  next(timeoutMs = WIRE_TIMEOUT_MS): Promise<Pdu> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiter = undefined
        reject(new Error(`no PDU within ${timeoutMs} ms (${this.cutter.heldBytes} bytes of one)`))
      }, timeoutMs)
      this.#waiter = { resolve, reject, timer }
      this.#cut()
      if (this.#waiter && this.#error) this.#end(this.#error)
    })
  }

  /** From now on every PDU goes to `onPdu` as it comes; `onError` hears once of the end. */
  pump(onPdu: (pdu: Pdu) => void, onError: (error: Error) => void): void {
    this.#pump = onPdu
    this.#failed = onError
    this.#cut()
    if (this.#error) this.#end(this.#error)
  }

  /** Waits until the target has closed the connection; false: it has not within the time. */
  async closedWithin(timeoutMs: number): Promise<boolean> {
    if (this.ended) return true
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, timeoutMs)
    })
    await Promise.race([this.closed, late])
    clearTimeout(timer)
    return this.ended
  }

  destroy(): void {
    this.#failed = undefined
    this.socket.destroy()
  }

  #cut(): void {
    try {
      while (this.#pump || this.#waiter) {
        const pdu = this.cutter.next()
        if (!pdu) return
        if (this.#pump) {
          this.#pump(pdu)
          continue
        }
        const waiter = this.#waiter
        this.#waiter = undefined
        if (waiter) {
          clearTimeout(waiter.timer)
          waiter.resolve(pdu)
        }
      }
    } catch (error) {
      this.#end(error instanceof Error ? error : new Error(String(error)))
      this.socket.destroy()
    }
  }

  #end(error: Error): void {
    this.ended = true
    this.#error ??= error
    const waiter = this.#waiter
    this.#waiter = undefined
    if (waiter) {
      clearTimeout(waiter.timer)
      waiter.reject(error)
    }
    const failed = this.#failed
    this.#failed = undefined
    failed?.(this.#error)
  }
}
