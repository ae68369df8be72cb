/** `virstor stop`, and what `virstor assemble` does beside it: devices that were stopped or could not be offered start again. */
import { PlexusError } from '../../../base/errors.ts'
import type { PlanReport } from '../../../control/reports.ts'
import type { Topology } from '../../geom/topology.ts'
import type { VerbParameters } from '../../geom/types.ts'
import { describeIncomplete } from '../../metadata/assembling.ts'
import type { SetTable } from '../../metadata/set-table.ts'
import type { VirstorModel } from '../model.ts'
import type { StoppedSets } from '../stopped.ts'
import type { VirstorSet } from '../virstor-set.ts'

type Sets = SetTable<VirstorModel, VirstorSet>

/** Out of service until `virstor assemble` or the next start; nothing is erased. Throws `in-use`. */
export async function stopDevice(
  stopped: StoppedSets,
  sets: Sets,
  set: VirstorSet,
  parameters: VerbParameters,
): Promise<PlanReport> {
  const { name } = set.model
  const isOpen = (set.device?.provider.consumers.size ?? 0) > 0
  if (isOpen && parameters['force'] !== true) {
    const message = `${name} is in use; take it out of the configuration's LUNs first, or take it away from them: --force`
    throw new PlexusError('in-use', { op: 'stop', subject: name, message })
  }
  const dryRun = parameters['dryRun'] === true
  if (!dryRun) {
    stopped.add(set)
    await set.halt()
    sets.forget(set)
    const text = `${name} was stopped: plexus virstor assemble ${name} serves it again`
    set.topology.events.emit('info', 'virstor-stop', name, text)
  }
  const warnings = isOpen ? [`${name} is in use, and is taken away from whoever uses it`] : []
  const steps = [{ text: `stop ${name}; nothing on its components is erased`, object: name }]
  return { dryRun, steps, warnings, jobs: [] }
}

/** Resolves to undefined where the verb means none of them. */
export async function startAgain(
  stopped: StoppedSets,
  sets: Sets,
  { set: only, dryRun, force }: VerbParameters,
  topology: Topology,
): Promise<PlanReport | undefined> {
  // Who goes on without components means a set that waits, unless another one is named.
  const means = only !== undefined || force !== true
  const resting = means ? stopped.matching(only) : []
  const ended = sets.all.filter((set) => {
    if (!means || !set.hasDevice || set.failure || set.device) return false
    return only === undefined || set.name === only || set.model.name === only
  })
  const steps = [
    ...stopped.stepsOf(resting),
    ...ended.map(({ model: { name } }) => ({ text: `start ${name} again`, object: name })),
  ]
  if (steps.length === 0) return undefined
  if (dryRun === true) return { dryRun: true, steps, warnings: [], jobs: [] }
  for (const set of ended) await set.restart(force === true)
  await stopped.release(resting, topology)
  const warnings = ended.flatMap(({ model: { name }, problem }) =>
    problem === undefined ? [] : [`${name} is not served: ${problem}`],
  )
  const waits = sets.all
    .filter(({ uuid, assembled }) => resting.includes(uuid) && !assembled)
    .map((set) => `${set.name} waits: ${describeIncomplete(set)}`)
  return { dryRun: false, steps, warnings: [...warnings, ...waits], jobs: [] }
}
