/**
 * SYNCHRONIZE CACHE and PRE-FETCH with 10 and 16 bytes (SBC-4, 5.11, 5.12, 5.31 and 5.32). Plexus has no cache of its own: SYNCHRONIZE CACHE
 * flushes the device's, whole, whatever the range (which SBC permits); PRE-FETCH has nowhere to fetch to and
 * says GOOD, as CONDITION MET would claim that the blocks are in a cache. Listed by command-table.ts.
 */

import type { PlexusError } from '../../../base/errors.ts'
import { flush } from '../../../hal/io.ts'
import { lbaOf, lengthFieldOf, usage10, usage16 } from '../cdb.ts'
import type { Task } from '../task.ts'
import type { BlockRange, LogicalUnit, ScsiCommand } from '../types.ts'
import { deviceOf, runSteps } from './medium.ts'

const IMMED = 0x02
/** SYNC_NV, obsolete since SBC-3: accepted without effect. */
const SYNC_NV = 0x04

/** NUMBER OF LOGICAL BLOCKS 0 means up to the end: such a range is good wherever its first block is. */
function range(cdb: Buffer): BlockRange {
  return { lba: lbaOf(cdb), blocks: lengthFieldOf(cdb) }
}

function executeSynchronize(task: Task, lu: LogicalUnit): void {
  const device = deviceOf(lu)
  if (((task.cdb[1] as number) & IMMED) === 0) {
    runSteps(task, 'flush', async () => {
      await flush(device)
      task.good()
    })
    return
  }
  // GOOD comes before the flush has ended, so a failure is a deferred error of the nexus: it must not get lost.
  flush(device).catch((error: PlexusError) => lu.deferError(task.nexus, error, 'flush'))
  task.good()
}

const SYNCHRONIZE = {
  data: 'none',
  // A flush covers what has completed and orders nothing, so it never waits for plain commands.
  serialize: 'none',
  allow: {},
  range,
  execute: executeSynchronize,
} as const

const PRE_FETCH = {
  data: 'none',
  serialize: 'none',
  allow: {},
  range,
  execute: (task: Task) => task.good(),
} as const

export const rows: readonly ScsiCommand[] = [
  {
    ...SYNCHRONIZE,
    name: 'SYNCHRONIZE CACHE(10)',
    opcode: 0x35,
    cdbUsage: usage10(0x35, IMMED | SYNC_NV),
  },
  {
    ...SYNCHRONIZE,
    name: 'SYNCHRONIZE CACHE(16)',
    opcode: 0x91,
    cdbUsage: usage16(0x91, IMMED | SYNC_NV),
  },
  { ...PRE_FETCH, name: 'PRE-FETCH(10)', opcode: 0x34, cdbUsage: usage10(0x34, IMMED) },
  { ...PRE_FETCH, name: 'PRE-FETCH(16)', opcode: 0x90, cdbUsage: usage16(0x90, IMMED) },
]
