/**
 * UNMAP (SBC-4, 5.33): releases ranges of blocks that the initiator does not need any more. Only on thin units. The whole list is checked
 * before anything is unmapped. Listed by command-table.ts.
 *
 *   parameter list   0 UNMAP DATA LENGTH (n - 1)   2 UNMAP BLOCK DESCRIPTOR DATA LENGTH   4 reserved   8 descriptors
 *   descriptor       0 LBA (8)   8 NUMBER OF LOGICAL BLOCKS (4)   12 reserved
 */
import { defined } from '../../../base/assert.ts'
import type { ByteRange } from '../../../base/bytes.ts'
import { UNMAP_BLOCKS, UNMAP_DESCRIPTORS } from '../../../base/limits.ts'
import { lbaAt } from '../cdb.ts'
import { ASC, failLbaOutOfRange, failParameterField, failWith, SENSE_KEY } from '../sense.ts'
import type { Task } from '../task.ts'
import type { LogicalUnit, ScsiCommand } from '../types.ts'
import { deviceOf, flushIfWriteThrough, runSteps, stopIfAborted, unmapRange } from './medium.ts'

const HEADER_BYTES = 8
const DESCRIPTOR_BYTES = 16

function execute(task: Task, lu: LogicalUnit): void {
  if (task.transferOutBytes === 0) {
    task.good()
    return
  }
  const list = defined(task.dataOut, 'parameter list of UNMAP').bytes
  const ranges = parseList(task, lu, list.subarray(0, task.transferOutBytes))
  if (ranges) runSteps(task, 'discard', () => unmapAll(task, lu, ranges))
}

/** The ranges in bytes; undefined: the list is at fault and the task has ended. */
function parseList(task: Task, lu: LogicalUnit, list: Buffer): ByteRange[] | undefined {
  if (list.length < HEADER_BYTES) return refuse(task, ASC.PARAMETER_LIST_LENGTH_ERROR)
  const descriptorBytes = list.readUInt16BE(2)
  if (list.readUInt16BE(0) + 2 > list.length || HEADER_BYTES + descriptorBytes > list.length) {
    return refuse(task, ASC.PARAMETER_LIST_LENGTH_ERROR)
  }
  // A descriptor that is cut off at the end is ignored (SBC-4, 5.33.2).
  const descriptors = Math.floor(descriptorBytes / DESCRIPTOR_BYTES)
  if (descriptors > UNMAP_DESCRIPTORS) {
    failParameterField(task, 2)
    return undefined
  }
  const ranges: ByteRange[] = []
  let totalBlocks = 0
  for (let i = 0; i < descriptors; i++) {
    const at = HEADER_BYTES + i * DESCRIPTOR_BYTES
    const lba = lbaAt(list, at)
    const blocks = list.readUInt32BE(at + 8)
    if (typeof lba === 'bigint' || blocks > lu.blocks - lba) {
      failLbaOutOfRange(task, lba, lu.blocks)
      return undefined
    }
    totalBlocks += blocks
    if (totalBlocks > UNMAP_BLOCKS) {
      failParameterField(task, at + 8)
      return undefined
    }
    ranges.push({ offset: lba * lu.blockBytes, length: blocks * lu.blockBytes })
  }
  return ranges
}

function refuse(task: Task, asc: number): undefined {
  failWith(task, SENSE_KEY.ILLEGAL_REQUEST, asc)
  return undefined
}

async function unmapAll(task: Task, lu: LogicalUnit, ranges: readonly ByteRange[]): Promise<void> {
  const device = deviceOf(lu)
  for (const range of ranges) await unmapRange(task, device, range)
  stopIfAborted(task)
  await flushIfWriteThrough(lu, device)
  task.good()
}

export const rows: readonly ScsiCommand[] = [
  {
    name: 'UNMAP',
    opcode: 0x42,
    // ANCHOR is outside of the mask: nothing can be anchored, ANC_SUP is 0.
    cdbUsage: [0x42, 0, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0],
    data: 'out',
    serialize: 'write',
    allow: {},
    writes: true,
    available: (lu) => lu.device === undefined || lu.thin,
    // The list says which blocks, but comes after the decision on order: the whole unit stands for them.
    range: (_cdb, lu) => ({ lba: 0, blocks: lu.blocks }),
    dataOutBytes: (cdb) => cdb.readUInt16BE(7),
    execute,
  },
]
