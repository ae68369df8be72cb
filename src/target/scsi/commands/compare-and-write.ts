/**
 * COMPARE AND WRITE (SBC-4, 5.3): the first half of Data-Out is compared with the medium and, if every byte is equal, the second half is
 * written. ESXi locks its datastores with it. Atomic against every other command on these blocks: its class is
 * `exclusive` (task-set.ts). Listed by command-table.ts.
 */
import { defined } from '../../../base/assert.ts'
import type { AlignedBuffer, BlockDevice } from '../../../hal/block-device.ts'
import { DPO_FUA, hasFua, lbaOf } from '../cdb.ts'
import type { Task } from '../task.ts'
import type { BlockRange, LogicalUnit, ScsiCommand } from '../types.ts'
import { failMiscompare, findDifference } from './compare.ts'
import { deviceOf, leaseChunk, runSteps } from './medium.ts'

/** NUMBER OF LOGICAL BLOCKS: one byte, so MAXIMUM COMPARE AND WRITE LENGTH (VPD B0) is 255. */
function blocksOf(cdb: Buffer): number {
  return cdb[13] as number
}

function range(cdb: Buffer): BlockRange {
  return { lba: lbaOf(cdb), blocks: blocksOf(cdb) }
}

function execute(task: Task, lu: LogicalUnit): void {
  if (task.rangeBytes === 0) task.good()
  else runSteps(task, 'write', () => compareAndWrite(task, lu))
}

async function compareAndWrite(task: Task, lu: LogicalUnit): Promise<void> {
  const device = deviceOf(lu)
  const data = defined(task.dataOut, 'Data-Out of COMPARE AND WRITE')
  const blocks = { offset: task.rangeOffset, length: task.rangeBytes }
  const scratch = leaseChunk(lu, blocks.length)
  let difference: number | undefined
  try {
    const expected = data.bytes.subarray(0, blocks.length)
    difference = await findDifference(task, lu, blocks, expected, scratch)
  } finally {
    scratch.release()
  }
  if (difference !== undefined) {
    failMiscompare(task, difference)
    return
  }
  const fua = hasFua(task.cdb) || (!lu.mode.writeCacheEnabled && device.features.volatileWriteCache)
  await writeSecondHalf(device, data, blocks.offset, blocks.length, fua)
  task.good()
}

function writeSecondHalf(
  device: BlockDevice,
  data: AlignedBuffer,
  offset: number,
  length: number,
  fua: boolean,
): Promise<void> {
  return new Promise((resolve, reject) => {
    device.submit({
      op: 'write',
      offset,
      length,
      data,
      dataOffset: length,
      fua,
      cause: 'initiator',
      complete: (error) => (error ? reject(error) : resolve()),
    })
  })
}

export const rows: readonly ScsiCommand[] = [
  {
    name: 'COMPARE AND WRITE',
    opcode: 0x89,
    cdbUsage: [
      0x89,
      DPO_FUA,
      ...[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
      ...[0, 0, 0, 0xff, 0x1f, 0],
    ],
    data: 'out',
    serialize: 'exclusive',
    allow: {},
    writes: true,
    range,
    dataOutBytes: (cdb, lu) => 2 * blocksOf(cdb) * lu.blockBytes,
    dataOutFit: 'always-exact',
    execute,
  },
]
