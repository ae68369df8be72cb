/**
 * The class vinum: has its devices tasted (registry.ts) and carries out the verbs. A verb is planned on the model,
 * shown, or committed and let take effect; all inside one topology change. docs/vinum.md, 6.
 */

import { PlexusError } from '../../base/errors.ts'
import { newUuid } from '../../base/random.ts'
import type { ObjectReport, PlanReport } from '../../control/reports.ts'
import { SPARE_SPECS } from '../../control/spare-verbs.ts'
import type { VerbSpec } from '../../control/verb-spec.ts'
import { VINUM_SPECS } from '../../control/vinum-verbs.ts'
import { VOLUME_SPECS } from '../../control/volume-verbs.ts'
import type { AnchorTarget } from '../anchor/anchor-ends.ts'
import type { Anchor } from '../anchor/anchor-layout.ts'
import type { Label } from '../geom/label.ts'
import { type ListVerb, listVerbs } from '../geom/listing.ts'
import { checkNameFree, checkNameNotAway } from '../geom/names.ts'
import type { Provider } from '../geom/provider.ts'
import type { Topology } from '../geom/topology.ts'
import type { GeomClass, Verb, VerbParameters } from '../geom/types.ts'
import { assembleByForce, assembleFrom, describeIncomplete } from '../metadata/assembling.ts'
import { resizeDrive } from '../metadata/sizes.ts'
import { examine, RandomTape } from '../verbs/candidates.ts'
import { carryOut, reportOf } from '../verbs/carry-out.ts'
import type { Candidate } from '../verbs/plan.ts'
import { prepareConversion, writeConversion } from './freebsd/convert.ts'
import type { FreebsdSet } from './freebsd/set.ts'
import { readVinumLabel } from './label.ts'
import { emptyModel, type VinumModel } from './model/model.ts'
import { address, shownNames, withBareNames, withShownNames } from './naming.ts'
import {
  contextOf,
  type Plan,
  type PlanContext,
  type PlanningVerb,
  type VinumVerb,
} from './plan.ts'
import { freeProviders, type RegistryOptions, SetRegistry } from './registry.ts'
import { reportSets } from './reports.ts'
import type { VinumSet } from './set/vinum-set.ts'
import { SpareKeeper } from './spare-keeper.ts'
import { VINUM_TYPES } from './types.ts'
import { type Draft, planning } from './verbs/draft.ts'
import { VINUM_VERBS } from './verbs/index.ts'
import { STOP } from './verbs/set-verbs.ts'
import { destroyedVolumes } from './verbs/undelete.ts'

export type VinumOptions = Omit<RegistryOptions, 'onChanged'>

export function createVinumClass(options: VinumOptions): GeomClass {
  return new VinumClass(options)
}

const LISTS: readonly ListVerb[] = [
  { spec: VINUM_SPECS.list },
  { spec: VINUM_SPECS.ld, type: 'drive' },
  { spec: VINUM_SPECS.lv, type: 'volume' },
  { spec: VINUM_SPECS.lp, type: 'plex' },
  { spec: VINUM_SPECS.ls, type: 'subdisk' },
  { spec: VOLUME_SPECS.list, type: 'volume' },
  { spec: VOLUME_SPECS.show, type: 'volume', recursive: true },
  { spec: SPARE_SPECS.list, type: 'pool', recursive: true },
]

interface PlanningFacts {
  readonly set: VinumSet | undefined
  readonly shown: ReadonlyMap<string, string>
  readonly candidates: ReadonlyMap<string, Candidate>
  readonly kept: PlanContext['kept']
}

type Action = (parameters: VerbParameters, topology: Topology) => Promise<unknown>

class VinumClass implements GeomClass {
  readonly name = 'vinum'
  readonly types = VINUM_TYPES
  readonly verbs: readonly Verb[]
  readonly #sets: SetRegistry

  constructor(options: VinumOptions) {
    const keeper = new SpareKeeper((...given) => this.#carryOutSpare(...given))
    this.#sets = new SetRegistry({ ...options, onChanged: (set) => keeper.poke(set) })
    this.verbs = [
      ...VINUM_VERBS.map((verb) =>
        inTurn(verb.spec, (parameters, topology) =>
          verb === STOP ? this.#halt(parameters, topology) : this.#run(verb, parameters, topology),
        ),
      ),
      inTurn(VINUM_SPECS.assemble, (...given) => this.#assemble(...given)),
      inTurn(VINUM_SPECS.convert, (...given) => this.#convert(...given)),
      ...listVerbs(LISTS, this, ({ freeList }) => reportSets(this.#sets, freeList === true)),
    ]
  }

  taste(provider: Provider, anchor: Anchor | undefined, topology: Topology): Promise<boolean> {
    // See newDrive of verbs/drives.ts.
    if (provider.geom.className === 'virstor') return Promise.resolve(false)
    return this.#sets.taste(provider, anchor, topology)
  }

  readLabel(device: AnchorTarget, anchor: Anchor | undefined): Promise<Label | undefined> {
    return readVinumLabel(device, anchor, (uuid) =>
      this.#sets.native.some((set) => set.uuid === uuid),
    )
  }

  async resize(provider: Provider, dryRun: boolean): Promise<string | undefined> {
    for (const set of this.#sets.native) {
      const drives = [...set.drives.values()]
      const drive = drives.find(({ consumer }) => consumer?.provider === provider)
      if (drive) return resizeDrive(set, drive, dryRun)
    }
    return undefined
  }

  settled(topology: Topology): Promise<void> {
    return this.#sets.settled(topology)
  }

  stop(): Promise<void> {
    return this.#sets.stop()
  }

  report(): readonly ObjectReport[] {
    return reportSets(this.#sets)
  }

  // Verbs.

  async #run(verb: VinumVerb, given: VerbParameters, topology: Topology): Promise<unknown> {
    const shown = shownNames(this.#sets.served)
    if (!('plan' in verb)) {
      const { set, parameters } = address(verb.spec, given, this.#sets.served, shown)
      const isOfOne = parameters['set'] !== undefined
      return verb.show(this.#wholeContext(topology, isOfOne ? set : undefined), parameters)
    }
    const { set: named, parameters } = address(verb.spec, given, this.#sets.assembled, shown)
    const set = named ?? (await this.#owner(verb, parameters)) ?? this.#defaultFor(verb)
    const candidates = await examine(topology, verb.devices?.(parameters) ?? [])
    const kept = verb.needsKept && set ? await this.#sets.history(set) : this.#sets.keeps
    const planOn = this.#planner(verb, parameters, topology, { set, shown, candidates, kept })
    if (parameters['dryRun'] === true) return reportOf(planOn(set?.model ?? emptyModel('')), true)
    return this.#carryOut(verb, planOn, set, topology)
  }

  /** The verb as a function of the configuration that is stored: the same plan for the same one. */
  #planner(
    verb: PlanningVerb,
    parameters: VerbParameters,
    topology: Topology,
    { set, shown, candidates, kept }: PlanningFacts,
  ): (stored: VinumModel) => Plan {
    const tape = new RandomTape(topology.random)
    const drives = set?.drives ?? new Map()
    const inDoubt = this.#inDoubt
    return (stored) => {
      const random = tape.rewound()
      const model = withShownNames(stored, shown)
      const parts = { model, inDoubt, kept, random }
      const context = contextOf(topology, drives, candidates, parts)
      const plan = verb.plan(context, parameters)
      const next = plan.model === model ? stored : withBareNames(plan.model)
      checkNames(next, stored, topology)
      return { ...plan, model: next }
    }
  }

  /** What a spare does by itself: as a verb, that nobody has typed. */
  async #carryOutSpare(
    set: VinumSet,
    spec: VerbSpec,
    work: (draft: Draft) => void,
  ): Promise<PlanReport> {
    const { topology } = set
    const shown = shownNames(this.#sets.served)
    const facts = { set, shown, candidates: new Map(), kept: undefined }
    const planOn = this.#planner(planning(spec, [], work), {}, topology, facts)
    const report = await carryOut(set, spec, planOn)
    await this.#sets.remember(set)
    return report
  }

  /** The set that had a destroyed volume which the verb looks for. */
  async #owner(verb: PlanningVerb, parameters: VerbParameters): Promise<VinumSet | undefined> {
    const wanted = verb.needsKept?.(parameters)
    if (wanted === undefined) return undefined
    for (const set of this.#sets.assembled) {
      const destroyed = destroyedVolumes((await this.#sets.history(set)) ?? [], set.model)
      if (destroyed.some(({ name }) => name === wanted)) return set
    }
    return undefined
  }

  /** The set of a verb that names nothing. Throws `invalid` where it is about one of several sets as a whole. */
  #defaultFor({ spec }: PlanningVerb): VinumSet | undefined {
    const sets = this.#sets.assembled
    const isOfOne = spec.arguments.some(({ kind }) => kind === 'set')
    if (sets.length < 2 || !isOfOne) return sets[0]
    throw severalSets(spec, sets)
  }

  async #carryOut(
    verb: PlanningVerb,
    planOn: (model: VinumModel) => Plan,
    existing: VinumSet | undefined,
    topology: Topology,
  ): Promise<PlanReport> {
    // Everything that can be refused is refused before there is a new set.
    if (!existing) planOn(emptyModel(''))
    const set = existing ?? this.#sets.create(topology)
    // With the states of this moment, for who wants it back.
    if (existing) await this.#sets.remember(set)
    const report = await carryOut(set, verb.spec, planOn).catch(async (error: unknown) => {
      if (!existing) {
        await set.wither()
        this.#sets.forget(set)
      }
      throw error
    })
    const unkept = await this.#sets.remember(set)
    if (set.model.drives.length === 0) {
      // The last drive is out: nothing could carry its configuration. What comes next makes a new set.
      await set.wither()
      this.#sets.forget(set)
    }
    return { ...report, warnings: [...report.warnings, ...unkept] }
  }

  /** Everything that is served, or one set, as one model: for what only looks, and for `stop`. */
  #wholeContext(topology: Topology, only?: VinumSet | FreebsdSet): PlanContext {
    const sets = only ? [only] : this.#sets.served
    const shown = shownNames(only ? [] : sets)
    const models = sets.map((set) => withShownNames(set.model, shown))
    const model: VinumModel = {
      ...emptyModel(sets[0]?.model.setUuid ?? ''),
      volumes: models.flatMap(({ volumes }) => volumes),
      plexes: models.flatMap(({ plexes }) => plexes),
      subdisks: models.flatMap(({ subdisks }) => subdisks),
      drives: models.flatMap((one) => one.drives),
      jobs: models.flatMap(({ jobs }) => jobs),
    }
    const drives = new Map(sets.flatMap((set) => [...set.drives]))
    const parts = { model, inDoubt: this.#inDoubt, kept: undefined, random: topology.random }
    return contextOf(topology, drives, new Map(), parts)
  }

  readonly #inDoubt = (volumeUuid: string): boolean =>
    this.#sets.assembled.some((set) => set.objects.jobs.doubtOf(volumeUuid))

  /** `vinum stop`: every set rests, until `vinum assemble` or the next start. */
  async #halt(parameters: VerbParameters, topology: Topology): Promise<PlanReport> {
    const plan = STOP.plan(this.#wholeContext(topology), parameters)
    const dryRun = parameters['dryRun'] === true
    if (!dryRun) {
      await this.#sets.halt(topology)
      topology.events.emit('info', 'vinum-stop', 'vinum', 'vinum rests: plexus vinum assemble')
    }
    return reportOf(plan, dryRun)
  }

  /**
   * `vinum assemble`: looks again at what nobody holds; with `--force` sets go on without what they miss; with `--from` one
   * goes on as a drive has it.
   */
  async #assemble(parameters: VerbParameters, topology: Topology): Promise<PlanReport> {
    const dryRun = parameters['dryRun'] === true
    const known = new Set(this.#assembledNames())
    const free = freeProviders(topology)
    if (!dryRun) await this.#sets.retaste(topology)
    const found = this.#assembledNames().filter((name) => !known.has(name))
    const steps = found.map((name) => ({ text: `assemble ${name}`, object: name }))
    if (dryRun) {
      steps.push({ text: `look at ${free.length} devices that nobody holds`, object: 'vinum' })
    }
    const { from, set: only } = parameters
    if (typeof from === 'string') {
      const { set, uuid } = this.#sets.driveNamed(from)
      steps.push({ text: `assemble ${set.name} as ${from} has it`, object: set.name })
      if (!dryRun) await assembleFrom(set, uuid)
      if (!dryRun) await topology.tastePending()
      return { dryRun, steps, warnings: [], jobs: [] }
    }
    const waiting = this.#sets.native.filter(
      ({ assembled, name }) => !assembled && (only === undefined || only === name),
    )
    const force = parameters['force'] === true
    if (force && waiting.length > 1) throw severalSets(VINUM_SPECS.assemble, waiting)
    const { failure } = this.#sets.native.find((set) => set.failure) ?? {}
    if (steps.length === 0 && failure) throw failure
    if (steps.length === 0 && !(force && waiting.length > 0)) throw nothingToAssemble(waiting)
    if (force) {
      for (const set of waiting) {
        const text = `assemble ${set.name} although ${describeIncomplete(set)}`
        steps.push({ text, object: set.name })
        if (dryRun) continue
        await assembleByForce(set)
        await this.#sets.remember(set)
      }
      if (!dryRun) await topology.tastePending()
    }
    const warnings = force
      ? []
      : waiting.map((set) => `${set.name} still waits: ${describeIncomplete(set)}`)
    return { dryRun, steps, warnings, jobs: [] }
  }

  #assembledNames(): readonly string[] {
    return this.#sets.served.map(({ name }) => name)
  }

  /** `vinum convert`: the drives of FreeBSD become one more set. */
  async #convert(parameters: VerbParameters, topology: Topology): Promise<PlanReport> {
    const set = this.#sets.imported
    if (!set?.assembled) {
      const message =
        'there are no drives of FreeBSD that could be assembled; plexus vinum ld shows the drives'
      throw new PlexusError('not-found', { op: 'convert', subject: 'vinum', message })
    }
    const conversion = prepareConversion(set, newUuid(topology.random))
    const { drives } = conversion.model
    const steps = [
      ...drives.map(({ name, device }) => ({
        text: `write label on ${name} (${device})`,
        object: name,
      })),
      ...drives.map(({ name }) => ({
        text: `mark FreeBSD's header on ${name} as removed`,
        object: name,
      })),
      { text: 'make all copies and parity equal in the background', object: 'vinum' },
    ]
    const { warnings } = conversion.plan
    if (parameters['dryRun'] === true) return { dryRun: true, steps, warnings, jobs: [] }
    const trouble = await writeConversion(set, conversion)
    await this.#sets.dissolveImported(topology)
    await topology.tastePending()
    const text = `${drives.length} drives of FreeBSD have the native format now`
    topology.events.emit('info', 'vinum-convert', 'vinum', text)
    const reports = topology.jobs.list().map((job) => job.report())
    const jobs = reports.filter(({ state }) => state === 'running')
    return { dryRun: false, steps, warnings: [...warnings, ...trouble], jobs }
  }
}

function severalSets(spec: VerbSpec, sets: readonly VinumSet[]): PlexusError {
  const names = sets.map(({ name }) => name)
  return new PlexusError('invalid', {
    op: spec.name,
    subject: spec.noun,
    message: `there are several sets: ${names.join(', ')}; name one: plexus ${spec.noun} ${spec.name} ${names[0]}`,
  })
}

function inTurn(spec: VerbSpec, action: Action): Verb {
  const run: Action = (parameters, topology) => topology.change(() => action(parameters, topology))
  return { spec, run }
}

/** Throws `exists` when a volume of the plan would need a name that something else has. */
function checkNames(next: VinumModel, now: VinumModel, topology: Topology): void {
  for (const { uuid, name } of next.volumes) {
    const same = now.volumes.filter((one) => one.name === name)
    if (same.some((one) => one.uuid === uuid)) continue
    // A name that this very plan sets free is free.
    if (same.length > 0) checkNameNotAway(topology, name)
    else checkNameFree(topology, name)
  }
}

function nothingToAssemble(waiting: readonly VinumSet[]): PlexusError {
  if (waiting.length === 0) {
    const message = 'no set waits for drives: every set that was found is assembled'
    return new PlexusError('invalid', { op: 'assemble', subject: 'vinum', message })
  }
  const message =
    `${waiting.map((set) => `${set.name}: ${describeIncomplete(set)}`).join('; ')}. Connect the drives; or, if they ` +
    `are lost: plexus vinum assemble --force ${waiting[0]?.name}; what only they have is lost then`
  return new PlexusError('in-use', { op: 'assemble', subject: 'vinum', message })
}
