/**
 * How a plan takes effect (plan.ts): labels on new drives, the commit, the running objects, labels off the drives that
 * leave. The same for every class; runs inside a topology change.
 */
import { toPlexusError } from '../../base/errors.ts'
import type { PlanReport } from '../../control/reports.ts'
import type { VerbSpec } from '../../control/verb-spec.ts'
import type { Topology } from '../geom/topology.ts'
import type { DriveRecord, SetModel } from '../metadata/set-model.ts'
import type { Plan } from './plan.ts'

/** What a set offers to plans. */
export interface PlannedSet<M extends SetModel> {
  readonly uuid: string
  readonly name: string
  readonly topology: Topology
  readonly model: M
  /** Ids of the jobs that the model has. */
  readonly jobIds: readonly string[]
  /** Jobs that the next model does not have end before it is committed. */
  endJobs(next: M): Promise<void>
  /** Those of the model that do not run yet. */
  startJobs(): void
  label(record: DriveRecord, device: string): Promise<void>
  unlabel(record: DriveRecord): Promise<void>
  commit(change: (model: M) => M, options: { readonly keepsRoom: boolean }): Promise<M>
  /** Makes the running objects those of the configuration. */
  reshape(): Promise<void>
}

/** Verbs leave room for the changes of state that may follow. */
const VERB = { keepsRoom: true }

/**
 * Carries out what `planOn` makes of the newest model. Resolves to the report when it has taken effect; rejects when
 * nothing of it has, or with `io` where too few drives took the commit.
 */
export async function carryOut<M extends SetModel>(
  set: PlannedSet<M>,
  spec: VerbSpec,
  planOn: (model: M) => Plan<M>,
): Promise<PlanReport> {
  const { topology } = set
  let plan = planOn(set.model)
  const before = new Set(set.jobIds)
  try {
    await set.endJobs(plan.model)
    for (const { record, candidate } of plan.newDrives) await set.label(record, candidate.name)
    await set.commit((model) => {
      plan = planOn(model)
      return { ...plan.model, setUuid: set.uuid }
    }, VERB)
  } catch (error) {
    for (const { record } of plan.newDrives) await set.unlabel(record)
    set.startJobs()
    throw error
  }
  await set.reshape()
  const trouble = await unlabel(set, plan)
  set.startJobs()
  const begun = new Set(set.jobIds.filter((id) => !before.has(id)))
  await topology.tastePending()
  // Not the labels that it needed on the way.
  const about = plan.steps.find(({ text }) => !text.startsWith('write label')) ?? plan.steps[0]
  topology.events.emit(
    'info',
    `${spec.noun}-${spec.name}`,
    about?.object ?? set.name,
    plan.steps.map(({ text }) => text.replace(/ \(.*\)$/, '')).join('; '),
  )
  return {
    ...reportOf(plan, false),
    warnings: [...plan.warnings, ...trouble],
    // Not one that could not even begin, since a drive went meanwhile.
    jobs: topology.jobs
      .list()
      .map((job) => job.report())
      .filter(({ id }) => begun.has(id)),
  }
}

/** A plan as it is told to the client. */
export function reportOf(plan: Plan<SetModel>, dryRun: boolean): PlanReport {
  const { steps, warnings, newDrives } = plan
  const wipes = newDrives.flatMap(({ candidate: { contents, name, path } }) =>
    contents === '' ? [] : { text: `${contents} on ${name} (${path})`, object: name },
  )
  return { dryRun, steps, warnings, wipes, jobs: [] }
}

/** Takes the labels off the drives that the plan retires. The configuration knows them no more: trouble is told. */
async function unlabel<M extends SetModel>(
  set: PlannedSet<M>,
  { retired }: Plan<M>,
): Promise<readonly string[]> {
  const warnings: string[] = []
  for (const record of retired) {
    try {
      await set.unlabel(record)
    } catch (error) {
      const { message } = toPlexusError(error, 'unlabel', record.name)
      warnings.push(`the label on drive ${record.name} may still be there: ${message}`)
    }
  }
  return warnings
}
