/** The check at the end of a run: a block is changed wherever a scrub compares, and nowhere else. */
import t from 'tap'
import { createEngine } from '../../src/engine/engine.ts'
import { finalCheck } from './final-check.ts'
import { createSimPool } from './pool.ts'
import { type Scenario, simulate } from './simulate.ts'
import { Unit } from './unit.ts'
import { jobsOf, volumesOf } from './view.ts'
import type { World } from './world.ts'

const KIB = 1024
const SIZE_BYTES = 512 * KIB
/** So many that each subdisk which may be chosen is chosen. */
const SEEDS = 16
const pool = createSimPool()

type Parameters = Readonly<Record<string, string | readonly string[]>>

interface Kind {
  readonly layout: Parameters
  /** Of the copy that is added. */
  readonly copyOn?: readonly string[]
  /** Subdisks that are changed. */
  readonly compared: readonly string[]
}

const KINDS: Readonly<Record<string, Kind>> = {
  'a copy with a column behind the end of its volume': {
    layout: { stripe: ['d0', 'd1'], stripeSize: String(256 * KIB) },
    copyOn: ['d2', 'd3', 'd4'],
    compared: ['v.p0.s0', 'v.p0.s1', 'v.p1.s0', 'v.p1.s1'],
  },
  'a copy with a part of each column behind the end of its volume': {
    layout: { stripe: ['d0', 'd1'], stripeSize: String(64 * KIB) },
    copyOn: ['d2', 'd3', 'd4'],
    compared: ['v.p0.s0', 'v.p0.s1', 'v.p1.s0', 'v.p1.s1', 'v.p1.s2'],
  },
  'raid5 with a row that is larger than what was asked for': {
    layout: { raid5: ['d0', 'd1', 'd2', 'd3', 'd4'], stripeSize: String(256 * KIB) },
    compared: ['v.p0.s0', 'v.p0.s1', 'v.p0.s2', 'v.p0.s3', 'v.p0.s4'],
  },
}

/** Makes the volume, checks it, and tells `changed` the subdisk that the check has changed. */
function checks(seed: number, kind: Kind, changed: (subdisk: string) => void): Scenario {
  const disks = Array.from({ length: 5 }, (_, i) => ({
    name: `d${i}`,
    sizeBytes: 4096 * KIB,
    blockBytes: 512,
    volatileCache: true,
    discard: 'zeroes' as const,
    meanMs: 0.2,
    bytesPerMs: 500_000,
  }))
  return {
    options: { seed, pool, disks, makeTopology: createEngine },
    async play(world) {
      const machine = await world.boot()
      await verb(world, 'create', { size: String(SIZE_BYTES), ...kind.layout })
      if (kind.copyOn) await verb(world, 'add-mirror', { devices: kind.copyOn })
      while (jobsOf(machine).length > 0) await world.pause(100)
      for (const { uuid, name } of volumesOf(machine)) {
        new Unit(world, name, uuid, machine.topology.find(name))
      }
      await finalCheck(world)
      const notes = world.trace.notes(Number.POSITIVE_INFINITY)
      const [, subdisk] = /corrupted .*, (\S+)/.exec(notes.join('\n')) ?? []
      if (subdisk) changed(subdisk)
      await world.shutdown(machine)
    },
  }
}

async function verb(world: World, name: string, parameters: Parameters): Promise<void> {
  const error = await world.verb('volume', name, {
    name: 'v',
    wipeSignatures: true,
    ...parameters,
  })
  if (error) throw error
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(name, async (t) => {
    const changed = new Set<string>()
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { violation } = await simulate(checks(seed, kind, (one) => changed.add(one)))
      t.equal(violation?.message, undefined, `seed ${seed}`)
    }
    t.same([...changed].sort(), kind.compared)
  })
}
