/**
 * The network side of the target: listening portals, connections before and after login, and sessions
 * (RFC 7143, 4.4 and 6.3.5). Made by the daemon; everything that a peer can do before it has proved who
 * it is, is bounded here.
 */
import net from 'node:net'
import type { Clock, Timer } from '../../base/clock.ts'
import { PlexusError } from '../../base/errors.ts'
import {
  LOGIN_TIMEOUT_MS,
  LOGINS_PENDING,
  LOGINS_PENDING_PER_ADDRESS,
  SESSIONS_PER_ADDRESS,
  STRANGER_LOG_LINES,
  STRANGER_LOG_PERIOD_MS,
} from '../../base/limits.ts'
import type { Logger } from '../../base/log.ts'
import { LogLimit } from '../../base/log-limit.ts'
import type { BufferPool } from '../../hal/block-device.ts'
import type { DeviceServer, LunMapping, Nexus } from '../scsi/types.ts'
import { Connection, type ConnectionHost } from './connection.ts'
import type { LoginOutcome } from './login.ts'
import { Session, type SessionInfo } from './session.ts'
import type { SendQueues } from './socket-stream.ts'
import type { PortalGroup, TargetNode, TargetRegistry } from './target-node.ts'
import { Turns } from './turns.ts'
import { Wakefulness } from './wakefulness.ts'

export interface IscsiServerOptions {
  readonly registry: TargetRegistry
  readonly deviceServer: DeviceServer
  readonly pool: BufferPool
  readonly clock: Clock
  readonly log: Logger
  readonly limits: { readonly sessions: number; readonly commandsPerSession: number }
}

export interface PortalAddress {
  readonly group: string
  readonly address: string
  readonly port: number
}

/** What peers hold of the target now. */
export interface ServerLoad {
  readonly pool: {
    readonly totalBytes: number
    readonly freeBytes: number
    readonly leased: number
  }
  /** Logged in or not. */
  readonly connections: number
  readonly sessions: number
  readonly sendQueueBytes: number
}

/** Login statuses that a session may be refused with (RFC 7143, 11.13.5): class << 8 | detail. */
const OUT_OF_RESOURCES = 0x0302
const SERVICE_UNAVAILABLE = 0x0301

interface Pending {
  readonly address: string
  readonly timer: Timer
}

export class IscsiServer implements ConnectionHost {
  readonly registry: TargetRegistry
  readonly deviceServer: DeviceServer
  readonly pool: BufferPool
  readonly clock: Clock
  readonly log: Logger
  readonly wakefulness: Wakefulness
  readonly complaints: LogLimit
  readonly turns: Turns
  readonly sendQueues: SendQueues = { copiedBytes: 0 }
  readonly #limits: IscsiServerOptions['limits']
  readonly #listeners = new Map<string, net.Server[]>()
  readonly #connections = new Set<Connection>()
  readonly #pending = new Map<Connection, Pending>()
  readonly #keepAlive: Timer
  #nextTsih = 0
  #nextNexusId = 0
  /** Sessions whose nexus lives; they share the buffer pool. */
  #sessionCount = 0
  #draining = false

  constructor(options: IscsiServerOptions) {
    this.registry = options.registry
    this.deviceServer = options.deviceServer
    this.pool = options.pool
    this.clock = options.clock
    this.log = options.log.child({ part: 'iscsi' })
    this.#limits = options.limits
    this.complaints = new LogLimit(this.clock, STRANGER_LOG_LINES, STRANGER_LOG_PERIOD_MS)
    this.turns = new Turns(this.clock)
    this.wakefulness = new Wakefulness(() => this.clock.nowMs())
    this.#keepAlive = this.clock.every(1000, () => {
      const nowMs = this.clock.nowMs()
      for (const connection of this.#connections) connection.keepAlive(nowMs)
    })
  }

  /** Opens all addresses of a portal group, or none: throws PlexusError `in-use`, `permission` or `invalid`. */
  async listen(group: PortalGroup): Promise<void> {
    const servers: net.Server[] = []
    try {
      for (const { host, port } of group.listen) servers.push(await this.#open(group, host, port))
    } catch (error) {
      for (const server of servers) server.close()
      throw error
    }
    this.#listeners.set(group.name, servers)
  }

  #open(group: PortalGroup, host: string, port: number): Promise<net.Server> {
    return new Promise((resolve, reject) => {
      const server = net.createServer({ pauseOnConnect: true }, (socket) => {
        this.#accept(socket, group)
      })
      server.once('error', (error: NodeJS.ErrnoException) => {
        reject(listenError(group.name, host, port, error))
      })
      server.listen({ host, port, ipv6Only: net.isIPv6(host), backlog: LOGINS_PENDING }, () => {
        server.removeAllListeners('error')
        server.on('error', (error) => {
          this.log.error({ err: error, portal: group.name }, 'accepting a connection failed')
        })
        resolve(server)
      })
    })
  }

  /** Stops listening; connections that are there stay. */
  unlisten(name: string): Promise<void> {
    for (const server of this.#listeners.get(name) ?? []) server.close()
    this.#listeners.delete(name)
    return Promise.resolve()
  }

  /** The addresses on which the server listens now. */
  addresses(): readonly PortalAddress[] {
    return [...this.#listeners].flatMap(([group, servers]) =>
      servers.map((server) => {
        const at = server.address() as net.AddressInfo
        return { group, address: at.address, port: at.port }
      }),
    )
  }

  #accept(socket: net.Socket, group: PortalGroup): void {
    const address = socket.remoteAddress
    if (address === undefined) {
      socket.destroy()
      return
    }
    let ofAddress = 0
    for (const pending of this.#pending.values()) if (pending.address === address) ofAddress++
    const full = this.#pending.size >= LOGINS_PENDING || ofAddress >= LOGINS_PENDING_PER_ADDRESS
    if (full || this.#draining) {
      socket.destroy()
      const allowed = this.complaints.take()
      if (allowed)
        this.log.warn({ address, ...allowed }, 'too many connections wait for their login')
      return
    }
    const connection = new Connection(this, socket, group)
    this.#connections.add(connection)
    const timer = this.clock.after(LOGIN_TIMEOUT_MS, () => {
      connection.fail('the login took too long')
    })
    this.#pending.set(connection, { address, timer })
  }

  // ---- ConnectionHost

  loginEnded(connection: Connection): void {
    this.#pending.get(connection)?.timer.cancel()
    this.#pending.delete(connection)
  }

  hasSession(initiatorName: string, isid: Buffer, tsih: number): boolean {
    for (const { session } of this.#connections) {
      if (session?.tsih !== tsih || session.ended) continue
      if (session.initiatorName !== initiatorName) continue
      if (session.isid.equals(isid)) return true
    }
    return false
  }

  establish(
    connection: Connection,
    outcome: LoginOutcome,
    cmdSn: number,
    statSn: number,
  ): Session | number {
    if (this.#draining) return SERVICE_UNAVAILABLE
    const { target } = outcome
    if (target !== undefined) this.#reinstate(connection, outcome)
    let all = 0
    let ofAddress = 0
    for (const other of this.#connections) {
      if (other.session === undefined || other.session.ended) continue
      all++
      if (other.stream.remoteAddress === connection.stream.remoteAddress) ofAddress++
    }
    if (all >= this.#limits.sessions || ofAddress >= SESSIONS_PER_ADDRESS) {
      this.log.warn({ sessions: all, ofAddress }, 'no room for another session')
      return OUT_OF_RESOURCES
    }
    const nexus = target === undefined ? undefined : this.#newNexus(connection, outcome)
    const session = new Session({
      tsih: this.#newTsih(),
      isid: outcome.isid,
      initiatorName: outcome.initiatorName,
      parameters: outcome.parameters,
      target,
      nexus,
      statSn,
      expCmdSn: cmdSn,
      windowMax: this.#limits.commandsPerSession,
      pool: this.pool,
      sharers: () => this.#sessionCount,
    })
    if (nexus !== undefined) {
      this.#sessionCount++
      this.deviceServer.nexusEstablished(nexus)
      connection.log.info(
        {
          part: 'session',
          event: 'login',
          session: session.tsih,
          target: target?.name,
          initiator: session.initiatorName,
          portal: connection.group.name,
        },
        'an initiator has logged in',
      )
    }
    return session
  }

  /** A new session of the same initiator port replaces the old one at once (RFC 7143, 6.3.5). */
  #reinstate(connection: Connection, outcome: LoginOutcome): void {
    for (const other of this.#connections) {
      const { session } = other
      if (other === connection || session === undefined) continue
      if (
        session.target === outcome.target &&
        session.initiatorName === outcome.initiatorName &&
        session.isid.equals(outcome.isid) &&
        other.group.tag === connection.group.tag
      ) {
        other.fail('the session was reinstated')
        this.#endSession(other)
      }
    }
  }

  #newNexus(connection: Connection, outcome: LoginOutcome): Nexus {
    const { initiatorName, target } = outcome
    const { tag } = connection.group
    const targetName = target?.name ?? ''
    return {
      id: this.#nextNexusId++,
      initiatorName,
      initiatorPort: `${initiatorName},i,0x${outcome.isid.toString('hex')}`,
      targetName,
      targetPort: `${targetName},t,0x${tag.toString(16).padStart(4, '0')}`,
      targetPortalGroupTag: tag,
      relativePortId: tag,
      luns: target?.lunsFor(initiatorName) ?? new Map(),
    }
  }

  #newTsih(): number {
    const used = new Set<number>()
    for (const { session } of this.#connections) if (session) used.add(session.tsih)
    do this.#nextTsih = (this.#nextTsih % 0xffff) + 1
    while (used.has(this.#nextTsih))
    return this.#nextTsih
  }

  endSessions(target: TargetNode | undefined, reason: string): void {
    for (const connection of [...this.#connections]) {
      if (connection.session?.target === target) connection.end(reason)
    }
  }

  closed(connection: Connection): void {
    this.loginEnded(connection)
    this.#endSession(connection)
    this.#connections.delete(connection)
  }

  /** The session's part of the end: its tasks are aborted, its nexus is gone. Once is enough. */
  #endSession(connection: Connection): void {
    const { session } = connection
    if (session === undefined || session.ended) return
    session.ended = true
    if (session.nexus === undefined) return
    this.#sessionCount--
    this.deviceServer.nexusLost(session.nexus)
    connection.log.info(
      {
        part: 'session',
        event: 'logout',
        session: session.tsih,
        target: session.target?.name,
        initiator: session.initiatorName,
        reason: connection.endReason,
      },
      'a session has ended',
    )
  }

  // ---- for the daemon

  /** What peers hold of the pool, of places and of send queues: all of it goes back when they leave. */
  load(): ServerLoad {
    const { totalBytes, freeBytes, leased } = this.pool
    let sendQueueBytes = 0
    for (const { stream } of this.#connections) sendQueueBytes += stream.queuedBytes
    return {
      pool: { totalBytes, freeBytes, leased },
      connections: this.#connections.size,
      sessions: this.sessions().length,
      sendQueueBytes,
    }
  }

  /** Sessions as they are now; discovery sessions, too. */
  sessions(): readonly SessionInfo[] {
    return [...this.#connections].flatMap((connection) => {
      const { session } = connection
      if (session === undefined || session.ended) return []
      return [
        {
          id: session.nexus?.id ?? -1,
          tsih: session.tsih,
          initiatorName: session.initiatorName,
          targetName: session.target?.name,
          portalGroup: connection.group.name,
          remoteAddress: connection.stream.remoteAddress,
          authenticatedAs: connection.authenticatedAs,
          commands: session.commands,
          outstanding: session.tasks.size,
        },
      ]
    })
  }

  /**
   * The registry has changed: sessions see their new LUNs, and those that would not be admitted any more are
   * dropped. Sessions that the change does not concern notice nothing.
   */
  refresh(): void {
    for (const connection of [...this.#connections]) {
      const { session } = connection
      if (session?.target === undefined || session.nexus === undefined) continue
      const target = this.registry.get(session.target.name)
      const served =
        target === session.target &&
        target.portalGroups.some((group) => group.name === connection.group.name) &&
        target.admits(session.initiatorName)
      if (!served) connection.fail('the configuration no longer admits this session')
      else this.#renewLuns(session.nexus, target.lunsFor(session.initiatorName))
    }
  }

  #renewLuns(nexus: Nexus, luns: ReadonlyMap<number, LunMapping>): void {
    const previous = nexus.luns
    nexus.luns = luns
    const same =
      previous.size === luns.size &&
      [...luns].every(([lun, { unit }]) => previous.get(lun)?.unit === unit)
    if (!same) this.deviceServer.lunsChanged(nexus, previous)
  }

  /**
   * Accepts nothing more, asks all initiators to log out, and resolves when they have or `withinMs` is over.
   */
  async drain(withinMs: number): Promise<void> {
    this.#draining = true
    for (const name of [...this.#listeners.keys()]) await this.unlisten(name)
    for (const connection of [...this.#connections]) {
      if (connection.session?.nexus !== undefined) {
        connection.requestLogout(Math.ceil(withinMs / 1000))
      } else connection.end('the target shuts down')
    }
    const untilMs = this.clock.nowMs() + withinMs
    while (this.#connections.size > 0 && this.clock.nowMs() < untilMs) {
      await new Promise<void>((resolve) => setTimeout(resolve, 20))
    }
  }

  /** Drops every connection and stops all timers. Tasks in flight end at their devices' pace. */
  async close(): Promise<void> {
    this.#draining = true
    this.#keepAlive.cancel()
    for (const name of [...this.#listeners.keys()]) await this.unlisten(name)
    for (const connection of [...this.#connections]) connection.fail('the target shuts down')
    while (this.#connections.size > 0) {
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
  }
}

const LISTEN_ERRORS: Readonly<
  Record<string, readonly ['in-use' | 'permission' | 'invalid', string]>
> = {
  EADDRINUSE: ['in-use', 'another program listens there; end it or choose another port'],
  EACCES: ['permission', 'ports below 1024 need the right to bind them'],
  EADDRNOTAVAIL: ['invalid', 'no interface of this machine has that address'],
}

function listenError(
  portal: string,
  host: string,
  port: number,
  cause: NodeJS.ErrnoException,
): PlexusError {
  const [kind, hint] = LISTEN_ERRORS[cause.code ?? ''] ?? ['invalid', cause.message]
  const subject = `portal "${portal}"`
  const address = net.isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`
  return new PlexusError(kind, {
    op: 'listen',
    subject,
    message: `${subject} cannot listen on ${address}: ${hint}`,
    cause,
  })
}
