/**
 * VERIFY and WRITE AND VERIFY with 10, 12 and 16 bytes (SBC-4, 5.34 to 5.36 and 5.46 to 5.48). BYTCHK: 0 reads the blocks, 1 compares
 * them with the Data-Out buffer, 3 (VERIFY only) compares each with one block of Data-Out. Long ranges are read
 * piece by piece. Listed by command-table.ts.
 */
import { defined } from '../../../base/assert.ts'
import { writeAt } from '../../../hal/io.ts'
import { lbaOf, lengthFieldOf, usage10, usage12, usage16 } from '../cdb.ts'
import type { FieldPointer } from '../sense.ts'
import type { Task } from '../task.ts'
import type { BlockRange, LogicalUnit, ScsiCommand } from '../types.ts'
import { readPieces } from './bad-block.ts'
import { failMiscompare, findDifference } from './compare.ts'
import { deviceOf, headOf, leaseChunk, leaseChunkSoon, runSteps } from './medium.ts'

const BYTCHK_NONE = 0
const BYTCHK_COMPARE = 1
const BYTCHK_ONE_BLOCK = 3
/** DPO and both bits of BYTCHK. */
const FLAGS = 0x16

function byteCheckOf(cdb: Buffer): number {
  return ((cdb[1] as number) >> 1) & 3
}

function range(cdb: Buffer): BlockRange {
  return { lba: lbaOf(cdb), blocks: lengthFieldOf(cdb) }
}

/** BYTCHK 2 is reserved (SBC-4, table 124). */
function invalidVerify(cdb: Buffer): FieldPointer | undefined {
  return byteCheckOf(cdb) === 2 ? { byte: 1, bit: 2, inCdb: true } : undefined
}

/** BYTCHK 2 and 3 are reserved in WRITE AND VERIFY. */
function invalidWriteAndVerify(cdb: Buffer): FieldPointer | undefined {
  return byteCheckOf(cdb) > BYTCHK_COMPARE ? { byte: 1, bit: 2, inCdb: true } : undefined
}

function verifyOutBytes(cdb: Buffer, lu: LogicalUnit): number {
  const byteCheck = byteCheckOf(cdb)
  const blocks = lengthFieldOf(cdb)
  if (byteCheck === BYTCHK_NONE || blocks === 0) return 0
  return (byteCheck === BYTCHK_ONE_BLOCK ? 1 : blocks) * lu.blockBytes
}

function writeOutBytes(cdb: Buffer, lu: LogicalUnit): number {
  return lengthFieldOf(cdb) * lu.blockBytes
}

function executeVerify(task: Task, lu: LogicalUnit): void {
  if (task.rangeBytes === 0) task.good()
  else runSteps(task, 'read', () => verify(task, lu))
}

async function verify(task: Task, lu: LogicalUnit): Promise<void> {
  const blocks = { offset: task.rangeOffset, length: task.rangeBytes }
  const expected = task.dataOut && headOf(task.dataOut, task.transferOutBytes).bytes
  const compares = task.transferOutBytes > 0 && expected !== undefined
  const scratch = compares ? leaseChunk(lu, blocks.length) : await leaseChunkSoon(lu, blocks.length)
  try {
    if (!compares) {
      await readPieces(task, lu, blocks, scratch, () => true)
      task.good()
      return
    }
    const difference = await findDifference(task, lu, blocks, expected, scratch)
    if (difference === undefined) task.good()
    else failMiscompare(task, difference)
  } finally {
    scratch.release()
  }
}

function executeWriteAndVerify(task: Task, lu: LogicalUnit): void {
  if (task.transferOutBytes === 0) task.good()
  else runSteps(task, 'write', () => writeAndVerify(task, lu))
}

/** Writes through the device's cache to the medium, then reads back what is there. */
async function writeAndVerify(task: Task, lu: LogicalUnit): Promise<void> {
  const device = deviceOf(lu)
  const data = headOf(defined(task.dataOut, 'Data-Out of a write'), task.transferOutBytes)
  const blocks = { offset: task.rangeOffset, length: data.bytes.length }
  // The buffer comes first: without one nothing is written.
  const scratch = leaseChunk(lu, blocks.length)
  try {
    await writeAt(device, data, blocks.offset, { fua: true, cause: 'initiator' })
    if (byteCheckOf(task.cdb) === BYTCHK_NONE) {
      await readPieces(task, lu, blocks, scratch, () => true)
      task.good()
      return
    }
    const difference = await findDifference(task, lu, blocks, data.bytes, scratch)
    if (difference === undefined) task.good()
    else failMiscompare(task, difference)
  } finally {
    scratch.release()
  }
}

const VERIFY = {
  data: 'out',
  serialize: 'read',
  allow: {},
  range,
  dataOutBytes: verifyOutBytes,
  dataOutFit: 'exact',
  invalidField: invalidVerify,
  execute: executeVerify,
} as const

// Exclusive, as another write between writing and reading back would be taken for a fault of the medium.
const WRITE_AND_VERIFY = {
  data: 'out',
  serialize: 'exclusive',
  allow: {},
  writes: true,
  range,
  dataOutBytes: writeOutBytes,
  dataOutFit: 'whole-blocks',
  invalidField: invalidWriteAndVerify,
  execute: executeWriteAndVerify,
} as const

export const rows: readonly ScsiCommand[] = [
  { ...VERIFY, name: 'VERIFY(10)', opcode: 0x2f, cdbUsage: usage10(0x2f, FLAGS) },
  { ...VERIFY, name: 'VERIFY(12)', opcode: 0xaf, cdbUsage: usage12(0xaf, FLAGS) },
  { ...VERIFY, name: 'VERIFY(16)', opcode: 0x8f, cdbUsage: usage16(0x8f, FLAGS) },
  {
    ...WRITE_AND_VERIFY,
    name: 'WRITE AND VERIFY(10)',
    opcode: 0x2e,
    cdbUsage: usage10(0x2e, FLAGS),
  },
  {
    ...WRITE_AND_VERIFY,
    name: 'WRITE AND VERIFY(12)',
    opcode: 0xae,
    cdbUsage: usage12(0xae, FLAGS),
  },
  {
    ...WRITE_AND_VERIFY,
    name: 'WRITE AND VERIFY(16)',
    opcode: 0x8e,
    cdbUsage: usage16(0x8e, FLAGS),
  },
]
