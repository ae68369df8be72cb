/**
 * The virstor class: thin devices over components (docs/adr/0015-virstor.md). Finds the set that a verb is about, and
 * reports; what a set is and does: virstor-set.ts.
 */
import { PlexusError } from '../../base/errors.ts'
import { newUuid } from '../../base/random.ts'
import type { ObjectReport, PlanReport } from '../../control/reports.ts'
import { VIRSTOR_SPECS } from '../../control/virstor-verbs.ts'
import type { AnchorTarget } from '../anchor/anchor-ends.ts'
import type { Anchor } from '../anchor/anchor-layout.ts'
import type { Label } from '../geom/label.ts'
import { listVerbs } from '../geom/listing.ts'
import { checkNameFree, releaseName } from '../geom/names.ts'
import type { Provider } from '../geom/provider.ts'
import type { Topology } from '../geom/topology.ts'
import type { GeomClass, Verb, VerbParameters } from '../geom/types.ts'
import { assembleByForce, assembleFrom, describeIncomplete } from '../metadata/assembling.ts'
import { SetTable } from '../metadata/set-table.ts'
import type { WitnessStore } from '../metadata/witness.ts'
import { examine, RandomTape } from '../verbs/candidates.ts'
import { carryOut, reportOf } from '../verbs/carry-out.ts'
import type { Plan } from '../verbs/plan.ts'
import { FreebsdImports, readFreebsdLabel } from './freebsd/imports.ts'
import { importedObjects } from './freebsd/report.ts'
import { emptyVirstor, type VirstorModel } from './model.ts'
import { setObjects, VIRSTOR_TYPES } from './report.ts'
import { StoppedSets } from './stopped.ts'
import type { VirstorVerb } from './verbs/context.ts'
import { checkDevice } from './verbs/fsck.ts'
import { startAgain, stopDevice } from './verbs/stop.ts'
import { startTrim } from './verbs/trim.ts'
import { VIRSTOR_VERBS } from './verbs.ts'
import { VirstorSet } from './virstor-set.ts'

export function createVirstorClass(options: {
  readonly witness: WitnessStore | undefined
}): GeomClass {
  return new VirstorClass(options.witness)
}

class VirstorClass implements GeomClass {
  readonly name = 'virstor'
  readonly types = VIRSTOR_TYPES
  readonly verbs: readonly Verb[]
  readonly #stopped = new StoppedSets()
  readonly #sets: SetTable<VirstorModel, VirstorSet>
  /** Devices of FreeBSD's virstor. */
  readonly #imports = new FreebsdImports()

  constructor(witness: WitnessStore | undefined) {
    const onFailed = (set: VirstorSet): void => this.#sets.failed(set)
    const owed = new Map<string, PlexusError>()
    this.#sets = new SetTable((uuid, topology) => {
      return new VirstorSet(uuid, topology, { witness, onFailed, owed })
    })
    const inTurn =
      (action: Verb['run']): Verb['run'] =>
      (parameters, topology) =>
        topology.change(() => action(parameters, topology))
    this.verbs = [
      ...VIRSTOR_VERBS.map((verb) => ({
        spec: verb.spec,
        run: inTurn((parameters, topology) => this.#run(verb, parameters, topology)),
      })),
      {
        spec: VIRSTOR_SPECS.assemble,
        run: inTurn((parameters, topology) => this.#assemble(parameters, topology)),
      },
      {
        spec: VIRSTOR_SPECS.stop,
        run: inTurn((parameters) =>
          stopDevice(
            this.#stopped,
            this.#sets,
            this.#named(String(parameters['name'])),
            parameters,
          ),
        ),
      },
      {
        spec: VIRSTOR_SPECS.trim,
        run: inTurn(async ({ name, dryRun }) =>
          startTrim(this.#named(String(name)), dryRun === true),
        ),
      },
      // Not in turn: disks that come must not wait for it.
      {
        spec: VIRSTOR_SPECS.fsck,
        run: async ({ name, repair }) => checkDevice(this.#named(String(name)), repair === true),
      },
      {
        spec: VIRSTOR_SPECS.convert,
        run: inTurn((parameters, topology) => this.#imports.convert(parameters, topology)),
      },
      ...listVerbs([{ spec: VIRSTOR_SPECS.list, type: 'virstor' }], this, () => this.report()),
    ]
  }

  async taste(
    provider: Provider,
    anchor: Anchor | undefined,
    topology: Topology,
  ): Promise<boolean> {
    if (anchor && this.#stopped.nameOf(anchor.setUuid) !== undefined) return false
    return anchor
      ? this.#sets.join(provider, anchor, topology)
      : this.#imports.taste(provider, topology)
  }

  async readLabel(device: AnchorTarget, anchor: Anchor | undefined): Promise<Label | undefined> {
    if (!anchor) return readFreebsdLabel(device)
    const set = this.#sets.all.find(({ uuid }) => uuid === anchor.setUuid)
    const model = set?.hasDevice ? set.model : undefined
    const stopped = this.#stopped.nameOf(anchor.setUuid)
    return {
      text: `a component of virstor set ${anchor.setUuid}`,
      volumes: model ? [model.name] : stopped === undefined ? [] : [stopped],
      known: set !== undefined || stopped !== undefined,
    }
  }

  async settled(topology: Topology): Promise<void> {
    await this.#imports.settled((setUuid, uuid) => {
      const set = this.#sets.all.find((one) => one.uuid === setUuid)
      return set !== undefined && (set.members.has(uuid) || set.drives.get(uuid)?.present === true)
    })
    await this.#sets.settled(topology)
  }

  async stop(): Promise<void> {
    for (const set of this.#sets.all) await set.stop()
    await this.#imports.stop()
  }

  // Verbs.

  async #run(
    verb: VirstorVerb,
    parameters: VerbParameters,
    topology: Topology,
  ): Promise<PlanReport> {
    const name = String(parameters['name'])
    const existing = verb.spec.name === VIRSTOR_SPECS.create.name ? undefined : this.#named(name)
    if (!existing) checkNameFree(topology, name)
    const candidates = await examine(topology, verb.devices?.(parameters) ?? [])
    const tape = new RandomTape(topology.random)
    const planOn = (model: VirstorModel): Plan<VirstorModel> =>
      verb.plan(
        {
          model,
          candidate: (device) => candidates.get(device),
          isPresent: (uuid) => existing?.drives.get(uuid)?.present ?? false,
          space: existing?.device?.space.components,
          map: existing?.device?.table,
          isOpen: (existing?.device?.provider.consumers.size ?? 0) > 0,
          random: tape.rewound(),
        },
        parameters,
      )
    // Everything that can be refused is refused before there is a new set.
    const plan = planOn(existing?.model ?? emptyVirstor(''))
    if (parameters['dryRun'] === true) return reportOf(plan, true)
    const set = existing ?? this.#sets.of(newUuid(topology.random), topology)
    if (!existing) set.begin(emptyVirstor(set.uuid))
    const carry = (): Promise<PlanReport> => carryOut(set, verb.spec, planOn)
    const work = verb.around?.(set, plan.model, carry) ?? carry()
    const report = await work.catch(async (error: unknown) => {
      if (!existing) {
        await set.wither()
        this.#sets.forget(set)
      }
      throw error
    })
    if (set.model.drives.length > 0) {
      const trouble = set.problem === undefined ? [] : [`${name} is not served: ${set.problem}`]
      return { ...report, warnings: [...report.warnings, ...trouble] }
    }
    const { uuid } = set.model
    await set.wither()
    this.#sets.forget(set)
    const unreleased = await releaseName(topology, name, uuid)
    return { ...report, warnings: [...report.warnings, ...unreleased] }
  }

  /** Throws `not-found`. */
  #named(name: string): VirstorSet {
    const set = this.#sets.all.find((one) => one.hasDevice && one.model.name === name)
    if (set) return set
    const message = `there is no thin device "${name}"; plexus virstor list shows all`
    throw new PlexusError('not-found', { op: 'find', subject: name, message })
  }

  /** `virstor assemble`; with `--force` a set goes on without the components that are missing. */
  async #assemble(parameters: VerbParameters, topology: Topology): Promise<PlanReport> {
    const { set: only, dryRun, from } = parameters
    if (typeof from === 'string') return this.#assembleFrom(from, topology, dryRun === true)
    const started = await startAgain(this.#stopped, this.#sets, parameters, topology)
    if (started) return started
    const waiting = this.#sets.all.filter(({ assembled, name, members }) => {
      const isNamed =
        only === name || [...members.values()].some(({ model }) => model?.name === only)
      return !assembled && (only === undefined || isNamed)
    })
    const [set, second] = waiting
    const refuse = (message: string): PlexusError =>
      new PlexusError('invalid', { op: 'assemble', subject: 'virstor', message })
    if (!set) throw refuse('no thin device waits for components')
    if (second) {
      const names = waiting.map(({ name }) => name)
      throw refuse(
        `several wait: ${names.join(', ')}; name one: plexus virstor assemble ${set.name} --force`,
      )
    }
    const text = `assemble ${set.name} although ${describeIncomplete(set)}`
    if (parameters['force'] !== true) throw refuse(`${set.name}: ${describeIncomplete(set)}`)
    if (dryRun !== true) {
      await assembleByForce(set)
      await topology.tastePending()
    }
    return {
      dryRun: dryRun === true,
      steps: [{ text, object: set.name }],
      warnings: ['what only the missing components have cannot be read until they are back'],
      jobs: [],
    }
  }

  async #assembleFrom(from: string, topology: Topology, dryRun: boolean): Promise<PlanReport> {
    for (const set of this.#sets.all) {
      if (set.assembled) continue
      const member = [...set.members.values()].find((one) => one.consumer.provider.name === from)
      if (!member) continue
      const steps = [{ text: `assemble ${set.name} as ${from} has it`, object: set.name }]
      if (!dryRun) {
        await assembleFrom(set, member.uuid)
        await topology.tastePending()
      }
      const warning = `components that were used apart from ${from} stay out of it: what lies on them cannot be read`
      return { dryRun, steps, warnings: [warning], jobs: [] }
    }
    const message = `${from} is no component of a thin device that waits; plexus status shows those`
    throw new PlexusError('not-found', { op: 'assemble', subject: from, message })
  }

  report(): readonly ObjectReport[] {
    return [
      ...this.#sets.all.flatMap(setObjects),
      ...this.#stopped.objects(),
      ...this.#imports.all.flatMap(importedObjects),
    ]
  }
}
