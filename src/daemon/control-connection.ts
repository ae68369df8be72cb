/**
 * One client of a control socket: its lines, its requests under way, its answers. Made by control-server.ts;
 * ends by itself when the client breaks a bound, leaves, or has nothing under way for too long.
 */
import { setMaxListeners } from 'node:events'
import type { Socket } from 'node:net'
import { toPlexusError } from '../base/errors.ts'
import {
  CONTROL_IDLE_MS,
  CONTROL_LINE_BYTES,
  CONTROL_QUEUE_BYTES,
  CONTROL_REQUESTS,
} from '../base/limits.ts'
import type { LogLimit } from '../base/log-limit.ts'
import { didYouMean } from '../base/suggest.ts'
import { commandName, methodName } from '../control/daemon-verbs.ts'
import { checkParameters } from '../control/parameters.ts'
import {
  encodeMessage,
  errorObject,
  LineSplitter,
  OUTPUT_MAJOR,
  OUTPUT_MINOR,
  parseRequest,
  RPC_CODE,
  RpcFault,
  type RpcRequest,
} from '../control/protocol.ts'
import type { FairShare } from './fair-share.ts'
import type { ControlContext, Method } from './methods/context.ts'

export class ControlConnection {
  readonly methods: ReadonlyMap<string, Method>
  readonly #share: FairShare
  readonly #socket: Socket
  readonly #context: ControlContext
  readonly #logLimit: LogLimit
  readonly #splitter = new LineSplitter(CONTROL_LINE_BYTES)
  readonly #aborter = new AbortController()
  #underWay = 0

  constructor(
    socket: Socket,
    methods: ReadonlyMap<string, Method>,
    context: ControlContext,
    logLimit: LogLimit,
    share: FairShare,
  ) {
    this.#share = share
    this.#socket = socket
    this.methods = methods
    // Each request under way may listen.
    setMaxListeners(CONTROL_REQUESTS, this.#aborter.signal)
    this.#context = context
    this.#logLimit = logLimit
    socket.setTimeout(CONTROL_IDLE_MS, () => {
      if (this.#underWay === 0) this.end()
    })
    // What fails here ends in 'close'; there is nobody to tell.
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#aborter.abort()
      share.forget(this)
    })
    socket.on('data', (chunk) => {
      // Reading stops until the requests so far are carried out.
      socket.pause()
      this.#workOff(this.#splitter.push(chunk))
    })
  }

  /** Ends the connection and what it has under way. */
  end(): void {
    this.#aborter.abort()
    this.#socket.destroy()
  }

  #workOff(lines: Iterator<string>): void {
    this.#share.run(this, () => {
      const socket = this.#socket
      if (socket.destroyed) return
      try {
        const next = lines.next()
        if (next.done) {
          socket.resume()
          return
        }
        this.#take(next.value)
      } catch (error) {
        if (!(error instanceof RpcFault)) throw error
        this.#sendFault(error)
        socket.destroySoon()
        return
      }
      if (socket.writableNeedDrain) socket.once('drain', () => this.#workOff(lines))
      else this.#workOff(lines)
    })
  }

  #take(line: string): void {
    let request: RpcRequest
    try {
      request = parseRequest(line)
    } catch (error) {
      if (!(error instanceof RpcFault)) throw error
      this.#sendFault(error)
      return
    }
    if (this.#underWay >= CONTROL_REQUESTS) {
      const text = `${CONTROL_REQUESTS} requests are under way; wait for an answer first`
      this.#sendFault(new RpcFault(RPC_CODE.INVALID_REQUEST, text, request.id))
      return
    }
    const method = this.methods.get(request.method)
    if (!method) {
      const near = didYouMean(request.method, this.methods.keys())
      const text = `there is no method "${request.method}" on this socket${near}`
      this.#sendFault(new RpcFault(RPC_CODE.METHOD_NOT_FOUND, text, request.id))
      return
    }
    this.#underWay++
    void this.#run(request, method).finally(() => {
      this.#underWay--
    })
  }

  async #run(request: RpcRequest, method: Method): Promise<void> {
    const { id } = request
    const { spec } = method
    try {
      const parameters = checkParameters(spec, request.params)
      if (!spec.readOnly) {
        this.#context.log.info(
          { event: 'verb', method: methodName(spec), dryRun: parameters['dryRun'] === true },
          `plexus ${commandName(spec)}`,
        )
      }
      const answer = await method.run(parameters, {
        context: this.#context,
        signal: this.#aborter.signal,
        notify: (name, params) => this.#send(encodeMessage({ method: name, params })),
      })
      const command = commandName(spec)
      const outputVersion = { command, major: OUTPUT_MAJOR, minor: OUTPUT_MINOR }
      const beganMs = this.#context.clock.nowMs()
      this.#send(encodeMessage({ id, result: { outputVersion, ...answer } }))
      this.#share.charge(this.#context.clock.nowMs() - beganMs)
    } catch (error) {
      const failure = toPlexusError(error, spec.name, methodName(spec))
      // Not one of ours: a defect, which must be seen, but does not end the service of all LUNs.
      const may = error === failure ? undefined : this.#logLimit.take()
      if (may) {
        this.#context.log.error({ ...may, err: error, method: methodName(spec) }, 'a method failed')
      }
      this.#send(encodeMessage({ id, error: errorObject(failure) }))
    }
  }

  #sendFault({ code, message, id }: RpcFault): void {
    this.#send(encodeMessage({ id, error: { code, message } }))
  }

  /** A client that does not read is dropped when more than one bound's worth waits for it. */
  #send(text: string): void {
    if (this.#socket.destroyed || !this.#socket.writable) return
    if (this.#socket.writableLength > CONTROL_QUEUE_BYTES) {
      this.end()
      return
    }
    this.#socket.write(text)
  }
}
