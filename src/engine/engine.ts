/**
 * Puts the engine together: the list of classes, the events, the jobs, the graph. The daemon makes one, the
 * simulator makes one for each boot of its machine. A new class is one more row in `CLASSES`.
 */
import type { Clock } from '../base/clock.ts'
import { createKernels } from '../base/kernels.ts'
import type { Logger } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import type { BufferPool } from '../hal/block-device.ts'
import { EventLog } from './geom/events.ts'
import { type LunNames, NO_LUN_NAMES } from './geom/names.ts'
import { Topology } from './geom/topology.ts'
import type { GeomClass } from './geom/types.ts'
import { JobManager } from './jobs/job.ts'
import type { WitnessStore } from './metadata/witness.ts'
import { createNopClass } from './nop/nop-class.ts'
import type { SetMemory } from './vinum/set/memory.ts'
import { createVinumClass } from './vinum/vinum-class.ts'
import { createVirstorClass } from './virstor/virstor-class.ts'

/** They stop in this order: a class comes before those that it stands on. */
const CLASSES: readonly ((options: EngineOptions) => GeomClass)[] = [
  ({ witness }) => createVirstorClass({ witness }),
  ({ intentRegionBytes, memory, witness }) =>
    createVinumClass({ intentRegionBytes, memory, witness }),
  createNopClass,
]

export interface EngineOptions {
  /** With the memory in which parity is computed in place, where it has one. */
  readonly pool: BufferPool & { readonly memory?: WebAssembly.Memory }
  readonly clock: Clock
  readonly random: Random
  readonly log: Logger
  /** Wall-clock time for events; nothing is decided by it. */
  readonly now: () => Date
  /** The least region of vinum's intent maps, bytes; the simulator's volumes are small. Undefined: 1 MiB. */
  readonly intentRegionBytes?: number
  /** Of sets that were here before; undefined: nothing is remembered. */
  readonly memory?: SetMemory
  /** What LUNs have led to; undefined: nothing. */
  readonly lunNames?: LunNames
  /** Where sets keep a vote on this machine; undefined: they have no witness. */
  readonly witness?: WitnessStore
}

/** An empty graph with all classes. */
export function createEngine(options: EngineOptions): Topology {
  const { pool, clock, random, log, lunNames = NO_LUN_NAMES } = options
  const events = new EventLog(options.now)
  const jobs = new JobManager({ clock, log, events })
  const classes = CLASSES.map((create) => create(options))
  const kernels = createKernels(pool.memory)
  return new Topology({ classes, pool, kernels, clock, random, log, events, jobs, lunNames })
}
