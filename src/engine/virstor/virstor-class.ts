/**
 * The virstor class: thin devices over components (docs/adr/0015-virstor.md). Finds the set that a verb is about, and
 * reports; what a set is and does: virstor-set.ts.
 */
import { formatSize } from '../../base/bytes.ts'
import { PlexusError } from '../../base/errors.ts'
import { newUuid } from '../../base/random.ts'
import {
  type ObjectReport,
  type ObjectType,
  type PlanReport,
  SET_AND_UUID,
  SIZE,
  STATE,
} from '../../control/reports.ts'
import { VIRSTOR_SPECS } from '../../control/virstor-verbs.ts'
import type { AnchorTarget } from '../anchor/anchor-ends.ts'
import type { Anchor } from '../anchor/anchor-layout.ts'
import type { Label } from '../geom/label.ts'
import { listVerbs } from '../geom/listing.ts'
import { checkNameFree, releaseName } from '../geom/names.ts'
import type { Provider } from '../geom/provider.ts'
import type { Topology } from '../geom/topology.ts'
import type { GeomClass, Verb, VerbParameters } from '../geom/types.ts'
import {
  assembleByForce,
  assembleFrom,
  choiceOf,
  describeIncomplete,
} from '../metadata/assembling.ts'
import { adviceOn } from '../metadata/members.ts'
import { absentSet, SET_TYPE } from '../metadata/set-report.ts'
import { SetTable } from '../metadata/set-table.ts'
import type { WitnessStore } from '../metadata/witness.ts'
import { examine, RandomTape } from '../verbs/candidates.ts'
import { carryOut, reportOf } from '../verbs/carry-out.ts'
import type { Plan } from '../verbs/plan.ts'
import { emptyVirstor, isUp, type VirstorModel } from './model.ts'
import { VIRSTOR_VERBS, type VirstorVerb } from './verbs.ts'
import { VirstorSet } from './virstor-set.ts'

export function createVirstorClass(options: {
  readonly witness: WitnessStore | undefined
}): GeomClass {
  return new VirstorClass(options.witness)
}

const TYPES: readonly ObjectType[] = [
  {
    name: 'virstor',
    plural: 'thin devices',
    columns: [
      { label: 'name', key: 'name' },
      STATE,
      SIZE,
      { label: 'chunk', key: 'chunkBytes', kind: 'size' },
      { label: 'space', key: 'physicalBytes', kind: 'size' },
      { label: 'used', key: 'usedBytes', kind: 'size' },
      { label: 'free', key: 'freeBytes', kind: 'size' },
      { label: 'components', key: 'components', kind: 'number' },
      ...SET_AND_UUID,
    ],
  },
  {
    name: 'component',
    plural: 'components of thin devices',
    columns: [
      { label: 'component', key: 'name' },
      STATE,
      SIZE,
      { label: 'of', key: 'parent' },
      { label: 'device', key: 'lastDevice' },
      { label: 'used-chunks', key: 'usedChunks', kind: 'number' },
      { label: 'map', key: 'carriesMap' },
      ...SET_AND_UUID,
    ],
  },
  SET_TYPE,
]

class VirstorClass implements GeomClass {
  readonly name = 'virstor'
  readonly types = TYPES
  readonly verbs: readonly Verb[]
  readonly #sets: SetTable<VirstorModel, VirstorSet>

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
      ...listVerbs([{ spec: VIRSTOR_SPECS.list, type: 'virstor' }], this, () => this.report()),
    ]
  }

  async taste(
    provider: Provider,
    anchor: Anchor | undefined,
    topology: Topology,
  ): Promise<boolean> {
    return anchor !== undefined && this.#sets.join(provider, anchor, topology)
  }

  async readLabel(_device: AnchorTarget, anchor: Anchor | undefined): Promise<Label | undefined> {
    if (!anchor) return undefined
    const set = this.#sets.all.find(({ uuid }) => uuid === anchor.setUuid)
    const model = set?.assembled ? set.model : undefined
    return {
      text: `a component of virstor set ${anchor.setUuid}`,
      drive: model?.drives.find(({ uuid }) => uuid === anchor.deviceUuid)?.name,
      volumes: model ? [model.name] : [],
      known: set !== undefined,
    }
  }

  settled(topology: Topology): Promise<void> {
    return this.#sets.settled(topology)
  }

  async stop(): Promise<void> {
    for (const set of this.#sets.all) await set.stop()
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
    const report = await carryOut(set, verb.spec, planOn).catch((error: unknown) => {
      if (!existing) this.#sets.forget(set)
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
    const set = this.#sets.all.find((one) => one.assembled && one.model.name === name)
    if (set) return set
    const message = `there is no thin device "${name}"; plexus virstor list shows all`
    throw new PlexusError('not-found', { op: 'find', subject: name, message })
  }

  /** `virstor assemble --force`: a set goes on without the components that are missing. */
  async #assemble(parameters: VerbParameters, topology: Topology): Promise<PlanReport> {
    const { set: only, dryRun, from } = parameters
    if (typeof from === 'string') return this.#assembleFrom(from, topology, dryRun === true)
    const waiting = this.#sets.all.filter(
      ({ assembled, name }) => !assembled && (only === undefined || only === name),
    )
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
      return { dryRun, steps, warnings: [], jobs: [] }
    }
    const message = `${from} is no component of a thin device that waits; plexus status shows those`
    throw new PlexusError('not-found', { op: 'assemble', subject: from, message })
  }

  report(): readonly ObjectReport[] {
    return this.#sets.all.flatMap((set) => (set.assembled ? deviceReports(set) : waiting(set)))
  }
}

function missingOf({ model }: VirstorSet): readonly string[] {
  return model.components
    .filter((component) => !isUp(model, component))
    .flatMap(({ driveUuid }) => model.drives.find(({ uuid }) => uuid === driveUuid)?.name ?? [])
}

function stateOf(set: VirstorSet): 'UP' | 'DEGRADED' | 'DOWN' {
  if (!set.device) return 'DOWN'
  return missingOf(set).length > 0 ? 'DEGRADED' : 'UP'
}

/** The device, and its components. */
function deviceReports(set: VirstorSet): readonly ObjectReport[] {
  const { model, device, problem } = set
  const { name, uuid, virtualBytes, chunkBytes, components } = model
  const common = { className: 'virstor', set: set.name }
  const state = stateOf(set)
  const missing = missingOf(set)
  const { total = 0, used = 0, free = 0 } = device?.space ?? {}
  const isFull = device?.space.free === 0
  const away =
    missing.length > 0
      ? `Component ${missing.join(', ')} is missing: what lies there cannot be read or written.`
      : ''
  const full = isFull ? 'All space is given away: writes to new places fail.' : ''
  const report: ObjectReport = {
    ...common,
    type: 'virstor',
    name,
    uuid,
    state,
    health:
      state === 'UP' ? (isFull ? 'DEGRADED' : 'HEALTHY') : state === 'DOWN' ? 'FAULTED' : state,
    sizeBytes: virtualBytes,
    note: device
      ? `thin, ${formatSize(used * chunkBytes)} of ${formatSize(total * chunkBytes)} used`
      : 'thin',
    status: [problem === undefined ? '' : `It is not served: ${problem}.`, away, full]
      .filter(Boolean)
      .join(' '),
    action: isFull
      ? `Add space: plexus virstor add ${name} DEVICE`
      : missing.length > 0
        ? `Connect ${missing.join(', ')}.`
        : '',
    facts: {
      chunkBytes,
      physicalBytes: total * chunkBytes,
      usedBytes: used * chunkBytes,
      freeBytes: free * chunkBytes,
      components: components.length,
    },
  }
  const parts = components.map((component): ObjectReport => {
    const { record, present, consumer } = set.driveOf(component)
    const space = device?.space.components.find((one) => one.component.id === component.id)
    const carriesMap = model.copies.some((copy) => copy.component === component.id)
    const notes = [
      space ? `${space.used} of ${space.total} chunks used` : '',
      carriesMap ? 'carries the map' : '',
    ]
    return {
      ...common,
      type: 'component',
      name: record.name,
      uuid: record.uuid,
      parent: name,
      state: isUp(model, component) ? 'UP' : 'DOWN',
      sizeBytes: component.chunks * chunkBytes,
      note: notes.filter(Boolean).join(', '),
      drive: record.name,
      device: present ? consumer?.provider.name : undefined,
      lastDevice: record.device,
      facts: { usedChunks: space?.used, carriesMap },
    }
  })
  return [report, ...parts]
}

function waiting(set: VirstorSet): readonly ObjectReport[] {
  const models = [...set.members.values()].flatMap(({ model }) => model ?? [])
  const [model] = models.sort((a, b) => b.generation - a.generation)
  if (!model || model.drives.length === 0) return []
  const { name, uuid } = set
  const status = `${name} with ${model.name} is not served: ${describeIncomplete(set)}.`
  const action = adviceOn(choiceOf(set), set)
  const part = { ...model, type: 'virstor', sizeBytes: model.virtualBytes }
  return absentSet({ className: 'virstor', name, uuid, status, action }, [part])
}
