/**
 * WRITE SAME(10) and (16) (SBC-4, 5.49 and 5.50): one block of data to many blocks. Zeroes go to the device as one order; with UNMAP = 1
 * and a promise that unmapped blocks read as zeroes they are unmapped. All other blocks are written piece by piece, with
 * UNMAP = 1, too: the bit permits to unmap only what then still reads as the block. NUMBER OF LOGICAL BLOCKS 0 means up to the end (WSNZ = 0), within MAXIMUM WRITE SAME LENGTH. Listed by command-table.ts.
 */
import { defined } from '../../../base/assert.ts'
import { MAX_WRITE_SAME_BLOCKS } from '../../../base/limits.ts'
import type { BlockDevice } from '../../../hal/block-device.ts'
import { writeAt } from '../../../hal/io.ts'
import { lbaOf, lengthFieldAt, lengthFieldOf, usage10, usage16 } from '../cdb.ts'
import type { FieldPointer } from '../sense.ts'
import type { Task } from '../task.ts'
import type { BlockRange, LogicalUnit, ScsiCommand } from '../types.ts'
import {
  deviceOf,
  flushIfWriteThrough,
  headOf,
  leaseChunk,
  runSteps,
  stopIfAborted,
  unmapRange,
  zeroRange,
} from './medium.ts'

/** Byte 1. ANCHOR (10h) is outside of the usage masks: nothing can be anchored, ANC_SUP is 0. */
const UNMAP = 0x08
/** No Data-Out buffer, zeroes are meant; 16-byte form only, reserved in the other. */
const NDOB = 0x01

function hasUnmap(cdb: Buffer): boolean {
  return ((cdb[1] as number) & UNMAP) !== 0
}

function range(cdb: Buffer, lu: LogicalUnit): BlockRange {
  const lba = lbaOf(cdb)
  const blocks = lengthFieldOf(cdb)
  if (blocks !== 0) return { lba, blocks }
  return { lba, blocks: typeof lba === 'bigint' ? 0 : Math.max(0, lu.blocks - lba) }
}

/**
 * One block; none with NDOB. None, too, for UNMAP = 1 without any Data-Out: initiators (libiscsi) send that where they mean
 * NDOB, also in the 10-byte form which has no such bit, and to unmap is all that it can mean.
 */
function dataOutBytes(cdb: Buffer, lu: LogicalUnit, expectedBytes: number): number {
  const flags = cdb[1] as number
  if ((flags & NDOB) !== 0 || (hasUnmap(cdb) && expectedBytes === 0)) return 0
  return lu.blockBytes
}

function invalidField(cdb: Buffer, lu: LogicalUnit): FieldPointer | undefined {
  if (hasUnmap(cdb) && !lu.thin) return { byte: 1, bit: 3, inCdb: true }
  if (range(cdb, lu).blocks <= MAX_WRITE_SAME_BLOCKS) return undefined
  return { byte: lengthFieldAt(cdb), inCdb: true }
}

function execute(task: Task, lu: LogicalUnit): void {
  if (task.rangeBytes === 0) task.good()
  else runSteps(task, 'write', () => writeSame(task, lu))
}

async function writeSame(task: Task, lu: LogicalUnit): Promise<void> {
  const device = deviceOf(lu)
  const blocks = { offset: task.rangeOffset, length: task.rangeBytes }
  const unmaps = hasUnmap(task.cdb)
  const pattern = task.transferOutBytes === 0 ? undefined : task.dataOut?.bytes
  const isZero = pattern === undefined || isAllZero(pattern.subarray(0, lu.blockBytes))
  if (!isZero) await writePattern(task, lu, device, pattern)
  else if (unmaps && lu.thin && device.features.discardZeroes) {
    await unmapRange(task, device, blocks)
  } else await zeroRange(task, device, blocks)
  stopIfAborted(task)
  await flushIfWriteThrough(lu, device)
  task.good()
}

async function writePattern(
  task: Task,
  lu: LogicalUnit,
  device: BlockDevice,
  pattern: Buffer,
): Promise<void> {
  const scratch = leaseChunk(lu, task.rangeBytes)
  try {
    const block = defined(pattern, 'pattern').subarray(0, lu.blockBytes)
    for (let at = 0; at < scratch.bytes.length; at += block.length) block.copy(scratch.bytes, at)
    for (let at = 0; at < task.rangeBytes; at += scratch.bytes.length) {
      stopIfAborted(task)
      const piece = headOf(scratch, Math.min(scratch.bytes.length, task.rangeBytes - at))
      await writeAt(device, piece, task.rangeOffset + at, { cause: 'initiator' })
    }
  } finally {
    scratch.release()
  }
}

function isAllZero(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0)
}

const WRITE_SAME = {
  data: 'out',
  serialize: 'write',
  allow: {},
  writes: true,
  range,
  dataOutBytes,
  dataOutFit: 'exact',
  invalidField,
  execute,
} as const

export const rows: readonly ScsiCommand[] = [
  { ...WRITE_SAME, name: 'WRITE SAME(10)', opcode: 0x41, cdbUsage: usage10(0x41, UNMAP) },
  { ...WRITE_SAME, name: 'WRITE SAME(16)', opcode: 0x93, cdbUsage: usage16(0x93, UNMAP | NDOB) },
]
