/**
 * What must change to get from the running configuration to a new one, as data: pure, so that it can be
 * tested, shown and logged before anything is touched. The start is the change from the empty
 * configuration. appliance.ts carries a plan out; plexusd.ts makes one at start and at each SIGHUP.
 */
import { isDeepStrictEqual } from 'node:util'
import { inTurns } from '../base/turns.ts'
import type {
  AuthConfig,
  Config,
  DeviceConfig,
  PortalConfig,
  TargetConfig,
  UnitConfig,
} from './config.ts'
import { differences } from './config-difference.ts'

/** Rows of one kind: names that go, and the new form of what comes or changes. */
export interface Difference<T> {
  readonly removed: readonly T[]
  readonly added: readonly T[]
  readonly changed: readonly T[]
  /** All rows as they are before the change, by name. */
  readonly before: ReadonlyMap<string, T>
}

export interface Plan {
  /** `changed` has the portals whose addresses differ: they are closed and opened anew. */
  readonly portals: Difference<PortalConfig>
  /** Portals that go on listening, with other digests or discovery authentication for later logins. */
  readonly portalsUpdated: readonly PortalConfig[]
  readonly auth: Difference<AuthConfig>
  /** `changed` has devices with another path or mode, or with another file at the path: another medium. */
  readonly devices: Difference<DeviceConfig>
  /** `changed` has units with another block size: a new logical unit. */
  readonly units: Difference<UnitConfig>
  /** `changed` has targets whose own rows, portals, auth group or devices changed. */
  readonly targets: Difference<TargetConfig>
  /** What differs in the hooks, in words. */
  readonly hooks: readonly string[]
  /** Settings that only a restart can change: key, and what differs. */
  readonly restart: readonly (readonly [string, readonly string[]])[]
  /** Sessions that the new configuration does not admit, in words: they are dropped. */
  readonly drops: readonly string[]
}

/** The configuration of nothing: where the start begins. */
export function emptyConfig(like: Config): Config {
  return { ...like, portals: [], auth: [], devices: [], units: [], targets: [], onEvent: undefined }
}

async function difference<T extends { readonly name: string }>(
  before: readonly T[],
  after: readonly T[],
  differs: (a: T, b: T) => boolean = (a, b) => !isDeepStrictEqual(a, b),
): Promise<Difference<T>> {
  const old = new Map(before.map((one) => [one.name, one]))
  const names = new Set(after.map((one) => one.name))
  const changed: T[] = []
  await inTurns(after, (one) => {
    const was = old.get(one.name)
    if (was !== undefined && differs(was, one)) changed.push(one)
  })
  return {
    removed: before.filter((one) => !names.has(one.name)),
    added: after.filter((one) => !old.has(one.name)),
    changed,
    before: old,
  }
}

function namesOf<T extends { readonly name: string }>(rows: Difference<T>): Set<string> {
  return new Set([...rows.removed, ...rows.added, ...rows.changed].map((one) => one.name))
}

/** Settings that are read once, at start. */
const RESTART_SETTINGS: readonly (readonly [string, (config: Config) => unknown])[] = [
  ['limits', (config) => config.limits],
  ['log', (config) => config.log],
  ['hal', (config) => config.engine],
  ['state', (config) => config.stateDir],
  ['control', (config) => config.controlDir],
]

/** What a plan depends on beside the two configurations. */
export interface Circumstances {
  /** Devices at whose path is another file than the one that was served. */
  readonly replaced: ReadonlySet<string>
  /** Sessions that end with the change, in words. */
  readonly drops: readonly string[]
}

/** The steps from `before` to `after`. */
export async function planChanges(
  before: Config,
  after: Config,
  { replaced, drops }: Circumstances = { replaced: new Set(), drops: [] },
): Promise<Plan> {
  const portals = await difference(
    before.portals,
    after.portals,
    (a, b) => !isDeepStrictEqual(a.listen, b.listen),
  )
  const auth = await difference(before.auth, after.auth)
  const devices = await difference(
    before.devices,
    after.devices,
    (a, b) => !isDeepStrictEqual(a, b) || replaced.has(b.name),
  )
  const authTouched = namesOf(auth)
  const units = await difference(before.units, after.units)
  const touched = new Set([...namesOf(devices), ...namesOf(units)])
  const relistened = new Set(portals.changed.map((one) => one.name))
  const old = new Map(before.portals.map((one) => [one.name, one]))
  return {
    portals,
    portalsUpdated: after.portals.filter((one) => {
      const was = old.get(one.name)
      if (!was || relistened.has(one.name)) return false
      return !isDeepStrictEqual(was, one) || one.discoveryAuth.some((name) => authTouched.has(name))
    }),
    auth,
    devices,
    units,
    targets: await difference(
      before.targets,
      after.targets,
      (a, b) =>
        !isDeepStrictEqual(a, b) ||
        b.auth.some((name) => authTouched.has(name)) ||
        b.luns.some((lun) => touched.has(lun.unit)),
    ),
    hooks: differences(before.onEvent, after.onEvent, 'hook onEvent'),
    restart: RESTART_SETTINGS.map(
      ([key, read]) => [key, differences(read(before), read(after), key)] as const,
    ).filter(([, lines]) => lines.length > 0),
    drops,
  }
}

/** A plan in words, one line for each step; empty when nothing changes. Never shows a secret. */
export function describePlan(plan: Plan): readonly string[] {
  const change = (
    noun: string,
    { before }: Difference<{ readonly name: string }>,
    row: { readonly name: string },
    note = '',
  ): string[] => {
    const title = `change ${noun} ${row.name}${note}`
    const found = differences(before.get(row.name), row)
    return found.length === 0 ? [title] : found.map((one) => `${title}: ${one}`)
  }
  const lines = (noun: string, rows: Difference<{ readonly name: string }>): string[] => [
    ...rows.removed.map((one) => `remove ${noun} ${one.name}`),
    ...rows.added.map((one) => `add ${noun} ${one.name}`),
    ...rows.changed.flatMap((one) => change(noun, rows, one)),
  ]
  return [
    ...lines('portal', plan.portals),
    ...plan.portalsUpdated.flatMap((one) => change('portal', plan.portals, one, ' (stays open)')),
    ...lines('auth group', plan.auth),
    ...lines('device', plan.devices),
    ...lines('logical unit', plan.units),
    ...lines('target', plan.targets),
    ...plan.hooks.map((one) => `change ${one}`),
    ...plan.drops,
    ...plan.restart.flatMap(([, found]) => found.map((one) => `at the next restart: ${one}`)),
  ]
}
