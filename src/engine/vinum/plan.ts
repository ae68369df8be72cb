/**
 * What a vinum verb is: a pure function from the present model and its parameters to a plan, which is the
 * next model and what must be done beside it. The set (vinum-set.ts) plans again on the newest model inside its commit
 * queue, commits durably, and only then lets the change take effect; a dry run stops after planning. So a verb
 * validates all or changes nothing (docs/vinum.md, 8.23 and 8.24).
 */
import type { Random } from '../../base/random.ts'
import type { PlanStep } from '../../control/reports.ts'
import type { VerbSpec } from '../../control/verb-spec.ts'
import type { VerbParameters } from '../geom/types.ts'
import type { DriveRecord, VinumModel } from './model/model.ts'
import type { KeptConfiguration } from './set/memory.ts'

/** A provider that a verb names, examined before planning. */
export interface Candidate {
  /** Provider name: what the user typed. */
  readonly name: string
  /** For messages: the path of the device. */
  readonly path: string
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

export interface PlanContext {
  readonly model: VinumModel
  /** The examined provider of a name that the row's `devices` returned; undefined: there is none. */
  candidate(name: string): Candidate | undefined
  /** Is the volume open: a LUN is mapped, or something stands on it? */
  isOpen(volumeUuid: string): boolean
  /** Is the drive's device there now? */
  isPresent(driveUuid: string): boolean
  /** May copies of the volume, or its data and parity, not agree (control/reports.ts, DoubtReport)? */
  inDoubt(volumeUuid: string): boolean
  /** Name of the set that an object of the model belongs to. */
  setOf(uuid: string): string
  /**
   * Kept configurations of the set, the newest first: those that `needsKept` asked for. undefined: none are kept at all.
   */
  readonly kept: readonly KeptConfiguration[] | undefined
  readonly random: Random
}

/** A device that becomes a drive: labelled before the commit. */
export interface NewDrive {
  readonly candidate: Candidate
  readonly record: DriveRecord
}

export interface Plan {
  /** The model after; the same object when nothing changes. `generation` is the set's business. */
  readonly model: VinumModel
  readonly steps: readonly PlanStep[]
  readonly warnings: readonly string[]
  readonly newDrives: readonly NewDrive[]
  /** Drives that leave the set: their labels are cleared after the commit. */
  readonly retired: readonly DriveRecord[]
}

/** A verb that changes the configuration. Throws PlexusError when it must not or cannot. */
export interface PlanningVerb {
  readonly spec: VerbSpec
  /** Names of the providers that the parameters mention and that might become drives. */
  devices?(parameters: VerbParameters): readonly string[]
  /** Name of a volume that is looked for in the kept configurations. */
  needsKept?(parameters: VerbParameters): string
  plan(context: PlanContext, parameters: VerbParameters): Plan
}

/** A verb that only looks. The answer is JSON for the client. */
export interface ShowingVerb {
  readonly spec: VerbSpec
  show(context: PlanContext, parameters: VerbParameters): unknown
}

export type VinumVerb = PlanningVerb | ShowingVerb
