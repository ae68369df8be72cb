/**
 * A SCSI task with what the transport knows of it: its connection, and for writes how its data comes in
 * (RFC 7143, 4.2.5.2, 11.7 and 11.8). Made by command-transfer.ts, ended by response-transfer.ts.
 */
import type { Lease } from '../../hal/block-device.ts'
import type { PduReader } from '../../iscsi/pdu-reader.ts'
import { TASK_STATE, Task } from '../scsi/task.ts'
import type { AscCode } from '../scsi/types.ts'
import type { Connection } from './connection.ts'

/** One R2T that has not been fulfilled yet. */
export interface OutstandingR2t {
  readonly targetTransferTag: number
  /** Where its next Data-Out PDU must begin, and where its last one ends: bytes of the transfer. */
  offset: number
  readonly end: number
  dataSn: number
}

/**
 * Receives Data-Out into one lease, which holds the bytes [base, end) of the transfer: all of it, or one piece after the
 * other. All offsets are bytes within the transfer.
 */
export class WriteTransfer {
  readonly lease: Lease
  base = 0
  end: number
  /** Unsolicited Data-Out PDUs may still come. */
  unsolicitedOpen: boolean
  /** Where the next unsolicited byte belongs, and the most of them there may be. */
  unsolicitedOffset = 0
  readonly unsolicitedBytesMax: number
  unsolicitedDataSn = 0
  /** Where the next R2T begins. */
  solicitOffset = 0
  r2tSn = 0
  readonly r2ts: OutstandingR2t[] = []
  /** Additional sense code that ends the command once all announced data has come. */
  failure: AscCode | undefined = undefined

  constructor(lease: Lease, unsolicitedOpen: boolean, unsolicitedBytesMax: number) {
    this.lease = lease
    this.end = lease.bytes.length
    this.unsolicitedOpen = unsolicitedOpen
    this.unsolicitedBytesMax = unsolicitedBytesMax
  }

  /** The present piece is with the device no more: the lease is for the next one. */
  nextPiece(totalBytes: number): void {
    this.base = this.end
    this.end = Math.min(totalBytes, this.base + this.lease.bytes.length)
  }

  /** Lets the reader put data for `offset` where it belongs; what lies outside of the piece is thrown away. */
  receive(reader: PduReader, offset: number, bytes: number): void {
    const at = offset - this.base
    const room = this.end - offset
    if (at >= 0 && bytes > 0 && room > 0) {
      reader.into(this.lease.bytes, at, Math.min(bytes, room))
    }
  }
}

export class CommandTask extends Task {
  readonly connection: Connection
  readonly immediate: boolean
  transfer: WriteTransfer | undefined = undefined
  /** What this read holds of the session's share of the pool (pool-share.ts). */
  readBytes = 0
  /** R2T or Data-In PDUs sent: ExpDataSN of the response (RFC 7143, 11.4.8). */
  dataPdus = 0

  constructor(
    connection: Connection,
    immediate: boolean,
    init: ConstructorParameters<typeof Task>[0],
  ) {
    super(init)
    this.connection = connection
    this.immediate = immediate
  }

  /** The device server has it: the write buffer is not the transport's to fill or to give back. */
  get executing(): boolean {
    return this.state === TASK_STATE.WAITING || this.state === TASK_STATE.RUNNING
  }

  /** Waits for Data-Out of its initiator. */
  get collecting(): boolean {
    return this.transfer !== undefined && this.state === TASK_STATE.COLLECTING
  }

  /** Bytes of the buffer pool that a READ still needs room for; 0 for other commands. */
  get leftToRead(): number {
    if (this.direction !== 'in' || !this.command?.inPieces) return 0
    return Math.min(this.rangeBytes, this.expectedBytes) - this.movedBytes
  }

  /**
   * Gives the write buffer back, unless a data segment is on its way into it: then the end of that PDU, or of the
   * connection, does. Once is enough, twice does no harm. Never called while the device may read the buffer.
   */
  releaseTransfer(): void {
    const transfer = this.transfer
    if (transfer === undefined) return
    const { connection } = this
    if (connection.task === this && connection.reader.midSegment && !connection.stream.isClosed) {
      return
    }
    this.transfer = undefined
    this.dataOut = undefined
    connection.established.writes.giveBack(transfer.lease.bytes.length)
    transfer.lease.release()
  }
}
