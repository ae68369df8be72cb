/**
 * READ and WRITE with 6, 10, 12 and 16 bytes (SBC-4, 5.15 to 5.20 and 5.40 to 5.45). The hot path: one lease, one request object, no promise.
 * Protection information is not supported, so RDPROTECT and WRPROTECT are outside of the usage masks (05/24/00).
 * Listed by command-table.ts.
 */
import { defined } from '../../../base/assert.ts'
import { alignUp } from '../../../base/bytes.ts'
import type { PlexusError } from '../../../base/errors.ts'
import { LARGE_TRANSFER_BYTES } from '../../../base/limits.ts'
import type { AlignedBuffer, IoRequest, Lease } from '../../../hal/block-device.ts'
import {
  DPO_FUA,
  hasFua,
  lbaOf,
  lengthFieldAt,
  lengthFieldOf,
  usage6,
  usage10,
  usage12,
  usage16,
} from '../cdb.ts'
import { type FieldPointer, failTask } from '../sense.ts'
import { STATUS, type Task } from '../task.ts'
import type { BlockRange, LogicalUnit, ScsiCommand } from '../types.ts'
import { failRead } from './bad-block.ts'
import { deviceOf, exhaustedError, goneError, leaseWithin } from './medium.ts'

/** Length 0 means 256 blocks in a 6-byte command and none in all others (SBC-4, 5.15). */
function blocksOf(cdb: Buffer): number {
  const blocks = lengthFieldOf(cdb)
  return blocks === 0 && (cdb[0] as number) < 0x20 ? 256 : blocks
}

function range(cdb: Buffer): BlockRange {
  return { lba: lbaOf(cdb), blocks: blocksOf(cdb) }
}

function dataOutBytes(cdb: Buffer, lu: LogicalUnit): number {
  return blocksOf(cdb) * lu.blockBytes
}

/** More than MAXIMUM TRANSFER LENGTH (VPD B0) is taken, too, since not all initiators look there first. */
function invalidLength(cdb: Buffer, lu: LogicalUnit): FieldPointer | undefined {
  if (blocksOf(cdb) * lu.blockBytes <= LARGE_TRANSFER_BYTES) return undefined
  return { byte: lengthFieldAt(cdb), inCdb: true }
}

/** A READ on its way: the request that the device gets, and what to do when it comes back. */
class ReadRequest implements IoRequest {
  readonly op = 'read'
  readonly offset: number
  readonly length: number
  readonly data: AlignedBuffer
  readonly dataOffset = 0
  readonly fua = false
  readonly cause = 'initiator'
  readonly #task: Task
  readonly #lease: Lease

  constructor(task: Task, lease: Lease, length: number) {
    this.offset = task.rangeOffset + task.movedBytes
    this.length = length
    this.data = lease
    this.#task = task
    this.#lease = lease
  }

  complete(error: PlexusError | undefined): void {
    const task = this.#task
    if (error) {
      const lu = defined(task.unit, 'unit of a read')
      // A disk that does not answer may still write to this memory; another disk has the data.
      const isKept = lu.pool.isKept(this.#lease)
      this.#lease.release()
      if (isKept && !task.aborted && lu.device) executeRead(task, lu)
      else failRead(task, lu, error, this)
      return
    }
    task.dataIn = this.#lease
    task.dataInBytes = task.rangeBytes
    if (task.movedBytes + this.length < wantedBytes(task)) task.endPiece()
    else task.good()
  }
}

/** A WRITE on its way. */
class WriteRequest implements IoRequest {
  readonly op = 'write'
  readonly offset: number
  readonly length: number
  readonly data: AlignedBuffer
  readonly dataOffset = 0
  readonly fua: boolean
  readonly cause = 'initiator'
  readonly #task: Task

  constructor(task: Task, data: AlignedBuffer, fua: boolean) {
    this.offset = task.rangeOffset + task.movedBytes
    this.length = task.pieceBytes || task.transferOutBytes
    this.data = data
    this.fua = fua
    this.#task = task
  }

  complete(error: PlexusError | undefined): void {
    const task = this.#task
    if (error) failTask(task, error, 'write')
    else if (task.movedBytes + this.length < task.transferOutBytes) task.endPiece()
    else task.good()
  }
}

/** What the initiator takes of the data that a READ asks for. */
function wantedBytes(task: Task): number {
  return task.direction === 'in' ? Math.min(task.rangeBytes, task.expectedBytes) : 0
}

/**
 * FUA on a READ needs nothing: there is no cache of ours, O_DIRECT reads come from the device, and a device returns
 * its newest data, on its medium or still in its cache. Where the initiator takes less than the CDB asks
 * for, only the blocks that it can get are read.
 */
function executeRead(task: Task, lu: LogicalUnit): void {
  if (task.failsNext) {
    task.check(task.failsNext)
    return
  }
  const left = wantedBytes(task) - task.movedBytes
  if (left === 0) {
    task.dataInBytes = task.rangeBytes
    task.good()
    return
  }
  const piece = task.pieceBytes === 0 ? left : Math.min(left, task.pieceBytes)
  const length = alignUp(piece, lu.blockBytes)
  const lease = lu.pool.lease(length)
  if (lease) submitRead(task, lu, lease)
  else leaseWithin(lu, length, (later) => submitLateRead(task, lu, later))
}

function submitRead(task: Task, lu: LogicalUnit, lease: Lease): void {
  deviceOf(lu).submit(new ReadRequest(task, lease, lease.bytes.length))
}

/** The lease came late, or not in time: the task may have been aborted and the device lost since. */
function submitLateRead(task: Task, lu: LogicalUnit, lease: Lease | undefined): void {
  if (lease && !task.aborted && lu.device) {
    submitRead(task, lu, lease)
    return
  }
  lease?.release()
  if (task.aborted) task.finish(STATUS.TASK_ABORTED, undefined)
  else failTask(task, lease ? goneError(lu) : exhaustedError(lu), 'read')
}

function executeWrite(task: Task, lu: LogicalUnit): void {
  if (task.transferOutBytes === 0) {
    task.good()
    return
  }
  const device = deviceOf(lu)
  const fua = hasFua(task.cdb) || (!lu.mode.writeCacheEnabled && device.features.volatileWriteCache)
  device.submit(new WriteRequest(task, defined(task.dataOut, 'Data-Out of a write'), fua))
}

const READ = {
  data: 'in',
  serialize: 'read',
  allow: {},
  range,
  invalidField: invalidLength,
  inPieces: true,
  execute: executeRead,
} as const

const WRITE = {
  data: 'out',
  serialize: 'write',
  allow: {},
  writes: true,
  range,
  dataOutBytes,
  dataOutFit: 'whole-blocks',
  invalidField: invalidLength,
  inPieces: true,
  execute: executeWrite,
} as const

export const rows: readonly ScsiCommand[] = [
  { ...READ, name: 'READ(6)', opcode: 0x08, cdbUsage: usage6(0x08) },
  { ...READ, name: 'READ(10)', opcode: 0x28, cdbUsage: usage10(0x28, DPO_FUA) },
  { ...READ, name: 'READ(12)', opcode: 0xa8, cdbUsage: usage12(0xa8, DPO_FUA) },
  { ...READ, name: 'READ(16)', opcode: 0x88, cdbUsage: usage16(0x88, DPO_FUA) },
  { ...WRITE, name: 'WRITE(6)', opcode: 0x0a, cdbUsage: usage6(0x0a) },
  { ...WRITE, name: 'WRITE(10)', opcode: 0x2a, cdbUsage: usage10(0x2a, DPO_FUA) },
  { ...WRITE, name: 'WRITE(12)', opcode: 0xaa, cdbUsage: usage12(0xaa, DPO_FUA) },
  { ...WRITE, name: 'WRITE(16)', opcode: 0x8a, cdbUsage: usage16(0x8a, DPO_FUA) },
]
