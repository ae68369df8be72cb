/**
 * The sessions of a target (RFC 7143, 4.4 and 6.3.5): how a login becomes one, which it replaces, when it ends, and which
 * of them a changed configuration would not admit. Owned by portal.ts, which has the connections.
 */
import type { Clock } from '../../base/clock.ts'
import { DEAD_SESSION_MS, PLACE_RETRY_MS, TAKEOVER_MS, TAKEOVERS_TOLD } from '../../base/limits.ts'
import type { Logger } from '../../base/log.ts'
import { formatAddress } from '../../base/network.ts'
import type { BufferPool } from '../../hal/block-device.ts'
import { initiatorPortName } from '../../iscsi/names.ts'
import type { DeviceServer, LunMapping, Nexus } from '../scsi/types.ts'
import { admits, sameProof } from './auth.ts'
import type { Connection } from './connection.ts'
import { LOGIN_STATUS } from './login-identity.ts'
import type { LoginOutcome } from './login-messages.ts'
import type { PeerEvents } from './peer-events.ts'
import { Session, type SessionInfo } from './session.ts'
import { claimPlace, type SessionLimits } from './session-places.ts'
import type { PortalGroup, TargetNode, TargetRegistry } from './target-node.ts'

/** Targets and portals as they are, or as a configuration would make them. */
export interface Site {
  target(name: string): TargetNode | undefined
  group(name: string): PortalGroup | undefined
}

/** A session that a site does not admit. */
export interface Misfit {
  readonly initiatorName: string
  readonly address: string
  readonly why: string
}

export interface SessionTableOptions {
  readonly registry: TargetRegistry
  /** The portal group of a name that is listened on. */
  readonly group: (name: string) => PortalGroup | undefined
  /** All connections, oldest first. */
  readonly connections: ReadonlySet<Connection>
  readonly deviceServer: DeviceServer
  readonly pool: BufferPool
  readonly clock: Clock
  readonly log: Logger
  readonly events: PeerEvents
  readonly limits: SessionLimits & { readonly commandsPerSession: number }
}

export class SessionTable {
  /** No login becomes a session any more. */
  isClosed = false
  readonly #registry: TargetRegistry
  readonly #site: Site
  readonly #connections: ReadonlySet<Connection>
  readonly #deviceServer: DeviceServer
  readonly #pool: BufferPool
  readonly #clock: Clock
  readonly #log: Logger
  readonly #events: PeerEvents
  readonly #limits: SessionTableOptions['limits']
  #nextTsih = 0
  #nextNexusId = 0
  /** Sessions whose nexus lives; they share the buffer pool. */
  #sessionCount = 0

  constructor(options: SessionTableOptions) {
    const { registry, group } = options
    this.#registry = registry
    this.#site = { target: (name) => registry.get(name), group }
    this.#connections = options.connections
    this.#deviceServer = options.deviceServer
    this.#pool = options.pool
    this.#clock = options.clock
    this.#log = options.log
    this.#events = options.events
    this.#limits = options.limits
  }

  /** Is there a session of this initiator port with this TSIH? */
  has(initiatorName: string, isid: Buffer, tsih: number): boolean {
    for (const { session } of this.#connections) {
      if (session?.tsih !== tsih || session.ended) continue
      if (session.initiatorName !== initiatorName) continue
      if (session.isid.equals(isid)) return true
    }
    return false
  }

  /** As ConnectionHost (connection.ts) says. */
  establish(
    connection: Connection,
    outcome: LoginOutcome,
    cmdSn: number,
    statSn: number,
    done: (result: Session | number) => void,
  ): void {
    const untilMs = this.#clock.nowMs() + DEAD_SESSION_MS + 2 * PLACE_RETRY_MS
    let takeovers = 0
    const attempt = (): void => {
      if (connection.phase !== 'login') return
      if (this.isClosed || this.#misfit(connection, outcome, this.#site) !== undefined) {
        done(LOGIN_STATUS.SERVICE_UNAVAILABLE)
        return
      }
      const rival = this.#rivalOf(connection, outcome)
      if (rival && !sameProof(rival.session?.origin.proof, outcome.proof)) {
        done(LOGIN_STATUS.AUTHORIZATION_FAILURE)
        return
      }
      if (rival) takeovers = this.#reinstate(rival, connection)
      const nowMs = this.#clock.nowMs()
      const newcomer = {
        address: connection.address,
        isDiscovery: outcome.target === undefined,
      }
      const claim = claimPlace(newcomer, this.#live(), this.#limits, nowMs)
      if (claim === 'none' || (claim === 'later' && nowMs >= untilMs)) {
        done(LOGIN_STATUS.OUT_OF_RESOURCES)
      } else if (claim === 'later') {
        this.#clock.after(PLACE_RETRY_MS, attempt)
      } else {
        if (claim !== 'free') this.#drop(claim.evict, 'it made room for another session')
        done(this.#newSession(connection, outcome, cmdSn, statSn, takeovers))
      }
    }
    attempt()
  }

  /** Connections with a session that lives, oldest first. */
  #live(): Connection[] {
    return [...this.#connections].filter(({ session }) => session && !session.ended)
  }

  #newSession(
    connection: Connection,
    outcome: LoginOutcome,
    cmdSn: number,
    statSn: number,
    takeovers: number,
  ): Session {
    const { target, proof } = outcome
    const nexus = target && this.#newNexus(target, connection.group, outcome)
    const session = new Session({
      tsih: this.#newTsih(),
      isid: outcome.isid,
      initiatorName: outcome.initiatorName,
      parameters: outcome.parameters,
      target,
      nexus,
      origin: { proof, sinceMs: this.#clock.nowMs(), takeovers },
      statSn,
      expCmdSn: cmdSn,
      windowMax: this.#limits.commandsPerSession,
      pool: this.#pool,
      sharers: () => this.#sessionCount,
    })
    if (nexus !== undefined) {
      this.#sessionCount++
      this.#deviceServer.nexusEstablished(nexus)
      this.#logSession(connection, session, 'login', {
        portal: connection.group.name,
        user: proof?.user,
      })
    }
    return session
  }

  #logSession(
    connection: Connection,
    session: Session,
    event: 'login' | 'logout',
    more: object,
  ): void {
    this.#log.info(
      {
        event,
        remote: formatAddress(connection.address, connection.stream.remotePort),
        session: session.tsih,
        target: session.target?.name,
        initiator: session.initiatorName,
        ...more,
      },
      event === 'login' ? 'an initiator has logged in' : 'a session has ended',
    )
    const { initiatorName, target } = session
    const peer = { initiator: initiatorName, target: target?.name, address: connection.address }
    this.#events.session(event, peer)
  }

  /** The live session of the same initiator port with the same target portal group (RFC 7143, 6.3.5). */
  #rivalOf(connection: Connection, outcome: LoginOutcome): Connection | undefined {
    return this.#live().find(
      ({ session, group }) =>
        session?.target === outcome.target &&
        session?.initiatorName === outcome.initiatorName &&
        session.isid.equals(outcome.isid) &&
        group.tag === connection.group.tag,
    )
  }

  /**
   * A new session replaces the old one at once (RFC 7143, 6.3.5). Returns how often that has come from another address in a
   * row: two hosts with one name and ISID, copies of one machine, reinstate each other's session again and again.
   */
  #reinstate(rival: Connection, connection: Connection): number {
    const { origin, initiatorName } = rival.session as Session
    const isSoon = this.#clock.nowMs() - origin.sinceMs < TAKEOVER_MS
    const takeovers = rival.address !== connection.address && isSoon ? origin.takeovers + 1 : 0
    this.#drop(rival, 'the session was reinstated')
    if (takeovers === TAKEOVERS_TOLD) {
      this.#log.warn(
        {
          event: 'clones',
          initiator: initiatorName,
          addresses: [rival.address, connection.address],
        },
        `two hosts use the initiator name ${initiatorName} and end each other's sessions; give one of them another name`,
      )
    }
    return takeovers
  }

  #drop(connection: Connection, reason: string): void {
    connection.fail(reason)
    // A session that is ending is closed at once.
    connection.stream.destroy()
    this.end(connection)
  }

  #newNexus(target: TargetNode, group: PortalGroup, outcome: LoginOutcome): Nexus {
    const { initiatorName } = outcome
    const port = target.port(group)
    return {
      id: this.#nextNexusId++,
      initiatorName,
      initiatorPort: initiatorPortName(initiatorName, outcome.isid),
      targetName: target.name,
      targetPort: port.name,
      targetPortalGroupTag: port.tag,
      relativePortId: port.relativePortId,
      // A reload may add some and take some away.
      get targetPorts() {
        return target.ports()
      },
      luns: target.lunsFor(initiatorName),
    }
  }

  #newTsih(): number {
    const used = new Set<number>()
    for (const { session } of this.#connections) if (session) used.add(session.tsih)
    do this.#nextTsih = (this.#nextTsih % 0xffff) + 1
    while (used.has(this.#nextTsih))
    return this.#nextTsih
  }

  /** The session's part of the end: its tasks are aborted, its nexus is gone. Once is enough. */
  end(connection: Connection): void {
    const { session } = connection
    if (session === undefined || session.ended) return
    session.ended = true
    if (session.nexus === undefined) return
    this.#sessionCount--
    this.#deviceServer.nexusLost(session.nexus)
    this.#logSession(connection, session, 'logout', { reason: connection.endReason })
  }

  /** Sessions as they are now; discovery sessions, too. */
  report(): readonly SessionInfo[] {
    return this.#live().map((connection) => {
      const session = connection.session as Session
      return {
        id: session.nexus?.id ?? -1,
        tsih: session.tsih,
        initiatorName: session.initiatorName,
        targetName: session.target?.name,
        portalGroup: connection.group.name,
        remoteAddress: connection.address,
        authenticatedAs: session.origin.proof?.user,
        commands: session.commands,
        outstanding: session.tasks.size,
      }
    })
  }

  /**
   * The registry has changed: sessions see their new LUNs, and those that would not be admitted any more are
   * dropped. Sessions that the change does not concern notice nothing.
   */
  refresh(): void {
    this.#registry.changed()
    for (const connection of this.#live()) {
      const session = connection.session as Session
      const why = this.#misfit(connection, wasAdmitted(session), this.#site)
      if (why !== undefined)
        connection.fail(`the configuration no longer admits this session: ${why}`)
      else if (session.nexus && session.target) {
        this.#renewLuns(session.nexus, session.target.lunsFor(session.initiatorName))
      }
    }
  }

  /** The sessions that a site would not admit, for the plan of a change. */
  misfits(site: Site): readonly Misfit[] {
    return this.#live().flatMap((connection) => {
      const session = connection.session as Session
      const { initiatorName } = session
      const why = this.#misfit(connection, wasAdmitted(session), site)
      return why === undefined ? [] : [{ initiatorName, address: connection.address, why }]
    })
  }

  /** Why a site would not admit who has proved this; undefined: it would. */
  #misfit(
    { group }: Connection,
    { initiatorName, target, proof }: Pick<LoginOutcome, 'initiatorName' | 'target' | 'proof'>,
    site: Site,
  ): string | undefined {
    const portal = site.group(group.name)
    if (!target) {
      if (!portal) return `portal ${group.name} is gone`
      const isAdmitted = admits(portal.discoveryAuth, initiatorName, proof)
      return isAdmitted ? undefined : `discovery on portal ${group.name} asks for another proof`
    }
    const node = site.target(target.name)
    if (!node) return `target ${target.name} is gone`
    if (!portal || !node.offeredOn(portal)) return `${target.name} is not on portal ${group.name}`
    return admits(node.auth, initiatorName, proof)
      ? undefined
      : `${target.name} does not admit this name with what was proved`
  }

  #renewLuns(nexus: Nexus, luns: ReadonlyMap<number, LunMapping>): void {
    const previous = nexus.luns
    nexus.luns = luns
    const same =
      previous.size === luns.size &&
      [...luns].every(([lun, { unit }]) => previous.get(lun)?.unit === unit)
    if (!same) this.#deviceServer.lunsChanged(nexus, previous)
  }
}

/** What a session was admitted with. */
function wasAdmitted({ initiatorName, target, origin }: Session) {
  return { initiatorName, target, proof: origin.proof }
}
