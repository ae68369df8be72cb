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
  /** The volume (UUID) to which LUNs of this name have led. */
  exportedAs(name: string): string | undefined
  /** The set will not come back, or what LUNs of this name have led to. Names are free then. */
  forget(what: { readonly setUuid: string } | { readonly name: string }): Promise<void>
}

/** The volume (UUID) that a name belongs to: the one that LUNs have led to, else that of the set known longest. */
export function holderOf(memory: SetMemory | undefined, name: string): string | undefined {
  const volumes = memory?.known.flatMap(({ model }) => model.volumes)
  return memory?.exportedAs(name) ?? volumes?.find((one) => one.name === name)?.uuid
}
