/**
 * GET LBA STATUS (SBC-3): which blocks are mapped, in runs. Image files know their holes; what does not know (block devices of the
 * kernel, volumes) and what is not thin says that all is mapped. A row of the command table.
 *
 *   byte 0  PARAMETER DATA LENGTH (n - 3)   byte 4  reserved   byte 8  descriptors
 *   descriptor  byte 0  LBA (8)   byte 8  NUMBER OF LOGICAL BLOCKS (4)   byte 12  PROVISIONING STATUS   byte 13  reserved
 */
import { LBA_STATUS_RUNS } from '../../../base/limits.ts'
import { lbaOf } from '../cdb.ts'
import type { Task } from '../task.ts'
import type { LogicalUnit, ScsiCommand } from '../types.ts'
import { deviceOf, runSteps, stopIfAborted } from './medium.ts'

const HEADER_BYTES = 8
const DESCRIPTOR_BYTES = 16
const BLOCKS_MAX = 0xffff_ffff
const STATUS = { MAPPED: 0, DEALLOCATED: 1 } as const

interface Run {
  readonly lba: number
  readonly blocks: number
  readonly status: number
}

/** The run that begins at a block. A block that is allocated in part only is mapped. */
async function runAt(lu: LogicalUnit, lba: number): Promise<Run> {
  const { blockBytes } = lu
  const most = Math.min(lu.blocks - lba, BLOCKS_MAX)
  const length = most * blockBytes
  const extent = lu.thin ? await deviceOf(lu).extentAt?.(lba * blockBytes, length) : undefined
  if (!extent) return { lba, blocks: most, status: STATUS.MAPPED }
  const free = extent.allocated ? 0 : Math.floor(extent.length / blockBytes)
  if (free > 0) return { lba, blocks: Math.min(free, most), status: STATUS.DEALLOCATED }
  const blocks = Math.min(Math.ceil(extent.length / blockBytes), most)
  return { lba, blocks, status: STATUS.MAPPED }
}

async function lbaStatus(task: Task, lu: LogicalUnit): Promise<void> {
  const allocationBytes = task.cdb.readUInt32BE(10)
  const room = Math.floor((allocationBytes - HEADER_BYTES) / DESCRIPTOR_BYTES)
  // The first run is looked at in any case. Fewer runs than there are is no error: the initiator asks on behind them.
  const runs: Run[] = []
  let lba = task.rangeOffset / lu.blockBytes
  do {
    const run = await runAt(lu, lba)
    stopIfAborted(task)
    runs.push(run)
    lba += run.blocks
  } while (runs.length < Math.min(room, LBA_STATUS_RUNS) && lba < lu.blocks)
  const data = Buffer.alloc(HEADER_BYTES + runs.length * DESCRIPTOR_BYTES)
  data.writeUInt32BE(data.length - 4, 0)
  runs.forEach((run, index) => {
    const at = HEADER_BYTES + index * DESCRIPTOR_BYTES
    data.writeBigUInt64BE(BigInt(run.lba), at)
    data.writeUInt32BE(run.blocks, at + 8)
    data.writeUInt8(run.status, at + 12)
  })
  task.goodWithData(data, allocationBytes)
}

export const rows: readonly ScsiCommand[] = [
  {
    name: 'GET LBA STATUS',
    opcode: 0x9e,
    serviceAction: 0x12,
    cdbUsage: [0x9e, 0x12, ...new Array<number>(12).fill(0xff), 0, 0],
    data: 'in',
    serialize: 'none',
    allow: {},
    range: (cdb) => ({ lba: lbaOf(cdb), blocks: 1 }),
    execute: (task, lu) => runSteps(task, 'read', () => lbaStatus(task, lu)),
  },
]
