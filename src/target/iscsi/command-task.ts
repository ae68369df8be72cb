/**
 * A SCSI task with what the transport knows of it: its connection, and for writes how its data comes in
 * (RFC 7143, 4.2.5.2, 11.7 and 11.8). Made by command-transfer.ts, ended by response-transfer.ts.
 */
import { MAX_TRANSFER_BYTES } from '../../base/limits.ts'
import type { Lease } from '../../hal/block-device.ts'
import { Task } from '../scsi/task.ts'
import type { Connection } from './connection.ts'

/** One R2T that has not been fulfilled yet. */
export interface OutstandingR2t {
  readonly targetTransferTag: number
  /** Where its next Data-Out PDU must begin, and where its last one ends: bytes of the transfer. */
  offset: number
  readonly end: number
  dataSn: number
}

/** The way of Data-Out into one lease. All offsets are bytes within the transfer. */
export class WriteTransfer {
  readonly lease: Lease
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
  /** Sense data that ends the command once all announced data has come. */
  failure: Buffer | undefined = undefined

  constructor(lease: Lease, unsolicitedOpen: boolean, unsolicitedBytesMax: number) {
    this.lease = lease
    this.unsolicitedOpen = unsolicitedOpen
    this.unsolicitedBytesMax = unsolicitedBytesMax
  }
}

export class CommandTask extends Task {
  readonly connection: Connection
  readonly immediate: boolean
  transfer: WriteTransfer | undefined = undefined
  /** The device server has it: the buffer is no longer the transport's to give back. */
  executing = false
  /** What this read holds of the session's share of the pool (session.ts). */
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

  /** The most that the device server will lease for a read. */
  get wantedReadBytes(): number {
    return this.direction === 'in' ? Math.min(this.expectedBytes, MAX_TRANSFER_BYTES) : 0
  }

  /**
   * Gives the write buffer back, unless a data segment is on its way into it: then the end of that PDU
   * does. Once is enough, twice does no harm. Never called while the device may read the buffer.
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
    connection.established.returnWrite(transfer.lease.bytes.length)
    transfer.lease.release()
  }
}
