/**
 * The class vinum: tastes labelled drives into sets (vinum-set.ts) and drives of FreeBSD into read-only sets,
 * and carries out the verbs. A verb is planned on the model, shown, or committed and let take effect; all inside
 * one topology change. spec/vinum.md, 3 and 6.
 */
import { PlexusError } from '../../base/errors.ts'
import type { Random } from '../../base/random.ts'
import type { PlanReport } from '../../control/reports.ts'
import { deviceContents, formatContents } from '../../hal/device-contents.ts'
import type { Anchor } from '../geom/anchor.ts'
import type { Provider } from '../geom/provider.ts'
import type { Topology } from '../geom/topology.ts'
import type { ClassReport, GeomClass, Verb, VerbParameters } from '../geom/types.ts'
import { byUuid, emptyModel, type VinumModel } from './model.ts'
import type { Candidate, Plan, PlanContext, PlanningVerb, VinumVerb } from './plan.ts'
import { reportSets } from './reports.ts'
import { VINUM_VERBS } from './verbs/index.ts'
import { newSet, VinumSet } from './vinum-set.ts'

export function createVinumClass(): GeomClass {
  return new VinumClass()
}

class VinumClass implements GeomClass {
  readonly name = 'vinum'
  readonly verbs: readonly Verb[]
  readonly #sets = new Map<string, VinumSet>()

  constructor() {
    this.verbs = VINUM_VERBS.map((verb) => ({
      spec: verb.spec,
      run: (parameters, topology) => topology.change(() => this.#run(verb, parameters, topology)),
    }))
  }

  async taste(
    provider: Provider,
    anchor: Anchor | undefined,
    topology: Topology,
  ): Promise<boolean> {
    if (!anchor) return false
    return this.#setOf(anchor.setUuid, topology).join(provider, anchor)
  }

  #setOf(uuid: string, topology: Topology): VinumSet {
    const known = this.#sets.get(uuid)
    if (known) return known
    const set = new VinumSet(uuid, topology, (failed) => this.#failed(failed))
    this.#add(set)
    return set
  }

  #add(set: VinumSet): void {
    this.#sets.set(set.uuid, set)
    set.topology.addGeom(set)
  }

  /** A set that can commit no more goes back to where it was before it was assembled. */
  #failed(set: VinumSet): void {
    const { topology } = set
    const again = async (): Promise<void> => {
      const providers = set.consumers.map(({ provider }) => provider)
      await set.wither()
      topology.removeGeom(set)
      this.#sets.delete(set.uuid)
      for (const provider of providers) topology.tasteAgain(provider)
      await topology.tastePending()
    }
    topology.change(again).catch((error: unknown) => {
      set.log.error({ err: error }, 'a failed set could not be taken apart')
    })
  }

  async settled(): Promise<void> {
    for (const set of this.#sets.values()) await set.tryAssemble()
  }

  async stop(): Promise<void> {
    for (const set of this.#sets.values()) await set.stop()
  }

  report(): ClassReport {
    return reportSets([...this.#sets.values()])
  }

  async #run(verb: VinumVerb, parameters: VerbParameters, topology: Topology): Promise<unknown> {
    const { noun, name } = verb.spec
    if (noun === 'vinum' && name === 'assemble') return this.#assemble(parameters)
    const set = this.#home()
    const model = set?.model ?? emptyModel('')
    const tape = new RandomTape(topology.random)
    if (!('plan' in verb)) {
      return verb.show(contextOf(topology, set, model, new Map(), tape), parameters)
    }
    const candidates = await examine(topology, verb.devices?.(parameters) ?? [])
    const planOn = (on: VinumModel): Plan =>
      verb.plan(contextOf(topology, set, on, candidates, tape.rewound()), parameters)
    if (parameters['dryRun'] === true) return reportOf(planOn(model), true, [])
    return this.#carryOut(verb, planOn, set, topology)
  }

  async #carryOut(
    verb: PlanningVerb,
    planOn: (model: VinumModel) => Plan,
    existing: VinumSet | undefined,
    topology: Topology,
  ): Promise<PlanReport> {
    // Everything that can be refused is refused before the first label is written.
    let plan = planOn(existing?.model ?? emptyModel(''))
    const set = existing ?? newSet(topology, (failed) => this.#failed(failed))
    if (!existing) this.#add(set)
    const before = new Set(set.model.jobs.map(({ id }) => id))
    try {
      await set.objects.jobs.endBefore(plan.model)
      for (const drive of plan.newDrives) await set.label(drive)
      await set.commit((model) => {
        plan = planOn(model)
        return { ...plan.model, setUuid: set.uuid }
      })
    } catch (error) {
      for (const { record } of plan.newDrives) await set.unlabel(record)
      if (existing) set.objects.startJobs(set.model)
      else {
        topology.removeGeom(set)
        this.#sets.delete(set.uuid)
      }
      throw error
    }
    await set.objects.reshape(set.model)
    for (const record of plan.retired) await set.unlabel(record)
    set.objects.startJobs(set.model)
    await topology.tastePending()
    topology.events.emit(
      'info',
      `${verb.spec.noun}-${verb.spec.name}`,
      plan.steps[0]?.object ?? set.name,
      plan.steps.map(({ text }) => text).join('; '),
    )
    const jobs = set.model.jobs.filter(({ id }) => !before.has(id))
    return reportOf(
      plan,
      false,
      jobs.map(({ id }) => topology.jobs.get(id).report()),
    )
  }

  /** The set that verbs work on: the one with most drives. */
  #home(): VinumSet | undefined {
    const sets = [...this.#sets.values()].filter((set) => set.assembled && !set.failure)
    return sets.sort((a, b) => b.model.drives.length - a.model.drives.length)[0]
  }

  async #assemble(parameters: VerbParameters): Promise<PlanReport> {
    const waiting = [...this.#sets.values()].filter((set) => !set.assembled)
    const dryRun = parameters['dryRun'] === true
    const verb = dryRun ? 'would assemble' : 'assemble'
    const steps = waiting.map((set) => ({
      text: `${verb} ${set.name} although ${set.describeIncomplete()}`,
      object: set.name,
    }))
    if (waiting.length === 0) {
      throw new PlexusError('invalid', {
        op: 'assemble',
        subject: 'vinum',
        message: 'no set waits for drives: every set that was found is assembled',
      })
    }
    if (parameters['force'] !== true) {
      throw new PlexusError('in-use', {
        op: 'assemble',
        subject: 'vinum',
        message:
          `${waiting.map((set) => `${set.name}: ${set.describeIncomplete()}`).join('; ')}. Connect the drives; ` +
          'or, if they are lost, assemble without them with --force: what only they have is lost then',
      })
    }
    if (!dryRun) for (const set of waiting) await set.assembleByForce()
    return { dryRun, steps, warnings: [], jobs: [] }
  }
}

function reportOf(plan: Plan, dryRun: boolean, jobs: PlanReport['jobs']): PlanReport {
  return { dryRun, steps: plan.steps, warnings: plan.warnings, jobs }
}

function contextOf(
  topology: Topology,
  set: VinumSet | undefined,
  model: VinumModel,
  candidates: ReadonlyMap<string, Candidate>,
  random: Random,
): PlanContext {
  return {
    model,
    candidate: (name) => candidates.get(name),
    isOpen(volumeUuid) {
      const volume = byUuid(model.volumes, volumeUuid)
      const provider = volume && topology.providers.get(volume.name)
      return provider !== undefined && provider.consumers.size > 0
    },
    isPresent: (driveUuid) => set?.drives.get(driveUuid)?.present ?? false,
    random,
  }
}

/** Looks at the providers that a verb names: whose they are, and what is on them. Unknown ones are left out. */
async function examine(
  topology: Topology,
  names: readonly string[],
): Promise<ReadonlyMap<string, Candidate>> {
  const found = new Map<string, Candidate>()
  for (const name of new Set(names)) {
    const provider = topology.providers.get(name)
    if (!provider) continue
    const holder = [...provider.consumers].find(({ access }) => access.write + access.exclusive > 0)
    const { sizeBytes, blockBytes, features } = provider
    found.set(name, {
      name,
      path: topology.device(name)?.path ?? name,
      sizeBytes,
      blockBytes,
      readOnly: features.readOnly,
      inUse: holder?.holder,
      contents: holder ? '' : await contentsOf(topology, provider),
    })
  }
  return found
}

async function contentsOf(topology: Topology, provider: Provider): Promise<string> {
  const access = { read: 1, write: 0, exclusive: 0 }
  const consumer = topology.attach(provider, undefined, 'a look at its contents', access)
  try {
    return formatContents(await deviceContents(consumer))
  } finally {
    await consumer.close()
  }
}

/** Gives the same bytes again when rewound: a plan that is made twice names its new objects alike. */
class RandomTape implements Random {
  readonly #source: Random
  readonly #tape: Buffer[]
  #position = 0

  constructor(source: Random, tape: Buffer[] = []) {
    this.#source = source
    this.#tape = tape
  }

  bytes(length: number): Buffer {
    const known = this.#tape[this.#position]
    if (known?.length !== length) {
      this.#tape.length = this.#position
      this.#tape.push(this.#source.bytes(length))
    }
    return Buffer.from(this.#tape[this.#position++] as Buffer)
  }

  rewound(): RandomTape {
    return new RandomTape(this.#source, this.#tape)
  }
}
