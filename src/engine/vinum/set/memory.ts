/**
 * What a machine remembers of its sets beside their disks: their newest configurations, so that a set whose disks are away
 * is not forgotten, and what was removed can be brought back. The daemon keeps it in the state folder
 * (daemon/kept-sets.ts); without it, as in the simulator, nothing is remembered.
 */
import type { VinumModel } from '../model/model.ts'

/** A configuration as it was when a verb had changed it, or as its set was assembled. */
export interface KeptConfiguration {
  /** ISO 8601, for people. */
  readonly time: string
  readonly model: VinumModel
  /** What each drive was, by UUID, for people: model and serial number, or a path. */
  readonly drives: Readonly<Record<string, string>>
}

export interface SetMemory {
  /** The newest configuration of each set that has drives, in the order in which this machine came to know them. */
  readonly known: readonly KeptConfiguration[]
  /** Resolves when it is durable; rejects with PlexusError. */
  keep(model: VinumModel, drives: KeptConfiguration['drives']): Promise<void>
  /** All that is kept of a set, the newest first. */
  history(setUuid: string): Promise<readonly KeptConfiguration[]>
}
