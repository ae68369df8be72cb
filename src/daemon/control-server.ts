/**
 * The daemon's two unix sockets: control.sock for every method, status.sock for those that change nothing.
 * Clients are not trusted: lines, requests under way, clients and waiting answers are bounded, silent ones
 * leave after a while. Made by plexusd.ts; the methods are in methods/table.ts, the language is
 * control/protocol.ts. Verbs that change the graph take their turn in topology.change by themselves.
 */
import { chmodSync, chownSync, lstatSync, mkdirSync, readFileSync, unlinkSync } from 'node:fs'
import { createConnection, createServer, type Server } from 'node:net'
import { dirname } from 'node:path'
import { PlexusError, toPlexusError } from '../base/errors.ts'
import {
  CONTROL_CLIENTS,
  STATUS_SHARE,
  STRANGER_LOG_LINES,
  STRANGER_LOG_PERIOD_MS,
} from '../base/limits.ts'
import { LogLimit } from '../base/log-limit.ts'
import { commandName, methodName } from '../control/daemon-verbs.ts'
import {
  CONTROL_GROUP,
  CONTROL_SOCKET_MODE,
  encodeMessage,
  errorObject,
  STATUS_SOCKET_MODE,
  socketPaths,
} from '../control/protocol.ts'
import { ControlConnection } from './control-connection.ts'
import { FairShare } from './fair-share.ts'
import type { ControlContext, Method } from './methods/context.ts'

/** A probe of a socket file that nobody answers on ends after this time. */
const PROBE_MS = 1_000
/** Clients above CONTROL_CLIENTS that get an error message at the same time; further ones are only closed. */
const REFUSALS_AT_ONCE = 4
/** Nobody but us may connect before the mode is set. */
const UMASK_CLOSED = 0o177

export interface ControlServerOptions {
  readonly context: ControlContext
  readonly methods: readonly Method[]
}

/** What the clients of one socket get. */
interface Access {
  readonly methods: ReadonlyMap<string, Method>
  readonly context: ControlContext
  /** Of the event loop's time. */
  readonly share: number
}

export class ControlServer {
  readonly #context: ControlContext
  readonly #methods: ReadonlyMap<string, Method>
  readonly #servers: { readonly server: Server; readonly path: string }[] = []
  readonly #connections = new Set<ControlConnection>()
  readonly #limit: LogLimit

  constructor({ context, methods }: ControlServerOptions) {
    this.#context = context
    this.#methods = new Map(methods.map((method) => [methodName(method.spec), method]))
    this.#limit = new LogLimit(context.clock, STRANGER_LOG_LINES, STRANGER_LOG_PERIOD_MS)
  }

  /**
   * Opens both sockets in `dir`, which is made when it is not there. Rejects with PlexusError: `in-use` when
   * another daemon answers there, `permission` and `io` where the directory does not permit it.
   */
  async listen(dir: string): Promise<void> {
    const paths = socketPaths(dir)
    const looking = new Map([...this.#methods].map(([name, method]) => [name, forLookers(method)]))
    const context = this.#context
    try {
      await this.#open(paths.control, CONTROL_SOCKET_MODE, {
        methods: this.#methods,
        context,
        share: 1,
      })
      await this.#open(paths.status, STATUS_SOCKET_MODE, {
        methods: looking,
        context: withoutNames(context),
        share: STATUS_SHARE,
      })
      this.#giveToGroup(paths.control)
    } catch (error) {
      await this.close()
      throw error
    }
  }

  /** Ends all connections and requests, and removes the socket files. */
  async close(): Promise<void> {
    for (const connection of [...this.#connections]) connection.end()
    await Promise.all(
      this.#servers.splice(0).map(
        // Node removes the file of a server that it closes.
        ({ server }) => new Promise<void>((resolve) => server.close(() => resolve())),
      ),
    )
  }

  async #open(path: string, mode: number, { methods, context, share }: Access): Promise<void> {
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
    } catch (error) {
      throw listenError(path, error as NodeJS.ErrnoException)
    }
    await removeStale(path)
    const fairShare = new FairShare(context.clock, share)
    const server = createServer((socket) => {
      const ofServer = [...this.#connections].filter((one) => one.methods === methods)
      if (ofServer.length >= CONTROL_CLIENTS) {
        const error = new PlexusError('exhausted', {
          op: 'connect',
          subject: path,
          message: `${path} has its ${CONTROL_CLIENTS} clients; end one of them, or try again later`,
        })
        socket.on('error', () => {})
        socket.end(encodeMessage({ id: null, error: errorObject(error) }))
        socket.destroySoon()
        return
      }
      const connection = new ControlConnection(socket, methods, context, this.#limit, fairShare)
      this.#connections.add(connection)
      socket.once('close', () => this.#connections.delete(connection))
    })
    // Beyond the few that are told why, refusing must cost next to nothing.
    server.maxConnections = CONTROL_CLIENTS + REFUSALS_AT_ONCE
    await new Promise<void>((resolve, reject) => {
      const onError = (error: NodeJS.ErrnoException): void => reject(listenError(path, error))
      server.once('error', onError)
      // Binding happens within listen(): the file never has a wider mode than it should.
      const before = process.umask(UMASK_CLOSED)
      try {
        server.listen({ path }, () => {
          server.off('error', onError)
          resolve()
        })
      } finally {
        process.umask(before)
      }
    })
    server.on('error', (error) => this.#context.log.warn({ err: error, path }, 'control socket'))
    this.#servers.push({ server, path })
    chmodSync(path, mode)
  }

  /** control.sock belongs to the group `plexus` where there is one, so that its members need not be root. */
  #giveToGroup(path: string): void {
    const gid = groupId(CONTROL_GROUP)
    if (gid === undefined || gid === process.getegid?.()) return
    try {
      chownSync(path, -1, gid)
    } catch (error) {
      const { message } = toPlexusError(error, 'chown', path)
      this.#context.log.warn({ path }, `the group ${CONTROL_GROUP} gets no access: ${message}`)
    }
  }
}

/** The number of a group in /etc/group; undefined where there is none of that name. */
function groupId(name: string): number | undefined {
  let text: string
  try {
    text = readFileSync('/etc/group', 'utf8')
  } catch {
    return undefined
  }
  const fields = text.split('\n').map((line) => line.split(':'))
  const gid = Number(fields.find(([group]) => group === name)?.[2] ?? Number.NaN)
  return Number.isInteger(gid) ? gid : undefined
}

/** Removes a socket file that a dead daemon left. Rejects `in-use` when a living one answers. */
async function removeStale(path: string): Promise<void> {
  // A file of another kind refuses a connection as a dead socket does; it is not ours to remove.
  if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket()) return
  const answer = await new Promise<'alive' | 'dead' | 'absent'>((resolve) => {
    const socket = createConnection({ path })
    const done = (what: 'alive' | 'dead' | 'absent'): void => {
      socket.destroy()
      resolve(what)
    }
    socket.setTimeout(PROBE_MS, () => done('alive'))
    socket.once('connect', () => done('alive'))
    // Anything else than a refusal is reported by the bind that follows, and nothing is removed for it.
    socket.once('error', (error: NodeJS.ErrnoException) =>
      done(error.code === 'ECONNREFUSED' ? 'dead' : error.code === 'EAGAIN' ? 'alive' : 'absent'),
    )
  })
  if (answer === 'dead') unlinkSync(path)
  if (answer === 'alive') {
    throw new PlexusError('in-use', {
      op: 'listen',
      subject: path,
      message: `another plexusd answers on ${path}; stop it, or give this one another "control: { dir: … }"`,
    })
  }
}

function listenError(path: string, error: NodeJS.ErrnoException): PlexusError {
  const kind =
    error.code === 'EADDRINUSE' ? 'in-use' : error.code === 'EACCES' ? 'permission' : 'io'
  return new PlexusError(kind, {
    op: 'listen',
    subject: path,
    message: `the control socket ${path} cannot be opened: ${error.message}; set "control: { dir: … }" to a directory of plexusd`,
    cause: error,
  })
}

const HIDDEN = '(hidden)'

/** Who is logged in, from where and as whom is not for every user of the system. */
function withoutNames(context: ControlContext): ControlContext {
  return {
    ...context,
    sessions: () =>
      context.sessions().map((one) => ({
        ...one,
        initiatorName: HIDDEN,
        remoteAddress: HIDDEN,
        authenticatedAs: undefined,
      })),
    namesPeers: false,
    initiatorsOf: (target, lun) => context.initiatorsOf(target, lun).map(() => HIDDEN),
  }
}

/** What status.sock has under the name of a method: itself, or a refusal where it changes or tells too much. */
function forLookers(method: Method): Method {
  const { spec } = method
  if (spec.readOnly && !spec.confidential) return method
  const refuse = async (): Promise<never> => {
    throw new PlexusError('permission', {
      op: spec.name,
      subject: methodName(spec),
      message: `plexus ${commandName(spec)} needs control.sock (root or the group ${CONTROL_GROUP}); status.sock is open to every user`,
    })
  }
  // Nothing is done, so nothing is logged: anybody may ask.
  return { spec: { ...spec, readOnly: true }, run: refuse }
}
