/** What the verbs of vinum plan on, and what they are: verbs/plan.ts with vinum's model. */
import type { Topology } from '../geom/topology.ts'
import type { VerbParameters } from '../geom/types.ts'
import type { SetDrive } from '../metadata/set-drive.ts'
import type * as kit from '../verbs/plan.ts'
import { byUuid, type VinumModel } from './model/model.ts'
import type { KeptConfiguration } from './set/memory.ts'

export type Plan = kit.Plan<VinumModel>

export interface PlanContext extends kit.PlanContext<VinumModel> {
  /** Is the volume open: a LUN is mapped, or something stands on it? */
  isOpen(volumeUuid: string): boolean
  /** Does the drive turn? undefined: its device is not here. */
  isRotational(driveUuid: string): boolean | undefined
  /** May copies of the volume, or its data and parity, not agree (advice.ts, Doubt)? */
  inDoubt(volumeUuid: string): boolean
  /**
   * Kept configurations of the set, the newest first: those that `needsKept` asked for. undefined: none are kept at all.
   */
  readonly kept: readonly KeptConfiguration[] | undefined
}

export interface PlanningVerb extends kit.PlanningVerb<VinumModel, PlanContext> {
  /** Name of a volume that is looked for in the kept configurations. */
  needsKept?(parameters: VerbParameters): string
}

export type ShowingVerb = kit.ShowingVerb<PlanContext>
export type VinumVerb = PlanningVerb | ShowingVerb

/** `drives`: of the sets that the model is made of. */
export function contextOf(
  topology: Topology,
  drives: ReadonlyMap<string, SetDrive>,
  candidates: ReadonlyMap<string, kit.Candidate>,
  parts: Omit<PlanContext, 'candidate' | 'isOpen' | 'isPresent' | 'isRotational'>,
): PlanContext {
  return {
    ...parts,
    candidate: (name) => candidates.get(name),
    isOpen(volumeUuid) {
      const volume = byUuid(parts.model.volumes, volumeUuid)
      const provider = volume && topology.providers.get(volume.name)
      return provider !== undefined && provider.consumers.size > 0
    },
    isPresent: (driveUuid) => drives.get(driveUuid)?.present ?? false,
    isRotational: (driveUuid) => drives.get(driveUuid)?.consumer?.features.rotational,
  }
}
