/**
 * iSCSI PDUs for the test initiator: header layouts of RFC 7143, 11, a reader that cuts a byte stream
 * into PDUs, and CRC32C digests (13.1). Written without a look at src/iscsi, and sharing no code with
 * it, so that the two check each other. Used by test/support/initiator.ts, the fuzzer and the tests.
 */

export const BHS_BYTES = 48
export const NO_TAG = 0xffffffff
/** The largest data segment that 24 bits can announce. */
export const SEGMENT_MAX_BYTES = 0xffffff

/** Opcodes (RFC 7143, 11.2.1.2). */
export const OP = {
  NOP_OUT: 0x00,
  SCSI_COMMAND: 0x01,
  TASK_MANAGEMENT: 0x02,
  LOGIN: 0x03,
  TEXT: 0x04,
  DATA_OUT: 0x05,
  LOGOUT: 0x06,
  SNACK: 0x10,
  NOP_IN: 0x20,
  SCSI_RESPONSE: 0x21,
  TASK_MANAGEMENT_RESPONSE: 0x22,
  LOGIN_RESPONSE: 0x23,
  TEXT_RESPONSE: 0x24,
  DATA_IN: 0x25,
  LOGOUT_RESPONSE: 0x26,
  R2T: 0x31,
  ASYNC: 0x32,
  REJECT: 0x3f,
} as const

export const IMMEDIATE = 0x40
export const FINAL = 0x80
export const CONTINUE = 0x40

/** Byte positions of the fields that more than one PDU has. */
export const AT = {
  FLAGS: 1,
  AHS_WORDS: 4,
  SEGMENT_BYTES: 5,
  LUN: 8,
  TAG: 16,
  EXPECTED_BYTES: 20,
  TRANSFER_TAG: 20,
  CMD_SN: 24,
  STAT_SN: 24,
  EXP_STAT_SN: 28,
  EXP_CMD_SN: 28,
  MAX_CMD_SN: 32,
  CDB: 32,
  DATA_SN: 36,
  BUFFER_OFFSET: 40,
  RESIDUAL: 44,
} as const

export interface Pdu {
  /** The 48 bytes of the basic header segment. */
  readonly header: Buffer
  /** Additional header segments, padded; empty for most. */
  readonly ahs: Buffer
  /** Data segment without its padding. */
  readonly data: Buffer
}

export interface DigestUse {
  header: boolean
  data: boolean
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let crc = index
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0)
  return crc
})

/** CRC32C of the parts one after the other, as the four bytes that go on the wire. */
export function digestOf(...parts: readonly Uint8Array[]): Buffer {
  let crc = 0xffffffff
  for (const part of parts) {
    for (const byte of part) crc = (crc >>> 8) ^ (CRC_TABLE[(crc ^ byte) & 0xff] ?? 0)
  }
  const wire = Buffer.alloc(4)
  wire.writeUInt32LE(~crc >>> 0)
  return wire
}

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4)
}

/** A header with opcode (immediate bit included), flags and initiator task tag; the rest is zero. */
export function newHeader(opcode: number, flags: number, tag: number): Buffer {
  const header = Buffer.alloc(BHS_BYTES)
  header[0] = opcode
  header[AT.FLAGS] = flags
  header.writeUInt32BE(tag, AT.TAG)
  return header
}

/**
 * The wire form of a PDU. Segment lengths are written into a copy of the header; digests are appended
 * as `digests` says.
 */
export function encodePdu(
  header: Buffer,
  data: Buffer = Buffer.alloc(0),
  digests: DigestUse = { header: false, data: false },
  ahs: Buffer = Buffer.alloc(0),
): Buffer {
  const bhs = Buffer.from(header)
  bhs[AT.AHS_WORDS] = ahs.length / 4
  bhs.writeUIntBE(data.length, AT.SEGMENT_BYTES, 3)
  const parts = [bhs, ahs]
  if (digests.header) parts.push(digestOf(bhs, ahs))
  if (data.length > 0) {
    const pad = padding(data.length)
    parts.push(data, pad)
    if (digests.data) parts.push(digestOf(data, pad))
  }
  return Buffer.concat(parts)
}

/** Opcode of a PDU without its immediate bit. */
export function opcodeOf(pdu: Pdu): number {
  return (pdu.header[0] ?? 0) & 0x3f
}

/**
 * Cuts what arrives into PDUs and checks the digests that were negotiated. A bad digest, padding that
 * is not zero, or a segment longer than `segmentLimitBytes` throws: nothing of it may come from a target.
 */
export class PduCutter {
  digests: DigestUse = { header: false, data: false }
  segmentLimitBytes = SEGMENT_MAX_BYTES
  #chunks: Buffer[] = []
  #held = 0

  push(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#held += chunk.length
  }

  /** Bytes that belong to a PDU which is not whole yet. */
  get heldBytes(): number {
    return this.#held
  }

  /** The next whole PDU, or undefined until more bytes come. */
  next(): Pdu | undefined {
    if (this.#held < BHS_BYTES) return undefined
    const start = this.#peek(BHS_BYTES)
    const ahsBytes = (start[AT.AHS_WORDS] ?? 0) * 4
    const dataBytes = start.readUIntBE(AT.SEGMENT_BYTES, 3)
    if (dataBytes > this.segmentLimitBytes) {
      throw new Error(`target sent a data segment of ${dataBytes}, over ${this.segmentLimitBytes}`)
    }
    const padded = dataBytes + ((4 - (dataBytes % 4)) % 4)
    const headEnd = BHS_BYTES + ahsBytes
    const dataStart = headEnd + (this.digests.header ? 4 : 0)
    const total = dataStart + padded + (this.digests.data && dataBytes > 0 ? 4 : 0)
    if (this.#held < total) return undefined
    const bytes = this.#take(total)
    const dataEnd = dataStart + padded
    if (this.digests.header) {
      compare(digestOf(bytes.subarray(0, headEnd)), bytes.subarray(headEnd, dataStart), 'header')
    }
    if (this.digests.data && dataBytes > 0) {
      compare(digestOf(bytes.subarray(dataStart, dataEnd)), bytes.subarray(dataEnd), 'data')
    }
    if (bytes.subarray(dataStart + dataBytes, dataEnd).some((byte) => byte !== 0)) {
      throw new Error('target sent padding that is not zero')
    }
    return {
      header: bytes.subarray(0, BHS_BYTES),
      ahs: bytes.subarray(BHS_BYTES, headEnd),
      data: bytes.subarray(dataStart, dataStart + dataBytes),
    }
  }

  #peek(count: number): Buffer {
    const first = this.#chunks[0]
    if (first && first.length >= count) return first.subarray(0, count)
    this.#chunks = [Buffer.concat(this.#chunks)]
    return (this.#chunks[0] ?? Buffer.alloc(0)).subarray(0, count)
  }

  #take(count: number): Buffer {
    let first = this.#chunks[0] ?? Buffer.alloc(0)
    if (first.length < count) {
      first = Buffer.concat(this.#chunks)
      this.#chunks = [first]
    }
    const taken = first.subarray(0, count)
    if (first.length === count) this.#chunks.shift()
    else this.#chunks[0] = first.subarray(count)
    this.#held -= count
    return taken
  }
}

function compare(expected: Buffer, actual: Buffer, which: string): void {
  if (expected.equals(actual)) return
  throw new Error(
    `target sent a wrong ${which} digest: ${actual.toString('hex')}, not ${expected.toString('hex')}`,
  )
}

/** `key=value` pairs of a text segment, each ended by a zero byte (RFC 7143, 6.1). */
export function encodeText(pairs: Iterable<readonly [string, string]>): Buffer {
  let text = ''
  for (const [key, value] of pairs) text += `${key}=${value}\0`
  return Buffer.from(text)
}

/** The pairs of a text segment in their order; keys may repeat (SendTargets answers do). */
export function decodeText(segment: Buffer): [string, string][] {
  return segment
    .toString()
    .split('\0')
    .filter((part) => part !== '')
    .map((part) => {
      const equals = part.indexOf('=')
      if (equals < 1) throw new Error(`target sent "${part}" as text, which is no key=value`)
      return [part.slice(0, equals), part.slice(equals + 1)]
    })
}

/** Serial number arithmetic (RFC 1982, 32 bits): a < b. */
export function serialLess(a: number, b: number): boolean {
  return a !== b && ((b - a) & 0xffffffff) > 0
}

export function serialNext(a: number): number {
  return (a + 1) >>> 0
}

/** A LUN as the 8 bytes of SAM-5, 4.7: peripheral addressing below 256, flat addressing above. */
export function lunField(lun: number): Buffer {
  const field = Buffer.alloc(8)
  field.writeUInt16BE(lun < 256 ? lun : 0x4000 | lun)
  return field
}
