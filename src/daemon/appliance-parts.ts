/** How rows of the configuration become what serves: targets, portal groups, auth groups. Pure; used by appliance.ts. */
import { defined } from '../base/assert.ts'
import { InitiatorNames } from '../iscsi/names.ts'
import { type Auth, type AuthGroup, checkedGroup } from '../target/iscsi/auth.ts'
import type { PortalGroup, TargetInit } from '../target/iscsi/target-node.ts'
import type { LunMapping } from '../target/scsi/types.ts'
import type { AuthConfig, Config, PortalConfig, TargetConfig } from './config.ts'
import { AUTH_NONE } from './config-checks.ts'
import type { ListenAddress } from './config-schema.ts'

/** What targets are made of, beside their own rows. */
export interface Parts {
  readonly config: Config
  readonly auth: ReadonlyMap<string, AuthGroup>
  /** Relative target port identifiers, by target name and portal name with a blank between. */
  readonly portIds: ReadonlyMap<string, number>
  readonly readOnlyDevices: ReadonlySet<string>
}

export function partsOf(config: Config, portIds: ReadonlyMap<string, number>): Parts {
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

export function portsOf(target: TargetConfig): string[] {
  return target.portals.map((portal) => portOf(target, portal))
}

export function count(number: number, noun: string): string {
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

export function targetInit(
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

export function portalGroup(
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
export function overlaps(a: ListenAddress, b: ListenAddress): boolean {
  const isEvery = ({ host }: ListenAddress): boolean => host === '0.0.0.0' || host === '::'
  return a.port === b.port && (a.host === b.host || isEvery(a) || isEvery(b))
}
