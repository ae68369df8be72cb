/** What there is: the graph, its counters, targets, LUNs, sessions. All of it only looks. */
import type {
  GeomList,
  LunList,
  OpCounters,
  ProviderCounters,
  SessionList,
  StatReport,
  TargetList,
  TreeReport,
} from '../../control/daemon-reports.ts'
import {
  GEOM_LIST,
  LUN_LIST,
  SESSION_LIST,
  STAT,
  TARGET_LIST,
  TREE,
} from '../../control/daemon-verbs.ts'
import type { ComponentReport } from '../../control/reports.ts'
import type { Provider } from '../../engine/geom/provider.ts'
import { IO_OPS, LATENCY_BUCKETS_US } from '../../engine/geom/statistics.ts'
import type { Method } from './context.ts'
import { classReports, exportFacts, hostsByTarget } from './facts.ts'

/** The devices under a part of a volume; those that are missing have no name now. */
function devicesOf(part: ComponentReport): string[] {
  return [...(part.device === undefined ? [] : [part.device]), ...part.children.flatMap(devicesOf)]
}

const tree: Method = {
  spec: TREE,
  async run(_parameters, { context }): Promise<TreeReport> {
    const { topology } = context
    const { volumes, drives } = classReports(context)
    const byName = new Map(volumes.map((one) => [one.name, one]))
    // A device without a volume of its name has the state of the drive on it.
    const carried = new Map(drives.map(({ device, state }) => [device, state]))
    return {
      providers: [...topology.providers.values()].map(({ name, geom, sizeBytes, error }) => ({
        name,
        className: geom.className,
        sizeBytes,
        state: error ? 'gone' : (byName.get(name)?.state ?? carried.get(name) ?? 'up'),
        standsOn: byName.has(name)
          ? [...new Set(byName.get(name)?.components.flatMap(devicesOf))]
          : undefined,
      })),
      geoms: topology.report(),
      missing: context
        .devices()
        .flatMap(({ name, reason }) => (reason === undefined ? [] : [{ name, reason }])),
      exports: exportFacts(context).map(({ target, lun, provider, sessions }) => ({
        target,
        lun,
        provider,
        sessions,
      })),
    }
  },
}

const geoms: Method = {
  spec: GEOM_LIST,
  async run(_parameters, { context }): Promise<GeomList> {
    return { geoms: context.topology.report() }
  },
}

function countersOf(provider: Provider): ProviderCounters {
  const { name, geom, rank, statistics, consumers } = provider
  const operations = IO_OPS.map((op): [string, OpCounters] => {
    const { operations, bytes, errors, totalMs, buckets } = statistics[op]
    return [op, { operations, bytes, errors, totalMs, buckets: [...buckets] }]
  })
  return {
    name,
    className: geom.className,
    rank,
    inFlight: statistics.inFlight,
    consumers: [...consumers].map(({ holder, inFlight }) => ({ holder, inFlight })),
    operations: Object.fromEntries(operations),
  }
}

const stat: Method = {
  spec: STAT,
  async run(parameters, { context }): Promise<StatReport> {
    const { topology, clock } = context
    const { name } = parameters
    const all = [...topology.providers.values()]
    const chosen = typeof name === 'string' ? [topology.find(name)] : all
    return {
      target: context.targetLoad(),
      atMs: clock.nowMs(),
      bucketsUs: LATENCY_BUCKETS_US,
      providers: chosen.map(countersOf).sort((a, b) => a.rank - b.rank),
    }
  },
}

const targets: Method = {
  spec: TARGET_LIST,
  async run(_parameters, { context }): Promise<TargetList> {
    const hosts = hostsByTarget(context)
    return {
      targets: context.config().targets.map(({ name, alias, portals, auth, luns }) => ({
        name,
        alias,
        portals,
        auth: auth.join(', ') || 'nobody',
        luns: luns.length,
        sessions: hosts.get(name)?.length ?? 0,
      })),
    }
  },
}

const luns: Method = {
  spec: LUN_LIST,
  async run(_parameters, { context }): Promise<LunList> {
    const { topology } = context
    const units = new Map(context.config().units.map((one) => [one.name, one]))
    const slots = new Map(context.units().map((one) => [one.name, one]))
    const { volumes } = classReports(context)
    const down = new Set(
      volumes.flatMap(({ name, health }) => (health === 'FAULTED' ? [name] : [])),
    )
    return {
      luns: exportFacts(context).map(({ target, lun, provider, readOnly, sessions }) => {
        const found = topology.providers.get(provider)
        const slot = slots.get(provider)
        return {
          target,
          lun,
          volume: provider,
          state: slot?.ready && !down.has(provider) ? 'ready' : 'not ready',
          sizeBytes: found?.sizeBytes,
          blockBytes: units.get(provider)?.blockBytes ?? found?.blockBytes,
          readOnly: readOnly || (found?.features.readOnly ?? false),
          naa: slot?.identity.naa.toString('hex'),
          serial: slot?.identity.serial,
          sessions,
        }
      }),
    }
  },
}

const sessions: Method = {
  spec: SESSION_LIST,
  async run(_parameters, { context }): Promise<SessionList> {
    return {
      sessions: context.sessions().map((one) => ({
        id: one.id,
        tsih: one.tsih,
        initiator: one.initiatorName,
        target: one.targetName,
        portal: one.portalGroup,
        address: one.remoteAddress,
        user: one.authenticatedAs,
        commands: one.commands,
        outstanding: one.outstanding,
      })),
    }
  },
}

export const INVENTORY_METHODS: readonly Method[] = [tree, geoms, stat, targets, luns, sessions]
