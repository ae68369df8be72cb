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
import { partsIn, withParts } from '../../control/objects.ts'
import { objectsOf } from '../../engine/geom/listing.ts'
import type { Provider } from '../../engine/geom/provider.ts'
import { IO_OPS, LATENCY_BUCKETS_US } from '../../engine/geom/statistics.ts'
import type { Method } from './context.ts'
import { exportFacts, hostsByTarget, objectsIn } from './facts.ts'

const tree: Method = {
  spec: TREE,
  async run(_parameters, { context }): Promise<TreeReport> {
    const { topology } = context
    const objects = objectsIn(context)
    const partsOf = partsIn(objects)
    const offered = new Map(objects.map((one) => [`${one.className} ${one.name}`, one]))
    // A device has the state of what is on it, which stands behind its parts.
    const carried = new Map(
      objects.flatMap(({ name, device, state }) =>
        name !== device && topology.providers.has(name) ? [] : [[device, state] as const],
      ),
    )
    return {
      providers: [...topology.providers.values()].map(({ name, geom, sizeBytes, error }) => {
        const object = offered.get(`${geom.className} ${name}`)
        const below = object && withParts(object, partsOf).flatMap(({ device }) => device ?? [])
        return {
          name,
          className: geom.className,
          sizeBytes,
          state: error ? 'gone' : (object?.state ?? carried.get(name) ?? 'up'),
          standsOn: below && [...new Set(below)],
        }
      }),
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
    const down = new Set(
      objectsOf(topology.classes).flatMap(({ name, health }) =>
        health === 'FAULTED' ? [name] : [],
      ),
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
