/**
 * Cuts a byte stream into iSCSI PDUs (RFC 7143, 11.2) and puts each data segment where its handler wants
 * it, before the bytes arrive. No sockets: the owner asks `nextBuffer` where the next bytes shall be read
 * to and says with `received` how many came. Two ways lead into a data segment's destination: bytes that
 * arrive with a header in the shared receive buffer are copied once; when much of a segment is still to
 * come, `nextBuffer` is the destination itself and nothing is copied.
 *
 *   BHS 48 | AHS 0..1020 | header digest 0 or 4 | data 0..2^24-1 | pad 0..3 | data digest 0 or 4
 */
import { assert } from '../base/assert.ts'
import { crc32c } from '../base/crc32c.ts'
import {
  AHS_BYTES_MAX,
  ahsBytes,
  BHS_BYTES,
  DIGEST_BYTES,
  dataSegmentBytes,
  padBytes,
} from './pdu.ts'

/** From this many missing bytes on, the socket reads into the destination itself. */
const DIRECT_BYTES_MIN = 16 * 1024

export type PduFault = 'header-digest' | 'ahs-too-long' | 'segment-too-long'

export interface PduHandler {
  /**
   * A header is complete (and its digest right). The handler reads it now, since the memory is reused, and
   * calls `reader.into` where it wants the data segment; otherwise the segment is thrown away.
   * Returns false to stop reading for good.
   */
  header(bhs: Buffer, ahs: Buffer): boolean
  /** The PDU is complete. `dataDigestOk` is false where the data digest does not fit. False stops for good. */
  complete(dataDigestOk: boolean): boolean
  /** Between two PDUs: may the next one be taken from what has been received, or does it wait for `work`? */
  mayGoOn(): boolean
  /** The stream cannot be followed any further. */
  fault(fault: PduFault): void
}

type State = 'header' | 'data' | 'tail' | 'stopped'

export class PduReader {
  /** Both change at the end of the login. */
  headerDigest = false
  dataDigest = false
  /** Longest data segment that is accepted. */
  segmentBytesMax: number
  /** Most bytes of additional header segments: judged as soon as the basic header is there. */
  ahsBytesMax = 0

  readonly #handler: PduHandler
  #receive: Buffer
  /** Bytes that have been received and not worked off: #from[#at..#end). */
  #from: Buffer
  #at = 0
  #end = 0
  #receiveBytes: number
  readonly #header = Buffer.alloc(BHS_BYTES + AHS_BYTES_MAX + DIGEST_BYTES)
  readonly #tail = Buffer.alloc(3 + DIGEST_BYTES)
  readonly #bhs: Buffer
  #state: State = 'header'
  /** Bytes of the current part that are needed, and that are there. */
  #need = BHS_BYTES
  #have = 0
  #dataBytes = 0
  #sink: Buffer | undefined
  #sinkOffset = 0
  #sinkBytes = 0
  #direct = false
  /** CRC of discarded data, that has no place to be summed up in later. */
  #crc = 0

  /** `receiveBytes`: size of the shared receive buffer of this stream. */
  constructor(handler: PduHandler, receiveBytes: number, segmentBytesMax: number) {
    this.#handler = handler
    this.#receiveBytes = receiveBytes
    this.#receive = Buffer.allocUnsafeSlow(receiveBytes)
    this.#from = this.#receive
    this.#bhs = this.#header.subarray(0, BHS_BYTES)
    this.segmentBytesMax = segmentBytesMax
  }

  /**
   * Another receive buffer: small before the login, of which anybody may have one, larger after it. It is the next one that is
   * asked for: bytes may be on their way into the one before.
   */
  resize(receiveBytes: number): void {
    this.#receiveBytes = receiveBytes
  }

  /** From within `header`: the first `length` bytes of the segment go to `sink` at `offset`, the rest is thrown away. */
  into(sink: Buffer, offset: number, length: number): void {
    assert(offset >= 0 && length >= 0 && offset + length <= sink.length, 'the sink holds the data')
    this.#sink = sink
    this.#sinkOffset = offset
    this.#sinkBytes = length
  }

  /** The current PDU is one whose data is arriving: the sink's memory must stay. */
  get midSegment(): boolean {
    return this.#state === 'data' || this.#state === 'tail'
  }

  /** Bytes of the present data segment that have come. */
  get segmentBytesThere(): number {
    return this.#state === 'data' ? this.#have : this.#state === 'tail' ? this.#dataBytes : 0
  }

  /** Where the next bytes of the stream belong. */
  nextBuffer(): Buffer {
    const missing = this.#need - this.#have
    // Bytes that wait for `work` come first, and may belong to the segment.
    this.#direct =
      !this.hasMore &&
      this.#state === 'data' &&
      missing >= DIRECT_BYTES_MIN &&
      this.#sink !== undefined &&
      this.#need <= this.#sinkBytes
    if (!this.#direct) {
      if (this.#receive.length !== this.#receiveBytes) {
        this.#receive = Buffer.allocUnsafeSlow(this.#receiveBytes)
      }
      return this.#receive
    }
    const at = this.#sinkOffset + this.#have
    return (this.#sink as Buffer).subarray(at, at + missing)
  }

  /** Received bytes wait for `work`: nothing may be read into `nextBuffer` before. */
  get hasMore(): boolean {
    return this.#at < this.#end && this.#state !== 'stopped'
  }

  /** `count` bytes were put at the start of the last `nextBuffer`. They are worked off by `work`, unless a segment took them. */
  received(count: number): void {
    if (!this.#direct) {
      this.push(this.#receive, 0, count)
      return
    }
    this.#direct = false
    this.#have += count
    if (this.#have === this.#need) this.#dataDone()
  }

  /** Bytes from elsewhere, for `work`: `from[start..end)`, which stays as it is until then, continues the stream. */
  push(from: Buffer, start: number, end: number): void {
    assert(!this.hasMore, 'what was received before has been worked off')
    this.#from = from
    this.#at = start
    this.#end = end
  }

  /** Works off what has been received, as far as the handler permits. */
  work(): void {
    while (this.#at < this.#end && this.#state !== 'stopped') {
      const from = this.#from
      const at = this.#at
      const take = Math.min(this.#end - at, this.#need - this.#have)
      if (this.#state === 'header') from.copy(this.#header, this.#have, at, at + take)
      else if (this.#state === 'tail') from.copy(this.#tail, this.#have, at, at + take)
      else this.#store(from, at, take)
      this.#at += take
      this.#have += take
      if (this.#have < this.#need) break
      if (this.#state === 'header') this.#headerPartDone()
      else if (this.#state === 'data') this.#dataDone()
      else this.#tailDone()
      const betweenPdus = this.#state === 'header' && this.#have === 0
      if (betweenPdus && this.#at < this.#end && !this.#handler.mayGoOn()) break
    }
  }

  #store(from: Buffer, at: number, take: number): void {
    const room = Math.min(take, this.#sinkBytes - this.#have)
    if (this.#sink !== undefined && room > 0) {
      from.copy(this.#sink, this.#sinkOffset + this.#have, at, at + room)
    }
    if (this.dataDigest && this.#need > this.#sinkBytes) {
      this.#crc = crc32c(from.subarray(at, at + take), this.#crc)
    }
  }

  #headerPartDone(): void {
    const ahs = ahsBytes(this.#bhs)
    if (ahs > this.ahsBytesMax) {
      this.#stop('ahs-too-long')
      return
    }
    const whole = BHS_BYTES + ahs + (this.headerDigest ? DIGEST_BYTES : 0)
    if (this.#have < whole) {
      this.#need = whole
      return
    }
    if (this.headerDigest) {
      const digest = this.#header.readUInt32LE(whole - DIGEST_BYTES)
      if (crc32c(this.#header.subarray(0, whole - DIGEST_BYTES)) !== digest) {
        this.#stop('header-digest')
        return
      }
    }
    this.#dataBytes = dataSegmentBytes(this.#bhs)
    if (this.#dataBytes > this.segmentBytesMax) {
      this.#stop('segment-too-long')
      return
    }
    this.#sink = undefined
    this.#sinkBytes = 0
    this.#crc = 0
    if (!this.#handler.header(this.#bhs, this.#header.subarray(BHS_BYTES, BHS_BYTES + ahs))) {
      this.#state = 'stopped'
      return
    }
    if (this.#dataBytes === 0) this.#finish(true)
    else this.#begin('data', this.#dataBytes)
  }

  #dataDone(): void {
    const tail = padBytes(this.#dataBytes) + (this.dataDigest ? DIGEST_BYTES : 0)
    if (tail === 0) this.#finish(true)
    else this.#begin('tail', tail)
  }

  #tailDone(): void {
    if (!this.dataDigest) {
      this.#finish(true)
      return
    }
    const pad = padBytes(this.#dataBytes)
    let crc = this.#crc
    if (this.#sink !== undefined && this.#dataBytes <= this.#sinkBytes) {
      crc = crc32c(this.#sink.subarray(this.#sinkOffset, this.#sinkOffset + this.#dataBytes))
    }
    if (pad > 0) crc = crc32c(this.#tail.subarray(0, pad), crc)
    this.#finish(crc === this.#tail.readUInt32LE(pad))
  }

  #finish(dataDigestOk: boolean): void {
    this.#begin('header', BHS_BYTES)
    if (!this.#handler.complete(dataDigestOk)) this.#state = 'stopped'
    this.#sink = undefined
  }

  #begin(state: State, need: number): void {
    this.#state = state
    this.#need = need
    this.#have = 0
  }

  #stop(fault: PduFault): void {
    this.#state = 'stopped'
    this.#handler.fault(fault)
  }
}
