/**
 * What a verb that changes a configuration is, for every class: a pure function from the present model and its parameters
 * to a plan, which is the next model and what must be done beside it (docs/adr/0007-verbs-are-plans.md). It is planned
 * again on the newest model inside the commit queue, committed durably, and only then takes effect (carry-out.ts); a dry
 * run stops after planning. So a verb validates all or changes nothing.
 */
import type { Random } from '../../base/random.ts'
import type { PlanStep } from '../../control/reports.ts'
import type { VerbSpec } from '../../control/verb-spec.ts'
import type { VerbParameters } from '../geom/types.ts'
import type { DriveRecord, SetModel } from '../metadata/set-model.ts'

/** A provider that a verb names, examined before planning. */
export interface Candidate {
  /** Provider name: what the user typed. */
  readonly name: string
  /** For messages: the path of the device. */
  readonly path: string
  /** Class of the geom that offers it: `disk`, `vinum`. */
  readonly className: string
  readonly sizeBytes: number
  readonly blockBytes: number
  readonly readOnly: boolean
  /** Who holds it, if somebody does: `lun`, `vinum drive d1`. */
  readonly inUse: string | undefined
  /** Another provider that is a path to the same disk. */
  readonly twin: string | undefined
  /** Foreign data that was found, in words: `ext4 "home"`. Empty: blank. */
  readonly contents: string
}

/** A device that becomes a drive: labelled before the commit. */
export interface NewDrive {
  readonly candidate: Candidate
  readonly record: DriveRecord
}

/** What a verb plans on. A class adds what its verbs ask for. */
export interface PlanContext<M extends SetModel> {
  readonly model: M
  /** The examined provider of a name that the row's `devices` returned; undefined: there is none. */
  candidate(name: string): Candidate | undefined
  /** Is the drive's device there now? */
  isPresent(driveUuid: string): boolean
  readonly random: Random
}

export interface Plan<M extends SetModel> {
  /** The model after; the same object when nothing changes. `generation` is the set's business. */
  readonly model: M
  readonly steps: readonly PlanStep[]
  readonly warnings: readonly string[]
  readonly newDrives: readonly NewDrive[]
  /** Drives that leave the set: their labels are cleared after the commit. */
  readonly retired: readonly DriveRecord[]
}

/** Throws PlexusError when it must not or cannot. */
export interface PlanningVerb<M extends SetModel, C extends PlanContext<M>> {
  readonly spec: VerbSpec
  /** Names of the providers that the parameters mention and that might become drives. */
  devices?(parameters: VerbParameters): readonly string[]
  plan(context: C, parameters: VerbParameters): Plan<M>
}

/** A verb that only looks. The answer is JSON for the client. */
export interface ShowingVerb<C> {
  readonly spec: VerbSpec
  show(context: C, parameters: VerbParameters): unknown
}
