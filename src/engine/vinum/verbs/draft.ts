/**
 * A plan in the making: the model that grows step by step, beside the steps and warnings that tell of it.
 * The present model is never touched (all records are immutable), so a verb that throws changes nothing
 * (all or nothing). Every planning verb works on one Draft.
 */
import { phrase } from '../../../base/errors.ts'
import type { PlanStep } from '../../../control/reports.ts'
import type { VerbSpec } from '../../../control/verb-spec.ts'
import type { VerbParameters } from '../../geom/types.ts'
import { listOf, Parameters } from '../../verbs/parameters.ts'
import type { NewDrive } from '../../verbs/plan.ts'
import { jobsForAll } from '../jobs/plans.ts'
import { allotMapSlots } from '../model/map-slots.ts'
import {
  addRecord,
  byUuid,
  type DriveRecord,
  findBy,
  type JobRecord,
  type PlexRecord,
  plexesOf,
  putRecord,
  type Records,
  type SubdiskRecord,
  sizeOfPlex,
  subdisksBelow,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
} from '../model/model.ts'
import { forgetDrives } from '../model/spares.ts'
import { derive, lastCopyLost } from '../model/state-rules.ts'
import type { Plan, PlanContext, PlanningVerb } from '../plan.ts'

export class Draft extends Parameters {
  readonly context: PlanContext
  model: VinumModel
  readonly newDrives: NewDrive[] = []
  readonly retired: DriveRecord[] = []
  readonly #steps: PlanStep[] = []
  readonly #warnings: string[] = []

  constructor(context: PlanContext, parameters: VerbParameters, op: string) {
    super(op, parameters)
    this.context = context
    this.model = context.model
  }

  /** What is done, as a template: its first value is the name of the object. */
  step(text: TemplateStringsArray, ...values: readonly unknown[]): void {
    this.stepOn(String(values[0]), phrase(text, values))
  }

  /** As {@link step}, where the object does not come first in the sentence. */
  stepOn(object: string, text: string): void {
    this.#steps.push({ text, object })
  }

  warn(text: TemplateStringsArray, ...values: readonly unknown[]): void {
    const warning = phrase(text, values)
    if (!this.#warnings.includes(warning)) this.#warnings.push(warning)
  }

  /** Is the drive's device there, or about to get its label? */
  readonly isPresent = (driveUuid: string): boolean =>
    this.newDrives.some((one) => one.record.uuid === driveUuid) || this.context.isPresent(driveUuid)

  // The model.

  addDrive(drive: NewDrive): void {
    this.newDrives.push(drive)
    this.add('drives', drive.record)
  }

  add<L extends keyof Records>(list: L, record: Records[L]): void {
    this.model = addRecord(this.model, list, record)
  }

  put<L extends keyof Records>(list: L, record: Records[L]): void {
    this.model = putRecord(this.model, list, record)
  }

  /** Takes objects out of the model, with the jobs that work on them and what refers to them. */
  drop(uuids: ReadonlySet<string>): void {
    const kept = <T extends { readonly uuid: string }>(records: readonly T[]): readonly T[] =>
      records.filter((one) => !uuids.has(one.uuid))
    const model = forgetDrives(this.model, uuids)
    this.model = {
      ...model,
      drives: kept(model.drives),
      subdisks: kept(model.subdisks),
      plexes: kept(model.plexes),
      volumes: kept(model.volumes).map((one) => forgetPreference(one, uuids)),
      jobs: model.jobs.filter((one) => !uuids.has(one.targetUuid)),
    }
    this.dropEmptyPlaceholders()
  }

  /** Placeholders exist for what lies on them; an empty one goes. */
  dropEmptyPlaceholders(): void {
    const used = new Set(this.model.subdisks.map((one) => one.driveUuid))
    this.model = {
      ...this.model,
      drives: this.model.drives.filter((one) => !isPlaceholder(one) || used.has(one.uuid)),
    }
  }

  drive(uuid: string): DriveRecord | undefined {
    return byUuid(this.model.drives, uuid)
  }

  subdisksOf(plex: PlexRecord): readonly SubdiskRecord[] {
    return subdisksOf(this.model, plex.uuid)
  }

  plexesOf(volume: VolumeRecord): readonly PlexRecord[] {
    return plexesOf(this.model, volume.uuid)
  }

  subdisksBelow(volume: VolumeRecord): readonly SubdiskRecord[] {
    return subdisksBelow(this.model, volume.uuid)
  }

  /** The volume above a plex, or undefined for a detached one. */
  volumeOf(plex: PlexRecord | undefined): VolumeRecord | undefined {
    return byUuid(this.model.volumes, plex?.volumeUuid)
  }

  /** The plex above a subdisk, or undefined for a detached one. */
  plexOf(subdisk: SubdiskRecord | undefined): PlexRecord | undefined {
    return byUuid(this.model.plexes, subdisk?.plexUuid)
  }

  /** Has the subdisk only its place in a plex, and no device? */
  isHole(subdisk: SubdiskRecord): boolean {
    const drive = this.drive(subdisk.driveUuid)
    return drive !== undefined && isPlaceholder(drive)
  }

  plexBytes(plex: PlexRecord): number {
    return sizeOfPlex(plex, this.subdisksOf(plex))
  }

  /** The jobs that work on a plex, its subdisks, or the volume above it. */
  jobsOn(plex: PlexRecord): readonly JobRecord[] {
    const targets = new Set([plex.uuid, ...this.subdisksOf(plex).map((one) => one.uuid)])
    if (plex.volumeUuid !== undefined) targets.add(plex.volumeUuid)
    return this.model.jobs.filter((one) => targets.has(one.targetUuid))
  }

  /** Throws `in-use` while a job works on the plex. */
  checkIdle(plex: PlexRecord, what: string): void {
    const job = this.jobsOn(plex)[0]
    if (!job) return
    const why = `${what}: job ${job.id} (${job.kind}) works on ${plex.name}; wait for it, or cancel it: plexus job cancel ${job.id}`
    this.fail('in-use', plex.name, why)
  }

  /** Would the subdisks' leaving cost a volume a part of its data? The name of what would be lost. */
  lastCopyLost(subdisks: readonly SubdiskRecord[]): string | undefined {
    return lastCopyLost(
      this.model,
      subdisks.map((one) => one.uuid),
    )
  }

  /** Lets the state rules decide every derived state. */
  derive(): void {
    this.model = derive(this.model, this.isPresent)
  }

  /**
   * Starts what brings the objects up to date. Where nothing can, that is a warning: the verb itself is done.
   */
  startJobs(...targets: readonly { readonly uuid: string }[]): void {
    this.derive()
    for (const refusal of this.#start(targets).refusals) {
      if (refusal.kind !== 'invalid') throw refusal
      this.warn`${refusal.message}`
    }
  }

  /** As {@link startJobs}, but the refusal is the verb's. Returns how many jobs begin. */
  startJobsOrThrow(target: { readonly uuid: string }): number {
    const { jobs, refusals } = this.#start([target])
    if (refusals[0]) throw refusals[0]
    return jobs.length
  }

  #start(targets: readonly { readonly uuid: string }[]): ReturnType<typeof jobsForAll> {
    const { random } = this.context
    const uuids = targets.map((one) => one.uuid)
    const needed = jobsForAll(this.model, uuids, { random })
    this.model = needed.model
    for (const job of needed.jobs) this.tellJob(job)
    return needed
  }

  tellJob(job: JobRecord): void {
    const name = findBy(this.model, 'uuid', job.targetUuid)?.record.name ?? job.targetUuid
    this.stepOn(name, `start job ${job.kind} on ${name}`)
  }

  addJob(job: JobRecord): void {
    this.model = { ...this.model, jobs: [...this.model.jobs, job] }
    this.tellJob(job)
  }

  /** The plan. The model stays the same object where nothing changed, so that nothing is written. */
  finish(): Plan {
    if (this.model !== this.context.model) {
      this.derive()
      this.model = allotMapSlots(this.model)
    }
    return {
      model: this.model,
      steps: this.#steps,
      warnings: this.#warnings,
      newDrives: this.newDrives,
      retired: this.retired,
    }
  }
}

/** The volume without a preference for a plex that is gone. */
export function forgetPreference(volume: VolumeRecord, gone: ReadonlySet<string>): VolumeRecord {
  const preferred = volume.preferredPlexUuid
  if (preferred === undefined || !gone.has(preferred)) return volume
  return { ...volume, readPolicy: 'round-robin', preferredPlexUuid: undefined }
}

/**
 * A drive that no device stands behind: it keeps the place of a subdisk that was detached, or whose drive was
 * removed, so that the plex keeps its columns and its size (vinum's REFERENCED drives). Never up, never votes.
 */
export function isPlaceholder(drive: DriveRecord): boolean {
  return drive.device === ''
}

/** A verb that `work` plans on a fresh draft; `devices` names the parameters whose values may be devices. */
export function planning(
  spec: VerbSpec,
  devices: readonly string[],
  work: (draft: Draft) => void,
): PlanningVerb {
  return {
    spec,
    devices: (parameters) => devices.flatMap((name) => listOf(parameters, name)),
    plan(context, parameters) {
      const draft = new Draft(context, parameters, `${spec.noun} ${spec.name}`)
      work(draft)
      return draft.finish()
    },
  }
}
