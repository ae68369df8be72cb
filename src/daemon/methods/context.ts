/**
 * What the control methods see of the daemon, and what a method is. plexusd.ts makes the context;
 * control-server.ts calls the methods.
 */
import type { Clock } from '../../base/clock.ts'
import type { Logger } from '../../base/log.ts'
import type { TargetLoad } from '../../control/daemon-reports.ts'
import type { VerbSpec } from '../../control/verb-spec.ts'
import type { Topology } from '../../engine/geom/topology.ts'
import type { VerbParameters } from '../../engine/geom/types.ts'
import type { SessionInfo } from '../../target/iscsi/session.ts'
import type { Config, TargetConfig } from '../config.ts'
import type { DeviceFacts } from '../device-memory.ts'
import type { SlotReport } from '../device-slots.ts'
import type { KeptSets } from '../kept-sets.ts'
import type { Plan } from '../reconcile.ts'
import type { UnitReport } from '../unit-slots.ts'

export interface ControlContext {
  readonly topology: Topology
  readonly clock: Clock
  readonly log: Logger
  /** Wall-clock time, for people. */
  readonly now: () => Date
  /** The configuration that runs. */
  config(): Config
  /** What a change from it to `next` would do, and to whom. */
  plan(next: Config): Promise<Plan>
  /** As {@link plan}; rejects as {@link reload} would with that configuration. */
  check(next: Config): Promise<Plan>
  /** Slots of the configured devices. */
  devices(): readonly SlotReport[]
  /** Slots of the providers that LUNs lead to. */
  units(): readonly UnitReport[]
  /** All sessions that are logged in, discovery included. */
  sessions(): readonly SessionInfo[]
  /** May initiators be named? Not to every user of the system. */
  readonly namesPeers: boolean
  /** What a device of the configuration was when it was last there. */
  remembered(name: string): DeviceFacts | undefined
  /** Bounds all jobs together, in bytes per second, now and after a restart; undefined: no bound. */
  limitJobs(bytesPerSecond: number | undefined): Promise<void>
  /** Initiators that are logged in to a target and to whom its mask shows a LUN. */
  initiatorsOf(target: TargetConfig, lun: number): readonly string[]
  /** What this machine remembers of its sets of drives. */
  readonly keptSets: Pick<KeptSets, 'known' | 'forget'>
  /** What peers hold of the target's memory and places. */
  targetLoad(): TargetLoad
  /**
   * Reads the file of the configuration again and applies it, as SIGHUP does; one at a time. Resolves to what
   * was done, in words. Rejects with PlexusError, and the old configuration runs on.
   */
  reload(): Promise<readonly string[]>
}

/** One call of a method, as the method sees it. */
export interface Call {
  readonly context: ControlContext
  /** Aborted when the client has left or the server closes: long methods end then. */
  readonly signal: AbortSignal
  /** Sends a notification to the client that called. */
  notify(method: string, params: object): void
}

/** A row of the table of methods: the declaration, and what is done. The answer is JSON. */
export interface Method {
  readonly spec: VerbSpec
  run(parameters: VerbParameters, call: Call): Promise<object>
}
