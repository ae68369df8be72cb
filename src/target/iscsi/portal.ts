/**
 * The network side of the target: listening portals, connections before and after login, and sessions
 * (RFC 7143, 4.4 and 6.3.5). Made by the daemon; everything that a peer can do before it has proved who
 * it is, is bounded here.
 */
import type net from 'node:net'
import type { Clock, Timer } from '../../base/clock.ts'
import {
  DESCRIPTORS_RESERVED,
  DISCOVERY_LIFETIME_MS,
  STRANGER_LOG_LINES,
  STRANGER_LOG_PEERS,
  STRANGER_LOG_PERIOD_MS,
} from '../../base/limits.ts'
import type { Logger } from '../../base/log.ts'
import { LogLimit } from '../../base/log-limit.ts'
import type { BufferPool } from '../../hal/block-device.ts'
import type { DeviceServer } from '../scsi/types.ts'
import { Connection, type ConnectionHost } from './connection.ts'
import { openListener } from './listen.ts'
import { PendingLogins } from './pending-logins.ts'
import type { SessionInfo } from './session.ts'
import type { SessionLimits } from './session-places.ts'
import { type Misfit, SessionTable, type Site } from './session-table.ts'
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
  readonly limits: SessionLimits & {
    readonly commandsPerSession: number
    /** Connections that have not logged in yet. */
    readonly pendingLogins: number
    /** File descriptors that the process may have open. */
    readonly descriptors: number
  }
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
    /** Of what is not free: what disks that do not answer have not returned. */
    readonly keptBytes: number
    readonly leased: number
  }
  /** Logged in or not. */
  readonly connections: number
  readonly sessions: number
  readonly sendQueueBytes: number
}

interface Listening {
  readonly group: PortalGroup
  readonly servers: readonly net.Server[]
}

/** What of node:net's internals names the descriptor of an accepted socket. */
interface WithDescriptor {
  readonly _handle?: { readonly fd?: number } | null
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
  readonly #sessions: SessionTable
  readonly #listeners = new Map<string, Listening>()
  readonly #connections = new Set<Connection>()
  readonly #pending: PendingLogins<Connection>
  readonly #keepAlive: Timer
  #draining = false

  constructor(options: IscsiServerOptions) {
    this.registry = options.registry
    this.deviceServer = options.deviceServer
    this.pool = options.pool
    this.clock = options.clock
    this.log = options.log.child({ part: 'iscsi' })
    this.#sessions = new SessionTable({
      ...options,
      group: (name) => this.#listeners.get(name)?.group,
      connections: this.#connections,
      log: options.log.child({ part: 'session' }),
    })
    this.#limits = options.limits
    this.#pending = new PendingLogins(this.clock, options.limits.pendingLogins)
    this.complaints = new LogLimit(
      this.clock,
      STRANGER_LOG_LINES,
      STRANGER_LOG_PERIOD_MS,
      STRANGER_LOG_PEERS,
    )
    this.turns = new Turns(this.clock)
    this.wakefulness = new Wakefulness(() => this.clock.nowMs())
    this.#keepAlive = this.clock.every(1000, () => {
      const nowMs = this.clock.nowMs()
      for (const connection of this.#connections) {
        connection.keepAlive(nowMs)
        const { session, isDiscovery } = connection
        if (isDiscovery && session && nowMs - session.origin.sinceMs > DISCOVERY_LIFETIME_MS) {
          connection.end('a discovery session ends after a minute')
        }
      }
    })
  }

  /** Opens all addresses of a portal group, or none: throws PlexusError `in-use`, `permission` or `invalid`. */
  async listen(group: PortalGroup): Promise<void> {
    const servers: net.Server[] = []
    this.#listeners.set(group.name, { group, servers })
    try {
      for (const address of group.listen) {
        const server = await openListener(group.name, address, (socket) =>
          this.#accept(socket, group),
        )
        server.on('error', (error) => {
          const allowed = this.complaints.take('accept')
          const fields = { err: error, portal: group.name, ...allowed }
          if (allowed) this.log.error(fields, 'accepting a connection failed')
        })
        servers.push(server)
      }
    } catch (error) {
      await this.unlisten(group.name)
      throw error
    }
  }

  /** Stops listening; connections that are there stay. */
  unlisten(name: string): Promise<void> {
    for (const server of this.#listeners.get(name)?.servers ?? []) server.close()
    this.#listeners.delete(name)
    return Promise.resolve()
  }

  /** The addresses on which the server listens now. */
  addresses(): readonly PortalAddress[] {
    return [...this.#listeners.values()].flatMap(({ group, servers }) =>
      servers.map((server) => {
        const at = server.address() as net.AddressInfo
        return { group: group.name, address: at.address, port: at.port }
      }),
    )
  }

  #accept(socket: net.Socket, group: PortalGroup): void {
    const isGone = socket.remoteAddress === undefined
    if (isGone || this.#draining || !this.#hasDescriptors(socket)) {
      socket.destroy()
      return
    }
    const connection = new Connection(this, socket, group)
    this.#connections.add(connection)
    this.#pending.add(connection)
  }

  /** Near the limit of open files a connection must not take the descriptor that a disk will need. */
  #hasDescriptors(socket: net.Socket): boolean {
    const descriptor = (socket as WithDescriptor)._handle?.fd ?? -1
    const { descriptors } = this.#limits
    if (descriptor < descriptors - DESCRIPTORS_RESERVED) return true
    const allowed = this.complaints.take('descriptors')
    if (allowed) {
      this.log.error(
        { event: 'descriptors', limit: descriptors, address: socket.remoteAddress, ...allowed },
        `the limit of ${descriptors} open files is near: connections are refused; raise LimitNOFILE= of plexusd.service`,
      )
    }
    return false
  }

  // ---- ConnectionHost

  loginEnded(connection: Connection): void {
    this.#pending.delete(connection)
  }

  hasSession(initiatorName: string, isid: Buffer, tsih: number): boolean {
    return this.#sessions.has(initiatorName, isid, tsih)
  }

  establish(...login: Parameters<SessionTable['establish']>): void {
    this.#sessions.establish(...login)
  }

  endSessions(target: TargetNode | undefined, reason: string): void {
    for (const connection of [...this.#connections]) {
      if (connection.session?.target === target) connection.end(reason)
    }
  }

  closed(connection: Connection): void {
    this.loginEnded(connection)
    this.#sessions.end(connection)
    this.#connections.delete(connection)
  }

  // ---- for the daemon

  /** What peers hold of the pool, of places and of send queues: all of it goes back when they leave. */
  load(): ServerLoad {
    const { totalBytes, freeBytes, keptBytes, leased } = this.pool
    let sendQueueBytes = 0
    for (const { stream } of this.#connections) sendQueueBytes += stream.queuedBytes
    return {
      pool: { totalBytes, freeBytes, keptBytes, leased },
      connections: this.#connections.size,
      sessions: this.sessions().length,
      sendQueueBytes,
    }
  }

  /** Sessions as they are now; discovery sessions, too. */
  sessions(): readonly SessionInfo[] {
    return this.#sessions.report()
  }

  /** After each change of the registry or the portal groups. */
  refresh(): void {
    this.#sessions.refresh()
  }

  /** The sessions that a site would not admit, for the plan of a change. */
  misfits(site: Site): readonly Misfit[] {
    return this.#sessions.misfits(site)
  }

  /**
   * Accepts nothing more, asks all initiators to log out, and resolves when they have or `withinMs` is over.
   */
  async drain(withinMs: number): Promise<void> {
    this.#draining = true
    this.#sessions.isClosed = true
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
    this.#sessions.isClosed = true
    this.#keepAlive.cancel()
    for (const name of [...this.#listeners.keys()]) await this.unlisten(name)
    for (const connection of [...this.#connections]) connection.fail('the target shuts down')
    while (this.#connections.size > 0) {
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
  }
}
