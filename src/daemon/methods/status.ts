/** `status` and `names`: what is the matter, and what there is. */
import { PlexusError } from '../../base/errors.ts'
import { didYouMean } from '../../base/suggest.ts'
import { plexusVersion } from '../../base/version.ts'
import type { NameList, ProblemReport, StatusReport } from '../../control/daemon-reports.ts'
import { NAMES, STATUS } from '../../control/daemon-verbs.ts'
import type { ComponentReport } from '../../control/reports.ts'
import type { ArgumentKind } from '../../control/verb-spec.ts'
import type { SlotReport } from '../device-slots.ts'
import { configDrift } from './config.ts'
import type { ControlContext, Method } from './context.ts'
import { classReports, exportFacts, worstHealth } from './facts.ts'

/** Devices that are missing, and LUNs that lead to nothing or are not served: what no volume's report says. */
function problems(
  context: ControlContext,
  absent: readonly ProblemReport[],
): readonly ProblemReport[] {
  const { providers } = context.topology
  const missing = context.devices().flatMap(deviceProblem)
  const configured = new Set(context.devices().map(({ name }) => name))
  const leadingNowhere = exportFacts(context)
    .filter(({ provider }) => !providers.has(provider))
    .map(
      ({ target, lun, provider }): ProblemReport => ({
        object: `${target} lun ${lun}`,
        health: 'FAULTED',
        message: `LUN ${lun} of ${target} leads to "${provider}", which is not there`,
        action: configured.has(provider)
          ? 'it is served when the device is ready'
          : holderOf(absent, provider)
            ? `it is served when ${holderOf(absent, provider)?.object} is: see there`
            : `plexus volume create ${provider} makes it; plexus tree shows what there is`,
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
  return [...absent, ...missing, ...labelled, ...leadingNowhere, ...refused]
}

/** What keeps a volume from being there. */
function holderOf(absent: readonly ProblemReport[], volume: string): ProblemReport | undefined {
  return absent.find(({ volumes }) => volumes?.includes(volume))
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

const status: Method = {
  spec: STATUS,
  async run(parameters, { context }): Promise<StatusReport> {
    const { name } = parameters
    const { volumes, drives, problems: absent } = classReports(context)
    if (typeof name === 'string' && !volumes.some((one) => one.name === name)) {
      const names = volumes.map((one) => one.name)
      const holder = holderOf(absent, name)
      throw new PlexusError('not-found', {
        op: 'status',
        subject: name,
        message: holder
          ? `${holder.message} ${holder.action}`
          : `there is no volume "${name}"${didYouMean(name, names)}; plexus volume list shows all`,
      })
    }
    const all = name === undefined
    const shown = all ? volumes : volumes.filter((one) => one.name === name)
    const found = all ? problems(context, absent) : []
    const jobs = context.topology.jobs.list().map((job) => job.report())
    return {
      time: context.now().toISOString(),
      version: plexusVersion(),
      health: worstHealth([...shown, ...found].map(({ health }) => health)),
      volumes: shown,
      drives: all ? drives : [],
      problems: found,
      jobs: jobs.filter(
        (job) =>
          all && job.volume === undefined && (job.state === 'running' || job.state === 'paused'),
      ),
      sessions: context.sessions().length,
      drift: all ? configDrift(context) : undefined,
    }
  },
}

function componentNames(
  components: readonly ComponentReport[],
  type: ComponentReport['type'],
): string[] {
  return components.flatMap((one) => [
    ...(one.type === type ? [one.name] : []),
    ...componentNames(one.children, type),
  ])
}

/** What completion offers for each kind of argument. */
const NAMES_OF: Readonly<Partial<Record<ArgumentKind, (context: ControlContext) => string[]>>> = {
  volume: (context) => classReports(context).volumes.map(({ name }) => name),
  plex: (context) =>
    classReports(context).volumes.flatMap((one) => componentNames(one.components, 'plex')),
  subdisk: (context) =>
    classReports(context).volumes.flatMap((one) => componentNames(one.components, 'subdisk')),
  drive: (context) => classReports(context).drives.map(({ name }) => name),
  device: (context) => context.devices().map(({ name }) => name),
  set: ({ topology }) =>
    [...topology.geoms].flatMap(({ className, name }) =>
      className === 'vinum' || className === 'virstor' ? [name] : [],
    ),
  provider: (context) => [...context.topology.providers.keys()],
  job: (context) => context.topology.jobs.list().map(({ id }) => id),
  object(context) {
    const { volumes, drives } = classReports(context)
    return [
      ...volumes.flatMap((one) => [
        one.name,
        ...componentNames(one.components, 'plex'),
        ...componentNames(one.components, 'subdisk'),
      ]),
      ...drives.map(({ name }) => name),
    ]
  },
}

const names: Method = {
  spec: NAMES,
  async run(parameters, { context }): Promise<NameList> {
    const kind = parameters['kind'] as ArgumentKind
    const list = Object.hasOwn(NAMES_OF, kind) ? NAMES_OF[kind] : undefined
    return { names: list ? [...new Set(list(context))] : [] }
  },
}

export const STATUS_METHODS: readonly Method[] = [status, names]
