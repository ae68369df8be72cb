/** `vinum forget`: what this machine remembers of its sets (daemon/kept-sets.ts) and need not any more. */
import { PlexusError } from '../../base/errors.ts'
import { VINUM_FORGET } from '../../control/daemon-verbs.ts'
import type { PlanReport } from '../../control/reports.ts'
import { setName } from '../../engine/vinum/naming.ts'
import type { Method } from './context.ts'

const forget: Method = {
  spec: VINUM_FORGET,
  async run(parameters, { context }): Promise<PlanReport> {
    const { topology, keptSets } = context
    const name = String(parameters['name'])
    const dryRun = parameters['dryRun'] === true
    const refuse = (kind: 'in-use' | 'not-found', message: string): PlexusError =>
      new PlexusError(kind, { op: 'forget', subject: name, message })
    const kept = keptSets.known.find(({ model }) => setName(model.setUuid) === name)
    if ([...topology.geoms].some((one) => one.className === 'vinum' && one.name === name)) {
      throw refuse('in-use', `${name} is here, or drives of it are; plexus vinum ld shows them`)
    }
    const isVolumeAway =
      topology.lunNames.ledTo(name) !== undefined && !topology.providers.has(name)
    if (!kept && !isVolumeAway) {
      throw refuse('not-found', `no set that is away is named "${name}"; plexus status shows them`)
    }
    if (!dryRun) await keptSets.forget(kept ? { setUuid: kept.model.setUuid } : { name })
    const volumes = kept?.model.volumes.map((one) => one.name).join(', ') ?? name
    const text = `forget ${name}: the names of ${volumes || 'no volume'} are free`
    return { dryRun, steps: [{ text, object: name }], warnings: [], jobs: [] }
  },
}

export const SET_METHODS: readonly Method[] = [forget]
