/**
 * One SCSI command of the test initiator (RFC 7143, 11.3 to 11.8): what it sends as immediate, unsolicited
 * and solicited data, and the checks on Data-In, R2T and the response. Used by test/support/initiator.ts.
 */
import type { LoginResult } from './initiator-login.ts'
import {
  AT,
  FINAL,
  IMMEDIATE,
  lunField,
  NO_TAG,
  newHeader,
  OP,
  opcodeOf,
  type Pdu,
} from './initiator-pdu.ts'

export interface ScsiOptions {
  readonly cdb: Buffer
  readonly lun?: number
  /** Expected Data-In bytes. */
  readonly read?: number
  /** Data-Out. */
  readonly write?: Buffer
  /** Expected data transfer length where it is to differ from `read` or `write`. */
  readonly expectedBytes?: number
  /** Task attribute, default SIMPLE (1). */
  readonly attribute?: number
  /** Sent with the immediate bit: beside the CmdSN window. */
  readonly immediateCommand?: boolean
  /** Bytes sent with the command; default as much as was negotiated. */
  readonly immediateBytes?: number
  /** False: no unsolicited Data-Out, even where it is allowed. */
  readonly unsolicited?: boolean
  /** Called for each R2T; false leaves it unanswered. */
  readonly onR2t?: (r2t: R2t) => boolean
  readonly timeoutMs?: number
}

export interface R2t {
  readonly offset: number
  readonly length: number
  readonly sn: number
  readonly transferTag: number
}

export interface Sense {
  readonly key: number
  /** ASC << 8 | ASCQ. */
  readonly code: number
  readonly raw: Buffer
}

export interface ScsiResult {
  readonly status: number
  /** Present where the target sent sense data. */
  readonly sense: Sense | undefined
  readonly data: Buffer
  /** Bytes not moved of those expected; negative: the target had more than expected. */
  readonly residual: number
  readonly dataIns: number
  readonly r2ts: number
}

interface OutPdu {
  readonly header: Buffer
  readonly data?: Buffer
}

const READ = 0x40
const WRITE = 0x20
const SIMPLE = 1
const DATA_IN = { STATUS: 0x01, UNDERFLOW: 0x02, OVERFLOW: 0x04 } as const

export class ScsiCall {
  readonly #options: ScsiOptions
  readonly #parameters: LoginResult
  readonly #tag: number
  readonly #end: (outcome: ScsiResult | Error) => void
  readonly #expectedBytes: number
  readonly #chunks: Buffer[] = []
  #received = 0
  #dataIns = 0
  #sequenceBytes = 0
  #inSequence = false
  #r2ts = 0
  #r2tsOpen = 0
  /** Next Data-Out byte that an R2T may ask for (DataSequenceInOrder=Yes). */
  #solicitedFrom = 0
  #ended = false

  constructor(
    options: ScsiOptions,
    parameters: LoginResult,
    tag: number,
    end: (outcome: ScsiResult | Error) => void,
  ) {
    this.#options = options
    this.#parameters = parameters
    this.#tag = tag
    this.#end = end
    this.#expectedBytes = options.expectedBytes ?? options.write?.length ?? options.read ?? 0
  }

  /** The command PDU and its unsolicited Data-Out. */
  begin(cmdSn: number): OutPdu[] {
    const { cdb, lun, read, write, attribute, immediateCommand } = this.#options
    const { initialR2t, firstBurstBytes, sendSegmentBytes } = this.#parameters
    const immediate = this.#immediateBytes()
    const unsolicitedEnd = Math.min(firstBurstBytes, this.#expectedBytes, write?.length ?? 0)
    const more =
      write !== undefined &&
      !initialR2t &&
      this.#options.unsolicited !== false &&
      unsolicitedEnd > immediate
    const flags =
      (more ? 0 : FINAL) |
      (read !== undefined ? READ : 0) |
      (write !== undefined ? WRITE : 0) |
      (attribute ?? SIMPLE)
    const opcode = OP.SCSI_COMMAND | (immediateCommand === true ? IMMEDIATE : 0)
    const header = newHeader(opcode, flags, this.#tag)
    lunField(lun ?? 0).copy(header, AT.LUN)
    header.writeUInt32BE(this.#expectedBytes, AT.EXPECTED_BYTES)
    header.writeUInt32BE(cmdSn, AT.CMD_SN)
    cdb.copy(header, AT.CDB, 0, 16)
    const pdus: OutPdu[] = [
      immediate > 0 && write ? { header, data: write.subarray(0, immediate) } : { header },
    ]
    this.#solicitedFrom = immediate
    if (more) {
      this.#dataOuts(pdus, NO_TAG, immediate, unsolicitedEnd - immediate, sendSegmentBytes)
      this.#solicitedFrom = unsolicitedEnd
    }
    return pdus
  }

  /** Takes a PDU of the target; what has to be sent in answer. */
  receive(pdu: Pdu): OutPdu[] {
    const handler = HANDLERS[opcodeOf(pdu)]
    ensure(handler !== undefined, `opcode ${opcodeOf(pdu)} for a SCSI command`)
    return handler(this, pdu)
  }

  /** Ends the command once, with its result or with what went wrong. */
  end(outcome: ScsiResult | Error): void {
    if (this.#ended) return
    this.#ended = true
    this.#end(outcome)
  }

  #immediateBytes(): number {
    const { write, immediateBytes } = this.#options
    const { immediateData, firstBurstBytes, sendSegmentBytes } = this.#parameters
    if (!write || !immediateData) return 0
    const allowed = Math.min(firstBurstBytes, sendSegmentBytes, write.length, this.#expectedBytes)
    return Math.min(allowed, immediateBytes ?? allowed)
  }

  #dataOuts(into: OutPdu[], transferTag: number, from: number, length: number, piece: number) {
    const data = this.#options.write ?? Buffer.alloc(0)
    let sn = 0
    for (let at = from; at < from + length; at += piece) {
      const end = Math.min(at + piece, from + length)
      const header = newHeader(OP.DATA_OUT, end === from + length ? FINAL : 0, this.#tag)
      lunField(this.#options.lun ?? 0).copy(header, AT.LUN)
      header.writeUInt32BE(transferTag, AT.TRANSFER_TAG)
      header.writeUInt32BE(sn++, AT.DATA_SN)
      header.writeUInt32BE(at, AT.BUFFER_OFFSET)
      into.push({ header, data: data.subarray(at, end) })
    }
  }

  onDataIn(pdu: Pdu): OutPdu[] {
    const { header, data } = pdu
    const flags = header[AT.FLAGS] ?? 0
    const sn = header.readUInt32BE(AT.DATA_SN)
    const offset = header.readUInt32BE(AT.BUFFER_OFFSET)
    ensure(this.#options.read !== undefined, 'Data-In for a command that reads nothing')
    ensure(sn === this.#dataIns, `DataSN ${sn}, not ${this.#dataIns}`)
    ensure(offset === this.#received, `Data-In at offset ${offset}, not ${this.#received}`)
    this.#dataIns++
    this.#received += data.length
    ensure(this.#received <= this.#expectedBytes, 'more Data-In than expected')
    this.#sequenceBytes += data.length
    const { maxBurstBytes } = this.#parameters
    ensure(this.#sequenceBytes <= maxBurstBytes, 'a Data-In sequence exceeds MaxBurstLength')
    this.#inSequence = (flags & FINAL) === 0
    if (!this.#inSequence) this.#sequenceBytes = 0
    this.#chunks.push(data)
    if ((flags & DATA_IN.STATUS) === 0) {
      ensure((flags & (DATA_IN.OVERFLOW | DATA_IN.UNDERFLOW)) === 0, 'residual without status')
      return []
    }
    ensure(!this.#inSequence, 'status in a Data-In without the F bit')
    this.#finish(header[3] ?? 0, flags, header.readUInt32BE(AT.RESIDUAL), undefined)
    return []
  }

  onR2t(pdu: Pdu): OutPdu[] {
    const { header } = pdu
    const sn = header.readUInt32BE(AT.DATA_SN)
    const offset = header.readUInt32BE(AT.BUFFER_OFFSET)
    const length = header.readUInt32BE(AT.RESIDUAL)
    const transferTag = header.readUInt32BE(AT.TRANSFER_TAG)
    const { maxBurstBytes, maxOutstandingR2t, sendSegmentBytes } = this.#parameters
    ensure(this.#options.write !== undefined, 'R2T for a command that writes nothing')
    ensure(sn === this.#r2ts, `R2TSN ${sn}, not ${this.#r2ts}`)
    ensure(transferTag !== NO_TAG, 'an R2T without a transfer tag')
    ensure(length > 0 && length <= maxBurstBytes, `an R2T for ${length} bytes`)
    ensure(offset === this.#solicitedFrom, `R2T at ${offset}, not ${this.#solicitedFrom}`)
    ensure(offset + length <= this.#expectedBytes, 'an R2T beyond the expected length')
    this.#r2ts++
    this.#r2tsOpen++
    ensure(this.#r2tsOpen <= maxOutstandingR2t, `${this.#r2tsOpen} R2Ts outstanding`)
    this.#solicitedFrom = offset + length
    if (this.#options.onR2t?.({ offset, length, sn, transferTag }) === false) return []
    this.#r2tsOpen--
    const pdus: OutPdu[] = []
    this.#dataOuts(pdus, transferTag, offset, length, sendSegmentBytes)
    return pdus
  }

  onResponse(pdu: Pdu): OutPdu[] {
    const { header, data } = pdu
    const flags = header[AT.FLAGS] ?? 0
    const response = header[2] ?? 0
    ensure((flags & FINAL) !== 0, 'a SCSI response without bit 80h')
    ensure((flags & 0x18) === 0, 'bidirectional residual flags')
    if (response !== 0) {
      this.end(new Error(`iSCSI response ${response}: not completed at the target`))
      return []
    }
    const expDataSn = header.readUInt32BE(36)
    const sent = this.#options.read === undefined ? this.#r2ts : this.#dataIns
    ensure(expDataSn === sent || expDataSn === 0, `ExpDataSN ${expDataSn}, but ${sent} PDUs came`)
    ensure(!this.#inSequence, 'a response in the middle of a Data-In sequence')
    this.#finish(header[3] ?? 0, flags, header.readUInt32BE(AT.RESIDUAL), data)
    return []
  }

  #finish(status: number, flags: number, count: number, segment: Buffer | undefined): void {
    const over = (flags & DATA_IN.OVERFLOW) !== 0
    const under = (flags & DATA_IN.UNDERFLOW) !== 0
    ensure(!(over && under), 'underflow and overflow at once')
    ensure(over || under || count === 0, `a residual of ${count} without its flag`)
    ensure(!under || count <= this.#expectedBytes, `an underflow of ${count}`)
    if (this.#options.read !== undefined) {
      const wanted = this.#expectedBytes - (under ? count : 0)
      ensure(this.#received === wanted, `${this.#received} bytes came, residuals say ${wanted}`)
    }
    this.end({
      status,
      sense: decodeSense(segment),
      data: Buffer.concat(this.#chunks),
      residual: over ? -count : count,
      dataIns: this.#dataIns,
      r2ts: this.#r2ts,
    })
  }
}

const HANDLERS: Readonly<Record<number, (call: ScsiCall, pdu: Pdu) => OutPdu[]>> = {
  [OP.DATA_IN]: (call, pdu) => call.onDataIn(pdu),
  [OP.R2T]: (call, pdu) => call.onR2t(pdu),
  [OP.SCSI_RESPONSE]: (call, pdu) => call.onResponse(pdu),
}

/** Sense data of a response segment (RFC 7143, 11.4.7), fixed or descriptor format (SPC-4, 4.5). */
function decodeSense(segment: Buffer | undefined): Sense | undefined {
  if (!segment || segment.length === 0) return undefined
  const length = segment.readUInt16BE(0)
  ensure(length <= segment.length - 2, `${length} bytes of sense in a segment of ${segment.length}`)
  const raw = segment.subarray(2, 2 + length)
  const format = (raw[0] ?? 0) & 0x7f
  const at = FORMATS[format]
  ensure(at !== undefined, `sense data of format ${format.toString(16)}h`)
  ensure(raw.length > at.ascq, `sense data of ${raw.length} bytes`)
  return {
    key: (raw[at.key] ?? 0) & 0x0f,
    code: ((raw[at.asc] ?? 0) << 8) | (raw[at.ascq] ?? 0),
    raw,
  }
}

const FORMATS: Readonly<Record<number, { key: number; asc: number; ascq: number }>> = {
  112: { key: 2, asc: 12, ascq: 13 },
  114: { key: 1, asc: 2, ascq: 3 },
}

function ensure(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`the target breaks the protocol: ${message}`)
}
