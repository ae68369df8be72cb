/**
 * What a geom and a class are (GEOM). A class knows how to turn some providers into others: it tastes each
 * provider that appears and makes geoms; a geom has consumers below and providers above. To add a class,
 * copy src/engine/nop and add a row to engine.ts.
 */
import type { PlexusError } from '../../base/errors.ts'
import type { ObjectReport, ObjectType } from '../../control/reports.ts'
import type { VerbSpec } from '../../control/verb-spec.ts'
import type { Extent, Provisioning } from '../../hal/block-device.ts'
import type { AnchorTarget } from '../anchor/anchor-ends.ts'
import type { Anchor } from '../anchor/anchor-layout.ts'
import type { Bio } from './bio.ts'
import type { Consumer } from './consumer.ts'
import type { Label } from './label.ts'
import type { Provider } from './provider.ts'
import type { Topology } from './topology.ts'

/** Read, write and exclusive use, as counts or as changes of counts. */
export interface AccessCounts {
  readonly read: number
  readonly write: number
  readonly exclusive: number
}

export interface Geom {
  readonly name: string
  readonly className: string
  readonly providers: readonly Provider[]
  readonly consumers: readonly Consumer[]
  /**
   * Carries out one checked request to one of its providers: range, alignment, buffer and access are right.
   * `request.complete` is called exactly once, not from within `start`.
   */
  start(request: Bio, provider: Provider): void
  /** As extentAt of a BlockDevice, for a provider that is what the device below is. Absent: nobody knows. */
  extentAt?(offset: number, length: number): Promise<Extent>
  /** As that of a BlockDevice, for its only provider. */
  readonly provisioning?: Provisioning | undefined
  /** A provider below serves no more. Runs inside a topology change; the geom closes the consumer. */
  orphan(consumer: Consumer, reason: PlexusError): Promise<void> | void
  /** A provider below that this geom has attached to, but not opened, was opened for writing. */
  spoil?(consumer: Consumer): void
  /** A provider below has another size. */
  resized?(consumer: Consumer): void
  /**
   * Somebody wants to write on a device that takes part in nothing now. True: it is let go, or with `dryRun` it would be.
   */
  release?(consumer: Consumer, dryRun: boolean): Promise<boolean>
  /** Ends: orphans its providers, stops its jobs, closes its consumers. Runs inside a topology change. */
  wither(): Promise<void>
}

/** A verb with its action: the row of a class's table. The declaration is data that the command line shares. */
export interface Verb {
  readonly spec: VerbSpec
  /**
   * Does it. `parameters` has what the spec declares, by name, checked by control-server.ts against the spec:
   * text, true for a flag, a list for what may repeat. The answer is sent to the client as JSON.
   */
  run(parameters: VerbParameters, topology: Topology): Promise<unknown>
}

export type VerbParameters = Readonly<Record<string, string | boolean | readonly string[]>>

export interface GeomClass {
  /** Lower case: `vinum`; the class in the anchor. */
  readonly name: string
  /**
   * Looks at a provider that has just appeared. `anchor` is what topology.ts found in its last sector. Returns
   * true when it has taken the provider. Must only read. Runs inside a topology change.
   */
  taste(provider: Provider, anchor: Anchor | undefined, topology: Topology): Promise<boolean>
  /** What its label on a device says; `anchor` as in {@link taste}. Must only read, and takes nothing. */
  readLabel?(device: AnchorTarget, anchor: Anchor | undefined): Promise<Label | undefined>
  /**
   * Takes the room into use that the medium of a drive has gained. Throws `invalid` when it has gained nothing, `in-use` when it
   * cannot be done now. Undefined: the provider is none of its drives. Else what is done, or would be, in words.
   */
  resize?(provider: Provider, dryRun: boolean): Promise<string | undefined>
  /** Every device that is present at the start has been tasted: what is incomplete may be decided on now. */
  settled?(topology: Topology): Promise<void>
  readonly verbs: readonly Verb[]
  /** Of its objects, in the order in which lists show them. */
  readonly types?: readonly ObjectType[]
  /**
   * Its objects, also those that are not served now: for `plexus status` and all that tells of objects. Each stands before
   * its parts.
   */
  report?(): readonly ObjectReport[]
  /** The daemon stops: everything durable, jobs at a checkpoint. After it the consumers are closed. */
  stop?(): Promise<void>
}
