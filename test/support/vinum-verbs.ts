/**
 * A bench for the verbs of vinum: candidates by name, who is open, which drives are away. `run` plans a verb,
 * checks that the model that it was planned on is untouched and that the new one is sound on disk, and takes it
 * as the present one.
 */
import { createHash } from 'node:crypto'
import { assert } from '../../src/base/assert.ts'
import { PlexusError } from '../../src/base/errors.ts'
import { GIB } from '../../src/base/limits.ts'
import type { Random } from '../../src/base/random.ts'
import type { PlanReport } from '../../src/control/reports.ts'
import type { VerbParameters } from '../../src/engine/geom/types.ts'
import type { Candidate } from '../../src/engine/verbs/plan.ts'
import { decodeModel, encodeModel } from '../../src/engine/vinum/model/codec.ts'
import {
  type DriveRecord,
  emptyModel,
  type PlexRecord,
  type SubdiskRecord,
  type VinumModel,
  type VolumeRecord,
} from '../../src/engine/vinum/model/model.ts'
import type { Plan, PlanContext, VinumVerb } from '../../src/engine/vinum/plan.ts'
import { VINUM_VERBS } from '../../src/engine/vinum/verbs/index.ts'

/** The same bytes for the same seed. */
export function seededRandom(seed: string): Random {
  let count = 0
  return {
    bytes(length) {
      const parts: Buffer[] = []
      for (let have = 0; have < length; have += 32) {
        parts.push(createHash('sha256').update(`${seed}:${count++}`).digest())
      }
      return Buffer.concat(parts).subarray(0, length)
    },
  }
}

/** A model without anything. */
export function emptySet(): VinumModel {
  return emptyModel('5e70cafe-0000-4000-8000-000000000001')
}

export class VerbBench {
  model: VinumModel = emptySet()
  readonly candidates = new Map<string, Candidate>()
  readonly open = new Set<string>()
  /** UUIDs of volumes whose copies may not agree. */
  readonly inDoubt = new Set<string>()
  readonly away = new Set<string>()
  /** UUIDs of drives that turn. */
  readonly turning = new Set<string>()
  readonly random: Random
  lastPlan: Plan | undefined

  /** Devices that anybody may take: `d1` to `dN`, blank, 1 GiB each. */
  constructor(seed = 'bench', devices = 9) {
    this.random = seededRandom(seed)
    for (let number = 1; number <= devices; number++) this.device(`d${number}`)
  }

  device(name: string, facts: Partial<Candidate> = {}): void {
    this.candidates.set(name, {
      name,
      path: `/dev/${name}`,
      sizeBytes: 1 * GIB,
      blockBytes: 512,
      readOnly: false,
      inUse: undefined,
      twin: undefined,
      className: 'disk',
      contents: '',
      ...facts,
    })
  }

  context(random: Random = this.random): PlanContext {
    return {
      model: this.model,
      candidate: (name) => this.candidates.get(name),
      isOpen: (uuid) => this.open.has(uuid),
      isPresent: (uuid) =>
        this.model.drives.some((one) => one.uuid === uuid && one.device !== '') &&
        !this.away.has(uuid),
      isRotational: (uuid) => (this.away.has(uuid) ? undefined : this.turning.has(uuid)),
      inDoubt: (uuid) => this.inDoubt.has(uuid),
      kept: undefined,
      random,
    }
  }

  verb(words: string): VinumVerb {
    const [noun, name] = words.split(' ')
    const found = VINUM_VERBS.find((one) => one.spec.noun === noun && one.spec.name === name)
    assert(found, `there is a verb ${words}`)
    return found
  }

  /** The plan of a verb: nothing happens. */
  plan(words: string, parameters: VerbParameters = {}, random?: Random): Plan {
    const verb = this.verb(words)
    assert('plan' in verb, `${words} plans`)
    const before = JSON.stringify(this.model)
    try {
      return verb.plan(this.context(random), parameters)
    } finally {
      assert(JSON.stringify(this.model) === before, `${words} leaves the present model alone`)
    }
  }

  /** Plans, checks the new model as the codec does, and goes on from it. Returns the texts of steps. */
  run(words: string, parameters: VerbParameters = {}): Plan {
    const plan = this.plan(words, parameters)
    const written = encodeModel(plan.model)
    assert(encodeModel(decodeModel(written)).equals(written), `${words}: it is read as written`)
    this.model = plan.model
    // A device that is a drive now is in use; one that was retired is blank again.
    for (const { candidate, record } of plan.newDrives) {
      this.device(candidate.name, {
        ...candidate,
        contents: '',
        inUse: `vinum drive ${record.name}`,
      })
    }
    for (const { device } of plan.retired) {
      const candidate = this.candidates.get(device)
      if (candidate) this.device(device, { ...candidate, inUse: undefined })
    }
    this.lastPlan = plan
    return plan
  }

  show<T>(words: string, parameters: VerbParameters = {}): T {
    const verb = this.verb(words)
    assert('show' in verb, `${words} shows`)
    return verb.show(this.context(), parameters) as T
  }

  /** The error of a verb that must refuse: `kind: message`. The model stays as it is. */
  refusal(words: string, parameters: VerbParameters = {}): string {
    try {
      this.plan(words, parameters)
    } catch (error) {
      if (error instanceof PlexusError) return `${error.kind}: ${error.message}`
      throw error
    }
    return 'not refused'
  }

  /** All jobs end well, and what they were for is up: as the job's end in the set does. */
  settle(): void {
    if (this.model.drives.length === 0) return
    const size = (plex: PlexRecord) =>
      this.model.subdisks
        .filter((one) => one.plexUuid === plex.uuid)
        .reduce((sum, one) => sum + one.sizeBytes, 0)
    const moved = (one: SubdiskRecord): SubdiskRecord =>
      one.move ? { ...one, ...one.move, move: undefined } : one
    this.model = {
      ...this.model,
      jobs: [],
      subdisks: this.model.subdisks.map((one) =>
        one.state === 'reviving' ? { ...one, state: 'up' } : moved(one),
      ),
      plexes: this.model.plexes.map((one) => ({
        ...one,
        growth: undefined,
        parityValidBytes: one.organization === 'raid5' ? size(one) : one.parityValidBytes,
      })),
    }
    this.run('vinum saveconfig')
  }

  volume(name: string): VolumeRecord {
    return named(this.model.volumes, name)
  }

  plex(name: string): PlexRecord {
    return named(this.model.plexes, name)
  }

  subdisk(name: string): SubdiskRecord {
    return named(this.model.subdisks, name)
  }

  drive(name: string): DriveRecord {
    return named(this.model.drives, name)
  }

  /** The device of a drive goes away, as the set records it: its subdisks missed nothing yet. */
  lose(name: string): void {
    this.away.add(this.drive(name).uuid)
    this.run('vinum saveconfig')
  }

  /** `name state` of all subdisks of a plex, or of all. */
  states(plexName?: string): readonly string[] {
    const plex = plexName === undefined ? undefined : this.plex(plexName)
    return this.model.subdisks
      .filter((one) => !plex || one.plexUuid === plex.uuid)
      .map((one) => `${one.name} ${one.state}`)
  }

  /** `kind on object` of the jobs. */
  jobs(): readonly string[] {
    const { volumes, plexes, subdisks, jobs } = this.model
    const all = [...volumes, ...plexes, ...subdisks]
    return jobs.map(
      (job) => `${job.kind} on ${all.find((one) => one.uuid === job.targetUuid)?.name}`,
    )
  }
}

export function stepsOf(plan: Plan | PlanReport): readonly string[] {
  return plan.steps.map((one) => one.text)
}

function named<T extends { readonly name: string }>(records: readonly T[], name: string): T {
  const found = records.find((one) => one.name === name)
  assert(found, `there is ${name}`)
  return found
}
