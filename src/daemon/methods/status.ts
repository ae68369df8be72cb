/** `status`, `list` and `names`: what is the matter, and what there is. */
import { PlexusError } from '../../base/errors.ts'
import { didYouMean } from '../../base/suggest.ts'
import { plexusVersion } from '../../base/version.ts'
import type { NameList, ProblemReport, StatusReport } from '../../control/daemon-reports.ts'
import { LIST, NAMES, STATUS } from '../../control/daemon-verbs.ts'
import { partsIn, topOf, withParts } from '../../control/objects.ts'
import type { ObjectList, ObjectReport } from '../../control/reports.ts'
import type { ArgumentKind } from '../../control/verb-spec.ts'
import { listing, typesOf } from '../../engine/geom/listing.ts'
import type { SlotReport } from '../device-slots.ts'
import { configDrift } from './config.ts'
import type { ControlContext, Method } from './context.ts'
import { exportFacts, objectsIn, worstHealth } from './facts.ts'

/** Devices that are missing, and LUNs that lead to nothing or are not served: what no object's report says. */
function problems(
  context: ControlContext,
  objects: readonly ObjectReport[],
): readonly ProblemReport[] {
  const { providers } = context.topology
  const missing = context.devices().flatMap(deviceProblem)
  const configured = new Set(context.devices().map(({ name }) => name))
  const served = (name: string): string => {
    if (configured.has(name)) return 'it is served when the device is ready'
    const known = objects.find((one) => one.name === name)
    return known
      ? `it is served when ${topOf(known, objects).name} is: see there`
      : `plexus volume create ${name} makes it; plexus tree shows what there is`
  }
  const leadingNowhere = exportFacts(context)
    .filter(({ provider }) => !providers.has(provider))
    .map(
      ({ target, lun, provider }): ProblemReport => ({
        object: `${target} lun ${lun}`,
        health: 'FAULTED',
        message: `LUN ${lun} of ${target} leads to "${provider}", which is not there`,
        action: served(provider),
      }),
    )
  const refused = context.units().flatMap(({ name, reason, action }): ProblemReport[] =>
    reason === undefined
      ? []
      : [
          {
            object: name,
            health: 'FAULTED',
            message: `The LUN on ${name} is not ready: ${reason}`,
            action: action ?? 'plexus tree shows who has it',
          },
        ],
  )
  const labelled = [...providers.values()].flatMap(({ name, label }): ProblemReport[] =>
    label?.problem
      ? [
          {
            object: name,
            health: 'DEGRADED',
            message: `Device ${name} ${label.problem.text}`,
            action: label.problem.action,
          },
        ]
      : [],
  )
  return [...missing, ...labelled, ...leadingNowhere, ...refused]
}

function deviceProblem({ name, path, reason, warning, replaced }: SlotReport): ProblemReport[] {
  const problem = { object: name, health: 'DEGRADED' } as const
  if (reason !== undefined) {
    const action = replaced
      ? 'put the file back, or let plexus config apply take the one that is there'
      : `connect it again, or take it out of the configuration; plexus device show ${name}`
    return [{ ...problem, message: `Device ${name} (${path}) is not ready: ${reason}`, action }]
  }
  if (warning === undefined) return []
  const action = 'correct the path in the configuration: the next start opens what it leads to'
  return [{ ...problem, message: `Device ${name}: ${warning}`, action }]
}

/** The object of that name with what it is a part of, and all parts of that. Throws `not-found`. */
function aroundOf(objects: readonly ObjectReport[], name: string): readonly ObjectReport[] {
  const known = objects.filter((one) => one.name === name)
  // A drive may be named as what stands on it.
  const found = known.find(({ health }) => health !== undefined) ?? known[0]
  if (found) return withParts(topOf(found, objects), partsIn(objects))
  const names = objects.map((one) => one.name)
  throw new PlexusError('not-found', {
    op: 'status',
    subject: name,
    message: `there is no object "${name}"${didYouMean(name, names)}; plexus list shows all`,
  })
}

const status: Method = {
  spec: STATUS,
  async run(parameters, { context }): Promise<StatusReport> {
    const { name } = parameters
    const objects = objectsIn(context)
    const all = typeof name !== 'string'
    const shown = all ? objects : aroundOf(objects, name)
    const found = all ? problems(context, objects) : []
    const jobs = context.topology.jobs.list().map((job) => job.report())
    return {
      time: context.now().toISOString(),
      version: plexusVersion(),
      health: worstHealth([...shown, ...found].flatMap(({ health }) => health ?? [])),
      objects: shown,
      problems: found,
      jobs: jobs.filter(
        (job) =>
          all && job.parent === undefined && (job.state === 'running' || job.state === 'paused'),
      ),
      sessions: context.sessions().length,
      drift: all ? configDrift(context) : undefined,
    }
  },
}

/** Objects of a type, or of all: `plexus list`. */
const list: Method = {
  spec: LIST,
  async run(parameters, { context }): Promise<ObjectList> {
    const types = typesOf(context.topology.classes)
    const word = parameters['type']
    const type = types.find(({ name, plural }) => name === word || plural === word)
    if (word !== undefined && !type) {
      const known = types.map(({ name }) => name)
      const message = `there is no type "${word}"${didYouMean(String(word), known)}; there are: ${known.join(', ')}`
      throw new PlexusError('not-found', { op: 'list', subject: String(word), message })
    }
    return listing({ types, objects: objectsIn(context) }, type?.name, parameters)
  },
}

/** What completion offers for each kind of argument that is no type of objects. */
const NAMES_OF: Readonly<Partial<Record<ArgumentKind, (context: ControlContext) => string[]>>> = {
  device: (context) => context.devices().map(({ name }) => name),
  set: (context) => objectsIn(context).flatMap(({ set }) => set ?? []),
  provider: (context) => [...context.topology.providers.keys()],
  job: (context) => context.topology.jobs.list().map(({ id }) => id),
  object: (context) => objectsIn(context).map(({ name }) => name),
  type: ({ topology }) => typesOf(topology.classes).map(({ name }) => name),
}

const names: Method = {
  spec: NAMES,
  async run(parameters, { context }): Promise<NameList> {
    const kind = parameters['kind'] as ArgumentKind
    const list = Object.hasOwn(NAMES_OF, kind) ? NAMES_OF[kind] : undefined
    const objects = list ? [] : objectsIn(context).filter(({ type }) => type === kind)
    return { names: [...new Set(list?.(context) ?? objects.map(({ name }) => name))] }
  },
}

export const STATUS_METHODS: readonly Method[] = [status, list, names]
