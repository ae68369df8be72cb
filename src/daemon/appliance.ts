/**
 * Everything that serves, put together: devices, logical units, targets, portals. It knows the
 * configuration that runs and carries out plans (reconcile.ts) that lead to another one: what can fail goes
 * first and is undone on failure, what cannot fail follows, what is taken away goes last. Made by
 * plexusd.ts; changes run one at a time.
 */
import { defined } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import { withinTime } from '../base/deadline.ts'
import { PlexusError, toPlexusError } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import { inTurns, nextTurn } from '../base/turns.ts'
import type { Topology } from '../engine/geom/topology.ts'
import type { BufferPool } from '../hal/block-device.ts'
import type { IoQueue } from '../hal/io-queue.ts'
import { openFilesMax } from '../hal/open-files.ts'
import { InitiatorNames } from '../iscsi/names.ts'
import { type Auth, type AuthGroup, checkedGroup } from '../target/iscsi/auth.ts'
import { tryListener } from '../target/iscsi/listen.ts'
import { IscsiServer } from '../target/iscsi/portal.ts'
import {
  type PortalGroup,
  type TargetInit,
  TargetNode,
  TargetRegistry,
} from '../target/iscsi/target-node.ts'
import { createDeviceServer } from '../target/scsi/device-server.ts'
import type { LunMapping } from '../target/scsi/types.ts'
import type { AuthConfig, Config, DeviceConfig, PortalConfig, TargetConfig } from './config.ts'
import { AUTH_NONE } from './config-checks.ts'
import type { ListenAddress } from './config-schema.ts'
import { DeviceSlots } from './device-slots.ts'
import { ExportGuard } from './export-guard.ts'
import type { Origin } from './identity-draft.ts'
import type { IdentityStore } from './identity-store.ts'
import { emptyConfig, type Plan, planChanges } from './reconcile.ts'
import { UnitSlots } from './unit-slots.ts'

export interface ApplianceOptions {
  readonly config: Config
  readonly pool: BufferPool
  readonly queue: IoQueue
  readonly topology: Topology
  readonly identities: IdentityStore
  readonly clock: Clock
  readonly log: Logger
}

/** What targets are made of, beside their own rows. */
interface Parts {
  readonly config: Config
  readonly auth: ReadonlyMap<string, AuthGroup>
  /** Relative target port identifiers, by target name and portal name with a blank between. */
  readonly portIds: ReadonlyMap<string, number>
  readonly readOnlyDevices: ReadonlySet<string>
}

export class Appliance {
  readonly server: IscsiServer
  readonly topology: Topology
  readonly devices: DeviceSlots
  readonly units: UnitSlots
  readonly #clock: Clock
  readonly #log: Logger
  readonly #identities: IdentityStore
  readonly #registry = new TargetRegistry()
  readonly #groups = new Map<string, PortalGroup>()
  /** What runs now. */
  #parts: Parts
  /** What the configuration says of identities of other machines, from the beginning of a change to it. */
  #origin: Origin
  #changing: Promise<void> = Promise.resolve()

  constructor(options: ApplianceOptions) {
    const { config, pool, topology, identities, clock, log } = options
    this.#clock = clock
    this.#log = log
    this.topology = topology
    this.#identities = identities
    this.#parts = partsOf(emptyConfig(config), new Map())
    this.#origin = config.origin
    const guard = new ExportGuard({ classes: topology.classes, identities, clock, log })
    this.devices = new DeviceSlots({
      queue: options.queue,
      topology,
      guard,
      clock,
      log: log.child({ part: 'device' }),
    })
    this.units = new UnitSlots({
      topology,
      pool,
      clock,
      log: log.child({ part: 'unit' }),
      identities,
      guard,
      device: (name) => this.devices.config(name),
      origin: () => this.#origin,
      onUnitReplaced: (name) => this.#remap(name),
    })
    this.server = new IscsiServer({
      registry: this.#registry,
      deviceServer: createDeviceServer({ clock, log, pool }),
      pool,
      clock,
      log,
      limits: { ...config.limits, descriptors: openFilesMax() },
    })
  }

  get config(): Config {
    return this.#parts.config
  }

  /** What {@link apply} would do, and which sessions it would end. */
  plan(next: Config): Promise<Plan> {
    const { auth } = partsOf(next, new Map())
    const portals = new Map(next.portals.map((one) => [one.name, portalGroup(one, 0, auth)]))
    const used = new Set(this.server.sessions().map((one) => one.targetName))
    const targets = new Map(
      next.targets
        .filter(({ name }) => used.has(name))
        .map((one) => [one.name, new TargetNode(targetInit(one, portals, auth, new Map()))]),
    )
    const misfits = this.server.misfits({
      group: (name) => portals.get(name),
      target: (name) => targets.get(name),
    })
    return planChanges(this.config, next, {
      replaced: this.devices.replaced,
      drops: misfits.map(
        ({ initiatorName, address, why }) =>
          `drop the session of ${initiatorName} from ${address}: ${why}`,
      ),
    })
  }

  /**
   * Moves from the running configuration to `next` and returns what was done. When it rejects, the old
   * configuration runs on. Portals, targets and devices that `next` leaves alone are not touched, nor are
   * their sessions.
   */
  apply(next: Config): Promise<Plan> {
    const change = this.#changing.then(() => this.#apply(next))
    this.#changing = change.then(
      () => {},
      () => {},
    )
    return change
  }

  /** One line on the state of things, for systemd and the log. */
  status(): string {
    const { missing, total } = this.devices
    const notReady = missing.length > 0 ? ` (${missing.length} not ready)` : ''
    const targets = count(this.config.targets.length, 'target')
    const sessions = count(this.server.sessions().length, 'session')
    return `${targets}, ${count(total, 'device')}${notReady}, ${sessions}`
  }

  /**
   * For the end, after the last session: volumes are at rest and say so on disk, jobs are at a checkpoint, devices
   * are flushed and closed. Resolves to what failed or did not answer within `timeoutMs`, in words.
   */
  async closeStorage(timeoutMs: number): Promise<readonly string[]> {
    const failures: string[] = []
    try {
      const work = this.units.close().then(() => this.topology.stop())
      if (!(await withinTime(this.#clock, work, timeoutMs))) {
        failures.push(`volumes did not come to rest within ${timeoutMs / 1000} s`)
      }
    } catch (error) {
      failures.push(toPlexusError(error, 'stop', 'volumes').message)
    }
    return [...failures, ...(await this.devices.close(timeoutMs))]
  }

  async #apply(next: Config): Promise<Plan> {
    const plan = await this.plan(next)
    const kept = new Set(plan.devices.changed.filter((one) => this.#staysOpen(one)))
    const changed = plan.devices.changed.filter((one) => !kept.has(one))
    const moving = { ...plan.devices, changed }
    this.#checkDevicesLeave(moving)
    // What can fail: identities, tags and port numbers reach the disk, then the addresses are opened.
    const names = new Set(next.units.map((one) => one.name))
    this.#origin = next.origin
    const newUnits = [...plan.units.changed, ...plan.units.added].map((one) => one.name)
    const { tags, portIds, identities } = await this.#identities.change((draft) => ({
      tags: draft.portalTags(next.portals.map(({ name }) => name)),
      portIds: draft.portIds(next.targets.flatMap(portsOf)),
      identities: draft.identifyAll(newUnits, names, next.origin),
    }))
    await nextTurn()
    const parts = partsOf(next, portIds)
    const groupOf = (portal: PortalConfig): PortalGroup =>
      portalGroup(portal, defined(tags.get(portal.name), `the tag of ${portal.name}`), parts.auth)
    await this.#tryAddresses(plan)
    // New targets stand before new portals open: an initiator that comes back at once must find its disk.
    const { early, late, leaving } = this.#deviceOrder(moving)
    await this.devices.add(early)
    if (!this.topology.settled) await this.topology.settle()
    await this.units.add(plan.units.added, identities)
    for (const portal of plan.portals.added) this.#setGroup(groupOf(portal))
    await inTurns(plan.targets.added, (target) => this.#setTarget(target, parts))
    try {
      await this.#changePortals(plan, groupOf)
    } catch (error) {
      for (const target of plan.targets.added) this.#registry.remove(target.name)
      for (const portal of plan.portals.added) this.#groups.delete(portal.name)
      await this.units.remove(plan.units.added.map((one) => one.name))
      await this.devices.remove(early.map((one) => one.name))
      throw error
    }

    // What cannot fail: a device that does not open leaves its LUNs not ready.
    for (const portal of plan.portalsUpdated) this.#setGroup(groupOf(portal))
    for (const portal of plan.portals.removed) this.#groups.delete(portal.name)
    await inTurns(plan.targets.removed, (target) => this.#registry.remove(target.name))
    this.server.refresh()
    await this.units.remove([...plan.units.removed, ...plan.units.changed].map((one) => one.name))
    await this.devices.remove(leaving.map((one) => one.name))
    // What only a restart changes is kept as it runs, so that every reload names what still waits for one.
    const { limits, log, engine, stateDir, controlDir } = this.config
    this.#parts = { ...parts, config: { ...next, limits, log, engine, stateDir, controlDir } }
    for (const one of kept) this.devices.keep(one)
    await this.devices.add(late)
    await this.units.add(plan.units.changed, identities)
    await this.units.retry(this.units.missing)
    const touched = [...plan.targets.changed, ...plan.targets.added]
    await inTurns(touched, (target) => this.#setTarget(target, parts))
    this.server.refresh()
    return plan
  }

  /**
   * Which devices open before the portals do, which must wait until others have closed (another path under
   * an old name, or an old path under another name), and which close.
   */
  #deviceOrder(
    devices: Plan['devices'],
  ): Record<'early' | 'late' | 'leaving', readonly DeviceConfig[]> {
    const { removed, changed, added } = devices
    const names = new Set([...removed, ...changed].map((one) => one.name))
    const leaving = this.config.devices.filter((one) => names.has(one.name))
    const held = new Set(leaving.map((one) => one.path))
    return {
      early: added.filter((one) => !held.has(one.path)),
      late: [...changed, ...added.filter((one) => held.has(one.path))],
      leaving,
    }
  }

  /**
   * Is a changed device the same one for the same users: another timeout, another word on its label, or a drive of a
   * volume that a LUN named by mistake and names no more?
   */
  #staysOpen(next: DeviceConfig): boolean {
    const { name, path, readOnly, exported } = next
    const now = this.devices.config(name)
    const provider = this.topology.providers.get(name)
    if (!provider || now?.path !== path || now.readOnly !== readOnly) return false
    if (now.exported === exported && now.label === next.label) return true
    if (provider.opaque) return exported
    return now.exported && [...provider.consumers].some((one) => one.owner)
  }

  /** A device on which a volume stands does not leave by an edit of a file: its data would be torn out. */
  #checkDevicesLeave({ removed, changed }: Plan['devices']): void {
    for (const { name } of [...removed, ...changed]) {
      const provider = this.topology.providers.get(name)
      const user = [...(provider?.consumers ?? [])].find((one) => one.owner)
      if (!user) continue
      throw new PlexusError('in-use', {
        op: 'reload',
        subject: name,
        message: `device ${name} is in use as ${user.holder}; take it out of its volumes before it leaves the configuration`,
      })
    }
  }

  /** Fails before anything is touched when a new address cannot be had. */
  async #tryAddresses(plan: Plan): Promise<void> {
    const ours = this.config.portals.flatMap((one) => one.listen)
    for (const portal of [...plan.portals.changed, ...plan.portals.added]) {
      for (const address of portal.listen) {
        // Our own socket would be in the way of the attempt, and is closed or kept by the change itself.
        if (!ours.some((one) => overlaps(one, address))) await tryListener(portal.name, address)
      }
    }
  }

  /** Closes and opens portals; when one cannot be opened all are as they were, and it rejects. */
  async #changePortals(plan: Plan, groupOf: (portal: PortalConfig) => PortalGroup): Promise<void> {
    const closed: PortalGroup[] = []
    const opened: string[] = []
    try {
      for (const { name } of [...plan.portals.changed, ...plan.portals.removed]) {
        closed.push({ ...defined(this.#groups.get(name), `portal ${name}`) })
        await this.server.unlisten(name)
      }
      for (const portal of [...plan.portals.changed, ...plan.portals.added]) {
        const group = this.#setGroup(groupOf(portal))
        await this.server.listen(group)
        opened.push(group.name)
      }
    } catch (error) {
      for (const name of opened) await this.server.unlisten(name)
      for (const group of closed) await this.#listenAgain(group)
      throw error
    }
  }

  async #listenAgain(group: PortalGroup): Promise<void> {
    try {
      await this.server.listen(this.#setGroup(group))
    } catch (error) {
      this.#log.error({ err: error, portal: group.name }, 'a portal could not be opened again')
    }
  }

  /** One object for a portal as long as it is configured: targets and live connections refer to it. */
  #setGroup(group: PortalGroup): PortalGroup {
    const existing = this.#groups.get(group.name)
    if (existing) return Object.assign(existing, group)
    this.#groups.set(group.name, group)
    return group
  }

  #setTarget(target: TargetConfig, parts: Parts): void {
    const luns = this.#lunMap(target, parts)
    const init = targetInit(target, this.#groups, parts.auth, luns, parts.portIds)
    const node = this.#registry.get(target.name)
    if (node) node.update(init)
    else this.#registry.set(new TargetNode(init))
  }

  /** The LUNs of a target. While a reload replaces a device, its LUNs are left out. */
  #lunMap(target: TargetConfig, { readOnlyDevices }: Parts): Map<number, LunMapping> {
    const luns = new Map<number, LunMapping>()
    for (const { lun, unit: name, readOnly } of target.luns) {
      const unit = this.units.unit(name)
      if (unit) luns.set(lun, { lun, unit, readOnly: readOnly || readOnlyDevices.has(name) })
    }
    return luns
  }

  /** A disk with another identity has come in under this name: its LUNs lead to a new unit. */
  #remap(name: string): void {
    for (const target of this.config.targets) {
      const leadsThere = target.luns.some((lun) => lun.unit === name)
      if (leadsThere && this.#registry.get(target.name)) this.#setTarget(target, this.#parts)
    }
    this.server.refresh()
  }
}

function partsOf(config: Config, portIds: ReadonlyMap<string, number>): Parts {
  return {
    config,
    auth: new Map(config.auth.map((group) => [group.name, authGroup(group)])),
    portIds,
    readOnlyDevices: new Set(
      config.devices.flatMap(({ name, readOnly }) => (readOnly ? [name] : [])),
    ),
  }
}

/** How the identity store names the port of a target on a portal. */
function portOf({ name }: Pick<TargetConfig, 'name'>, portal: string): string {
  return `${name} ${portal}`
}

function portsOf(target: TargetConfig): string[] {
  return target.portals.map((portal) => portOf(target, portal))
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}

function authGroup(group: AuthConfig): AuthGroup {
  return checkedGroup({
    name: group.name,
    ...(group.chap === undefined ? {} : { chap: group.chap }),
    ...(group.mutual === undefined ? {} : { mutual: group.mutual }),
    ...(group.initiators === undefined ? {} : { initiators: new InitiatorNames(group.initiators) }),
  })
}

function authOf(names: readonly string[], groups: ReadonlyMap<string, AuthGroup>): Auth {
  if (names.includes(AUTH_NONE)) return AUTH_NONE
  return names.map((name) => defined(groups.get(name), `auth group ${name}`))
}

function targetInit(
  target: TargetConfig,
  portals: ReadonlyMap<string, PortalGroup>,
  auth: ReadonlyMap<string, AuthGroup>,
  luns: ReadonlyMap<number, LunMapping>,
  portIds: ReadonlyMap<string, number> = new Map(),
): TargetInit {
  return {
    name: target.name,
    alias: target.alias,
    portalGroups: target.portals.flatMap((name) => portals.get(name) ?? []),
    auth: authOf(target.auth, auth),
    luns,
    ...(target.access === undefined ? {} : { access: target.access }),
    portIds: new Map(
      target.portals.flatMap((name) => {
        const id = portIds.get(portOf(target, name))
        return id === undefined ? [] : [[name, id] as const]
      }),
    ),
  }
}

function portalGroup(
  portal: PortalConfig,
  tag: number,
  groups: ReadonlyMap<string, AuthGroup>,
): PortalGroup {
  return {
    name: portal.name,
    tag,
    listen: portal.listen,
    advertise: portal.advertise,
    digests: portal.digests,
    discoveryAuth: authOf(portal.discoveryAuth, groups),
  }
}

/** Could two listening sockets be in each other's way? `::` may take IPv4 as well. */
function overlaps(a: ListenAddress, b: ListenAddress): boolean {
  const isEvery = ({ host }: ListenAddress): boolean => host === '0.0.0.0' || host === '::'
  return a.port === b.port && (a.host === b.host || isEvery(a) || isEvery(b))
}
