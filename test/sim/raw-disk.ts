/**
 * The smallest scenario: one disk, served as it is. It proves the simulator itself: an honest disk passes, and
 * one that lies about flushes or acknowledges too soon does not. Used by sim.test.ts.
 */
import { createKernels } from '../../src/base/kernels.ts'
import type { EngineOptions } from '../../src/engine/engine.ts'
import { EventLog } from '../../src/engine/geom/events.ts'
import { Topology } from '../../src/engine/geom/topology.ts'
import { JobManager } from '../../src/engine/jobs/job.ts'
import type { AlignedPool } from '../../src/hal/aligned-pool.ts'
import type { Scenario } from './simulate.ts'
import { Unit } from './unit.ts'
import { Workload } from './workload.ts'
import type { World, WorldOptions } from './world.ts'

const MIB = 1024 * 1024
const PHASE_OPERATIONS = 100

export function rawDisk(
  seed: number,
  operations: number,
  pool: AlignedPool,
  wrapDevice?: WorldOptions['wrapDevice'],
): Scenario {
  const disk = {
    name: 'd0',
    sizeBytes: 2 * MIB,
    blockBytes: 512,
    volatileCache: true,
    discard: 'zeroes',
    meanMs: 0.5,
    bytesPerMs: 200_000,
  } as const
  return {
    options: { seed, pool, disks: [disk], makeTopology: withoutClasses, wrapDevice },
    play: (world) => play(world, operations),
  }
}

function withoutClasses({ pool, clock, random, log, now }: EngineOptions): Topology {
  const kernels = createKernels(pool.memory)
  const events = new EventLog(now)
  const jobs = new JobManager({ clock, log, events })
  return new Topology({ classes: [], pool, kernels, clock, random, log, events, jobs })
}

async function play(world: World, operations: number): Promise<void> {
  const random = world.random.fork('raw disk')
  let unit: Unit | undefined
  while (world.counts.operations < operations) {
    const machine = world.machine ?? (await world.boot())
    unit ??= new Unit(world, 'd0', '', machine.topology.find('d0'))
    await unit.open(machine)
    await new Workload(world, PHASE_OPERATIONS).run()
    const end = random.weighted([
      [4, 'cut'],
      [2, 'kill'],
      [1, 'shutdown'],
      [2, 'go on'],
    ] as const)
    if (end === 'cut') world.cut()
    else if (end === 'kill') world.kill()
    else if (end === 'shutdown') {
      await unit.idle()
      await world.shutdown(machine)
    }
  }
}
