/**
 * A client of the daemon's sockets: one connection, calls with timeouts, notifications. Used by the command
 * line and the tests.
 */
import { createConnection, type Socket } from 'node:net'
import { PlexusError } from '../base/errors.ts'
import { CONTROL_ANSWER_BYTES, CONTROL_ANSWER_MS } from '../base/limits.ts'
import {
  encodeMessage,
  LineSplitter,
  parseServerMessage,
  type RequestId,
  RpcFault,
} from './protocol.ts'

/** The daemon cannot be reached: the command line ends with 3. */
export class UnreachableError extends PlexusError {}

interface Pending {
  readonly resolve: (result: unknown) => void
  readonly reject: (error: Error) => void
  readonly timer: NodeJS.Timeout | undefined
}

export interface CallOptions {
  /** Default: {@link CONTROL_ANSWER_MS}. `Infinity` waits for ever. */
  readonly timeoutMs?: number
}

export class RpcClient {
  readonly #socket: Socket
  readonly #path: string
  readonly #splitter = new LineSplitter(CONTROL_ANSWER_BYTES)
  readonly #pending = new Map<RequestId, Pending>()
  readonly #listeners = new Set<(method: string, params: unknown) => void>()
  #nextId = 1
  #ended: Error | undefined

  private constructor(socket: Socket, path: string) {
    this.#socket = socket
    this.#path = path
    socket.on('data', (chunk) => this.#receive(chunk))
    socket.on('error', (error) => this.#end(this.#gone(error)))
    socket.on('close', () => this.#end(this.#gone(undefined)))
  }

  /**
   * Connects to the socket at `path`. Rejects with {@link UnreachableError} when nobody answers there, and
   * PlexusError `permission` when the file's mode says no.
   */
  static connect(path: string): Promise<RpcClient> {
    return new Promise((resolve, reject) => {
      const socket = createConnection({ path })
      const onError = (error: NodeJS.ErrnoException): void => reject(connectError(path, error))
      socket.once('error', onError)
      socket.once('connect', () => {
        socket.off('error', onError)
        resolve(new RpcClient(socket, path))
      })
    })
  }

  /** Rejects with the PlexusError that the daemon answered, `timeout`, or {@link UnreachableError} when it left. */
  call(method: string, params: object = {}, options: CallOptions = {}): Promise<unknown> {
    if (this.#ended) return Promise.reject(this.#ended)
    const id = this.#nextId++
    const timeoutMs = options.timeoutMs ?? CONTROL_ANSWER_MS
    return new Promise((resolve, reject) => {
      const timer = Number.isFinite(timeoutMs)
        ? setTimeout(() => {
            this.#pending.delete(id)
            reject(timeoutError(method, timeoutMs))
          }, timeoutMs)
        : undefined
      this.#pending.set(id, { resolve, reject, timer })
      this.#socket.write(encodeMessage({ id, method, params }))
    })
  }

  /** Hears the notifications; returns the way to stop. */
  onNotification(listener: (method: string, params: unknown) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Leaves; calls under way are rejected. */
  close(): void {
    this.#end(this.#gone(undefined))
    this.#socket.destroy()
  }

  #receive(chunk: Buffer): void {
    try {
      for (const line of this.#splitter.push(chunk)) this.#take(line)
    } catch (error) {
      const fault = error instanceof RpcFault || error instanceof PlexusError
      if (!fault) throw error
      this.#end(error)
      this.#socket.destroy()
    }
  }

  #take(line: string): void {
    const message = parseServerMessage(line)
    if (message.type === 'notification') {
      for (const listener of [...this.#listeners]) listener(message.method, message.params)
      return
    }
    if (message.type === 'error' && message.id === null) {
      this.#end(message.error)
      return
    }
    const pending = message.id === null ? undefined : this.#pending.get(message.id)
    if (message.id === null || !pending) return
    this.#pending.delete(message.id)
    clearTimeout(pending.timer)
    if (message.type === 'result') pending.resolve(message.result)
    else pending.reject(message.error)
  }

  #end(error: Error): void {
    this.#ended ??= error
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer)
      reject(this.#ended)
    }
    this.#pending.clear()
  }

  #gone(cause: Error | undefined): UnreachableError {
    const why = cause ? `: ${cause.message}` : ''
    return new UnreachableError('gone', {
      op: 'call',
      subject: this.#path,
      message: `plexusd ended the connection${why}; see journalctl -u plexusd`,
      cause,
    })
  }
}

function timeoutError(method: string, timeoutMs: number): PlexusError {
  return new PlexusError('timeout', {
    op: 'call',
    subject: method,
    message: `plexusd has not answered within ${timeoutMs / 1000} s: it hangs, waits for a disk, or is still at work on ${method}; see journalctl -u plexusd`,
  })
}

function connectError(path: string, error: NodeJS.ErrnoException): PlexusError {
  if (error.code === 'EACCES' || error.code === 'EPERM') {
    return new PlexusError('permission', {
      op: 'connect',
      subject: path,
      message: `you may not use ${path}; become root, or join the group that owns it`,
      cause: error,
    })
  }
  return new UnreachableError('gone', {
    op: 'connect',
    subject: path,
    message: `plexusd cannot be reached at ${path} (${error.code ?? error.message}); start it (systemctl start plexusd), or say where it is with --socket`,
    cause: error,
  })
}
